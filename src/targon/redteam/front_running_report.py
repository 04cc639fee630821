"""What a prover gained that ran ahead: the file, and its table."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from targon.protocol.messages import Message
from targon.redteam.front_running import WAYS, WORLDS, Way, World
from targon.redteam.streams import Answer, Spread, spread_of
from targon.verification import EvidenceState, advance
from targon.verification.confidence import lower_limit, upper_limit

RISK: Final = 0.025
"""On each side of an interval: they are 95% ones."""

RESAMPLES: Final = 100
RESAMPLED_STREAMS: Final = 20
"""An interval is of so many resamples of the answers, with so many streams of each."""

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Interval(Message):
    """A figure with its 95% interval; None: never, or more than was looked at."""

    value: float | None
    low: float | None
    high: float | None


class LookedUp(Message):
    """How many of today's challenges the prover had foreseen."""

    world: World
    drawn: bool
    """Whether they are worded as verifiers draw them; else each is a question beside its passage."""
    challenges: int
    found: int
    share: Interval


class FrontRow(Message):
    """One way of answering today's challenges."""

    world: World
    dialect: Way
    prover: str
    words: str
    true: bool
    """Whether every token of it is the true model's."""
    honest: bool
    answers: int
    tokens: int
    kept: Share
    """Of its tokens, those that cost it nothing today."""
    failed: Interval
    """Share of answers that fail when looked at alone, at the highest tier."""
    conviction: Spread
    median: Interval
    """Tokens until half of the streams are convicted."""
    earned: Interval
    """Tokens that were paid, as a share of an honest prover's in the same time: those of answers that passed, and
    none once it is convicted."""


class Gain(Message):
    """What its cache gains a prover: the same cheat with it and without it, over the same draws."""

    world: World
    drawn: bool
    """Whether as many challenges were foreseen as of those that verifiers draw, and those fare as public ones do; else
    all are questions beside their passages."""
    dialect: Way
    prover: str
    tokens: Interval
    """Tokens to conviction with the cache over those without; None: with it, half are never convicted."""
    earned: Interval
    """Earned with the cache, less what is earned without."""


class FrontRunning(Message):
    """A whole run."""

    version: Literal[1] = 1
    model: str
    model_digest: str
    calibration: str
    streams: int
    most_tokens: int
    """Where a stream ends that leads to no conviction: also the time over which pay is compared."""
    kept: int
    """Answers that were kept of each conversation above T = 0."""
    foreseen: int
    """Conversations that the prover foresaw: questions beside passages."""
    wishes: int
    """Conversations that it foresaw without their passages."""
    looked_up: tuple[LookedUp, ...]
    rows: tuple[FrontRow, ...]
    gains: tuple[Gain, ...]

    @property
    def false_convictions(self) -> tuple[str, ...]:
        """Honest rows that were convicted in any stream."""
        return tuple(
            f"{row.prover} ({row.world}, {row.dialect})"
            for row in self.rows
            if row.honest and row.conviction.convicted > 0
        )


@dataclass(frozen=True, slots=True)
class Said:
    """An answer to one of today's challenges, judged."""

    tokens: int
    kept: int
    """Of its tokens, those that cost nothing today."""
    failed: bool
    evidence: Answer | None


@dataclass(frozen=True, slots=True)
class Lives:
    """Streams of a prover's answers: tokens until conviction (infinite: none), and the share of pay that was earned."""

    took: NDArray[np.float64]
    earned: NDArray[np.float64]


def live(said: Sequence[Said], rng: np.random.Generator, streams: int, most: int, *, once: bool) -> Lives:
    """Let streams of answers run until conviction, for so many tokens, or until no answer is left.

    Args:
        once: whether each answer is drawn once, as those of the true model are (:class:`targon.redteam.streams.Pool`).
    """
    lives = [_one_life(said, rng, most, once) for _ in range(streams)]
    return Lives(np.array([took for took, _ in lives]), np.array([earned for _, earned in lives]))


