"""What is parsed quickly means what it means when it is parsed at length, and nothing else is accepted."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from targon.audit import lean
from targon.ledger import Answered, Attempt, Route, UnknownEvent, parse_event
from targon.protocol.canonical import canonical_bytes
from targon.protocol.errors import MalformedMessage
from targon.protocol.messages import Receipt, ReceiptBody
from targon.protocol.primitives import Block
from tests.ledger.history import ALICE, VERIFIER

HEX32 = st.integers(0, 2**256 - 1).map(lambda value: f"{value:064x}")
COUNTS = st.integers(0, 2**53 - 1) | st.integers(0, 2_000)
NAMES = st.text(min_size=1, max_size=20) | st.just("SmolLM2-135M-Instruct")
SPEEDS = st.none() | st.floats(0.0, 1e22) | st.integers(0, 10**16).map(float) | st.just(1e-7)

ATTEMPTS = st.builds(
    Attempt,
    block=COUNTS.map(Block),
    purpose=st.sampled_from(["challenge", "inference"]),
    prover=st.just(ALICE),
    request_digest=HEX32,
    model=NAMES | st.just(""),
    dialect=st.sampled_from(["targon/1", "greedy", "vllm", "native"]),
    max_tokens=COUNTS,
    counted=st.booleans(),
    route=st.none() | st.builds(Route, turn=st.integers(0, 1_023), instead_of=st.none() | COUNTS),
)
BODIES = st.builds(
    ReceiptBody,
    salt=HEX32,
    genesis=HEX32,
    netuid=st.integers(0, 65_535),
    verifier=st.just(VERIFIER),
    prover=st.just(ALICE),
    attempt=st.integers(0, 2**64 - 1).map(lambda value: f"{value:016x}"),
    block=COUNTS.map(Block),
    request_digest=HEX32,
    completion_digest=HEX32,
    model=NAMES,
    model_digest=HEX32,
    issued_at=COUNTS,
)
ANSWERS = st.builds(
    Answered,
    attempt=COUNTS,
    block=COUNTS.map(Block),
    audited=st.booleans(),
    tokens=COUNTS,
    tokens_per_s=SPEEDS,
    receipt=st.builds(Receipt, body=BODIES, signature=st.just("5a" * 64)),
)


def told(event: Any) -> Any:
    """What the fold and the draws read of an event."""
    if event.kind == "attempt":
        route = event.route
        return (
            event.kind,
            event.block,
            event.purpose,
            event.prover,
            event.request_digest,
            event.model,
            event.dialect,
            event.max_tokens,
            event.counted,
            None if route is None else (route.turn, route.instead_of),
        )
    body = event.receipt.body
    return (
        event.kind,
        event.attempt,
        event.block,
        event.audited,
        event.tokens,
        event.tokens_per_s,
        event.receipt.signature,
        *(str(getattr(body, name)) for name in lean.LeanBody._fields),
    )


@given(ATTEMPTS | ANSWERS)
def test_events_mean_the_same(event: Attempt | Answered) -> None:
    data = event.to_bytes()
    assert told(lean.parse(data)) == told(parse_event(data)) == told(event)


def test_usual_ones_are_parsed_quickly() -> None:
    attempt = Attempt(
        block=Block(5),
        purpose="inference",
        prover=ALICE,
        request_digest="ef" * 32,
        model="SmolLM2-135M-Instruct",
        dialect="targon/1",
        max_tokens=64,
        route=Route(turn=3, instead_of=7),
    )
    assert isinstance(lean.parse(attempt.to_bytes()), lean.LeanAttempt)


@given(ATTEMPTS | ANSWERS, st.data())
def test_what_is_refused_at_length_is_refused(event: Attempt | Answered, data: st.DataObject) -> None:
    content = bytearray(event.to_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at : at + data.draw(st.integers(0, 2))] = data.draw(
        st.sampled_from([b"", b"0", b"-", b"A", b'"', b" ", b"1e5", b"\xff", b"null", b".0"])
    )
    changed = bytes(content)
    try:
        expected = parse_event(changed)
    except UnknownEvent:
        with pytest.raises((UnknownEvent, MalformedMessage)):
            lean.parse(changed)
        return
    try:
        found = lean.parse(changed)
    except MalformedMessage:
        with pytest.raises(MalformedMessage):
            lean.check_canonical(changed)
        return
    assert told(found) == told(expected)
    if lean.looks_hot(changed):
        lean.check_canonical(changed)


@given(ATTEMPTS | ANSWERS, st.data())
def test_a_line_tells_of_the_event_that_stands_in_it(event: Attempt | Answered, data: st.DataObject) -> None:
    content = bytearray(event.to_bytes())
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + 1] = data.draw(st.sampled_from([b"", b"0", b"A", b'"', b" ", b"\n", b"\xff", b"g"]))
    line = b'{"event":%b,"hash":"%b"' % (bytes(content), b"ab" * 32)
    text = line.decode("latin-1")
    found = lean.attempt_line(text, 0) or lean.answered_line(text, 0)
    if found is None:
        return  # it is parsed at length
    assert text[: found[1]] == line[:-1].decode("latin-1")
    assert found[2] == "ab" * 32
    assert type(found[0]) is type(lean.parse(bytes(content)))
    assert found[0] == lean.parse(bytes(content))


def test_usual_lines_are_taken_apart_at_once() -> None:
    body = ReceiptBody(
        salt="1a" * 32,
        genesis="2b" * 32,
        netuid=4,
        verifier=VERIFIER,
        prover=ALICE,
        attempt="00" * 8,
        block=Block(5),
        request_digest="3c" * 32,
        completion_digest="4d" * 32,
        model="SmolLM2-135M-Instruct",
        model_digest="5e" * 32,
        issued_at=1_790_000_000,
    )
    answered = Answered(
        attempt=0,
        block=Block(5),
        audited=False,
        tokens=64,
        tokens_per_s=41.5,
        receipt=Receipt(body=body, signature="6f" * 64),
    )
    line = '{"event":' + answered.to_bytes().decode() + ',"hash":"' + "ab" * 32
    assert lean.answered_line(line, 0) is not None
    assert lean.answered_line(line.replace("6f6f", "6F6f", 1), 0) is None
    assert lean.answered_line(line.replace("6f6f", "6f f", 1), 0) is None


@pytest.mark.parametrize(
    "event",
    [
        b'{"block":1,"block":1,"counted":true,"dialect":"greedy","kind":"attempt"}',
        b'{"block":1, "kind":"attempt","counted":true}',
        b"[" * 100_000,
        b'{"kind":"attempt",' + b'"a":[' * 50_000,
        b"",
    ],
)
def test_what_is_no_event_is_refused(event: bytes) -> None:
    with pytest.raises((UnknownEvent, MalformedMessage)):
        lean.parse(event)


@given(
    st.dictionaries(
        st.text(max_size=5), st.integers(-5, 5) | st.floats(allow_nan=False, allow_infinity=False)
    )
)
def test_what_is_canonical_is_taken_as_such(value: dict[str, Any]) -> None:
    assert lean.check_canonical(canonical_bytes(value)) == value
