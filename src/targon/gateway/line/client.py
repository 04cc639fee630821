"""The gateway's end of the line: orders that a verifier in another process fulfils."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Final

import anyio
import structlog
from anyio.abc import TaskStatus
from pydantic import ValidationError

from targon.gateway.errors import ServiceFailed
from targon.gateway.line import frames
from targon.gateway.line.frames import Trouble
from targon.gateway.line.socket import LineTaken, check_folder
from targon.gateway.line.wire import LineBroke, Wire
from targon.gateway.ports import Began, Delta, Finished
from targon.protocol.errors import MalformedMessage
from targon.protocol.orders import Order
from targon.protocol.primitives import Digest
from targon.transport.errands import FiledReceipt, NotReady, OfferedModel, Unservable

SILENCE_S: Final = 10.0
"""A verifier that has said nothing for this long is away."""
RECONNECT_S: Final = 0.5
CONNECT_S: Final = 5.0
RECEIPT_S: Final = 10.0
MAX_IDLE: Final = 64
"""Connections that are kept for later orders."""
RETRY_S: Final = 5.0


class LineClient:
    """Hands orders to a verifier in another process; the port :class:`targon.gateway.ports.Orders`.

    :meth:`run` it in a task group: it sees whether the verifier is there, and comes back to it after a restart.

    Args:
        path: of the verifier's socket.
        silence_s: how long it may say nothing before it is taken to be away.
    """

    def __init__(self, path: Path, *, silence_s: float = SILENCE_S) -> None:
        self._path = path
        self._silence_s = silence_s
        self._models: tuple[OfferedModel, ...] = ()
        self._away: str | None = "it was not reached yet"
        self._idle: list[Wire] = []
        self._wires: set[Wire] = set()
        self._log = structlog.get_logger("targon.gateway")

    @property
    def ailing(self) -> str | None:
        """Why no order can be handed over now, in words; None if one can."""
        return None if self._away is None else f"the verifier is away: {self._away}"

    def models(self) -> tuple[OfferedModel, ...]:
        """What users may ask for now; while the verifier is away, what they could ask for last."""
        return self._models

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Keep in touch with the verifier until cancelled."""
        task_status.started()
        try:
            while True:
                await self._watch()
                await anyio.sleep(RECONNECT_S)
        finally:
            self._drop("this gateway is being stopped")

    async def fulfil(self, order: Order) -> AsyncGenerator[Began | Delta | Finished, None]:
        """One ``Began``, any number of ``Delta``, one ``Finished``. Close the generator to hang up.

        Raises:
            DeskError: nobody can serve it; nothing was begun. ``NotReady`` while the verifier is away.
            ServiceFailed: an answer broke off or was refused; it is not to be used.
        """
        payload = order.model_dump_json().encode()
        if len(payload) > frames.MAX_ORDER_BYTES:
            raise Unservable(
                "messages",
                "context_length_exceeded",
                f"messages: got {len(payload)} bytes, expected at most {frames.MAX_ORDER_BYTES}",
            )
        wire = await self._wire()
        begun = ended = False
        try:
            wire.send(frames.ORDER, payload)
            while True:
                kind, said = await wire.receive()
                if kind == frames.DELTA:
                    yield frames.DELTAS.validate_json(said)
                elif kind == frames.BEGAN:
                    begun = True
                    yield Began(Digest(said.decode("ascii")))
                elif kind == frames.FINISHED:
                    ended = True
                    yield frames.FINISHES.validate_json(said)
                    return
                elif kind == frames.FAILED:
                    ended = True
                    raise Trouble.from_bytes(said).error()
                else:
                    raise LineBroke
        except (LineBroke, ValidationError, MalformedMessage, UnicodeDecodeError) as error:
            ended = False
            raise self._broke(begun=begun) from error
        finally:
            self._release(wire, reusable=ended)

    async def receipt(self, receipt_id: Digest) -> FiledReceipt | None:
        """What is known of an answer; None: there is none of that id.

        Raises:
            NotReady: while the verifier is away.
        """
        wire = await self._wire()
        answered = False
        try:
            with anyio.fail_after(RECEIPT_S):
                wire.send(frames.RECEIPT, receipt_id.encode())
                kind, said = await wire.receive()
            if kind != frames.FILED:
                raise LineBroke
            filed = frames.FILED_RECEIPTS.validate_json(said)
            answered = True
            return filed
        except (LineBroke, ValidationError, TimeoutError) as error:
            raise self._not_ready() from error
        finally:
            self._release(wire, reusable=answered)

    async def _watch(self) -> None:
        """Hear what the verifier serves, for as long as it is there."""
        try:
            wire = await self._connect()
        except OSError as error:
            self._drop(f"nobody answers at its socket ({error.strerror or type(error).__name__})")
            return
        try:
            wire.send(frames.WATCH)
            while True:
                with anyio.fail_after(self._silence_s):
                    _, said = await wire.receive()
                self._models = frames.MODEL_LISTS.validate_json(said)
                if self._away is not None:
                    self._away = None
                    self._log.info("the verifier is there", models=[model.name for model in self._models])
        except LineBroke:
            self._drop("it hung up")
        except TimeoutError:
            self._drop(f"it said nothing for {self._silence_s:g} s")
        except ValidationError:
            self._drop("it says what we don't understand: are both of one version?")
        finally:
            wire.abort()

    def _drop(self, why: str) -> None:
        """Let everything go that waits for the verifier."""
        if self._away is None:
            self._log.warning("the verifier is away", why=why)
        self._away = why
        self._idle.clear()
        for wire in tuple(self._wires):
            wire.abort()

    async def _wire(self) -> Wire:
        """A connection for one order."""
        if self._away is not None:
            raise self._not_ready()
        while self._idle:
            wire = self._idle.pop()
            if not wire.lost:
                return wire
        try:
            return await self._connect()
        except OSError as error:
            raise self._not_ready() from error

    async def _connect(self) -> Wire:
        """Raises: OSError; TimeoutError is one."""
        try:
            check_folder(self._path.parent)
        except LineTaken as error:
            raise PermissionError(0, str(error)) from error
        with anyio.fail_after(CONNECT_S):
            _, wire = await asyncio.get_running_loop().create_unix_connection(
                lambda: Wire(lost=self._wires.discard), str(self._path)
            )
        self._wires.add(wire)
        return wire

    def _release(self, wire: Wire, *, reusable: bool) -> None:
        if reusable and not wire.lost and len(self._idle) < MAX_IDLE:
            self._idle.append(wire)
        else:
            wire.abort()

    def _not_ready(self) -> NotReady:
        return NotReady(self.ailing or "the verifier went away; try again", RETRY_S)

    def _broke(self, *, begun: bool) -> NotReady | ServiceFailed:
        if not begun:
            return self._not_ready()
        return ServiceFailed(
            "the verifier went away in the middle of the answer. What was sent of it is not to be used; ask again",
            begun=True,
        )
