"""The oracles that a verifier names: each answers, is whose hotkey was named, and has committed to what comes next."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import anyio

from targon.chain import Axon
from targon.doctor.chain import Link
from targon.doctor.findings import Finding, Result, good
from targon.doctor.log import Story
from targon.doctor.reach import DEADLINES, explained
from targon.protocol.disclosures import OracleStatus
from targon.protocol.errors import ProtocolError
from targon.protocol.keys import Signer
from targon.protocol.primitives import Block, Hotkey
from targon.protocol.private_inputs import Commitment, check_commitment
from targon.transport import OracleClient, TransportError, speaks_tls
from targon.verifier.remote_inputs import FOR_GOOD

BEHIND_BLOCKS = 5
"""So far may the newest block that an oracle has seen be behind ours."""
TELLS = "ask its operator, or name another one with --oracle.url and --oracle.hotkey"


@dataclass(frozen=True, slots=True)
class OraclePlace:
    """An oracle that a verifier is told to use."""

    hotkey: Hotkey
    host: str
    port: int
    tls: bool

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"


async def check_oracles(link: Link, signer: Signer, places: Sequence[OraclePlace], *, lent: bool) -> Result:
    """Ask each of them for its status and its newest commitments, and hold those to the chain.

    Args:
        lent: whether their engines are to be borrowed.
    """
    head = await link.chain.block()
    found: dict[OraclePlace, list[Finding]] = {}

    async def look(place: OraclePlace) -> None:
        found[place] = [
            Finding(each.outcome, f"{place}: {each.found}", each.advice)
            for each in await _look(place, link, head, signer, lent=lent)
        ]

    async with anyio.create_task_group() as tasks:
        for place in places:
            tasks.start_soon(look, place)
    return Result(tuple(finding for place in places for finding in found[place]))


async def _look(
    place: OraclePlace, link: Link, head: Block, signer: Signer, *, lent: bool
) -> Iterable[Finding]:
    try:
        async with OracleClient(deadlines=DEADLINES, tls="on" if place.tls else "off") as client:
            endpoint = Axon(await _address(place), place.port)
            status = await client.oracle_status(endpoint, place.hotkey, signer)
            newest = status.periods[0].number if status.periods else None
            listed = (
                () if newest is None else await client.commitments(endpoint, place.hotkey, signer, newest)
            )
    except TransportError as error:
        advice = "correct --oracle.url (http:// or https://, host, port), or ask its operator whether it runs"
        return [Finding("bad", explained(error, place.hotkey)[1], advice)]
    except OSError as error:
        return [Finding("bad", f"its address can't be found: {error}", "correct --oracle.url")]
    wrong = _another(place, link, status) or _unsigned(place, listed)
    if wrong is not None:
        return [wrong]
    return [*_ready(status, listed, head, Hotkey(signer.ss58_address)), *_beside(place, status, lent=lent)]


async def _address(place: OraclePlace) -> str:
    found = await anyio.getaddrinfo(place.host, place.port)
    return str(found[0][4][0])


def _another(place: OraclePlace, link: Link, status: OracleStatus) -> Finding | None:
    if status.hotkey != place.hotkey:
        return Finding(
            "bad",
            f"it says that it is {status.hotkey}, expected {place.hotkey}",
            "correct --oracle.hotkey, if its operator says so; else correct --oracle.url",
        )
    if (status.genesis, status.netuid) != (link.info.genesis, link.info.netuid):
        return Finding(
            "bad",
            f"it serves subnet {status.netuid} on the chain with genesis {status.genesis[:12]}…, expected subnet "
            f"{link.info.netuid} on {link.info.genesis[:12]}…",
            TELLS,
        )
    return None


def _unsigned(place: OraclePlace, listed: Sequence[Commitment]) -> Finding | None:
    """What a status says is anybody's word; a commitment is the hotkey's."""
    for commitment in listed:
        try:
            check_commitment(commitment)
        except ProtocolError as error:
            return Finding("bad", f"commitment {commitment.body.number}: {error}", TELLS)
        if commitment.body.oracle != place.hotkey:
            return Finding(
                "bad",
                f"commitment {commitment.body.number} is of {commitment.body.oracle}, expected {place.hotkey}",
                TELLS,
            )
    return None


def _ready(
    status: OracleStatus, listed: Sequence[Commitment], head: Block, verifier: Hotkey
) -> Iterable[Finding]:
    if status.block < head - BEHIND_BLOCKS:
        yield Finding(
            "note",
            f"the newest block that it has seen is {status.block}, expected about {head}: what it gives comes late",
            TELLS,
        )
    ahead = [commitment.body for commitment in listed if commitment.body.last > head]
    if not ahead:
        yield Finding(
            "note",
            f"it has committed to nothing after block {head}: until it does, the verifier uses its own passages",
            "look again in some blocks: it may have started just now. Its operator sees why in its log",
        )
        return
    with_us = [body for body in ahead if verifier in body.verifiers]
    if not with_us:
        yield Finding(
            "note",
            f"it has no place for {verifier} in what it has committed to, up to block {ahead[-1].last}",
            "who has just got a validator permit has places from the next period but one",
        )
        return
    yield Finding(
        "good",
        f"{status.software} draws from {status.source}; signed commitments for blocks up to {with_us[-1].last}, "
        f"{with_us[-1].last - head} ahead, with {with_us[-1].places} places for this verifier in each",
    )


def _beside(place: OraclePlace, status: OracleStatus, *, lent: bool) -> Iterable[Finding]:
    if lent and status.model is None:
        yield Finding("bad", "it lends no engine, which --neuron.light needs", TELLS)
    elif lent and status.model is not None:
        model = status.model
        yield Finding("good", f"it lends an engine for {model.name} (digest {model.model_digest[:12]}…)")
    try:
        clear = not place.tls and speaks_tls("auto", place.host)
    except ValueError:
        clear = not place.tls and place.host != "localhost"
    if clear:
        yield Finding(
            "note",
            "asked in the clear: whoever is on the way can read private inputs before provers see them",
            f"--oracle.url https://{place.host}:{place.port}, if it serves so",
        )


async def check_caught(story: Story, places: Sequence[OraclePlace], pardoned: Collection[Hotkey]) -> Result:
    """None of them was caught at what has this verifier leave it for good."""
    left = [
        Finding(
            "note",
            f"{place.hotkey} was caught in block {fault.block}: {fault.what}. It isn't used until you pardon it",
            f"name another oracle; or, if its operator can explain it: --oracle.pardon {place.hotkey}",
        )
        for place in places
        if (fault := story.caught.get(place.hotkey)) is not None
        and fault.what in FOR_GOOD
        and place.hotkey not in pardoned
    ]
    if left:
        return Result(tuple(left))
    return good("the log tells of nothing for which one of them would be left for good")
