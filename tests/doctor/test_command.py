"""``targon doctor`` as a process: what it prints, and how it ends."""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from bittensor.wallet import Wallet

from targon.chain import EmbeddedChain
from targon.cli import main
from targon.cli.commands.doctor import ChainOpener, oracle_needs, prover_needs, verifier_needs
from targon.cli.loading import load
from targon.cli.oracle_options import OracleOptions
from targon.cli.prover_options import ProverOptions
from targon.cli.verifier_options import VerifierOptions
from targon.doctor import (
    PASSWORD,
    AxonPlace,
    Common,
    EnginePlace,
    OracleNeeds,
    OraclePlace,
    OraclePlan,
    ProverNeeds,
    SqlitePlace,
    VerifierNeeds,
    WalletPlace,
    oracle_checks,
    prover_checks,
    verifier_checks,
)
from targon.doctor.redis import RedisPlace
from targon.engines import serve_engine
from targon.ledger import LogOpened
from targon.ledger.port import EMPTY
from targon.ledger.redis import RedisAddress, RedisLog
from targon.protocol.primitives import Hotkey
from targon.protocol.profile import STANDARD
from tests.doctor.looks import ANOTHER
from tests.ledger.damage import write
from tests.ledger.history import log_opened
from tests.ledger.redis_server import redis_server
from tests.neuron_processes import Network, free_port
from tests.prover.world import PROVER, a_prover
from tests.tiny_engine import TinyEngine

PAGE = Path(__file__).resolve().parents[2] / "docs" / "doctor.md"
RUN_S = 60.0
START_S = 180.0
NO_CHAIN = ("--subtensor.chain_endpoint", "sqlite:nowhere.sqlite")


async def doctor(*words: str, **environment: str) -> tuple[int, str]:
    """Its exit code, and what it printed."""
    with anyio.fail_after(RUN_S):
        done = await anyio.run_process(
            [sys.executable, "-m", "targon.cli", "doctor", *words],
            check=False,
            env={**os.environ, **environment},
        )
    return done.returncode, (done.stdout or done.stderr).decode()


async def examined(*words: str, **environment: str) -> tuple[int, dict[str, list[dict[str, str]]]]:
    """Its exit code, and its findings by check."""
    code, said = await doctor(*words, "--json", **environment)
    found: dict[str, Any] = json.loads(said)
    assert set(found) == {"role", "well", "findings"}
    assert (found["role"], found["well"]) == (words[0], code == 0)
    rows: dict[str, list[dict[str, str]]] = {}
    for row in found["findings"]:
        assert set(row) == {"check", "outcome", "found", "advice"}
        rows.setdefault(row["check"], []).append(row)
    return code, rows


async def examined_on_chain(port: int, *words: str) -> tuple[int, dict[str, list[dict[str, str]]]]:
    """The same of a role that is starting, once its address stands on chain: it has its port long before."""
    announced = f"127.0.0.1:{port} stands on chain"
    with anyio.fail_after(START_S):
        while True:
            _, rows = await examined(*words)
            if announced in [row["found"] for row in rows.get("address on chain", [])]:
                return await examined(*words)
            await anyio.sleep(0.2)


def outcomes(rows: dict[str, list[dict[str, str]]], outcome: str) -> set[str]:
    return {check for check, found in rows.items() if outcome in {row["outcome"] for row in found}}


def flags(network: Network, name: str) -> list[str]:
    return [
        *("--subtensor.chain_endpoint", f"sqlite://{network.chain}"),
        *("--wallet.name", name, "--wallet.path", str(network.folder / "wallets")),
    ]


@pytest.mark.anyio
async def test_a_prover_s_machine_with_all_that_it_needs_is_well(tmp_path: Path) -> None:
    network = Network(tmp_path, [])
    network.enrol("prover")
    async with serve_engine(TinyEngine(), tmp_path / "run" / "engine.sock"):
        engine = ("--engine.socket", str(tmp_path / "run" / "engine.sock"))
        ports = ("--axon.port", str(free_port()), "--metrics.port", str(free_port()))
        code, rows = await examined("prover", *flags(network, "prover"), *engine, *ports)
    assert (code, outcomes(rows, "bad"), outcomes(rows, "note")) == (0, set(), {"clock"})
    assert "metrics port" in rows


