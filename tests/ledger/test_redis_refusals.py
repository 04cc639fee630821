"""Servers that cannot be used, databases that are no log, and what is said of them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from targon.ledger import LogUnavailable
from targon.ledger.port import EMPTY
from targon.ledger.redis import RedisAddress, RedisLog, follow, schema, server
from tests.ledger import certificates
from tests.ledger.history import ALICE, History, step_closed
from tests.ledger.proxy import proxy
from tests.ledger.redis_server import RedisServer, redis_server
from tests.neuron_processes import free_port

pytestmark = pytest.mark.anyio

BEGUN = History.begun(ALICE).events
SECRET = "correct-horse-battery-staple"


@pytest.fixture
def open_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that asks for no password."""
    with redis_server(tmp_path / "open", password="") as server:
        yield server


async def refusal(address: RedisAddress, *, read_only: bool = False) -> str:
    """Why a log cannot be opened; what is logged and said never holds the password."""
    with capture_logs() as logs, pytest.raises(LogUnavailable) as error:
        async with RedisLog.open(address, read_only=read_only):
            pass
    said = str(error.value)
    assert not address.password or address.password not in f"{said} {logs} {address} {address!r}"
    return said


# the server


async def test_a_wrong_password_is_named_and_not_said(empty_redis: RedisServer) -> None:
    said = await refusal(replace(empty_redis.address, password=SECRET))
    assert "got a wrong one; check --database.password" in said
    assert f"cannot open the log {empty_redis.address}" in said


async def test_a_missing_password_is_asked_for(empty_redis: RedisServer) -> None:
    said = await refusal(replace(empty_redis.address, password=""))
    assert "the server asks for a password, got none: give it with --database.password" in said


async def test_a_password_that_nobody_asks_for_is_refused(open_redis: RedisServer) -> None:
    said = await refusal(replace(open_redis.address, password=SECRET))
    assert "got a password, expected none" in said
    assert "leave out --database.password" in said


async def test_a_port_that_nobody_listens_on_is_said_at_once() -> None:
    said = await refusal(RedisAddress(host="127.0.0.1", port=free_port(), password=SECRET))
    assert "no connection" in said
    assert "Check --database.host and --database.port" in said


async def test_a_host_without_an_address_is_named() -> None:
    said = await refusal(RedisAddress(host="no-such-host.invalid", password=SECRET))
    assert "got the host 'no-such-host.invalid', which has no address" in said
    assert "check --database.host" in said


async def test_a_database_index_that_is_not_there_is_named(empty_redis: RedisServer) -> None:
    assert "check --database.index" in await refusal(replace(empty_redis.address, index=99))


async def test_a_user_who_may_not_write_is_told(empty_redis: RedisServer) -> None:
    empty_redis.command(
        "ACL", "SETUSER", "reader", "on", f">{SECRET}", "~*", "+@read", "+@connection", "+info"
    )
    said = await refusal(replace(empty_redis.address, username="reader", password=SECRET))
    assert "the user may not do this" in said


async def test_a_user_who_may_not_see_the_configuration_can_write_a_log(empty_redis: RedisServer) -> None:
    empty_redis.command("ACL", "SETUSER", "writer", "on", f">{SECRET}", "~targon:log:*", "+@all", "-@admin")
    with capture_logs() as logs:
        async with RedisLog.open(replace(empty_redis.address, username="writer", password=SECRET)) as log:
            await log.append(BEGUN, expected=EMPTY)
    assert [entry["event"] for entry in logs] == ["redis_log_opened"]


