"""The errors of the ledger room.

LedgerError
├── LogUnavailable  the log cannot be opened, read or written
├── HeadMoved       somebody else appended: there must be one writer
├── CorruptLog      a record that is not what its hash says, out of place or missing
├── InvalidHistory  records that are whole but cannot follow one another
├── UnusableSnapshot  a snapshot that this software cannot go on from
├── UnknownEvent    bytes that are no event of a version this software knows
├── UnknownProver   a UID or hotkey of which the log says nothing
└── MigrationRefused  a log that cannot be copied there, or not now
"""

from __future__ import annotations

from targon.protocol.primitives import Digest


class LedgerError(Exception):
    """Anything wrong with the log."""


class LogUnavailable(LedgerError):
    """The log cannot be opened, read or written."""


class HeadMoved(LedgerError):
    """The log does not end where its writer believed: another writer is at work."""

    def __init__(self, got: tuple[int, Digest], expected: tuple[int, Digest]) -> None:
        self.got = got
        self.expected = expected
        super().__init__(
            f"the log ends at record {got[0]} ({got[1][:12]}…), expected record {expected[0]} "
            f"({expected[1][:12]}…): is another verifier writing to it?"
        )


class CorruptLog(LedgerError):
    """A record that is not what its hash says.

    Attributes:
        seq: the first record that is wrong.
        problem: what is wrong with it.
        torn: whether it is the last one alone, which a writer that opens the log takes off.
    """

    def __init__(self, seq: int, problem: str, *, torn: bool = False) -> None:
        self.seq = seq
        self.problem = problem
        self.torn = torn
        super().__init__(f"record {seq}: {problem}")


class InvalidHistory(LedgerError):
    """Records that are whole but cannot follow one another (a verdict without its attempt, say).

    Attributes:
        seq: the record at which it shows.
    """

    def __init__(self, seq: int, message: str) -> None:
        self.seq = seq
        super().__init__(f"record {seq}: {message}")


class UnknownProver(LedgerError):
    """A UID or hotkey of which the log says nothing."""


class MigrationRefused(LedgerError):
    """A log that cannot be copied to where another is, or while it is being written."""


class UnusableSnapshot(LedgerError):
    """A snapshot that this software cannot go on from; the log can always be folded anew."""
