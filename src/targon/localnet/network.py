"""A whole network on one machine: a chain, verifiers and provers, each a process, over real HTTP on loopback."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
from bittensor.keyfiles import Keypair
from bittensor.wallet import Wallet

from targon.chain import Axon, ChainSettings, EmbeddedChain
from targon.engines.default_model import DEFAULT_MODEL_NAME
from targon.gateway.keys import FILE_NAME, KeyFile
from targon.localnet.cast import ENGINES, EngineName, Player, cast
from targon.localnet.oracle import PERIOD_BLOCKS, SPARE_PLACES, OraclePlace
from targon.localnet.processes import Running, free_ports, running
from targon.localnet.settings import LIGHT, Settings
from targon.localnet.users import Door
from targon.protocol.primitives import Hotkey, Uid

FIRST = "verifier-1"
"""The verifier that serves users, and whose log the screen is drawn from."""

MARKER = "targon-localnet"
"""A file that marks a folder as a local network's: only such a folder is ever cleared."""

VERIFIER_STAKE = 10_000.0
"""TAO; above --neuron.vpermit_tao_limit, so that no verifier is taken for a prover."""
LIGHT_STAKE = 5_000.0
"""TAO of the light verifier: above it, too, and below the others', so that incentives follow whom the screen shows."""


class FolderInUse(Exception):
    """The folder holds something that is not a local network."""


@dataclass(frozen=True, slots=True)
class Seat:
    """A prover of the network and where it sits."""

    player: Player
    uid: Uid
    hotkey: Hotkey
    port: int


@dataclass(frozen=True, slots=True)
class Network:
    """A network that is running."""

    settings: Settings
    chain: EmbeddedChain
    seats: tuple[Seat, ...]
    verifiers: tuple[Hotkey, ...]
    processes: tuple[Running, ...]
    door: Door
    """Where the first verifier serves users."""
    oracle: OraclePlace | None = None

    def log_path(self, verifier: str = FIRST) -> Path:
        return data_folder(self.settings, verifier) / "log.sqlite"

    @property
    def reveals(self) -> Path:
        """Folder for what the oracle reveals."""
        return self.settings.path / "reveals"

    def check(self) -> None:
        """Raise if any process has ended.

        Raises:
            ProcessDied: naming it, with the end of its output.
        """
        for process in self.processes:
            process.check()


def chain_path(settings: Settings) -> Path:
    return settings.path / "chain.sqlite"


def data_folder(settings: Settings, name: str = FIRST) -> Path:
    return settings.path / name


def clear(path: Path) -> None:
    """Make the folder empty and ours.

    Raises:
        FolderInUse: if it holds anything that a local network did not leave there.
    """
    if path.exists() and any(path.iterdir()):
        if not (path / MARKER).is_file():
            raise FolderInUse(
                f"{path} is not empty and no local network's: give an empty folder, or a new one, as --path"
            )
        shutil.rmtree(path)
    path.mkdir(parents=True, exist_ok=True)
    (path / MARKER).write_text(
        "This folder belongs to 'targon localnet', which clears it at its next start.\n"
    )


@asynccontextmanager
async def open_network(settings: Settings) -> AsyncGenerator[Network, None]:
    """Start everything; stop everything when the block ends.

    Raises:
        FolderInUse: if the folder is somebody else's.
    """
    await anyio.to_thread.run_sync(clear, settings.path)
    players = cast(settings.honest, settings.bf16, settings.cheats)
    chain = await anyio.to_thread.run_sync(_create_chain, settings, len(players))
    async with AsyncExitStack() as stack:
        stack.push_async_callback(chain.aclose)
        verifiers = await anyio.to_thread.run_sync(_enrol_verifiers, settings, chain)
        ports = free_ports(len(players) + len(settings.verifier_names) + 3)
        oracle = await anyio.to_thread.run_sync(_open_oracle, settings, ports.pop(), ports.pop())
        door = await anyio.to_thread.run_sync(_open_door, settings, settings.gateway_port or ports.pop())
        seats = await _seat_players(settings, chain, players, ports)
        processes = []
        # A socket's path may have 100 characters at most; that of the network's own folder may be longer.
        sockets = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="targon-")))
        commands = _commands(settings, seats, sockets, ports[len(players) :], door, oracle)
        for name, module, arguments in commands:
            processes.append(await stack.enter_async_context(running(name, module, arguments, settings.path)))
        yield Network(settings, chain, seats, verifiers, tuple(processes), door, oracle)


def _create_chain(settings: Settings, provers: int) -> EmbeddedChain:
    return EmbeddedChain.create(
        chain_path(settings),
        ChainSettings(
            netuid=settings.netuid,
            block_seconds=settings.block_seconds,
            tempo=settings.tempo,
            max_uids=provers + len(settings.verifier_names),
            weights_rate_limit=1,
        ),
    )


def _enrol_verifiers(settings: Settings, chain: EmbeddedChain) -> tuple[Hotkey, ...]:
    hotkeys = []
    for name in settings.verifier_names:
        keypair = _make_key(settings, name)
        chain.register(keypair)
        chain.add_stake(Hotkey(keypair.ss58_address), LIGHT_STAKE if name == LIGHT else VERIFIER_STAKE)
        hotkeys.append(Hotkey(keypair.ss58_address))
    return tuple(hotkeys)


async def _seat_players(
    settings: Settings, chain: EmbeddedChain, players: tuple[Player, ...], ports: Sequence[int]
) -> tuple[Seat, ...]:
    seats = []
    for player, port in zip(players, ports, strict=False):
        keypair = await anyio.to_thread.run_sync(_make_key, settings, player.name)
        uid = await anyio.to_thread.run_sync(chain.register, keypair)
        if player.engine is None:
            await chain.serve_axon(keypair, Axon("127.0.0.1", port))
        seats.append(Seat(player, uid, Hotkey(keypair.ss58_address), port))
    return tuple(seats)


