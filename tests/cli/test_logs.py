"""Logs in files and in a real Redis: shown, explained and copied by the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from targon.cli import main
from targon.cli.catalog import environment_name
from targon.cli.commands.log import verifier_options
from targon.cli.logs import opened_log
from targon.ledger import Log, Record, SqliteLog, replay
from targon.ledger.port import EMPTY
from targon.ledger.redis import RedisLog
from tests.ledger.damage import story
from tests.ledger.history import ALICE, BOB, History, fails, passes, step_closed
from tests.ledger.redis_server import RedisServer
from tests.ledger.worlds import RedisWorld, SqliteWorld, World

HISTORY = History.begun(ALICE, BOB)
for block in range(1, 200):
    HISTORY.step(block, *passes(ALICE, 1), *fails(BOB, 1))

PASSWORD = environment_name("verifier", "database.password")


@pytest.fixture
def flags(empty_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What names the Redis; its password is in the environment."""
    monkeypatch.setenv(PASSWORD, empty_redis.address.password)
    return ["--database.port", str(empty_redis.address.port), "--database.index", "0"]


@pytest.fixture
def redis(empty_redis: RedisServer) -> RedisWorld:
    return RedisWorld(empty_redis.address)


def fill(world: World, events: Any = HISTORY.events) -> None:
    async def append() -> None:
        async with world.open() as log:
            await log.append(events, expected=EMPTY)

    anyio.run(append)


def everything(world: World) -> list[Record]:
    async def read() -> list[Record]:
        async with world.open(read_only=True) as log:
            return [record async for record in log.read()]

    return anyio.run(read)


# one context manager for both


@pytest.mark.anyio
async def test_a_log_is_made_and_opened_where_the_options_say(tmp_path: Path, flags: list[str]) -> None:
    async def head_after_writing(*given: str) -> tuple[type[Log], object]:
        options = verifier_options(["--data.path", str(tmp_path / "verifier"), *given])
        async with opened_log(options, read_only=False) as log:
            await log.append(story(), expected=EMPTY)
        async with opened_log(options, read_only=True) as log:
            return type(log), (await log.head()).seq

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(PASSWORD)
        in_a_file = await head_after_writing()
    assert in_a_file == (SqliteLog, len(story()) - 1)
    assert (tmp_path / "verifier" / "log.sqlite").is_file()
    assert await head_after_writing(*flags) == (RedisLog, len(story()) - 1)


# status and why


