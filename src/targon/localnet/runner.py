"""Runs a local network to its end: starts it, shows it, and says how it ended."""

from __future__ import annotations

import io
import re
import signal
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from rich.console import Console
from rich.live import Live
from rich.panel import Panel

from targon.audit import Unreadable, audit_folder, check_reveals
from targon.chain import Metagraph
from targon.ledger import (
    IntervalClosed,
    ProverConvicted,
    ProverStanding,
    Record,
    ReliesOn,
    SqliteLog,
    Standings,
    StepClosed,
    Verdict,
    WeightsSet,
)
from targon.localnet.network import Network, Seat, data_folder, open_network
from targon.localnet.oracle import Seen, look
from targon.localnet.settings import LIGHT, Settings
from targon.localnet.summary import Line, conviction_faults, ranking_faults, summary
from targon.localnet.users import User
from targon.localnet.view import Tally, draw, legend
from targon.verification import EvidenceState

PATIENCE = 9
"""Intervals that a network goes on beyond those asked for while a cheat isn't convicted, or something else isn't yet as
it will be: how soon it is, is chance, and where steps are slow, a minute holds none."""

POLL_S = 0.5
START_S = 180.0
"""Seconds within which the first verifier must have begun its log (the engines load meanwhile)."""
SETTLE_S = 60.0
"""Seconds that the chain's incentives have at least, after the last interval, to say what the weights say."""


class LocalnetFailed(Exception):
    """The network did not do what it was started for."""


class Watch:
    """Follows the first verifier's log and the chain."""

    def __init__(self, network: Network, log: SqliteLog, clock: Callable[[], float]) -> None:
        self._network = network
        self._log = log
        self._clock = clock
        self._next = 0
        self.standings = Standings()
        self.tally = Tally()
        self.promotions = 0
        self.stopped = False
        self.metagraph: Metagraph | None = None

    async def refresh(self) -> list[Record]:
        """Read what is new; returns the new records."""
        records: list[Record] = []
        async with aclosing(self._log.read(self._next)) as new:
            async for record in new:
                before = self._tiers() if isinstance(record.event, IntervalClosed) else {}
                self.standings.apply(record)
                after = self._tiers() if before else {}
                self.promotions += sum(after[hotkey] > tier for hotkey, tier in before.items())
                self.tally.note(record, self._clock())
                records.append(record)
        self._next += len(records)
        self.metagraph = await self._network.chain.metagraph()
        return records

    def _tiers(self) -> dict[str, int]:
        return {standing.hotkey: int(standing.tier) for standing in self.standings.provers()}

    def screen(self) -> Panel:
        """What there is to see now."""
        if self.metagraph is None:
            return Panel("starting")
        return draw(self._network, self.standings, self.metagraph, self.tally, self._clock())

    @property
    def seats(self) -> tuple[Seat, ...]:
        """Who sits where."""
        return self._network.seats

    @property
    def done(self) -> bool:
        """Whether the intervals have closed, and every cheat that answers is convicted or had its time."""
        goal, closed = self._network.settings.intervals, self.tally.intervals_closed
        if self.stopped or not 0 < goal <= closed:
            return self.stopped
        return not self.patient or not self._at_large()

    @property
    def patient(self) -> bool:
        """Whether there is time left for what is chance."""
        return self.tally.intervals_closed < self._network.settings.intervals + PATIENCE

    def _at_large(self) -> bool:
        """Whether a cheat that answers wasn't convicted yet."""
        standings = (self.standings.prover(seat.hotkey) for seat in self.seats if seat.player.convictable)
        return any(standing is None or not standing.convictions for standing in standings)

    async def lines(self) -> list[Line]:
        """Every prover as it stands now, by the log and by the chain."""
        self.metagraph = await self._network.chain.metagraph()
        verifier = self.metagraph.by_hotkey(self._network.verifiers[0])
        weights = {} if verifier is None else await self._network.chain.weights_of(verifier.uid)
        lines = []
        for seat in self._network.seats:
            standing = self.standings.prover(seat.hotkey)
            neuron = self.metagraph.by_uid(seat.uid)
            lines.append(
                Line(
                    uid=seat.uid,
                    player=seat.player,
                    tier=standing.tier.label if standing else "-",
                    successes=standing.total_successes if standing else 0,
                    score=standing.score if standing else 0.0,
                    weight=weights.get(seat.uid, 0),
                    incentive=neuron.incentive if neuron else 0.0,
                    **_convictions(standing),
                )
            )
        return lines


