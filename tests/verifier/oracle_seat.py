"""A verifier's seat at an oracle: its private inputs and its log, without the rest of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
from bittensor.keyfiles import Keypair
from prometheus_client import CollectorRegistry

from targon.ledger import Event, InputsCommitted, OracleFaulted, ReliesOn, SqliteLog
from targon.oracle import Passage
from targon.protocol.primitives import Block, Hotkey
from targon.transport import Deadlines, OracleClient
from targon.verifier import Journal
from targon.verifier.fallback_inputs import FallbackInputs, InputMetrics
from targon.verifier.permit import Permit
from targon.verifier.reliance import Reliance
from targon.verifier.remote_inputs import RemoteInputs
from tests.ledger.history import History
from tests.verifier.scripted_oracle import ORACLE, ScriptedOracle, TurnedChain, periods

ME = Keypair.create_from_uri("//Verifier")
MINE = Hotkey(ME.ss58_address)
OTHERS_KEY = Keypair.create_from_uri("//Other")
OTHER = Hotkey(OTHERS_KEY.ss58_address)
ORACLES = Hotkey(ORACLE.ss58_address)


class Own:
    """The verifier's own source."""

    async def private_input(self, block: Block, draw: int) -> Passage:
        return Passage(f"own {draw}", f"own:{block}", 0)


@dataclass
class Seat:
    """A verifier's private inputs, beside a chain and an oracle that a test turns."""

    chain: TurnedChain
    oracle: ScriptedOracle
    journal: Journal
    inputs: FallbackInputs
    registry: CollectorRegistry

    async def reach(self, block: int) -> None:
        """Go on block by block, and let the verifier look in each."""
        while self.chain.now < block:
            self.chain.now += 1
            await self.settle()

    async def settle(self) -> None:
        """Wait until the newest block was looked at."""
        with anyio.fail_after(60):
            while self.inputs.looked_at < self.chain.now:
                await anyio.sleep(0.005)

    async def text(self, draw: int = 1, block: int | None = None) -> str:
        at = self.chain.now if block is None else block
        return (await self.inputs.private_input(Block(at), draw)).text

    async def events(self) -> list[Event]:
        return [record.event async for record in self.journal.read()]

    async def caught(self) -> list[OracleFaulted]:
        return [event for event in await self.events() if isinstance(event, OracleFaulted)]

    async def relied_on(self) -> list[tuple[Hotkey, ...]]:
        return [event.inputs for event in await self.events() if isinstance(event, ReliesOn)]

    async def committed(self) -> list[tuple[int, int]]:
        """Number of each commitment in the log, and the block that it was seen in."""
        return [
            (event.commitment.body.number, event.block)
            for event in await self.events()
            if isinstance(event, InputsCommitted)
        ]

    def counted(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"targon_verifier_{name}", labels) or 0.0


@asynccontextmanager
async def seated(
    folder: Path,
    oracle: ScriptedOracle,
    *,
    port: int | None = None,
    pardoned: bool = False,
    seconds: float = 30.0,
    me: Keypair = ME,
) -> AsyncGenerator[Seat]:
    """A verifier that looks at the oracle; at a port where it doesn't serve, if one is given."""
    path = folder / "log.sqlite"
    begun = path.exists()
    log = await SqliteLog.open(path)
    journal = await Journal.open(log)
    if not begun:
        opened, *begun_with = History.begun().events
        await journal.append(opened.model_copy(update={"verifier": me.ss58_address}), *begun_with)
    registry = CollectorRegistry()
    metrics = InputMetrics(registry)
    permit = Permit(oracle.chain, Hotkey(me.ss58_address))  # type: ignore[arg-type]  # as much of one as is asked
    async with (
        oracle.serving() as serving_port,
        OracleClient(deadlines=Deadlines(connect_s=seconds, total_s=seconds, first_byte_s=seconds)) as client,
    ):
        remote = RemoteInputs(
            ORACLES,
            "127.0.0.1",
            serving_port if port is None else port,
            client=client,
            signer=me,
            chain=oracle.chain,  # type: ignore[arg-type]  # as much of one as is asked
            journal=journal,
            permit=permit,
            tell=metrics.trouble,
            pardoned=pardoned,
        )
        inputs = FallbackInputs(
            [remote],
            Own(),
            chain=oracle.chain,  # type: ignore[arg-type]
            journal=journal,
            permit=permit,
            reliance=Reliance(journal),
            metrics=metrics,
        )
        async with anyio.create_task_group() as group:
            group.start_soon(inputs.run)
            seat = Seat(oracle.chain, oracle, journal, inputs, registry)
            await seat.settle()
            yield seat
            group.cancel_scope.cancel()
    await log.aclose()


def an_oracle(**changes: Any) -> ScriptedOracle:
    return ScriptedOracle(TurnedChain(), periods(4, MINE, OTHER), **changes)