def test_standings_are_shown_of_a_log_in_redis_as_of_one_in_a_file(
    tmp_path: Path, redis: RedisWorld, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    file = SqliteWorld(tmp_path / "log.sqlite")
    fill(redis)
    fill(file)
    capsys.readouterr()
    for command in (["status"], ["why", "0"]):
        assert main([*command, *flags]) == 0
        of_redis = capsys.readouterr().out
        assert main([*command, "--path", str(file.path), *flags]) == 0
        of_file = capsys.readouterr().out
        assert of_redis.replace(str(redis.address), "") == of_file.replace(str(file.path), "")
        assert len(of_redis.splitlines()) > 3


def test_a_verifier_s_own_file_of_options_says_where_its_log_is(
    tmp_path: Path, redis: RedisWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(redis)
    at, file = redis.address, tmp_path / "verifier.toml"
    file.touch(mode=0o600)
    capsys.readouterr()
    file.write_text(f'[database]\nport = {at.port}\nindex = 0\npassword = "{at.password}"\n')
    assert main(["status", "--config", str(file)]) == 0
    assert capsys.readouterr().out.startswith(f"{at}: {len(HISTORY.records)} records")
    fill(SqliteWorld(tmp_path / "own" / "log.sqlite"))
    assert main(["status", "--data.path", str(tmp_path / "own")]) == 0
    assert capsys.readouterr().out.startswith(str(tmp_path / "own" / "log.sqlite"))


def test_a_redis_that_keeps_us_out_is_a_sentence(flags, monkeypatch, capsys) -> None:
    monkeypatch.setenv(PASSWORD, "correct-horse")
    assert main(["status", *flags]) == 1
    said = capsys.readouterr().err
    assert "the server does not take the password" in said
    assert "correct-horse" not in said


# migrate


@pytest.mark.parametrize("way", ["to redis", "to a file"])
def test_a_log_is_copied_and_what_came_of_it_is_said(
    way: str, tmp_path: Path, redis: RedisWorld, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    file = SqliteWorld(tmp_path / "verifier" / "log.sqlite")
    source, target = (file, redis) if way == "to redis" else (redis, file)
    fill(source)
    words = [str(file.path.parent), "redis"] if way == "to redis" else ["redis", f"sqlite:{file.path}"]
    assert main(["log", "migrate", *words, *flags]) == 0
    out, err = capsys.readouterr()
    count = len(HISTORY.records)
    assert f"{count} records copied; it ends at record {count - 1} ({HISTORY.head.hash})" in out
    assert "standings equal, byte for byte" in out
    assert "meanwhile" not in out
    assert f"{count}/{count}" in err
    assert everything(target) == everything(source) == HISTORY.records
    assert main(["log", "migrate", *words, *flags]) == 0
    assert ": 0 records copied" in capsys.readouterr().out


def test_a_second_redis_is_named_by_its_address_and_its_password_by_the_environment(
    redis: RedisWorld, flags: list[str], monkeypatch, capsys
) -> None:
    fill(redis)
    at = redis.address
    words = ["log", "migrate", "redis", f"redis://127.0.0.1:{at.port}/3", *flags]
    assert main(words) == 1
    assert "the server asks for a password" in capsys.readouterr().err
    monkeypatch.setenv("TARGON_TARGET_PASSWORD", at.password)
    assert main(words) == 0
    assert f"redis://127.0.0.1:{at.port}/3: {len(HISTORY.records)} records copied" in capsys.readouterr().out


def test_a_log_is_copied_while_its_verifier_writes_to_it(
    tmp_path: Path, redis: RedisWorld, flags: list[str], capsys
) -> None:
    fill(redis)
    copy = SqliteWorld(tmp_path / "copy.sqlite")

    async def copied_while_written() -> int:
        async with redis.open() as log, anyio.create_task_group() as tasks:

            async def write() -> None:
                standings = await replay(log)
                while True:
                    event = step_closed(standings.block + 1)
                    for record in await log.append([event], expected=standings.head):
                        standings.apply(record)

            tasks.start_soon(write)
            with anyio.fail_after(60):
                code = await anyio.to_thread.run_sync(
                    main, ["log", "migrate", "redis", str(copy.path), *flags]
                )
            tasks.cancel_scope.cancel()
        return code

    assert anyio.run(copied_while_written) == 0
    assert "the source went on to record" in capsys.readouterr().out
    kept = everything(copy)
    assert len(kept) >= len(HISTORY.records)
    assert everything(redis)[: len(kept)] == kept


def test_a_target_that_holds_another_log_is_refused_and_left(
    tmp_path: Path, redis: RedisWorld, flags: list[str], capsys
) -> None:
    fill(redis)
    other = SqliteWorld(tmp_path / "other.sqlite")
    fill(other, story())
    assert main(["log", "migrate", "redis", str(other.path), *flags]) == 1
    assert "the target holds another log" in capsys.readouterr().err
    assert len(everything(other)) == len(story())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("redis", "redis"), "SOURCE and TARGET are both redis://127.0.0.1:"),
        (("redis://127.0.0.1/1", "copy.sqlite"), "SOURCE: got an address of Redis, expected the word redis"),
        (("redis", "redis://:hunter2@127.0.0.1/1"), "expected it in TARGON_TARGET_PASSWORD"),
        (("redis", "redis://127.0.0.1/one"), "TARGET: got an address that is none"),
        (("redis", "redis://127.0.0.1:hunter2/1"), "TARGET: got an address that is none"),
        (("redis", "redis:///1"), "TARGET: got 'redis:///1', expected redis://HOST:PORT/INDEX"),
        (("redis", "copy.sqlite", "--database.prot", "1"), "did you mean --database.port?"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_no_password_repeated(words, said, flags, capsys) -> None:
    assert main(["log", "migrate", *words, *flags]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert "hunter2" not in err


def test_a_source_that_is_not_there_is_named(tmp_path: Path, capsys) -> None:
    assert main(["log", "migrate", str(tmp_path), str(tmp_path / "copy.sqlite")]) == 1
    assert f"no log at {tmp_path}" in capsys.readouterr().err
    assert not (tmp_path / "copy.sqlite").exists()