def _convictions(standing: ProverStanding | None) -> dict[str, Any]:
    """The fields of a :class:`Line` that speak of evidence."""
    if standing is None:
        return {}
    first = standing.first_conviction
    state = None if standing.evidence is None else EvidenceState.from_json(standing.evidence)
    return {
        "convictions": standing.convictions,
        "tokens_to_conviction": None if first is None else first.tokens,
        "answers_to_conviction": None if first is None else first.completions,
        "log_e": 0.0 if state is None else state.log_e,
    }


async def run(settings: Settings, console: Console, picture: Path | None = None) -> int:
    """Run a local network until its intervals have closed, and print how it ended.

    Args:
        picture: where to write the last screen as SVG.

    Returns:
        0 if every honest prover ended above every cheat, every cheat that answers was convicted and nobody else
        was, and an audit of what was published found nothing; else 1.

    Raises:
        FolderInUse, ProcessDied, LocalnetFailed: if there was no such end.
    """
    began = time.monotonic()
    more = ", an oracle" if settings.has_oracle else ""
    console.print(
        f"Starting a chain{more}, {len(settings.verifier_names)} verifier(s), their engines and the provers …"
    )
    async with open_network(settings) as network:
        for line in legend(network):
            console.print(f"  [magenta]{line}[/]", highlight=False)
        async with _log_of(network) as log:
            console.print(f"Running after {time.monotonic() - began:.0f} s.", highlight=False)
            console.print("Users are served. While it runs, ask it yourself:", highlight=False)
            console.print(f"  {network.door.example()}", highlight=False, markup=False, soft_wrap=True)
            watch = Watch(network, log, time.monotonic)
            user = User(network.door)
            async with anyio.create_task_group() as group:
                group.start_soon(_stop_when_asked, watch)
                group.start_soon(user.run)
                await _follow(watch, network, console)
                if not watch.stopped:
                    await _settle(watch, network)
                group.cancel_scope.cancel()
            if picture is not None:
                _take_picture(watch, picture)
            lines = await watch.lines()
            seen = await _see_oracle(network, watch)
            seconds = time.monotonic() - began
    print_summary(console, watch, network, lines, seconds, user, seen)
    exact = await _audit(network, console)
    others = seen.faults() if seen is not None else []
    return 1 if ranking_faults(lines) or conviction_faults(lines) or others or not exact else 0


async def _see_oracle(network: Network, watch: Watch) -> Seen | None:
    """What verifiers saw of the oracle, while it still runs; None: there is none."""
    if network.oracle is None:
        return None
    inputs = await look(network.oracle, network.reveals)
    borrowed = await _borrowed(network) if network.settings.light else None
    return Seen(inputs, watch.tally.commitments, tuple(watch.tally.caught), borrowed)


async def _borrowed(network: Network) -> int:
    """How much the light verifier has judged."""
    path = network.log_path(LIGHT)
    if not path.exists():
        return 0
    async with aclosing(await SqliteLog.open(path, read_only=True)) as log, aclosing(log.read(0)) as records:
        return sum([isinstance(record.event, Verdict) async for record in records])


async def _audit(network: Network, console: Console) -> bool:
    """Audit what the first verifier published, as a stranger would; returns whether nothing is wrong with it."""
    folder = data_folder(network.settings) / "segments"
    try:
        report, _ = await anyio.to_thread.run_sync(audit_folder, folder)
    except Unreadable:
        console.print("It published nothing of its log yet, so there is nothing to audit.", highlight=False)
        return True
    command = f"  targon audit {folder}"
    if network.oracle is not None:
        known, reveals = len(report.oracles.commitments), str(network.reveals)
        await check_reveals(
            reveals, report.oracles, report.faults, report.notes, count=known, scratch=network.reveals
        )
        console.print(
            f"It tells of {known} periods of the oracle; {report.oracles.reveals} of them were over, and what the "
            "oracle revealed of them was computed again.",
            highlight=False,
            soft_wrap=True,
        )
        command += f" --oracle {reveals} --reveals {max(known, 1)}"
    said = "exact" if report.exact else "; ".join(str(fault) for fault in report.faults.kept[:3])
    console.print(
        f"As a stranger would, it was audited by what it published: {said} ({report.records} records, "
        f"{report.draws.routes} routes, {report.draws.audits} audits, {report.weights_checked} weight vectors computed "
        "again). Do it yourself:",
        highlight=False,
    )
    console.print(command, highlight=False, markup=False, soft_wrap=True)
    return report.exact


