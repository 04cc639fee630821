"""A process that appends to a log as fast as it can, and says after each append which record is on disk.

test_crash.py runs it, and kills it.
"""

from __future__ import annotations

import sys
from contextlib import aclosing
from pathlib import Path

import anyio

from targon.ledger import Event, Head, SqliteLog, Standings, replay
from tests.ledger.history import ALICE, BOB, History, attempt, step_closed, verdict


class Writer:
    def __init__(self, log: SqliteLog, standings: Standings) -> None:
        self._log = log
        self._standings = standings

    async def append(self, *events: Event) -> None:
        for record in await self._log.append(events, expected=self._standings.head):
            self._standings.apply(record)
        head = self._standings.head
        sys.stdout.write(f"{head.seq} {head.hash}\n")
        sys.stdout.flush()

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


async def main(path: Path) -> None:
    async with aclosing(await SqliteLog.open(path)) as log:
        writer = Writer(log, await replay(log))
        await writer.recover()
        await writer.work()


def acknowledged(line: str) -> Head:
    """What a line of this process says is on disk."""
    seq, hash_ = line.split()
    return Head(int(seq), hash_)  # type: ignore[arg-type]


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]))
