"""A verifier's life, in short: a log as a verifier writes it, its segments, and ways to tamper with them.

Prover and verifier are real hotkeys, receipts and manifests are really signed, draws really fall as they do.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from bittensor.keyfiles import Keypair

from targon.ledger import Event, Log, SqliteLog
from targon.ledger.port import EMPTY
from targon.protocol.segments import SegmentIndex

VERIFIER = Keypair.create_from_uri("//Bob")
OTHER = Keypair.create_from_uri("//Eve")
PROVERS = [Keypair.create_from_uri(f"//Prover{number}") for number in range(4)]


@asynccontextmanager
async def a_log(path: Path, events: list[Event]) -> AsyncGenerator[Log, None]:
    """A log of some events, in a file."""
    async with aclosing(await SqliteLog.open(path)) as log:
        await log.append(events, expected=EMPTY)
        yield log


def index_of(folder: Path) -> SegmentIndex:
    return SegmentIndex.from_bytes((folder / "index.json").read_bytes())


def files_of(folder: Path) -> dict[str, bytes]:
    """What lies in a folder, but for signatures, which differ each time."""
    return {
        path.name: path.read_bytes() if path.suffix != ".json" else path.read_bytes().split(b'"signature"')[0]
        for path in sorted(folder.iterdir())
    }
