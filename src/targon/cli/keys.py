"""Wallets: the folders of keys that ``bittensor`` reads and writes."""

from __future__ import annotations

import os
from pathlib import Path

import structlog
from bittensor.keyfiles import Keyfile, KeyfileError, Keypair
from bittensor.wallet import Wallet

from targon.cli.errors import CommandError
from targon.cli.options import WalletOptions

PASSWORD = "TARGON_WALLET_PASSWORD"  # noqa: S105 - the name of a variable
"""The variable of the environment that holds the password of a hotkey, for those that have one."""

logger = structlog.get_logger(__name__)


def open_hotkey(options: WalletOptions) -> Keypair:
    """The hotkey that signs.

    Raises:
        CommandError: if there is none, or none that can be used, saying how to come by one.
    """
    path = _path(options)
    keyfile = Keyfile(path)
    try:
        if not path.is_file():
            raise CommandError(_missing(options, path))
        if path.stat().st_mode & 0o077:
            logger.warning("hotkey_file_open_to_others", advice=f"chmod 600 {path}")
        keypair = keyfile.get_keypair(_password(options, path) if keyfile.is_encrypted() else None)
        keypair.sign(b"")
    except PermissionError as error:
        raise CommandError(
            f"the hotkey file {path} cannot be read by the user that runs this; expected its owner: "
            f"chown it, then chmod 600 {path}"
        ) from error
    except KeyfileError as error:
        if keyfile.is_encrypted():
            raise CommandError(
                f"the hotkey file {path} does not open with the password in {PASSWORD} ({error}); "
                "set that to the password which it was made with"
            ) from error
        raise CommandError(_damaged(path, error)) from error
    except ValueError as error:
        raise CommandError(_damaged(path, error)) from error
    return keypair


def create_wallet(options: WalletOptions) -> str:
    """Make a hotkey without a password (a running neuron must read it); returns its address.

    Raises:
        CommandError: if it exists already. Nothing is ever overwritten.
    """
    path = _path(options)
    if path.exists():
        raise CommandError(f"the hotkey file {path} exists already; choose another --wallet.hotkey")
    wallet = Wallet(name=options.name, hotkey=options.hotkey, path=str(options.path.expanduser()))
    wallet.create_new_hotkey(use_password=False, overwrite=False, suppress=True)
    path.chmod(0o600)
    return str(wallet.hotkey.ss58_address)


def _path(options: WalletOptions) -> Path:
    return options.path.expanduser() / options.name / "hotkeys" / options.hotkey


def _making(options: WalletOptions, hotkey: str) -> str:
    return (
        f"  targon wallet create --wallet.name {options.name} --wallet.hotkey {hotkey} "
        f"--wallet.path {options.path}"
    )


def _missing(options: WalletOptions, path: Path) -> str:
    """Which of the folders is not there, and what is there instead."""
    wallet = path.parent.parent
    if not wallet.is_dir():
        what, others = f"no wallet {options.name!r}", _names(wallet.parent)
    else:
        what, others = f"no hotkey {options.hotkey!r} in wallet {options.name!r}", _names(path.parent)
    there = f" (there: {', '.join(others)})" if others else ""
    return f"{what}{there}: expected the file {path}. Make one with:\n{_making(options, options.hotkey)}"


def _names(folder: Path) -> list[str]:
    """The keys, or the wallets, in a folder; the first few."""
    if not folder.is_dir():
        return []
    names = sorted(one.name for one in folder.iterdir() if not one.name.endswith((".txt", ".tmp")))
    return [*names[:8], "..."] if len(names) > 8 else names


def _password(options: WalletOptions, path: Path) -> str:
    password = os.environ.get(PASSWORD)
    if not password:
        raise CommandError(
            f"the hotkey file {path} is encrypted; a neuron runs unattended, so its hotkey must have no password, or "
            f"have it in the environment, in {PASSWORD}. Make a hotkey without one, and register it, with:\n"
            f"{_making(options, f'{options.hotkey}-plain')}"
        )
    return password


def _damaged(path: Path, error: Exception) -> str:
    return (
        f"the hotkey file {path} is damaged ({error}); expected a keyfile of bittensor with a private key. "
        "Restore it from a backup, or make it again from its mnemonic"
    )