@asynccontextmanager
async def _log_of(network: Network) -> AsyncGenerator[SqliteLog, None]:
    """The first verifier's log, once it has begun."""
    path = network.log_path()
    with anyio.move_on_after(START_S):
        while not path.exists():
            network.check()
            await anyio.sleep(POLL_S)
    if not path.exists():
        raise LocalnetFailed(
            f"the verifier began no log within {START_S:g} s: see the output of its process and its engine's in "
            f"{network.settings.path}"
        )
    log = await SqliteLog.open(path, read_only=True)
    try:
        yield log
    finally:
        await log.aclose()


async def _stop_when_asked(watch: Watch) -> None:
    """The first SIGINT or SIGTERM ends the network with its summary; from then on they do what they always do."""
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            watch.stopped = True
            return


async def _follow(watch: Watch, network: Network, console: Console) -> None:
    """Show the network until it has done what it was started for."""
    if not console.is_terminal:
        while not watch.done:
            network.check()
            for record in await watch.refresh():
                _print_plainly(record, watch, console)
            await anyio.sleep(POLL_S)
        return
    with Live(console=console, auto_refresh=False, screen=False) as live:
        while not watch.done:
            network.check()
            await watch.refresh()
            live.update(watch.screen(), refresh=True)
            await anyio.sleep(POLL_S)


def _print_plainly(record: Record, watch: Watch, console: Console) -> None:
    """A line per step and per interval, for where there is no terminal."""
    event, tally = record.event, watch.tally
    if isinstance(event, StepClosed):
        console.print(f"block {event.block}: {tally.verdicts} verdicts so far", highlight=False)
    elif isinstance(event, IntervalClosed):
        console.print(f"interval {event.interval} closed: tiers moved", highlight=False)
    elif isinstance(event, ReliesOn):
        source = "the oracle" if event.inputs else "the verifier's own source"
        said = f"private inputs come from {source} now: {event.why}"
        console.print(said, highlight=False, markup=False, soft_wrap=True)
    elif isinstance(event, ProverConvicted):
        name = next(seat.player.name for seat in watch.seats if seat.hotkey == event.prover)
        console.print(
            f"{name} is convicted, after {event.tokens} tokens of {event.completions} answers",
            highlight=False,
        )
    elif isinstance(event, WeightsSet):
        console.print(f"weights of {len(event.weights)} provers set in block {event.block}", highlight=False)


async def _settle(watch: Watch, network: Network) -> None:
    """Wait for what only takes its time: an epoch after the last weights, so that incentives say what scores say, and a
    light verifier's first verdict."""
    until = anyio.current_time() + SETTLE_S
    while not watch.stopped and (watch.patient or anyio.current_time() < until):
        network.check()
        await watch.refresh()
        settled = not ranking_faults(await watch.lines())
        if settled and (not network.settings.light or await _borrowed(network) > 0):
            return
        await anyio.sleep(POLL_S)


def _take_picture(watch: Watch, path: Path) -> None:
    paper = Console(record=True, width=150, file=io.StringIO(), force_terminal=True)
    paper.print(watch.screen())
    drawn = paper.export_svg(title="targon localnet")
    # Rich's pictures load their fonts from a server; this one should ask nobody.
    path.write_text(re.sub(r"@font-face \{.*?\}", "", drawn, flags=re.DOTALL), "utf-8")


def print_summary(
    console: Console,
    watch: Watch,
    network: Network,
    lines: list[Line],
    seconds: float,
    user: User,
    seen: Seen | None,
) -> None:
    tally = watch.tally
    facts = [
        f"{tally.intervals_closed} intervals, {tally.verdicts} challenges judged in {seconds:.0f} s "
        f"({tally.per_minute(time.monotonic()):.0f} a minute), {tally.tokens} tokens verified.",
        f"{tally.inferences} inferences answered, {user.answered} of them for the user that this command plays, who "
        f"fetched {user.receipts} receipts; {tally.audits} inferences were drawn for an audit.",
        *(seen.facts() if seen is not None else ()),
    ]
    for line in summary(
        lines,
        path=network.settings.path,
        log=network.log_path(),
        profile=network.settings.profile.name,
        promotions=watch.promotions,
        facts=facts,
        others=seen.faults() if seen is not None else (),
    ):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
