"""An oracle that commits ever so often: the log has room for so much of it in an interval, and no more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from targon.protocol.private_inputs import NO_COMMITMENT
from targon.protocol.schedule import INTERVAL_BLOCKS
from targon.verifier import commitments
from tests.verifier.oracle_seat import MINE, ORACLES, OTHER, an_oracle, seated
from tests.verifier.scripted_oracle import PERIOD, Period, periods

pytestmark = pytest.mark.anyio

BEGIN = INTERVAL_BLOCKS - 10 * PERIOD


def from_block(first: int, count: int) -> Iterator[Period]:
    """Periods one after the other."""
    previous = str(NO_COMMITMENT)
    for number in range(count):
        period = Period(number, (MINE, OTHER), previous=previous, first=first + number * PERIOD)
        previous = period.body.digest()
        yield period


async def test_what_exceeds_an_intervals_room_waits_for_the_next_and_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    oracle = an_oracle()
    oracle.chain.now = BEGIN - 2
    oracle.periods = list(from_block(BEGIN, 20))
    size = len(oracle.periods[0].commitment.to_bytes())
    monkeypatch.setattr(commitments, "MOST_BYTES", 5 * size + size // 2)
    with capture_logs() as logs:
        async with seated(tmp_path, oracle) as seat:
            await seat.reach(BEGIN + 5 * PERIOD)
            assert [number for number, _ in await seat.committed()] == [0, 1, 2, 3, 4]
            assert await seat.text() == "own 1"
            await seat.reach(INTERVAL_BLOCKS - 1)
            assert len(await seat.committed()) == 5
            await seat.reach(INTERVAL_BLOCKS + 2 * PERIOD)
            assert await seat.text() != "own 1", "it serves again, by itself"
            later = [number for number, seen in await seat.committed() if seen >= INTERVAL_BLOCKS]
            assert len(later) >= 2
            assert seat.counted("oracle_troubles_total", kind="too_often") == 1
            assert await seat.caught() == []
            assert await seat.relied_on() == [(ORACLES,), (), (ORACLES,)]
    (entry,) = [entry for entry in logs if entry["event"] == "oracle_commits_too_often"]
    assert (entry["log_level"], entry["oracle"]) == ("error", ORACLES)
    own = [entry for entry in logs if entry["event"] == "private_inputs_from_own_source"][-1]
    assert f"it commits too often: {commitments.MOST_BYTES} bytes" in own["why"]
    assert f"begins in block {INTERVAL_BLOCKS}" in own["why"]


def test_an_honest_oracle_whose_text_comes_block_by_block_has_room():
    (one,) = periods(1, MINE)
    longest = len(one.commitment.to_bytes()) + 63 * len(f'"{MINE}",') + 40
    assert INTERVAL_BLOCKS * longest < commitments.MOST_BYTES
