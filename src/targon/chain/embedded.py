"""The embedded chain: one SQLite file that several processes share, and no process that makes blocks.

The block number is read off the wall clock; a block's hash is ``SHA-256(chain id ‖ number)``, which anyone
with the file can predict; the epochs that fell due are computed by whoever comes first.
"""

from __future__ import annotations

import hashlib
import shlex
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.to_thread
import structlog

from targon.chain import commits, rules, state
from targon.chain.calls import (
    Action,
    CommitWeights,
    PutAnchor,
    RevealWeights,
    ServeAxon,
    SetWeights,
    SignedCall,
    check_call,
    sign_call,
)
from targon.chain.errors import ChainError, ChainUnavailable, CommitRevealRefused, NotRegistered, UnknownBlock
from targon.chain.port import Anchor, Axon, Metagraph, SubnetInfo, WeightsCommit
from targon.chain.store import ChainSettings, Store
from targon.protocol.errors import MalformedMessage
from targon.protocol.keys import Signer, public_key
from targon.protocol.primitives import Block, Digest, Hotkey, Uid, u64_hex

T = TypeVar("T")

Clock = Callable[[], float]
"""Seconds since 1970-01-01 UTC."""

DEADLINE_S = 15.0
"""Longest that a call of the port takes; longer than a writer waits for its turn."""

THREADS = 4
"""How many calls of one instance may be under way; SQLite serves them one at a time."""

MOST_PAUSE_S = 1.0
"""Longest time between two looks for a new block."""

MAX_STAKE_TAO = 21_000_000

logger = structlog.get_logger(__name__)


