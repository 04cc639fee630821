"""From a web page's bytes to its readable text."""

from __future__ import annotations

import codecs
import re
from typing import Final

from targon.oracle.errors import ToolMissing
from targon.oracle.sources.skipped import Unreadable

_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_DECLARED: Final = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?([A-Za-z0-9_:.-]{2,40})", re.IGNORECASE)
_DECLARED_WITHIN: Final = 4_096
_MOST_REPLACED: Final = 0.01
"""Share of characters that may be no text in the page's encoding."""


def unicode_of(content: bytes, charset: str | None) -> str:
    """The text of a page, decoded as browsers do: by its mark, its header, its own word, or else its look.

    Raises:
        Unreadable: if too much of it is no text in that encoding.
        ToolMissing: without resiliparse.
    """
    try:
        from resiliparse.parse.encoding import bytes_to_str, detect_encoding, map_encoding_to_html5
    except ImportError as error:
        raise ToolMissing("resiliparse", "to read web pages") from error
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), None) or charset
    if not encoding and (declared := _DECLARED.search(content, 0, _DECLARED_WITHIN)):
        encoding = declared[1].decode("ascii")
    encoding = map_encoding_to_html5(encoding, fallback_utf8=False) if encoding else None
    text = bytes_to_str(content, encoding or detect_encoding(content) or "utf-8", errors="replace")
    if text.count("\ufffd") > _MOST_REPLACED * len(text):
        raise Unreadable("not_unicode", f"expected {encoding or 'some encoding'}")
    return text


def readable(page: str) -> str:
    """The main text of an HTML page.

    Args:
        page: what ``tamed`` made of it; another may take any time and memory.

    Raises:
        ToolMissing: without resiliparse.
    """
    try:
        from resiliparse.extract.html2text import extract_plain_text
    except ImportError as error:
        raise ToolMissing("resiliparse", "to read web pages") from error
    return extract_plain_text(
        page, main_content=True, list_bullets=False, alt_texts=False, comments=False, form_fields=False
    )
