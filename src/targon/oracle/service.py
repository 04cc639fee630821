"""The handlers behind an oracle's gate: private inputs for those who have a place, and for everybody what it has
committed to, what it has revealed, and what it says of itself."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Final, TypeVar

import anyio
import anyio.to_thread
import structlog
from starlette.types import Receive, Send

from targon import __version__
from targon.engines import ModelIdentity
from targon.oracle.book import CommitmentBook
from targon.oracle.errors import Damaged, GivenBefore, OracleError
from targon.oracle.metrics import OracleMetrics
from targon.oracle.periods import PeriodFolder, PeriodTexts
from targon.oracle.preparing import Preparer
from targon.oracle.readers import Readers, swiftly
from targon.oracle.turns import Running, Turn, Turns
from targon.oracle.view import ChainView
from targon.protocol.disclosures import CommittedPeriod, NamedModel, OracleStatus
from targon.protocol.keys import Signer
from targon.protocol.primitives import Block, Hotkey
from targon.protocol.private_inputs import CommitmentBody
from targon.transport import (
    ClientGone,
    Code,
    OpenRequest,
    Refusal,
    SignedRequest,
    send_json,
    send_lines,
    while_connected,
)

T = TypeVar("T")

logger = structlog.get_logger("targon.oracle")

CATCH_UP_S: Final = 3.0
"""How long a request may wait for a block that the caller has seen and we haven't, or whose texts are being read."""
REVEAL_AFTER_BLOCKS: Final = 5
"""How many blocks after its last a period is revealed: nobody who was given a part of it is still asking about it."""
MAX_READERS: Final = 8
"""Reveals that are sent at once."""
MAX_LIST_READERS: Final = 16
"""Lists of commitments that aren't in memory, of a megabyte at most, that are sent at once."""
LIST_TIMEOUT_S: Final = 60.0
OPEN_THREADS: Final = 4
"""In which files are read for those who need no signature."""
REVEAL_TIMEOUT_S: Final = 600.0
"""How long a reveal may take to be sent."""

_QUESTION: Final = re.compile(r"place=(0|[1-9][0-9]{0,8})(?:&block=(0|[1-9][0-9]{0,15}))?")
_FROM: Final = re.compile(r"from=(0|[1-9][0-9]{0,15})")
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,15}")


