"""What an oracle counts of its work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from targon.oracle.errors import StoreUnavailable
from targon.protocol.private_inputs import CommitmentBody

CountsOf = Callable[[], Mapping[str, int]]


class OracleMetrics:
    """Counters of one oracle's work, in the registry of its role.

    Args:
        refused: draws of the source that gave no passage, by reason.
        source: what the source came to beside texts, by name.
    """

    def __init__(self, registry: CollectorRegistry, refused: CountsOf, source: CountsOf) -> None:
        self.given = Counter("targon_oracle_private_inputs", "Private inputs given.", registry=registry)
        self.again = Counter(
            "targon_oracle_private_inputs_again",
            "Private inputs that their verifier had already.",
            registry=registry,
        )
        self._taken = Counter("targon_oracle_passages", "Passages taken from the source.", registry=registry)
        self._committed_until = Gauge(
            "targon_oracle_committed_until", "The last block that is committed to.", registry=registry
        )
        self._leaves = Gauge(
            "targon_oracle_period_inputs", "Private inputs of the newest period.", registry=registry
        )
        registry.register(
            _CountsCollector(
                "targon_oracle_refused_draws",
                "Draws from the source that gave no passage.",
                "reason",
                refused,
            )
        )
        registry.register(
            _CountsCollector(
                "targon_oracle_source", "What the source came to beside texts, by name.", "what", source
            )
        )

    def taken(self, passages: int) -> None:
        """Count passages that were taken."""
        self._taken.inc(passages)

    def committed(self, body: CommitmentBody) -> None:
        """Say what was committed to."""
        self._committed_until.set(body.last)
        self._leaves.set(body.leaves)


class _CountsCollector(Collector):
    """Reads somebody else's counts when somebody looks; where they can't be read, there are none."""

    def __init__(self, name: str, documentation: str, label: str, counts: CountsOf) -> None:
        self._name = name
        self._documentation = documentation
        self._label = label
        self._counts = counts

    def collect(self) -> list[Metric]:
        family = CounterMetricFamily(self._name, self._documentation, labels=[self._label])
        with suppress(StoreUnavailable):
            for value, count in self._counts().items():
                family.add_metric([value], count)
        return [family]
