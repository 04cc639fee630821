"""The process that writes periods: what it writes, how it fails, and that it never outlives its oracle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from targon.oracle.beside import WriterBeside
from targon.oracle.errors import WriterEnded, WriterFailed
from targon.oracle.periods import PeriodFolder
from targon.oracle.ports import PeriodWriter
from targon.oracle.process import Opening
from targon.protocol.primitives import Block, Digest, Hotkey
from targon.protocol.private_inputs import CommitmentBody, secret_digest
from tests.oracle.service_world import ALICE, ORACLE, HereWriter, ToldSupply, key

pytestmark = pytest.mark.anyio

SECRET = bytes(range(32))
SOON_S = 20.0


def a_command(then: str) -> tuple[str, ...]:
    """Starts a process whose supply is a test's, and does something else before it serves."""
    return (
        sys.executable,
        "-c",
        "import os, signal, sys, time\n"
        "from targon.oracle.process import Opened, serve\n"
        "from tests.oracle.service_world import ToldSupply\n"
        f"supply = ToldSupply()\n{then}\n"
        "sys.exit(serve(lambda _: Opened(supply)))",
    )


def an_opening(folder: Path, source: str = "told") -> Opening:
    return Opening(source=source, folder=str(folder))


@asynccontextmanager
async def a_writer(kind: str, folder: Path) -> AsyncIterator[PeriodWriter]:
    if kind == "here":
        yield HereWriter(ToldSupply(), folder)
        return
    async with WriterBeside(an_opening(folder), command=a_command("")) as writer:
        yield writer


def a_body(root: Digest, source: Digest, blocks: int, number: int = 0) -> CommitmentBody:
    return CommitmentBody(
        genesis="ab" * 32,
        netuid=4,
        oracle=key(ORACLE),
        number=number,
        first=Block(100),
        last=Block(99 + blocks),
        verifiers=(Hotkey(key(ALICE)),),
        places=2,
        root=root,
        secret=secret_digest(SECRET),
        source=source,
        previous="0" * 64,
    )


def texts(folder: Path, number: int) -> list[bytes]:
    return (folder / "periods" / f"{number}.jsonl").read_bytes().splitlines()


@pytest.mark.parametrize("kind", ["here", "beside"])
async def test_what_is_written_is_what_was_held_and_what_was_used_is_in_no_other(
    kind: str, tmp_path: Path
) -> None:
    async with a_writer(kind, tmp_path) as writer:
        filled = await writer.fill(10)
        assert (filled.held, filled.taken) == (10, 10)
        written = await writer.write(0, SECRET, 6)
        PeriodFolder(tmp_path / "periods").settle(a_body(written.root, written.source, 3))
        again = await writer.write(0, SECRET, 4)
        PeriodFolder(tmp_path / "periods").settle(a_body(again.root, again.source, 2))
        first = texts(tmp_path, 0)
        await writer.used(4)
        filled = await writer.fill(8)
        assert (filled.held, filled.taken) == (8, 2)
        await writer.write(1, SECRET, 8)
        assert len(first) == 4
        assert not set(first) & set(texts(tmp_path, 1))


async def test_it_draws_from_a_source_by_its_name_and_counts(tmp_path: Path) -> None:
    async with WriterBeside(an_opening(tmp_path, "embedded")) as writer:
        filled = await writer.fill(20)
        assert filled.held == 20
        written = await writer.write(0, SECRET, 20)
        PeriodFolder(tmp_path / "periods").settle(a_body(written.root, written.source, 10))
        assert writer.refused["duplicate"] >= 0
        with pytest.raises(WriterFailed, match="takes passages by it"):
            await WriterBeside(an_opening(tmp_path, "embedded")).__aenter__()


async def test_a_source_that_can_not_be_opened_is_said_in_its_own_words(tmp_path: Path) -> None:
    with pytest.raises(WriterFailed, match="no such file or folder"):
        await WriterBeside(an_opening(tmp_path, "redpajama:/nowhere")).__aenter__()


