"""What a dispatcher counts of its work."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class DispatchMetrics:
    """Counters of one dispatcher, in the registry of its role.

    Args:
        orders: how many orders run now.
        errands: how many errands do: those that were outrun, and have not ended, too.
    """

    def __init__(
        self, registry: CollectorRegistry, orders: Callable[[], int], errands: Callable[[], int]
    ) -> None:
        self.first_token = Histogram(
            "targon_dispatch_first_token_seconds",
            "From an order to the first token of its answer, other provers' failures included.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.hedges = Counter(
            "targon_dispatch_hedges",
            "Second provers that were asked because the first was slow.",
            registry=registry,
        )
        self.failovers = Counter(
            "targon_dispatch_failovers",
            "Further provers that were asked because one failed before its first token.",
            registry=registry,
        )
        self.outcomes = Counter(
            "targon_dispatch_errands",
            "Errands that ended: answered, refused, failed, user_left, outrun, unsettled.",
            ["outcome"],
            registry=registry,
        )
        for name, about, count in (
            ("targon_dispatch_orders_running", "Orders being fulfilled.", orders),
            ("targon_dispatch_errands_running", "Errands under way.", errands),
        ):
            Gauge(name, about, registry=registry).set_function(count)