class OracleService:
    """Answers verifiers, auditors, and whoever asks how it is."""

    def __init__(
        self,
        *,
        signer: Signer,
        source: str,
        view: ChainView,
        book: CommitmentBook,
        folder: PeriodFolder,
        turns: Turns,
        preparer: Preparer,
        metrics: OracleMetrics,
        identity: ModelIdentity | None = None,
    ) -> None:
        self._model = None
        if identity is not None:
            self._model = NamedModel(name=identity.name, model_digest=identity.model_digest)
        self._signer = signer
        self._hotkey = Hotkey(signer.ss58_address)
        self._source = source
        self._view = view
        self._book = book
        self._folder = folder
        self._turns = turns
        self._preparer = preparer
        self._metrics = metrics
        self._threads = anyio.CapacityLimiter(OPEN_THREADS)
        self._reveal_readers = Readers("reveals")
        self._list_readers = Readers("lists of old commitments")

    async def private_input(self, signed: SignedRequest, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """``GET /v1/private-input?place=K[&block=N]``: one of the caller's own, of the newest block."""
        asked = _QUESTION.fullmatch(signed.query)
        if asked is None:
            raise _malformed(signed.query, "place=K, or place=K&block=N, with decimal numbers")
        place = int(asked[1])
        turn = await self._turn(None if asked[2] is None else Block(int(asked[2])))
        answer = turn.given.get((signed.caller, place))
        if answer is None:
            running = self._running(turn, signed.caller, place)
            try:
                answer = turn.answer(running, signed.caller, place, self._signer)
            except GivenBefore as error:
                raise Refusal(
                    Code.NO_SUCH_PLACE,
                    "the text of this place was given to another before the chain replaced a block; take another place",
                    got=place,
                ) from error
            except Damaged as error:
                logger.error("private_input_not_given", error=str(error))
                raise Refusal(Code.INTERNAL, "the text is damaged; the oracle's operator was told") from error
            self._metrics.given.inc()
        else:
            self._metrics.again.inc()
        await send_json(send, 200, answer)

    async def commitments(self, asked: OpenRequest, receive: Receive, send: Send) -> None:
        """``GET /v1/commitments?from=N``: those of that number and later, oldest first; as many as fit."""
        said = _FROM.fullmatch(asked.query)
        if said is None:
            raise _malformed(asked.query, "from=N, a decimal number")
        start = int(said[1])
        lines = self._book.recent_lines(start)
        if lines is not None:
            await while_connected(receive, lambda: _send_list(send, lines))
            return
        with self._list_readers.one(asked.address, most=MAX_LIST_READERS):
            old = await self._read(self._book.lines, start)
            await while_connected(receive, lambda: _send_list(send, old))

    async def reveal(self, asked: OpenRequest, receive: Receive, send: Send) -> None:
        """``GET /v1/reveals/N``: a period that is over: its secret, and then its texts, a line each."""
        if not _NUMBER.fullmatch(asked.more):
            raise _malformed(asked.more, "the number of a commitment")
        number = int(asked.more)
        if number >= len(self._book):
            raise Refusal(
                Code.NO_SUCH_PERIOD,
                "we have made no commitment of that number",
                got=number,
                expected=f"less than {len(self._book)}",
            )
        with self._reveal_readers.one(asked.address, most=MAX_READERS):
            body = (await self._read(self._book.commitment, number)).body
            self._check_revealed(body)
            await while_connected(receive, lambda: self._send_reveal(body, send))

    def _check_revealed(self, body: CommitmentBody) -> None:
        """Whether a period is revealed by now.

        Raises:
            Refusal: ``not_revealed``, and when it will be.
        """
        revealed_at = body.last + REVEAL_AFTER_BLOCKS + 1
        if self._view.head < revealed_at:
            raise Refusal(
                Code.NOT_REVEALED,
                "that period is not over, or only just",
                got=body.number,
                expected=f"block {revealed_at}",
                retry_after_s=(revealed_at - self._view.head) * self._view.info.block_seconds,
            )

    async def status(self, asked: OpenRequest, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """``GET /v1/status``."""
        info, head = self._view.info, self._view.head
        status = OracleStatus(
            software=f"targon {__version__}",
            hotkey=self._hotkey,
            netuid=info.netuid,
            genesis=info.genesis,
            block=head,
            periods=tuple(
                CommittedPeriod(
                    number=one.body.number, first=one.body.first, last=one.body.last, places=one.body.places
                )
                for one in self._book.newest_from(head)
            ),
            source=self._source[:256],
            model=self._model,
        )
        await send_json(send, 200, status.to_bytes())

    async def _turn(self, wanted: Block | None) -> Turn:
        """The newest block's turn.

        Raises:
            Refusal: if another block is wanted, or the newest one's texts take too long to be read.
        """
        head = self._view.head
        sought = head if wanted is None else max(head, wanted)
        turn = self._turns.now
        if turn.block < sought and sought <= head + 1:
            # whoever sees a block before we do needn't ask twice
            with anyio.move_on_after(min(CATCH_UP_S, self._view.info.block_seconds)):
                turn = await self._turns.at(sought)
        if turn.block < sought:
            if sought > self._view.head:
                raise Refusal(
                    Code.BLOCK_NOT_YET,
                    "that block is not there yet; ask again when it is",
                    got=wanted,
                    expected=f"{self._view.head}, our newest block",
                    retry_after_s=(sought - self._view.head) * self._view.info.block_seconds,
                )
            raise Refusal(Code.OVERLOADED, "the block's texts are still being read", retry_after_s=1.0)
        if wanted is not None and turn.block > wanted:
            raise Refusal(
                Code.BLOCK_GONE,
                "that block is over; only the newest one's private inputs are given",
                got=wanted,
                expected=f"{turn.block}, our newest block",
            )
        return turn

    def _running(self, turn: Turn, caller: Hotkey, place: int) -> Running:
        """The turn's period, where the caller has that place.

        Raises:
            Refusal: if it hasn't, or there is no period; it says why, and when to ask again.
        """
        running, block_s = turn.running, self._view.info.block_seconds
        if running is None:
            raise self._without_period(turn.block)
        if caller not in running.numbers:
            begins = self._begins(turn.block, caller)
            raise Refusal(
                Code.NO_PLACE,
                "the running period was committed to before you had a validator permit",
                got=caller,
                expected=f"block {begins}",
                retry_after_s=(begins - turn.block) * block_s,
            )
        if place >= running.body.places:
            raise Refusal(
                Code.NO_SUCH_PLACE,
                "a verifier has fewer places in a block",
                got=place,
                expected=f"0 to {running.body.places - 1}",
            )
        return running

    def _without_period(self, block: Block) -> Refusal:
        block_s = self._view.info.block_seconds
        coming = self._book.newest_from(block)
        if coming:
            begins, why = coming[0].body.first, self._turns.trouble
            if begins > block:
                return Refusal(
                    Code.NOT_COMMITTED,
                    "the next period has not begun",
                    expected=f"block {begins}",
                    retry_after_s=(begins - block) * block_s,
                )
            return Refusal(
                Code.NOT_COMMITTED,
                "the period can't be served; its operator was told why"
                if why
                else "the period is being opened",
                retry_after_s=block_s,
            )
        if self._preparer.trouble is not None:
            again_s = max(1, self._preparer.again_at - block) * block_s
            if not self._preparer.exhausted:
                return Refusal(
                    Code.NOT_COMMITTED,
                    "the next period could not be made; its operator was told why",
                    retry_after_s=again_s,
                )
            return Refusal(
                Code.EXHAUSTED,
                "this oracle has no text left that nobody saw before; use your own source until it has",
                retry_after_s=again_s,
            )
        return Refusal(Code.NOT_COMMITTED, "the next period is being prepared", retry_after_s=2 * block_s)

    def _begins(self, block: Block, caller: Hotkey) -> int:
        """The first block in which a caller has a place, as far as can be told."""
        coming = self._book.newest_from(block)
        for commitment in coming:
            if caller in commitment.body.verifiers:
                return commitment.body.first
        return coming[-1].body.last + 1 if coming else block + 1

    async def _send_reveal(self, body: CommitmentBody, send: Send) -> None:
        try:
            texts = await self._in_thread(self._folder.open, body)
        except Damaged as error:
            raise Refusal(
                Code.REVEAL_GONE,
                "the texts of that period are not kept any more",
                got=body.number,
            ) from error
        except OracleError as error:
            raise Refusal(Code.INTERNAL, "the texts can't be read now", retry_after_s=60.0) from error
        with texts, anyio.move_on_after(REVEAL_TIMEOUT_S) as scope:
            async with aclosing(self._pieces(texts)) as pieces, aclosing(swiftly(pieces)) as swift:
                await send_lines(send, swift)
        if scope.cancelled_caught:
            raise ClientGone

    async def _pieces(self, texts: PeriodTexts) -> AsyncGenerator[bytes, None]:
        body = texts.body
        head = {"commitment": body.digest(), "number": body.number, "secret": texts.secret.hex()}
        yield json.dumps(head, separators=(",", ":")).encode() + b"\n"
        pieces = texts.revealed()
        while (piece := await self._in_thread(next, pieces, None)) is not None:
            yield piece

    async def _read(self, call: Callable[..., T], *arguments: object) -> T:
        """Have something read of our own.

        Raises:
            Refusal: ``internal`` if it can't be; the operator is told.
        """
        try:
            return await self._in_thread(call, *arguments)
        except OracleError as error:
            logger.error("not_told", error=str(error))
            raise Refusal(Code.INTERNAL, "that can't be read now", retry_after_s=60.0) from error

    async def _in_thread(self, call: Callable[..., T], *arguments: object) -> T:
        """What anybody may have us read, in threads of its own: however many ask, what is served has others."""
        return await anyio.to_thread.run_sync(call, *arguments, limiter=self._threads)


async def _send_list(send: Send, lines: Sequence[bytes]) -> None:
    """Send lines of JSON as a list, piece by piece: nobody who reads slowly has a copy of it made."""
    head = [
        (b"content-type", b"application/json"),
        (b"content-length", str(2 + sum(map(len, lines)) + max(0, len(lines) - 1)).encode()),
        (b"cache-control", b"no-store"),
    ]
    with anyio.move_on_after(LIST_TIMEOUT_S) as scope:
        await send({"type": "http.response.start", "status": 200, "headers": head})
        for place, line in enumerate(lines):
            piece = (b"," if place else b"[") + line
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"]" if lines else b"[]", "more_body": False})
    if scope.cancelled_caught:
        raise ClientGone


def _malformed(got: str, expected: str) -> Refusal:
    return Refusal(Code.MALFORMED_REQUEST, "that is not how it is asked for", got=got, expected=expected)