@pytest.mark.anyio
async def test_a_prover_that_runs_is_found_running_and_well(tmp_path: Path) -> None:
    port, socket = free_port(), tmp_path / "run" / "engine.sock"
    network = Network(tmp_path, ["--engine.socket", str(socket)])
    network.enrol("prover")
    given = (*flags(network, "prover"), "--engine.socket", str(socket), "--axon.port", str(port))
    async with serve_engine(TinyEngine(), socket):
        with network.prover("prover", port):
            code, rows = await examined_on_chain(port, "prover", *given)
    assert (code, outcomes(rows, "bad")) == (0, set())
    for check in ("port", "announced address"):
        assert "it serves tiny in targon/1, greedy" in rows[check][0]["found"]


async def opening_event(network: Network, hotkey: str) -> LogOpened:
    """How a verifier of this network begins its log."""
    chain = EmbeddedChain.open(network.chain)
    genesis = (await chain.info()).genesis
    await chain.aclose()
    opened: LogOpened = log_opened(STANDARD).model_copy(update={"verifier": hotkey, "genesis": genesis})
    return opened


def make_secret(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "draws.secret").write_bytes(b"s" * 32)
    (folder / "draws.secret").chmod(0o600)


async def begin_log(network: Network, hotkey: str) -> list[str]:
    """A log that a verifier of this network began, and its secret; returns the flags that name them."""
    folder = network.folder / "verifier"
    await write(folder / "log.sqlite", [await opening_event(network, hotkey)])
    make_secret(folder)
    ports = ("--axon.port", str(free_port()), "--gateway.port", str(free_port()))
    return ["--data.path", str(folder), *ports]


@pytest.mark.anyio
async def test_a_verifier_s_machine_with_all_that_it_needs_is_well(tmp_path: Path) -> None:
    network = Network(tmp_path, [])
    log = await begin_log(network, network.enrol("verifier", stake=100.0))
    metrics = ("--metrics.port", str(free_port()))
    code, rows = await examined("verifier", *flags(network, "verifier"), *log, *metrics)
    assert (code, outcomes(rows, "bad"), outcomes(rows, "note")) == (0, set(), {"clock", "log: growth"})
    assert {"calibration", "log: whose", "log: network", "log: software", "writer", "permit"} <= rows.keys()
    assert {"port", "announced address", "TLS", "address on chain", "metrics port"} <= rows.keys()


@pytest.mark.anyio
async def test_a_verifier_that_serves_nobody_needs_no_port(tmp_path: Path) -> None:
    network = Network(tmp_path, [])
    log = await begin_log(network, network.enrol("verifier", stake=100.0))
    code, rows = await examined("verifier", *flags(network, "verifier"), *log, "--neuron.axon_off")
    assert (code, {"port", "announced address", "TLS", "address on chain"} & rows.keys()) == (0, set())


@pytest.mark.anyio
async def test_a_verifier_that_runs_is_found_running_and_well(tmp_path: Path) -> None:
    port, metrics, socket = free_port(), free_port(), tmp_path / "run" / "engine.sock"
    network = Network(tmp_path, ["--engine.socket", str(socket)])
    network.enrol("verifier", stake=100.0)
    own = (
        *("--data.path", str(tmp_path / "verifier"), "--profile", "demo"),
        *("--axon.port", str(port), "--metrics.port", str(metrics)),
        *("--gateway.port", str(free_port())),
    )
    given = (*flags(network, "verifier"), "--engine.socket", str(socket), *own)
    async with serve_engine(TinyEngine(), socket):
        with network.running("verifier", "verifier", *own):
            _, rows = await examined_on_chain(port, "verifier", *given)
    assert outcomes(rows, "bad") <= {"calibration"}  # there is none for the tiny engine
    assert "this hotkey's own verifier runs" in rows["port"][0]["found"]
    assert "it verifies tiny" in rows["announced address"][0]["found"]
    assert rows["writer"][0]["outcome"] == "note"


