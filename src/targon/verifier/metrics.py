"""What a verifier shows its operator: counters of its work, figures of its log, and what ails it."""

from __future__ import annotations

import socket
from collections import Counter as Tally
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from targon.chain import SubnetInfo
from targon.chain.followed import MAX_AGE_S
from targon.ledger import Head, Verdict
from targon.protocol.primitives import Block
from targon.protocol.tiers import Tier
from targon.transport import Limits, bind, operations_app, serve
from targon.verification.querying import Ending
from targon.verifier.journal import Journal
from targon.verifier.watch import ChainWatch

STALLED_BLOCKS: Final = 30
"""Blocks after which a verifier whose steps don't close is ailing. A step takes half as many where its provers, and
then its reference engine, take all the time that they are given."""
UNWRITTEN_S: Final = 10.0
"""How long the log may take for what was handed to it: as long as SQLite waits for its file."""

_SECONDS: Final = (0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0)

Step = Callable[[Block, SubnetInfo], Awaitable[None]]


class VerifierMetrics:
    """Counters of one verifier's work in the registry of its role, and the port that shows them.

    Args:
        port: on 127.0.0.1, for ``/metrics`` and ``/healthz``; None: not served; 0: any free one.
    """

    def __init__(
        self,
        port: int | None,
        *,
        journal: Journal,
        watch: ChainWatch,
        monotonic_s: Callable[[], float],
        registry: CollectorRegistry,
    ) -> None:
        self._port = port
        self._journal = journal
        self._watch = watch
        self._monotonic_s = monotonic_s
        self._registry = registry
        self._socket: socket.socket | None = None
        self._closed = Block(0)  # the newest block whose step closed; before any, the one that we began in
        self._unwritten: tuple[Head, float] | None = None
        self._has_closed = False
        self._handled = Counter(
            "targon_verifier_blocks_handled", "Blocks whose step closed.", registry=registry
        )
        self._verdicts = Counter(
            "targon_verifier_verdicts", "Verdicts, by outcome.", ["outcome"], registry=registry
        )
        self._inferences = Counter(
            "targon_verifier_inferences",
            "Inferences that ended, by how: answered, failed, withdrawn.",
            ["ending"],
            registry=registry,
        )
        self._turned_away = Counter(
            "targon_verifier_turned_away",
            "Users' requests that no prover could take.",
            registry=registry,
        )
        self._turned_away_behind = Counter(
            "targon_verifier_turned_away_behind",
            "Inferences that were not taken because audits waited for too long.",
            registry=registry,
        )
        self._behind = Gauge(
            "targon_verifier_audits_behind",
            "1 while audits wait for too long, and no inference is taken.",
            registry=registry,
        )
        self._queries = Counter(
            "targon_verifier_queries",
            "Queries that the model was asked to write, by the try that gave one: first, second, none.",
            ["try"],
            registry=registry,
        )
        self._seconds = Histogram(
            "targon_verifier_step_seconds",
            "From a block's step's begin to its close.",
            buckets=_SECONDS,
            registry=registry,
        )
        registry.register(_LogCollector(journal, watch))

    def timed(self, step: Step) -> Step:
        """The step, counted and timed where it closes a block."""

        async def timed_step(block: Block, info: SubnetInfo) -> None:
            started_s, before = self._monotonic_s(), self._journal.standings.stepped_block
            await step(block, info)
            if self._journal.standings.stepped_block > before:
                self._closed = block
                self._handled.inc()
                self._has_closed = True
                self._seconds.observe(self._monotonic_s() - started_s)

        return timed_step

    def judged(self, verdict: Verdict) -> None:
        """Count a verdict."""
        self._verdicts.labels(verdict.outcome).inc()

    def inference(self, ending: str) -> None:
        """Count an inference that ended."""
        self._inferences.labels(ending).inc()

    def query(self, ending: Ending) -> None:
        """Count a query that the model was asked to write."""
        self._queries.labels(ending).inc()

    def turned_away(self) -> None:
        """Count a user's request that no prover could take."""
        self._turned_away.inc()

    def turned_away_behind(self) -> None:
        """Count an inference that was not taken because audits waited for too long."""
        self._turned_away_behind.inc()

    def behind(self, behind: bool) -> None:
        """Show whether audits wait for too long."""
        self._behind.set(behind)

    @contextmanager
    def bound(self) -> Iterator[None]:
        """Take the operator's port, before anything dear is started.

        Raises:
            PortInUse: naming the port and what to do.
        """
        if self._port is None:
            yield
            return
        with bind("127.0.0.1", self._port, flag="--metrics.port") as self._socket:
            yield

    async def run(self) -> None:
        """Show them until cancelled."""
        self._closed = max(self._closed, self._watch.head)
        if self._socket is not None:
            await serve(operations_app(self._registry, self.ailing), self._socket, limits=Limits())

    def is_healthy(self) -> bool:
        """Whether a step has closed since the start, and nothing ails."""
        return self._has_closed and self.ailing() is None

    def ailing(self) -> str | None:
        """What is wrong now, in words; None if nothing is."""
        return self._log_trouble() or self._chain_trouble() or self._stall()

    def _log_trouble(self) -> str | None:
        """Events are folded before they are written: the two part for as long as the log takes, or for good."""
        head = self._journal.head
        if self._journal.standings.head == head:
            self._unwritten = None
            return None
        if self._unwritten is None or self._unwritten[0] != head:
            self._unwritten = head, self._monotonic_s()
        since_s = self._monotonic_s() - self._unwritten[1]
        if since_s < UNWRITTEN_S:
            return None
        return f"the log takes nothing since {since_s:.0f} s: it ends at record {head.seq}; look at its disk"

    def _chain_trouble(self) -> str | None:
        silence_s = self._watch.silence_s
        if silence_s > MAX_AGE_S:
            return f"the chain brought no new block for {silence_s:.0f} s; is it running?"
        return "our hotkey has no UID; register it again" if self._watch.me is None else None

    def _stall(self) -> str | None:
        block = self._watch.head
        behind = block - self._closed
        if behind <= STALLED_BLOCKS:
            return None
        return (
            f"no step has closed for {behind} blocks, expected one in {STALLED_BLOCKS}: the chain is at block {block}; "
            "the log of this process says what each step ended with"
        )


