"""Hotkeys from real keyfiles, and what is said of those that can't be used."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from bittensor.keyfiles import Keyfile, Keypair

from targon.cli.errors import CommandError
from targon.cli.keys import PASSWORD, create_wallet, open_hotkey
from targon.cli.logging import configure_logging
from targon.cli.options import WalletOptions

ALICE = Keypair.create_from_uri("//Alice")
NOBODY = 65_534


@pytest.fixture
def options(tmp_path: Path) -> WalletOptions:
    return WalletOptions(name="mine", path=tmp_path / "wallets")


@pytest.fixture
def file(options: WalletOptions) -> Path:
    """Where the hotkey's file belongs; nothing is there yet."""
    return options.path / "mine" / "hotkeys" / "default"


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A keyfile with a password; making one takes seconds, on purpose."""
    file = tmp_path_factory.mktemp("encrypted") / "hotkey"
    Keyfile(file).set_keypair(ALICE, encrypt=True, password="hunter2")
    return file.read_bytes()


def save(file: Path, content: bytes | None = None) -> None:
    """Write a keyfile without a password, or what it is to hold instead."""
    if content is None:
        Keyfile(file).set_keypair(ALICE, encrypt=False)
    else:
        file.parent.mkdir(parents=True)
        file.touch(0o600)
        file.write_bytes(content)


def complaint(options: WalletOptions) -> str:
    with pytest.raises(CommandError) as caught:
        open_hotkey(options)
    return str(caught.value)


@contextmanager
def as_somebody_else() -> Iterator[None]:
    """Without the rights of a superuser, who may read everything."""
    superuser = os.geteuid() == 0
    if superuser:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if superuser:
            os.seteuid(0)


def test_a_hotkey_without_a_password_signs(options, file):
    save(file)
    assert open_hotkey(options).ss58_address == ALICE.ss58_address
    assert ALICE.verify(b"message", open_hotkey(options).sign(b"message"))


def test_a_missing_wallet_is_named_with_those_that_there_are(options, file):
    save(options.path / "other" / "hotkeys" / "default")
    said = complaint(options)
    assert said.startswith(f"no wallet 'mine' (there: other): expected the file {file}")
    assert "targon wallet create --wallet.name mine --wallet.hotkey default" in said


def test_a_missing_hotkey_is_named_with_those_that_there_are(options, file):
    save(file.with_name("another"))
    said = complaint(options)
    assert said.startswith(f"no hotkey 'default' in wallet 'mine' (there: another): expected the file {file}")


def test_the_command_that_is_advised_makes_what_was_missing(options):
    assert "Make one with" in complaint(options)
    assert create_wallet(options) == open_hotkey(options).ss58_address


def test_an_encrypted_hotkey_is_explained(options, file, encrypted, monkeypatch):
    monkeypatch.delenv(PASSWORD, raising=False)
    save(file, encrypted)
    said = complaint(options)
    assert f"the hotkey file {file} is encrypted" in said
    assert PASSWORD in said
    assert "targon wallet create --wallet.name mine --wallet.hotkey default-plain" in said


def test_an_encrypted_hotkey_opens_with_the_password_of_the_environment(
    options, file, encrypted, monkeypatch
):
    save(file, encrypted)
    monkeypatch.setenv(PASSWORD, "hunter2")
    assert open_hotkey(options).ss58_address == ALICE.ss58_address


def test_a_wrong_password_is_said_and_not_repeated(options, file, encrypted, monkeypatch):
    save(file, encrypted)
    monkeypatch.setenv(PASSWORD, "hunter3")
    said = complaint(options)
    assert f"does not open with the password in {PASSWORD}" in said
    assert "hunter" not in said


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\x00",
        b"{nonsense",
        b'{"ss58Address":"nobody"}',
        f'{{"ss58Address":"{ALICE.ss58_address}"}}'.encode(),
    ],
    ids=["empty", "bytes", "cut off", "no address", "public key only"],
)
def test_a_damaged_file_is_said_to_be_damaged(options, file, content):
    save(file, content)
    said = complaint(options)
    assert f"the hotkey file {file} is damaged" in said
    assert "Restore it from a backup" in said


def test_a_file_that_others_can_read_works_with_a_warning(options, file, capsys):
    configure_logging()
    save(file)
    open_hotkey(options)
    assert capsys.readouterr().err == ""
    file.chmod(0o644)
    assert open_hotkey(options).ss58_address == ALICE.ss58_address
    assert f"chmod 600 {file}" in capsys.readouterr().err


def test_a_file_of_another_user_is_named_with_what_to_do(options, file):
    save(file)
    file.chmod(0)
    with as_somebody_else():
        said = complaint(options)
    assert f"the hotkey file {file} cannot be read by the user that runs this" in said
    assert "chown" in said
