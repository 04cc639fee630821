"""A client that fetches a verifier's log from one that is wrong, broken or hostile."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from anyio.abc import ByteStream

from targon.protocol.primitives import Digest
from targon.protocol.records import GENESIS_HASH, LogLine, record_hash
from targon.transport import BadResponse, NeuronClient, Refused, TransportError
from targon.transport.released import TRIES
from targon.transport.replies import JSON_LINES
from tests.transport.world import ALICE, PROVER, Script, a_scripted_prover, ok, says

pytestmark = pytest.mark.anyio


def a_log(length: int) -> list[LogLine]:
    """A small log that is right."""
    lines: list[LogLine] = []
    prev = GENESIS_HASH
    for seq in range(length):
        event = json.dumps({"kind": "note", "number": seq}, separators=(",", ":")).encode()
        lines.append(LogLine(seq, prev, record_hash(seq, prev, event), event))
        prev = lines[-1].hash
    return lines


LOG = a_log(6)


def piece(lines: Sequence[LogLine | bytes], next_: int, released: int) -> bytes:
    body = b"".join((line.to_bytes() if isinstance(line, LogLine) else line) + b"\n" for line in lines)
    return ok(body + b'{"next":%d,"released":%d}\n' % (next_, released), JSON_LINES)


def in_turn(*answers: bytes) -> Script:
    """A script that gives each connection the next answer."""
    left = list(answers)

    async def script(stream: ByteStream) -> None:
        await stream.send(left.pop(0))

    return script


async def fetch(script: Script, start: int = 0, after: Digest | None = None) -> list[LogLine]:
    async with a_scripted_prover(script) as verifier, NeuronClient() as client:
        reading = client.released_records(verifier, PROVER, ALICE, start, after=after)
        return [record async for record in reading]


async def failed(script: Script, start: int = 0, after: Digest | None = None) -> TransportError:
    """The error that fetching ends in."""
    async with a_scripted_prover(script) as verifier, NeuronClient() as client:
        with pytest.raises(TransportError) as caught:
            async for _ in client.released_records(verifier, PROVER, ALICE, start, after=after):
                pass
    return caught.value


async def refused(script: Script, start: int = 0, after: Digest | None = None) -> BadResponse:
    error = await failed(script, start, after)
    assert isinstance(error, BadResponse)
    return error


async def test_pieces_are_put_together() -> None:
    assert await fetch(in_turn(piece(LOG[:4], 4, 6), piece(LOG[4:], 6, 6))) == LOG


async def test_a_log_is_gone_on_with_where_it_was_left() -> None:
    assert await fetch(says(piece(LOG[3:], 6, 6)), 3, LOG[2].hash) == LOG[3:]


async def test_the_first_record_follows_nothing() -> None:
    forged = LogLine(0, LOG[0].hash, record_hash(0, LOG[0].hash, LOG[0].event), LOG[0].event)
    error = await refused(says(piece([forged], 1, 1)))
    assert (error.reason, "record 0 follows" in str(error)) == ("inconsistent", True)


async def test_a_record_that_was_changed_is_found() -> None:
    changed = LOG[2].to_bytes().replace(b'"number":2', b'"number":9')
    error = await refused(says(piece([*LOG[:2], changed, *LOG[3:]], 6, 6)))
    assert (error.reason, "record 2: got the hash" in str(error)) == ("malformed", True)


async def test_a_record_that_was_changed_with_its_hash_is_found_at_the_next_one() -> None:
    event = LOG[2].event.replace(b"2", b"9")
    changed = LogLine(2, LOG[2].prev, record_hash(2, LOG[2].prev, event), event)
    error = await refused(says(piece([*LOG[:2], changed, *LOG[3:]], 6, 6)))
    assert "record 3 follows" in str(error)


async def test_another_log_than_the_one_that_was_begun_is_found() -> None:
    error = await refused(says(piece(LOG[3:], 6, 6)), 3, LOG[0].hash)
    assert "the log was changed, or is another" in str(error)


async def test_a_change_between_two_pieces_is_found() -> None:
    other = a_log(7)[4:]
    prev = Digest("7" * 64)
    forged = LogLine(4, prev, record_hash(4, prev, other[0].event), other[0].event)
    error = await refused(in_turn(piece(LOG[:4], 4, 6), piece([forged], 5, 5)))
    assert "record 4 follows" in str(error)


async def test_a_gap_is_found() -> None:
    error = await refused(says(piece([LOG[0], LOG[2]], 3, 3)))
    assert "got record 2, expected record 1" in str(error)


@pytest.mark.parametrize(("next_", "released"), [(5, 6), (7, 7), (6, 5)])
async def test_an_end_that_does_not_fit_its_records_is_found(next_: int, released: int) -> None:
    assert (await refused(says(piece(LOG, next_, released)))).reason == "inconsistent"


async def test_a_verifier_that_promises_more_and_gives_nothing_is_not_asked_for_ever() -> None:
    error = await refused(in_turn(piece(LOG[:4], 4, 6), piece([], 4, 6)))
    assert "got no record of 6, expected record 4" in str(error)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        LOG[0].to_bytes(),
        LOG[0].to_bytes() + b"\n",
        LOG[0].to_bytes() + b'\n{"next":1,"released":1}',
        b'{"next":0}\n',
        b'{"next":0,"released":0,"more":1}\n',
        b'{"next":-1,"released":0}\n',
        b"{}\n" + b'{"next":1,"released":1}\n',
        b'\n{"next":1,"released":1}\n',
    ],
)
async def test_a_piece_that_is_none_is_malformed(body: bytes) -> None:
    assert (await refused(says(ok(body, JSON_LINES)))).reason == "malformed"


async def test_an_event_that_is_no_object_is_malformed() -> None:
    line = LogLine(0, GENESIS_HASH, record_hash(0, GENESIS_HASH, b"[1"), b"[1")
    assert "no JSON object" in str(await refused(says(piece([line], 1, 1))))


async def test_more_records_than_a_piece_holds_are_too_many() -> None:
    log = a_log(1_001)
    assert (await refused(says(piece(log, 1_001, 1_001)))).reason == "too_large"


async def test_a_piece_that_never_ends_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("targon.transport.client.MAX_PAGE_BYTES", 1_000)
    assert (await refused(says(piece(LOG, 6, 6)))).reason == "too_large"


async def test_another_media_type_is_no_log() -> None:
    assert (await refused(says(ok(b"{}")))).reason == "content_type"


async def test_a_verifier_that_stays_busy_is_given_up() -> None:
    body = b'{"error":{"code":"overloaded","message":"later","got":null,"expected":null}}'
    busy = (
        b"HTTP/1.1 503 Busy\r\nContent-Type: application/json\r\nRetry-After: 0\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body)
    ) + body
    asked = 0

    async def script(stream: ByteStream) -> None:
        nonlocal asked
        asked += 1
        await stream.send(busy)

    error = await failed(script)
    assert (isinstance(error, Refused), "later" in str(error), asked) == (True, True, TRIES)
