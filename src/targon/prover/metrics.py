"""What a prover counts of its work."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from targon.prover.stake_queue import StakeQueue

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class ProverMetrics:
    """Counters of one prover's work, in the registry of its role."""

    def __init__(self, registry: CollectorRegistry, queue: StakeQueue) -> None:
        self.answered = Counter(
            "targon_prover_answered", "Requests answered with a receipt.", registry=registry
        )
        self.tokens = Counter("targon_prover_tokens", "Tokens generated.", registry=registry)
        self.first_token = Histogram(
            "targon_prover_first_token_seconds",
            "From the signature's check to the first token.",
            buckets=_SECONDS,
            registry=registry,
        )
        registry.register(_QueueCollector(queue))


class _QueueCollector(Collector):
    """Reads the queue when somebody looks, so that nothing has to be kept in step with it."""

    def __init__(self, queue: StakeQueue) -> None:
        self._queue = queue

    def collect(self) -> list[Metric]:
        return [
            GaugeMetricFamily("targon_prover_queued", "Requests waiting.", value=self._queue.waiting),
            GaugeMetricFamily("targon_prover_running", "Requests in the engine.", value=self._queue.running),
        ]
