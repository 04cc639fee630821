"""From a user's request to the answers of provers, and back: whole, or as they come."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Coroutine
from contextlib import aclosing
from typing import Any

from starlette.types import Send

from targon.gateway.accounts import estimated_prompt
from targon.gateway.api.exchange import EVENTS, JSON, Exchange, Headers
from targon.gateway.api.reading import Request
from targon.gateway.api.writing import DONE, ChunkWriter, Collected, usage_of, whole
from targon.gateway.keys import Usage
from targon.gateway.ports import Began, Delta, Finished, Orders
from targon.protocol.primitives import Digest

HELD_BYTES = 2 << 20
"""Of each answer's events, held while another has yet to begin; then its prover is read no further."""


class Answering:
    """One request's answers. A stream begins when each of them has: until then, an error is an HTTP status."""

    def __init__(self, orders: Orders, request: Request, exchange: Exchange, created: int) -> None:
        self._orders = orders
        self._request = request
        self._exchange = exchange
        self._created = created
        self._id = secrets.token_hex(12)
        self._count = len(request.orders)
        self._came = 0
        self._receipts: dict[int, Digest] = {}
        self._all_began = asyncio.Event()
        self._held = [bytearray() for _ in request.orders]
        """Events of answers that began before the last one did. Were they not read, it would look as if nobody
        read them, and they would be given up."""
        self._opening = b""
        """What comes before everything else, and goes out with the first of it."""
        self._ended: dict[int, Finished] = {}

    def used(self, *, left: bool) -> Usage:
        """What the user is to be charged for: answers that were given; one that broke off costs nothing.

        Args:
            left: whether the user hung up: then what had come by then counts as well.
        """
        if left:
            prompt = estimated_prompt(self._request.prompt_bytes, self._request.prompts)
            return Usage(1, prompt if self._receipts else 0, self._came)
        if len(self._ended) < self._count:
            return Usage(1)
        usage = usage_of(self._answers(), self._request)
        return Usage(1, usage["prompt_tokens"], usage["completion_tokens"])

    async def whole(self) -> tuple[bytes, Headers]:
        """The whole reply, and its headers.

        Raises:
            DeskError, ServiceFailed: an answer can't be had; the others are hung up on.
        """
        request, exchange = self._request, self._exchange
        collected = [Collected() for _ in request.orders]
        await _together([self._collect(place, one) for place, one in enumerate(collected)])
        answers = self._answers()
        body = whole(request, self._id, self._created, collected, answers, full=exchange.wants_all)
        return body, [JSON, _receipt_header([one.settled.receipt_id for one in answers])]

    async def stream(self, send: Send, limits: Headers) -> None:
        """Send the answers as they come, to the event that counts tokens.

        Args:
            limits: further headers.

        Raises:
            DeskError, ServiceFailed: an answer can't be had, or broke off; the others are hung up on.
        """
        writer = ChunkWriter(self._request, self._id, self._created)
        await _together([self._pass_on(place, writer, send, limits) for place in range(self._count)])
        end = writer.usage(self._answers(), self._request) + DONE
        self._exchange.completed = True
        await send({"type": "http.response.body", "body": end, "more_body": False})

    async def _collect(self, place: int, one: Collected) -> None:
        logprobs = self._request.logprobs
        async with aclosing(self._orders.fulfil(self._request.orders[place])) as pieces:
            async for piece in pieces:
                if isinstance(piece, Delta):
                    self._came += len(piece.token_ids)
                    one.take(piece, logprobs=logprobs)
                elif isinstance(piece, Finished):
                    self._ended[place] = piece
                else:
                    self._receipts[place] = piece.receipt_id
                    self._exchange.begun = True

    async def _pass_on(self, place: int, writer: ChunkWriter, send: Send, limits: Headers) -> None:
        async with aclosing(self._orders.fulfil(self._request.orders[place])) as pieces:
            async for piece in pieces:
                if isinstance(piece, Delta):
                    self._came += len(piece.token_ids)
                    event = writer.delta(place, piece)
                elif isinstance(piece, Began):
                    await self._begin(place, piece.receipt_id, writer, send, limits)
                    continue
                else:
                    self._ended[place] = piece
                    event = writer.finish(place, piece, full=self._exchange.wants_all)
                if self._all_began.is_set():
                    if self._opening:
                        event, self._opening = self._opening + event, b""
                    if event:
                        await send({"type": "http.response.body", "body": event, "more_body": True})
                    continue
                self._held[place] += event
                if len(self._held[place]) > HELD_BYTES:
                    await self._all_began.wait()

    async def _begin(
        self, place: int, receipt_id: Digest, writer: ChunkWriter, send: Send, limits: Headers
    ) -> None:
        self._receipts[place] = receipt_id
        self._exchange.begun = True
        if len(self._receipts) < self._count:
            return
        header = _receipt_header([self._receipts[one] for one in range(self._count)])
        await self._exchange.start(send, 200, [*EVENTS, header, *limits])
        self._opening = b"".join(map(writer.role, range(self._count)))
        while any(self._held):  # more may come while some is sent
            held, self._opening = b"".join([self._opening, *self._held]), b""
            for one in self._held:
                one.clear()
            await send({"type": "http.response.body", "body": held, "more_body": True})
        self._all_began.set()

    def _answers(self) -> list[Finished]:
        return [self._ended[place] for place in range(self._count)]


def _receipt_header(ids: list[Digest]) -> tuple[bytes, bytes]:
    """Where each answer's receipt will be found, in the order of the choices."""
    return b"targon-receipt-id", ", ".join(ids).encode()


async def _together(work: list[Coroutine[Any, Any, None]]) -> None:
    """Do it all at once; what goes wrong first ends the rest and is raised, alone."""
    if len(work) == 1:
        await work[0]
        return
    try:
        async with asyncio.TaskGroup() as tasks:
            for one in work:
                tasks.create_task(one)
    except BaseExceptionGroup as group:
        raise _first(group) from None


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
