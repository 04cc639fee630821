"""``targon chain``: the embedded chain, for trying things out on one machine."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio
from pydantic import Field
from pydantic_settings import CliPositionalArg, CliSubCommand, get_subcommand
from rich.console import Console
from rich.table import Table

from targon.chain import ChainSettings, EmbeddedChain
from targon.cli.keys import open_hotkey
from targon.cli.options import Options, WalletOptions
from targon.protocol.primitives import Hotkey


class CreateChain(Options):
    """Make an embedded chain: one file that several processes share."""

    file: CliPositionalArg[Path]
    """The file to make."""
    netuid: int = Field(4, ge=0, lt=65_536)
    """The subnet."""
    block_seconds: float = Field(12.0, gt=0.0)
    """Seconds from one block to the next."""
    tempo: int = Field(360, ge=1)
    """Blocks from one epoch to the next."""

    def run(self) -> int:
        settings = ChainSettings(netuid=self.netuid, block_seconds=self.block_seconds, tempo=self.tempo)
        EmbeddedChain.create(self.file, settings).close()
        sys.stdout.write(f"sqlite://{self.file.resolve()}\n")
        return 0


class Register(Options):
    """Register a hotkey on an embedded chain."""

    file: CliPositionalArg[Path]
    """The chain's file."""
    wallet: WalletOptions = WalletOptions()
    stake: float = Field(0.0, ge=0.0)
    """TAO to stake on it, from nowhere. Verifiers need some to be permitted to set weights."""

    def run(self) -> int:
        keypair = open_hotkey(self.wallet)
        chain = EmbeddedChain.open(self.file)
        try:
            uid = chain.register(keypair)
            if self.stake:
                chain.add_stake(Hotkey(keypair.ss58_address), self.stake)
        finally:
            chain.close()
        sys.stdout.write(f"{keypair.ss58_address} holds UID {uid}\n")
        return 0


class ShowChain(Options):
    """Show an embedded chain's neurons."""

    file: CliPositionalArg[Path]
    """The chain's file."""

    def run(self) -> int:
        anyio.run(_show, self.file)
        return 0


async def _show(path: Path) -> None:
    chain = EmbeddedChain.open(path)
    metagraph = await chain.metagraph()
    await chain.aclose()
    table = Table(title=f"subnet {metagraph.netuid}, block {metagraph.block}")
    for name in ("UID", "hotkey", "stake", "permit", "axon", "last weights", "incentive", "dividends"):
        table.add_column(name, overflow="fold")
    for neuron in metagraph.neurons:
        table.add_row(
            str(neuron.uid),
            neuron.hotkey,
            f"{neuron.stake:g}",
            "yes" if neuron.validator_permit else "",
            str(neuron.axon or ""),
            "" if neuron.last_update is None else str(neuron.last_update),
            f"{neuron.incentive:.4f}",
            f"{neuron.dividends:.4f}",
        )
    Console().print(table)


class ChainCommand(Options):
    """The embedded chain, for trying things out on one machine."""

    create: CliSubCommand[CreateChain]
    register_: CliSubCommand[Register] = Field(alias="register")
    show: CliSubCommand[ShowChain]

    def run(self) -> int:
        command = get_subcommand(self)
        assert isinstance(command, CreateChain | Register | ShowChain)
        return command.run()
