"""The one writer of a log in Redis: its lease, its appends, and how it heals a log that lost its newest records.

The lease tells a second writer who is at work, and expires within seconds of its holder's death. What keeps
a log from two writers is the fence in every script: a writer that was paused while another one took the log
finds the other's token there, and can write nothing any more.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
from collections.abc import Sequence
from typing import Final

import anyio
import structlog
from pydantic import BaseModel, ValidationError
from redis.asyncio import Redis

from targon.ledger.errors import CorruptLog, HeadMoved, InvalidHistory, LogUnavailable
from targon.ledger.port import EMPTY, Head, Pair, Snapshot
from targon.ledger.redis import schema
from targon.ledger.redis.address import RedisAddress
from targon.ledger.redis.schema import SCHEMA_VERSION, noted_head
from targon.ledger.redis.tail import Tail

logger = structlog.get_logger(__name__)

LEASE_S: Final = 5.0
"""A dead writer's log can be written again after this time."""
RENEW_S: Final = 1.0
SNAPSHOTS_KEPT: Final = 3

_POLL_S: Final = 0.2
_LEASE_MS: Final = int(LEASE_S * 1_000)


class _Lease(BaseModel):
    """Who writes: for the fence, and for people."""

    host: str
    pid: int
    token: str


def named_holder(lease: bytes) -> str:
    """Who holds a lease, for people."""
    try:
        holder = _Lease.model_validate_json(lease)
    except ValidationError:
        return f"somebody unknown ({schema.LEASE} holds {lease[:40]!r})"
    return f"process {holder.pid} on {holder.host}"


