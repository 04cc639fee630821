"""Standings: the pure fold of the log.

Every number that others show, select by or set on chain comes out of :meth:`Standings.apply`, so that
anyone who has the log has the standings. What each event does is said in :mod:`targon.ledger.rules`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from operator import attrgetter
from types import MappingProxyType
from typing import Final

import structlog
from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as parsed_dataclass

from targon.ledger import rules
from targon.ledger.errors import InvalidHistory, UnusableSnapshot
from targon.ledger.events import Answered, Attempt, LogOpened, Verdict
from targon.ledger.port import Head, Log, Record, Snapshot
from targon.ledger.relying import OracleState, ReliesOn
from targon.ledger.standing import Proposal, ProverStanding, ProverState, State
from targon.protocol import rewards
from targon.protocol.canonical import canonical_bytes
from targon.protocol.primitives import Block, Digest, Hotkey, Interval, Uid
from targon.protocol.profile import Profile
from targon.protocol.weights import NoWeights, u16_weights

logger = structlog.get_logger(__name__)

SNAPSHOT_VERSION: Final = 7
"""Counted up whenever :class:`State` changes its shape; an older snapshot is then folded anew."""

_FIELDS = tuple(f.name for f in fields(ProverState))
_values_of = attrgetter(*_FIELDS)


class Standings:
    """Every prover's standing, and what the verifier needs to go on after a crash."""

    def __init__(self) -> None:
        self._s = State()
        self._views: dict[Hotkey, ProverStanding] = {}
        """Of this record: who draws a prover looks at it several times before the next."""

    # -- reading -------------------------------------------------------------------------------------

    @property
    def head(self) -> Head:
        """The last record applied."""
        return Head(self._s.seq, self._s.hash)

    @property
    def opened(self) -> LogOpened | None:
        """The log's first event; None while it is empty."""
        return self._s.opened

    @property
    def profile(self) -> Profile:
        """The rules under which this log stands.

        Raises:
            InvalidHistory: if no record was applied yet.
        """
        if self._s.opened is None:
            raise InvalidHistory(0, "got an empty log, expected log_opened first")
        return self._s.opened.profile

    @property
    def block(self) -> Block:
        """The newest block that the log speaks of; -1 before any."""
        return self._s.block

    @property
    def stepped_block(self) -> Block:
        """The newest block whose step has closed or that was skipped; -1 before any."""
        return max(self._s.last_step, self._s.last_skipped)

    @property
    def interval(self) -> Interval | None:
        """The open interval; None between two."""
        return self._s.interval

    @property
    def interval_head(self) -> Digest:
        """Hash of the newest ``interval_opened`` record, which requests carry; 64 zeros before any."""
        return self._s.interval_head

    @property
    def commitment(self) -> Digest:
        """SHA-256 of the open, or else the last, interval's secret; 64 zeros before any."""
        return self._s.commitment

    @property
    def open_attempts(self) -> Mapping[int, Attempt]:
        """Attempts without a verdict, by number. After a crash they are to be closed as inconclusive."""
        return MappingProxyType(self._s.open_attempts)

    @property
    def under_audit(self) -> Mapping[int, Attempt]:
        """Inferences that were answered and await the verdict of their audit, by number."""
        return MappingProxyType(self._s.under_audit)

    @property
    def audits_wait_since(self) -> Block | None:
        """The block that the oldest of :attr:`under_audit` was asked for in; None: nothing waits."""
        return min((attempt.block for attempt in self._s.under_audit.values()), default=None)

    def attempt(self, number: int) -> Attempt | None:
        """An attempt that awaits its verdict; None if there is none of that number."""
        return self._s.open_attempts.get(number) or self._s.under_audit.get(number)

    def routes(self, model: str) -> Mapping[Uid, int]:
        """The shares by which a model's inferences are drawn among provers, in UID order; empty before any."""
        return MappingProxyType(self._s.routes.get(model, {}))

    @property
    def step_open(self) -> bool:
        """Whether there are attempts, judged or not, whose step has not closed."""
        return bool(self._s.earned)

    @property
    def medians(self) -> Mapping[str, float]:
        """Each model's median tokens/s over the previous interval."""
        return MappingProxyType(self._s.medians)

    @property
    def last_weights(self) -> Mapping[Uid, int]:
        """The weights that were set last; empty if none were."""
        return MappingProxyType(self._s.weights)

    @property
    def weights_block(self) -> Block | None:
        """The block in which :attr:`last_weights` were set; None if none were."""
        return self._s.weights_block

    @property
    def weights_refusal(self) -> str | None:
        """Why weights could not be set since :attr:`weights_block`; None if they could."""
        return self._s.weights_refusal

    @property
    def proposals(self) -> Mapping[int, Proposal]:
        """Weights that were proposed and whose fate is open, by number, oldest first."""
        return MappingProxyType(self._s.proposals)

    @property
    def proposed_block(self) -> Block:
        """The block of the newest proposal of weights; -1 before any."""
        return self._s.proposed_block

    @property
    def anchored(self) -> Interval | None:
        """The newest interval whose head stands on chain; None before any."""
        return self._s.anchored

    @property
    def anchored_block(self) -> Block:
        """The block in which it stands; -1 before any."""
        return self._s.anchored_block

    @property
    def released(self) -> int:
        """Records before this one may be published. Later ones would tell weights that are still to be set, or
        revealed, to those who would copy them."""
        return self._s.released

    @property
    def calibrations(self) -> Mapping[str, Digest]:
        """By model, the calibration that its verdicts are judged by."""
        return MappingProxyType(self._s.calibrations)

    @property
    def oracles(self) -> Mapping[Hotkey, OracleState]:
        """What the log says of each oracle."""
        return MappingProxyType(self._s.oracles)

    @property
    def relies_on(self) -> ReliesOn | None:
        """What the verifier relies on; None: the log never spoke of it, and the verifier has but its own."""
        return self._s.relies_on

    @property
    def blocks_skipped(self) -> int:
        """How many blocks were skipped, ever."""
        return self._s.blocks_skipped

    def prover(self, hotkey: Hotkey) -> ProverStanding | None:
        """A hotkey's standing, whether it holds a UID now or not; None if it never did."""
        state = self._s.provers.get(hotkey)
        return None if state is None else self._view(state)

    def holder(self, uid: Uid) -> ProverStanding | None:
        """The standing of the hotkey that holds a UID now."""
        hotkey = self._s.uids.get(uid)
        return None if hotkey is None else self.prover(hotkey)

    def provers(self) -> tuple[ProverStanding, ...]:
        """Everyone's standing: holders of a UID in UID order, then those that left, by hotkey."""
        seated = [self._s.provers[self._s.uids[uid]] for uid in sorted(self._s.uids)]
        gone = sorted((p for p in self._s.provers.values() if p.uid is None), key=lambda p: p.hotkey)
        return tuple(self._view(state) for state in [*seated, *gone])

    def weights(self) -> dict[Uid, int] | NoWeights:
        """The weights that these standings call for, in UID order; or why there are none."""
        profile = self.profile
        seated = {uid: self._s.provers[hotkey] for uid, hotkey in self._s.uids.items()}
        trial = {uid for uid, p in seated.items() if rewards.on_probation(p.verified_tokens, profile)}
        if trial and len(trial) == len(seated):
            return NoWeights(
                f"all {len(trial)} provers are on probation: "
                f"none has {profile.probation_tokens:,} verified tokens"
            )
        return u16_weights({uid: 0.0 if uid in trial else p.score for uid, p in seated.items()})

    def worth(self, attempt: Attempt, verdict: Verdict) -> float | None:
        """x: what a verdict on an attempt earns at present; None if it counts for nothing."""
        return rules.worth(self._s, attempt, verdict)

    def earned_by(self, attempt: Attempt, answer: Answered) -> float | None:
        """x: what an answer without an audit earns at present; None if it counts for nothing."""
        return rules.served(self._s, attempt, answer.tokens_per_s) if rules.counts(attempt) else None

    # -- folding -------------------------------------------------------------------------------------

    def apply(self, record: Record) -> None:
        """Fold the next record in.

        Raises:
            InvalidHistory: if it cannot follow; nothing has changed then.
        """
        self._views.clear()
        rules.fold(self._s, record)

    def _view(self, state: ProverState) -> ProverStanding:
        view = self._views.get(state.hotkey)
        if view is None:
            trial = rewards.on_probation(state.verified_tokens, self.profile)
            kept = dict(zip(_FIELDS, _values_of(state), strict=True))
            view = self._views[state.hotkey] = ProverStanding(**kept, on_probation=trial)
        return view

    # -- snapshots -----------------------------------------------------------------------------------

    def to_snapshot(self) -> bytes:
        """The state as canonical JSON: equal states give equal bytes."""
        value = _SAVED.dump_python(_Saved(SNAPSHOT_VERSION, self._s), mode="json")
        state = value["state"]
        for measured in [
            *state["speeds"].values(),
            *state["served"].values(),
            *(x for by in state["earned"].values() for x in by.values()),
        ]:
            measured.sort()
        return canonical_bytes(value)

    @classmethod
    def from_snapshot(cls, snapshot: Snapshot) -> Standings:
        """Go on from a snapshot.

        Raises:
            UnusableSnapshot: if it is none of this version, or of another record than it says.
        """
        try:
            saved = _SAVED.validate_json(snapshot.state, strict=True)
        except ValidationError as error:
            problem = error.errors(include_url=False, include_context=False)[0]
            where = ".".join(str(step) for step in problem["loc"]) or "snapshot"
            raise UnusableSnapshot(f"{where}: {problem['msg']}") from error
        if saved.version != SNAPSHOT_VERSION:
            raise UnusableSnapshot(f"got snapshot version {saved.version}, expected {SNAPSHOT_VERSION}")
        standings = cls()
        standings._s = saved.state
        if standings.head != snapshot.head:
            raise UnusableSnapshot(f"got a state of {standings.head}, expected one of {snapshot.head}")
        return standings


@parsed_dataclass(frozen=True)
class _Saved:
    version: int
    state: State


_SAVED = TypeAdapter(_Saved)


async def catch_up(standings: Standings, log: Log) -> None:
    """Fold in what the log holds beyond these standings; raises as reading and folding do."""
    async for record in log.read(standings.head.seq + 1):
        standings.apply(record)


async def replay(log: Log) -> Standings:
    """The standings at the log's end, from its newest usable snapshot on.

    Raises:
        CorruptLog: if a record is not what its hash says.
        InvalidHistory: if the records cannot follow one another.
    """
    standings = Standings()
    snapshot = await log.latest_snapshot()
    if snapshot is not None:
        try:
            standings = Standings.from_snapshot(snapshot)
        except UnusableSnapshot as error:
            logger.warning("snapshot_not_used", seq=snapshot.head.seq, reason=str(error))
    await catch_up(standings, log)
    return standings
