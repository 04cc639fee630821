"""The log and its fold: what happened, in an order that nobody can change, and what follows from it.

The log is an append-only, hash-chained record of events, and the only truth: tiers, scores, counters and
weights are a pure fold of it (:class:`Standings`), snapshots only save time. This room must never decide
what happened (verdicts come from `verification`), never talk to a network, and never change or drop a
record that was acknowledged, other than a last one that is torn.

The Redis adapter is :mod:`targon.ledger.redis`, which only who uses it imports: its client loads slowly.
"""

from targon.ledger.errors import (
    CorruptLog,
    HeadMoved,
    InvalidHistory,
    LedgerError,
    LogUnavailable,
    MigrationRefused,
    UnknownProver,
)
from targon.ledger.events import (
    EVENT_VERSION,
    Answered,
    Attempt,
    BlocksSkipped,
    CalibrationAdopted,
    Event,
    HeadAnchored,
    IntervalClosed,
    IntervalOpened,
    LogOpened,
    ModelEntry,
    Outcome,
    ProverConvicted,
    ProverJoined,
    ProverLeft,
    Purpose,
    Route,
    RoutesSet,
    StepClosed,
    UnknownEvent,
    Verdict,
    WeightsNotSet,
    WeightsProposed,
    WeightsSet,
    Withdrawn,
    parse_event,
)
from targon.ledger.fold import Standings, catch_up, replay
from targon.ledger.migrate import Migrated, migrate
from targon.ledger.port import GENESIS_HASH, Head, Log, Record, Snapshot, chain_records, chained, record_hash
from targon.ledger.relying import Caught, InputsCommitted, OracleFaulted, OracleState, ReliesOn
from targon.ledger.sqlite import SqliteLog
from targon.ledger.standing import Conviction, LastVerdict, Proposal, ProverStanding
from targon.ledger.story import Entry, explain

__all__ = [
    "EVENT_VERSION",
    "GENESIS_HASH",
    "Answered",
    "Attempt",
    "BlocksSkipped",
    "CalibrationAdopted",
    "Caught",
    "Conviction",
    "CorruptLog",
    "Entry",
    "Event",
    "Head",
    "HeadAnchored",
    "HeadMoved",
    "InputsCommitted",
    "IntervalClosed",
    "IntervalOpened",
    "InvalidHistory",
    "LastVerdict",
    "LedgerError",
    "Log",
    "LogOpened",
    "LogUnavailable",
    "Migrated",
    "MigrationRefused",
    "ModelEntry",
    "OracleFaulted",
    "OracleState",
    "Outcome",
    "Proposal",
    "ProverConvicted",
    "ProverJoined",
    "ProverLeft",
    "ProverStanding",
    "Purpose",
    "Record",
    "ReliesOn",
    "Route",
    "RoutesSet",
    "Snapshot",
    "SqliteLog",
    "Standings",
    "StepClosed",
    "UnknownEvent",
    "UnknownProver",
    "Verdict",
    "WeightsNotSet",
    "WeightsProposed",
    "WeightsSet",
    "Withdrawn",
    "catch_up",
    "chain_records",
    "chained",
    "explain",
    "migrate",
    "parse_event",
    "record_hash",
    "replay",
]
