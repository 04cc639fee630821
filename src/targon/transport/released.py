"""Reading the released part of a verifier's log, piece by piece. Whoever hands it out is not trusted."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable

import anyio
import anyio.lowlevel

from targon.protocol.errors import MalformedMessage
from targon.protocol.primitives import Digest
from targon.protocol.records import GENESIS_HASH, LogLine, LogPageEnd
from targon.transport.errors import BadResponse, Endpoint, Refused
from targon.transport.refusals import Code

LOG = "/v1/log"
MAX_PAGE_RECORDS = 1_000
"""Most records in one piece."""
PAGE_BYTES = 4 << 20
"""A piece ends with the record that reaches this size; a single record may be larger."""
MAX_RECORD_BYTES = 8 << 20
"""A record is never larger: the observations of the longest completion fit twice."""
MAX_PAGE_BYTES = PAGE_BYTES + MAX_RECORD_BYTES
CHECKED_AT_ONCE = 64
"""Records that are checked before others have their turn."""
TRIES = 6
MAX_WAIT_S = 30.0
"""Longest wait between two tries, whatever the other side asks for."""

_BUSY = (Code.TOO_MANY_REQUESTS, Code.TOO_MANY_CONCURRENT, Code.OVERLOADED)


async def released_records(
    axon: Endpoint, fetch: Callable[[str], Awaitable[bytes]], start: int, after: Digest | None
) -> AsyncGenerator[LogLine, None]:
    """The records from ``start`` on, up to what was released by the last piece.

    Args:
        fetch: the body that a GET of a target brings.
        after: hash of the record before ``start``; None: not checked, but for record 0.
    """
    before = GENESIS_HASH if start == 0 else after
    while True:
        lines, end = _page(axon, await _fetch_patiently(fetch, f"{LOG}?start={start}"))
        for line in lines:
            record = _record(axon, line, start, before)
            yield record
            start, before = record.seq + 1, record.hash
            if start % CHECKED_AT_ONCE == 0:
                await anyio.lowlevel.checkpoint()
        if end.next != start or end.released < end.next:
            raise BadResponse(
                axon,
                "inconsistent",
                f"the log's piece says next={end.next}, released={end.released}; expected next={start}",
            )
        if end.next == end.released:
            return
        if not lines:
            raise BadResponse(
                axon, "inconsistent", f"got no record of {end.released}, expected record {start}"
            )


async def _fetch_patiently(fetch: Callable[[str], Awaitable[bytes]], target: str) -> bytes:
    """Fetch; wait and try again where the other side is busy and says for how long."""
    for _ in range(TRIES - 1):
        try:
            return await fetch(target)
        except Refused as error:
            if error.code not in _BUSY or error.retry_after_s is None:
                raise
            await anyio.sleep(min(error.retry_after_s, MAX_WAIT_S))
    return await fetch(target)


def _page(axon: Endpoint, body: bytes) -> tuple[list[bytes], LogPageEnd]:
    """A piece's lines, and what its last one says."""
    *lines, rest = body.split(b"\n")
    if rest or not lines:
        raise BadResponse(axon, "malformed", "the log's piece breaks off in mid-line, expected whole lines")
    *records, last = lines
    if len(records) > MAX_PAGE_RECORDS:
        raise BadResponse(
            axon, "too_large", f"got {len(records)} records, expected at most {MAX_PAGE_RECORDS}"
        )
    try:
        return records, LogPageEnd.from_bytes(last)
    except MalformedMessage as error:
        raise BadResponse(axon, "malformed", f"the log's piece has no end: {error}") from error


def _record(axon: Endpoint, line: bytes, seq: int, before: Digest | None) -> LogLine:
    try:
        record = LogLine.from_bytes(line)
    except MalformedMessage as error:
        raise BadResponse(axon, "malformed", str(error)) from error
    if record.seq != seq:
        raise BadResponse(axon, "inconsistent", f"got record {record.seq}, expected record {seq}")
    if before is not None and record.prev != before:
        raise BadResponse(
            axon,
            "inconsistent",
            f"record {seq} follows {record.prev[:12]}…, expected {before[:12]}…: the log was changed, or is another",
        )
    return record