class _LogCollector(Collector):
    """Reads the standings when somebody looks, so that nothing has to be kept in step with them."""

    def __init__(self, journal: Journal, watch: ChainWatch) -> None:
        self._journal = journal
        self._watch = watch

    def collect(self) -> list[Metric]:
        standings = self._journal.standings
        tiers = Tally(prover.tier for prover in standings.provers() if prover.uid is not None)
        provers = GaugeMetricFamily(
            "targon_verifier_provers", "Provers that hold a UID, by tier.", labels=["tier"]
        )
        for tier in Tier:
            provers.add_metric([tier.label], tiers[tier])
        figures: list[tuple[str, str, int | None]] = [
            ("block", "The chain's newest block that was seen.", self._watch.head),
            ("log_head_seq", "The log's last record.", self._journal.head.seq),
            ("log_released", "Records of the log that may be published.", standings.released),
            ("open_attempts", "Attempts without a verdict.", len(standings.open_attempts)),
            ("under_audit", "Inferences that await the verdict of their audit.", len(standings.under_audit)),
            ("audit_age_blocks", "Blocks since the oldest of them was asked for.", self._audit_age()),
            ("anchored_interval", "The newest interval whose head stands on chain.", standings.anchored),
            ("weights_age_blocks", "Blocks since weights were set last.", self._weights_age()),
        ]
        return [
            CounterMetricFamily(
                "targon_verifier_blocks_skipped",
                "Blocks skipped, by the log: over all its runs.",
                value=standings.blocks_skipped,
            ),
            provers,
            *(
                GaugeMetricFamily(f"targon_verifier_{name}", about, value=value)
                for name, about, value in figures
                if value is not None
            ),
        ]

    def _audit_age(self) -> int:
        """0 where nothing waits."""
        since = self._journal.standings.audits_wait_since
        return 0 if since is None else max(0, self._watch.head - since)

    def _weights_age(self) -> int | None:
        """None, and not shown, where none were ever set."""
        set_in = self._journal.standings.weights_block
        return None if set_in is None else max(0, self._watch.head - set_in)
