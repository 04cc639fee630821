"""What the transport's tests share."""

from __future__ import annotations

import pytest

from tests.transport import world


@pytest.fixture(params=["plain", "TLS"])
def wire(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs a test over plain HTTP, and over TLS: what holds on the one must hold on the other."""
    monkeypatch.setattr(world, "OVER_TLS", request.param == "TLS")
    return str(request.param)
