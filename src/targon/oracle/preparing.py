"""The next period, made while the present one is served: passages taken, written down, looked at, signed, committed to.

In this order, so that a process that ends anywhere in between has shown nothing that it can't show again: the texts and
the secret are on disk before the commitment is signed, and the commitment is before anybody sees it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

import anyio
import anyio.to_thread
import structlog

from targon.oracle.book import CommitmentBook
from targon.oracle.errors import OracleError, WriterFailed
from targon.oracle.metrics import OracleMetrics
from targon.oracle.periods import PeriodFolder
from targon.oracle.planning import MARGIN_BLOCKS, MOST_AHEAD, first_of, last_of, places_for
from targon.oracle.ports import PeriodWriter
from targon.oracle.settings import OracleSettings
from targon.oracle.view import ChainView
from targon.protocol.keys import Signer
from targon.protocol.primitives import Block, Hotkey
from targon.protocol.private_inputs import (
    MAX_LEAVES,
    MAX_VERIFIERS,
    Commitment,
    CommitmentBody,
    commit,
    secret_digest,
)

TRIES: Final = 6
MOST_PAUSE_BLOCKS: Final = 32
"""Longest time between two tries of a source that gives nothing."""


class _TooLittle(OracleError):
    """There are too few passages for a single block."""

    exhausted: Final = True


logger = structlog.get_logger("targon.oracle")


class Preparer:
    """Keeps one period ahead.

    Args:
        writer: takes passages, and writes them down.
        random_bytes: where secrets come from: the operating system's randomness, but for tests.
    """

    def __init__(
        self,
        *,
        writer: PeriodWriter,
        book: CommitmentBook,
        folder: PeriodFolder,
        view: ChainView,
        signer: Signer,
        settings: OracleSettings,
        metrics: OracleMetrics,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._writer = writer
        self._book = book
        self._folder = folder
        self._view = view
        self._signer = signer
        self._settings = settings
        self._metrics = metrics
        self._random_bytes = random_bytes
        self._exhausted = False
        self._trouble: str | None = None
        self._pause_blocks = 1
        self._again_at = Block(0)

    @property
    def trouble(self) -> str | None:
        """Why there is no next period, in words; None while nothing is wrong."""
        return self._stranded() or self._trouble

    @property
    def exhausted(self) -> bool:
        """Whether the trouble is that the source has too little text."""
        return self._trouble is not None and self._exhausted

    @property
    def again_at(self) -> Block:
        """The block in which it is tried again, where there is trouble."""
        return self._again_at

    async def run(self) -> None:
        """Keep one period ahead, for ever."""
        head = self._view.head
        stranded = self._stranded()
        if stranded is not None:
            logger.error("no next period: verifiers will be without private inputs", error=stranded)
        while True:
            if self._due(head):
                await self._try()
            head = await self._view.next_block(head)

    def _due(self, head: Block) -> bool:
        """Whether the next period is to be made now: when half of one is left, and some blocks in any case."""
        if head < self._again_at:
            return False
        newest = self._book.last
        if newest is None:
            return True
        ahead = sum(one.body.first > head for one in self._book.newest_from(head))
        return ahead < MOST_AHEAD and newest.last - head <= max(
            self._settings.period_blocks // 2, 2 * MARGIN_BLOCKS
        )

    def _stranded(self) -> str | None:
        """Why nothing can be committed to, in words, where the chain's word was wrong once, or is now; else None."""
        newest, head = self._book.last, self._view.head
        if newest is None or newest.first - head <= self._settings.interval_blocks:
            return None
        return (
            f"it has committed to blocks {newest.first} to {newest.last}, and the chain is at block {head}: a node "
            "told it a block that wasn't there, then or now. It can commit to nothing before them: look at the node "
            "(--subtensor.chain_endpoint), or begin with a new folder and a new hotkey (--data.path, --wallet.name)"
        )

    async def _try(self) -> None:
        try:
            made = await self._next()
        except (OracleError, OSError) as error:
            self._failed(
                str(error), exhausted=isinstance(error, _TooLittle | WriterFailed) and error.exhausted
            )
        except Exception as error:
            # what a strange file does to a source must not end what is served
            logger.exception("the source failed in a way that it should not")
            self._failed(f"{type(error).__name__}: {error}")
        else:
            if made is None:
                return
            if self._trouble is not None:
                logger.info("private inputs can be had again")
            self._trouble, self._exhausted, self._pause_blocks = None, False, 1
            body = made.body
            logger.info(
                "period_committed",
                number=body.number,
                first=body.first,
                last=body.last,
                verifiers=len(body.verifiers),
                places=body.places,
                ahead=body.first - self._view.head,
            )
            self._metrics.committed(body)
            try:
                await anyio.to_thread.run_sync(self._forget_old, self._view.head)
            except OracleError as error:
                logger.error("old_periods_not_removed", error=str(error))

    def _failed(self, why: str, *, exhausted: bool = False) -> None:
        logger.error("no next period: verifiers will be without private inputs", error=why)
        self._trouble, self._exhausted = why, exhausted
        self._again_at = Block(self._view.head + self._pause_blocks)
        self._pause_blocks = min(2 * self._pause_blocks, MOST_PAUSE_BLOCKS)

    async def _next(self) -> Commitment | None:
        """Make the next period.

        Returns:
            None if nobody could be given anything, which isn't the source's fault, or if there may be more passages
            by the time when they are needed.

        Raises:
            OracleError: if there are too few passages for a single block, or nothing can be written.
        """
        for slack in range(TRIES):
            verifiers = sorted(self._view.permitted)[:MAX_VERIFIERS]
            if not verifiers:
                self._pause_blocks = 1  # it costs nothing to look again
                self._failed(f"nobody on subnet {self._view.info.netuid} has a validator permit")
                return None
            places = places_for(len(verifiers), self._settings.places)
            each = len(verifiers) * places
            first, wanted = self._span(2**slack - 1)
            filled = await self._writer.fill(min(wanted, MAX_LEAVES // each) * each)
            self._metrics.taken(filled.taken)
            first, wanted = self._span(2**slack - 1)  # that took its time
            wanted = min(wanted, MAX_LEAVES // each)
            blocks = min(wanted, filled.held // each)
            if not blocks:
                raise _TooLittle(
                    f"the source gave {filled.held:,} passages, expected {each:,} for one block of "
                    f"{len(verifiers)} verifiers with {places} places each; add text to it (--oracle.source)"
                )
            if blocks < wanted:
                if self._can_wait():
                    return None
                logger.warning("period_shortened", blocks=blocks, wanted=wanted, passages=filled.held)
            body = await self._write(first, blocks, verifiers, places)
            if not self._in_time(first):
                continue  # writing took longer than we thought; nothing was signed
            await anyio.to_thread.run_sync(self._folder.settle, body)
            made = await anyio.to_thread.run_sync(self._sign, body)
            if made is None:
                continue  # the disk did; nobody has seen it
            await self._writer.used(body.leaves)
            return made
        raise OracleError(
            f"no period could be written within its margin, in {TRIES} tries; the disk is too slow"
        )

    def _span(self, slack: int) -> tuple[Block, int]:
        """The next period's first block, and how many blocks it may have."""
        newest, head = self._book.last, self._view.head
        first = first_of(head, None if newest is None else newest.last, slack=slack)
        last = last_of(
            first,
            period_blocks=self._settings.period_blocks,
            interval_blocks=self._settings.interval_blocks,
            follows=newest is not None and first == newest.last + 1,
        )
        return first, last - first + 1

    def _can_wait(self) -> bool:
        """Whether the next period isn't needed yet: where text comes slowly, one of many blocks is better than many."""
        newest = self._book.last
        return newest is not None and newest.last - self._view.head > 2 * MARGIN_BLOCKS

    def _in_time(self, first: Block) -> bool:
        return self._view.head <= first - MARGIN_BLOCKS

    async def _write(self, first: Block, blocks: int, verifiers: list[Hotkey], places: int) -> CommitmentBody:
        secret, number, info = self._random_bytes(32), len(self._book), self._view.info
        written = await self._writer.write(number, secret, blocks * len(verifiers) * places)
        return CommitmentBody(
            genesis=info.genesis,
            netuid=info.netuid,
            oracle=Hotkey(self._signer.ss58_address),
            number=number,
            first=first,
            last=Block(first + blocks - 1),
            verifiers=tuple(verifiers),
            places=places,
            root=written.root,
            secret=secret_digest(secret),
            source=written.source,
            previous=self._book.previous,
        )

    def _sign(self, body: CommitmentBody) -> Commitment | None:
        """Sign and write down; None if that took too long for its first block."""
        commitment = commit(body, self._signer)
        in_time = self._book.append(commitment, in_time=lambda: self._in_time(body.first))
        return commitment if in_time else None

    def _forget_old(self, head: Block) -> None:
        """Remove the texts of periods that needn't be revealed any more."""
        if not self._settings.kept_blocks:
            return
        for number in sorted(self._folder.numbers()):
            if (
                number >= len(self._book)
                or self._book.commitment(number).body.last >= head - self._settings.kept_blocks
            ):
                return
            self._folder.remove(number)
