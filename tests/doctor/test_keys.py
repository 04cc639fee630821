"""Keys, in files that the SDK made."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from bittensor.wallet import Wallet

from targon.cli import main
from targon.doctor.keys import PASSWORD, WalletPlace, check_coldkey, check_hotkey
from tests.doctor.looks import only, unprivileged


@pytest.fixture
def wallets() -> Iterator[Path]:
    """A folder that every user may enter."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def a_wallet(folder: Path, password: str | None = None) -> WalletPlace:
    wallet = Wallet(name="mine", hotkey="hot", path=str(folder))
    wallet.create_new_hotkey(use_password=bool(password), hotkey_password=password, suppress=True)
    return WalletPlace("mine", "hot", folder)


def with_password(place: WalletPlace, password: str) -> WalletPlace:
    return WalletPlace(place.name, place.hotkey, place.folder, password)


def test_a_plain_hotkey_for_its_owner_alone_is_good_and_handed_on(wallets: Path) -> None:
    place = a_wallet(wallets)
    result = check_hotkey(place)
    address = Wallet(name="mine", hotkey="hot", path=str(wallets)).hotkey.ss58_address
    assert only(result).outcome == "good"
    assert address in only(result).found
    assert result.value.ss58_address == address


@pytest.mark.parametrize(
    ("name", "missing"),
    [("nobody", "there is no wallet 'nobody'"), ("mine", "wallet 'mine' has no hotkey 'cold'")],
)
def test_what_is_missing_is_made_by_the_command_that_is_advised(
    wallets: Path, name: str, missing: str
) -> None:
    a_wallet(wallets)
    place = WalletPlace(name, "cold", wallets)
    finding = only(check_hotkey(place))
    assert (finding.outcome, missing in finding.found) == ("bad", True)
    assert main(shlex.split(finding.advice)[1:]) == 0
    assert only(check_hotkey(place)).outcome == "good"


def test_an_encrypted_hotkey_without_its_password_is_bad_with_both_ways_out(wallets: Path) -> None:
    result = check_hotkey(a_wallet(wallets, "correct horse"))
    assert (only(result).outcome, result.value) == ("bad", None)
    assert "is encrypted" in only(result).found
    assert PASSWORD in only(result).advice
    assert "--wallet.hotkey hot-plain" in only(result).advice


def test_an_encrypted_hotkey_opens_with_its_password_and_with_no_other(wallets: Path) -> None:
    place = a_wallet(wallets, "correct horse")
    assert only(check_hotkey(with_password(place, "correct horse"))).outcome == "good"
    wrong = only(check_hotkey(with_password(place, "battery staple")))
    assert (wrong.outcome, "doesn't open with the password" in wrong.found) == ("bad", True)


def test_a_hotkey_that_others_may_read_is_bad_and_still_handed_on(wallets: Path) -> None:
    place = a_wallet(wallets)
    place.hotkey_file.chmod(0o644)
    result = check_hotkey(place)
    assert (only(result).outcome, only(result).advice) == ("bad", f"chmod 600 {place.hotkey_file}")
    assert "0644" in only(result).found
    assert result.value is not None


def test_a_hotkey_of_another_user_is_bad(wallets: Path) -> None:
    place = a_wallet(wallets)
    for folder in (place.wallet, place.hotkey_file.parent):
        folder.chmod(0o755)
    place.hotkey_file.chmod(0o000)
    with unprivileged():
        finding = only(check_hotkey(place))
    assert (finding.outcome, "can't be read by this user" in finding.found) == ("bad", True)


def test_a_damaged_hotkey_is_bad(wallets: Path) -> None:
    place = a_wallet(wallets)
    place.hotkey_file.write_bytes(place.hotkey_file.read_bytes()[:40])
    finding = only(check_hotkey(place))
    assert (finding.outcome, "can't be used" in finding.found) == ("bad", True)


def test_a_public_key_in_the_hotkey_s_place_is_bad(wallets: Path) -> None:
    place = a_wallet(wallets)
    place.hotkey_file.write_bytes(place.hotkey_file.with_name("hotpub.txt").read_bytes())
    assert only(check_hotkey(place)).outcome == "bad"


def test_a_coldkey_that_is_elsewhere_is_good(wallets: Path) -> None:
    assert only(check_coldkey(a_wallet(wallets))).outcome == "good"


@pytest.mark.parametrize(("password", "how"), [("correct horse", ", encrypted:"), (None, ", NOT encrypted:")])
def test_a_coldkey_on_this_machine_is_noted(wallets: Path, password: str | None, how: str) -> None:
    place = a_wallet(wallets)
    wallet = Wallet(name="mine", path=str(wallets))
    wallet.create_new_coldkey(use_password=bool(password), coldkey_password=password, suppress=True)
    finding = only(check_coldkey(place))
    assert (finding.outcome, how in finding.found) == ("note", True)
