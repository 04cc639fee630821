"""A page's HTML written anew, so that parsing it is safe: pure functions.

A parser builds what a page's tags ask for, and they can ask for far more than they are: a few hundred unclosed ``<b>``
are set up again in each of the paragraphs that follow, and who looks for a page's main text takes the square of how
deep its elements lie. So the parser gets only tags that are written here: known ones, with the attributes that matter,
every one of them closed, in order, within bounds on how many there are and how deep. What this misreads may cost a
page some of its text; it can't cost more than that. The time is proportional to the page.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Final

from targon.oracle.sources.limits import LIMITS
from targon.oracle.sources.skipped import Unreadable

_TAG: Final = re.compile(r"<(?:(/?)([A-Za-z][^\s/>]*+)|([!?/]))")
_TO_END: Final = re.compile(r"(?:[^>\"'=]++|=\s*+(?:\"[^\"]*+\"|'[^']*+')|[=\"'])*+>")
"""A tag's attributes: where a value is quoted, ``>`` is of it."""
_ATTRIBUTE: Final = re.compile(
    r"(?<![^\s/\"'])(?:(hidden)(?![^\s/>])"
    r"|(class|id|role|rel|href|name|content|style|itemprop|hidden|aria-hidden|aria-expanded|data-[a-z]{0,5}-?ad\w{0,12})"
    r"\s*+=\s*+(\"[^\"]*+\"|'[^']*+'|[^\s\"'>]++))",
    re.IGNORECASE,
)
_VALUE_CHARS: Final = 2_000
_RAW: Final = frozenset({"script", "style", "title", "textarea", "iframe", "noembed", "noframes", "xmp"})
"""In which there are no tags."""
_UNREAD: Final = _RAW | (
    {
        "noscript",
        "template",
        "svg",
        "math",
        "select",
        "datalist",
        "object",
        "audio",
        "video",
        "canvas",
        "applet",
        "map",
    }
)
"""Left out with all that is in them."""
_ALONE: Final = frozenset({"br", "hr", "meta", "base"})
_NOTHING: Final = frozenset(
    {
        "html",
        "head",
        "body",
        "frameset",
        "frame",
        "area",
        "col",
        "colgroup",
        "caption",
        "embed",
        "img",
        "input",
        "link",
    }
    | {
        "option",
        "optgroup",
        "param",
        "source",
        "track",
        "wbr",
        "image",
        "plaintext",
        "marquee",
        "rb",
        "rp",
        "rt",
        "rtc",
    }
)
"""Of these the tags alone are left out."""
_BLOCKS: Final = frozenset(
    {
        "address",
        "article",
        "aside",
        "blockquote",
        "center",
        "dd",
        "details",
        "dialog",
        "dir",
        "div",
        "dl",
        "dt",
    }
    | {
        "fieldset",
        "figcaption",
        "figure",
        "footer",
        "form",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "header",
        "hgroup",
    }
    | {"li", "main", "menu", "nav", "ol", "p", "pre", "section", "summary", "ul"}
    | {"table", "tbody", "td", "tfoot", "th", "thead", "tr"}
)
_KEPT_INLINE: Final = frozenset({"a", "label", "button", "time"})
"""All others are as good as a span: above all those that parsers set up again where they weren't closed."""
_PARAGRAPH: Final = frozenset({"p"})
_TABLE: Final = frozenset({"table"})
_CELLS: Final = frozenset({"td", "th"})
_ROWS: Final = frozenset({"tbody", "thead", "tfoot"})
_LISTS: Final = frozenset(
    {"ul", "ol", "menu", "dir", "dl", "table", "td", "th", "section", "article", "main", "aside", "nav"}
)
_CLOSES: Final[dict[str, tuple[frozenset[str], frozenset[str]]]] = {
    "li": (frozenset({"li"}), _LISTS),
    **dict.fromkeys(("dt", "dd"), (frozenset({"dt", "dd"}), _LISTS)),
    **dict.fromkeys(_CELLS, (_CELLS, frozenset({"tr", "table"}))),
    "tr": (frozenset({"tr"}), _TABLE),
    **dict.fromkeys(_ROWS, (_ROWS, _TABLE)),
}
"""What an element's beginning ends, and what it can't reach over."""


