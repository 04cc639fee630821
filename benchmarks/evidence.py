"""The evidence simulated: honest streams with heavy dependence, cheats, and how fast it is taken in.

python -m benchmarks.evidence            every table of docs/evidence.md, in minutes
python -m benchmarks.evidence --quick    the same, rougher, in under a minute

Rates are those measured on real transcripts, per stratum of the replayed gap (docs/evidence.md).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.row import Row
from targon.protocol.conviction import LOG_CONVICTION
from targon.protocol.suspicions import NO_RIVALS
from targon.verification.bets import BAD_COMPLETIONS, CELLS, GAP_BETS, STAKES, Bets, bets_of
from targon.verification.calibration import GUARD_LEVELS, Band, Range, Scope
from targon.verification.evidence import EvidenceState, advance, reserve
from targon.verification.measuring import HonestRun, measure
from targon.verification.observations import GAP_STRATA, Observations

Array = NDArray[np.float64]
Cells = NDArray[np.int64]
Unit = Literal["completion", "position, no guard", "position"]
Effect = Literal["rate", "odds"]

LENGTH: Final = 64
"""Tokens of a completion."""

SHARES = np.array([1.2, 1.5, 3.0, 5.4, 15.0, 17.0, 22.0, 21.0, 14.0])
SHARES /= SHARES.sum()
TYPICAL_GAPS = np.array([0.01, 0.033, 0.073, 0.145, 0.33, 0.72, 1.45, 2.9, 5.5])

HONEST = np.array([0.51, 0.20, 0.11, 0.034, 0.0012, 0.0, 0.0, 0.0, 0.0])
CHEATS = {
    "int4 weights": np.array([0.73, 0.74, 0.75, 0.72, 0.63, 0.56, 0.42, 0.18, 0.036]),
    "fp8 weights": np.array([0.50, 0.58, 0.44, 0.37, 0.21, 0.062, 0.013, 0.0, 0.0]),
    "T 0.9 claimed, 1.0 used": np.array([0.47, 0.55, 0.45, 0.39, 0.24, 0.062, 0.007, 0.0, 0.0]),
    "T 0.95 claimed, 1.0 used": np.array([0.32, 0.43, 0.44, 0.22, 0.081, 0.006, 0.0, 0.0, 0.0]),
    "int8 weights": np.array([0.47, 0.52, 0.36, 0.24, 0.087, 0.002, 0.0, 0.0, 0.0]),
}
SCOPE = Scope(
    dialects=("targon/1",), temperature=Range(low=0.05, high=1.2), max_prompt_tokens=1024, max_tokens=512
)

_QUANTILES = np.array([NormalDist().inv_cdf((i + 0.5) / 2000) for i in range(2000)])


@dataclass(frozen=True)
class World:
    """Mismatch rates per stratum, and a log-normal effect of each completion on all of them together."""

    rates: Array
    sigma: float = 0.0
    effect: Effect = "rate"

    def chances(self, rng: np.random.Generator, streams: int) -> Array:
        """``(streams, GAP_STRATA)``: one completion's mismatch probabilities in each stream. Their mean is
        ``rates``, whatever the effect."""
        if self.sigma == 0.0:
            return np.broadcast_to(self.rates, (streams, GAP_STRATA))
        theta = np.exp(self.sigma * rng.standard_normal(streams))
        return self._at(theta[:, None] * self._factors())

    def _at(self, factors: Array) -> Array:
        if self.effect == "rate":
            return np.minimum(0.95, factors * self.rates)
        odds = factors * self.rates / (1.0 - self.rates)
        return odds / (1.0 + odds)

    def _factors(self) -> Array:
        """Per stratum, what keeps the mean at the rate: found by bisection."""
        if not hasattr(self, "_found"):
            theta = np.exp(self.sigma * _QUANTILES)[:, None]
            low, high = np.full(GAP_STRATA, 1e-6), np.full(GAP_STRATA, 1e6)
            for _ in range(80):
                middle = np.sqrt(low * high)
                short = self._at(theta * middle).mean(axis=0) < self.rates
                low, high = np.where(short, middle, low), np.where(short, high, middle)
            object.__setattr__(self, "_found", high)
        return self._found  # type: ignore[attr-defined, no-any-return]


def completion(
    world: World, rng: np.random.Generator, positions: int = LENGTH, heat: float = 1.0
) -> Observations:
    """One completion of a world; its tail tokens have ``heat`` times the odds that the reference says."""
    strata = rng.choice(GAP_STRATA, size=positions, p=SHARES)
    mass = rng.beta(1.0, 3.0, size=positions)
    return Observations(
        gaps=TYPICAL_GAPS[strata],
        mismatched=rng.random(positions) < world.chances(rng, 1)[0][strata],
        unsure=np.zeros(positions, dtype=np.bool_),
        tail_mass=mass,
        in_tail=rng.random(positions) < heat * mass / (1.0 - mass + heat * mass),
        rivals=np.full(positions, NO_RIVALS, np.uint32),
        claimed_rivals=np.zeros(positions, np.uint8),
    )


def calibrated(world: World, positions: int, seed: int) -> Band:
    """A band that this many honest positions of a world support."""
    rng = np.random.default_rng(seed)
    run = HonestRun("bf16", [completion(world, rng) for _ in range(positions // LENGTH)])
    return measure(SCOPE, [run])


def convicted(world: World, band: Band, unit: Unit, *, streams: int, tokens: int, seed: int) -> Array:
    """``(streams,)``: tokens to conviction, in whole completions; infinity where there was none.

    Bets on mismatches alone.
    """
    rng = np.random.default_rng(seed)
    bets = bets_of(band if unit == "position" else band.model_copy(update={"recurrence": 1.0}))
    book = Completions(bets, streams) if unit == "completion" else Positions(bets, streams)
    when = np.full(streams, np.inf)
    for number in range(tokens // LENGTH):
        book.take(_cells(world, bets, rng, streams))
        when[(book.peak >= LOG_CONVICTION) & np.isinf(when)] = (number + 1) * LENGTH
        if np.isfinite(when).all():
            break
    return when


def _cells(world: World, bets: Bets, rng: np.random.Generator, streams: int) -> Cells:
    """``(streams, LENGTH)``: what happens at each position of the next completion of each stream."""
    strata = rng.choice(GAP_STRATA, size=(streams, LENGTH), p=SHARES)
    chances = np.take_along_axis(world.chances(rng, streams), strata, axis=1)
    mismatched = rng.random((streams, LENGTH)) < chances
    telling = mismatched & bets.telling[strata]
    earlier = np.minimum(np.cumsum(telling, axis=1) - telling, GUARD_LEVELS - 1)
    cells: Cells = (earlier * GAP_STRATA + strata) * 2 + mismatched
    return cells


def _counts(cells: Cells) -> Array:
    """``(streams, CELLS)``: how often each occurs."""
    streams = len(cells)
    places = np.arange(streams)[:, None] * CELLS + cells
    return np.bincount(places.ravel(), minlength=streams * CELLS).reshape(streams, CELLS).astype(np.float64)


class Positions:
    """The evidence's own bets on mismatches, position by position, for many streams at once."""

    def __init__(self, bets: Bets, streams: int) -> None:
        self._bets = bets
        self._wealth = np.full((streams, GAP_BETS + len(BAD_COMPLETIONS)), -1e300)
        self._taken = 0
        stakes = np.array([*STAKES[:GAP_BETS], *STAKES[-len(BAD_COMPLETIONS) :]])
        self._stakes = np.log(stakes / stakes.sum())
        self.peak = np.zeros(streams)
        """Natural log of the highest e within the last completion, where it could convict."""

    def take(self, cells: Cells) -> None:
        in_hand, left = reserve(self._taken), reserve(self._taken + 1)
        before = np.logaddexp(self._wealth, self._stakes + np.log(in_hand - left))
        counts = _counts(cells)
        self._taken += 1
        self._wealth = before + self._gains(counts @ self._bets.mismatch)
        self.peak = self._log_e(before + self._gains(counts @ self._bets.mismatch_gains), left)
        for stream in np.flatnonzero(self.peak >= LOG_CONVICTION):
            path = np.cumsum(self._bets.mismatch[cells[stream]], axis=0)
            self.peak[stream] = self._log_e(before[stream] + self._gains(path), left).max()

    @staticmethod
    def _log_e(wealth: Array, left: float) -> Array:
        log_e: Array = np.logaddexp(np.logaddexp.reduce(wealth, axis=1), np.log(left))
        return log_e

    @staticmethod
    def _gains(on_gaps: Array) -> Array:
        bad = np.array(BAD_COMPLETIONS)
        mean = np.logaddexp.reduce(on_gaps, axis=1, keepdims=True) - np.log(GAP_BETS)
        return np.concatenate([on_gaps, np.logaddexp(np.log1p(-bad), np.log(bad) + mean)], axis=1)


