"""Many provers in one process, on engines that need no model, and the reference engine beside them.

python -m tests.many_provers --chain sqlite:///PATH --wallets DIR --provers NAME:PORT,NAME:PORT
                             [--slow NAME] [--socket PATH]
"""

from __future__ import annotations

import argparse
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
from bittensor.wallet import Wallet
from prometheus_client import CollectorRegistry

from targon.chain import open_chain
from targon.engines import serve_engine
from targon.prover import Prover, ProverSettings
from tests.tiny_engine import TinyEngine

SLOW_S = 0.5
"""Between two tokens of a slow prover."""


async def serve(options: argparse.Namespace) -> None:
    async with AsyncExitStack() as stack, anyio.create_task_group() as tasks:
        if options.socket is not None:
            await stack.enter_async_context(serve_engine(TinyEngine(), options.socket))
        for name, port in (word.split(":") for word in options.provers.split(",")):
            chain = await open_chain(options.chain, 4)
            stack.push_async_callback(chain.aclose)
            prover = Prover(
                engine=TinyEngine(pause_s=SLOW_S if name == options.slow else 0.0),
                chain=chain,
                signer=Wallet(name=name, hotkey="default", path=str(options.wallets)).hotkey,
                settings=ProverSettings(port=int(port)),
                registry=CollectorRegistry(),
            )
            tasks.start_soon(prover.run)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chain", required=True)
    parser.add_argument("--wallets", type=Path, required=True)
    parser.add_argument("--provers", required=True)
    parser.add_argument("--slow", default="")
    parser.add_argument("--socket", type=Path)
    anyio.run(serve, parser.parse_args())


if __name__ == "__main__":
    main()
