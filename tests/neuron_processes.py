"""Provers and verifiers as processes of their own on one chain file: ``targon prover``, ``targon verifier``."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import anyio

from targon.chain import ChainSettings, EmbeddedChain
from targon.cli import main
from targon.cli.keys import open_hotkey
from targon.cli.options import WalletOptions
from targon.ledger import Answered, Attempt, Event, SqliteLog, Standings, Verdict, Withdrawn, replay

WAIT_S = 240.0

_given: set[int] = set()
"""Ports that somebody in this process was given."""


class Network:
    """One chain file, and the processes on it.

    Args:
        engine: flags that name the engine of every process, unless it is given others.
        chain: the chain's settings; None: blocks of a second, and epochs of five.
    """

    def __init__(self, folder: Path, engine: Sequence[str], chain: ChainSettings | None = None) -> None:
        self.folder = folder
        self.engine = engine
        self.chain = folder / "chain.sqlite"
        self.log = folder / "verifier" / "log.sqlite"
        if chain is not None:
            anyio.run(EmbeddedChain.create(self.chain, chain).aclose)
            return
        assert main(["chain", "create", str(self.chain), "--block_seconds", "1", "--tempo", "5"]) == 0

    def enrol(self, name: str, stake: float = 0.0) -> str:
        """Make a wallet, and register its hotkey, which is returned."""
        wallet = ["--wallet.name", name, "--wallet.path", str(self.folder / "wallets")]
        assert main(["wallet", "create", *wallet]) == 0
        assert main(["chain", "register", str(self.chain), *wallet, "--stake", str(stake)]) == 0
        return str(open_hotkey(WalletOptions(name=name, path=self.folder / "wallets")).ss58_address)

    @contextmanager
    def running(
        self, role: str, name: str, *flags: str, engine: Sequence[str] | None = None
    ) -> Iterator[subprocess.Popen[bytes]]:
        if role == "verifier" and not any(flag.startswith("--gateway.") for flag in flags):
            flags = (*flags, "--gateway.port", str(free_port()))
        neuron = (
            *("--subtensor.chain_endpoint", f"sqlite://{self.chain}"),
            *("--wallet.name", name, "--wallet.path", str(self.folder / "wallets")),
            *(self.engine if engine is None else engine),
        )
        with self.process(role, name, *neuron, *flags) as process:
            yield process

    @contextmanager
    def process(self, command_name: str, name: str, *flags: str) -> Iterator[subprocess.Popen[bytes]]:
        """Any command of ``targon`` that runs for long; what it says is in the file ``NAME.out``."""
        command = [sys.executable, "-m", "targon.cli", command_name, *flags]
        with (self.folder / f"{name}.out").open("ab") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def prover(
        self, name: str, port: int, *more: str, engine: Sequence[str] | None = None
    ) -> AbstractContextManager[subprocess.Popen[bytes]]:
        return self.running("prover", name, "--axon.port", str(port), *more, engine=engine)

    def verifier(
        self, *more: str, engine: Sequence[str] | None = None
    ) -> AbstractContextManager[subprocess.Popen[bytes]]:
        flags = (
            *("--data.path", str(self.folder / "verifier")),
            *("--axon.port", str(free_port())),
            *("--profile", "demo"),
            *("--neuron.max_tokens", "32"),
        )
        return self.running("verifier", "verifier", *flags, *more, engine=engine)

    async def events(self) -> list[Event]:
        if not self.log.exists():
            return []
        log = await SqliteLog.open(self.log, read_only=True)
        try:
            return [record.event async for record in log.read()]
        finally:
            await log.aclose()

    async def standings(self) -> Standings:
        log = await SqliteLog.open(self.log, read_only=True)
        try:
            return await replay(log)
        finally:
            await log.aclose()

    async def wait_for(
        self, enough: Callable[[list[Event]], bool], what: str, within_s: float = WAIT_S
    ) -> list[Event]:
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            events = await self.events()
            if enough(events):
                return events
            await anyio.sleep(0.1)
        told = "\n".join(path.read_text()[-2000:] for path in self.folder.glob("*.out"))
        raise AssertionError(f"no {what} within {within_s:g} s; the processes said:\n{told}")


def free_port() -> int:
    """A port of loopback that nobody listens at, and that nobody else was given: of two dozen that the system draws by
    itself, two are the same once in sixty times."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port not in _given:
            _given.add(port)
            return port


def open_attempts(events: list[Event]) -> set[int]:
    """Those that nothing came of yet; an answer that awaits the verdict of its audit is something."""
    attempts = {place for place, event in enumerate(events) if isinstance(event, Attempt)}
    return attempts - {event.attempt for event in events if isinstance(event, Verdict | Answered | Withdrawn)}


def passes(events: list[Event]) -> Counter[str]:
    return Counter(
        events[event.attempt].prover  # type: ignore[union-attr]
        for event in events
        if isinstance(event, Verdict) and event.outcome == "pass"
    )