@pytest.mark.parametrize(
    ("then", "said"),
    [
        ("supply.error = ValueError('a strange file')", "ValueError: a strange file"),
        ("supply.left = 0", None),
        ("supply.manifest = lambda: print('of a library') or 'cd' * 32", None),
    ],
)
async def test_whatever_a_source_does_it_goes_on(tmp_path: Path, then: str, said: str | None) -> None:
    async with WriterBeside(an_opening(tmp_path), command=a_command(then)) as writer:
        if said is not None:
            with pytest.raises(WriterFailed, match=said):
                await writer.fill(5)
            with pytest.raises(WriterFailed, match=said):
                await writer.fill(5)
            return
        held = (await writer.fill(5)).held
        assert held in (0, 5)
        if held:
            assert (await writer.write(0, SECRET, 5)).source == "cd" * 32
        else:
            with pytest.raises(WriterFailed, match="expected 1 to 0"):
                await writer.write(0, SECRET, 5)


async def test_one_that_was_killed_is_started_again_and_holds_nothing(tmp_path: Path) -> None:
    async with WriterBeside(an_opening(tmp_path), command=a_command("")) as writer:
        await writer.fill(5)
        os.kill(child_of(os.getpid()), signal.SIGKILL)
        said = []
        with anyio.fail_after(SOON_S):
            while True:
                try:
                    held = (await writer.fill(3)).held
                except WriterEnded as error:
                    said.append(str(error))
                else:
                    break
        assert held == 3
        assert all("code -9" in each for each in said)
        await writer.used(3)


async def test_one_that_hangs_is_ended_and_said(tmp_path: Path) -> None:
    hangs = "supply.take = lambda _: time.sleep(600)"
    writer = WriterBeside(an_opening(tmp_path), command=a_command(hangs), stall_s=0.5)
    async with writer:
        with pytest.raises(WriterEnded, match="no sign of life"):
            await writer.fill(5)
        assert child_of(os.getpid()) == 0


async def test_what_is_no_answer_is_said(tmp_path: Path) -> None:
    command = (sys.executable, "-c", "input(); print('{\"held\": -1}', flush=True); input()")
    with pytest.raises(WriterEnded, match="what is no answer"):
        await WriterBeside(an_opening(tmp_path), command=command).__aenter__()


async def test_who_is_cancelled_leaves_no_process_behind(tmp_path: Path) -> None:
    hangs = "supply.take = lambda _: time.sleep(600)"
    async with WriterBeside(an_opening(tmp_path), command=a_command(hangs)) as writer:
        with anyio.move_on_after(0.3):
            await writer.fill(5)
        assert child_of(os.getpid()) == 0


def test_it_ends_with_the_oracle_however_that_ends(tmp_path: Path) -> None:
    oracle = subprocess.Popen(
        [
            *(sys.executable, "-c"),
            "import anyio, pathlib, sys\n"
            "from tests.oracle.test_beside import WriterBeside, a_command, an_opening\n"
            "async def main():\n"
            "    hangs = 'supply.take = lambda _: time.sleep(600)'\n"
            "    opening = an_opening(pathlib.Path(sys.argv[1]))\n"
            "    async with WriterBeside(opening, command=a_command(hangs)) as writer:\n"
            "        print('runs', flush=True)\n"
            "        await writer.fill(5)\n"
            "anyio.run(main)",
            str(tmp_path),
        ],
        stdout=subprocess.PIPE,
    )
    assert oracle.stdout is not None
    assert oracle.stdout.readline() == b"runs\n"
    child = child_of(oracle.pid)
    oracle.send_signal(signal.SIGKILL)
    oracle.wait()
    oracle.stdout.close()
    deadline = time.monotonic() + SOON_S
    while Path(f"/proc/{child}").exists() and state_of(child) != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.1)


def state_of(process: int) -> str:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]


def child_of(process: int) -> int:
    """The newest child that runs; 0: there is none."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    running = [int(each) for each in children if state_of(int(each)) != "Z" and "-c" in told(int(each))]
    return max(running, default=0)


def told(process: int) -> list[str]:
    return Path(f"/proc/{process}/cmdline").read_text().split("\0")
