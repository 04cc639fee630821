"""Ports and addresses: ours to listen at, and whether a call to the announced address comes to this machine.

What lies between this machine and the others can't be seen from here: a router that doesn't lead its own side back in
(NAT hairpin), a provider's firewall. Where that is the question, it is said, with what to run elsewhere.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import aiohttp
import anyio

from targon.chain import Axon, AxonRefused, Metagraph, host_to_announce
from targon.doctor.findings import Result, bad, good, note
from targon.doctor.reach import Role, ask
from targon.protocol.keys import Signer
from targon.protocol.primitives import Hotkey
from targon.transport import PortInUse, Tls, bind, speaks_tls

Holder = Literal["nobody", "us"]
"""Who has the port: ``us`` is this role of our hotkey, which runs already."""

CONNECT_S: Final = 5.0
ARRIVE_S: Final = 2.0
"""A connection that was made has arrived somewhere; its first bytes take no longer than this."""
TOKEN_BYTES: Final = 16
METRICS_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class AxonPlace:
    """Where a role listens, and what it announces (``--axon.…``)."""

    role: Role
    host: str = "127.0.0.1"
    port: int
    external_host: str | None = None
    external_port: int | None = None
    tls: Tls = "auto"

    def announced(self) -> Axon:
        """What goes on the chain.

        Raises:
            AxonRefused: if it is no address that others could call.
        """
        return Axon(host_to_announce(self.host, self.external_host), self.external_port or self.port)

    def served_with(self) -> Tls:
        """How it is to be called: ``on`` or ``off``; ``auto`` while there is no address to announce."""
        if self.tls != "auto":
            return self.tls
        try:
            return "on" if speaks_tls(self.tls, self.announced().host) else "off"
        except AxonRefused:
            return "auto"


async def check_port(place: AxonPlace, signer: Signer, monotonic_s: Callable[[], float]) -> Result:
    """The port is free, or our own role's. Hands on which (:data:`Holder`)."""
    try:
        bind(place.host, place.port).close()
    except PortInUse as error:
        # whoever listens everywhere can be asked on loopback
        local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(place.host, place.host)  # noqa: S104
        hotkey = Hotkey(signer.ss58_address)
        asked = await ask(Axon(local, place.port), hotkey, signer, monotonic_s, tls=place.served_with())
        other = asked.role not in (None, place.role)
        if asked.is_it and not other:
            held: Holder = "us"
            return good(
                f"this hotkey's own {place.role} runs at {local}:{place.port}: {asked.said}", value=held
            )
        who = f"This hotkey's {asked.role} has it: " if asked.is_it else ""
        return bad(f"{error}. {who}{asked.said}", "stop what listens there, or choose another --axon.port")
    free: Holder = "nobody"
    return good(f"port {place.port} on {place.host} is free", value=free)


async def check_announced(
    holder: Holder, signer: Signer, place: AxonPlace, monotonic_s: Callable[[], float], *, public: bool
) -> Result:
    """Calls to the announced address come to this role, as far as can be seen from here.

    Args:
        public: whether the others are on other machines.
    """
    try:
        axon = place.announced()
    except AxonRefused as error:
        return bad(str(error), "--axon.external_ip ADDRESS")
    if public and not ipaddress.ip_address(axon.host).is_global:
        return note(
            f"{axon.host} is an address of a private network or of this machine: nobody outside can call {axon}",
            "announce the address that the internet knows this machine by: --axon.external_ip ADDRESS",
        )
    elsewhere = _elsewhere(axon, signer, place)
    if holder == "us":
        asked = await ask(axon, Hotkey(signer.ss58_address), signer, monotonic_s, tls=place.served_with())
        if asked.is_it:
            return good(f"asked at {axon} from this machine: {asked.said}", elsewhere)
        if asked.kind != "silent":
            return bad(
                f"{axon}: {asked.said}",
                f"announce this {place.role}'s address: --axon.external_ip, --axon.external_port",
            )
        return _unanswered(axon, asked.said, elsewhere)
    arrived, why = await _arrives(place, axon)
    if arrived:
        return good(f"a call to {axon} comes to this machine, to the port that is listened at", elsewhere)
    if arrived is None:
        return _unanswered(axon, why, elsewhere)
    return bad(
        f"{axon} leads elsewhere: a call was taken there, and did not come to port {place.port} of this machine",
        "announce this machine's address: --axon.external_ip, --axon.external_port; or lead that port to this one",
    )


async def check_tls(place: AxonPlace) -> Result:
    """Callers that are told nothing else call it as it is served: over TLS wherever the address isn't loopback."""
    try:
        axon = place.announced()
    except AxonRefused:
        return note("not checked: there is no address to announce")
    served, called = place.served_with() == "on", speaks_tls("auto", axon.host)
    how = "over TLS, with a certificate that this hotkey vouches for" if served else "without TLS"
    if served == called:
        return good(f"{axon} is served {how}")
    return note(
        f"{axon} is served {how}, and callers that are told nothing else call it "
        f"{'over' if called else 'without'} TLS: they are not answered",
        "leave --axon.tls away" if called else "leave --axon.tls away, or give every caller --neuron.tls on",
    )


