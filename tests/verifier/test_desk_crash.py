"""A verifier that is killed while users are served: nothing that was acknowledged is lost, and no audit is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest

from targon.ledger import Answered, SqliteLog, Verdict, replay
from targon.protocol.primitives import Digest
from tests.verifier.conftest import World

pytestmark = pytest.mark.anyio

PAUSE_S = 0.1
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Acknowledged:
    receipt_id: Digest
    record: int
    record_hash: str


@contextmanager
def serving(folder: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.verifier.serving_process", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            yield process
        finally:
            process.kill()


def killed_after(folder: Path, count: int) -> list[Acknowledged]:
    """What it had acknowledged when it was killed: as many, or a few more."""
    said: list[Acknowledged] = []
    with serving(folder) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("ACK "):
                _, receipt_id, record, record_hash = line.split()
                said.append(Acknowledged(Digest(receipt_id), int(record), record_hash))
                if len(said) == count:
                    process.kill()
    return said


async def test_kill_9_loses_no_acknowledged_record_no_receipt_and_no_audit(world: World) -> None:
    said: list[Acknowledged] = []
    for count in (5, 23):
        said += await anyio.to_thread.run_sync(killed_after, world.folder, count)
    log = await SqliteLog.open(world.log_path, read_only=True)
    records = {record.seq: record async for record in log.read()}
    await log.aclose()
    for each in said:
        record = records[each.record]
        assert record.hash == each.record_hash
        assert isinstance(record.event, Answered)
        assert record.event.receipt.body.request_digest == each.receipt_id
    audited = {r.event.attempt for r in records.values() if isinstance(r.event, Answered) and r.event.audited}
    assert audited
    with anyio.fail_after(30):
        async with world.verifier() as verifier, anyio.create_task_group() as group:
            group.start_soon(verifier.run)
            while not await found_all(world, audited):
                await anyio.sleep(PAUSE_S)
            for each in said:
                while (filed := await verifier.desk.receipt(each.receipt_id)) is None:
                    await anyio.sleep(PAUSE_S)  # the log is being read still
                assert filed.countersignature.body.record == each.record
            verifier.stop()
    verdicts = await verdicts_of(world)
    assert {verdicts[number].outcome for number in audited} == {"pass"}
    log = await SqliteLog.open(world.log_path, read_only=True)
    standings = await replay(log)
    await log.aclose()
    assert not standings.open_attempts


async def found_all(world: World, audited: set[int]) -> bool:
    return audited <= (await verdicts_of(world)).keys()


async def verdicts_of(world: World) -> dict[int, Verdict]:
    return {event.attempt: event for event in await world.events() if isinstance(event, Verdict)}
