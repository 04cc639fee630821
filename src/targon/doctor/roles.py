"""What each role needs: its checks, in the order in which one depends on another."""

from __future__ import annotations

import resource
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from targon import __version__
from targon.chain import Chain
from targon.doctor import chain, keys, log, machine, oracle, ports, registration, software, sqlite
from targon.doctor.engine import EnginePlace, check_calibration, check_engine
from targon.doctor.examination import Check, blocking
from targon.doctor.findings import Result
from targon.doctor.oracles import OraclePlace, check_caught, check_oracles
from targon.protocol.primitives import Hotkey
from targon.protocol.profile import Profile

LOG_S: Final = log.READ_S + 15.0
ENGINE_S: Final = 180.0
"""Trying an engine takes some dozens of answers; a slow one, on a processor, takes its time."""
HEAD_S: Final = 90.0
SOURCE_S: Final = oracle.DRAW_S + 60.0
"""Of a list of addresses each is asked for its size before anything is drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Common:
    """What every role needs, and what the checks look by."""

    wallet: keys.WalletPlace
    open_chain: Callable[[], Awaitable[Chain]]
    network: str = ""
    """The network that the chain should be, by its name; empty: any."""
    engine: EnginePlace
    metrics_port: int | None = None
    now_s: Callable[[], float] = time.time
    monotonic_s: Callable[[], float] = time.monotonic
    proc: Path = machine.PROC
    cgroup: Path = machine.CGROUP


@dataclass(frozen=True, slots=True, kw_only=True)
class ProverNeeds:
    """What a prover is started with."""

    common: Common
    axon: ports.AxonPlace
    public: bool
    """Whether the others are on other machines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierNeeds:
    """What a verifier is started with."""

    common: Common
    axon: ports.AxonPlace | None
    """None: it serves nobody."""
    public: bool
    """Whether the others are on other machines."""
    log: log.LogPlace
    folder: Path
    """For the secret, and for a log in a file."""
    profile: Profile
    version_key: int
    disable_set_weights: bool = False
    calibration: Path | None = None
    gateway: tuple[str, int] | None = None
    """Address and port for users; None: it serves none."""
    oracles: Sequence[OraclePlace] = ()
    """Those that it is told to use."""
    pardoned: Collection[Hotkey] = ()
    """Oracles that are to be used whatever they were caught at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OracleNeeds:
    """What an oracle is started with."""

    common: Common
    axon: ports.AxonPlace
    public: bool
    """Whether verifiers are on other machines."""
    plan: oracle.OraclePlan


def prover_checks(needs: ProverNeeds) -> list[Check]:
    """What must hold for a prover to start, to be found, and to be given work."""
    common = needs.common
    first = _First(common)
    return [
        *first.checks(),
        Check("seen as a prover", registration.check_taken_for_prover, (first.uid, first.hotkey)),
        *_axon(common, first, needs.axon, public=needs.public),
        *_metrics(common, needs.axon.port),
        Check("engine", lambda: check_engine(common.engine, reference=False), deadline_s=ENGINE_S),
        *_machine(common, "prover", common.engine.folder if common.engine.started else Path.cwd()),
    ]


def verifier_checks(needs: VerifierNeeds) -> list[Check]:
    """What must hold for a verifier to start, to go on from its log, and to set weights that are taken."""
    common, place = needs.common, needs.log
    first = _First(common)
    engine = Check("engine", lambda: check_engine(common.engine, reference=True), deadline_s=ENGINE_S)
    story = Check("log", lambda *_: log.check_log(place), place.needed, deadline_s=LOG_S)
    own_checks = place.checks
    return [
        *first.checks(),
        Check("permit", registration.check_permit, (first.uid, first.hotkey)),
        Check(
            "weights",
            lambda link, graph, signer: registration.check_weights(
                link, graph, signer, needs.version_key, off=needs.disable_set_weights
            ),
            (first.chain, first.uid, first.hotkey),
        ),
        *([] if needs.axon is None else _axon(common, first, needs.axon, public=needs.public)),
        *_metrics(common, None if needs.axon is None else needs.axon.port),
        *_gateway(needs),
        engine,
        Check("calibration", blocking(lambda found: check_calibration(found, needs.calibration)), (engine,)),
        *own_checks,
        story,
        Check(
            "log: whose",
            lambda told, signer: log.check_whose(told, signer, needs.profile),
            (story, first.hotkey),
        ),
        Check("log: network", log.check_network, (story, first.chain)),
        Check("log: software", lambda told: log.check_software(told, __version__), (story,)),
        Check("log: growth", log.check_growth, (story, first.chain)),
        *_oracles(needs, first, story),
        *_machine(common, "verifier", needs.folder),
    ]


def oracle_checks(needs: OracleNeeds) -> list[Check]:
    """What must hold for an oracle to start, to have text to give, and to go on from its folder."""
    common, plan = needs.common, needs.plan
    first = _First(common, extra=software.ORACLE, registered=False)
    port = _port(common, first, needs.axon)
    book = Check(
        "commitments",
        blocking(lambda link, signer: oracle.check_book(plan.folder, link, signer)),
        (first.chain, first.hotkey),
        deadline_s=LOG_S,
    )
    engine = Check("engine", lambda: check_engine(common.engine, reference=True), deadline_s=ENGINE_S)
    return [
        *first.checks(),
        Check("permits", lambda link: oracle.check_served(link, plan), (first.chain,)),
        port,
        Check(
            "address",
            lambda signer: oracle.check_address(signer, needs.axon, public=needs.public),
            (first.hotkey,),
        ),
        *_metrics(common, needs.axon.port),
        Check(
            "source", blocking(lambda: oracle.check_source(plan, public=needs.public)), deadline_s=SOURCE_S
        ),
        Check("data folder", blocking(lambda: sqlite.check_folder(plan.folder))),
        Check("lock", blocking(lambda holder: oracle.check_lock(holder, plan.folder, common.proc)), (port,)),
        book,
        Check(
            "periods",
            lambda bodies, link: oracle.check_periods(bodies, link, plan.folder),
            (book, first.chain),
            deadline_s=LOG_S,
        ),
        *([engine] if common.engine.wanted else []),
        *_machine(common, "oracle", plan.folder),
    ]


class _First:
    """The checks that every role begins with."""

    def __init__(self, common: Common, *, extra: str = "", registered: bool = True) -> None:
        self._common = common
        self._extra = extra
        self._registered = registered
        self.hotkey = Check("hotkey", blocking(lambda: keys.check_hotkey(common.wallet)))
        self.chain = Check(
            "chain",
            lambda: chain.check_chain(common.open_chain, common.network, common.monotonic_s),
            deadline_s=60.0,
        )
        self.head = Check(
            "head", lambda link: chain.check_head(link, common.now_s), (self.chain,), deadline_s=HEAD_S
        )
        self.uid = Check("registration", registration.check_uid, (self.chain, self.hotkey))

    def checks(self) -> Sequence[Check]:
        engine = software.ENGINE if self._common.engine.started else ""
        extras = frozenset({engine, self._extra} - {""})
        return (
            Check("software", blocking(lambda: software.check_software(extras))),
            self.hotkey,
            Check("coldkey", blocking(lambda: keys.check_coldkey(self._common.wallet))),
            self.chain,
            self.head,
            Check("clock", chain.check_clock, (self.chain, self.head)),
            *([self.uid] if self._registered else []),
        )


def _port(common: Common, first: _First, place: ports.AxonPlace) -> Check:
    return Check("port", lambda signer: ports.check_port(place, signer, common.monotonic_s), (first.hotkey,))


def _axon(common: Common, first: _First, place: ports.AxonPlace, *, public: bool) -> list[Check]:
    port = _port(common, first, place)
    return [
        port,
        Check(
            "announced address",
            lambda holder, signer: ports.check_announced(
                holder, signer, place, common.monotonic_s, public=public
            ),
            (port, first.hotkey),
            deadline_s=30.0,
        ),
        Check("TLS", lambda: ports.check_tls(place)),
        Check(
            "address on chain",
            lambda graph, holder, signer: ports.check_axon(graph, holder, signer, place),
            (first.uid, port, first.hotkey),
        ),
    ]


def _metrics(common: Common, served: int | None = None) -> list[Check]:
    port = common.metrics_port
    return [] if port is None else [Check("metrics port", lambda: ports.check_metrics_port(port, served))]


def _gateway(needs: VerifierNeeds) -> list[Check]:
    if needs.gateway is None:
        return []
    host, port = needs.gateway
    served = None if needs.axon is None else needs.axon.port
    return [Check("gateway port", lambda: ports.check_gateway_port(host, port, served))]


def _oracles(needs: VerifierNeeds, first: _First, story: Check) -> list[Check]:
    places = needs.oracles
    if not places:
        return []
    lent = bool(needs.common.engine.lenders)
    return [
        Check(
            "oracles",
            lambda link, signer: check_oracles(link, signer, places, lent=lent),
            (first.chain, first.hotkey),
            deadline_s=30.0,
        ),
        Check("oracles: caught", lambda told: check_caught(told, places, needs.pardoned), (story,)),
    ]


def _machine(common: Common, role: str, folder: Path) -> list[Check]:
    def memory() -> Result:
        needed = machine.LEAST_MEMORY + common.engine.memory
        return machine.judge_memory(machine.available_memory(common.proc, common.cgroup), needed)

    def files() -> Result:
        return machine.judge_files(*resource.getrlimit(resource.RLIMIT_NOFILE), machine.FILES[role])

    return [
        Check("disk", blocking(lambda: machine.judge_disk(machine.room_of(folder), folder))),
        Check("memory", blocking(memory)),
        Check("open files", blocking(files)),
    ]
