"""Query generation: from a private input to a question that it answers.

The model writes it, with the protocol's sampler and a seed, so that whoever has the same engine, passage and seed gets
the same question. What it writes is looked at before anybody is asked: a small model now and then copies the passage,
asks about something else, or doesn't come to an end. Then it is asked once more, about another word and with another
seed; after that there is no query, and the caller does without.

What a fault is, is decided by the words alone: nothing is scored, so equal text is judged alike everywhere.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, Literal

from targon.engines import Engine, GenerateTask
from targon.protocol.messages import Sampling
from targon.protocol.primitives import u64_hex
from targon.protocol.prompt import query_messages

TRIES: Final = 2
QUERY_TEMPERATURES: Final = (0.3, 0.6)
"""Of the first try and of the second: what asked for nothing once does so again unless it is let further away."""
STOP: Final = ("\n", "?")
MIN_WORDS: Final = 3
MAX_WORDS: Final = 40
MIN_CHARS: Final = 12
MAX_CHARS: Final = 300
MAX_COPIED: Final = 0.85
"""Share of a query's words that may stand in a row in the passage: a sentence with a question mark is no question."""
MIN_STEM: Final = 4
STEM: Final = 0.6
"""Letters, and share of the shorter word: words that begin with so many of the same count as one (default, defaulting;
file, filename)."""

QueryFault = Literal[
    "unfinished", "too short", "too long", "unprintable", "other script", "no question", "copied", "unrelated"
]
"""``unfinished``: it was cut off by its length. ``other script``: it is written in letters that the passage doesn't
use. ``no question``: English words, and none that asks among the first. ``unrelated``: it shares no telling word with
the passage, so that nothing shows that the passage answers it."""

Ending = Literal["first", "second", "none"]
"""Which try gave the query; none: neither did."""

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_COMMON: Final = frozenset(
    """
    a about above all also an and any are as at be been being by can could did do does for from had has have how if in
    into is it its may might more most much must no not of on only or other our over passage please question shall she
    should so some such text than that the their them then there these they this those to too under us use used using
    was we were what when where which while who whom whose why will with would you your
    """.split()  # noqa: SIM905 - a list of words reads better as text
)


_ASKING: Final = frozenset(
    """
    what how which who whom whose when where why is are was were do does did can could should would will has have had
    may might must what's how's who's where's when's why's isn't aren't doesn't don't didn't can't
    """.split()  # noqa: SIM905
)
WORDS_TO_ASK: Final = 6
"""One of the first so many asks: "In which year …", "If it is kept in the cold, how …"."""


@dataclass(frozen=True, slots=True)
class NoQuery(Exception):
    """The model wrote nothing that can be asked.

    Attributes:
        faults: what was wrong with each try.
    """

    faults: tuple[QueryFault, ...]

    def __str__(self) -> str:
        return f"no query in {len(self.faults)} tries: {', '.join(self.faults)}"


class QueryWriter:
    """Has an engine write queries.

    Args:
        max_tokens: of a query.
        ended: is told of each query how it ended, and is meant to count.
    """

    def __init__(
        self, engine: Engine, max_tokens: int, ended: Callable[[Ending], None] = lambda _: None
    ) -> None:
        self._engine = engine
        self._max_tokens = max_tokens
        self._ended = ended

    async def write(self, passage: str, seeds: Sequence[int]) -> str:
        """A question about the passage, on one line, with a question mark.

        Args:
            seeds: 64-bit, one for each try. An engine without the protocol's sampler doesn't use them.

        Raises:
            NoQuery: if no try gave one.
            EngineError: as the engine does.
        """
        faults: list[QueryFault] = []
        for number, seed in enumerate(seeds):
            query, finished = await self._try(passage, seed, number)
            fault = fault_of(query, passage, finished=finished)
            if fault is None:
                self._ended("second" if number else "first")
                return query
            faults.append(fault)
        self._ended("none")
        raise NoQuery(tuple(faults))

    async def _try(self, passage: str, seed: int, number: int) -> tuple[str, bool]:
        greedy = "targon/1" not in self._engine.identity.dialects
        sampling = Sampling(
            dialect="greedy" if greedy else "targon/1",
            seed=u64_hex(seed),
            temperature=0.0 if greedy else QUERY_TEMPERATURES[number],
            max_tokens=self._max_tokens,
            stop=STOP,
        )
        task = GenerateTask(query_messages(passage, topic_of(passage, number)), sampling, seed)
        text, finish = "", None
        async with aclosing(self._engine.generate(task)) as steps:
            async for step in steps:
                text += step.text
                finish = step.finish_reason
        words = " ".join(text.split())
        return f"{words.rstrip(' .:')}?" if words else "", finish != "length"


def topic_of(passage: str, number: int) -> str:
    """The word that a try is to ask about: the longest, then the second longest of those that tell something."""
    telling = {word: None for word in _words(passage) if word not in _COMMON and not word.isdigit()}
    by_length = sorted(telling, key=len, reverse=True)
    return by_length[number % len(by_length)] if by_length else "it"


def fault_of(query: str, passage: str, *, finished: bool = True) -> QueryFault | None:
    """What keeps a query from being asked about a passage; None: nothing does.

    Args:
        finished: whether the model came to an end by itself.
    """
    words = _words(query)
    if not words or len(words) < MIN_WORDS or len(query) < MIN_CHARS:
        return "too short"
    if not finished:
        return "unfinished"
    if len(words) > MAX_WORDS or len(query) > MAX_CHARS:
        return "too long"
    if not query.isprintable() or "<|" in query or "|>" in query:
        return "unprintable"
    if not _scripts(query) <= _scripts(passage):
        return "other script"
    if _COMMON.intersection(words) and not _ASKING.intersection(words[:WORDS_TO_ASK]):
        return "no question"
    if _longest_run(words, _words(passage)) > MAX_COPIED * len(words):
        return "copied"
    if not _related(words, _words(passage)):
        return "unrelated"
    return None


def _words(text: str) -> list[str]:
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def _scripts(text: str) -> set[str]:
    """The scripts of a text's letters, by the first word of their Unicode names: LATIN, CYRILLIC, CJK …"""
    return {unicodedata.name(letter, "?").split()[0] for letter in set(text) if letter.isalpha()}


def _longest_run(query: Sequence[str], passage: Sequence[str]) -> int:
    """How many words of a query stand in a row in the passage, at most."""
    longest = 0
    before = [0] * (len(passage) + 1)
    for word in query:
        here = [0] * (len(passage) + 1)
        for place, other in enumerate(passage, start=1):
            if word == other:
                here[place] = before[place - 1] + 1
                longest = max(longest, here[place])
        before = here
    return longest


def _related(query: Sequence[str], passage: Sequence[str]) -> bool:
    """Whether a telling word of the query is one of the passage, but for its ending."""
    known = {word for word in passage if word not in _COMMON}
    return any(_alike(word, other) for word in query if word not in _COMMON for other in known)


def _alike(one: str, other: str) -> bool:
    """Whether two words are the same but for their endings."""
    if one == other:
        return True
    shorter = min(len(one), len(other))
    stem = max(MIN_STEM, math.ceil(STEM * shorter))
    return shorter >= stem and one[:stem] == other[:stem]