def tamed(page: str) -> str:
    """The page with all of its text and main structure, and nothing that would make a parser work hard.

    Raises:
        Unreadable: if it has too many elements, or too many within one another.
    """
    writer = _Writer()
    place = 0
    unending: set[str] = set()
    while (tag := _TAG.search(page, place)) is not None:
        writer.text(page[place : tag.start()])
        if tag[3]:  # a comment, or what is taken for one
            mark = "-->" if page.startswith("<!--", tag.start()) else ">"
            end = page.find(mark, tag.start() + 2)
            if end < 0:
                return writer.whole()
            place = end + len(mark)
            continue
        end_of_tag = _TO_END.match(page, tag.end())
        if end_of_tag is None:  # the page ends within it
            return writer.whole()
        place = end_of_tag.end()
        name = tag[2].lower()
        if tag[1]:
            writer.end(name)
        elif name not in _UNREAD:
            writer.begin(name, page[tag.end() : place - 1])
        elif name not in unending:
            close = re.compile(rf"</{name}(?=[\s/>])", re.IGNORECASE).search(page, place)
            if close is None and name in _RAW:
                return writer.whole()
            if close is None:
                unending.add(name)
            else:
                place = close.start()
    writer.text(page[place:])
    return writer.whole()


class _Writer:
    """Tags and text, with every element closed before the one around it."""

    def __init__(self) -> None:
        self._out = ["<!doctype html>"]
        self._open: list[str] = []
        self._written: list[str] = []
        """As which each of the open ones was written; empty where it wasn't."""
        self._count = Counter[str]()
        self._elements = 0
        self._work = 0

    def whole(self) -> str:
        self._close(0)
        return "".join(self._out)

    def text(self, text: str) -> None:
        if text:
            self._out.append(text.replace("<", "&lt;"))

    def begin(self, name: str, attributes: str) -> None:
        if name in _NOTHING or (name == "a" and self._count["a"]):
            return
        self._elements += 1
        self._work += len(self._open)
        if (
            self._elements > LIMITS.html_elements
            or len(self._open) >= LIMITS.html_depth
            or self._work > LIMITS.html_work
        ):
            raise Unreadable("too_deep", f"{self._elements} elements, {len(self._open)} within one another")
        if name in _ALONE:
            self._out.append(f"<{name}{_kept(attributes)}>")
            return
        written = name
        if name in _BLOCKS:
            self._make_room(name)
        elif name not in _KEPT_INLINE:
            written = "span"
        kept = _kept(attributes)
        if written == "span" and not kept:
            written = ""
        else:
            self._out.append(f"<{written}{kept}>")
        self._open.append(name)
        self._written.append(written)
        self._count[name] += 1

    def end(self, name: str) -> None:
        if not self._count[name]:
            return
        stop = _TABLE if name in _BLOCKS else _BLOCKS
        for place in range(len(self._open) - 1, -1, -1):
            found = self._open[place]
            self._work += 1
            if found == name:
                self._close(place)
                return
            if found in stop:  # what is within ends nothing around it
                return

    def _make_room(self, name: str) -> None:
        """End what a block's beginning ends: a paragraph, and the item or cell before it."""
        closes, stop = _CLOSES.get(name, (_PARAGRAPH, _BLOCKS))
        for place in range(len(self._open) - 1, -1, -1):
            found = self._open[place]
            self._work += 1
            if found in closes:
                self._close(place)
                return
            if found == "p":
                self._close(place)
            elif found in stop:
                return

    def _close(self, place: int) -> None:
        """End all elements from one on, the innermost first."""
        while len(self._open) > place:
            self._count[self._open.pop()] -= 1
            if written := self._written.pop():
                self._out.append(f"</{written}>")


def _kept(attributes: str) -> str:
    if not attributes or attributes.isspace():
        return ""
    kept = dict[str, str]()
    for found in _ATTRIBUTE.finditer(attributes):
        value = found[3] or ""
        if value[:1] in {'"', "'"}:
            value = value[1:-1]
        if len(value) <= _VALUE_CHARS:
            kept.setdefault((found[1] or found[2]).lower(), value.replace('"', "&quot;"))
    return "".join(f' {name}="{value}"' for name, value in kept.items())
