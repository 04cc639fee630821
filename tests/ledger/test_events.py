"""Events as bytes."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from targon.ledger import (
    Event,
    UnknownEvent,
    parse_event,
)
from tests.ledger.history import (
    ALICE,
    attempt,
    head_anchored,
    interval_closed,
    interval_opened,
    joined,
    left,
    log_opened,
    skipped,
    step_closed,
    verdict,
    weights_not_set,
    weights_proposed,
    weights_set,
)

EVENTS: list[Event] = [
    log_opened(),
    joined(ALICE, 3, 1),
    left(ALICE, 3, 2),
    interval_opened(4, 40),
    interval_closed(4, 50),
    attempt(ALICE, 41),
    verdict(5, speed=31.25, evidence={"position": 3, "margins": [0.5, None]}),
    step_closed(41),
    skipped(42, 44),
    head_anchored(4, "ab" * 32, 41),
    weights_proposed({0: 65_535, 7: 1}, 44),
    weights_proposed({0: 65_535, 7: 1}, 44, commit="cd" * 32),
    weights_set({0: 65_535, 7: 1}, 45),
    weights_set({0: 65_535, 7: 1}, 45, proposal=9),
    weights_not_set("every score is 0", 46),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.kind)
def test_every_event_is_read_back_from_its_canonical_bytes(event: Event) -> None:
    parsed = parse_event(event.to_bytes())
    assert parsed == event
    assert parsed.to_bytes() == event.to_bytes()


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "event: Invalid JSON"),
        (b'{"kind":"coffee"}', "event: Input tag 'coffee'"),
        (b'{"kind":"step_closed","version":2,"block":1}', "step_closed.version: Input should be 1"),
        (b'{"kind":"step_closed","version":1,"block":-1}', "step_closed.block: "),
        (b'{"kind":"step_closed","version":1,"block":1,"more":1}', "step_closed.more: Extra"),
    ],
)
def test_what_is_no_event_is_refused_by_name(data: bytes, problem: str) -> None:
    with pytest.raises(UnknownEvent, match="^" + problem.replace("(", r"\(")):
        parse_event(data)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_evidence_holds_numbers_only(number: float) -> None:
    with pytest.raises(ValidationError, match="finite number"):
        verdict(0, evidence={"margin": number})
