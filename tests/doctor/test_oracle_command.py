"""``targon doctor oracle``, and what ``targon doctor verifier`` says of an oracle, beside one that runs."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from targon.cli import main
from targon.cli.keys import open_hotkey
from targon.cli.options import WalletOptions
from tests.doctor.test_command import doctor, examined, flags, outcomes
from tests.neuron_processes import Network, free_port

pytestmark = pytest.mark.anyio

START_S = 240.0


class OracleWorld(Network):
    """A network with a verifier that has a permit, and an oracle's wallet without a UID."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, [])
        self.enrol("verifier", stake=100.0)
        wallet = ("--wallet.name", "oracle", "--wallet.path", str(folder / "wallets"))
        assert main(["wallet", "create", *wallet]) == 0
        self.hotkey = str(open_hotkey(WalletOptions(name="oracle", path=folder / "wallets")).ss58_address)
        self.port = free_port()
        self.own = (
            *("--axon.port", str(self.port), "--data.path", str(folder / "oracle")),
            *("--oracle.period", "12", "--oracle.places", "2"),
        )

    def verifier_flags(self, hotkey: str) -> list[str]:
        ports = ("--axon.port", str(free_port()), "--gateway.port", str(free_port()))
        data = ("--data.path", str(self.folder / "verifier"))
        oracle = ("--oracle.url", f"http://127.0.0.1:{self.port}", "--oracle.hotkey", hotkey)
        return [*flags(self, "verifier"), *ports, *data, *oracle]


async def test_an_oracle_s_machine_with_all_that_it_needs_is_well(tmp_path: Path) -> None:
    network = OracleWorld(tmp_path)
    metrics = ("--metrics.port", str(free_port()))
    given = ("oracle", *flags(network, "oracle"), *network.own, *metrics)
    code, rows = await examined(*given)
    assert (await doctor(*given))[1].startswith("What an oracle needs")
    assert (code, outcomes(rows, "bad"), outcomes(rows, "note")) == (0, set(), {"clock"})
    assert {
        "source",
        "permits",
        "address",
        "lock",
        "commitments",
        "data folder",
        "metrics port",
    } <= rows.keys()
    assert not {"registration", "engine", "address on chain", "periods"} & rows.keys()
    assert not (tmp_path / "oracle").exists()


async def test_what_an_oracle_lacks_is_named(tmp_path: Path) -> None:
    network = OracleWorld(tmp_path)
    (tmp_path / "oracle").touch()
    given = (
        "--oracle.source",
        f"redpajama:{tmp_path / 'nowhere'}",
        "--engine.socket",
        str(tmp_path / "none"),
    )
    code, rows = await examined("oracle", *flags(network, "oracle"), *network.own, *given)
    assert (code, outcomes(rows, "bad")) == (1, {"source", "data folder", "engine"})


async def test_an_oracle_that_runs_is_found_by_its_own_doctor_and_by_its_verifiers(tmp_path: Path) -> None:
    network = OracleWorld(tmp_path)
    given = ("oracle", *flags(network, "oracle"), *network.own)
    with network.running("oracle", "oracle", *network.own, engine=()):
        with anyio.fail_after(START_S):
            while "periods" not in (await examined(*given))[1]:
                await anyio.sleep(0.2)
        code, own = await examined(*given)
        twin = ("--axon.port", str(free_port()))
        twin_code, second = await examined(*given, *twin)
        _, named = await examined("verifier", *network.verifier_flags(network.hotkey))
        _, mistaken = await examined(
            "verifier", *network.verifier_flags(network.enrol("another")), "--neuron.light"
        )
        reached = await doctor("reach", "127.0.0.1", str(network.port), network.hotkey)
    _, gone = await examined("verifier", *network.verifier_flags(network.hotkey))

    assert (code, outcomes(own, "bad")) == (0, set())
    assert "this hotkey's own oracle runs" in own["port"][0]["found"]
    assert own["lock"][0]["found"].startswith("the oracle that runs works with it: process")
    assert own["periods"][0]["outcome"] == "good"
    assert (twin_code, outcomes(second, "bad")) == (1, {"lock"})

    assert named["oracles"][0]["outcome"] in ("good", "note")  # between two periods, one may be due
    assert (
        "draws from embedded" in named["oracles"][0]["found"]
        or "nothing after" in named["oracles"][0]["found"]
    )
    assert mistaken["oracles"][0]["outcome"] == "bad"
    assert f"it says that it is {network.hotkey}" in mistaken["oracles"][0]["found"]
    assert "--oracle.hotkey" in mistaken["oracles"][0]["advice"]
    assert (reached[0], "it gives private inputs from embedded" in reached[1]) == (0, True)
    assert gone["oracles"][0]["outcome"] == "bad"
