"""An oracle and three verifiers as processes of their own, on one chain: through periods, kills and an outage; and an
oracle that has two folders, and so tells some verifiers one thing and others another.

Its provers answer nobody: what is looked at here is where challenges come from.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, aclosing, contextmanager
from itertools import product
from pathlib import Path
from subprocess import Popen
from typing import Any

import anyio
import pytest
from bittensor.keyfiles import Keypair

from targon.audit import Exporter
from targon.chain import Axon, EmbeddedChain
from targon.cli import main
from targon.cli.keys import open_hotkey
from targon.cli.options import WalletOptions
from targon.ledger import (
    Event,
    InputsCommitted,
    IntervalOpened,
    LogOpened,
    OracleFaulted,
    ReliesOn,
    SqliteLog,
)
from targon.protocol.primitives import Hotkey
from targon.protocol.private_inputs import Commitment, CommitmentBody, check_commitment, contradict
from tests.neuron_processes import WAIT_S, Network, free_port

pytestmark = pytest.mark.anyio

VERIFIERS = ("first", "second", "third")
FOLDERS = ("oracle", "another-folder")
"""An honest oracle has one."""


class OracleNetwork(Network):
    """A network with an oracle and three verifiers. The oracle's folders have a port each."""

    def __init__(self, folder: Path, engine_socket: Path) -> None:
        super().__init__(folder, ["--engine.socket", str(engine_socket)])
        for name in VERIFIERS:
            self.enrol(name, stake=10_000.0)
        assert (
            main(["wallet", "create", "--wallet.name", "oracle", "--wallet.path", str(folder / "wallets")])
            == 0
        )
        self.hotkey = Hotkey(self.wallet("oracle").ss58_address)
        self.ports = {folder: free_port() for folder in FOLDERS}

    def wallet(self, name: str) -> Keypair:
        return open_hotkey(WalletOptions(name=name, path=self.folder / "wallets"))

    async def silent_prover(self, name: str) -> None:
        """A prover that is announced where nobody listens."""
        self.enrol(name)
        async with aclosing(EmbeddedChain.open(self.chain)) as chain:
            await chain.serve_axon(self.wallet(name), Axon("127.0.0.1", 9))

    def url(self, folder: str = FOLDERS[0]) -> str:
        return f"http://127.0.0.1:{self.ports[folder]}"

    def oracle(self, folder: str = FOLDERS[0]) -> AbstractContextManager[Popen[bytes]]:
        flags = (
            *("--axon.port", str(self.ports[folder])),
            *("--data.path", str(self.folder / folder)),
            *("--oracle.period", "12", "--oracle.places", "4"),
        )
        return self.running("oracle", "oracle", *flags, engine=())

    def one_verifier(self, name: str, folder: str = FOLDERS[0]) -> AbstractContextManager[Popen[bytes]]:
        """A verifier that is told where the oracle with a folder serves."""
        flags = (
            *("--data.path", str(self.folder / name)),
            *("--axon.port", str(free_port())),
            *("--profile", "demo"),
            *("--neuron.sample_size", "2"),
            *("--oracle.url", self.url(folder), "--oracle.hotkey", self.hotkey),
        )
        return self.running("verifier", name, *flags)

    async def log_of(self, name: str) -> list[Event]:
        path = self.folder / name / "log.sqlite"
        if not path.exists():
            return []
        async with aclosing(await SqliteLog.open(path, read_only=True)) as log:
            return [record.event async for record in log.read()]

    async def until(self, enough: Callable[[list[Event]], bool], what: str, *names: str) -> None:
        """Wait until the logs of verifiers hold enough."""
        for name in names or VERIFIERS:
            await self.until_together(enough, what, name)

    async def until_together(self, enough: Callable[..., bool], what: str, *names: str) -> None:
        """Wait until the logs of verifiers together hold enough."""
        with anyio.move_on_after(WAIT_S):
            while not enough(*[await self.log_of(name) for name in names]):
                await anyio.sleep(0.2)
            return
        told = "\n".join(f"{path.name}: {path.read_text()[-3000:]}" for path in self.folder.glob("*.out"))
        raise AssertionError(f"no {what} within {WAIT_S:g} s; the processes said:\n{told}")

    async def publish(self, name: str, to: str = "segments") -> Path:
        """A verifier's log as far as it can be published: up to where the running interval was opened."""
        folder = self.folder / f"{name}-{to}"
        async with aclosing(await SqliteLog.open(self.folder / name / "log.sqlite", read_only=True)) as log:
            opened = (await self.log_of(name))[0]
            assert isinstance(opened, LogOpened)
            await Exporter(folder, log, self.wallet(name)).export(opened, (await log.head()).seq + 1)
        return folder


def sources(events: list[Event]) -> list[tuple[Hotkey, ...]]:
    return [event.inputs for event in events if isinstance(event, ReliesOn)]


def published(events: list[Event]) -> list[Event]:
    """What :meth:`OracleNetwork.publish` publishes of a log."""
    opened = [place for place, event in enumerate(events) if isinstance(event, IntervalOpened)]
    return events[: opened[-1]] if opened else []


