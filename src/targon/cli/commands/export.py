"""``targon log export``: what is released of a verifier's log, as signed segments in a folder."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio
from bittensor.keyfiles import Keypair
from pydantic_settings import CliPositionalArg, CliUnknownArgs

from targon.audit import Exporter
from targon.cli.commands.log import verifier_options
from targon.cli.errors import CommandError
from targon.cli.keys import open_hotkey
from targon.cli.logs import log_to_read
from targon.cli.options import Options
from targon.cli.publishing import OwnWork
from targon.cli.verifier_options import VerifierOptions
from targon.ledger import replay
from targon.protocol.segments import SegmentIndex


class ExportLog(Options):
    """Write what is released of a verifier's log as segments, each with a manifest that the wallet's hotkey signs. A
    running verifier does so by itself, in the folder segments of its --data.path. Segments that are there already stay
    as they are. FOLDER comes first, then the verifier's own flags (--wallet.name, --data.path, --database.host,
    --config …); its environment counts, too."""

    folder: CliPositionalArg[Path]
    """Folder for the segments; made where there is none."""
    flags: CliUnknownArgs
    path: Path | None = None
    """The log's file, or a verifier's folder; without it, what the flags say."""

    def run(self) -> int:
        options = verifier_options(self.flags)
        index = anyio.run(_export, self.folder.expanduser(), self.path, options, open_hotkey(options.wallet))
        sys.stdout.write(
            f"{index.segments} segments with {index.records} records in {self.folder}"
            + (f", up to {index.head[:12]}…\n" if index.records else ": nothing whole is released yet\n")
        )
        return 0


async def _export(folder: Path, path: Path | None, options: VerifierOptions, signer: Keypair) -> SegmentIndex:
    async with log_to_read(path, options) as (name, log):
        standings = await replay(log)
        if standings.opened is None:
            raise CommandError(f"the log {name} is empty: there is nothing to export")
        own = None if path is not None else OwnWork(options.data.path.expanduser())
        return await Exporter(folder, log, signer, own).export(standings.opened, standings.released)
