"""From a document of any size to the passage at one place in it. Pure functions; only what lies around is looked at.

1. A text is divided, from its beginning, into stretches of ``STRETCH`` characters. A passage lies within one.
2. A stretch consists of sentences: each begins with a capital letter after the end of another or at the beginning of
   a paragraph, and ends in a full stop, question or exclamation mark before the next. What else there is (headings,
   items, the halves of sentences at a stretch's ends) belongs to no passage, and no passage goes on over it.
3. Sentences are joined from the front, until a run has ``MIN_CHARS`` characters or more: a passage. One that has more
   than ``MAX_CHARS`` is none, and the next run begins after it.

So a text has one list of passages, none of which overlap, whatever place was drawn. The law of the draw: **a place
gives the passage that it falls in, if it falls among its first ``MIN_CHARS`` characters, and none otherwise.** Every
passage has at least as many, and exactly as many give it: where places are drawn evenly, passages are, too, however
long they are. The length is that of the text as it stands, with its line ends and invisible characters.

Sentences are found in scripts that have capital letters: Latin, Greek, Cyrillic, Armenian.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from targon.oracle.passage import MAX_CHARS, MIN_CHARS
from targon.oracle.refining.reasons import Reason

STRETCH: Final = 2048
"""Characters that are looked at for one draw. At each end of a stretch, half a sentence and half a run are lost."""

MAX_WRAPPED: Final = 120
"""Characters of a line. Where a longer one stands, lines are paragraphs; else paragraphs may have several lines."""
MIN_WRAPPED: Final = 40

_INVISIBLE = "\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff"
_GAP = rf"[\s{_INVISIBLE}]"
_CLOSING = "\"'”’»)\\]"
_OPENING = "\"'“\u2018«„([¿¡*_"
_CAPITAL = "".join(filter(str.isupper, map(chr, range(0x0587))))
"""Of Latin, Greek, Cyrillic and Armenian."""
_OPENS = re.compile(f"[{re.escape(_OPENING)}]{{0,3}}[{_CAPITAL}]")
_END = re.compile(rf"[.!?…](?<![.!?…]{{2}})[.!?…]*+[{_CLOSING}]*+({_GAP}++)(?={_OPENS.pattern})")
_LAST = re.compile(rf"[.!?…][{_CLOSING}]*+\Z")
_ABBREVIATED = re.compile(
    r"(?<!\w)(?:\w|e\.g|i\.e|cf|vs|[Rr]esp|[Ee]tc|viz|al|[Ii]bid|approx|ca"
    r"|Mr|Mrs|Ms|Mme|Mlle|Dr|Prof|Rev|Hon|St|Sr|Jr|Gen|Col|Capt|Lt|Sgt|Gov|Sen|Rep"
    r"|Inc|Ltd|Co|Corp|Bros|No|Nos|[Ff]ig|[Ff]igs|[Vv]ol|[Cc]h|[Ss]ec|[Pp]p?|[Ee]d|[Ee]ds"
    r"|U\.S|U\.K|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)\.\Z"
)


@dataclass(frozen=True, slots=True)
class Cut:
    """A run of whole sentences as it stands in its text, not cleaned."""

    text: str
    start: int
    """Characters of the text before it."""


def cut(text: str, at: float) -> Cut | Reason:
    """The passage that a place in a text gives; the reason where it gives none.

    The time that this takes doesn't depend on the text's length.

    Args:
        at: in [0, 1), the place as a share of the text.

    Raises:
        ValueError: if the place isn't in the text.
    """
    if not 0.0 <= at < 1.0:
        raise ValueError(f"got the place {at}, expected one in [0, 1)")
    position = min(int(at * len(text)), len(text) - 1)
    begin = max(position, 0) // STRETCH * STRETCH
    stretch = text[begin : begin + STRETCH]
    whole = begin + STRETCH >= len(text)
    for start, end in runs(stretch, first=begin == 0, last=whole):
        if begin + start > position:
            break
        if position < begin + end:
            return (
                Cut(stretch[start:end], begin + start)
                if position < begin + start + MIN_CHARS
                else Reason.EVENNESS
            )
    return Reason.NO_SENTENCES


def runs(stretch: str, *, first: bool = True, last: bool = True) -> Iterator[tuple[int, int]]:
    """The passages of a stretch: where each begins and ends.

    Args:
        first: whether a text begins with it; ``last``: whether a text ends with it.
    """
    start = length = 0
    for sentence in sentences(stretch, first=first, last=last):
        if sentence is None:
            length = 0
            continue
        begin, end = sentence
        if not length or end - start > MAX_CHARS:
            start = begin
        length = end - start
        if length > MAX_CHARS:
            length = 0
        elif length >= MIN_CHARS:
            yield start, end
            length = 0


def sentences(stretch: str, *, first: bool, last: bool) -> Iterator[tuple[int, int] | None]:
    """Where each sentence of a stretch begins and ends; None for what is none, and no passage goes on over."""
    foot = len(stretch.rstrip())
    for start, end in _paragraphs(stretch):
        begun = first and _OPENS.match(stretch, start, end) is not None
        first = True
        for match in _END.finditer(stretch, start, end):
            if _is_abbreviated(stretch, match.start()):
                continue
            yield (start, match.start(1)) if begun else None
            start, begun = match.end(), True
        ended = (last or end < foot) and _LAST.search(stretch, max(start, end - 8), end)
        yield (start, end) if begun and ended else None


def _is_abbreviated(stretch: str, at: int) -> bool:
    """Whether the full stop there ends a word that is written short, and so no sentence."""
    return stretch[at] == "." and _ABBREVIATED.search(stretch, max(0, at - 8), at + 1) is not None


def _paragraphs(stretch: str) -> Iterator[tuple[int, int]]:
    """Where each paragraph begins and ends: lines that belong together, without the space around them.

    A line goes on in the next where paragraphs are broken into lines of some width, and the next one's first word
    would not have fit. A short line (a heading, an item of a menu) goes on nowhere.
    """
    lines = stretch.split("\n")
    width = max(map(len, lines))
    wrapped = MIN_WRAPPED <= width <= MAX_WRAPPED
    full = 0.8 * width
    begin, end, place, reach = -1, 0, 0, 0
    for line in lines:
        content = line.strip()
        if begin >= 0:
            word = content.find(" ") if " " in content else len(content)
            if not (wrapped and word and reach + 1 + word > full):
                yield begin, end
                begin = -1
        if content:
            at = place + line.find(content)
            reach = len(content)
            begin, end = at if begin < 0 else begin, at + reach
        place += len(line) + 1
    if begin >= 0:
        yield begin, end
