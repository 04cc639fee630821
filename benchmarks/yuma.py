"""One epoch of Yuma consensus, and what a polled embedded chain costs."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import numpy as np
from bittensor.keyfiles import Keypair

from benchmarks.row import Row
from targon.chain import ChainSettings, EmbeddedChain, yuma
from targon.protocol.primitives import Uid

NEURONS = 256
VALIDATORS = 64


def run(quick: bool) -> list[Row]:
    """Measure."""
    return [_epoch(5 if quick else 50), *anyio.run(_port, 50 if quick else 1_000)]


def _epoch(repetitions: int) -> Row:
    draw = np.random.default_rng(0)
    stake = np.zeros(NEURONS)
    stake[:VALIDATORS] = draw.uniform(1, 1_000, VALIDATORS)
    weights = np.zeros((NEURONS, NEURONS))
    weights[:VALIDATORS] = draw.integers(0, yuma.U16_MAX, (VALIDATORS, NEURONS))
    subnet = yuma.Subnet(
        stake=stake,
        permits=stake > 0,
        last_update=np.full(NEURONS, 300),
        registered_at=np.zeros(NEURONS, dtype=np.int64),
        weights=weights,
        bonds=np.floor(draw.uniform(0, yuma.U16_MAX, (NEURONS, NEURONS))),
    )
    began = time.perf_counter()
    for _ in range(repetitions):
        yuma.epoch(subnet, block=360, last_epoch_block=0, max_validators=VALIDATORS, activity_cutoff=5_000)
    took = (time.perf_counter() - began) / repetitions * 1_000
    return Row("one epoch", took, "ms", note=f"{NEURONS} neurons, {VALIDATORS} validators")


async def _port(repetitions: int) -> list[Row]:
    keys = [Keypair.create_from_uri(f"//{number}") for number in range(NEURONS)]
    settings = ChainSettings(weights_rate_limit=0, immunity_blocks=0, block_seconds=0.01, tempo=1_000_000)
    with tempfile.TemporaryDirectory() as folder:
        chain = EmbeddedChain.create(Path(folder) / "chain.sqlite", settings)
        for signer in keys:
            chain.register(signer)
        chain.add_stake(keys[0], 1.0)
        everyone = {Uid(uid): uid + 1 for uid in range(NEURONS)}

        async def set_weights() -> None:
            await chain.set_weights(keys[0], everyone, 0)

        calls: list[tuple[str, Callable[[], Awaitable[object]], int]] = [
            ("block()", chain.block, repetitions),
            ("metagraph()", chain.metagraph, repetitions),
            ("set_weights()", set_weights, max(10, repetitions // 10)),
        ]
        rows = [
            Row(name, await _mean(call, times), "ms", note=f"embedded chain, {NEURONS} neurons")
            for name, call, times in calls
        ]
        await chain.aclose()
        return rows


async def _mean(call: Callable[[], Awaitable[object]], times: int) -> float:
    """Milliseconds per call."""
    began = time.perf_counter()
    for _ in range(times):
        await call()
    return (time.perf_counter() - began) / times * 1_000
