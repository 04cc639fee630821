"""An oracle's own: its source gives text, its folder is whole and nobody else's, and verifiers can call it.

Nothing is taken from the source for good: what is drawn here is thrown away, and can be drawn again.
"""

from __future__ import annotations

import ipaddress
import random
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio.to_thread

from targon.doctor.chain import Link
from targon.doctor.findings import Result, bad, good, note
from targon.doctor.locks import held_by
from targon.doctor.ports import AxonPlace, Holder
from targon.oracle.book import newest_written
from targon.oracle.errors import Damaged, OracleError, StoreUnavailable, ToolMissing
from targon.oracle.periods import PeriodTexts
from targon.oracle.planning import places_for
from targon.oracle.ports import Source
from targon.oracle.refining import Reason, Refiner
from targon.oracle.service import REVEAL_AFTER_BLOCKS
from targon.oracle.sources.opening import open_source
from targon.protocol.keys import Signer
from targon.protocol.private_inputs import CommitmentBody
from targon.transport import speaks_tls

DRAWS: Final = 50
DRAW_S: Final = 20.0
"""As many texts are drawn, for as long: a source on a web server is slow."""
EMBEDDED: Final = "embedded"
LIVE: Final = "live:"


@dataclass(frozen=True, slots=True, kw_only=True)
class OraclePlan:
    """What an oracle is told to give, and where it keeps it."""

    source: str
    allow_private: bool
    folder: Path
    places: int
    period_blocks: int


def check_source(plan: OraclePlan, *, public: bool) -> Result:
    """It can be opened, and gives text that can be asked about. Blocks.

    Args:
        public: whether verifiers are on other machines.
    """
    try:
        with closing(open_source(plan.source, allow_private=plan.allow_private)) as source:
            if plan.source.startswith(LIVE):
                return good(
                    f"{source.name}: its settings can be read; nothing is fetched before the oracle runs"
                )
            return _drawn(source, public=public)
    except ToolMissing as error:
        return bad(str(error), "pip install 'targon[oracle]'")
    except OracleError as error:
        return bad(
            str(error), "name text that is there with --oracle.source: docs/oracle.md says which can be read"
        )


def _drawn(source: Source, *, public: bool) -> Result:
    refiner, refused, fit, until_s = Refiner(), Counter[str](), 0, time.monotonic() + DRAW_S
    for document in source.documents(random.SystemRandom()):
        found = refiner.refine(document)
        if isinstance(found, Reason):
            refused[found.value] += 1
        else:
            fit += 1
        if fit + refused.total() >= DRAWS or time.monotonic() > until_s:
            break
    drawn = fit + refused.total()
    if not fit:
        reasons = ", ".join(f"{reason} {count}" for reason, count in refused.most_common())
        return bad(
            f"{source.name}: none of {drawn} texts gave a passage; refused: {reasons or 'nothing'}",
            "name a source of prose with --oracle.source",
        )
    found_so = f"{source.name}: {fit} of {drawn} texts gave a passage"
    if source.name == EMBEDDED and public:
        return note(
            f"{found_so}. Everybody has this text, and it is exhausted within minutes: it is for trying out",
            "name text of your own with --oracle.source",
        )
    return good(found_so)


async def check_served(link: Link, plan: OraclePlan) -> Result:
    """Somebody may ask; and how much text that takes."""
    metagraph = await link.chain.metagraph()
    verifiers = sum(neuron.validator_permit for neuron in metagraph.neurons)
    if not verifiers:
        return bad(
            f"nobody on subnet {link.info.netuid} has a validator permit: there is nobody to commit to anything for",
            "name the subnet that you mean with --netuid, or wait until somebody has one",
        )
    places = places_for(verifiers, plan.places)
    passages = verifiers * places * plan.period_blocks
    return good(
        f"{verifiers} with a validator permit: with {places} places each, a period of {plan.period_blocks} blocks "
        f"takes {passages:,} passages"
    )


