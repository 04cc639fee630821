"""What a role shows its operator."""

from __future__ import annotations

import anyio
import pytest
from prometheus_client import CollectorRegistry, Counter

from targon.transport import Limits, bind, bound_port, operations_app, serve
from tests.transport.world import head, send_raw

pytestmark = pytest.mark.anyio


async def test_an_operator_sees_metrics_and_health() -> None:
    registry = CollectorRegistry()
    Counter("targon_something", "Something.", registry=registry).inc()
    trouble: list[str] = []
    app = operations_app(registry, lambda: trouble[0] if trouble else None)
    sock = bind("127.0.0.1", 0)
    port = bound_port(sock)
    async with anyio.create_task_group() as tasks:
        await tasks.start(lambda task_status: serve(app, sock, limits=Limits(), task_status=task_status))

        metrics = await send_raw(port, head({}, method="GET", path="/metrics"))
        well = await send_raw(port, head({}, method="GET", path="/healthz"))
        trouble.append("the engine is down")
        ill = await send_raw(port, head({}, method="GET", path="/healthz"))
        nothing = await send_raw(port, head({}, method="GET", path="/"))
        tasks.cancel_scope.cancel()

    assert b"targon_something_total 1.0" in metrics.body
    assert (well.status, ill.status, nothing.status) == (200, 503, 404)
    assert b"the engine is down" in ill.body
