"""What a role shows its operator: metrics and health, on a port of its own that only loopback reaches."""

from __future__ import annotations

import json
from collections.abc import Callable

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.types import ASGIApp, Receive, Scope, Send

from targon.transport.replies import JSON


def operations_app(registry: CollectorRegistry, ailing: Callable[[], str | None]) -> ASGIApp:
    """``GET /metrics`` (Prometheus text) and ``GET /healthz`` (200, or 503 and why).

    Args:
        ailing: what is wrong with the role now, in words; None if nothing is.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - ASGI's form
        if scope["type"] != "http":
            return
        status, media_type, body = 404, JSON, b'{"status":"nothing here; try /metrics or /healthz"}'
        if scope["method"] == "GET" and scope["path"] == "/metrics":
            status, media_type, body = 200, CONTENT_TYPE_LATEST, generate_latest(registry)
        elif scope["method"] == "GET" and scope["path"] == "/healthz":
            trouble = ailing()
            status, body = (503 if trouble else 200), json.dumps({"status": trouble or "ok"}).encode()
        headers = [(b"content-type", media_type.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    return app