def _unanswered(axon: Axon, why: str, elsewhere: str) -> Result:
    if is_ours(axon.host):
        return bad(
            f"{axon} is this machine's address, and doesn't answer: {why}",
            f"listen there: --axon.ip {axon.host}; and let port {axon.port} through this machine's own firewall",
        )
    return note(
        f"{axon} can't be tried from here: {why}. Its router may not lead calls from inside back in (NAT hairpin), or "
        "a firewall before this machine may drop them: only a look from outside tells",
        elsewhere,
    )


def _elsewhere(axon: Axon, signer: Signer, place: AxonPlace) -> str:
    if ipaddress.ip_address(axon.host).is_loopback:
        return ""
    tls = "" if place.tls == "auto" else f" --tls {place.tls}"
    return (
        f"while the {place.role} runs, on another machine: targon doctor reach {axon.host} {axon.port} "
        f"{signer.ss58_address}{tls} (or: nc -vz {axon.host} {axon.port})"
    )


def is_ours(host: str) -> bool:
    """Whether an address is one of this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            return False
    return True


async def _arrives(place: AxonPlace, axon: Axon) -> tuple[bool | None, str]:
    """Listen as the role would, call the announced address, and see whether the call comes in.

    None: no connection was made, and why.
    """
    token = os.urandom(TOKEN_BYTES)
    came = anyio.Event()
    with bind(place.host, place.port) as sock:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_take_calls, sock, token, came)
            try:
                with anyio.fail_after(CONNECT_S):
                    stream = await anyio.connect_tcp(axon.host, axon.port)
            except TimeoutError:
                tasks.cancel_scope.cancel()
                return None, f"no connection within {CONNECT_S:g} s"
            except OSError as error:
                tasks.cancel_scope.cancel()
                return None, str(error.__cause__ or error)
            async with stream:
                with anyio.move_on_after(ARRIVE_S):
                    await stream.send(token)
                    await came.wait()
            tasks.cancel_scope.cancel()
    return came.is_set(), ""


async def _take_calls(sock: socket.socket, token: bytes, came: anyio.Event) -> None:
    loop = asyncio.get_running_loop()
    while not came.is_set():
        connection, _ = await loop.sock_accept(sock)
        with connection, anyio.move_on_after(ARRIVE_S):
            connection.setblocking(False)
            if await loop.sock_recv(connection, len(token)) == token:
                came.set()


async def check_axon(metagraph: Metagraph, holder: Holder, signer: Signer, place: AxonPlace) -> Result:
    """What the chain says of where we serve."""
    neuron = metagraph.by_hotkey(Hotkey(signer.ss58_address))
    on_chain = neuron.axon if neuron is not None else None
    try:
        ours = place.announced()
    except AxonRefused:
        return note("not checked: there is no address to announce")
    if on_chain == ours:
        return good(f"{ours} stands on chain")
    got = f"{on_chain} stands on chain" if on_chain is not None else "no address stands on chain"
    if holder == "nobody":
        return good(f"{got}; the {place.role} announces {ours} when it starts")
    return note(
        f"{got}, expected {ours}: nobody can find the {place.role} that runs here",
        "it announces again within 50 blocks; if it doesn't, start it again with these flags, and see what it logs",
    )


async def check_metrics_port(port: int, served: int | None = None) -> Result:
    """The operator's port on loopback is free, or that of a role that runs already, whose health is asked then.

    Args:
        served: the port that the role itself listens at, which can't be the same.
    """
    return await _check_own_port("127.0.0.1", port, "--metrics.port", "/metrics", served)


async def check_gateway_port(host: str, port: int, served: int | None = None) -> Result:
    """The port for users is free, or that of a gateway that runs already, whose health is asked then."""
    return await _check_own_port(host, port, "--gateway.port", "/openapi.json", served)


async def _check_own_port(host: str, port: int, flag: str, shown: str, served: int | None) -> Result:
    if port == served:
        return bad(f"port {port} is the one that is served at, too, expected two", f"choose another {flag}")
    try:
        bind(host, port, flag=flag).close()
    except PortInUse as error:
        try:
            status = await _health(port, shown)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            status = None
        if status is None:
            return bad(str(error), f"stop what listens there, or choose another {flag}")
        if status != "ok":
            return bad(
                f"a role that runs with port {port} says what ails it: {status}", "see what that role logs"
            )
        return good(f"port {port} is that of a role that runs, and says that it is well")
    return good(f"port {port} on {host} is free")


async def _health(port: int, shown: str) -> str | None:
    """What a role of ours says of itself; None: what answers is none, as what it shows at a path tells."""
    timeout = aiohttp.ClientTimeout(total=CONNECT_S)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", timeout=timeout) as session:
        async with session.get(shown) as response:
            if b"targon" not in (await response.content.read(METRICS_BYTES)).lower():
                return None
        async with session.get("/healthz") as response:
            said = json.loads(await response.content.read(METRICS_BYTES))
            return str(said["status"])[:200] if isinstance(said, dict) and "status" in said else None