def _make_key(settings: Settings, name: str) -> Keypair:
    wallet = Wallet(name=name, hotkey="default", path=str(settings.path / "wallets"))
    wallet.create_new_hotkey(use_password=False, suppress=True)
    return wallet.hotkey


def _open_oracle(settings: Settings, port: int, metrics_port: int) -> OraclePlace | None:
    """A key for the oracle, which needs no UID, and a folder for what it reveals."""
    if not settings.has_oracle:
        return None
    (settings.path / "reveals").mkdir()
    return OraclePlace(Hotkey(_make_key(settings, "oracle").ss58_address), port, metrics_port)


def _commands(
    settings: Settings,
    seats: tuple[Seat, ...],
    sockets: Path,
    verifier_ports: Sequence[int],
    door: Door,
    oracle: OraclePlace | None,
) -> list[tuple[str, str, list[str]]]:
    """(name, module, arguments) of every process: engines first, since they take longest to be ready."""
    engines = sorted({seat.player.engine for seat in seats if seat.player.engine is not None})
    # The verifier's engine works while the provers' are idle, and has the machine; those share it.
    cores = os.cpu_count() or 1
    commands = [_engine("reference", "fp32", sockets, threads=cores)]
    commands += [_engine(name, name, sockets, threads=max(1, cores // len(engines))) for name in engines]
    commands += [_prover(settings, seat, sockets) for seat in seats if seat.player.engine is not None]
    if oracle is not None:
        commands.append(_oracle(settings, oracle, sockets))
    for name, port in zip(settings.verifier_names, verifier_ports, strict=False):
        more = ["--neuron.light"] if name == LIGHT else ["--engine.socket", _socket(sockets, "reference")]
        more += ["--gateway.port", str(door.port)] if name == FIRST else ["--gateway.off"]
        if oracle is not None:
            more += ["--oracle.url", oracle.url, "--oracle.hotkey", oracle.hotkey]
        if oracle is not None and name == FIRST:
            more += ["--metrics.port", str(oracle.metrics_port)]
        commands.append(_verifier(settings, name, port, more))
    return commands


def _socket(sockets: Path, engine: str) -> str:
    return str(sockets / f"{engine}.sock")


def _engine(name: str, kind: EngineName, sockets: Path, *, threads: int) -> tuple[str, str, list[str]]:
    spec = ENGINES[kind]
    arguments = ["--socket", _socket(sockets, name), "--dtype", spec.dtype]
    arguments += ["--threads", str(threads), "--max-batch", "16"]
    if spec.variant is not None:
        arguments += ["--variant", spec.variant]
    return f"engine-{name}", "targon.engines.process", arguments


def _endpoint(settings: Settings) -> str:
    return f"sqlite://{chain_path(settings).resolve()}"


def _common(settings: Settings, wallet: str) -> list[str]:
    """The flags that all roles share."""
    return [
        *("--netuid", str(settings.netuid)),
        *("--subtensor.chain_endpoint", _endpoint(settings)),
        *("--wallet.name", wallet),
        *("--wallet.path", str(settings.path / "wallets")),
    ]


def _oracle(settings: Settings, place: OraclePlace, sockets: Path) -> tuple[str, str, list[str]]:
    lent = ["--engine.socket", _socket(sockets, "reference")] if settings.light else []
    return (
        "oracle",
        "targon.cli",
        [
            "oracle",
            *_common(settings, "oracle"),
            *("--axon.port", str(place.port)),
            *("--data.path", str(settings.path / "oracle")),
            *("--oracle.period", str(PERIOD_BLOCKS)),
            *("--oracle.places", str(settings.sample_size + SPARE_PLACES)),
            *lent,
        ],
    )


def _prover(settings: Settings, seat: Seat, sockets: Path) -> tuple[str, str, list[str]]:
    player = seat.player
    assert player.engine is not None
    if player.cheat is None:
        socket = _socket(sockets, player.engine)
        flags = [*_common(settings, player.name), "--engine.socket", socket, "--axon.port", str(seat.port)]
        return player.name, "targon.cli", ["prover", *flags]
    flags = [
        *("--cheat", player.cheat),
        *("--chain", _endpoint(settings)),
        *("--netuid", str(settings.netuid)),
        *("--wallet", player.name),
        *("--wallets", str(settings.path / "wallets")),
        *("--engine", _socket(sockets, player.engine)),
        *("--claimed", _socket(sockets, "reference")),
        *("--port", str(seat.port)),
    ]
    return player.name, "targon.localnet.cheating_prover", flags


def _open_door(settings: Settings, port: int) -> Door:
    """A key for the first verifier's gateway. It may do all that a key can: the network is its user's own."""
    folder = data_folder(settings)
    folder.mkdir(parents=True)
    file = KeyFile(folder / FILE_NAME)
    try:
        _, key = file.create("localnet", now=int(time.time()))
    finally:
        file.close()
    return Door(port, key, DEFAULT_MODEL_NAME)


def _verifier(settings: Settings, name: str, port: int, more: Sequence[str]) -> tuple[str, str, list[str]]:
    return (
        name,
        "targon.cli",
        [
            "verifier",
            *_common(settings, name),
            *("--axon.port", str(port)),
            *("--data.path", str(data_folder(settings, name))),
            *("--profile", settings.profile.name),
            *("--neuron.sample_size", str(settings.sample_size)),
            *("--neuron.min_tokens", str(settings.min_tokens)),
            *("--neuron.max_tokens", str(settings.max_tokens)),
            *more,
        ],
    )
