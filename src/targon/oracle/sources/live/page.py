"""From an answer to the text and the links of its page, as far as the page lets us have them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from targon.oracle.errors import ToolMissing
from targon.oracle.sources.html import readable, unicode_of
from targon.oracle.sources.limits import LIMITS
from targon.oracle.sources.live.fetch import Answer, Failed
from targon.oracle.sources.live.limits import LIVE_LIMITS, LiveLimits
from targon.oracle.sources.live.robots import PRODUCT
from targon.oracle.sources.live.urls import normalised
from targon.oracle.sources.skipped import Unreadable
from targon.oracle.sources.tamed import tamed

_NO_TEXT: Final = frozenset({"noindex", "none", "noai", "nosnippet"})
_NO_LINKS: Final = frozenset({"nofollow", "none"})
_WORDS: Final = re.compile(r"[\s,]+")
_AGENT: Final = re.compile(r"\s*([A-Za-z0-9_-]+)\s*:(.*)", re.DOTALL)
_UNAVAILABLE: Final = "unavailable_after"


@dataclass(frozen=True, slots=True)
class Page:
    """What an answer gives."""

    text: str
    """Empty where the page has none, or doesn't want it to be used."""
    links: tuple[str, ...]
    """Normalised, each once, in the page's order."""
    refuses: bool
    """Whether the page doesn't want its text to be used."""


def page_of(answer: Answer, url: str, limits: LiveLimits = LIVE_LIMITS) -> Page:
    """Read an answer.

    Raises:
        Failed: if it is no text, or made so that reading it would take too long.
        ToolMissing: without resiliparse.
    """
    words = _said(answer.headers.get("x-robots-tag", ()))
    refuses = bool(words & _NO_TEXT) or answer.header("tdm-reservation").strip() == "1"
    try:
        content = unicode_of(answer.body[: LIMITS.html_bytes], answer.charset)
        if answer.kind == "text/plain":
            return Page("" if refuses else content[: limits.text_chars].strip(), (), refuses)
        content = tamed(content)
        text = readable(content)
    except Unreadable as error:
        raise Failed(error.reason if error.reason == "not_unicode" else "corrupt", error.detail) from error
    try:
        from resiliparse.parse.html import HTMLTree
    except ImportError as error:
        raise ToolMissing("resiliparse", "to read web pages") from error
    document = HTMLTree.parse(content).document
    if document is None:
        return Page("", (), refuses)
    for meta in document.query_selector_all("meta[name][content]"):
        name = (meta.get_attribute("name") or "").strip().lower()
        value = (meta.get_attribute("content") or "").strip().lower()
        if name in {"robots", PRODUCT}:
            words |= set(_WORDS.split(value))
        refuses = refuses or (name == "tdm-reservation" and value == "1")
    refuses = refuses or bool(words & _NO_TEXT)
    links: dict[str, None] = {}
    if not words & _NO_LINKS:
        first = document.query_selector("base[href]")
        base = normalised(first.get_attribute("href") or "", url) if first is not None else None
        for anchor in document.query_selector_all("a[href]"):
            if "nofollow" in (anchor.get_attribute("rel") or "").lower().split():
                continue
            link = normalised(anchor.get_attribute("href") or "", base or url)
            if link is not None:
                links[link] = None
            if len(links) >= limits.links:
                break
    text = text[: limits.text_chars].encode("utf-8", "replace").decode()
    return Page("" if refuses else text.strip(), tuple(links), refuses)


def _said(headers: Iterable[str]) -> set[str]:
    """The words of ``X-Robots-Tag`` that are for everybody or for us."""
    words: set[str] = set()
    for header in headers:
        agent = _AGENT.match(header)
        if agent and agent[1].lower() != _UNAVAILABLE:
            if agent[1].lower() != PRODUCT:
                continue
            header = agent[2]
        words |= set(_WORDS.split(header.strip().lower()))
    return words
