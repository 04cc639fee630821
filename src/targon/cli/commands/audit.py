"""``targon audit``: everything that a verifier publishes, computed again by anyone."""

from __future__ import annotations

import json
import sys
import tempfile
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
from pydantic import Field
from pydantic_settings import CliPositionalArg
from rich.console import Console
from rich.table import Table
from rich.text import Text

from targon.audit import (
    Report,
    Wanted,
    audit_folder,
    check_places,
    check_reveals,
    compare,
    compare_with_chain,
    fetch_segments,
    is_url,
    reverify,
)
from targon.audit.signatures import SIGNATURES
from targon.audit.tallies import Tally
from targon.chain import Chain, open_chain
from targon.cli.engine import opened_engine
from targon.cli.errors import WrongOptions
from targon.cli.options import EngineOptions, Options, SubtensorOptions
from targon.verification import SIMILARITY, SignedAnswer, check_answer, find_calibration

EXACT, FAULTS = 0, 1
"""The exit codes; 2: it was asked for wrongly."""

CHAIN_S = 60.0
"""Longest wait for the chain."""


class AuditCommand(Options):
    """Check everything that a verifier publishes: hashes and signatures, draws, evidence, tiers, scores and weights,
    all computed again from its log. Exit code: 0 if all is exact, 1 if anything is wrong; each fault is named."""

    source: CliPositionalArg[str]
    """Folder of segments (a verifier's --data.path/segments, or a copy), or a gateway's address: https://host:port."""
    netuid: int = Field(4, ge=0, lt=65_536)
    """The subnet, to compare with the chain."""
    subtensor: SubtensorOptions | None = None
    """The chain to compare with; without it, nothing is compared with a chain."""
    receipt: list[Path] = Field(default_factory=list)
    """Files of receipts as a gateway tells them (GET /v1/receipts/ID): the log must hold each where the verifier signed
    that it does. Give it once for each."""
    against: str = ""
    """Another copy of the same verifier's segments, folder or address: both must say the same."""
    also: list[str] = Field(default_factory=list)
    """Another verifier's segments, folder or address: whether oracles told both the same. Give it once for each."""
    oracle: str = ""
    """An oracle's address, or a folder of what it revealed (N.jsonl, as GET /v1/reveals/N gives it): each period must
    be what it committed to. At an address, with a chain, also: whether everybody with a permit has a place."""
    reveals: int = Field(3, ge=1, le=100_000)
    """How many of the periods that the log tells of to compute again from what --oracle revealed, drawn at random."""
    calibration: list[Path] = Field(default_factory=list)
    """Files or folders of calibrations, beside those that come with the software, to compute evidence again with."""
    signatures: int = Field(SIGNATURES, ge=0)
    """About how many of the log's receipts to check their provers' signatures of, drawn at random; give a number beyond
    that of the log's records to check all."""
    reverify: int = Field(0, ge=0, le=10_000)
    """How many of the published answers to check again on an engine of one's own."""
    engine: EngineOptions = EngineOptions()
    """The engine to check them with."""
    deadline: float = Field(300.0, gt=0.0)
    """Seconds that the engine has for one question."""
    keep: Path | None = None
    """Folder to keep what is fetched from an address; a later audit goes on from there."""
    as_json: bool = Field(False, validation_alias="json")
    """Print the report as JSON."""

    def run(self) -> int:
        if self.keep is not None and not is_url(self.source):
            raise WrongOptions(["--keep: got a folder to audit, expected an address to fetch from"])
        report = anyio.run(self._audit)
        if self.as_json:
            sys.stdout.write(json.dumps(report.as_json(), ensure_ascii=True) + "\n")
        else:
            console = Console(highlight=False, markup=False, soft_wrap=True)
            if not console.is_terminal:
                console.width = 160
            show(report, console)
        return EXACT if report.exact else FAULTS

    async def _audit(self) -> Report:
        async with AsyncExitStack() as stack:
            chain: Chain | None = None
            if self.subtensor is not None:
                with anyio.fail_after(CHAIN_S):
                    chain = await open_chain(
                        self.subtensor.chain_endpoint, self.netuid, self.subtensor.network
                    )
                stack.push_async_callback(chain.aclose)
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="targon-audit-")))
            folder = await self._folder(self.source, self.keep or scratch / "one")
            against = await self._folder(self.against, scratch / "other") if self.against else None
            wanted = Wanted(signatures=self.signatures)
            work = partial(
                audit_folder,
                folder,
                calibrations=self.calibration,
                receipts=self.receipt,
                against=against,
                commit_digest=None if chain is None else chain.commit_digest,
                wanted=wanted,
                answers=self.reverify,
            )
            report, drawn = await anyio.to_thread.run_sync(work)
            if chain is not None:
                with anyio.fail_after(CHAIN_S):
                    await compare_with_chain(chain, report, wanted)
            await self._look_at_oracles(report, scratch)
            if chain is not None and is_url(self.oracle):
                with anyio.fail_after(CHAIN_S):
                    await check_places(self.oracle.rstrip("/"), chain, report.oracles, report.notes)
            if self.reverify:
                await self._reverify(drawn, wanted, report, stack)
            return report

    async def _look_at_oracles(self, report: Report, scratch: Path) -> None:
        others = []
        for number, source in enumerate(self.also):
            folder = await self._folder(source, scratch / f"also-{number}")
            other, _ = await anyio.to_thread.run_sync(audit_folder, folder)
            if not other.exact:
                report.notes.append(f"{source} is not exact itself: audit it on its own")
            if (other.genesis, other.netuid) != (report.genesis, report.netuid):
                report.notes.append(f"{source} is of another network: it says nothing of this one's oracles")
                continue
            others.append(other.oracles)
        if others:
            compare(report.oracles, others, report.faults)
        if self.oracle:
            await check_reveals(
                self.oracle,
                report.oracles,
                report.faults,
                report.notes,
                count=self.reveals,
                scratch=scratch,
            )

    async def _folder(self, source: str, fetched: Path) -> Path:
        if not is_url(source):
            return Path(await anyio.Path(source).expanduser())
        await fetch_segments(source, fetched, transcripts=self.reverify > 0)
        return fetched

    async def _reverify(
        self, drawn: list[SignedAnswer], wanted: Wanted, report: Report, stack: AsyncExitStack
    ) -> None:
        if not drawn:
            report.notes.append("no answers are published: none could be checked again")
            return
        engine = await stack.enter_async_context(opened_engine(self.engine))
        calibration = find_calibration(engine.identity, self.calibration)
        check = partial(
            check_answer,
            engine=engine,
            calibration=calibration,
            similarity_threshold=SIMILARITY,
            deadline_s=self.deadline,
        )
        await reverify(drawn, check, wanted, report)