async def check_address(signer: Signer, place: AxonPlace, *, public: bool) -> Result:
    """What verifiers are told. It is not announced on chain.

    Args:
        public: whether verifiers are on other machines.
    """
    try:
        address = ipaddress.ip_address(place.host)
    except ValueError:
        return bad(f"--axon.ip: got {place.host[:80]!r}, expected an IP address", "correct --axon.ip")
    tls, local = speaks_tls(place.tls, place.host), address.is_loopback
    host = "ADDRESS" if address.is_unspecified else f"[{place.host}]" if address.version == 6 else place.host
    told = f"--oracle.url {'https' if tls else 'http'}://{host}:{place.port} --oracle.hotkey {signer.ss58_address}"
    if public and local:
        return note(
            f"{place.host} is this machine's own: verifiers elsewhere can't call it; on this one: {told}",
            "--axon.ip ADDRESS, one that they can call",
        )
    if not tls and not local:
        return note(
            f"it is served without TLS: whoever is on the way can read private inputs before provers see them. {told}",
            "leave --axon.tls away",
        )
    return good(f"verifiers are told: {told}")


def check_lock(holder: Holder, folder: Path, proc: Path) -> Result:
    """No other oracle works with the folder. Blocks.

    Args:
        holder: who has the port; ``us`` is this oracle, which runs already.
    """
    try:
        process = held_by(folder / "lock", proc)
    except OSError as error:
        return note(f"not checked: the system's list of locks can't be read ({error.strerror})")
    if process is None:
        return good("nobody works with it")
    if holder == "us":
        return good(f"the oracle that runs works with it: {process}")
    return bad(
        f"{process} works with it, and doesn't serve at this port: this oracle would be refused",
        "stop that one, or give this one a --data.path, a port and a hotkey of its own",
    )


def check_book(folder: Path, link: Link, signer: Signer) -> Result:
    """What was committed to is this oracle's, on this network. Hands on the newest commitments' bodies. Blocks."""
    path, ours = folder / "commitments.jsonl", (link.info.genesis, link.info.netuid, signer.ss58_address)
    anew = "give this oracle a --data.path of its own, or the wallet and the network that the folder is of"
    try:
        count, newest = newest_written(path)
    except (Damaged, StoreUnavailable) as error:
        return bad(str(error), "keep it as it is; begin anew with another --data.path and another hotkey")
    if not newest:
        return good("there is none yet; the oracle begins with its first start")
    body = newest[-1].body
    if (body.genesis, body.netuid, body.oracle) != ours:
        return bad(
            f"{path} is of oracle {body.oracle} on subnet {body.netuid} of {body.genesis[:12]}…, expected {ours[2]} "
            f"on subnet {ours[1]} of {ours[0][:12]}…",
            anew,
        )
    found = f"{count} commitments, the newest for blocks {body.first} to {body.last}"
    if not (folder / "taken.sqlite").exists():
        return bad(
            f"{found}; and taken.sqlite, which remembers what was taken, is not there: texts would come again",
            "restore taken.sqlite, or begin anew with another --data.path and another hotkey",
        )
    return good(found, value=tuple(commitment.body for commitment in newest))


async def check_periods(bodies: Sequence[CommitmentBody], link: Link, folder: Path) -> Result:
    """What is committed to, and not revealed yet, is still there, whole, and its owner's alone."""
    head = await link.chain.block()
    due = [body for body in bodies if body.last + REVEAL_AFTER_BLOCKS >= head]
    if not due:
        return good("none runs; the oracle begins one when it starts")
    return await anyio.to_thread.run_sync(_whole, folder / "periods", due, abandon_on_cancel=True)


def _whole(folder: Path, bodies: Sequence[CommitmentBody]) -> Result:
    numbers = ", ".join(str(body.number) for body in bodies)
    for body in bodies:
        try:
            with PeriodTexts(folder, body) as texts:
                texts.tree()
        except (OracleError, OSError) as error:
            return bad(
                f"period {body.number}, which is committed to, can't be given or revealed: {error}",
                "restore its files, or wait until its last block is over: verifiers use their own passages until then",
            )
    for body in bodies:
        for file in sorted(folder.glob(f"{body.number}.*")):
            if file.stat().st_mode & 0o077:
                return bad(
                    f"{file} has mode {file.stat().st_mode & 0o777:04o}, expected 0600: who can read it knows what "
                    "verifiers will ask",
                    f"chmod 600 {file.with_suffix('.*')}",
                )
    return good(f"of those that run or come next, {numbers}, every file is whole, and its owner's alone")
