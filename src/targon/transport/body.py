"""Reading a request's body without trusting how much of it comes, or when."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import anyio
from starlette.types import Receive

from targon.transport.limits import Limits
from targon.transport.refusals import ClientGone, Code, Refusal
from targon.transport.served_request import ServedRequest


async def read_body(receive: Receive, limits: Limits) -> bytes:
    """The whole body.

    Raises:
        Refusal: ``body_too_large`` as soon as it is larger than the limit; ``body_too_slow`` if it is not
            here in time, or, after a grace, comes slower than the least rate.
        ClientGone: if the client left.
    """
    if isinstance(receive, ServedRequest) and (whole := receive.whole_body()) is not None:
        if len(whole) > limits.max_body_bytes:
            raise too_large(f"more than {limits.max_body_bytes} bytes", limits.max_body_bytes)
        return whole
    body = bytearray()
    start = anyio.current_time()
    end = start + limits.body_timeout_s
    while True:
        due = start + limits.body_grace_s + len(body) / limits.min_body_bytes_per_s
        with anyio.CancelScope(deadline=min(end, due)) as scope:
            message = await receive()
        if scope.cancelled_caught:
            raise Refusal(
                Code.BODY_TOO_SLOW,
                "the body came too slowly; send it at once",
                got=f"{len(body)} bytes in {anyio.current_time() - start:.1f} s",
                expected=f"at least {limits.min_body_bytes_per_s} bytes/s after {limits.body_grace_s:g} s, "
                f"and all of it within {limits.body_timeout_s:g} s",
            )
        if message["type"] == "http.disconnect":
            raise ClientGone
        body += message.get("body", b"")
        if len(body) > limits.max_body_bytes:
            raise too_large(f"more than {limits.max_body_bytes} bytes", limits.max_body_bytes)
        if not message.get("more_body", False):
            return bytes(body)


def too_large(got: str, limit: int) -> Refusal:
    return Refusal(Code.BODY_TOO_LARGE, "the body is too large", got=got, expected=f"at most {limit} bytes")


async def while_connected(receive: Receive, work: Callable[[], Awaitable[None]]) -> None:
    """Do work for a client; cancel it when the client goes away.

    Raises:
        ClientGone: if the client went away first.
        Refusal: as ``work`` raised it. Anything else may come out in an exception group.
    """
    if isinstance(receive, ServedRequest):
        await _while_there(receive, work)
        return
    gone = finished = False
    refusal: Refusal | None = None
    async with anyio.create_task_group() as tasks:

        async def watch() -> None:
            nonlocal gone
            while (await receive())["type"] != "http.disconnect":
                pass
            gone = True
            tasks.cancel_scope.cancel()

        tasks.start_soon(watch)
        try:
            await work()
            finished = True
        except Refusal as error:
            refusal = error
        tasks.cancel_scope.cancel()
    if refusal is not None:
        raise refusal
    # A client that left when it had everything is no client that left.
    if gone and not finished:
        raise ClientGone


async def _while_there(request: ServedRequest, work: Callable[[], Awaitable[None]]) -> None:
    """As :func:`while_connected`, where our own server tells who leaves: nobody has to watch for it."""
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("a server answers in a task")
    before, gone = task.cancelling(), False

    def leave() -> None:
        nonlocal gone
        gone = True
        task.cancel()

    # as asyncio's own timeouts cancel: a scope of anyio's costs several times as much
    request.on_leave(leave)
    try:
        await work()
    except asyncio.CancelledError:
        if gone and task.uncancel() <= before:
            raise ClientGone from None
        raise
    finally:
        request.on_leave(None)
