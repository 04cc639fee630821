"""A prover that cheats, as a process: the real prover, over an engine that does one wrong thing."""

from __future__ import annotations

import argparse
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from bittensor.wallet import Wallet

from targon.chain import open_chain
from targon.engines import Engine, wait_for_engine
from targon.localnet.cast import CHEATS, CheatName
from targon.prover import Prover, ProverSettings
from targon.redteam import Canned, Disguise, Truncated, WrongSeed


@asynccontextmanager
async def cheating_engine(cheat: CheatName, engine: Path, claimed: Path) -> AsyncGenerator[Engine, None]:
    """The engine of a cheat.

    Args:
        engine: socket of the engine that it really runs.
        claimed: socket of an engine that is what it claims to run; asked for its identity only.
    """
    async with wait_for_engine(engine) as real, wait_for_engine(claimed) as honest:
        match cheat:
            case "wrong-seed":
                yield WrongSeed(real)
            case "truncated":
                yield Truncated(real)
            case "canned":
                yield Canned(real)
            case "int4" | "relay-other-model":
                yield Disguise(real, honest.identity)
            case "offline":
                raise ValueError("an offline prover has no process")


async def _run(options: argparse.Namespace) -> None:
    wallet = Wallet(name=options.wallet, hotkey="default", path=options.wallets)
    async with cheating_engine(options.cheat, Path(options.engine), Path(options.claimed)) as engine:
        chain = await open_chain(options.chain, options.netuid)
        prover = Prover(
            engine=engine, chain=chain, signer=wallet.hotkey, settings=ProverSettings(port=options.port)
        )
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(prover.run)
                with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                    await anext(signals)
                group.cancel_scope.cancel()
        finally:
            await chain.aclose()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m targon.localnet.cheating_prover", description=__doc__)
    parser.add_argument("--cheat", choices=CHEATS, required=True)
    for name in ("chain", "wallet", "wallets", "engine", "claimed"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--netuid", type=int, required=True)
    parser.add_argument("--port", type=int, required=True)
    anyio.run(_run, parser.parse_args())


if __name__ == "__main__":
    main()