class Completions:
    """The other unit: one bet per completion, on the sum of what the positions' bets would gain.

    Worth 1 + κ Σ(L − 1): at most 1 in expectation, however its positions depend on one another, if only the
    mean rates are within their bounds. κ is the largest that can't lose everything.
    """

    def __init__(self, bets: Bets, streams: int) -> None:
        gain = np.expm1(bets.mismatch)
        self._stake = gain * (0.99 / (LENGTH * -gain.min(axis=0)))
        self._wealth = np.zeros((streams, GAP_BETS))
        self.peak = np.zeros(streams)

    def take(self, cells: Cells) -> None:
        self._wealth += np.log1p(_counts(cells) @ self._stake)
        self.peak = np.logaddexp.reduce(self._wealth, axis=1) - np.log(GAP_BETS)


def tokens_to_conviction(
    make: Callable[[np.random.Generator], Observations], band: Band, *, runs: int, limit: int, seed: int
) -> Array:
    """``(runs,)``: with the whole evidence, position by position; infinity where none within the limit."""
    rng, bets = np.random.default_rng(seed), bets_of(band)
    found: list[float] = []
    for _ in range(runs):
        state = EvidenceState()
        while not state.convicted and state.tokens < limit:
            state = advance(state, make(rng), bets)
        found.append(float("inf") if state.convicted_at is None else state.convicted_at)
    return np.array(found)


