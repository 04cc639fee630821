"""Hotkeys, their bytes and their signatures."""

from __future__ import annotations

import pytest
from bittensor.keyfiles import Keypair
from hypothesis import given
from hypothesis import strategies as st

from targon.protocol import (
    Hotkey,
    InvalidSignature,
    MalformedMessage,
    hotkey_of,
    public_key,
    verify_signature,
)


@given(st.binary(min_size=32, max_size=32))
def test_a_hotkey_and_its_public_key_name_each_other(key: bytes) -> None:
    assert public_key(hotkey_of(key)) == key


def test_a_known_address_has_its_known_key(prover: Keypair) -> None:
    assert hotkey_of(prover.public_key) == prover.ss58_address
    assert public_key(Hotkey(prover.ss58_address)) == prover.public_key


@pytest.mark.parametrize("address", ["", "Alice", "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQZ"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(MalformedMessage, match=f"hotkey: got '{address}', expected an ss58 address"):
        public_key(Hotkey(address))


def test_a_signature_is_of_one_message_by_one_key(prover: Keypair, verifier: Keypair) -> None:
    signature = bytes(prover.sign(b"message"))
    verify_signature(Hotkey(prover.ss58_address), b"message", signature)
    for hotkey, message, given_signature in (
        (prover.ss58_address, b"massage", signature),
        (verifier.ss58_address, b"message", signature),
        (prover.ss58_address, b"message", bytes(64)),
    ):
        with pytest.raises(InvalidSignature, match=hotkey):
            verify_signature(Hotkey(hotkey), message, given_signature)


def test_a_signature_of_the_wrong_length_or_by_no_key_is_refused(prover: Keypair) -> None:
    with pytest.raises(InvalidSignature):
        verify_signature(Hotkey(prover.ss58_address), b"message", b"short")
    with pytest.raises(InvalidSignature):
        verify_signature(Hotkey("nobody"), b"message", bytes(64))
