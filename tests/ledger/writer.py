"""A process that appends to a log as fast as it can, and says after each append which record is on disk.

test_crash.py runs it, and kills it, or its Redis. It is told on its first line of input where the log is.
"""

from __future__ import annotations

import sys

import anyio
import anyio.to_thread
import structlog

from targon.ledger import Event, Head, Log, Standings, replay
from tests.ledger.history import ALICE, BOB, History, attempt, step_closed, verdict
from tests.ledger.worlds import World, world_of


class Writer:
    def __init__(self, log: Log, standings: Standings) -> None:
        self._log = log
        self._standings = standings

    async def append(self, *events: Event) -> None:
        for record in await self._log.append(events, expected=self._standings.head):
            self._standings.apply(record)
        head = self._standings.head
        await anyio.to_thread.run_sync(_say, f"{head.seq} {head.hash}\n")

    async def recover(self) -> None:
        """Close what a crash left open, without charging anybody."""
        if self._standings.opened is None:
            await self.append(*History.begun(ALICE, BOB).events)
        for number in list(self._standings.open_attempts):
            await self.append(verdict(number, "inconclusive"))
        if self._standings.step_open:
            await self.append(step_closed(self._standings.block))

    async def work(self) -> None:
        while True:
            block = self._standings.block + 1
            first = self._standings.head.seq + 1
            await self.append(attempt(ALICE, block), attempt(BOB, block))
            await self.append(verdict(first, reason="x" * 1_500))
            await self.append(verdict(first + 1, "fail"))
            await self.append(step_closed(block))


def _say(line: str) -> None:
    """In a thread: whoever listens may be slow, and a lease must be renewed."""
    sys.stdout.write(line)
    sys.stdout.flush()


async def main(world: World) -> None:
    async with world.open() as log:
        writer = Writer(log, await replay(log))
        await writer.recover()
        await writer.work()


def acknowledged(line: str) -> Head:
    """What a line of this process says is on disk."""
    seq, hash_ = line.split()
    return Head(int(seq), hash_)  # type: ignore[arg-type]


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    anyio.run(main, world_of(sys.stdin.readline()))
