"""A verifier in a process of its own that serves inferences until it is killed: ``python -m … FOLDER``.

It says of each that it acknowledged, one a line: receipt id, place and hash of the record.
"""

from __future__ import annotations

import sys
from pathlib import Path

import anyio

from targon.chain import EmbeddedChain
from targon.protocol.messages import ChatMessage
from targon.protocol.orders import Order
from targon.transport import NeuronClient
from targon.transport.errands import DeskError
from targon.verifier.desk import Desk
from tests.verifier.conftest import VERIFIER, World

AT_ONCE = 8


async def main(folder: Path) -> None:
    world = World(folder, EmbeddedChain.open(folder / "chain.sqlite"))
    async with (
        world.prover("Honest"),
        world.verifier() as verifier,
        NeuronClient() as client,
        anyio.create_task_group() as group,
    ):
        group.start_soon(verifier.run)
        for number in range(AT_ONCE):
            group.start_soon(serve, verifier.desk, client, number)


async def serve(desk: Desk, client: NeuronClient, number: int) -> None:
    said = (ChatMessage(role="user", content=f"user {number}"),)
    while True:
        try:
            errand = await desk.take(Order(model="tiny", messages=said, max_tokens=8))
        except DeskError:
            await anyio.sleep(0.05)
            continue
        answer = await client.generate(errand.axon, errand.request, VERIFIER)
        settled = await desk.answered(errand, answer)
        sys.stdout.write(f"ACK {settled.receipt_id} {settled.record} {settled.record_hash}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]))