def summary(found: Array) -> str:
    """Median and 95th percentile, in words."""
    values = [float(np.quantile(found, share, method="higher")) for share in (0.5, 0.95)]
    return " / ".join(f"{value:,.0f}" if np.isfinite(value) else "none" for value in values)


def validity(quick: bool) -> Iterator[tuple[str, ...]]:
    """Share of honest streams convicted, per unit of bet."""
    streams, tokens = (40, 25_600) if quick else (200, 200_000)
    units: tuple[Unit, ...] = ("completion", "position, no guard", "position")
    yield ("effect", "σ", "mean rates", "recurrence", *units)
    effects: dict[Effect, tuple[float, ...]] = {
        "rate": (0.0, 1.5) if quick else (0.0, 0.5, 1.0, 1.5),
        "odds": (1.5,),
    }
    for effect, sigmas in effects.items():
        for sigma in sigmas:
            world = World(HONEST, sigma, effect)
            band = calibrated(world, 100_000, seed=1)
            bounds = np.minimum([stratum.bound for stratum in band.gaps], 0.9)
            for name, rates in (("as calibrated", HONEST), ("at the bounds", bounds)):
                shares = [
                    np.isfinite(
                        convicted(
                            replace(world, rates=rates), band, unit, streams=streams, tokens=tokens, seed=2
                        )
                    ).mean()
                    for unit in units
                ]
                yield (effect, f"{sigma:g}", name, f"{band.recurrence:.1f}", *(f"{s:.2%}" for s in shares))


