"""An oracle under load: authenticated private inputs a second on one core, how long they take, and a burst at a block.

The oracle is a process of its own; its callers are another one, on loopback, with a hotkey, a connection and an address
each. A thousand of them have a permit and four places. Seconds of the oracle's processor are its own, whatever else the
machine does; the times between question and answer are the clock's.
"""

from __future__ import annotations

import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import structlog
from anyio.abc import ByteStream
from bittensor.keyfiles import Keypair

from benchmarks.row import Row
from targon.chain import Metagraph, Neuron, SubnetInfo
from targon.cli.commands.oracle import SWITCH_S
from targon.cli.memory import seldom_searched
from targon.oracle import Passage
from targon.oracle.beside import WriterBeside
from targon.oracle.process import Opened, Opening, serve
from targon.oracle.role import Oracle
from targon.oracle.settings import OracleSettings
from targon.protocol.primitives import Block, Digest, Hotkey, Uid
from targon.protocol.private_inputs import Commitment, CommitmentBody
from targon.transport.auth import sign

VERIFIERS = 1_000
PLACES = 4
SUBNET = (64, 16)
"""Verifiers and places of a large subnet."""
AT_ONCE = 32
POISSON_PER_S = 1_000.0
DUE_BLOCKS = 18
"""Before a period's last block the next one is prepared: half of it."""
LIMIT_S = 200.0
ORACLE = Keypair.create_from_uri("//Oracle")
GENESIS = Digest("ab" * 32)
WORDS = (
    "A tide is the rise and fall of the sea that the moon and the sun bring about; where the coast is narrow it stands "
    "many metres high, and where it is wide hardly one. Passage {0} says so, and more."
)
"""As long as passages are at most."""


def run(quick: bool) -> list[Row]:
    """Measure."""
    with seldom_searched():  # the callers' pauses are not the oracle's
        return anyio.run(
            _measure, 2_000 if quick else 10_000, 3.0 if quick else 10.0, backend_options={"use_uvloop": True}
        )


def keys(verifiers: int) -> list[Keypair]:
    """The verifiers'."""
    return [Keypair.create_from_seed((number + 1).to_bytes(32, "big")) for number in range(verifiers)]


class SteppedChain:
    """A chain whose block is the number in a file: whoever measures goes from block to block."""

    def __init__(self, file: Path, verifiers: int) -> None:
        self._file = file
        hotkeys = [Hotkey(pair.ss58_address) for pair in keys(verifiers)]
        self._neurons = tuple(
            Neuron(Uid(uid), hotkey, 1.0, True, None, Block(1), None, 0.0, 0.0)
            for uid, hotkey in enumerate(hotkeys)
        )

    async def info(self) -> SubnetInfo:
        return SubnetInfo(4, GENESIS, 12.0, 360, 0, 0)

    async def block(self) -> Block:
        return Block(int(self._file.read_text()))

    async def block_hash(self, block: Block) -> Digest:
        return Digest(f"{block:064x}")

    async def blocks(self) -> AsyncGenerator[Block, None]:
        last = Block(-1)
        while True:
            head = await self.block()
            if head > last:
                last = head
                yield head
            await anyio.sleep(0.02)

    async def metagraph(self) -> Metagraph:
        return Metagraph(4, await self.block(), self._neurons)


class EndlessSupply:
    """Passages without end."""

    def __init__(self) -> None:
        self._number = 0

    def manifest(self) -> Digest:
        return Digest("cd" * 32)

    def take(self, count: int) -> Sequence[Passage]:
        numbers = range(self._number, self._number + count)
        self._number += count
        return [Passage(WORDS.format(number), f"tides at {number}", number) for number in numbers]


async def _serve(folder: Path, verifiers: int, places: int) -> None:
    settings = OracleSettings(folder=folder / "oracle", port=0, places=places)
    chain = SteppedChain(folder / "block", verifiers)
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    sys.setswitchinterval(SWITCH_S)
    command = (sys.executable, "-m", "benchmarks.oracle", "--write")
    opening = Opening(source="tides", folder=str(folder / "oracle"))
    async with WriterBeside(opening, command=command) as writer, anyio.create_task_group() as tasks:
        oracle = Oracle(writer=writer, source="tides", chain=chain, signer=ORACLE, settings=settings)  # type: ignore[arg-type]
        axon = await tasks.start(oracle.run)
        with seldom_searched():
            sys.stdout.write(f"{axon.port}\n")
            sys.stdout.flush()
            await anyio.sleep_forever()