@pytest.mark.anyio
async def test_another_verifier_s_folder_is_bad(tmp_path: Path) -> None:
    network = Network(tmp_path, [])
    network.enrol("verifier", stake=100.0)
    log = await begin_log(network, ANOTHER.ss58_address)
    code, rows = await examined("verifier", *flags(network, "verifier"), *log)
    assert (code, outcomes(rows, "bad")) == (1, {"log: whose"})


@pytest.mark.anyio
async def test_a_log_in_redis_is_looked_at_where_the_options_say(tmp_path: Path) -> None:
    network = Network(tmp_path, [])
    hotkey = network.enrol("verifier", stake=100.0)
    make_secret(tmp_path / "verifier")
    with redis_server(tmp_path / "redis") as server:
        async with RedisLog.open(server.address) as log:
            await log.append([await opening_event(network, hotkey)], expected=EMPTY)
        file = tmp_path / "verifier.toml"
        file.write_text(
            f'data.path = "{tmp_path / "verifier"}"\naxon.port = {free_port()}\n'
            f"[database]\nport = {server.address.port}\nindex = 0\n"
        )
        given = ("verifier", *flags(network, "verifier"), "--config", str(file))
        code, rows = await examined(*given, TARGON_VERIFIER__DATABASE__PASSWORD=server.address.password)
        _, without = await examined(*given)
    assert (code, outcomes(rows, "bad"), outcomes(rows, "note")) == (0, set(), {"clock", "log: growth"})
    assert rows["redis"][0]["found"].endswith("holds a log")
    assert {"redis: what it keeps", "redis: memory", "secret", "log: whose", "log: network"} <= rows.keys()
    assert outcomes(without, "bad") == {"redis"}
    assert "--database.password" in without["redis"][0]["found"]
    assert without["log"][0]["found"].startswith("not checked")


@pytest.mark.anyio
async def test_options_come_from_wherever_the_role_has_them(tmp_path: Path) -> None:
    network = Network(tmp_path, [])
    network.enrol("prover")
    file = tmp_path / "prover.toml"
    file.write_text(
        f'[subtensor]\nchain_endpoint = "sqlite://{network.chain}"\n[axon]\nport = {free_port()}\n'
    )
    _, rows = await examined(
        *("prover", "--config", str(file), "--wallet.path", str(tmp_path / "wallets")),
        TARGON_PROVER__WALLET__NAME="prover",
    )
    assert [rows[check][0]["outcome"] for check in ("chain", "hotkey", "registration")] == ["good"] * 3
    code, said = await doctor("prover", "--wallet.nmae", "prover")
    assert (code, "did you mean --wallet.name?" in said) == (2, True)


@pytest.mark.parametrize(
    ("flags", "network", "public"),
    [
        ([], "finney", True),
        (["--subtensor.network", "test"], "test", True),
        (["--subtensor.network", "local"], "local", False),
        (["--subtensor.chain_endpoint", "wss://192.0.2.7"], "", True),
        (["--subtensor.chain_endpoint", "sqlite:chain.sqlite"], "", False),
    ],
)
def test_a_network_is_held_to_its_name_only_where_it_was_chosen_by_name(
    flags: list[str], network: str, public: bool
) -> None:
    prover, verifier = load("prover", flags, {}).options, load("verifier", flags, {}).options
    oracle = load("oracle", flags, {}).options
    assert isinstance(prover, ProverOptions)
    assert isinstance(verifier, VerifierOptions)
    assert isinstance(oracle, OracleOptions)
    for needs in (
        prover_needs(prover, ChainOpener(prover)),
        verifier_needs(verifier, ChainOpener(verifier)),
        oracle_needs(oracle, ChainOpener(oracle)),
    ):
        assert (needs.common.network, needs.public) == (network, public)


@pytest.mark.anyio
async def test_where_nothing_is_there_each_fault_is_told_once(tmp_path: Path) -> None:
    code, rows = await examined(
        *("verifier", *NO_CHAIN, "--wallet.path", str(tmp_path)),
        *("--data.path", str(tmp_path / "data")),
    )
    assert (code, outcomes(rows, "bad")) == (1, {"chain", "hotkey"})
    unchecked = {"head", "clock", "registration", "permit", "weights", "port", "announced address"}
    assert outcomes(rows, "note") == unchecked | {"address on chain"}
    assert not (tmp_path / "data").exists()


