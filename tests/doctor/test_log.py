"""The verifier's log: whole and damaged, ours and another's, free and being written."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from targon.chain import Chain
from targon.doctor import Check, SqlitePlace, examine, good
from targon.doctor import log as room
from targon.doctor.chain import Link
from targon.doctor.findings import Result
from targon.doctor.log import (
    Story,
    check_folder,
    check_log,
    check_network,
    check_secret,
    check_software,
    check_whose,
    check_writer,
)
from targon.ledger import Event, Log, SqliteLog
from targon.protocol.primitives import Digest
from targon.protocol.profile import DEMO, STANDARD
from tests.doctor.looks import ANOTHER, OURS, look, only, unprivileged
from tests.ledger.damage import TEARS, cut_off, size_of, story, write, write_diary
from tests.ledger.history import log_opened
from tests.prover.world import GENESIS, MemoryChain

pytestmark = pytest.mark.anyio


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

    def __init__(self, folder: Path, place: SqlitePlace) -> None:
        self._place = place

    async def open(self) -> Log | None:
        log = await self._place.open()
        assert log is not None
        read = log.read

        async def again(start: int = 0, stop: int | None = None):
            while True:
                async for record in read():
                    yield record

        log.read = again
        return log

    async def size(self) -> int | None:
        return await self._place.size()


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


def test_a_folder_that_can_be_written_or_made_is_good(tmp_path: Path) -> None:
    assert only(check_folder(tmp_path)).outcome == "good"
    assert only(check_folder(tmp_path / "a" / "b")).outcome == "good"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_bad() -> None:
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o555)
        with unprivileged():
            finding = only(check_folder(Path(name) / "verifier"))
    assert (finding.outcome, f"{name} can't be written" in finding.found) == ("bad", True)


def test_a_file_in_the_folder_s_place_is_bad(tmp_path: Path) -> None:
    (tmp_path / "verifier").touch()
    assert only(check_folder(tmp_path / "verifier")).outcome == "bad"


@pytest.mark.parametrize(
    ("content", "mode", "begun", "outcome"),
    [
        (None, 0, False, "good"),
        (None, 0, True, "bad"),
        (b"s" * 32, 0o600, True, "good"),
        (b"s" * 31, 0o600, True, "bad"),
        (b"s" * 32, 0o640, True, "bad"),
    ],
)
def test_the_secret_is_there_whole_and_its_owner_s_alone(
    tmp_path: Path, content: bytes | None, mode: int, begun: bool, outcome: str
) -> None:
    if content is not None:
        (tmp_path / "draws.secret").write_bytes(content)
        (tmp_path / "draws.secret").chmod(mode)
    assert only(check_secret(tmp_path, begun=begun)).outcome == outcome


async def test_who_writes_a_log_is_named_and_not_disturbed(tmp_path: Path) -> None:
    file, proc = tmp_path / "log.sqlite", Path("/proc")
    before = only(check_writer(file, proc))
    async with aclosing(await SqliteLog.open(file)) as log:
        meanwhile = only(check_writer(file, proc))
        await log.append(ours(), expected=await log.head())
    after = only(check_writer(file, proc))
    assert [one.outcome for one in (before, meanwhile, after)] == ["good", "note", "good"]
    assert f"process {os.getpid()} writes it now" in meanwhile.found
    assert "pytest" in meanwhile.found


def test_a_system_that_lists_no_locks_leaves_the_writer_unchecked(tmp_path: Path) -> None:
    (tmp_path / "log.sqlite.writer").write_text("1\n")
    finding = only(check_writer(tmp_path / "log.sqlite", tmp_path))
    assert (finding.outcome, "can't be read" in finding.found) == ("note", True)


async def test_a_folder_s_checks_come_with_it(tmp_path: Path) -> None:
    rows = await examine((await a_log(tmp_path)).checks)
    assert [(row.check, row.outcome) for row in rows] == [
        ("data folder", "good"),
        ("secret", "bad"),
        ("writer", "good"),
    ]


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