class EmbeddedChain:
    """A chain adapter over one SQLite file. Every method of the port raises ``ChainUnavailable`` where the
    file is missing, locked or damaged. One instance serves many tasks; other processes open their own.

    The port is asynchronous; :meth:`register` and :meth:`add_stake`, for tools that set up a network, block.
    They need no signature: whoever can write the file can have any registration and any stake.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._settings = store.identity.settings
        self._genesis = self._hash(Block(0))
        self._seen = Block(0)
        self._threads = anyio.CapacityLimiter(THREADS)

    @classmethod
    def create(
        cls, path: Path | str, settings: ChainSettings | None = None, *, clock: Clock = time.time
    ) -> EmbeddedChain:
        """Make a chain whose block 0 begins now, and open it.

        Raises:
            ChainExists: if a file lies there already.
            ChainUnavailable: if it cannot be made there.
        """
        Store.create(Path(path), settings or ChainSettings(), clock())
        return cls.open(path, clock=clock)

    @classmethod
    def open(cls, path: Path | str, *, clock: Clock = time.time) -> EmbeddedChain:
        """Open a chain that exists.

        Raises:
            ChainUnavailable: if there is none, or it is no chain of this version, or it is damaged.
        """
        return cls(Store.open(Path(path)), clock)

    @property
    def path(self) -> Path:
        return self._store.path

    @property
    def settings(self) -> ChainSettings:
        return self._settings

    async def info(self) -> SubnetInfo:
        wait = await self._in_thread(lambda: self._store.read(commits.reveal_epochs))
        return SubnetInfo(
            netuid=self._settings.netuid,
            genesis=self._genesis,
            block_seconds=self._settings.block_seconds,
            tempo=self._settings.tempo,
            weights_version_key=self._settings.weights_version_key,
            weights_rate_limit=self._settings.weights_rate_limit,
            commit_reveal=wait > 0,
            reveal_epochs=max(wait, 1),
        )

    async def block(self) -> Block:
        """The current block's number: by the clock, never below one that was seen or written in before."""
        return await self._in_thread(
            lambda: self._store.read(lambda connection: self._now(state.head(connection)[0]))
        )

    async def block_hash(self, block: Block) -> Digest:
        """``SHA-256(chain id ‖ number as 8 bytes, big-endian)``.

        Raises:
            UnknownBlock: if the block lies in the future.
        """
        if block < 0:
            raise ChainError(f"block: got {block}, expected 0 or higher")
        if block > self._seen:
            current = await self.block()
            if block > current:
                raise UnknownBlock(block, current)
        return self._hash(block)

    async def block_time(self, block: Block) -> float:
        """When a block begins, in seconds since 1970-01-01 UTC: by the clock of whoever created the chain."""
        return self._store.identity.genesis_time + block * self._settings.block_seconds

    async def blocks(self) -> AsyncGenerator[Block, None]:
        """The current block, then each new one; the clock is asked a few times per block."""
        last = Block(-1)
        pause_s = min(self._settings.block_seconds / 4, MOST_PAUSE_S)
        while True:
            try:
                current = await self.block()
            except ChainUnavailable as error:
                logger.warning("chain_not_heard", error=str(error))
            else:
                if current > last:
                    last = current
                    yield current
            await anyio.sleep(pause_s)

    async def metagraph(self) -> Metagraph:
        return await self._in_thread(self._metagraph)

    async def require_uid(self, hotkey: Hotkey) -> Uid:
        """The UID that a hotkey holds.

        Raises:
            NotRegistered: if it holds none.
        """
        uid = await self._in_thread(
            lambda: self._store.read(lambda connection: state.uid_of(connection, hotkey))
        )
        if uid is None:
            raise NotRegistered(hotkey, self._settings.netuid, self._how_to_register())
        return uid

    async def weights_of(self, uid: Uid) -> dict[Uid, int]:
        return await self._in_thread(
            lambda: self._store.read(lambda connection: state.weights_of(connection, uid))
        )

    async def serve_axon(self, signer: Signer, axon: Axon) -> None:
        """Announce where a neuron serves. Loopback addresses are taken.

        Raises:
            AxonRefused: if the host is no IP address, or the port none.
            NotRegistered: if the signer's hotkey has no UID.
        """
        rules.check_axon(axon.host, axon.port)
        action = ServeAxon(host=axon.host, port=axon.port)
        await self._in_thread(lambda: self._serve(signer, action))

    async def set_weights(self, signer: Signer, weights: Mapping[Uid, int], version_key: int) -> Block:
        """Set a verifier's weights, kept max-upscaled (the greatest 65535); returns the block they stand in.

        Raises:
            NotRegistered, NoValidatorPermit, RateLimited.
            WeightsRefused: an empty or over-long vector, an unknown UID, an outdated version key.
        """
        kept = rules.well_formed(weights, version_key)
        action = SetWeights(weights=tuple(kept.items()), version_key=u64_hex(version_key))
        return await self._in_thread(lambda: self._sign_and_submit(signer, action))

    def commit_digest(
        self, hotkey: Hotkey, weights: Mapping[Uid, int], version_key: int, salt: bytes
    ) -> Digest:
        return commits.digest_of(hotkey, weights, version_key, salt)

    async def commit_weights(
        self, signer: Signer, weights: Mapping[Uid, int], version_key: int, salt: bytes
    ) -> WeightsCommit:
        """Commit to weights; they stand when they are revealed.

        Raises:
            NotRegistered, RateLimited.
            WeightsRefused: an empty or over-long vector; ``CommitRevealRefused`` where there is no commit-reveal.
        """
        kept = rules.well_formed(weights, version_key)
        hotkey = Hotkey(signer.ss58_address)
        digest = commits.digest_of(hotkey, kept, version_key, salt)
        await self._in_thread(lambda: self._sign_and_submit(signer, CommitWeights(committed=digest)))
        for commit in await self.weights_commits(hotkey):
            if commit.digest == digest:
                return commit
        raise CommitRevealRefused(
            "weights commit: it was taken, and stands no more; was commit-reveal switched off, or the UID given away?"
        )

    async def reveal_weights(
        self, signer: Signer, weights: Mapping[Uid, int], version_key: int, salt: bytes
    ) -> Block:
        """Reveal weights that were committed to; returns the block they stand in.

        Raises:
            NotRegistered, NoValidatorPermit, RateLimited, WeightsRefused: as setting them does.
            CommitRevealRefused: if there is no such commit, or it has expired.
        """
        kept = rules.well_formed(weights, version_key)
        action = RevealWeights(weights=tuple(kept.items()), version_key=u64_hex(version_key), salt=salt.hex())
        return await self._in_thread(lambda: self._sign_and_submit(signer, action))

    async def weights_commits(self, hotkey: Hotkey) -> tuple[WeightsCommit, ...]:
        def look(connection: sqlite3.Connection) -> tuple[WeightsCommit, ...]:
            block = self._now(state.head(connection)[0])
            uid = state.uid_of(connection, hotkey)
            return () if uid is None else commits.pending(connection, self._settings, uid, block)

        return await self._in_thread(lambda: self._store.read(look))

    async def anchor(self, signer: Signer, digest: Digest) -> Block:
        """Put a digest on chain.

        Raises:
            NotRegistered: if the signer's hotkey has no UID.
        """
        return await self._in_thread(lambda: self._sign_and_submit(signer, PutAnchor(anchored=digest)))

    async def anchor_of(self, hotkey: Hotkey) -> Anchor | None:
        return await self._in_thread(
            lambda: self._store.read(lambda connection: commits.anchor_of(connection, hotkey))
        )

    async def submit(self, signed: SignedCall) -> Block:
        """Take a call that was signed elsewhere; returns the block it stands in.

        Raises:
            CallRefused: if the signature is not the hotkey's, or the call is not for this chain.
            StaleNonce: if it was taken before, or another one should come first.
            And as :meth:`set_weights` and :meth:`serve_axon` do.
        """
        return await self._in_thread(
            lambda: self._write(lambda connection, block: self._apply(connection, block, signed))
        )

    async def nonce(self, hotkey: Hotkey) -> int:
        """The nonce that a hotkey's next call must carry."""
        return await self._in_thread(
            lambda: self._store.read(lambda connection: state.nonce_of(connection, hotkey))
        )

    async def aclose(self) -> None:
        with anyio.CancelScope(shield=True):
            await self._in_thread(self._store.close)

    def close(self) -> None:
        """What :meth:`aclose` does, for those who block."""
        self._store.close()

    def register(self, who: Signer | Hotkey) -> Uid:
        """Give a hotkey a UID; one that has a UID keeps it. Blocks.

        On a full subnet it takes over the UID of the neuron last in line
        (:func:`targon.chain.rules.neuron_to_replace`), of which nothing is kept.

        Raises:
            ChainError: if the hotkey is no ss58 address.
        """
        hotkey = _checked_hotkey(who)
        return self._write(
            lambda connection, block: state.register(connection, self._settings, block, hotkey)
        )

    def add_stake(self, who: Signer | Hotkey, amount_tao: float) -> None:
        """Add stake to a hotkey, registered or not; its permit follows at once. Blocks.

        Raises:
            ChainError: if the hotkey is no ss58 address, or the amount no amount.
        """
        hotkey = _checked_hotkey(who)
        if not 0 < amount_tao <= MAX_STAKE_TAO:
            raise ChainError(
                f"stake: got {amount_tao} TAO, expected more than 0 and at most {MAX_STAKE_TAO:,}"
            )
        rao = round(amount_tao * state.RAO_PER_TAO)

        def work(connection: sqlite3.Connection, _: Block) -> None:
            total = state.add_stake(connection, self._settings, hotkey, rao)
            if total > MAX_STAKE_TAO * state.RAO_PER_TAO:
                raise ChainError(
                    f"stake: got a total of {total / state.RAO_PER_TAO:,.0f} TAO, "
                    f"expected at most {MAX_STAKE_TAO:,}"
                )

        self._write(work)

    def set_commit_reveal(self, reveal_epochs: int) -> None:
        """From the next block on, weights are committed to and revealed so many epochs later; 0: set outright.
        Blocks.
        """
        if not 0 <= reveal_epochs <= 100:
            raise ChainError(f"commit-reveal: got {reveal_epochs} epochs, expected 0 to 100")
        self._write(
            lambda connection, _: connection.execute("UPDATE head SET reveal_epochs = ?", (reveal_epochs,))
        )

    def _metagraph(self) -> Metagraph:
        def look(connection: sqlite3.Connection) -> Metagraph | None:
            written, epoch = state.head(connection)
            block = self._now(written)
            if block // self._settings.tempo > epoch:
                return None
            return state.metagraph(connection, self._settings, block)

        current = self._store.read(look)
        if current is not None:
            return current
        return self._write(lambda connection, block: state.metagraph(connection, self._settings, block))

    def _serve(self, signer: Signer, action: ServeAxon) -> None:
        held = self._metagraph().by_hotkey(Hotkey(signer.ss58_address))
        if held is None or held.axon != Axon(action.host, action.port):
            self._sign_and_submit(signer, action)

    def _sign_and_submit(self, signer: Signer, action: Action) -> Block:
        """Sign within the transaction that applies the call: its nonce is then nobody else's."""
        hotkey = Hotkey(signer.ss58_address)
        netuid = self._settings.netuid

        def work(connection: sqlite3.Connection, block: Block) -> Block:
            nonce = state.nonce_of(connection, hotkey)
            signed = sign_call(signer, action, genesis=self._genesis, netuid=netuid, nonce=nonce)
            return self._apply(connection, block, signed)

        return self._write(work)

    def _apply(self, connection: sqlite3.Connection, block: Block, signed: SignedCall) -> Block:
        check_call(signed, genesis=self._genesis, netuid=self._settings.netuid)
        state.apply(connection, self._settings, block, signed, self._how_to_register())
        return block

    def _how_to_register(self) -> str:
        return (
            f"targon chain register {shlex.quote(str(self.path))} --wallet.name NAME --wallet.hotkey HOTKEY"
        )

    def _write(self, work: Callable[[sqlite3.Connection, Block], T]) -> T:
        """Settle what is due, then do the work, in one transaction."""

        def settled(connection: sqlite3.Connection) -> T:
            block = self._now(state.head(connection)[0])
            state.settle(connection, self._settings, block)
            return work(connection, block)

        return self._store.write(settled)

    def _now(self, written: Block) -> Block:
        """The current block, given the greatest that was written in. Called within a transaction, in turn."""
        elapsed = self._clock() - self._store.identity.genesis_time
        self._seen = Block(max(int(elapsed // self._settings.block_seconds), written, self._seen))
        return self._seen

    def _hash(self, block: Block) -> Digest:
        return Digest(hashlib.sha256(self._store.identity.chain_id + block.to_bytes(8, "big")).hexdigest())

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            with anyio.fail_after(DEADLINE_S):
                return await anyio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._threads)
        except TimeoutError:
            raise ChainUnavailable(
                f"chain {self.path}: no answer within {DEADLINE_S:g} s; a write may still take effect, so "
                "read back what stands; check the disk and the processes that hold the file"
            ) from None


def _checked_hotkey(who: Signer | Hotkey) -> Hotkey:
    hotkey = Hotkey(who if isinstance(who, str) else who.ss58_address)
    try:
        public_key(hotkey)
    except MalformedMessage as error:
        raise ChainError(str(error)) from error
    return hotkey
