"""Asks a neuron or an oracle at an address who it is, as its callers would: a connection, and a signed request for its
status."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from targon.chain import Axon
from targon.protocol.disclosures import OracleStatus, VerifierStatus
from targon.protocol.keys import Signer
from targon.protocol.messages import ProverStatus
from targon.protocol.primitives import Hotkey
from targon.transport import (
    BadResponse,
    Code,
    Deadlines,
    Disconnected,
    NotTheProver,
    OracleClient,
    Refused,
    TimedOut,
    Tls,
    TransportError,
    Unreachable,
)

DEADLINES = Deadlines(connect_s=5.0, first_byte_s=5.0, between_bytes_s=5.0, total_s=8.0)
"""A status is said at once; a packet filter that drops says nothing, however long one waits."""

Role = Literal["prover", "verifier", "oracle"]

Kind = Literal["answers", "refuses", "clock", "another", "tls", "stranger", "silent"]
"""``answers``: with its status. ``refuses``: it is that hotkey's, and doesn't serve the one that asked. ``clock``: our
clocks differ. ``another``: a neuron with another hotkey. ``tls``: a neuron that speaks TLS, and was asked without.
``stranger``: something that is no neuron. ``silent``: no answer."""

Status = ProverStatus | VerifierStatus | OracleStatus
_ROLES: dict[type[Status], Role] = {
    ProverStatus: "prover",
    VerifierStatus: "verifier",
    OracleStatus: "oracle",
}

_ABOUT_THE_CALLER = frozenset(
    {
        Code.NOT_REGISTERED,
        Code.NO_VALIDATOR_PERMIT,
        Code.CHAIN_UNAVAILABLE,
        Code.TOO_MANY_REQUESTS,
        Code.TOO_MANY_CONCURRENT,
        Code.OVERLOADED,
    }
)
"""Refusals that come only after the request was found to be for the hotkey that answers."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of asking."""

    kind: Kind
    said: str
    """In words."""
    took_s: float
    role: Role | None = None
    """What answers with its status; a refusal doesn't say."""

    @property
    def is_it(self) -> bool:
        """Whether the hotkey that was asked for answered, be it with a refusal. Status and refusals are not signed:
        without TLS, only a receipt proves who answers."""
        return self.kind in ("answers", "refuses", "clock")


async def ask(
    axon: Axon, hotkey: Hotkey, signer: Signer, monotonic_s: Callable[[], float], *, tls: Tls = "auto"
) -> Asked:
    """Ask for the status of the prover, verifier or oracle that should serve at an address.

    Args:
        tls: whether to ask over TLS; ``auto``: as callers do, wherever the address isn't loopback.
    """
    began_s = monotonic_s()
    role: Role | None = None
    async with OracleClient(deadlines=DEADLINES, tls=tls) as client:
        try:
            status = await _status(client, axon, hotkey, signer)
        except TransportError as error:
            kind, said = explained(error, hotkey)
        else:
            kind, said = _told(status, hotkey)
            role = _ROLES[type(status)]
    return Asked(kind, said, monotonic_s() - began_s, role)


async def _status(client: OracleClient, axon: Axon, hotkey: Hotkey, signer: Signer) -> Status:
    """A prover's, or where what comes is none, a verifier's or an oracle's: the path of all is the same."""
    first: BadResponse | None = None
    for look in (client.status, client.verifier_status, client.oracle_status):
        try:
            return await look(axon, hotkey, signer)
        except BadResponse as error:
            first = first or error
            if error.reason != "malformed":
                break
    assert first is not None
    raise first


def _told(status: Status, hotkey: Hotkey) -> tuple[Kind, str]:
    if status.hotkey != hotkey:
        return "another", f"it says that it is {status.hotkey}, expected {hotkey}"
    if isinstance(status, OracleStatus):
        until = (
            f"committed to blocks up to {status.periods[-1].last}"
            if status.periods
            else "committed to nothing"
        )
        return "answers", (
            f"it gives private inputs from {status.source}; software {status.software}, {until}, now in block "
            f"{status.block}"
        )
    if isinstance(status, VerifierStatus):
        models = ", ".join(model.name for model in status.models)
        return "answers", (
            f"it verifies {models}; software {status.software}, {status.released} records of its log released"
        )
    serves = f"{', '.join(status.models)} in {', '.join(status.dialects)}"
    busy = f"{status.running} of {status.capacity} places taken"
    return "answers", f"it serves {serves}; software {status.version}, {busy}"


def explained(error: TransportError, hotkey: Hotkey) -> tuple[Kind, str]:
    """What kept a request from its answer."""
    if isinstance(error, Refused):
        if error.code == Code.WRONG_RECEIVER:
            return "another", f"another hotkey answers there: {error.expected}, expected {hotkey}"
        if error.code == Code.STALE_NONCE:
            return (
                "clock",
                f"its clock and ours differ: our request was {error.got}, expected {error.expected}",
            )
        if error.code in _ABOUT_THE_CALLER:
            return (
                "refuses",
                f"it is there, and doesn't serve the hotkey that asked: {error.code}: {error.message}",
            )
        if error.code == Code.TLS_REQUIRED:
            return "tls", "it speaks TLS, and was asked without"
        return (
            "stranger",
            f"what answers there is no neuron of this protocol: HTTP {error.status} {error.message}",
        )
    if isinstance(error, BadResponse):
        return "stranger", f"what answers there is no neuron of this protocol: {error}"
    if isinstance(error, NotTheProver):
        return "another", str(error)
    if isinstance(error, TimedOut):
        return "silent", f"connected, and then no answer for {error.after_s:g} s"
    if isinstance(error, Unreachable | Disconnected):
        return "silent", str(error)
    return "silent", f"this machine could not ask: {error}"
