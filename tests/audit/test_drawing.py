"""Draws are made again by the protocol's own rule, only faster."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from targon.audit.revealed import Hmac, Secrets
from targon.ledger import chain_records
from targon.ledger.port import EMPTY
from targon.protocol import draws
from targon.protocol.primitives import Block
from targon.protocol.records import LogLine
from tests.ledger.history import ALICE, History, interval_closed, secret


@given(st.binary(max_size=200), st.integers(0, 2**64 - 1), st.binary(min_size=32, max_size=32))
def test_a_key_hashed_once_draws_the_same(key: bytes, number: int, prover: bytes) -> None:
    hmac, place = Hmac(key), number.to_bytes(8, "big")
    assert hmac.draw(b"audit" + place + prover) == draws.audit_draw(key, number, prover)  # type: ignore[arg-type]
    assert hmac.draw(b"select" + place + prover) == draws.selection_rank(key, Block(number), prover)
    assert hmac.draw(b"own" + place + prover) == draws.own_inference_draw(key, Block(number), prover)
    turn = (number % 64).to_bytes(4, "big")
    assert hmac.draw(b"route" + place + turn) == draws.route_draw(key, number, number % 64)  # type: ignore[arg-type]


def content(history: History) -> bytes:
    records = chain_records(history.events, EMPTY)
    return b"".join(LogLine(r.seq, r.prev, r.hash, r.event.to_bytes()).to_bytes() + b"\n" for r in records)


def test_secrets_are_found_ahead_wherever_they_stand() -> None:
    history = History.begun(ALICE)
    for interval in range(3):
        history.turn(interval, interval + 1)
    data = content(history)
    at = data.index(b'"kind":"interval_closed"') + 400
    cut = data.index(b"\n", at) + 1
    secrets = Secrets(iter([data[:cut], data[cut:]]))
    assert [secrets.of(interval) for interval in range(4)] == [secret(0), secret(1), secret(2), None]


def test_a_secret_that_is_only_spoken_of_is_none() -> None:
    history = History.begun(ALICE)
    history.step(1, (ALICE, "pass"))
    spoken = interval_closed(7).to_json()
    event = history.events[-2].model_copy(update={"evidence": {"x": spoken}})
    (record,) = chain_records([event], EMPTY)
    line = LogLine(0, record.prev, record.hash, event.to_bytes()).to_bytes() + b"\n"
    assert Secrets(iter([line])).of(7) is None