def _one_life(said: Sequence[Said], rng: np.random.Generator, most: int, once: bool) -> tuple[float, float]:
    whole = min(most, sum(one.tokens for one in said)) if once else most
    state, seen, paid = EvidenceState(), 0, 0
    answers = (said[place] for place in rng.permutation(len(said)).tolist()) if once else _drawn(said, rng)
    for one in answers:
        if one.evidence is not None:
            state = advance(state, *one.evidence)
        if state.convicted_at is not None:
            return float(state.convicted_at), min(1.0, paid / whole)
        seen += one.tokens
        paid += 0 if one.failed else one.tokens
        if seen >= whole:
            break
    return np.inf, min(1.0, paid / whole)


def _drawn(said: Sequence[Said], rng: np.random.Generator) -> Iterator[Said]:
    while True:
        yield from (said[place] for place in rng.integers(len(said), size=_DRAWN).tolist())


_DRAWN: Final = 16
"""Answers that are drawn at a time."""


def make_front_row(
    world: World,
    dialect: Way,
    prover: str,
    words: str,
    said: Sequence[Said],
    *,
    honest: bool,
    true: bool,
    streams: int,
    most: int,
) -> FrontRow:
    """The row of a prover. Equal challenges see equal draws, whoever answers them."""
    lives = live(said, _rng(world, dialect), streams, most, once=true)
    spread = spread_of(lives.took)
    resampled = [] if true else _resampled(said, world, dialect, most)
    medians = [float(np.median(each.took)) for each in resampled]
    means = [float(each.earned.mean()) for each in resampled]
    failed = sum(one.failed for one in said)
    earned = float(lives.earned.mean())
    return FrontRow(
        world=world,
        dialect=dialect,
        prover=prover,
        words=words,
        true=true,
        honest=honest,
        answers=len(said),
        tokens=sum(one.tokens for one in said),
        kept=sum(one.kept for one in said) / sum(one.tokens for one in said),
        failed=share_of(failed, len(said)),
        conviction=spread,
        median=_interval(spread.median, medians),
        earned=_interval(earned, means or [earned]),
    )


@dataclass(frozen=True, slots=True)
class Pairs:
    """Answers to the same challenges, with a cache and without, and how often they are drawn among others."""

    cached: Sequence[Said]
    bare: Sequence[Said]
    weight: int = 1


def make_gain(
    world: World,
    dialect: Way,
    prover: str,
    pools: Sequence[Pairs],
    *,
    true: bool = False,
    drawn: bool = False,
    streams: int,
    most: int,
) -> Gain:
    """What a cache gains: pairs of streams that draw answers to the same challenges.

    Args:
        pools: from which answers are drawn; of as many pairs each.
        true: whether all that is said from the cache is the true model's, and there is one pool. Then half are never
            convicted unless honest provers are, and only pay can be compared.
    """
    whole = live(pools[0].cached, _rng(world, dialect), streams, most, once=True) if true else None

    def both(places: Sequence[NDArray[np.int64]], number: int, count: int) -> tuple[float, float]:
        def lives(said: Sequence[Sequence[Said]]) -> Lives:
            some = [
                [one[place] for place in chosen] * pool.weight
                for pool, chosen, one in zip(pools, places, said, strict=True)
            ]
            return live(list(chain(*some)), _rng(world, dialect, number), count, most, once=False)

        with_it = whole or lives([pool.cached for pool in pools])
        without = lives([pool.bare for pool in pools])
        return _ratio_of(with_it.took, without.took), float(with_it.earned.mean() - without.earned.mean())

    sizes = [len(pool.bare) for pool in pools]
    tokens, earned = both([np.arange(size) for size in sizes], 0, streams)
    again = []
    for number in range(1, RESAMPLES + 1):
        rng = _rng(world, dialect, number)
        again.append(both([rng.integers(size, size=size) for size in sizes], number, RESAMPLED_STREAMS))
    ratios, more = [ratio for ratio, _ in again], [gained for _, gained in again]
    return Gain(
        world=world,
        drawn=drawn,
        dialect=dialect,
        prover=prover,
        tokens=_interval(tokens, ratios),
        earned=_interval(earned, more),
    )


def _ratio_of(took: NDArray[np.float64], without: NDArray[np.float64]) -> float:
    """Of the medians; infinite where half of those with the cache are never convicted, whatever the others are."""
    median = float(np.median(took))
    return median / float(np.median(without)) if np.isfinite(median) else np.inf


