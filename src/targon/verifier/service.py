"""The handlers behind a verifier's gate: ``GET /v1/status``, ``GET /v1/standing`` and ``GET /v1/log``."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Final

import anyio
from starlette.types import Receive, Send

from targon import __version__
from targon.engines import ModelIdentity
from targon.ledger import Log, ProverStanding, Standings
from targon.ledger.earning import counts
from targon.protocol.disclosures import (
    AnchoredInterval,
    ConvictedLast,
    JudgedLast,
    NamedModel,
    ProverOwnStanding,
    VerifierStatus,
)
from targon.protocol.primitives import Block, Digest, Hotkey, Interval
from targon.protocol.records import LogLine, LogPageEnd
from targon.transport import ClientGone, Code, Refusal, SignedRequest, send_json, send_lines, while_connected
from targon.transport.released import MAX_PAGE_RECORDS, PAGE_BYTES
from targon.verifier.watch import ChainWatch

SLICE_RECORDS: Final = 32
"""Records that are read, written as text and sent at a time: what one reply holds in memory."""
MAX_READERS: Final = 32
"""Pieces of log that are sent at once, each to another caller. Others are asked to come again: the log is the
verifier's own, first."""
PIECE_TIMEOUT_S: Final = 60.0
"""How long one piece may take to be sent; who reads slower is cut off, and asks for the rest."""

_START: Final = re.compile(r"start=(0|[1-9][0-9]{0,15})")