class Writer:
    """Holds a log for writing. One call at a time."""

    def __init__(self, address: RedisAddress) -> None:
        self._address = address
        self._token = secrets.token_hex(16)
        lease = _Lease(host=socket.gethostname(), pid=os.getpid(), token=self._token)
        self._lease = lease.model_dump_json().encode()
        self._identity = secrets.token_hex(16)
        self._before = b""
        """The token of the writer before this one."""
        self._tail = Tail(EMPTY)

    @property
    def last(self) -> Head:
        """Where the log ends, by what was acknowledged."""
        return self._tail.last

    # -- taking and leaving --------------------------------------------------------------------------

    async def take(self, client: Redis) -> None:
        """Become the log's writer; make a log where there is none.

        A lease that nobody renews belongs to a writer that died: its end is waited for.

        Raises:
            LogUnavailable: if another process is writing to it.
        """
        _, before, identity = await self._wait_and_take(client, "create")
        self._before, self._identity = before, identity.decode()

    def begin(self, head: Head) -> None:
        """Go on from a log's end, after its chain was checked."""
        self._tail = Tail(head)

    async def _wait_and_take(self, client: Redis, *more: bytes | str) -> list[bytes]:
        """What TAKE says, once no lease is in its way.

        Raises:
            LogUnavailable: if another process renews its lease.
        """
        remaining = float("inf")
        while True:
            arguments = (self._token, self._lease, _LEASE_MS, SCHEMA_VERSION, self._identity)
            said = await schema.TAKE.run(client, *arguments, *more)
            if said[0] != b"held":
                return said
            holder, left = said[1], int(said[2])
            if left < 0 or left > remaining:
                raise self._held_by(holder)
            remaining = left
            await anyio.sleep(_POLL_S)

    async def release(self, client: Redis) -> None:
        """Let another writer begin at once."""
        await schema.RELEASE.run(client, self._lease)

    def _held_by(self, lease: bytes) -> LogUnavailable:
        return LogUnavailable(
            f"the log {self._address} is being written by {named_holder(lease)}, expected no other writer: "
            "stop that one first, or give this one a log of its own (--database.index)"
        )

    # -- writing -------------------------------------------------------------------------------------

    async def append(self, client: Redis, pairs: Sequence[Pair], expected: Head) -> None:
        """Append records once, however often this is called with them after it failed half-way.

        Raises:
            HeadMoved: if the log does not end at ``expected``.
            LogUnavailable: if another writer took the log.
            CorruptLog: if Redis lost more records than this writer still holds.
        """
        if self._tail.unsure is not None:
            sent, ends_at = self._tail.unsure, Head(pairs[-1][0].seq, pairs[-1][0].hash)
            await self.heal(client)
            if sent == ends_at == self._tail.last:
                return
        arguments = [argument for record, event in pairs for argument in (record.hash, event)]
        while True:
            self._tail.sending(pairs)
            word, *values = await schema.APPEND.run(
                client, self._token, self._lease, _LEASE_MS, expected.seq, expected.hash, *arguments
            )
            if word == b"appended":
                self._tail.acknowledged(anyio.current_time())
                return
            if word == b"moved" and noted_head(values) == Head(pairs[-1][0].seq, pairs[-1][0].hash):
                self._tail.acknowledged(anyio.current_time())  # an earlier try of ours came late
                return
            self._tail.refused()
            if word == b"moved" and (got := noted_head(values)) == self._tail.last:
                raise HeadMoved((got.seq, got.hash), (expected.seq, expected.hash))
            await self.heal(client)

    async def save_snapshot(self, client: Redis, snapshot: Snapshot) -> None:
        """Keep a snapshot; the newest few are kept.

        Raises:
            InvalidHistory: if its head is not in this log.
            LogUnavailable: if another writer took the log.
        """
        await self.heal(client)
        head = snapshot.head
        value = head.hash.encode() + hashlib.sha256(snapshot.state).hexdigest().encode() + snapshot.state
        arguments = (self._token, self._lease, _LEASE_MS, head.seq, head.hash, value, SNAPSHOTS_KEPT)
        (word,) = await schema.SAVE_SNAPSHOT.run(client, *arguments)
        if word == b"unknown":
            raise InvalidHistory(head.seq, "got a snapshot as of this record, which this log does not hold")
        if word == b"fenced":
            raise self._replaced()

    # -- healing -------------------------------------------------------------------------------------

    async def heal(self, client: Redis) -> None:
        """Renew the lease; find out what became of what was sent last; put back what Redis lost.

        Raises:
            HeadMoved: if somebody else wrote to the log.
            LogUnavailable: if another writer took the log.
            CorruptLog: if Redis lost more records than this writer still holds.
        """
        word, *values = await schema.RENEW.run(client, self._token, self._lease, _LEASE_MS)
        if word == b"fenced":
            await self._take_again(client)
            word, *values = await schema.RENEW.run(client, self._token, self._lease, _LEASE_MS)
            if word == b"fenced":
                raise self._replaced()
        head = noted_head(values)
        if head == self._tail.unsure:
            self._tail.acknowledged(anyio.current_time())
            return
        self._tail.refused()
        if head != self._tail.last:
            await self._put_back(client, head)

    async def _take_again(self, client: Redis) -> None:
        """Take the log after Redis lost that this writer had taken it (or its lease ran out, and nobody came)."""
        may_create = "create" if self._tail.before == EMPTY else "no"
        word, *_ = await self._wait_and_take(client, may_create, self._before)
        if word == b"fenced":
            raise self._replaced()
        if word != b"taken":
            found = "no log" if word == b"gone" else "another log"
            last = self._tail.last
            raise LogUnavailable(
                f"{self._address} holds {found} now, expected the one that this verifier wrote to, which ended "
                f"at record {last.seq} ({last.hash[:12]}…): restore it from Redis' append-only file or a copy"
            )

    async def _put_back(self, client: Redis, head: Head) -> None:
        last = self._tail.last
        missing = self._tail.after(head)
        if missing is None and head.seq >= last.seq:
            raise HeadMoved((head.seq, head.hash), (last.seq, last.hash))
        if missing is None:
            raise CorruptLog(
                head.seq + 1,
                f"Redis lost it, and more than this verifier still holds (it holds those after record "
                f"{self._tail.before.seq}; the log went on to record {last.seq}): restore Redis' "
                "append-only file or a copy, and keep `appendonly yes`",
            )
        arguments = [argument for record, event in missing for argument in (record.hash, event)]
        word, *values = await schema.APPEND.run(
            client, self._token, self._lease, _LEASE_MS, head.seq, head.hash, *arguments
        )
        if word != b"appended":
            got = noted_head(values) if word == b"moved" else last
            raise HeadMoved((got.seq, got.hash), (head.seq, head.hash))
        logger.warning(
            "redis_lost_records",
            log=str(self._address),
            first=head.seq + 1,
            last=last.seq,
            problem="Redis came back without its newest records; they were appended again",
        )

    def _replaced(self) -> LogUnavailable:
        return LogUnavailable(
            f"another writer took the log {self._address} while this one did not answer, expected no other "
            "writer: nothing was written; start this one again when the other has stopped"
        )
