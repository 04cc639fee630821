"""A kept connection may end just as a request is sent on it: nobody's fault, and nobody's excuse."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace

import anyio
import pytest
from anyio.abc import ByteStream

from targon.transport import Answer, Deadlines, Disconnected, TimedOut, TransportError
from tests.transport.world import (
    ALICE,
    PATIENT,
    Script,
    a_client,
    a_request,
    a_response,
    a_scripted_prover,
    ok,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("wire")]

REQUEST = a_request()
ANSWERED = json.dumps({"error": {"code": "already_answered", "message": "is being answered"}}).encode()
REFUSAL = b"HTTP/1.1 409 Conflict\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
    len(ANSWERED),
    ANSWERED,
)

Then = Callable[[ByteStream], Awaitable[None]]


async def answers(stream: ByteStream) -> None:
    await stream.send(ok(a_response(REQUEST).to_bytes()))


async def refuses(stream: ByteStream) -> None:
    await stream.send(REFUSAL)


async def hangs_up(stream: ByteStream) -> None:
    await stream.aclose()


class Prover:
    """It answers one request, ends its connection at the second, and treats each new connection as it is told."""

    def __init__(self, *then: Then, waits_s: float = 0.0) -> None:
        self._then = [*then]
        self._waits_s = waits_s
        self.connections = 0

    @property
    def script(self) -> Script:
        async def script(stream: ByteStream) -> None:
            self.connections += 1
            if self.connections > 1:
                await self._then.pop(0)(stream)
                return
            await answers(stream)
            await stream.receive()
            await anyio.sleep(self._waits_s)

        return script


async def ask_twice(prover: Prover, deadlines: Deadlines = PATIENT) -> Answer | TransportError:
    async with a_scripted_prover(prover.script) as place, a_client(deadlines=PATIENT) as client:
        with anyio.fail_after(90.0):
            await client.generate(place, REQUEST, ALICE)
            try:
                return await client.generate(place, REQUEST, ALICE, deadlines=deadlines)
            except TransportError as error:
                return error


async def test_a_request_on_a_connection_that_ended_unheard_is_sent_once_more_on_a_new_one() -> None:
    prover = Prover(answers)
    answer = await ask_twice(prover)
    assert isinstance(answer, Answer)
    assert answer.response == a_response(REQUEST)
    assert prover.connections == 2


async def test_a_request_that_is_lost_on_a_new_connection_too_is_lost() -> None:
    prover = Prover(hangs_up)
    assert isinstance(await ask_twice(prover), Disconnected)
    assert prover.connections == 2


async def test_a_prover_that_has_yet_to_see_that_its_caller_is_gone_is_asked_again() -> None:
    prover = Prover(refuses, refuses, answers)
    assert isinstance(await ask_twice(prover), Answer)
    assert prover.connections == 4


async def test_whoever_hangs_up_and_says_to_the_end_that_it_has_answered_has_hung_up() -> None:
    prover = Prover(*[refuses] * 9)
    assert isinstance(await ask_twice(prover), Disconnected)
    assert prover.connections == 5


async def test_hanging_up_late_gives_no_more_time() -> None:
    async def is_slow(stream: ByteStream) -> None:
        await anyio.sleep(0.35)
        await answers(stream)

    prover = Prover(is_slow, waits_s=0.35)
    assert isinstance(await ask_twice(prover, replace(PATIENT, total_s=0.5)), TimedOut)
