"""Laws of the limiter, the replay store and addresses."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from targon.protocol.primitives import Hotkey
from targon.transport import Allowance, Limits, MemoryNonceStore, Refusal
from targon.transport.limits import Limiter, address_key
from tests.transport.world import VERIFIER, TurnedClock

pytestmark = pytest.mark.anyio


@given(
    pauses=st.lists(st.floats(0, 3), max_size=60),
    per_second=st.floats(0.1, 20),
    burst=st.integers(1, 10),
)
def test_nobody_is_let_in_more_often_than_burst_and_rate_allow(
    pauses: list[float], per_second: float, burst: int
) -> None:
    turned = TurnedClock()
    limiter = Limiter(Allowance(per_second, burst, 1), "hotkey", turned.clock().monotonic_s)
    start, admitted = turned.monotonic_s, 0
    for pause in pauses:
        turned.turn(pause)
        with suppress(Refusal), limiter.slot("a"):
            admitted += 1

        assert admitted <= burst + per_second * (turned.monotonic_s - start) + 1e-6


def test_whoever_waits_as_long_as_they_are_told_is_let_in() -> None:
    turned = TurnedClock()
    limiter = Limiter(Allowance(0.5, 1, 1), "hotkey", turned.clock().monotonic_s)
    with limiter.slot("a"):
        pass
    with pytest.raises(Refusal) as refused:
        limiter.check("a")

    turned.turn((refused.value.retry_after_s or 0) + 1e-6)

    with limiter.slot("a"):
        pass


def test_the_number_of_remembered_keys_is_bounded_and_those_at_work_stay() -> None:
    limiter = Limiter(Allowance(1, 5, 1), "hotkey", TurnedClock().clock().monotonic_s, max_keys=10)
    with limiter.slot("busy"):
        for key in range(100):
            with limiter.slot(str(key)):
                pass
            assert len(limiter) <= 11

        with pytest.raises(Refusal):
            limiter.check("busy")


def test_a_clock_that_jumps_back_gives_nobody_anything() -> None:
    turned = TurnedClock()
    limiter = Limiter(Allowance(1, 1, 1), "hotkey", turned.clock().monotonic_s)
    with limiter.slot("a"):
        pass
    turned.turn(-100)

    with pytest.raises(Refusal):
        limiter.check("a")


async def test_a_nonce_is_accepted_once_while_it_could_be_fresh() -> None:
    turned, limits = TurnedClock(), Limits()
    store = MemoryNonceStore(
        retention_s=limits.nonce_retention_s, max_entries=10, monotonic_s=turned.clock().monotonic_s
    )

    assert await store.check_and_store(VERIFIER, 1)
    assert await store.check_and_store(Hotkey("another"), 1)
    turned.turn(limits.max_age_s + limits.allowed_skew_s + limits.body_timeout_s - 0.1)
    assert not await store.check_and_store(VERIFIER, 1)


async def test_the_nonce_store_forgets_what_can_no_longer_be_replayed() -> None:
    turned = TurnedClock()
    store = MemoryNonceStore(retention_s=10.0, max_entries=3, monotonic_s=turned.clock().monotonic_s)
    for nonce in range(3):
        assert await store.check_and_store(VERIFIER, nonce)
    with pytest.raises(Refusal, match="overloaded"):
        await store.check_and_store(VERIFIER, 3)

    turned.turn(10.0)

    assert await store.check_and_store(VERIFIER, 3)
    assert len(store) == 1


@pytest.mark.parametrize(
    ("host", "key"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("somewhere", "somewhere"),
    ],
)
def test_an_ipv6_network_counts_as_one_client(host: str, key: str) -> None:
    assert address_key(host) == key
