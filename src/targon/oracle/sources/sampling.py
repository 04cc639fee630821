"""Drawing without bias from parts of which nobody knows beforehand how much text they hold.

A *part* is a file, a group of files or a piece of one, with a weight that only has to be above 0 (its bytes, so that
visits are spent well). Parts are visited at random, each with a probability in proportion to its weight. In one visit,
a part gives each of its characters the same expected number of draws, ``intensity / weight``. So over all parts each
character is drawn ``intensity / sum of weights`` times per visit in expectation, whatever the weights are.

A part that walks over records draws by *thinning*: it goes on for an exponentially distributed length, draws the record
that it is in, and so on. Lengths are measured in something that is cheap to know (bytes); each draw of a record then
counts as often as it has characters per byte, rounded up or down at random. Nothing is held but the record at hand.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from random import Random
from typing import Final, Generic, Protocol, TypeVar

from targon.oracle.ports import Document

BARREN: Final = 200
"""Visits in a row that give nothing: then a part is dropped."""
FAILING: Final = 16
"""The same of visits that skipped something."""
SMALLEST_WINDOW: Final = 4_096


class Part(Protocol):
    """Some of a body of text."""

    @property
    def name(self) -> str: ...

    @property
    def weight(self) -> float:
        """Above 0; once it is 0, the part is not visited again."""
        ...

    @property
    def sheds(self) -> bool:
        """Whether the part itself drops what gives nothing, and its weight with it."""
        ...

    def visit(self, random: Random) -> Iterator[Document | None]:
        """Each of the part's characters is drawn ``intensity / weight`` times in expectation.

        Yields:
            None where there is text, too, though it was not drawn: a small part gives none in most visits.
        """
        ...


@dataclass(frozen=True, slots=True)
class Pace:
    """How much one visit reads and draws."""

    window: int
    """Bytes of a file (as it lies there) that a visit walks over."""
    intensity: int
    """Draws of one visit, about: as many as a part's characters are of its weight, times this."""

    @property
    def gap(self) -> float:
        """Characters from one draw to the next, where windows are walked over."""
        return self.window / self.intensity

    def within(self, total: int) -> Pace:
        """This, with a window that is no larger than a source that is small as a whole."""
        return replace(self, window=max(SMALLEST_WINDOW, min(self.window, total)))


T = TypeVar("T")


class Weighted(Generic[T]):
    """Things with weights, drawn in proportion to them; things can be taken out."""

    def __init__(self, things: Sequence[T], weight: Callable[[T], float]) -> None:
        self._things = list(things)
        self._weight = weight
        self._sums = list(accumulate(weight(thing) for thing in self._things))

    def __len__(self) -> int:
        return len(self._things)

    @property
    def sum(self) -> float:
        return self._sums[-1] if self._sums else 0.0

    def draw(self, random: Random) -> T:
        index = bisect_right(self._sums, random.random() * self._sums[-1])
        return self._things[min(index, len(self._things) - 1)]

    def drop(self, thing: T) -> None:
        self._things.remove(thing)
        self.reweigh()

    def reweigh(self) -> None:
        """Ask for all weights again."""
        self._sums = list(accumulate(self._weight(thing) for thing in self._things))


class Patience(Generic[T]):
    """How often things gave nothing, in a row."""

    def __init__(self) -> None:
        self._barren: dict[T, tuple[int, int]] = {}

    def spent(self, thing: T, *, gave: bool, skipped: bool, failing: int = FAILING) -> bool:
        """Note how it went. Whether it is time to drop the thing."""
        if gave:
            self._barren.pop(thing, None)
            return False
        barren, failed = self._barren.get(thing, (0, 0))
        self._barren[thing] = barren, failed = barren + 1, failed + 1 if skipped else 0
        return barren >= BARREN or failed >= failing


def thin(
    records: Iterable[tuple[int, Callable[[], tuple[str, str] | None]]], gap: float, random: Random
) -> Iterator[Document | None]:
    """Draw from records, each character ``1 / gap`` times in expectation.

    If none was drawn, one of them is read nevertheless, to see whether there is text.

    Args:
        records: the length of each, in any unit, and how to read it: its text and its place, or None if it has none.
    """
    ahead = random.expovariate(1 / gap)
    tried, passed, sample = False, 0, None
    for length, read in records:
        draws = 0
        while ahead < length:
            draws += 1
            ahead += random.expovariate(1 / gap)
        ahead -= length
        if not draws:
            if length and not tried:
                passed += 1
                sample = read if random.random() * passed < 1 else sample
            continue
        tried, sample = True, None
        if (found := read()) is not None:
            text, source = found
            yield None
            for _ in range(draws):
                for _ in range(times(random, len(text) / length)):
                    yield Document(text, source, random.random())
    if sample is not None and sample() is not None:
        yield None


def times(random: Random, expected: float) -> int:
    """A whole number next to it, at random, with that mean."""
    whole = int(expected)
    return whole + (random.random() < expected - whole)
