"""What a person sees while a local network runs: one screen, drawn from the log and the chain alone."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from targon.chain import Metagraph, Neuron
from targon.ledger import (
    Answered,
    Attempt,
    InputsCommitted,
    IntervalClosed,
    OracleFaulted,
    ProverStanding,
    Record,
    Standings,
    Verdict,
)
from targon.localnet.cast import CHEAT_WORDS, Player
from targon.localnet.network import Network, Seat
from targon.protocol.weights import NoWeights

OUTCOME_STYLE = {"pass": "green", "fail": "red", "inconclusive": "yellow"}
SPEED_WINDOW_S = 30.0


@dataclass
class Tally:
    """What the view counts beside the standings."""

    verdicts: int = 0
    inferences: int = 0
    """That were answered."""
    tokens: int = 0
    audits: int = 0
    """Of these, those that were drawn for an audit."""
    commitments: int = 0
    """An oracle's, that were seen."""
    caught: list[str] = field(default_factory=list)
    """What the oracle was caught at, in words."""
    intervals_closed: int = 0
    first_at_s: float | None = None
    recent: deque[tuple[float, int]] = field(default_factory=deque)
    """(when, tokens) of the last half minute's verdicts."""

    def note(self, record: Record, now_s: float) -> None:
        """Count one record, seen at ``now_s`` seconds of any steady clock."""
        event = record.event
        if isinstance(event, IntervalClosed):
            self.intervals_closed += 1
        elif isinstance(event, Attempt) and self.first_at_s is None:
            self.first_at_s = now_s
        elif isinstance(event, InputsCommitted):
            self.commitments += 1
        elif isinstance(event, OracleFaulted):
            self.caught.append(f"{event.what} in block {event.block}: {event.detail}")
        elif isinstance(event, Answered):
            self.inferences += 1
            self.audits += event.audited
        elif isinstance(event, Verdict):
            self.verdicts += 1
            self.tokens += event.tokens
            self.recent.append((now_s, event.tokens))

    def tokens_per_s(self, now_s: float) -> float:
        """Verified tokens per second over the last half minute."""
        while self.recent and self.recent[0][0] < now_s - SPEED_WINDOW_S:
            self.recent.popleft()
        if not self.recent:
            return 0.0
        return sum(tokens for _, tokens in self.recent) / max(now_s - self.recent[0][0], 1.0)

    def per_minute(self, now_s: float) -> float:
        """Verdicts a minute since the first attempt."""
        return 0.0 if self.first_at_s is None else 60 * self.verdicts / max(now_s - self.first_at_s, 1.0)


def draw(network: Network, standings: Standings, metagraph: Metagraph, tally: Tally, now_s: float) -> Panel:
    """The whole screen."""
    table = Table(expand=True, box=None, header_style="bold", pad_edge=False)
    for name in ("UID", "prover"):
        table.add_column(name, no_wrap=True)
    table.add_column("tier", no_wrap=True)
    for name in ("rate", "passed", "score", "weight", "incentive"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("last verdict, and why", ratio=1, no_wrap=True, overflow="ellipsis")
    weights = NoWeights("nothing is logged yet") if standings.opened is None else standings.weights()
    for seat in network.seats:
        standing = standings.prover(seat.hotkey)
        weight = 0 if isinstance(weights, NoWeights) else weights.get(seat.uid, 0)
        table.add_row(*_row(seat, standing, weight, metagraph.by_uid(seat.uid)))
    return Panel(
        Group(_headline(network, metagraph, tally, now_s), Text(), table),
        title="[bold]TARGON[/bold] local network",
        subtitle="green passed, red failed, yellow inconclusive",
        border_style="blue",
    )


def _headline(network: Network, metagraph: Metagraph, tally: Tally, now_s: float) -> Text:
    length = network.settings.profile.interval_blocks
    interval, place = divmod(metagraph.block, length)
    goal = network.settings.intervals
    text = Text()
    text.append(f"block {metagraph.block}", "bold")
    text.append(f"   interval {interval} ({place + 1}/{length} blocks, {tally.intervals_closed} closed")
    text.append(f" of {goal})" if goal else ")")
    text.append(f"   {tally.verdicts} verdicts, {tally.per_minute(now_s):.0f} a minute")
    text.append(f"   {tally.inferences} inferences")
    text.append(f"   {tally.tokens_per_s(now_s):.0f} tokens/s verified")
    return text


def _row(
    seat: Seat, standing: ProverStanding | None, weight: int, neuron: Neuron | None
) -> tuple[Text | str, ...]:
    name = _name(seat.player)
    if standing is None:
        return str(seat.uid), name, "", "", "", "", "", "", Text("starting", "dim")
    last = standing.last_verdict
    conviction = standing.last_conviction
    why = Text("no verdict yet", "dim")
    if last is not None:
        why = Text(f"{last.outcome}: {last.reason}", OUTCOME_STYLE[last.outcome])
    if conviction is not None:
        why = Text(f"convicted after {conviction.tokens} tokens; ", "bold red").append_text(why)
    return (
        str(seat.uid),
        name,
        standing.tier.label,
        "-" if standing.success_rate is None else f"{float(standing.success_rate):.0%}",
        str(standing.total_successes),
        f"{standing.score:.3f}",
        str(weight) if weight else "-",
        f"{neuron.incentive:.1%}" if neuron is not None else "-",
        why,
    )


def _name(player: Player) -> Text:
    return Text(player.name, "cyan" if player.cheat is None else "magenta")


def legend(network: Network) -> list[str]:
    """One line per cheat: what it does."""
    names = dict.fromkeys(seat.player.cheat for seat in network.seats if seat.player.cheat is not None)
    return [f"{name}: {CHEAT_WORDS[name]}" for name in names]
