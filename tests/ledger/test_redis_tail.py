"""What a writer holds of its log's end, and for how long."""

from __future__ import annotations

import pytest

from targon.ledger import Head
from targon.ledger.port import EMPTY, chained
from targon.ledger.redis import tail
from targon.ledger.redis.tail import KEPT_S, Tail
from tests.ledger.history import step_closed

PAIRS = chained([step_closed(block) for block in range(10)], EMPTY)
HEADS = [EMPTY, *(Head(record.seq, record.hash) for record, _ in PAIRS)]


def told(kept: Tail, first: int, last: int, at: float) -> None:
    kept.sending(PAIRS[first : last + 1])
    kept.acknowledged(at)


def test_what_was_acknowledged_is_held_from_any_of_its_records_on() -> None:
    kept = Tail(EMPTY)
    told(kept, 0, 3, 0.0)
    told(kept, 4, 9, 1.0)
    for count, head in enumerate(HEADS):
        assert kept.after(head) == PAIRS[count:]
    assert kept.last == HEADS[-1]


def test_a_head_of_another_chain_is_not_found() -> None:
    kept = Tail(EMPTY)
    told(kept, 0, 3, 0.0)
    for seq in (-1, 2, 3, 4):
        assert kept.after(Head(seq, HEADS[5].hash)) is None


def test_records_are_let_go_when_redis_must_have_flushed_them() -> None:
    kept = Tail(EMPTY)
    told(kept, 0, 3, 0.0)
    told(kept, 4, 5, KEPT_S)
    assert kept.before == EMPTY
    told(kept, 6, 6, KEPT_S + 0.1)
    assert kept.before == HEADS[4]
    assert kept.after(HEADS[3]) is None
    assert kept.after(HEADS[4]) == PAIRS[4:7]


def test_no_more_is_held_than_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(PAIRS[0][1])
    monkeypatch.setattr(tail, "KEPT_BYTES", 3 * size)
    kept = Tail(EMPTY)
    told(kept, 0, 9, 0.0)
    assert kept.after(kept.before) == PAIRS[7:]
    assert kept.last == HEADS[-1]


def test_what_is_under_way_is_not_held_until_its_fate_is_known() -> None:
    kept = Tail(EMPTY)
    told(kept, 0, 3, 0.0)
    kept.sending(PAIRS[4:6])
    assert (kept.last, kept.unsure) == (HEADS[4], HEADS[6])
    kept.refused()
    assert (kept.last, kept.unsure) == (HEADS[4], None)
    kept.sending(PAIRS[4:6])
    kept.acknowledged(1.0)
    assert (kept.last, kept.unsure) == (HEADS[6], None)