def show(report: Report, console: Console) -> None:
    """Print a report for people. What the log holds is somebody else's: it is printed as text, never as markup."""
    for name, value in lines(report):
        console.print(Text.assemble((f"{name:<12} ", "dim"), value))
    console.print(_table(report))
    for note in report.notes:
        console.print(Text(f"Note: {note}.", "yellow"))
    for fault in report.faults.kept:
        console.print(Text(str(fault), "red"))
    if report.oracles.proofs:
        console.print(
            Text("Both commitments, as they were signed, are in the report that --json prints.", "red")
        )
    unlisted = report.faults.total - len(report.faults.kept)
    if unlisted > 0:
        console.print(Text(f"… and {unlisted} more", "red"))
    if report.exact:
        console.print(Text("Exact: everything that was computed again is as the log says.", "bold green"))
    else:
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(report.faults.counts.items()))
        console.print(Text(f"Not exact: {counts}.", "bold red"))


def lines(report: Report) -> list[tuple[str, str]]:
    """The summary, but for provers, notes and faults."""
    draws = report.draws
    rate = report.records / report.seconds if report.seconds else 0.0
    found = [
        ("verifier", f"{report.verifier}, subnet {report.netuid} of {(report.genesis or '')[:12]}…"),
        (
            "log",
            f"{report.records} records in {report.segments} segments, up to record {report.records - 1} "
            f"({(report.head or '')[:12]}…) and block {report.block}; {rate:,.0f} records/s",
        ),
        (
            "draws",
            f"{draws.routes} routes, {draws.audits} audits, {draws.challenges} challenges and {draws.own} own "
            f"inferences drawn again; {draws.unchecked} attempts of open intervals not",
        ),
        (
            "evidence",
            f"of {report.evidence_checked} verdicts computed again, of {report.evidence_unchecked} not",
        ),
        (
            "weights",
            f"{report.weights_checked} vectors computed again; {report.commits_checked} commits to them checked",
        ),
        (
            "outcomes",
            f"{report.open_attempts} attempts have none yet; {report.awaiting_verdict} audited answers await a verdict",
        ),
    ]
    found += [("oracles", said) for said in report.oracles.lines()]
    found += [("chain", said) for said in report.chain]
    found.append(("signatures", f"{report.signatures_checked} receipts in the log, drawn at random"))
    if report.receipts_checked:
        found.append(("receipts", f"{report.receipts_checked} looked up in the log"))
    if report.reverified:
        numbers = ", ".join(str(row["attempt"]) for row in report.reverified)
        found.append(("reverified", f"{len(report.reverified)} answers, of attempts {numbers}"))
    return found


def _table(report: Report) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    names = ("UID", "tier", "score", "weight", "attempts", "answered", "audited", "passed", "failed")
    for name in (*names, "inconcl.", "withdrawn", "open", "awaiting", "passed over"):
        table.add_column(name, justify="left" if name == "tier" else "right", no_wrap=True)
    for prover in report.provers:
        tally = report.tallies.get(prover.hotkey, Tally())
        weight = 0 if prover.uid is None else report.weights.get(prover.uid, 0)
        table.add_row(
            "left" if prover.uid is None else str(prover.uid),
            prover.tier.label,
            f"{prover.score:.4f}",
            str(weight) if weight else "-",
            *(
                str(count)
                for count in (
                    tally.attempts,
                    tally.answered,
                    tally.audited,
                    tally.passed,
                    tally.failed,
                    tally.inconclusive,
                    tally.user_left + tally.outrun + tally.busy + tally.unservable,
                    report.open_by_prover.get(prover.hotkey, 0),
                    report.awaiting_by_prover.get(prover.hotkey, 0),
                    tally.passed_over + tally.not_challenged + tally.own_missed,
                )
            ),
        )
    return table
