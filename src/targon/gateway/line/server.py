"""The verifier's end of the line."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import aclosing
from pathlib import Path

import anyio
import structlog
from anyio import to_thread
from anyio.abc import TaskStatus

from targon.gateway.dispatch_buffer import Bell
from targon.gateway.errors import ServiceFailed
from targon.gateway.line import frames
from targon.gateway.line.frames import Trouble
from targon.gateway.line.socket import listening
from targon.gateway.line.wire import LineBroke, Wire
from targon.gateway.ports import Began, Delta, Orders
from targon.protocol.errors import MalformedMessage
from targon.protocol.orders import Order
from targon.protocol.primitives import Digest
from targon.transport.errands import DeskError

TAKE_S = 60.0
"""A gateway that takes nothing of what it is sent for this long is gone."""
MAX_CONNECTIONS = 20_000


class LineServer:
    """Fulfils the orders that come over a Unix socket.

    Args:
        orders: who fulfils them.
        path: of the socket.
    """

    def __init__(self, orders: Orders, path: Path) -> None:
        self._orders = orders
        self._path = path
        self._wires: set[Wire] = set()
        self._arrived: deque[Wire] = deque()
        self._came = Bell()
        self._log = structlog.get_logger("targon.gateway")

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled. Orders that run then are hung up on.

        Raises:
            LineTaken: if the socket can't be ours.
        """
        opening = listening(self._path)
        listener = await to_thread.run_sync(opening.__enter__)
        try:
            async with anyio.create_task_group() as tasks:
                server = await asyncio.get_running_loop().create_unix_server(
                    lambda: Wire(
                        made=self._welcome,
                        lost=self._wires.discard,
                        max_frame_bytes=frames.MAX_ORDER_BYTES,
                    ),
                    sock=listener,
                )
                try:
                    task_status.started()
                    while True:
                        while self._arrived:
                            tasks.start_soon(self._attend, self._arrived.popleft())
                        await self._came.wait()
                finally:
                    server.close()
        finally:
            opening.__exit__(None, None, None)

    def _welcome(self, wire: Wire) -> None:
        if len(self._wires) >= MAX_CONNECTIONS:
            wire.abort()
            return
        self._wires.add(wire)
        self._arrived.append(wire)
        self._came.ring()

    async def _attend(self, wire: Wire) -> None:
        """Do what one connection asks for, one thing after another, until it is gone."""
        try:
            with anyio.CancelScope() as scope:
                wire.hung_up = scope.cancel
                while True:
                    await self._do(wire, *await wire.receive())
        except LineBroke:
            return
        except MalformedMessage:
            self._log.error("the gateway sent what is no order: are both of one version?")
        except Exception as error:  # noqa: BLE001 - the edge: one order's trouble must not end everybody's
            self._log.error("an order broke", error=type(error).__name__)
        finally:
            wire.close()

    async def _do(self, wire: Wire, kind: int, payload: bytes) -> None:
        if kind == frames.ORDER:
            await self._fulfil(wire, Order.from_bytes(payload))
        elif kind == frames.RECEIPT:
            filed = await self._orders.receipt(Digest(payload.decode("ascii", "replace")))
            wire.send(frames.FILED, frames.FILED_RECEIPTS.dump_json(filed))
        elif kind == frames.WATCH:
            while True:
                wire.send(frames.MODELS, frames.MODEL_LISTS.dump_json(self._orders.models()))
                await wire.taken(TAKE_S)
                await anyio.sleep(frames.BEAT_S)
        else:
            raise MalformedMessage(f"got a frame of kind {kind}, expected one of this version")

    async def _fulfil(self, wire: Wire, order: Order) -> None:
        try:
            async with aclosing(self._orders.fulfil(order)) as parts:
                async for part in parts:
                    if isinstance(part, Delta):
                        wire.send(frames.DELTA, frames.DELTAS.dump_json(part))
                    elif isinstance(part, Began):
                        wire.send(frames.BEGAN, part.receipt_id.encode())
                    else:
                        wire.send(frames.FINISHED, frames.FINISHES.dump_json(part))
                    if wire.clogged:
                        await wire.taken(TAKE_S)
        except (DeskError, ServiceFailed) as error:
            wire.send(frames.FAILED, Trouble.of(error).model_dump_json().encode())
