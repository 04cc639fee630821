"""A verifier's axon alone: real HTTP, a real chain file, a real log, whose events the test writes."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, time_ns
from typing import Any

import anyio
from bittensor import http_auth
from bittensor.keyfiles import Keypair
from prometheus_client import CollectorRegistry

from targon.chain import Axon, Chain, ChainSettings, EmbeddedChain
from targon.ledger import Event, SqliteLog
from targon.protocol.primitives import Hotkey
from targon.protocol.records import LogLine
from targon.transport import NeuronClient
from targon.verifier import AxonSettings, Journal, Serving
from targon.verifier.axon import VerifierAxon
from targon.verifier.watch import ChainWatch
from tests.ledger.history import (
    History,
    attempt,
    interval_closed,
    interval_opened,
    skipped,
    step_closed,
    verdict,
    weights_not_set,
)
from tests.tiny_engine import TinyEngine
from tests.transport.world import Reply, head, send_raw

VERIFIER = Keypair.create_from_uri("//Verifier")
PROVER = Keypair.create_from_uri("//Prover")
OTHER = Keypair.create_from_uri("//Other")
STRANGER = Keypair.create_from_uri("//Stranger")
"""Registered on the chain, and no prover of the log."""
NOBODY = Keypair.create_from_uri("//Nobody")

ME = Hotkey(VERIFIER.ss58_address)
ROUTES = ["/v1/status", "/v1/standing", "/v1/log?start=0"]


def key(keypair: Keypair) -> Hotkey:
    return Hotkey(keypair.ss58_address)


def a_begun_log() -> list[Event]:
    """Open, in interval 0, with two provers that joined."""
    return History.begun(key(PROVER), key(OTHER)).events


@dataclass
class Shop:
    """What is served, and the means to change it."""

    chain: EmbeddedChain
    journal: Journal
    path: Path
    axon: Axon
    client: NeuronClient
    watch: ChainWatch
    registry: CollectorRegistry
    draining: bool = False
    interval: int = 0

    async def step(
        self, block: int, keypair: Keypair = PROVER, outcome: Any = "pass", **details: Any
    ) -> None:
        """One attempt, judged, and its step closed."""
        number = self.journal.head.seq + 1
        judged = verdict(number, outcome).model_copy(update=details)
        await self.journal.append(attempt(key(keypair), block), judged, step_closed(block))

    async def fill(self, records: int) -> None:
        """So many records that say little."""
        first = self.journal.standings.stepped_block + 1
        await self.journal.append(*(skipped(block, block) for block in range(first, first + records)))

    async def release(self) -> int:
        """Release all but the interval that then begins; returns how many records that makes."""
        block = self.journal.standings.stepped_block + 1
        await self.journal.append(
            interval_closed(self.interval, block),
            interval_opened(self.interval + 1, block),
            weights_not_set("nobody earned anything", block),
        )
        self.interval += 1
        return self.journal.standings.released

    def lines(self) -> list[bytes]:
        """The log as it lies in its file, by hand."""
        with sqlite3.connect(f"file:{self.path}?mode=ro", uri=True) as connection:
            stored = connection.execute("SELECT event, hash, prev, seq FROM records ORDER BY seq").fetchall()
        connection.close()
        return [
            b'{"event":%b,"hash":"%b","prev":"%b","seq":%d}'
            % (event.encode(), hash_.encode(), prev.encode(), seq)
            for event, hash_, prev, seq in stored
        ]

    async def get(self, path: str, signer: Keypair = PROVER, *, method: str = "GET", **changes: Any) -> Reply:
        """A signed request over a raw socket."""
        return await send_raw(self.axon.port, get(path, signer, method=method, **changes))

    async def records(self, start: int = 0, **details: Any) -> list[LogLine]:
        reading = self.client.released_records(self.axon, ME, PROVER, start, **details)
        return [record async for record in reading]

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0


def get(
    path: str,
    signer: Keypair = PROVER,
    *,
    method: str = "GET",
    receiver: str = ME,
    signed_path: str | None = None,
) -> bytes:
    """The bytes of a signed request; each call's nonce is its own."""
    headers = http_auth.sign(
        signer,
        method=method,
        path=signed_path or path,
        body=b"",
        receiver_ss58=receiver,
        nonce_ns=time_ns(),
    )
    return head(headers, method=method, path=path)


@asynccontextmanager
async def a_chain(folder: Path, **settings: Any) -> AsyncIterator[EmbeddedChain]:
    """A chain on which everybody but NOBODY is registered."""
    chain = EmbeddedChain.create(
        folder / "chain.sqlite", ChainSettings(**({"block_seconds": 0.1} | settings))
    )
    for keypair in (VERIFIER, PROVER, OTHER, STRANGER):
        chain.register(keypair)
    yield chain
    await chain.aclose()


@asynccontextmanager
async def a_shop(
    folder: Path, chain: EmbeddedChain, *, through: Chain | None = None, **settings: Any
) -> AsyncGenerator[Shop]:
    """An axon that serves a log; a log that lies in the folder already is served as it is.

    Args:
        through: what the axon asks instead of the chain.
    """
    path, registry = folder / "log.sqlite", CollectorRegistry()
    async with AsyncExitStack() as stack:
        log = await SqliteLog.open(path)
        stack.push_async_callback(log.aclose)
        journal = await Journal.open(log)
        if journal.standings.opened is None:
            await journal.append(*a_begun_log())
        readable = await SqliteLog.open(path, read_only=True)
        stack.push_async_callback(readable.aclose)
        client = await stack.enter_async_context(NeuronClient())
        asked = through or chain
        watch = ChainWatch(asked, ME, monotonic)
        shop = Shop(chain, journal, path, Axon("", 0), client, watch, registry)
        shop.interval = journal.standings.interval or 0
        axon = VerifierAxon(
            Serving(log=readable, axon=AxonSettings(**({"port": 0} | settings))),
            chain=asked,
            signer=VERIFIER,
            journal=journal,
            identity=TinyEngine().identity,
            watch=watch,
            draining=lambda: shop.draining,
            registry=registry,
        )
        stack.enter_context(axon.bound())
        await watch.open()
        async with anyio.create_task_group() as group:
            group.start_soon(watch.run)
            served = await group.start(axon.run)
            assert served is not None
            shop.axon = served
            yield shop
            group.cancel_scope.cancel()