def share_of(found: int, looked: int) -> Interval:
    """A share, with its exact interval."""
    return Interval(
        value=found / looked,
        low=round(lower_limit(found, looked, RISK), 6),
        high=round(upper_limit(found, looked, RISK), 6),
    )


def table_of_front_running(run: FrontRunning) -> str:
    """Three tables in Markdown: what was foreseen, how each way of answering fares, and what the cache gained."""
    foreseen = [
        "| passages | challenges looked up | of those foreseen | share (95%) |",
        "|---|--:|--:|--:|",
        *(
            f"| {_passages(one)} | {one.challenges:,} | {one.found:,} | {_percent(one.share, 2)} |"
            for one in run.looked_up
        ),
    ]
    heads = (
        "passages", "T", "prover", "answers", "tokens from the cache", "fail alone",
        "tokens until conviction: median (95%)", "convicted", "earned",
    )  # fmt: skip
    ordered = sorted(run.rows, key=lambda row: (WAYS.index(row.dialect), WORLDS.index(row.world)))
    rows = [
        f"| {' | '.join(heads)} |",
        "|---|---|---|" + "--:|" * 6,
        *(
            f"| {row.world} | {_temperature(row.dialect)} | {row.prover} | {row.answers} | {row.kept:.1%} "
            f"| {_percent(row.failed, 0)} | {_number(row.median)} | {row.conviction.convicted:.0%} "
            f"| {_percent(row.earned, 1)} |"
            for row in ordered
        ),
    ]
    gains = [
        "| passages | T | prover | tokens until conviction, with the cache over without | earned more |",
        "|---|---|---|--:|--:|",
        *(
            f"| {_passages(one)} | {_temperature(one.dialect)} | {one.prover} | {_ratio(one.tokens)} "
            f"| {_percent(one.earned, 1)} |"
            for one in sorted(
                run.gains, key=lambda gain: (WAYS.index(gain.dialect), WORLDS.index(gain.world))
            )
        ),
    ]
    return "\n".join([*foreseen, "", *rows, "", *gains])


def _resampled(said: Sequence[Said], world: World, dialect: str, most: int) -> list[Lives]:
    found = []
    for number in range(RESAMPLES):
        rng = _rng(world, dialect, number + 1)
        again = [said[place] for place in rng.integers(len(said), size=len(said))]
        found.append(live(again, rng, RESAMPLED_STREAMS, most, once=False))
    return found


def _interval(value: float | None, resampled: Sequence[float]) -> Interval:
    def finite(number: float | None, digits: int = 4) -> float | None:
        return None if number is None or not np.isfinite(number) else round(number, digits)

    if not resampled:
        return Interval(value=finite(value), low=None, high=None)
    low, high = np.quantile(np.array(resampled), (RISK, 1.0 - RISK), method="inverted_cdf").tolist()
    return Interval(value=finite(value), low=finite(low), high=finite(high))


def _rng(world: str, dialect: str, number: int = 0) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(f"front-running {world} {dialect} {number}".encode()))


def _passages(one: LookedUp | Gain) -> str:
    return f"{one.world}, worded as drawn" if one.drawn else one.world


def _temperature(dialect: str) -> str:
    return "0" if dialect == "greedy" else "0.8, 1.0"


def _percent(one: Interval, digits: int) -> str:
    if one.value is None or one.low is None or one.high is None:
        return "–"
    low, high = (round(edge * 100, digits) + 0.0 for edge in (one.low, one.high))
    return f"{one.value:.{digits}%} ({low:.{digits}f}–{high:.{digits}f})"


def _number(one: Interval) -> str:
    if one.value is None:
        return "never"
    return f"{one.value:,.0f} ({_edge(one.low, ',.0f')}–{_edge(one.high, ',.0f')})"


def _ratio(one: Interval) -> str:
    if one.value is None:
        return "never convicted with it"
    return f"× {one.value:.2f} ({_edge(one.low, '.2f')}–{_edge(one.high, '.2f')})"


def _edge(edge: float | None, form: str) -> str:
    return "more" if edge is None else format(edge, form)
