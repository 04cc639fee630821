"""One block's private inputs: read from the period's files beforehand, signed when they are asked for, kept until the
block is over, so that who asks again gets the same bytes."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import anyio
import anyio.to_thread
import numpy as np
import numpy.typing as npt
import structlog

from targon.chain import ChainError
from targon.oracle.book import CommitmentBook
from targon.oracle.errors import Damaged, GivenBefore, OracleError
from targon.oracle.periods import PeriodFolder, PeriodTexts
from targon.oracle.view import ChainView
from targon.protocol.errors import ProtocolError
from targon.protocol.keys import Signer
from targon.protocol.primitives import Block, Digest, Hotkey
from targon.protocol.private_inputs import (
    CommitmentBody,
    PrivateInputBody,
    Tree,
    deal,
    give,
    leaf_hash,
    salt_of,
)

UNSETTLED_BLOCKS: Final = 3
"""How many of a period's first blocks its first block's hash is read again in: the chain may replace a new block."""

RETRY_S: Final = 1.0
"""Until the chain is asked again for a first block's hash that it didn't tell."""
SETTLE_S: Final = 1.0
"""How long a block may wait for the look whether its period's first one was replaced."""

logger = structlog.get_logger("targon.oracle")


@dataclass(slots=True)
class Running:
    """A period whose first block is known, and so whose each leaf is."""

    texts: PeriodTexts
    tree: Tree
    digest: Digest
    """Of the commitment's body."""
    first_hash: Digest
    dealt: npt.NDArray[np.int64]
    numbers: dict[Hotkey, int]
    """Of the verifiers."""
    early: dict[int, tuple[Hotkey, Block, int]] = field(default_factory=dict)
    """Leaves that were given while the first block could still be replaced, and whose they were."""

    @property
    def body(self) -> CommitmentBody:
        return self.texts.body

    def leaves(self, block: Block) -> list[int]:
        """The leaves of one of its blocks: ``places`` of the first verifier, then those of the next."""
        each = len(self.numbers) * self.body.places
        begin = (block - self.body.first) * each
        return [int(leaf) for leaf in self.dealt[begin : begin + each]]


@dataclass(slots=True)
class Turn:
    """One block, and what is given in it."""

    block: Block
    running: Running | None
    """None: no period has the block."""
    leaves: list[int] = field(default_factory=list)
    """In the order of their ranks."""
    lines: list[bytes] = field(default_factory=list)
    """Text and source of each, as they stand in the period's file."""
    given: dict[tuple[Hotkey, int], bytes] = field(default_factory=dict)
    """What was answered, by verifier and place."""

    def answer(self, running: Running, verifier: Hotkey, place: int, signer: Signer) -> bytes:
        """A place's private input, in its canonical form. The verifier and the place are the period's.

        Raises:
            Damaged: if the text isn't the one that was committed to: that is never signed.
            GivenBefore: if somebody was given it before the chain replaced the period's first block.
        """
        body = running.body
        rank = running.numbers[verifier] * body.places + place
        leaf, salt = self.leaves[rank], salt_of(running.texts.secret, self.leaves[rank])
        if running.early.get(leaf, (verifier, self.block, place)) != (verifier, self.block, place):
            raise GivenBefore(leaf)
        try:
            said = json.loads(self.lines[rank])
            same = leaf_hash(salt, said["text"], said["source"]) == running.texts.leaf(leaf)
        except (ValueError, TypeError, KeyError, ProtocolError):
            same = False
        if not same:
            raise Damaged(f"period {body.number}", f"the text of leaf {leaf} is not what was committed to")
        given = give(
            PrivateInputBody(
                genesis=body.genesis,
                netuid=body.netuid,
                oracle=body.oracle,
                verifier=verifier,
                block=self.block,
                place=place,
                commitment=running.digest,
                leaf=leaf,
                salt=salt.hex(),
                text=said["text"],
                source=said["source"],
            ),
            running.tree.proof(leaf),
            signer,
        )
        made = self.given[verifier, place] = given.to_bytes()
        if self.block - body.first <= UNSETTLED_BLOCKS:
            running.early[leaf] = verifier, self.block, place
        return made


@dataclass(slots=True)
class _Opened:
    """A period's files, open and looked at; whose each leaf is, its first block will tell."""

    texts: PeriodTexts
    tree: Tree
    digest: Digest


