"""From documentation to passages: what counts as prose, and where it is cut. Pure functions."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator

from targon.oracle.passage import MAX_CHARS, MIN_CHARS

_ROLE = re.compile(r":[a-z]+(?::[a-z]+)?:`~?([^`]+)`")
_QUOTED = re.compile(r"``([^`]+)``|`([^`']+)['`]")
_STRONG = re.compile(r"(?<!\w)\*{1,2}([A-Za-z_][\w.]*)\*{1,2}(?!\w)")
_NOT_PROSE = re.compile(r">>>|::|\||[{}<>=\\^~_`*@#]{2}|--|==|\.\.\.|\bhttps?:")
_LINE_START = re.compile(r"\s*([-*+•>|:.@#$%=/~]|\d+[.)]|\w+\s*[:=-]{1,2}\s)")
_BULLET = re.compile(r"\A\s*[-*+•]\s+")
_SENTENCE = re.compile(r"(?<=[a-z0-9)\"'][.!?])\s+(?=[A-Z])")
_ABBREVIATED = re.compile(r"\b(?:e\.g|i\.e|etc|cf|vs|resp|Inc|No|Mr|Dr|St)\.$")


def passages(documentation: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Runs of whole sentences, each ``MIN_CHARS`` to ``MAX_CHARS`` long, none overlapping.

    A run goes on from one piece of documentation to the next, since most are shorter than a passage.

    Args:
        documentation: the pieces of one module in order: the line each begins on, and its text.

    Yields:
        the line that the run's first piece begins on, and the run.
    """
    run, start = "", 0
    for line, text in documentation:
        for sentence in _sentences(text):
            if run and len(run) + 1 + len(sentence) <= MAX_CHARS:
                run = f"{run} {sentence}"
            else:
                run, start = sentence, line
            if len(run) > MAX_CHARS:
                run = ""
            elif len(run) >= MIN_CHARS:
                yield start, run
                run = ""


def _sentences(documentation: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", documentation):
        unmarked = textwrap.dedent(_BULLET.sub(lambda match: " " * len(match[0]), paragraph.strip("\n")))
        if _is_prose(unmarked):
            yield from _split(_plain(unmarked))


def _is_prose(paragraph: str) -> bool:
    """Whether a paragraph is sentences: no code, list of several items, table, field or heading."""
    lines = paragraph.splitlines()
    return (
        not any(line[:1].isspace() or _LINE_START.match(line) for line in lines)
        and not paragraph.rstrip().endswith(":")
        and bool(re.match(r"[A-Z]", paragraph))
        and bool(re.search(r"[.!?]$", paragraph.rstrip()))
    )


def _plain(paragraph: str) -> str:
    """The paragraph on one line, its markup taken off."""
    text = _ROLE.sub(r"\1", paragraph)
    text = _QUOTED.sub(lambda match: match[1] or match[2], text)
    text = _STRONG.sub(r"\1", text)
    return " ".join(text.split())


def _split(text: str) -> Iterator[str]:
    """The sentences of a paragraph; those with code, addresses or unusual characters are left out."""
    sentence = ""
    for part in _SENTENCE.split(text):
        sentence = f"{sentence} {part}" if sentence else part
        if _ABBREVIATED.search(sentence):
            continue
        if sentence.isascii() and sentence.isprintable() and _reads(sentence):
            yield sentence
        sentence = ""


def _reads(sentence: str) -> bool:
    """Whether a sentence is mostly words, and enough of them."""
    letters = sum(character.isalpha() or character == " " for character in sentence)
    return (
        len(sentence.split()) >= 4
        and sentence[0].isupper()
        and letters >= 0.9 * len(sentence)
        and not _NOT_PROSE.search(sentence)
    )
