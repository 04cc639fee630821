"""The verifier's draws: exactly the bytes of the specification, and each its own."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from targon.protocol import GenerateRequest, draws, public_key, u64_hex

SECRETS = st.binary(min_size=32, max_size=32)
KEYS = st.binary(min_size=32, max_size=32)
U64 = st.integers(0, 2**64 - 1)


def hmac_of(secret: bytes, message: bytes) -> bytes:
    return hmac.new(secret, message, hashlib.sha256).digest()


@given(SECRETS, U64, KEYS)
def test_a_seed_is_the_hmac_of_the_attempt_and_the_prover(secret: bytes, attempt: int, prover: bytes) -> None:
    expected = hmac_of(secret, b"seed" + attempt.to_bytes(8, "big") + prover)[:8]
    assert draws.request_seed(secret, attempt, prover) == int.from_bytes(expected, "big")


@given(U64, KEYS, U64, KEYS, KEYS)
def test_a_run_key_is_the_hash_of_all_that_is_fixed(
    seed: int, verifier: bytes, attempt: int, prover: bytes, block_hash: bytes
) -> None:
    message = b"targon/sampler/1" + seed.to_bytes(8, "big") + verifier
    message += attempt.to_bytes(8, "big") + prover + block_hash
    expected = hashlib.sha256(message).hexdigest()[:16]
    assert u64_hex(draws.run_key(seed, verifier, attempt, prover, block_hash)) == expected


def test_a_request_has_the_run_key_of_what_stands_in_it(request_message: GenerateRequest) -> None:
    assert draws.request_run_key(request_message) == draws.run_key(
        2**64 - 1,
        public_key(request_message.verifier),
        77,
        public_key(request_message.prover),
        bytes.fromhex("03" * 32),
    )


def test_nothing_that_anyone_can_vary_at_will_is_in_a_run_key(request_message: GenerateRequest) -> None:
    free = {"salt": "99" * 32, "log_head": "99" * 32, "model": "other", "stream": True, "netuid": 9}
    for field, value in free.items():
        other = request_message.model_copy(update={field: value})
        assert draws.request_run_key(other) == draws.request_run_key(request_message)
    for field, value in {
        "attempt": "99" * 8,
        "block_hash": "99" * 32,
        "prover": request_message.verifier,
    }.items():
        other = request_message.model_copy(update={field: value})
        assert draws.request_run_key(other) != draws.request_run_key(request_message)


@pytest.mark.parametrize(
    ("draw", "label"),
    [
        (draws.selection_rank, b"select"),
        (draws.private_input_draw, b"input"),
        (draws.query_seed, b"query"),
        (draws.own_inference_draw, b"own"),
    ],
)
@given(secret=SECRETS, block=U64, prover=KEYS)
def test_a_draw_of_a_block_is_the_hmac_under_its_label(
    draw, label, secret: bytes, block: int, prover: bytes
) -> None:
    expected = hmac_of(secret, label + block.to_bytes(8, "big") + prover)[:8]
    assert draw(secret, block, prover) == int.from_bytes(expected, "big")


@given(secret=SECRETS, block=U64, prover=KEYS, part=st.text(max_size=20))
def test_a_challenges_parts_are_drawn_each_under_its_name(secret, block, prover, part) -> None:
    message = b"challenge" + block.to_bytes(8, "big") + prover + part.encode()
    expected = int.from_bytes(hmac_of(secret, message)[:8], "big")
    assert draws.challenge_draw(secret, block, prover, part) == expected


@given(SECRETS, U64, st.integers(0, 1_023))
def test_a_route_is_the_hmac_of_attempt_and_turn(secret: bytes, attempt: int, turn: int) -> None:
    message = b"route" + attempt.to_bytes(8, "big") + turn.to_bytes(4, "big")
    assert draws.route_draw(secret, attempt, turn) == int.from_bytes(hmac_of(secret, message)[:8], "big")


@given(SECRETS, U64, KEYS)
def test_an_audit_is_the_hmac_of_attempt_and_prover(secret: bytes, attempt: int, prover: bytes) -> None:
    expected = int.from_bytes(hmac_of(secret, b"audit" + attempt.to_bytes(8, "big") + prover)[:8], "big")
    assert draws.audit_draw(secret, attempt, prover) == expected


@given(SECRETS, KEYS, st.integers(0, 65_535), U64)
def test_an_interval_secret_is_the_hmac_of_network_and_interval(
    master: bytes, genesis: bytes, netuid: int, interval: int
) -> None:
    message = b"targon/interval-secret/1" + genesis + netuid.to_bytes(2, "big") + interval.to_bytes(8, "big")
    assert draws.interval_secret(master, genesis, netuid, interval) == hmac_of(master, message)


@given(SECRETS)
def test_a_commitment_is_the_hash_of_the_secret(secret: bytes) -> None:
    assert draws.commitment(secret) == hashlib.sha256(secret).hexdigest()


def test_draws_under_different_labels_differ() -> None:
    secret, prover = bytes(32), bytes(32)
    drawn = {
        draws.request_seed(secret, 5, prover),
        draws.selection_rank(secret, 5, prover),
        draws.private_input_draw(secret, 5, prover),
        draws.challenge_draw(secret, 5, prover, "form"),
        draws.challenge_draw(secret, 5, prover, "length"),
        draws.query_seed(secret, 5, prover),
    }
    assert len(drawn) == 6


@given(U64)
def test_64_bit_integers_are_16_hex_digits(value: int) -> None:
    assert len(u64_hex(value)) == 16
    assert int(u64_hex(value), 16) == value
    assert u64_hex(value) == u64_hex(value).lower()


@pytest.mark.parametrize("value", [-1, 2**64])
def test_integers_of_more_than_64_bits_are_refused(value: int) -> None:
    with pytest.raises(ValueError, match=f"got {value}, expected an integer in"):
        u64_hex(value)