class Turns:
    """Follows the chain from block to block. What :attr:`now` has is served."""

    def __init__(self, book: CommitmentBook, folder: PeriodFolder, view: ChainView) -> None:
        self._book = book
        self._folder = folder
        self._view = view
        self._running: Running | None = None
        self._opened: _Opened | None = None
        """The period that begins next, or whose first block's hash could not be read yet."""
        self._ahead: Turn | None = None
        self._news = anyio.Event()
        self.now = Turn(Block(-1), None)
        self.trouble: str | None = None
        """Why a period that was committed to isn't served, in words; None if nothing is wrong."""

    async def run(self) -> None:
        """Take each block as it comes, for ever."""
        head = Block(-1)
        while True:
            head = await self._view.next_block(head)
            self._show(await self._taken(head))
            while self.now.running is None and self._opened is not None and self._view.head == head:
                await anyio.sleep(RETRY_S)  # the chain didn't tell the first block's hash
                self._show(await self._taken(head))
            await self._look_ahead(head)

    async def at(self, block: Block) -> Turn:
        """The newest block's turn, once that is this block or a later one."""
        while self.now.block < block:
            await self._news.wait()
        return self.now

    def _show(self, turn: Turn) -> None:
        self.now = turn
        self._news.set()
        self._news = anyio.Event()

    async def _taken(self, head: Block) -> Turn:
        """The turn of a block that has come."""
        ahead, self._ahead = self._ahead, None
        commitment = self._book.with_block(head)
        body = None if commitment is None else commitment.body
        if self._running is not None and self._running.body == body:
            settled = await self._is_settled(self._running, head)
            if ahead is not None and ahead.block == head and settled:
                return ahead
        else:
            await self._begin(body)
        return await self._read(head)

    async def _read(self, block: Block) -> Turn:
        """A block's texts, if its period runs."""
        if self._running is None:
            return Turn(block, None)
        try:
            turn = await anyio.to_thread.run_sync(_read_turn, block, self._running)
        except OracleError as error:
            self._failed(self._running.body, error)
            return Turn(block, None)
        self.trouble = None
        return turn

    async def _look_ahead(self, head: Block) -> None:
        """Read the next block's texts, or open its period, before it comes."""
        commitment = self._book.with_block(Block(head + 1))
        if commitment is None:
            return
        if self._running is not None and self._running.body == commitment.body:
            self._ahead = await self._read(Block(head + 1))
        else:
            await self._open(commitment.body)

    async def _begin(self, body: CommitmentBody | None) -> None:
        """Deal the leaves of the period that begins."""
        if self._running is not None:
            self._running.texts.close()
            self._running = None
        opened = None
        if body is None:
            self._close()
            self.trouble = None
        else:
            opened = await self._open(body)
        if body is None or opened is None:
            return
        try:
            first_hash = await self._view.block_hash(body.first)
        except ChainError as error:
            self._failed(body, error)
            return
        dealt = await anyio.to_thread.run_sync(deal, body, first_hash)
        numbers = {hotkey: number for number, hotkey in enumerate(body.verifiers)}
        self._running = Running(opened.texts, opened.tree, opened.digest, first_hash, dealt, numbers)
        self._opened = None

    async def _open(self, body: CommitmentBody) -> _Opened | None:
        """Open a period's files, unless they are; None if they can't be served."""
        if self._opened is not None and self._opened.texts.body == body:
            return self._opened
        self._close()
        texts = None
        try:
            texts = await anyio.to_thread.run_sync(self._folder.open, body)
            tree = await anyio.to_thread.run_sync(texts.tree)
        except OracleError as error:
            if texts is not None:
                texts.close()
            self._failed(body, error)
            return None
        self._opened = _Opened(texts, tree, body.digest())
        return self._opened

    def _close(self) -> None:
        if self._opened is not None:
            self._opened.texts.close()
            self._opened = None

    def _failed(self, body: CommitmentBody, error: Exception) -> None:
        if self.trouble is None:
            logger.error("period_not_served", number=body.number, error=str(error))
        self.trouble = f"period {body.number}: {error}"

    async def _is_settled(self, running: Running, head: Block) -> bool:
        """Whether the first block is the one by which was dealt. Where the chain has replaced it, it is dealt anew."""
        if head - running.body.first > UNSETTLED_BLOCKS:
            return True
        first_hash = running.first_hash
        with anyio.move_on_after(SETTLE_S), suppress(ChainError):
            first_hash = await self._view.block_hash(running.body.first)
        if first_hash == running.first_hash:
            return True
        logger.warning("first_block_replaced", block=running.body.first, number=running.body.number)
        running.dealt = await anyio.to_thread.run_sync(deal, running.body, first_hash)
        running.first_hash = first_hash
        return False


def _read_turn(block: Block, running: Running) -> Turn:
    """A block's texts. Blocks.

    Raises:
        OracleError: if they can't be read.
    """
    leaves = running.leaves(block)
    return Turn(block, running, leaves, [running.texts.line(leaf) for leaf in leaves])
