"""What a gateway counts. Labels are words of ours, never a user's, so that nobody can grow them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class GatewayMetrics:
    """Counters of one gateway, in a registry of its own process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "targon_gateway_requests",
            "Users' requests, by route and status.",
            ["route", "status"],
            registry=registry,
        )
        self._tokens = Counter(
            "targon_gateway_tokens", "Tokens of users' requests, by kind.", ["kind"], registry=registry
        )
        self._running = Gauge("targon_gateway_running", "Users' requests being answered.", registry=registry)
        self._left = Counter(
            "targon_gateway_abandoned", "Users' requests whose client went away first.", registry=registry
        )
        self._broken = Counter(
            "targon_gateway_broken_off", "Streams that ended with an error.", registry=registry
        )
        self._seconds = Histogram(
            "targon_gateway_seconds", "Seconds of whole requests.", buckets=_SECONDS, registry=registry
        )
        self._prompt, self._completion = self._tokens.labels("prompt"), self._tokens.labels("completion")
        self._known: dict[tuple[str, int], Counter] = {}

    def ended(self, route: str, status: int, seconds: float) -> None:
        counter = self._known.get((route, status))
        if counter is None:
            counter = self._known[route, status] = self._requests.labels(route, str(status))
        counter.inc()
        self._seconds.observe(seconds)

    def used(self, prompt: int, completion: int) -> None:
        self._prompt.inc(prompt)
        self._completion.inc(completion)

    def running(self, count: int) -> None:
        self._running.set(count)

    def abandoned(self) -> None:
        self._left.inc()

    def broken_off(self) -> None:
        self._broken.inc()