@pytest.mark.anyio
async def test_a_password_is_taken_from_the_environment(tmp_path: Path) -> None:
    wallet = Wallet(name="mine", path=str(tmp_path))
    wallet.create_new_hotkey(use_password=True, hotkey_password="correct horse", suppress=True)
    given = ("prover", "--wallet.name", "mine", "--wallet.path", str(tmp_path), *NO_CHAIN)
    _, without = await examined(*given)
    _, with_it = await examined(*given, **{PASSWORD: "correct horse"})
    assert (without["hotkey"][0]["outcome"], with_it["hotkey"][0]["outcome"]) == ("bad", "good")
    assert "correct horse" not in json.dumps([without, with_it])


@pytest.mark.anyio
async def test_a_low_limit_of_open_files_is_bad(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))  # inherited by the process
    try:
        _, rows = await examined("prover", "--wallet.path", str(tmp_path), *NO_CHAIN)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (rows["open files"][0]["outcome"], "LimitNOFILE=1280" in rows["open files"][0]["advice"]) == (
        "bad",
        True,
    )


@pytest.mark.anyio
async def test_somebody_without_keys_sees_whether_a_prover_is_reached() -> None:
    async with a_prover() as world:
        address = ("127.0.0.1", str(world.axon.port))
        there = await doctor("reach", *address, PROVER.ss58_address)
        another = await doctor("reach", *address, ANOTHER.ss58_address)
    gone = await doctor("reach", *address, PROVER.ss58_address)
    nonsense = await doctor("reach", *address, "5Nobody")
    assert [code for code, _ in (there, another, gone, nonsense)] == [0, 1, 1, 2]
    assert there[1].startswith("reached within")
    assert another[1].startswith("NOT reached within")


# the page about it


def table_of(text: str) -> list[tuple[str, str]]:
    """Check and mark of each row of a table as it is printed."""
    cells = [line.split("│") for line in text.splitlines() if line.startswith("│")]
    return [(row[1].strip(), row[2].strip()) for row in cells if row[2].strip()]


def test_the_page_shows_what_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    wallet = ("--wallet.name", "mine", "--wallet.path", "wallets")
    assert main(["chain", "create", "chain.sqlite", "--block_seconds", "1"]) == 0
    assert main(["wallet", "create", *wallet]) == 0
    assert main(["chain", "register", "chain.sqlite", *wallet]) == 0
    Path("wallets/mine/hotkeys/default").chmod(0o644)
    page = PAGE.read_text("utf-8")
    (command,) = (line.split() for line in page.splitlines() if line.startswith("targon doctor prover --"))
    code, said = anyio.run(doctor, *command[2:])
    assert code == 1
    assert table_of(said) == table_of(page)
    assert said.splitlines()[-1] in page


@pytest.mark.anyio
async def test_the_page_names_every_check(tmp_path: Path) -> None:
    async def opening() -> EmbeddedChain:
        return EmbeddedChain.open(tmp_path)

    common = Common(
        wallet=WalletPlace("default", "default", tmp_path),
        open_chain=opening,
        engine=EnginePlace(),
        metrics_port=1,
    )
    axon = AxonPlace(role="prover", port=2)
    checks = prover_checks(ProverNeeds(common=common, axon=axon, public=False))
    for log in (SqlitePlace(tmp_path), RedisPlace(RedisAddress(host="127.0.0.1"), tmp_path)):
        checks += verifier_checks(
            VerifierNeeds(
                common=common,
                axon=axon,
                public=False,
                log=log,
                folder=tmp_path,
                profile=STANDARD,
                version_key=0,
                oracles=[OraclePlace(Hotkey(ANOTHER.ss58_address), "127.0.0.1", 3, tls=False)],
            )
        )
    plan = OraclePlan(source="embedded", allow_private=False, folder=tmp_path, places=1, period_blocks=1)
    checks += oracle_checks(OracleNeeds(common=common, axon=axon, public=False, plan=plan))
    page = PAGE.read_text("utf-8")
    assert [check.name for check in checks if f"| {check.name} |" not in page] == []
