"""A hotkey's statement about a TLS key: whatever of it is altered, it no longer holds."""

from __future__ import annotations

import pytest
from bittensor.keyfiles import Keypair
from hypothesis import given
from hypothesis import strategies as st

from targon.protocol import Hotkey, MalformedMessage, ProtocolError, StatementMismatch, hotkey_of, tls

ALICE = Keypair.create_from_uri("//Alice")
HOTKEY = Hotkey(ALICE.ss58_address)
KEY_INFO = bytes(range(91))
BEFORE, AFTER = 1_800_000_000, 1_800_000_000 + 30 * 86_400
STATEMENT = tls.issue(ALICE, KEY_INFO, BEFORE, AFTER)


def check(statement: bytes, key_info: bytes = KEY_INFO, before: int = BEFORE, after: int = AFTER) -> None:
    tls.check(statement, key_info, before, after, hotkey=HOTKEY, now=BEFORE + 60)


def altered(data: bytes, place: int, change: int) -> bytes:
    return data[:place] + bytes([data[place] ^ change]) + data[place + 1 :]


def test_a_statement_holds_for_its_key_its_time_and_its_hotkey() -> None:
    check(STATEMENT)


@given(st.integers(0, len(STATEMENT) - 1), st.integers(1, 255))
def test_a_statement_with_any_byte_altered_is_refused(place: int, change: int) -> None:
    with pytest.raises(ProtocolError):
        check(altered(STATEMENT, place, change))


@given(st.integers(0, len(KEY_INFO) - 1), st.integers(1, 255))
def test_a_statement_holds_for_no_other_key(place: int, change: int) -> None:
    with pytest.raises(ProtocolError):
        check(STATEMENT, altered(KEY_INFO, place, change))


@given(st.integers(-(1 << 40), 1 << 40), st.integers(-(1 << 40), 1 << 40))
def test_a_statement_holds_for_no_other_times(earlier: int, later: int) -> None:
    if earlier == later == 0:
        check(STATEMENT)
        return
    with pytest.raises(ProtocolError):
        check(STATEMENT, before=BEFORE - earlier, after=AFTER + later)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_by_name(statement: bytes) -> None:
    with pytest.raises(ProtocolError):
        check(statement)


def test_another_hotkeys_statement_names_both() -> None:
    bob = Keypair.create_from_uri("//Bob")
    with pytest.raises(StatementMismatch, match=f"hotkey: got {bob.ss58_address}, expected {HOTKEY}"):
        check(tls.issue(bob, KEY_INFO, BEFORE, AFTER))


@given(st.binary(min_size=32, max_size=32))
def test_a_hotkey_and_its_name_stand_for_each_other(key: bytes) -> None:
    hotkey = hotkey_of(key)
    name = tls.peer_name(hotkey)

    assert tls.named_peer(name) == hotkey
    assert all(len(label) <= 63 for label in name.split("."))


@pytest.mark.parametrize("name", ["", "localhost", "a.b.targon.invalid", tls.peer_name(HOTKEY).upper()])
def test_what_is_no_hotkeys_name_is_refused(name: str) -> None:
    with pytest.raises(MalformedMessage, match=r"expected a hotkey's"):
        tls.named_peer(name)
