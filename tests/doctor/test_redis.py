"""A log in Redis: a real server, well and ill, with and without a log."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from targon.doctor import Finding, Row, examine
from targon.doctor.log import check_log
from targon.doctor.redis import RedisPlace, check_kept, check_memory
from targon.ledger.port import EMPTY
from targon.ledger.redis import RedisAddress, RedisLog, look_at, schema
from tests.doctor.looks import look, only
from tests.doctor.test_log import ours
from tests.ledger import certificates
from tests.ledger.proxy import proxy
from tests.ledger.redis_server import RedisServer
from tests.neuron_processes import free_port

pytestmark = pytest.mark.anyio

MIB = 1 << 20


async def begin(server: RedisServer) -> None:
    async with RedisLog.open(server.address) as log:
        await log.append(ours(), expected=EMPTY)


async def examined(address: RedisAddress, folder: Path) -> dict[str, Row]:
    return {row.check: row for row in await examine(RedisPlace(address, folder).checks)}


async def server_of(address: RedisAddress, folder: Path) -> Row:
    return (await examined(address, folder))["redis"]


async def test_a_redis_that_is_well_and_holds_nothing_yet_is_good(
    empty_redis: RedisServer, tmp_path: Path
) -> None:
    rows = await examined(empty_redis.address, tmp_path)
    assert {row.outcome for row in rows.values()} == {"good"}
    assert rows["redis"].found.endswith(f"{empty_redis.address} holds nothing yet")
    log = await check_log(RedisPlace(empty_redis.address, tmp_path))
    assert (only(log).outcome, log.value) == ("good", None)
    assert empty_redis.command("DBSIZE") == 0


async def test_a_whole_log_is_good_and_tells_its_story(empty_redis: RedisServer, tmp_path: Path) -> None:
    await begin(empty_redis)
    place = RedisPlace(empty_redis.address, tmp_path)
    result = await check_log(place)
    assert (only(result).outcome, result.value.records, result.value.whole) == ("good", len(ours()), True)
    assert result.value.size > 1_000
    assert result.value.room > MIB
    assert (await server_of(empty_redis.address, tmp_path)).found.endswith("holds a log")


async def test_a_log_without_its_secret_is_bad(empty_redis: RedisServer, tmp_path: Path) -> None:
    await begin(empty_redis)
    rows = await examined(empty_redis.address, tmp_path)
    assert [row.check for row in rows.values() if row.outcome != "good"] == ["secret"]


async def test_an_altered_log_is_bad_and_the_record_is_named(
    empty_redis: RedisServer, tmp_path: Path
) -> None:
    await begin(empty_redis)
    empty_redis.command("XDEL", schema.RECORDS, schema.entry_id(7))
    finding = await look(check_log(RedisPlace(empty_redis.address, tmp_path)))
    assert (finding.outcome, "record 7: " in finding.found) == ("bad", True)
    assert "--database.index" in finding.advice


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"password": "correct-horse"}, "the server does not take the password: got a wrong one"),
        ({"password": ""}, "the server asks for a password, got none: give it with --database.password"),
        ({"index": 99}, "check --database.index"),
        ({"tls": True}, "--database.tls"),
        ({"ca_file": Path("gone.pem"), "tls": True}, "check --database.ca_file"),
    ],
)
async def test_what_keeps_us_out_is_bad_in_the_adapter_s_words_and_told_once(
    empty_redis: RedisServer, tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    rows = await examined(replace(empty_redis.address, **changes), tmp_path)
    assert (rows["redis"].outcome, said in rows["redis"].found) == ("bad", True)
    assert "correct-horse" not in rows["redis"].found
    assert {row.outcome for name, row in rows.items() if name not in ("redis", "data folder")} == {"note"}


async def test_a_redis_that_is_not_there_is_bad(tmp_path: Path) -> None:
    row = await server_of(RedisAddress(host="127.0.0.1", port=free_port()), tmp_path)
    assert (row.outcome, "is Redis running there?" in row.found) == ("bad", True)


async def test_a_redis_is_looked_at_through_tls(empty_redis: RedisServer, tmp_path: Path) -> None:
    authority = certificates.Authority(tmp_path)
    async with proxy(empty_redis.address, authority.server_context("127.0.0.1")) as between:
        trusted = await server_of(replace(between.address, ca_file=authority.file), tmp_path)
        unknown = await server_of(between.address, tmp_path)
    assert (trusted.outcome, trusted.found.count("rediss://")) == ("good", 1)
    assert (unknown.outcome, "cannot be trusted" in unknown.found) == ("bad", True)


async def test_a_database_of_somebody_else_s_is_bad(empty_redis: RedisServer, tmp_path: Path) -> None:
    empty_redis.command("SET", "celery", "1")
    row = await server_of(empty_redis.address, tmp_path)
    assert (row.outcome, "give the log a database of its own" in row.found) == ("bad", True)


@pytest.mark.parametrize(
    ("setting", "value", "cure"),
    [
        ("appendonly", "no", "redis-cli CONFIG SET appendonly yes; for good, in redis.conf: appendonly yes"),
        ("appendfsync", "no", "redis-cli CONFIG SET appendfsync everysec"),
        ("maxmemory-policy", "allkeys-lru", "redis-cli CONFIG SET maxmemory-policy noeviction"),
    ],
)
async def test_a_redis_that_may_lose_the_log_is_bad_and_its_cure_told(
    own_redis: RedisServer, setting: str, value: str, cure: str
) -> None:
    well = await look(check_kept(await look_at(own_redis.address)))
    own_redis.command("CONFIG", "SET", setting, value)
    ill = await look(check_kept(await look_at(own_redis.address)))
    assert (well.outcome, "appendfsync everysec" in well.found) == ("good", True)
    assert (ill.outcome, cure in ill.advice) == ("bad", True)


async def test_settings_that_our_user_may_not_see_are_not_checked(own_redis: RedisServer) -> None:
    own_redis.command("ACL", "SETUSER", "targon", "on", ">secret", "~targon:log:*", "+@all", "-@admin")
    facts = await look_at(replace(own_redis.address, username="targon", password="secret"))
    finding = await look(check_kept(facts))
    assert (finding.outcome, "CONFIG GET" in finding.advice) == ("note", True)


async def memory_of(server: RedisServer, times: float) -> Finding:
    """What is found when the server may take so many times what it has taken."""
    used = (await look_at(server.address)).used
    assert used is not None
    server.command("CONFIG", "SET", "maxmemory", int(used * times))
    return await look(check_memory(await look_at(server.address)))


async def test_a_redis_that_is_full_soon_is_bad(own_redis: RedisServer) -> None:
    unlimited = await look(check_memory(await look_at(own_redis.address)))
    found = [await memory_of(own_redis, times) for times in (10.0, 1.25, 1.05)]
    assert (unlimited.outcome, "its machine's memory" in unlimited.found) == ("good", True)
    assert [one.outcome for one in found] == ["good", "note", "bad"]
    assert "its maxmemory" in found[2].found


async def test_who_writes_a_log_is_named_and_not_disturbed(empty_redis: RedisServer, tmp_path: Path) -> None:
    async with RedisLog.open(empty_redis.address) as log:
        meanwhile = (await examined(empty_redis.address, tmp_path))["writer"]
        await log.append(ours(), expected=await log.head())
    after = (await examined(empty_redis.address, tmp_path))["writer"]
    assert (meanwhile.outcome, after.outcome) == ("note", "good")
    assert meanwhile.found.startswith("process ")
