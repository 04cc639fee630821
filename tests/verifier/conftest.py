"""A small real network in one process: an embedded chain, provers over HTTP, and a verifier with its log."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest
from bittensor.keyfiles import Keypair

from targon.chain import Axon, ChainSettings, EmbeddedChain
from targon.engines import Engine
from targon.ledger import Event, Record, SqliteLog
from targon.oracle import Passage
from targon.protocol.primitives import Block, Hotkey
from targon.protocol.profile import DEMO, Profile
from targon.prover import Prover, ProverSettings
from targon.transport import Deadlines, NeuronClient
from targon.verification import Calibration, Range
from targon.verifier import AxonSettings, Journal, Serving, Verifier, VerifierSettings
from tests.tiny_engine import TinyEngine
from tests.verification.completions import SCOPE, band_with

VERIFIER = Keypair.create_from_uri("//Verifier")
CALIBRATION = Calibration(
    model_digest="d" * 64,
    engine="tiny",
    dtype="float32",
    bands=(
        band_with().model_copy(
            update={
                "scope": SCOPE.model_copy(
                    update={
                        "dialects": ("targon/1", "greedy"),
                        "temperature": Range(low=0.0, high=1.2),
                        "top_p": Range(low=0.8, high=1.0),
                        "top_k": (0, 20, 40, 50),
                    }
                )
            }
        ),
    ),
)
"""Covers all that challenges ask for; the tiny engine always agrees with itself."""
BLOCK_SECONDS = 0.4
MASTER_SECRET = bytes(range(32))


class NumberedPassages:
    """A private input that is the draw itself."""

    async def private_input(self, block: Block, draw: int) -> Passage:
        return Passage(f"block {block}, draw {draw}", "numbers:1", 0)


@dataclass
class World:
    """A network that tests act on."""

    folder: Path
    chain: EmbeddedChain
    reference: TinyEngine = field(default_factory=TinyEngine)
    profile: Profile = DEMO
    timeout_s: float = 10.0
    calibration: Calibration | None = CALIBRATION
    axon: AxonSettings | None = None
    metrics_port: int | None = None
    settings: VerifierSettings = field(
        default_factory=lambda: VerifierSettings(min_tokens=32, max_tokens=40, query_tokens=4)
    )

    @property
    def log_path(self) -> Path:
        return self.folder / "log.sqlite"

    @asynccontextmanager
    async def prover(self, name: str, engine: Engine | None = None) -> AsyncGenerator[Hotkey]:
        """A registered prover that serves while the block lasts."""
        keypair = Keypair.create_from_uri(f"//{name}")
        await anyio.to_thread.run_sync(self.chain.register, keypair)
        prover = Prover(
            engine=engine or TinyEngine(), chain=self.chain, signer=keypair, settings=ProverSettings(port=0)
        )
        async with anyio.create_task_group() as group:
            await group.start(lambda task_status: prover.run(task_status=task_status))
            yield Hotkey(keypair.ss58_address)
            group.cancel_scope.cancel()

    async def offline_prover(self, name: str) -> Hotkey:
        """A prover that is announced where nobody listens."""
        keypair = Keypair.create_from_uri(f"//{name}")
        await anyio.to_thread.run_sync(self.chain.register, keypair)
        await self.chain.serve_axon(keypair, Axon("127.0.0.1", 9))
        return Hotkey(keypair.ss58_address)

    @asynccontextmanager
    async def verifier(self) -> AsyncGenerator[Verifier]:
        """A verifier on this world's log, not yet running."""
        async with AsyncExitStack() as stack:
            log = await SqliteLog.open(self.log_path)
            stack.push_async_callback(log.aclose)
            serving = None
            if self.axon is not None:
                readable = await SqliteLog.open(self.log_path, read_only=True)
                stack.push_async_callback(readable.aclose)
                serving = Serving(log=readable, axon=self.axon)
            waits = Deadlines(
                first_byte_s=self.timeout_s, between_bytes_s=self.timeout_s, total_s=self.timeout_s
            )
            yield Verifier(
                chain=self.chain,
                journal=await Journal.open(log),
                engine=self.reference,
                client=await stack.enter_async_context(NeuronClient(deadlines=waits)),
                inputs=NumberedPassages(),
                signer=VERIFIER,
                profile=self.profile,
                settings=self.settings,
                master_secret=MASTER_SECRET,
                random_bytes=os.urandom,
                calibration=self.calibration,
                folder=self.folder,
                serving=serving,
                metrics_port=self.metrics_port,
            )

    async def verify_until(self, enough: Callable[[list[Event]], bool], limit_s: float = 30.0) -> list[Event]:
        """Run a verifier until its log holds enough, then stop it; returns the events."""
        with anyio.fail_after(limit_s):
            async with self.verifier() as verifier, anyio.create_task_group() as group:
                group.start_soon(verifier.run)
                while not self.log_path.exists() or not enough(await self.events()):
                    await anyio.sleep(0.1)
                verifier.stop()
        return await self.events()

    async def records(self) -> list[Record]:
        log = await SqliteLog.open(self.log_path, read_only=True)
        try:
            return [record async for record in log.read()]
        finally:
            await log.aclose()

    async def events(self) -> list[Event]:
        return [record.event for record in await self.records()]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncGenerator[World]:
    settings = ChainSettings(block_seconds=BLOCK_SECONDS, tempo=3, weights_rate_limit=1)
    chain = EmbeddedChain.create(tmp_path / "chain.sqlite", settings)
    chain.register(VERIFIER)
    chain.add_stake(VERIFIER, 10_000.0)
    yield World(tmp_path, chain)
    await chain.aclose()
