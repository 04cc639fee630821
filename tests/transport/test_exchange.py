"""What a client makes of an error answer's headers."""

from __future__ import annotations

import pytest

from targon.transport import Deadlines
from targon.transport.exchange import Exchange
from tests.transport.world import Place


@pytest.mark.parametrize(
    ("said", "believed"),
    [
        ("7", 7.0),
        ("60", 60.0),
        ("999999999999", 60.0),
        ("9" * 400, 60.0),
        ("1e5", None),
        ("-1", None),
        (None, None),
    ],
)
def test_a_wait_is_believed_for_a_minute_at_most(said: str | None, believed: float | None) -> None:
    exchange = Exchange(Place(1), Deadlines(), 1, lambda: 0.0)
    assert exchange.refused(503, b"{}", said).retry_after_s == believed