@dataclass
class Caller:
    """One verifier, with a connection of its own from an address of its own."""

    pair: Keypair
    stream: ByteStream
    port: int

    async def ask(self, place: int, block: int | None = None) -> int:
        """Ask for a place; returns the answer's status."""
        target = f"/v1/private-input?place={place}" + ("" if block is None else f"&block={block}")
        headers = sign(
            self.pair,
            method="GET",
            target=target,
            body=b"",
            receiver=Hotkey(ORACLE.ss58_address),
            nonce_ns=time.time_ns(),
        )
        lines = [f"GET {target} HTTP/1.1", f"Host: 127.0.0.1:{self.port}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        await self.stream.send(("\r\n".join(lines) + "\r\n\r\n").encode())
        data = await self.stream.receive()
        while b"\r\n\r\n" not in data:
            data += await self.stream.receive()
        top, _, body = data.partition(b"\r\n\r\n")
        length = int(top.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        while len(body) < length:
            body += await self.stream.receive()
        return int(top[9:12])


@dataclass
class Measured:
    """An oracle that is measured."""

    folder: Path
    pid: int
    callers: list[Caller]
    block: int = 100

    def step(self) -> None:
        """Go to the next block."""
        self.block += 1
        written = self.folder / "block.new"
        written.write_text(str(self.block))
        written.replace(self.folder / "block")

    async def committed(self, number: int) -> CommitmentBody:
        """A commitment, once it is made."""
        file = self.folder / "oracle" / "commitments.jsonl"
        while True:
            lines = file.read_bytes().split(b"\n") if file.exists() else []
            if len(lines) > number + 1:
                return Commitment.from_bytes(lines[number]).body
            await anyio.sleep(0.2)

    def cpu_s(self) -> float:
        """Seconds of processor that the oracle has had."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mb(self) -> tuple[float, float]:
        """The most memory that it has had, and that the process which writes its periods has had."""
        writer = int(Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()[0])
        return _most_mb(self.pid), _most_mb(writer)


def _most_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


@asynccontextmanager
async def a_measured_oracle(verifiers: int, places: int) -> AsyncIterator[Measured]:
    with tempfile.TemporaryDirectory(prefix="targon-oracle-") as name:
        folder = Path(name)
        (folder / "block").write_text("100")
        command = [sys.executable, "-m", "benchmarks.oracle", str(folder), str(verifiers), str(places)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:  # noqa: ASYNC220
            try:
                assert process.stdout is not None
                port = int(await anyio.to_thread.run_sync(process.stdout.readline))
                callers = []
                for number, pair in enumerate(keys(verifiers)):
                    ours = f"127.{1 + number // 250}.{number % 250}.1"
                    stream = await anyio.connect_tcp("127.0.0.1", port, local_host=ours)
                    callers.append(Caller(pair, stream, port))
                measured = Measured(folder, process.pid, callers)
                first = (await measured.committed(0)).first
                while measured.block < first:
                    measured.step()
                    await anyio.sleep(0.2)
                await measured.committed(1)  # it is made while the first one is served
                yield measured
            finally:
                process.kill()


async def _measure(requests: int, poisson_s: float) -> list[Row]:
    with anyio.fail_after(LIMIT_S):
        async with a_measured_oracle(VERIFIERS, PLACES) as oracle:
            rows = await _bursts(oracle)
            rows.append(await _closed_loop(oracle, requests))
            rows.append(await _poisson(oracle, poisson_s))
            rows.append(await _poisson_beside(oracle))
            rows.append(_memory(oracle, VERIFIERS, PLACES))
        async with a_measured_oracle(*SUBNET) as oracle:
            rows.append(_memory(oracle, *SUBNET))
    return rows


def _memory(oracle: Measured, verifiers: int, places: int) -> Row:
    served, writes = oracle.memory_mb()
    note = f"{served:.0f} where it serves, {writes:.0f} where periods are written: the most that each had"
    name = f"an oracle's memory, {verifiers:,} verifiers with {places} places"
    return Row(name, served + writes, "MB", target="<= 300 MB", note=note)


async def _turned(oracle: Measured) -> None:
    """Go on to the next block, and wait until it is served."""
    oracle.step()
    assert await oracle.callers[0].ask(0, oracle.block) == 200


async def _closed_loop(oracle: Measured, requests: int) -> Row:
    asked, refused = 0, 0
    cpu_s = wall_s = 0.0
    while asked < requests:
        await _turned(oracle)
        count = min(VERIFIERS * PLACES - PLACES, requests - asked)
        places = iter([(caller, place) for place in range(PLACES) for caller in oracle.callers[1:]][:count])
        began_cpu_s, began_s = oracle.cpu_s(), time.perf_counter()

        async def loop(places: Iterator[tuple[Caller, int]] = places) -> None:
            nonlocal asked, refused
            for caller, place in places:
                asked += 1
                refused += await caller.ask(place, oracle.block) != 200

        async with anyio.create_task_group() as tasks:
            for _ in range(AT_ONCE):
                tasks.start_soon(loop)
        cpu_s += oracle.cpu_s() - began_cpu_s
        wall_s += time.perf_counter() - began_s
    by_clock = f"{asked / wall_s:,.0f} /s by the clock, callers beside it"
    note = f"{asked:,} asked, {AT_ONCE} at once, {refused} refused; {by_clock}"
    return Row(
        "private inputs, for each second of processor", asked / cpu_s, "/s", target=">= 2000 /s", note=note
    )


async def _poisson(oracle: Measured, seconds: float) -> Row:
    end_s = time.perf_counter() + seconds
    arrived = await _arrivals(oracle, lambda: time.perf_counter() < end_s)
    return arrived.row("private inputs at 1,000/s Poisson, 99th percentile")


async def _poisson_beside(oracle: Measured) -> Row:
    """The same while the next period is prepared, and no longer."""
    last = (await oracle.committed(1)).last
    while oracle.block < last - DUE_BLOCKS:
        await _turned(oracle)
    book = oracle.folder / "oracle" / "commitments.jsonl"
    before = book.stat().st_size
    arrived = await _arrivals(oracle, lambda: book.stat().st_size == before)
    return arrived.row("the same while a period is prepared")


@dataclass
class Arrived:
    """Requests that came as they come, and what became of them."""

    times_s: list[float]
    refused: int

    def row(self, name: str) -> Row:
        times = sorted(self.times_s)
        at = {share: times[math.ceil(share * len(times)) - 1] * 1e3 for share in (0.5, 0.99)}
        note = f"{len(times):,} asked, {self.refused} refused; median {at[0.5]:.1f} ms; callers share the machine"
        return Row(name, at[0.99], "ms", target="<= 20 ms", note=note)


async def _arrivals(oracle: Measured, on: Callable[[], bool]) -> Arrived:
    """As they come, whatever is still unanswered: the time from when each was due to its answer."""
    draw = random.Random(1)
    arrived = Arrived([], 0)
    free = list(range(1, VERIFIERS))

    async def ask(due_s: float, place: int) -> None:
        while not free:  # no connection is: it waits for one, as a caller would
            await anyio.sleep(0.001)
        number = free.pop(0)
        try:
            arrived.refused += await oracle.callers[number].ask(place) != 200
        finally:
            free.append(number)
        arrived.times_s.append(time.perf_counter() - due_s)

    due_s = time.perf_counter()
    asked = 0
    async with anyio.create_task_group() as tasks:
        while on():
            due_s += draw.expovariate(POISSON_PER_S)
            if (wait_s := due_s - time.perf_counter()) > 0:
                await anyio.sleep(wait_s)
            tasks.start_soon(ask, due_s, asked // (VERIFIERS - 1) % PLACES)
            asked += 1
            if asked % (VERIFIERS * PLACES) == 0:
                oracle.step()
    return arrived


async def _bursts(oracle: Measured) -> list[Row]:
    """Everybody asks when a block comes: from the block to the last answer."""
    within: list[float] = []
    first = 0.0
    refused = 0
    begins = (await oracle.committed(1)).first
    while oracle.block < begins:
        statuses: list[int] = []

        async def ask(caller: Caller, statuses: list[int] = statuses) -> None:
            statuses.append(await caller.ask(0, oracle.block))

        await anyio.sleep(0.5)
        oracle.step()
        began_s = time.perf_counter()
        async with anyio.create_task_group() as tasks:
            for caller in oracle.callers:
                tasks.start_soon(ask, caller)
        took_s = time.perf_counter() - began_s
        refused += sum(status != 200 for status in statuses)
        if oracle.block == begins:
            first = took_s
        else:
            within.append(took_s)
    target = "<= 0.7 s"
    asked = VERIFIERS * (len(within) + 1)
    note = f"1,000 verifiers at once, {refused} refused of {asked:,}; the worst of {len(within)} blocks"
    dealt = f"the same; {VERIFIERS * PLACES * 36:,} leaves are dealt first"
    return [
        Row("a burst of 1,000 at a block", max(within), "s", target=target, note=note),
        Row("a burst of 1,000 at a period's first block", first, "s", target=target, note=dealt),
    ]


if __name__ == "__main__":
    if sys.argv[1] == "--write":
        sys.exit(serve(lambda _: Opened(EndlessSupply())))
    folder, verifiers, places = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    anyio.run(_serve, folder, verifiers, places, backend_options={"use_uvloop": True})
