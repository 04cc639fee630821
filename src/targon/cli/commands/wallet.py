"""``targon wallet``."""

from __future__ import annotations

import sys

from pydantic_settings import CliSubCommand, get_subcommand

from targon.cli.keys import create_wallet, open_hotkey
from targon.cli.options import Options, WalletOptions


class CreateWallet(Options):
    """Make a hotkey, without a password, and print its address."""

    wallet: WalletOptions = WalletOptions()

    def run(self) -> int:
        sys.stdout.write(f"{create_wallet(self.wallet)}\n")
        return 0


class ShowWallet(Options):
    """Print a hotkey's address."""

    wallet: WalletOptions = WalletOptions()

    def run(self) -> int:
        sys.stdout.write(f"{open_hotkey(self.wallet).ss58_address}\n")
        return 0


class WalletCommand(Options):
    """Make and show hotkeys."""

    create: CliSubCommand[CreateWallet]
    show: CliSubCommand[ShowWallet]

    def run(self) -> int:
        command = get_subcommand(self)
        assert isinstance(command, CreateWallet | ShowWallet)
        return command.run()