class VerifierService:
    """Tells registered callers of the verifier, of themselves, and of what is released of its log.

    Args:
        standings: the fold as it is now.
        log: to read from; another one than what is appended through, so that no reader keeps the verifier waiting.
        draining: whether the verifier was asked to stop.
    """

    def __init__(
        self,
        *,
        hotkey: Hotkey,
        identity: ModelIdentity,
        standings: Callable[[], Standings],
        log: Log,
        watch: ChainWatch,
        draining: Callable[[], bool],
    ) -> None:
        self._hotkey = hotkey
        self._identity = identity
        self._standings = standings
        self._log = log
        self._watch = watch
        self._draining = draining
        self._released_head: tuple[int, Digest | None] = (0, None)
        self._readers: set[Hotkey] = set()
        self._frozen: dict[Hotkey, tuple[Interval | None, int, float]] = {}
        """By prover: verified tokens and score, as of when it first asked in an interval."""

    async def status(self, signed: SignedRequest, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """``GET /v1/status``."""
        standings, info = self._standings(), self._watch.info
        released = standings.released
        anchored = standings.anchored
        status = VerifierStatus(
            software=f"targon {__version__}",
            hotkey=self._hotkey,
            netuid=info.netuid,
            genesis=info.genesis,
            models=(NamedModel(name=self._identity.name, model_digest=self._identity.model_digest),),
            block=max(self._watch.head, standings.block),
            interval=standings.interval,
            released=released,
            released_head=await self._head_of(released),
            anchored=None
            if anchored is None
            else AnchoredInterval(interval=anchored, block=standings.anchored_block),
            draining=self._draining(),
        )
        await send_json(send, 200, status.to_bytes())

    async def standing(self, signed: SignedRequest, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """``GET /v1/standing``: the caller's own, and nobody else's."""
        standings = self._standings()
        prover = standings.prover(signed.caller)
        if prover is None:
            raise Refusal(
                Code.NOT_A_PROVER,
                "this verifier's log says nothing of you; it takes up whom the subnet has as a prover in the next "
                "block that it handles",
                got=signed.caller,
            )
        told = own_standing(self._veiled(prover, standings), standings, self._hotkey)
        await send_json(send, 200, told.to_bytes())

    def _veiled(self, prover: ProverStanding, standings: Standings) -> ProverStanding:
        """A standing in which an answer that awaits its audit looks like one that was not drawn for any.

        Else a prover would learn from it which answers are looked at, and how closely, before the log is published.
        """
        frozen = self._frozen.get(prover.hotkey)
        if frozen is None or frozen[0] != standings.interval:
            frozen = standings.interval, prover.verified_tokens, prover.score
            self._frozen[prover.hotkey] = frozen
        waiting = [each for each in standings.under_audit.values() if each.prover == prover.hotkey]
        counted = sum(counts(each) for each in waiting)
        last = prover.last_verdict
        shown = last is not None and (last.outcome == "fail" or last.seq < standings.released)
        tokens = min(
            frozen[1], prover.verified_tokens
        )  # a conviction, which is told at once, takes them away
        return replace(
            prover,
            attempts=prover.attempts + counted,
            successes=prover.successes + counted,
            replies=prover.replies + counted,
            total_successes=prover.total_successes + counted,
            native=prover.native + len(waiting) - counted,
            verified_tokens=tokens,
            on_probation=tokens < standings.profile.probation_tokens,
            score=frozen[2],
            last_verdict=last if shown else None,
        )

    async def log(self, signed: SignedRequest, receive: Receive, send: Send) -> None:
        """``GET /v1/log?start=N``: released records as lines, and a last line that says where to go on."""
        start = _start(signed.query)
        released = self._standings().released
        if start > released:
            raise Refusal(
                Code.NOT_RELEASED,
                "that part of the log is not released yet: its weights are still to be set or revealed",
                got=start,
                expected=f"0 to {released}",
            )
        if signed.caller in self._readers or len(self._readers) >= MAX_READERS:
            raise Refusal(
                Code.OVERLOADED,
                "the log is being read by too many at once, or by you already; try again",
                got=len(self._readers) + 1,
                expected=f"one by each caller, and at most {MAX_READERS} at once",
                retry_after_s=1.0,
            )
        self._readers.add(signed.caller)
        try:
            with anyio.move_on_after(PIECE_TIMEOUT_S) as scope:
                await while_connected(receive, partial(self._send_piece, send, start, released))
        finally:
            self._readers.remove(signed.caller)
        if scope.cancelled_caught:
            raise ClientGone

    async def _send_piece(self, send: Send, start: int, released: int) -> None:
        async with aclosing(self._piece(start, released)) as slices:
            await send_lines(send, slices)

    async def _piece(self, start: int, released: int) -> AsyncGenerator[bytes, None]:
        """The lines of one reply, a slice of the log at a time."""
        at, size, stop = start, 0, min(released, start + MAX_PAGE_RECORDS)
        while at < stop and size < PAGE_BYTES:
            async with aclosing(self._log.read_lines(at, min(at + SLICE_RECORDS, stop))) as reading:
                records = [record async for record in reading]
            lines, taken = as_lines(records, PAGE_BYTES - size)
            if not taken:
                break  # said in the last line, which then disagrees with what was promised
            at, size = at + taken, size + len(lines)
            yield lines
        yield LogPageEnd(next=at, released=released).to_bytes() + b"\n"

    async def _head_of(self, released: int) -> Digest | None:
        """Hash of the last released record. It is looked up once for each time that something is released."""
        known, head = self._released_head
        if known != released:
            async with aclosing(self._log.read_lines(released - 1, released)) as reading:
                async for record in reading:
                    head = record.hash
            self._released_head = (released, head)
        return head


def as_lines(records: list[LogLine], room: int) -> tuple[bytes, int]:
    """Records as lines, until those fill the room (bytes) that there is; at least one. Returns how many they are."""
    lines = bytearray()
    taken = 0
    for record in records:
        lines += record.to_bytes() + b"\n"
        taken += 1
        if len(lines) >= room:
            break
    return bytes(lines), taken


def own_standing(prover: ProverStanding, standings: Standings, verifier: Hotkey) -> ProverOwnStanding:
    """What a prover is told of itself."""
    rate, verdict, conviction = prover.success_rate, prover.last_verdict, prover.last_conviction
    weighed = prover.uid is not None and standings.weights_block is not None
    return ProverOwnStanding(
        verifier=verifier,
        prover=prover.hotkey,
        block=Block(max(0, standings.block)),
        uid=prover.uid,
        tier=prover.tier.label,
        fallen_from=None if prover.fallen_from is None else prover.fallen_from.label,
        attempts=prover.attempts,
        successes=prover.successes,
        replies=prover.replies,
        inconclusive=prover.inconclusive,
        native=prover.native,
        sent=prover.sent,
        requests_left=prover.requests_left,
        settled_attempts=prover.settled_attempts,
        settled_successes=prover.settled_successes,
        total_successes=prover.total_successes,
        success_rate=None if rate is None else float(rate),
        score=prover.score,
        verified_tokens=prover.verified_tokens,
        on_probation=prover.on_probation,
        probation_tokens=standings.profile.probation_tokens,
        convictions=prover.convictions,
        last_conviction=None
        if conviction is None
        else ConvictedLast(
            seq=conviction.seq,
            block=conviction.block,
            tokens=conviction.tokens,
            completions=conviction.completions,
            log_e=conviction.log_e,
        ),
        last_verdict=None if verdict is None else JudgedLast(**verdict._asdict()),
        weight=standings.last_weights.get(prover.uid, 0) if weighed and prover.uid is not None else None,
        weights_block=standings.weights_block,
        medians=dict(standings.medians),
    )


def _start(query: str) -> int:
    found = _START.fullmatch(query)
    if found is None:
        raise Refusal(
            Code.MALFORMED_REQUEST,
            "say from which record on",
            got=query,
            expected="/v1/log?start=N, N in decimal digits",
        )
    return int(found[1])