def power(quick: bool) -> Iterator[tuple[str, ...]]:
    """Tokens to conviction (median / 95th percentile) of each cheat, per amount of honest data."""
    runs = 40 if quick else 300
    sizes = (12_000, 100_000) if quick else (12_000, 100_000, 1_000_000)
    bands = [calibrated(World(HONEST), size, seed=3) for size in sizes]
    others = dict.fromkeys(("completion", "position, no guard"), bands[1])
    yield (
        "cheat",
        *(f"{size:,} honest positions" for size in sizes),
        *(f"{unit}, 100,000" for unit in others),
    )
    for name, rates in CHEATS.items():
        world = World(rates)
        ours = [
            tokens_to_conviction(lambda rng: completion(world, rng), band, runs=runs, limit=60_000, seed=4)  # noqa: B023
            for band in bands
        ]
        rest = [
            convicted(world, band, unit, streams=runs, tokens=60_000, seed=4)  # type: ignore[arg-type]
            for unit, band in others.items()
        ]
        yield (name, *(summary(found) for found in (*ours, *rest)))
    for name, make in MIXED.items():
        ours = [tokens_to_conviction(make, band, runs=runs, limit=60_000, seed=4) for band in bands]
        yield (name, *(summary(found) for found in ours), "", "")


def _second_best(rng: np.random.Generator) -> Observations:
    honest = completion(World(HONEST), rng)
    return replace(honest, mismatched=honest.mismatched | (rng.random(honest.positions) < 0.01))


def _now_and_then(rng: np.random.Generator) -> Observations:
    return completion(World(CHEATS["int4 weights"] if rng.random() < 0.05 else HONEST), rng)


def _too_hot(rng: np.random.Generator) -> Observations:
    return completion(World(np.zeros(GAP_STRATA)), rng, heat=1.3)


MIXED: Final = {
    "second-best token at 1% of positions": _second_best,
    "int4 weights on 5% of completions": _now_and_then,
    "no mismatch, but 1.3 times the odds of unlikely tokens": _too_hot,
}


def late(quick: bool) -> Iterator[tuple[str, ...]]:
    """A prover that turns to int8 after honest work."""
    band = calibrated(World(HONEST), 100_000, seed=3)
    bets, rng = bets_of(band), np.random.default_rng(5)
    yield ("honest tokens before", "tokens of int8 weights to conviction (median / 95th percentile)")
    for before in (0, 6_400) if quick else (0, 6_400, 64_000, 640_000):
        start = EvidenceState()
        for _ in range(before // LENGTH):
            start = advance(start, completion(World(HONEST), rng), bets)
        found = []
        for _ in range(20 if quick else 100):
            state = start
            while not state.convicted and state.tokens < start.tokens + 60_000:
                state = advance(state, completion(World(CHEATS["int8 weights"]), rng), bets)
            found.append(np.inf if state.convicted_at is None else state.convicted_at - start.tokens)
        yield (f"{before:,}", summary(np.array(found)))


def speed(completions: int) -> float:
    """Positions per second."""
    rng = np.random.default_rng(6)
    bets = bets_of(calibrated(World(HONEST), 100_000, seed=3))
    work = [completion(World(HONEST), rng, 128) for _ in range(min(completions, 1000))]
    state = EvidenceState()
    began = time.perf_counter()
    for number in range(completions):
        state = advance(state, work[number % len(work)], bets)
    return state.tokens / (time.perf_counter() - began)


def run(quick: bool) -> list[Row]:
    """Measure."""
    band = calibrated(World(HONEST), 100_000, seed=3)
    int8 = World(CHEATS["int8 weights"])
    found = tokens_to_conviction(lambda rng: completion(int8, rng), band, runs=40, limit=60_000, seed=4)
    count = 2_000 if quick else 10_000
    return [
        Row("evidence", speed(count), "positions/s", ">= 1,000,000", f"{count:,} completions of 128"),
        Row("int8 weights, simulated", float(np.median(found)), "tokens", note="median to conviction"),
    ]


def main() -> None:
    """Print every table as Markdown."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.evidence", description=__doc__, formatter_class=raw
    )
    parser.add_argument("--quick", action="store_true", help="fewer streams, shorter ones")
    quick = parser.parse_args().quick
    for title, rows in (
        ("Honest provers convicted", validity),
        ("Tokens to conviction", power),
        ("Late", late),
    ):
        print(f"\n### {title}\n")
        for number, cells in enumerate(rows(quick)):
            print("| " + " | ".join(cells) + " |")
            if number == 0:
                print("|" + "---|" * len(cells))
    print(f"\n{speed(2_000 if quick else 10_000):,.0f} positions/s")


if __name__ == "__main__":
    main()