async def test_a_full_redis_says_so(own_redis: RedisServer) -> None:
    async with RedisLog.open(own_redis.address) as log:
        await log.append(BEGUN, expected=EMPTY)
        head = await log.head()
        own_redis.command("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(LogUnavailable, match=r"Redis is full .*: raise its maxmemory"):
            await log.append([step_closed(1)], expected=head)
        own_redis.command("CONFIG", "SET", "maxmemory", "0")
        await log.append([step_closed(1)], expected=head)


async def test_a_replica_cannot_be_written(own_redis: RedisServer) -> None:
    own_redis.command("REPLICAOF", "127.0.0.1", free_port())
    assert "READONLY" in await refusal(own_redis.address) or "replica" in await refusal(own_redis.address)


async def test_a_redis_that_is_too_old_is_named(
    empty_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "OLDEST_REDIS", (99, 1))
    assert re.search(r"got Redis \d+\.\d+\.\d+, expected 99.1 or newer", await refusal(empty_redis.address))


# TLS


async def test_a_log_is_written_through_tls(empty_redis: RedisServer, tmp_path: Path) -> None:
    authority = certificates.Authority(tmp_path)
    async with proxy(empty_redis.address, authority.server_context("127.0.0.1")) as between:
        address = replace(between.address, ca_file=authority.file)
        async with RedisLog.open(address) as log:
            records = await log.append(BEGUN, expected=EMPTY)
            assert [record async for record in log.read()] == records
    assert str(address).startswith("rediss://")


async def test_a_certificate_of_an_unknown_authority_is_refused(
    empty_redis: RedisServer, tmp_path: Path
) -> None:
    authority = certificates.Authority(tmp_path)
    async with proxy(empty_redis.address, authority.server_context("127.0.0.1")) as between:
        said = await refusal(between.address)
    assert "got a certificate that cannot be trusted" in said
    assert "--database.ca_file" in said


async def test_a_certificate_of_another_host_is_refused(empty_redis: RedisServer, tmp_path: Path) -> None:
    authority = certificates.Authority(tmp_path)
    async with proxy(empty_redis.address, authority.server_context("127.0.0.9")) as between:
        said = await refusal(replace(between.address, ca_file=authority.file))
    assert "expected one for '127.0.0.1' from a known authority" in said


async def test_tls_against_a_server_in_the_clear_is_said(empty_redis: RedisServer) -> None:
    said = await refusal(replace(empty_redis.address, tls=True))
    assert "does it not speak TLS (--database.tls)?" in said


async def test_speaking_in_the_clear_to_a_server_with_tls_is_said(
    empty_redis: RedisServer, tmp_path: Path
) -> None:
    authority = certificates.Authority(tmp_path)
    async with proxy(empty_redis.address, authority.server_context("127.0.0.1")) as between:
        assert "--database.tls" in await refusal(replace(between.address, tls=False))


async def test_a_file_of_authorities_that_is_not_there_is_named(empty_redis: RedisServer) -> None:
    said = await refusal(replace(empty_redis.address, tls=True, ca_file=Path("no/such/file.pem")))
    assert "cannot read no/such/file.pem" in said
    assert "check --database.ca_file" in said


async def test_a_file_of_authorities_that_holds_none_is_named(
    empty_redis: RedisServer, tmp_path: Path
) -> None:
    file = tmp_path / "diary.pem"
    file.write_text("dear diary, today")
    said = await refusal(replace(empty_redis.address, tls=True, ca_file=file))
    assert "diary.pem holds no certificates" in said


async def test_a_server_that_speaks_another_protocol_is_said(empty_redis: RedisServer) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        await reader.read(1)
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        for tls, said in ((False, "does not speak Redis in the clear"), (True, "leave out --database.tls")):
            assert said in await refusal(RedisAddress(host="127.0.0.1", port=port, tls=tls, password=SECRET))


# the database


async def test_a_log_of_a_newer_version_is_refused(empty_redis: RedisServer) -> None:
    async with RedisLog.open(empty_redis.address):
        pass
    empty_redis.command("HSET", schema.ABOUT, "schema", "2")
    for read_only in (True, False):
        said = await refusal(empty_redis.address, read_only=read_only)
        assert "got version 2, expected 1: upgrade this software" in said


async def test_a_database_with_something_else_in_it_is_refused(empty_redis: RedisServer) -> None:
    empty_redis.command("SET", "celery", "1")
    empty_redis.command("SET", "sessions", "2")
    for read_only in (True, False):
        said = await refusal(empty_redis.address, read_only=read_only)
        assert "holds 2 keys ('celery', 'sessions') but no log, expected a log or nothing" in said
        assert "--database.index" in said
    assert empty_redis.command("DBSIZE") == 2


async def test_parts_of_a_log_are_no_log(empty_redis: RedisServer) -> None:
    async with RedisLog.open(empty_redis.address) as log:
        await log.append(BEGUN, expected=EMPTY)
    empty_redis.command("DEL", schema.ABOUT)
    assert "targon:log:about is missing" in await refusal(empty_redis.address)


@pytest.mark.parametrize("key", [schema.ABOUT, schema.HEAD, schema.RECORDS])
async def test_keys_of_another_kind_are_no_log(empty_redis: RedisServer, key: str) -> None:
    async with RedisLog.open(empty_redis.address):
        pass
    empty_redis.command("SET", key, "something else")
    assert "a key of the log holds something else" in await refusal(empty_redis.address)


async def test_two_databases_of_a_server_hold_two_logs(empty_redis: RedisServer) -> None:
    other = replace(empty_redis.address, index=1)
    async with RedisLog.open(empty_redis.address) as one, RedisLog.open(other) as two:
        await one.append(BEGUN, expected=EMPTY)
        assert await two.head() == EMPTY


async def test_what_is_no_log_cannot_be_followed(empty_redis: RedisServer) -> None:
    with pytest.raises(LogUnavailable, match="there is no log at"):
        await anext(follow(empty_redis.address, "group", "one"))


# what could be lost


@pytest.mark.parametrize(
    ("setting", "value", "fix"),
    [
        ("appendonly", "no", "CONFIG SET appendonly yes; for good, in redis.conf: appendonly yes"),
        (
            "appendfsync",
            "no",
            "CONFIG SET appendfsync everysec; for good, in redis.conf: appendfsync everysec",
        ),
        ("maxmemory-policy", "allkeys-lru", "CONFIG SET maxmemory-policy noeviction"),
    ],
)
async def test_a_redis_that_may_lose_the_log_is_warned_of_once(
    own_redis: RedisServer, setting: str, value: str, fix: str
) -> None:
    own_redis.command("CONFIG", "SET", setting, value)
    with capture_logs() as logs:
        async with RedisLog.open(own_redis.address) as log:
            await log.append(BEGUN, expected=EMPTY)
    (warning,) = logs
    assert (warning["event"], warning["log_level"]) == ("redis_may_lose_the_log", "warning")
    assert fix in warning["fix"]


async def test_without_a_file_to_append_to_a_user_without_rights_is_warned_too(
    own_redis: RedisServer,
) -> None:
    own_redis.command("CONFIG", "SET", "appendonly", "no")
    own_redis.command("ACL", "SETUSER", "writer", "on", f">{SECRET}", "~*", "+@all", "-config")
    with capture_logs() as logs:
        async with RedisLog.open(replace(own_redis.address, username="writer", password=SECRET)):
            pass
    assert [entry["event"] for entry in logs] == ["redis_may_lose_the_log"]


@pytest.mark.parametrize(
    ("appendfsync", "said"),
    [("always", "nothing that was acknowledged"), ("everysec", "the newest second or two, and only if")],
)
async def test_what_a_setting_may_lose_is_said(own_redis: RedisServer, appendfsync: str, said: str) -> None:
    own_redis.command("CONFIG", "SET", "appendfsync", appendfsync)
    with capture_logs() as logs:
        async with RedisLog.open(own_redis.address):
            pass
    assert said in logs[0]["may_lose"]
