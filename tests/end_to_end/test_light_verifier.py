"""A light verifier as a process of its own: no model, no torch, 256 MB, and two oracles whose engine it borrows."""

from __future__ import annotations

import logging
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from targon.cli import main
from targon.cli.keys import open_hotkey
from targon.cli.options import WalletOptions
from targon.engines import serve_engine
from targon.ledger import ReliesOn, Verdict
from targon.verification import save_calibration
from tests.neuron_processes import Network, free_port, passes
from tests.verifier.conftest import CALIBRATION
from tests.verifier.lending import WordyEngine

pytestmark = pytest.mark.anyio

MOST_BYTES = 256 << 20


@pytest.fixture
async def tiny_socket(tmp_path: Path) -> AsyncIterator[Path]:
    """An engine of letters in this process, for the processes of others."""
    path = tmp_path / "engine" / "engine.sock"
    async with serve_engine(WordyEngine(), path):
        yield path


def made(network: Network, name: str) -> str:
    """A wallet that is registered nowhere; its hotkey."""
    folder = network.folder / "wallets"
    assert main(["wallet", "create", "--wallet.name", name, "--wallet.path", str(folder)]) == 0
    return str(open_hotkey(WalletOptions(name=name, path=folder)).ss58_address)


def most_resident(process: subprocess.Popen[bytes]) -> int:
    """The most bytes that a process ever had in memory."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def has_loaded(process: subprocess.Popen[bytes], library: str) -> bool:
    return library in Path(f"/proc/{process.pid}/maps").read_text()


def kept(folder: Path) -> bool:
    """Whether what oracles said was kept."""
    return (folder / "verifier" / "told.jsonl").stat().st_size > 0


async def test_a_verifier_without_an_engine_judges_by_what_oracles_say_in_little_memory(
    tmp_path: Path, tiny_socket: Path
) -> None:
    network = Network(tmp_path, [])
    network.enrol("verifier", stake=10_000.0)
    network.enrol("prover")
    hotkeys = [made(network, "oracle-0"), made(network, "oracle-1")]
    ports = [free_port(), free_port()]
    calibration = save_calibration(CALIBRATION, tmp_path)
    by_socket = ["--engine.socket", str(tiny_socket)]

    def oracle(number: int):  # type: ignore[no-untyped-def]
        place = ("--axon.port", str(ports[number]), "--data.path", str(tmp_path / f"oracle-{number}"))
        return network.running("oracle", f"oracle-{number}", *place, engine=by_socket)

    light = (
        *("--neuron.light", "--oracle.url", ",".join(f"http://127.0.0.1:{port}" for port in ports)),
        *("--oracle.hotkey", ",".join(hotkeys), "--calibration.path", str(calibration)),
    )
    with (
        oracle(0),
        oracle(1),
        network.prover("prover", free_port(), engine=by_socket),
        network.verifier(*light) as it,
    ):
        events = await network.wait_for(lambda events: passes(events).total() >= 2, "two passes")
        most = most_resident(it)
        assert most < MOST_BYTES
        assert not has_loaded(it, "libtorch")
    relied = [event for event in events if isinstance(event, ReliesOn) and event.reference]
    assert relied[0].reference == tuple(hotkeys)
    assert relied[0].agreeing == 2
    judged = [event for event in events if isinstance(event, Verdict) and event.method == "divergence"]
    assert {event.evidence["borrowed"] for event in judged} == {"2 of 2"}
    assert kept(tmp_path)


async def test_with_the_default_models_tokenizer_from_three_oracles_it_stays_as_small(
    tmp_path: Path, engine_socket: Path
) -> None:
    by_socket = ["--engine.socket", str(engine_socket)]
    network = Network(tmp_path, by_socket)
    network.enrol("verifier", stake=10_000.0)
    network.enrol("prover")
    oracles = [made(network, f"oracle-{number}") for number in range(3)]
    ports = [free_port() for _ in oracles]
    light = (
        *("--neuron.light", "--oracle.url", ",".join(f"http://127.0.0.1:{port}" for port in ports)),
        *("--oracle.hotkey", ",".join(oracles)),
    )
    with ExitStack() as running:
        for number, port in enumerate(ports):
            place = ("--axon.port", str(port), "--data.path", str(tmp_path / f"oracle-{number}"))
            running.enter_context(network.running("oracle", f"oracle-{number}", *place))
        running.enter_context(network.prover("prover", free_port()))
        it = running.enter_context(network.verifier(*light, engine=()))
        await network.wait_for(lambda events: passes(events).total() >= 2, "two passes")
        most = most_resident(it)
        assert has_loaded(it, "tokenizers")  # else it was handed none, and this shows nothing
        assert most < MOST_BYTES, f"got {most >> 20} MiB"
        for library in ("libtorch", "transformers", "pyarrow"):
            assert not has_loaded(it, library), library
        logging.getLogger(__name__).info("a light verifier had at most %d MiB", most >> 20)
