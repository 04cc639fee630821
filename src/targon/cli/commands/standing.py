"""``targon standing``: how a prover stands with a verifier, as that verifier says itself."""

from __future__ import annotations

import os
import sys
from contextlib import aclosing

import anyio
from bittensor.keyfiles import Keypair
from pydantic import Field
from pydantic_settings import CliPositionalArg, CliUnknownArgs
from rich.console import Console
from rich.table import Table
from rich.text import Text

from targon.chain import Neuron, open_chain
from targon.cli.errors import DoesNotAnswer, DoesNotKnowUs, NoStanding, Refuses, ServesNothing, WrongOptions
from targon.cli.keys import open_hotkey
from targon.cli.loading import load
from targon.cli.options import Options, RoleOptions, Tls
from targon.protocol.disclosures import ProverOwnStanding
from targon.protocol.errors import MalformedMessage
from targon.protocol.keys import public_key
from targon.protocol.primitives import Hotkey, Uid
from targon.transport import BadResponse, Code, Deadlines, NeuronClient, Refused, TransportError

DEADLINES = Deadlines(connect_s=10.0, first_byte_s=10.0, between_bytes_s=10.0, total_s=20.0)
"""A standing is told from memory."""
CHAIN_S = 30.0


class StandingCommand(Options):
    """Ask a verifier how the prover with this wallet's hotkey stands with it, and why. UID or hotkey come first, then
    the prover's own flags (--wallet.name, --subtensor.network, --config …); its environment counts, too."""

    verifier: CliPositionalArg[str]
    """The verifier's UID or hotkey."""
    flags: CliUnknownArgs
    tls: Tls = "auto"
    """Ask over TLS; auto: unless the verifier's address is loopback."""
    as_json: bool = Field(False, validation_alias="json")
    """Print what it told as JSON."""

    def run(self) -> int:
        whom = named(self.verifier)
        loaded = load("prover", self.flags, os.environ)
        for warning in loaded.warnings:
            sys.stderr.write(f"targon: warning: {warning}\n")
        told = anyio.run(ask_standing, whom, loaded.options, open_hotkey(loaded.options.wallet), self.tls)
        if self.as_json:
            sys.stdout.write(told.to_bytes().decode() + "\n")
        else:
            _show(told, Console(highlight=False))
        return 0


def named(word: str) -> Uid | Hotkey:
    """The neuron that a word names.

    Raises:
        WrongOptions: if it names none.
    """
    if word.isdecimal():
        return Uid(int(word))
    try:
        public_key(Hotkey(word))
    except MalformedMessage as error:
        raise WrongOptions(
            [f"VERIFIER: got {word!r}, expected a UID or a hotkey, before any flag of the prover's"]
        ) from error
    return Hotkey(word)


async def ask_standing(
    whom: Uid | Hotkey, options: RoleOptions, signer: Keypair, tls: Tls
) -> ProverOwnStanding:
    verifier = await _neuron(whom, options)
    if verifier.axon is None:
        raise ServesNothing(
            f"verifier {verifier.uid} ({verifier.hotkey}) serves nothing: no address of it stands on chain, expected "
            "one. Its operator may have switched its axon off; ask there, or ask another verifier"
        )
    async with NeuronClient(deadlines=DEADLINES, tls=tls) as client:
        try:
            told = await client.standing(verifier.axon, verifier.hotkey, signer)
        except Refused as error:
            raise _refusal(error, verifier, signer) from error
        except BadResponse as error:
            raise DoesNotAnswer(
                f"what answers there is not the verifier with UID {verifier.uid}, expected it: {error}"
            ) from error
        except TransportError as error:
            raise DoesNotAnswer(f"verifier {verifier.uid} doesn't answer: {error}") from error
    if (told.verifier, told.prover) != (verifier.hotkey, signer.ss58_address):
        raise DoesNotAnswer(
            f"{verifier.axon}: got the standing of {told.prover} with {told.verifier}, expected that of "
            f"{signer.ss58_address} with {verifier.hotkey}: somebody else answers there"
        )
    return told


