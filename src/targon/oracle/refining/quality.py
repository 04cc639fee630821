"""Whether a text is prose that a question can be asked about. Pure functions; each fault has its name."""

from __future__ import annotations

import re
from typing import Final

from targon.oracle.refining.reasons import Reason

LEAST_WORDS: Final = 15
LEAST_LETTERS: Final = 0.93
"""Share of letters, spaces, and marks of sentences among a text's characters."""
MOST_DIGITS: Final = 0.06
MOST_CAPITALS: Final = 0.15
"""Share of capital letters among the letters."""
MOST_CAPITALISED: Final = 0.45
"""Share of words that begin with one: names and headings in a row."""
LEAST_DIFFERENT: Final = 0.5
"""Share of words that are not said again."""
WORD_LENGTHS: Final = (3.0, 9.0)
"""Mean length of a word."""
LONGEST_WORD: Final = 30
LEAST_SMALL_WORDS: Final = 0.2
"""Share of English's commonest words in an English text. Lists and telegrams have fewer."""

_MARKUP = re.compile(
    r"[<>\\^~|`•·■►▪*=#©®™]|&(?:[a-z]{2,8}|#\d+);|\]\(|\[\d*\]|\[(?:edit|citation|source|note|image|video)"
)
_CODE = re.compile(
    r"[;{}]$|[{}]|\.[a-z]\w*\(|::|->|=>|:=|!=|\+\+|&&|[a-z][A-Z]\w*[a-z][A-Z]"
    r"|\b(?:def|elif|const|printf|println|null|nullptr|stdin|stdout|href|async|argv|xmlns|boolean)\b"
)
_LIST = re.compile(
    r"[.;!?] (?:\d{1,3}|[b-zB-HJ-Z]|[ivx]{2,4}|[IVX]{2,4})[.)] | \((?:\d|[a-z]|[ivx]+)\) |: ?\d.*: ?\d|\. \. "
)
_ITEM = re.compile(r"\(?(?:\d{1,3}|[a-zA-Z]|[ivxIVX]{2,4})[.)] ")
MOST_DASHES: Final = 3
MOST_COMMAS: Final = 9

_BOILERPLATE = re.compile(
    r"\b(?:cookies?\b.{0,60}\b(?:experience|site|policy|browser|consent|settings|traffic|accept)"
    r"|(?:accept|uses?|using|enable|disable) (?:all )?cookies|all rights reserved|copyright"
    r"|terms (?:of (?:use|service|sale)|and conditions|& conditions)|privacy (?:policy|notice|statement)|disclaimer"
    r"|click (?:here|on|below|the|to)|sign up|log ?in\b|subscri(?:be|ption)|newsletter|unsubscribe"
    r"|e-?mail (?:us|me|address)"
    r"|java ?script|your browser|add to (?:cart|basket|wish)|shopping cart|free shipping|read more|learn more"
    r"|continue reading|share (?:this|on)|follow us|like us on|contact us|about us|call us|posted (?:by|on|in|at)"
    r"|leave a (?:comment|reply)|comments (?:are|off)|powered by|skip to|back to top|home ?page|site ?map"
    r"|web ?sites?|web ?pages?|downloads?|advertisements?|sponsored|affiliate|lorem ipsum|dolor sit amet|page not found"
    r"|project gutenberg|e-?books?|last (?:updated|modified)|this (?:page|article|post|website|site) (?:was|is|has)"
    r"|licensed under|creative commons|permission of|for more information|find out more|table of contents"
    r"|(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]* \d{1,2},? \d{4})"
)
_COMMONEST = """
    a about after all also an and any are as at be because been but by can could did do for from had has have he her him
    his how i if in into is it its may me more most my no not of on one only or other our out she so some such than that
    the their them then there these they this those to up upon us was we were what when where which who will with would
    you your
"""
_SMALL = frozenset(_COMMONEST.split())
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_MARKS: Final = frozenset(" .,;:!?'\"’\u2018“”-–—()")


def quality(text: str, *, english: bool) -> Reason | None:
    """Why a text isn't prose; None where it is.

    Args:
        text: cleaned.
        english: whether it is meant to be English.
    """
    if _MARKUP.search(text):
        return Reason.MARKUP
    if _CODE.search(text):
        return Reason.CODE
    if "…" in text or "..." in text:
        return Reason.TRUNCATED
    if (
        _LIST.search(text)
        or _ITEM.match(text)
        or text.count(",") > MOST_COMMAS
        or text.count(" - ") > MOST_DASHES
    ):
        return Reason.LIST
    if _BOILERPLATE.search(text.lower()):
        return Reason.BOILERPLATE
    return _by_words(text, english=english) or _by_characters(text)


def _by_words(text: str, *, english: bool) -> Reason | None:
    words = _WORD.findall(text)
    if len(words) < LEAST_WORDS:
        return Reason.WORDS
    mean = sum(map(len, words)) / len(words)
    if not WORD_LENGTHS[0] <= mean <= WORD_LENGTHS[1] or max(map(len, words)) > LONGEST_WORD:
        return Reason.WORDS
    if sum(word[0].isupper() for word in words) > MOST_CAPITALISED * len(words):
        return Reason.CAPITALS
    folded = [word.casefold() for word in words]
    if _repeats(folded):
        return Reason.REPETITION
    if english and sum(word in _SMALL for word in folded) < LEAST_SMALL_WORDS * len(words):
        return Reason.WORDS
    return None


def _repeats(words: list[str]) -> bool:
    """Whether words are said again and again: alone, in a row, or five of them together."""
    if len(set(words)) < LEAST_DIFFERENT * len(words):
        return True
    if any(one == two == three for one, two, three in zip(words, words[1:], words[2:], strict=False)):
        return True
    fives = list(zip(*(words[place:] for place in range(5)), strict=False))
    return len(set(fives)) < len(fives)


def _by_characters(text: str) -> Reason | None:
    letters = sum(map(str.isalpha, text))
    if sum(map(str.isupper, text)) > MOST_CAPITALS * letters:
        return Reason.CAPITALS
    if sum(map(str.isdigit, text)) > MOST_DIGITS * len(text):
        return Reason.DIGITS
    marks = sum(map(_MARKS.__contains__, text))
    return Reason.SYMBOLS if letters + marks < LEAST_LETTERS * len(text) or marks > 0.4 * len(text) else None
