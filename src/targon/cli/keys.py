"""Wallets: the folders of keys that ``bittensor`` reads and writes."""

from __future__ import annotations

from pathlib import Path

from bittensor.keyfiles import KeyfileError, Keypair
from bittensor.wallet import Wallet

from targon.cli.errors import CommandError
from targon.cli.options import WalletOptions


def open_hotkey(options: WalletOptions) -> Keypair:
    """The hotkey that signs.

    Raises:
        CommandError: if there is none, saying how to make one.
    """
    path = _folder(options) / options.name / "hotkeys" / options.hotkey
    if not path.is_file():
        raise CommandError(
            f"no hotkey {options.hotkey!r} in wallet {options.name!r}: expected the file {path}. Make one with:\n"
            f"  targon wallet create --wallet.name {options.name} --wallet.hotkey {options.hotkey} "
            f"--wallet.path {options.path}"
        )
    try:
        return Wallet(name=options.name, hotkey=options.hotkey, path=str(_folder(options))).hotkey
    except (KeyfileError, ValueError) as error:
        raise CommandError(f"the hotkey file {path} cannot be read: {error}") from error


def create_wallet(options: WalletOptions) -> str:
    """Make a hotkey without a password (a running neuron must read it); returns its address.

    Raises:
        CommandError: if it exists already. Nothing is ever overwritten.
    """
    folder = _folder(options)
    path = folder / options.name / "hotkeys" / options.hotkey
    if path.exists():
        raise CommandError(f"the hotkey file {path} exists already; choose another --wallet.hotkey")
    wallet = Wallet(name=options.name, hotkey=options.hotkey, path=str(folder))
    wallet.create_new_hotkey(use_password=False, overwrite=False, suppress=True)
    path.chmod(0o600)
    return str(wallet.hotkey.ss58_address)


def _folder(options: WalletOptions) -> Path:
    return options.path.expanduser()