async def _neuron(whom: Uid | Hotkey, options: RoleOptions) -> Neuron:
    subtensor = options.subtensor
    chain = await open_chain(subtensor.chain_endpoint, options.netuid, subtensor.network)
    async with aclosing(chain):
        try:
            with anyio.fail_after(CHAIN_S):
                metagraph = await chain.metagraph()
        except TimeoutError:
            raise DoesNotAnswer(f"the chain gave no answer within {CHAIN_S:g} s") from None
    found = metagraph.by_uid(whom) if isinstance(whom, int) else metagraph.by_hotkey(whom)
    if found is None:
        what = f"UID {whom}" if isinstance(whom, int) else f"hotkey {whom}"
        raise ServesNothing(
            f"there is no {what} on subnet {options.netuid}, expected a verifier's; check --netuid and "
            "--subtensor.network"
        )
    return found


def _refusal(error: Refused, verifier: Neuron, signer: Keypair) -> NoStanding:
    if error.code == Code.NOT_A_PROVER:
        return DoesNotKnowUs(
            f"verifier {verifier.uid} has no prover {signer.ss58_address} in its log, expected one: it takes one up "
            "within a few blocks, if it is registered and its address stands on chain"
        )
    if error.code == Code.NOT_REGISTERED:
        return DoesNotKnowUs(
            f"verifier {verifier.uid} finds no UID of {signer.ss58_address} on chain: register it; one that registered "
            "just now is let in within 5 blocks"
        )
    if error.code in (Code.NO_SUCH_PATH, Code.WRONG_RECEIVER, "unknown"):
        return DoesNotAnswer(
            f"what answers there is not the verifier with UID {verifier.uid}, expected it: {error}"
        )
    later = "" if error.retry_after_s is None else f"; try again in {error.retry_after_s:g} s"
    return Refuses(f"verifier {verifier.uid} refuses to tell: {error.message} ({error.code}){later}")


def _show(told: ProverOwnStanding, console: Console) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows(told):
        # text, never markup: reasons quote what others said
        table.add_row(name, Text(value))
    console.print(table)


def rows(told: ProverOwnStanding) -> list[tuple[str, str]]:
    """What is shown of a standing."""
    shown = [
        ("verifier", f"{told.verifier}, as of block {told.block}"),
        ("prover", f"{told.prover}, {'without a UID' if told.uid is None else f'UID {told.uid}'}"),
        ("tier", told.tier + (f", fallen from {told.fallen_from}" if told.fallen_from else "")),
        ("passed", _passed(told)),
        ("inconclusive", str(told.inconclusive)),
        ("requests", f"{told.sent} this interval; {told.requests_left} left"),
        ("total successes", str(told.total_successes)),
        ("verified tokens", _tokens(told)),
        ("score", f"{told.score:.4f}"),
        ("weight", _weight(told)),
    ]
    if told.native:
        shown.append(("native", f"{told.native}, which count for nothing"))
    if told.convictions:
        last = told.last_conviction
        when = "" if last is None else f", last in block {last.block} (record {last.seq})"
        shown.append(("convictions", f"{told.convictions}{when}"))
    verdict = told.last_verdict
    if verdict is None:
        return [*shown, ("last verdict", "none yet")]
    return [
        *shown,
        ("last verdict", f"{verdict.outcome}: {verdict.reason} ({verdict.method}, record {verdict.seq})"),
    ]


def _passed(told: ProverOwnStanding) -> str:
    rate = "" if told.success_rate is None else f", {told.success_rate:.1%}"
    return f"{told.successes} of {told.attempts}{rate}"


def _tokens(told: ProverOwnStanding) -> str:
    trial = f"; on probation until {told.probation_tokens:,}" if told.on_probation else ""
    return f"{told.verified_tokens:,}{trial}"


def _weight(told: ProverOwnStanding) -> str:
    if told.weights_block is None:
        return "none were set yet"
    return f"{told.weight or 0} of 65535, set in block {told.weights_block}"
