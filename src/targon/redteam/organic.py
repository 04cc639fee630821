"""Every attack when it serves users alone: how much of it is audited, when it is caught, and what that costs it.

An attack's answers are the recorded ones, judged as an audit judges them; its life is a :class:`Career` under the
protocol's own rules. It begins to cheat at one of three moments, so that a prover which is honest until it is trusted
is among them.
"""

from __future__ import annotations

import copy
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from targon.protocol.profile import STANDARD, Profile
from targon.protocol.schedule import BLOCK_SECONDS
from targon.protocol.tiers import Tier
from targon.redteam.attacks import BASELINES, Attack
from targon.redteam.career import Career, Tally, shuffled
from targon.redteam.organic_answers import Served
from targon.redteam.organic_report import STARTS, Caught, OrganicRow, Quantiles, Start, quantiles

LOADS: Final = (1.0, 10.0)
"""Users' requests in a second, to one prover."""

LONG: Final = 96
"""Tokens: whoever truncates long answers alone does so where more are asked for."""

INTERVALS: Final = 3
"""For how long a stream runs that leads to no conviction."""

MOST: Final = 12_960
"""Requests after which it ends as well: as many as fit into that time at one in a second."""

FIRST: Final = 5
"""Streams that are run before the others: where none of them convicts, there is no need for more."""

MOST_HONEST: Final = 40
"""Intervals within which honest work must lead to where a cheat begins."""

POINTS: Final = 12
"""Moments at which scores are compared."""


@dataclass(frozen=True, slots=True)
class Cheat:
    """A way of serving users."""

    name: str
    kind: str
    words: str
    answers: tuple[Served, ...]
    """Empty: it doesn't answer."""
    honest: tuple[Served, ...] = ()
    """What it answers otherwise."""
    share: float = 1.0
    """Of requests that it cheats on."""

    def draw(self, rng: np.random.Generator) -> Iterator[Served | None]:
        """What it does with each request, without end; None: nothing."""
        cheats = shuffled(self.answers, rng) if self.answers else None
        honest = shuffled(self.honest, rng) if self.honest else None
        while True:
            if honest is not None and (self.share < 1.0 and rng.random() >= self.share):
                yield next(honest)
            else:
                yield None if cheats is None else next(cheats)


def cheats_of(attacks: Sequence[Attack], served: Mapping[str, Sequence[Served]]) -> list[Cheat]:
    """All ways of serving users: the attacks, and those that only organic traffic makes possible.

    Args:
        served: by name, the answers of each attack that is no mixture.
    """
    found = []
    for attack in attacks:
        name, share = attack.mixed or (attack.name, 1.0)
        honest = served[BASELINES[attack.workload]] if share < 1.0 else ()
        found.append(Cheat(attack.name, attack.kind, attack.words, tuple(served[name]), tuple(honest), share))
    honest = tuple(served[BASELINES["challenges"]])
    found.append(Cheat("drops", "users alone", "answers no user at all", ()))
    found.append(Cheat("drops-5%", "users alone", "answers no user on 5% of requests", (), honest, 0.05))
    if "truncated" in served:
        cut = {one.number: one for one in served["truncated"] if one.asked > LONG}
        answers = tuple(cut.get(one.number, one) for one in honest if one.number < len(served["truncated"]))
        words = f"stops half-way where over {LONG} tokens are asked for"
        found.append(Cheat("truncated-long", "users alone", words, answers))
    return found


