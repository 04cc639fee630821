"""What a log is made of in Redis: its keys, its stream's entries, and the scripts that change them.

=============================  ======  ==============================================================
``targon:log:about``           hash    ``schema``, ``identity``, ``writer`` (token of the last writer)
``targon:log:head``            hash    ``seq`` and ``hash`` of the last record
``targon:log:records``         stream  record ``seq`` as entry ``(seq + 1)-0``: ``prev``, ``hash``, ``event``
``targon:log:lease``           string  who writes now, in JSON; expires unless it is renewed
``targon:log:snapshots``       hash    by ``seq``: hash (64 bytes), SHA-256 of the state (64), the state
=============================  ======  ==============================================================

A script runs as a whole or not at all, in the server as in its append-only file, where Redis writes its
effects as one transaction. So the records, the noted end and the fence against a writer that was replaced
are one step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from targon.ledger.errors import CorruptLog
from targon.ledger.port import Head
from targon.ledger.row import Row
from targon.protocol.primitives import Digest

SCHEMA_VERSION: Final = 1
OLDEST_REDIS: Final = (6, 2)
"""XAUTOCLAIM, with which a group takes over what a dead consumer left, came with it."""

PREFIX: Final = "targon:log:"
ABOUT: Final = PREFIX + "about"
HEAD: Final = PREFIX + "head"
RECORDS: Final = PREFIX + "records"
LEASE: Final = PREFIX + "lease"
SNAPSHOTS: Final = PREFIX + "snapshots"
KEYS: Final = (ABOUT, HEAD, RECORDS, LEASE, SNAPSHOTS)


class Script:
    """A Lua script, which is sent once and then called by its digest."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    async def run(self, client: Redis, *arguments: bytes | str | int) -> list[bytes]:
        """Run it on the log's keys; a script answers with a list, whose first item is a word."""
        rest = (len(KEYS), *KEYS, *arguments)
        try:
            result: list[bytes] = await client.execute_command("EVALSHA", self._sha, *rest)
        except NoScriptError:
            result = await client.execute_command("EVAL", self._text, *rest)
        return result


_KEYS = "local about, head, records, lease, snapshots = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]\n"

_FENCE = """
local holder = redis.call('GET', lease)
if redis.call('HGET', about, 'writer') ~= ARGV[1] or (holder and holder ~= ARGV[2]) then
  return {'fenced'}
end
"""
"""Goes on only for the writer that took the log last. Arguments: its token, its lease, milliseconds."""

_RENEWED = """
if holder then redis.call('PEXPIRE', lease, ARGV[3]) else redis.call('SET', lease, ARGV[2], 'PX', ARGV[3]) end
"""
"""After what else a script writes: a full Redis refuses a script only before its first change."""

TAKE: Final = Script(
    _KEYS
    + """
local holder = redis.call('GET', lease)
if holder and holder ~= ARGV[2] then return {'held', holder, tostring(redis.call('PTTL', lease))} end
local found = redis.call('HMGET', about, 'schema', 'identity', 'writer')
if not found[1] then
  if ARGV[6] ~= 'create' then return {'gone'} end
  redis.call('HSET', about, 'schema', ARGV[4], 'identity', ARGV[5])
  redis.call('HSET', head, 'seq', '-1', 'hash', string.rep('0', 64))
elseif ARGV[7] and found[2] ~= ARGV[5] then return {'other', found[2] or ''}
elseif ARGV[7] and found[3] and found[3] ~= ARGV[1] and found[3] ~= ARGV[7] then return {'fenced'}
end
redis.call('HSET', about, 'writer', ARGV[1])
redis.call('SET', lease, ARGV[2], 'PX', ARGV[3])
return {'taken', found[3] or '', found[2] or ARGV[5]}
"""
)
"""Become the writer. Arguments: token, lease, milliseconds, schema, identity, ``create`` or not; and, when a
writer takes its log again after Redis lost its newest data: the token of the writer before it."""

RENEW: Final = Script(
    _KEYS
    + _FENCE
    + _RENEWED
    + """
local noted = redis.call('HMGET', head, 'seq', 'hash')
return {'kept', noted[1] or '', noted[2] or ''}
"""
)
"""Go on being the writer; answers where the log ends."""

APPEND: Final = Script(
    _KEYS
    + _FENCE
    + """
local noted = redis.call('HMGET', head, 'seq', 'hash')
if noted[1] ~= ARGV[4] or noted[2] ~= ARGV[5] then return {'moved', noted[1] or '', noted[2] or ''} end
local seq, hash = tonumber(ARGV[4]), ARGV[5]
for i = 6, #ARGV, 2 do
  seq = seq + 1
  local id = string.format('%d-0', seq + 1)
  redis.call('XADD', records, id, 'prev', hash, 'hash', ARGV[i], 'event', ARGV[i + 1])
  hash = ARGV[i]
end
redis.call('HSET', head, 'seq', string.format('%d', seq), 'hash', hash)
"""
    + _RENEWED
    + "return {'appended'}"
)
"""Append after an expected end. More arguments: its seq and hash, then each record's hash and event."""

SAVE_SNAPSHOT: Final = Script(
    _KEYS
    + _FENCE
    + """
local id = string.format('%d-0', tonumber(ARGV[4]) + 1)
local entry = redis.call('XRANGE', records, id, id)[1]
if not entry or entry[2][4] ~= ARGV[5] then return {'unknown'} end
redis.call('HSET', snapshots, ARGV[4], ARGV[6])
local kept = redis.call('HKEYS', snapshots)
table.sort(kept, function(a, b) return tonumber(a) > tonumber(b) end)
for i = tonumber(ARGV[7]) + 1, #kept do redis.call('HDEL', snapshots, kept[i]) end
return {'saved'}
"""
)
"""Keep a snapshot. More arguments: its record's seq and hash, its value, how many are kept."""

RELEASE: Final = Script(
    _KEYS
    + """
if redis.call('GET', lease) == ARGV[1] then redis.call('DEL', lease) end
return {'released'}
"""
)
"""Stop being the writer. Argument: the lease."""


def entry_id(seq: int) -> str:
    """The stream's id of a record: ids begin at 1."""
    return f"{seq + 1}-0"


def rows(entries: Iterable[tuple[bytes, dict[bytes, bytes] | None]]) -> list[Row]:
    """The stored records that entries of the stream are.

    Raises:
        CorruptLog: if one has an id that no record has.
    """
    found = []
    for id_, stored in entries:
        number, _, part = id_.partition(b"-")
        if part != b"0":
            raise CorruptLog(
                int(number), f"before it stands entry {id_.decode()} of the stream, expected ids like 7-0"
            )
        fields = stored or {}  # none: it was deleted while a group had it
        prev, hash_, event = (fields.get(name, b"") for name in (b"prev", b"hash", b"event"))
        found.append(Row(int(number) - 1, prev, hash_, event))
    return found


def noted_head(noted: Sequence[Any]) -> Head:
    """Where a log ends, as it is noted.

    Raises:
        CorruptLog: if it is not noted.
    """
    seq, hash_ = noted
    if not seq or not hash_:
        raise CorruptLog(0, f"the log's end is not noted, expected seq and hash in {HEAD}")
    if not seq.removeprefix(b"-").isdigit():
        raise CorruptLog(0, f"the log's end is noted as record {seq!r}, expected a number in {HEAD}")
    return Head(int(seq), Digest(hash_.decode("utf-8", "replace")))
