"""A verifier's life, in short: a log as a verifier writes it, its segments, and ways to tamper with them.

Prover and verifier are real hotkeys, receipts and manifests are really signed, draws really fall as they do.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

from bittensor.keyfiles import Keypair

from benchmarks.written_log import Life
from targon.audit import Exporter, Report, audit_folder
from targon.ledger import Event, Log, SqliteLog, record_hash
from targon.ledger.port import EMPTY
from targon.protocol import segments
from targon.protocol.canonical import canonical_bytes
from targon.protocol.records import LogLine
from targon.protocol.segments import SegmentBody, SegmentIndex, SegmentManifest

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


def a_life(blocks: int = 40, *, seed: int = 1, **changes: object) -> Life:
    """A verifier's life of some intervals, as its log has it."""
    return Life(VERIFIER, PROVERS, seed=seed, per_block=4, challenges=2, **changes).live(blocks)  # type: ignore[arg-type]


class Published:
    """A folder of segments, and ways to change it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    async def of(cls, life: Life, folder: Path, *, signer: Keypair = VERIFIER) -> Published:
        """What a verifier publishes of its life."""
        async with a_log(folder / "log.sqlite", [record.event for record in life.records]) as log:
            assert life.standings.opened is not None
            await Exporter(folder / "segments", log, signer).export(
                life.standings.opened, life.standings.released
            )
        return cls(folder / "segments")

    def lines(self, number: int) -> list[bytes]:
        return (self.folder / segments.segment_file(number)).read_bytes().splitlines(keepends=True)

    def write(self, number: int, lines: list[bytes]) -> None:
        (self.folder / segments.segment_file(number)).write_bytes(b"".join(lines))

    def manifest(self, number: int) -> SegmentManifest:
        return SegmentManifest.from_bytes((self.folder / segments.manifest_file(number)).read_bytes())

    def sign(self, body: SegmentBody, signer: Keypair = VERIFIER) -> None:
        manifest = segments.sign(body, signer)
        (self.folder / segments.manifest_file(body.number)).write_bytes(manifest.to_bytes() + b"\n")

    @property
    def count(self) -> int:
        return index_of(self.folder).segments

    def sign_anew(self, signer: Keypair = VERIFIER) -> None:
        """Sign whatever lies there, so that all of it fits together: what only a verifier itself can do."""
        before: SegmentBody | None = None
        for number in range(self.count):
            lines = self.lines(number)
            first, last = (LogLine.from_bytes(line[:-1]) for line in (lines[0], lines[-1]))
            before = self.manifest(number).body.model_copy(
                update={
                    "first": first.seq,
                    "last": last.seq,
                    "prev": first.prev,
                    "head": last.hash,
                    "size": sum(map(len, lines)),
                    "content": hashlib.sha256(b"".join(lines)).hexdigest(),
                    "previous": segments.NO_MANIFEST if before is None else before.digest(),
                }
            )
            self.sign(before, signer)
        index = index_of(self.folder)
        assert before is not None
        index = index.model_copy(update={"records": before.last + 1, "head": before.head})
        (self.folder / "index.json").write_bytes(index.to_bytes() + b"\n")

    def change(self, where: int, make: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """Change an event, and chain and sign all that follows anew: a verifier that rewrites its own history."""
        prev = None
        for number in range(self.count):
            lines = []
            for line in self.lines(number):
                record = LogLine.from_bytes(line[:-1])
                event = record.event
                if record.seq == where:
                    event = canonical_bytes(make(json.loads(event)))
                before = record.prev if prev is None else prev
                made = LogLine(record.seq, before, record_hash(record.seq, before, event), event)
                prev = made.hash
                lines.append(made.to_bytes() + b"\n")
            self.write(number, lines)
        self.sign_anew()

    def audit(self, **arguments: Any) -> Report:
        report, _ = audit_folder(self.folder, **arguments)
        return report

    def kinds(self, **arguments: Any) -> set[str]:
        return set(self.audit(**arguments).faults.counts)