class OrganicBench:
    """Runs streams. Prologues, the honest work before a cheat begins, are lived once and copied.

    Args:
        honest: honest answers, the more the better: in a prologue none comes again before all have come.
        usual: those whose score others' are compared with.
    """

    def __init__(
        self,
        honest: Sequence[Served],
        usual: Sequence[Served],
        *,
        streams: int,
        profile: Profile = STANDARD,
        loads: Sequence[float] = LOADS,
        most: int = MOST,
    ) -> None:
        self._honest = Cheat("honest", "honest", "", tuple(honest))
        self._streams = streams
        self._profile = profile
        self._loads = tuple(loads)
        self._most = most
        self._begun: dict[tuple[Start, int], Career] = {}
        self._span_s = INTERVALS * profile.interval_blocks * BLOCK_SECONDS
        self._honest_score = self._trajectory(Cheat("honest", "honest", "", tuple(usual)))

    @property
    def honest_score(self) -> tuple[float, ...]:
        """An honest prover's score over the time in which scores are compared."""
        return tuple(score for score, _ in self._honest_score)

    @property
    def minutes(self) -> tuple[float, ...]:
        """The moments of the scores, since the cheat began."""
        return tuple(self._span_s * (place + 1) / POINTS / 60.0 for place in range(POINTS))

    def row(self, cheat: Cheat) -> OrganicRow:
        """What becomes of one."""
        caught = tuple(self._caught(cheat, start, load) for start in STARTS for load in self._loads)
        trajectory = self._trajectory(cheat)
        whole = sum(weight for _, weight in self._honest_score)
        return OrganicRow(
            name=cheat.name,
            kind=cheat.kind,
            words=cheat.words,
            caught=caught,
            score=tuple(score for score, _ in trajectory),
            kept=sum(weight for _, weight in trajectory) / whole if whole else 0.0,
        )

    def _caught(self, cheat: Cheat, start: Start, load: float) -> Caught:
        tallies = [self._stream(cheat, start, load, number) for number in range(min(FIRST, self._streams))]
        if any(tally.convicted for tally in tallies):
            tallies += [
                self._stream(cheat, start, load, number) for number in range(len(tallies), self._streams)
            ]
        return _summed(tallies, start, load)

    def _stream(self, cheat: Cheat, start: Start, load: float, number: int) -> Tally:
        """One life, until it is convicted; or until all its time has passed."""
        career = self._career(start, number)
        answers = cheat.draw(_rng(cheat.name, start, number))
        for at_s in self._arrivals(career, load):
            if career.tally.convicted is not None or career.tally.served >= self._most:
                break
            self._serve(career, answers, at_s)
        return career.tally

    def _trajectory(self, cheat: Cheat) -> tuple[tuple[float, float], ...]:
        """Score, and the score that its weight is made of, of a Challenger that begins to cheat and goes on with it,
        whatever comes of it."""
        career = self._career("Challenger", 0)
        answers = cheat.draw(_rng(cheat.name, "Challenger", 0))
        begins_s = career.now_s
        points: list[tuple[float, float]] = []
        for at_s in self._arrivals(career, 1.0):
            while at_s >= begins_s + self._span_s * (len(points) + 1) / POINTS:
                points.append((round(career.standing.score, 6), career.weight))
            self._serve(career, answers, at_s)
        while len(points) < POINTS:
            points.append((round(career.standing.score, 6), career.weight))
        return tuple(points)

    def _serve(self, career: Career, answers: Iterator[Served | None], at_s: float) -> None:
        career.wait_until(at_s)
        if career.standing.requests_left:
            career.serve(next(answers), at_s)

    def _arrivals(self, career: Career, load: float) -> Iterator[float]:
        """Moments of users' requests, evenly spaced; where the tier's limit is reached, the next come with the next
        interval."""
        length_s = self._profile.interval_blocks * BLOCK_SECONDS
        at_s = career.now_s
        end_s = at_s + self._span_s
        while (at_s := at_s + 1.0 / load) < end_s:
            yield at_s
            if not career.standing.requests_left:
                at_s = (at_s // length_s + 1) * length_s

    def _career(self, start: Start, number: int) -> Career:
        """A prover that is about to begin cheating, a copy of its own."""
        key = (start, number)
        if key not in self._begun:
            career = Career(f"{start} {number}", self._profile)
            self._prologue(career, start, number)
            career.begin()
            self._begun[key] = career
        return copy.deepcopy(self._begun[key])

    def _prologue(self, career: Career, start: Start, number: int) -> None:
        """Honest work, at one request in a second but no more of it in an interval than a promotion needs."""
        answers = self._honest.draw(_rng("prologue", start, number))
        length_s = self._profile.interval_blocks * BLOCK_SECONDS
        needed = max(self._profile.success_minima)
        quota = max(self._profile.min_attempts + 4, -(-needed // int(Tier.CHALLENGER)) + 20)

        def done() -> bool:
            standing = career.standing
            return not standing.on_probation and (start != "Challenger" or standing.tier is Tier.CHALLENGER)

        for _ in range(0 if start == "new" else MOST_HONEST):
            begins_s = career.now_s
            for place in range(quota):
                if start == "after probation" and done():
                    return
                self._serve(career, answers, begins_s + (place + 1) * min(1.0, length_s / (quota + 10)))
            career.wait_until((career.now_s // length_s + 1) * length_s)
            if done():
                return
        if start != "new":
            raise ValueError(
                f"honest answers made no {start!r} of a prover within {MOST_HONEST} intervals: got {career.standing}"
            )


def _rng(name: str, start: str, number: int) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(f"{name} {start} {number}".encode()))


def _summed(tallies: Sequence[Tally], start: Start, load: float) -> Caught:
    convicted = [tally.convicted for tally in tallies]
    failed = [tally.first_failed for tally in tallies]

    def of(values: Sequence[float | None]) -> Quantiles | None:
        return quantiles([np.inf if value is None else value for value in values])

    served = sum(tally.served for tally in tallies)
    return Caught(
        start=start,
        load=load,
        streams=len(tallies),
        audit_rate=sum(tally.rates for tally in tallies) / max(1, served),
        audited=sum(tally.audited for tally in tallies) / max(1, served),
        convicted=sum(each is not None for each in convicted) / len(tallies),
        failed=sum(each is not None for each in failed) / len(tallies),
        inferences=of([each and each[0] for each in convicted]),
        minutes=of([each and each[1] / 60.0 for each in convicted]),
        audits=of([each and each[2] for each in convicted]),
        tokens=of([each and each[3] for each in convicted]),
        until_failure=of([each and each[0] for each in failed]),
        minutes_until_failure=of([each and each[1] / 60.0 for each in failed]),
        failures=float(np.mean([tally.failed for tally in tallies])),
        lost=float(np.mean([tally.lost for tally in tallies])),
    )
