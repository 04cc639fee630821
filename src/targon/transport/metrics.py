"""What a server counts. Labels are words of ours, never a caller's, so that nobody can grow them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from targon.transport.refusals import Code


class ServerMetrics:
    """Counters of one server, in a registry of its own role."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._refusals = Counter("targon_refusals", "Requests refused, by code.", ["code"], registry=registry)
        self._served = Counter(
            "targon_requests_admitted", "Requests admitted, by path.", ["path"], registry=registry
        )
        self._served_by_path: dict[str, Counter] = {}
        self._abandoned = Counter(
            "targon_requests_abandoned", "Requests whose client went away first.", registry=registry
        )
        self._running = Gauge("targon_requests_running", "Requests being worked on.", registry=registry)

    def refused(self, code: Code) -> None:
        self._refusals.labels(code.value).inc()

    def admitted(self, path: str) -> None:
        counter = self._served_by_path.get(path)
        if counter is None:
            counter = self._served_by_path[path] = self._served.labels(path)
        counter.inc()

    def abandoned(self) -> None:
        self._abandoned.inc()

    def running(self, count: int) -> None:
        self._running.set(count)