def bodies(events: list[Event]) -> list[CommitmentBody]:
    return [event.commitment.body for event in events if isinstance(event, InputsCommitted)]


def told_otherwise(log: list[Event], *others: list[Event]) -> bool:
    """Whether what is published of each of the other logs contradicts what is published of this one."""
    one = bodies(published(log))
    return all(any(contradict(*pair) for pair in product(one, bodies(published(log)))) for log in others)


def in_time(events: list[Event]) -> dict[int, str]:
    """Root by number of each commitment that was seen before its period."""
    bodies = [(e.commitment.body, e.block) for e in events if isinstance(e, InputsCommitted)]
    return {body.number: body.root for body, seen in bodies if seen < body.first}


def caught(events: list[Event]) -> list[OracleFaulted]:
    return [event for event in events if isinstance(event, OracleFaulted)]


@contextmanager
def all_running(network: OracleNetwork) -> Iterator[dict[str, Popen[bytes]]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(network.one_verifier(name)) for name in VERIFIERS}


async def audited(
    capsys: pytest.CaptureFixture[str], folder: Path, *others: Path, more: Sequence[str] = ()
) -> tuple[int, dict[str, Any]]:
    """How ``targon audit`` ends, and what it reports."""
    also = [word for other in others for word in ("--also", str(other))]
    capsys.readouterr()
    code = await anyio.to_thread.run_sync(main, ["audit", str(folder), *also, *more, "--json"])
    report: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return code, report


async def test_three_verifiers_take_private_inputs_through_rotation_restart_and_outage(
    tmp_path: Path, engine_socket: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = OracleNetwork(tmp_path, engine_socket)
    await network.silent_prover("one")
    await network.silent_prover("two")
    with ExitStack() as stack:
        oracle = stack.enter_context(network.oracle())
        running = stack.enter_context(all_running(network))
        await network.until(lambda events: (network.hotkey,) in sources(events), "reliance on the oracle")
        running["third"].send_signal(signal.SIGKILL)
        await network.until(lambda events: len(in_time(events)) >= 3, "third period", "first", "second")
        oracle.send_signal(signal.SIGKILL)
        oracle.wait()
        stack.enter_context(network.one_verifier("third"))
        await network.until(lambda events: sources(events)[-1:] == [()], "fallback")
        stack.enter_context(network.oracle())
        await network.until(lambda events: sources(events)[-1:] == [(network.hotkey,)], "return")
        logs = [await network.log_of(name) for name in VERIFIERS]
        assert not [fault for log in logs for fault in caught(log)]
        together: dict[int, set[str]] = {}
        for log in logs:
            for number, root in in_time(log).items():
                together.setdefault(number, set()).add(root)
        assert len(together) >= 3
        assert all(len(roots) == 1 for roots in together.values())

        folders = [await network.publish(name) for name in VERIFIERS]
        reveals = ("--oracle", network.url(), "--reveals", "99")
        code, report = await audited(capsys, *folders, more=reveals)
    assert report["fault_counts"] == {}
    assert code == 0
    assert report["oracles"]["logs_compared"] == 2
    assert report["oracles"]["reveals_checked"] >= 1


async def test_an_oracle_with_two_folders_is_caught_by_the_logs_of_two_verifiers_and_by_one_that_sees_both(
    tmp_path: Path, engine_socket: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = OracleNetwork(tmp_path, engine_socket)
    await network.silent_prover("one")
    await network.silent_prover("two")
    told = dict(zip(VERIFIERS, (FOLDERS[0], FOLDERS[1], FOLDERS[1]), strict=True))
    with ExitStack() as stack:
        for folder in FOLDERS:
            stack.enter_context(network.oracle(folder))
        running = {
            name: stack.enter_context(network.one_verifier(name, folder)) for name, folder in told.items()
        }
        await network.until(lambda events: (network.hotkey,) in sources(events), "reliance on the oracle")
        await network.until_together(told_otherwise, "contradiction between logs", *VERIFIERS)
        first, second, third = [await network.publish(name) for name in VERIFIERS]

        running["first"].kill()
        running["first"].wait()
        stack.enter_context(network.one_verifier("first", FOLDERS[1]))
        await network.until(
            lambda events: bool(caught(published(events))) and sources(events)[-1:] == [()],
            "published fault, and fallback",
            "first",
        )
        (fault,) = caught(await network.log_of("first"))
        turned = await network.publish("first", "later-segments")
        assert not caught(await network.log_of("second"))

    assert (fault.oracle, fault.what) == (network.hotkey, "equivocated")
    for alone in (first, second, third):
        assert (await audited(capsys, alone))[0] == 0
    assert (await audited(capsys, second, third))[0] == 0  # they were told the same
    for folders in ((first, second, third), (turned,)):
        code, report = await audited(capsys, *folders)
        assert code == 1
        assert set(report["fault_counts"]) == {"oracle_equivocated"}
        assert {each["where"] for each in report["faults"]} == {f"oracle {network.hotkey}"}
        for proof in report["oracles"]["proofs"]:
            one, other = (Commitment.from_json(proof[each]) for each in ("one", "other"))
            check_commitment(one)
            check_commitment(other)
            assert contradict(one.body, other.body)
            assert one.body.oracle == network.hotkey
