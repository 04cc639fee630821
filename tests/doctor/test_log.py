"""The verifier's log: whole and damaged, ours and another's, and how long there is room for it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from targon.chain import Chain, SubnetInfo
from targon.doctor import Check, SqlitePlace, examine, good
from targon.doctor import log as room
from targon.doctor.chain import Link
from targon.doctor.findings import Result
from targon.doctor.log import (
    Story,
    check_growth,
    check_log,
    check_network,
    check_software,
    check_whose,
)
from targon.doctor.machine import GIB
from targon.ledger import Event, Log, SqliteLog
from targon.protocol.primitives import Digest
from targon.protocol.profile import DEMO, STANDARD
from tests.doctor.looks import ANOTHER, OURS, look, only
from tests.ledger.damage import TEARS, cut_off, size_of, story, write, write_diary
from tests.ledger.history import log_opened
from tests.prover.world import GENESIS, NETUID, MemoryChain

pytestmark = pytest.mark.anyio

DAY_BLOCKS = 7_200


def ours(**changes) -> list[Event]:
    """A story that our hotkey tells."""
    opened = log_opened().model_copy(update={"verifier": OURS.ss58_address, **changes})
    return [opened, *story()[1:]]


async def a_log(folder: Path, events: list[Event] | None = None) -> SqlitePlace:
    place = SqlitePlace(folder)
    await write(place.file, ours() if events is None else events)
    return place


async def told(place: SqlitePlace) -> Story:
    value = (await check_log(place)).value
    assert isinstance(value, Story)
    return value


async def test_a_whole_log_is_good_and_tells_its_story(tmp_path: Path) -> None:
    result = await check_log(await a_log(tmp_path))
    assert (only(result).outcome, f"{len(ours())} records, up to block 12" in only(result).found) == (
        "good",
        True,
    )
    assert (result.value.whole, result.value.first, result.value.last) == (True, 0, 12)
    assert result.value.size >= size_of(tmp_path / "log.sqlite")


async def test_that_there_is_no_log_yet_is_good(tmp_path: Path) -> None:
    result = await check_log(SqlitePlace(tmp_path / "new"))
    assert (only(result).outcome, result.value) == ("good", None)
    assert not (tmp_path / "new").exists()


async def test_an_empty_log_is_good(tmp_path: Path) -> None:
    async with aclosing(await SqliteLog.open(tmp_path / "log.sqlite")):
        pass
    result = await check_log(SqlitePlace(tmp_path))
    assert (only(result).outcome, result.value) == ("good", None)


@pytest.mark.parametrize("tear", TEARS.values(), ids=TEARS)
async def test_a_torn_last_record_is_noted_and_left_to_the_verifier(
    tear: Callable[[Path, int], None], tmp_path: Path
) -> None:
    place = await a_log(tmp_path)
    tear(place.file, len(ours()) - 1)
    finding = await look(check_log(place))
    assert (finding.outcome, f"record {len(ours()) - 1}: " in finding.found) == ("note", True)


@pytest.mark.parametrize("tear", TEARS.values(), ids=TEARS)
async def test_a_wrong_record_in_the_middle_is_bad_and_named(
    tear: Callable[[Path, int], None], tmp_path: Path
) -> None:
    place = await a_log(tmp_path)
    tear(place.file, 7)
    result = await check_log(place)
    assert (only(result).outcome, "record 7: " in only(result).found, result.value) == ("bad", True, None)


async def test_a_file_that_lost_its_half_is_bad(tmp_path: Path) -> None:
    place = await a_log(tmp_path, [ours()[0], *story(60)[1:]])
    cut_off(place.file, size_of(place.file) // 2)
    assert (await look(check_log(place))).outcome == "bad"


async def test_a_file_that_is_no_log_is_bad(tmp_path: Path) -> None:
    write_diary(tmp_path / "log.sqlite")
    finding = await look(check_log(SqlitePlace(tmp_path)))
    assert (finding.outcome, "is no log" in finding.found) == ("bad", True)


async def test_a_log_that_is_too_long_to_be_read_whole_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "READ_S", 0.5)
    result = await check_log(Endless(tmp_path, await a_log(tmp_path)))
    assert (only(result).outcome, "were not read within 0.5 s" in only(result).found) == ("note", True)
    assert result.value.whole is False
    assert result.value.bytes_per_day(12.0) is None


class Endless:
    """A place of a log that never stops being read: its records come again and again."""

    checks = needed = ()
    flag = "--data.path"
    larger = "a larger disk"

    def __init__(self, folder: Path, place: SqlitePlace) -> None:
        self._place = place

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Log | None, None]:
        async with self._place.open() as log:
            assert log is not None
            read = log.read

            async def again(start: int = 0, stop: int | None = None):
                while True:
                    async for record in read():
                        yield record

            log.read = again
            yield log

    async def size(self) -> int | None:
        return await self._place.size()

    async def room(self) -> int | None:
        return await self._place.room()


async def test_our_log_under_our_rules_is_good(tmp_path: Path) -> None:
    assert (await look(check_whose(await told(await a_log(tmp_path)), OURS, DEMO))).outcome == "good"


async def test_another_verifier_s_log_is_bad(tmp_path: Path) -> None:
    finding = await look(check_whose(await told(await a_log(tmp_path)), ANOTHER, DEMO))
    assert (finding.outcome, f"expected {ANOTHER.ss58_address}" in finding.found) == ("bad", True)


async def test_other_rules_than_the_log_s_are_bad_and_named(tmp_path: Path) -> None:
    tale = await told(await a_log(tmp_path))
    profile = await look(check_whose(tale, OURS, STANDARD))
    alpha = await look(check_whose(tale, OURS, DEMO.model_copy(update={"ema_alpha": 0.5})))
    assert (profile.outcome, "interval_blocks 8, expected 360" in profile.found) == ("bad", True)
    assert alpha.found == "it was begun under other rules: ema_alpha 0.05, expected 0.5"


async def linked(chain: Chain) -> Link:
    return Link(chain, await chain.info())


async def test_a_log_of_this_chain_is_good_and_of_another_bad(tmp_path: Path) -> None:
    link = await linked(MemoryChain())
    same = await look(check_network(await told(await a_log(tmp_path / "one", ours(genesis=GENESIS))), link))
    chain = await look(
        check_network(await told(await a_log(tmp_path / "two", ours(genesis=Digest("0" * 64)))), link)
    )
    netuid = await look(check_network(await told(await a_log(tmp_path / "three", ours(netuid=7))), link))
    assert [same.outcome, chain.outcome, netuid.outcome] == ["good", "bad", "bad"]


@pytest.mark.parametrize(
    ("software", "outcome"),
    [("targon 0.1.0", "good"), ("targon 0.0.9", "good"), ("targon 0.10.0", "bad"), ("diary", "note")],
)
async def test_software_that_is_older_than_what_began_the_log_is_bad(
    tmp_path: Path, software: str, outcome: str
) -> None:
    place = await a_log(tmp_path, ours(software=software))
    assert (await look(check_software(await told(place), "0.1.0"))).outcome == outcome


def grown(place: SqlitePlace, room: int | None, last: int = 2 * DAY_BLOCKS) -> Story:
    """A log of 2 GiB, two days long."""
    return Story(place, log_opened(), 10, whole=True, first=0, last=last, size=2 * GIB, room=room)


LINK = Link(MemoryChain(), SubnetInfo(NETUID, GENESIS, 12.0, 100, 0, 0))


@pytest.mark.parametrize(
    ("room", "outcome"), [(100 * GIB, "good"), (20 * GIB, "note"), (1 * GIB, "bad"), (None, "note")]
)
async def test_how_long_a_log_has_room_follows_from_how_it_grew(
    tmp_path: Path, room: int | None, outcome: str
) -> None:
    finding = await look(check_growth(grown(SqlitePlace(tmp_path), room), LINK))
    assert (finding.outcome, "it grew by 1.0 GiB a day" in finding.found) == (outcome, True)


async def test_a_log_of_a_single_block_tells_nothing_of_its_growth(tmp_path: Path) -> None:
    finding = await look(check_growth(grown(SqlitePlace(tmp_path), GIB, last=0), LINK))
    assert (finding.outcome, "too short" in finding.found) == ("note", True)


async def test_a_log_elsewhere_brings_checks_of_its_own_and_is_opened_only_if_they_let_it(
    tmp_path: Path,
) -> None:
    async def down() -> Result:
        return good("nothing is handed on")

    class Elsewhere(Endless):
        server = Check("server", down)
        checks = needed = (server,)

    place = Elsewhere(tmp_path, SqlitePlace(tmp_path))
    story_of = Check("log", lambda *_: check_log(place), place.needed)
    assert [row.check for row in await examine([*place.checks, story_of])] == ["server"]
