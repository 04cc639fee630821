"""The released part of a log, written as segments: once each, whole or not at all, and never again.

A folder holds, by number, ``segment-NNNNNNNN.jsonl`` with its manifest ``segment-NNNNNNNN.json`` and perhaps
``transcripts-NNNNNNNN.jsonl``, and an ``index.json`` that is written last. Files get their names when they are whole
and on disk; what an interruption leaves is written again. A segment is written once its end is known, so what is
released after the last ``interval_opened`` record waits for the next one.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import IO, Final, Protocol, TypeVar

import anyio
import anyio.to_thread
import structlog

from targon.audit.errors import ExportRefused
from targon.ledger import GENESIS_HASH, LedgerError, Log, LogOpened, Standings
from targon.protocol import segments
from targon.protocol.errors import ProtocolError
from targon.protocol.keys import Signer
from targon.protocol.messages import Message
from targon.protocol.primitives import Digest, Hotkey
from targon.protocol.records import LogLine
from targon.protocol.segments import SegmentBody, SegmentIndex, SegmentManifest

logger = structlog.get_logger(__name__)

T = TypeVar("T")
M = TypeVar("M", bound=Message)

LOOK_S: Final = 5.0
"""Seconds between two looks at what was released."""
PIECE_BYTES: Final = 1 << 20
"""Written at a time."""


class Transcripts(Protocol):
    """Answers of the verifier's own work (never a user's), which are published with the segments of their attempts."""

    def lines(self, first: int, last: int) -> Iterable[bytes]:
        """The answers to attempts of these numbers, both ends included, each as a line without its break
        (``targon.verification.answer_file``), in the order of their attempts. It may block."""
        ...


class Exporter:
    """Writes a log's segments into a folder.

    Args:
        log: read from; another one than what is appended through, where a verifier runs.
        signer: the verifier's hotkey.
        transcripts: answers to publish; None: none.
    """

    def __init__(
        self, folder: Path, log: Log, signer: Signer, transcripts: Transcripts | None = None
    ) -> None:
        self._folder = folder
        self._log = log
        self._signer = signer
        self._transcripts = transcripts
        self._one = anyio.CapacityLimiter(1)
        self._last: SegmentBody | None = None
        self._checked = False

    async def run(self, standings: Callable[[], Standings]) -> None:
        """Write what is released, as it comes, until it is cancelled. What keeps it from that is logged, and tried
        again."""
        done = -1
        while True:
            now = standings()
            if now.opened is not None and now.released != done:
                released = now.released
                try:
                    await self.export(now.opened, released)
                    done = released
                except (OSError, LedgerError, ExportRefused) as error:
                    logger.warning("segments_not_written", folder=str(self._folder), error=str(error))
            await anyio.sleep(LOOK_S)

    async def export(self, opened: LogOpened, released: int) -> SegmentIndex:
        """Write every segment that is released whole and is not there yet.

        Args:
            opened: the log's first event.
            released: how many of its records may be published.

        Raises:
            ExportRefused: if the signer isn't the log's verifier, or the folder holds another log's segments.
            LedgerError: if the log cannot be read.
            OSError: if the folder cannot be written.
        """
        if opened.verifier != self._signer.ss58_address:
            raise ExportRefused(
                f"the log is that of {opened.verifier}, expected that of the wallet's hotkey, "
                f"{self._signer.ss58_address}: only the verifier itself can sign its segments"
            )
        if not self._checked:
            await self._in_thread(lambda: self._folder.mkdir(parents=True, exist_ok=True))
            self._last = await self._resume(opened)
            self._checked = True
        while (body := await self._next(opened, released)) is not None:
            self._last = body
            await self._in_thread(partial(write_whole, self._folder / segments.INDEX, self._index(opened)))
        index = self._index(opened)
        if not await self._in_thread((self._folder / segments.INDEX).exists):
            await self._in_thread(partial(write_whole, self._folder / segments.INDEX, index))
        return index

    def _index(self, opened: LogOpened) -> SegmentIndex:
        last = self._last
        return SegmentIndex(
            genesis=opened.genesis,
            netuid=opened.netuid,
            verifier=opened.verifier,
            segments=0 if last is None else last.number + 1,
            records=0 if last is None else last.last + 1,
            head=GENESIS_HASH if last is None else last.head,
        )

    # -- one segment -----------------------------------------------------------------------------------

    async def _next(self, opened: LogOpened, released: int) -> SegmentBody | None:
        """Write the segment after the last; None if its end is not released yet."""
        last = self._last
        number, start = (0, 0) if last is None else (last.number + 1, last.last + 1)
        path = self._folder / segments.segment_file(number)
        part = await self._in_thread(lambda: _Part(path))
        try:
            # The record after the released ones is looked at, not written: it may be where the segment ends.
            async with aclosing(self._log.read_lines(start, released + 1)) as lines:
                async for line in lines:
                    if part.records and segments.opens_interval(line.event):
                        break
                    if line.seq == released:
                        return None
                    part.add(line)
                    if part.waiting >= PIECE_BYTES:
                        await self._in_thread(part.write)
                    if segments.is_full(part.records, part.size):
                        break
                else:
                    return None
            before, head = part.ends
            content = await self._in_thread(part.finish)
        finally:
            await self._in_thread(part.close)
        body = SegmentBody(
            genesis=opened.genesis,
            netuid=opened.netuid,
            verifier=Hotkey(self._signer.ss58_address),
            number=number,
            first=start,
            last=start + part.records - 1,
            prev=before,
            head=head,
            size=part.size,
            content=content,
            transcripts=await self._publish_answers(number, start, start + part.records - 1),
            previous=segments.NO_MANIFEST if last is None else last.digest(),
        )
        if body.prev != (GENESIS_HASH if last is None else last.head):
            raise ExportRefused(
                f"{self._folder} holds the segments of another log: record {start - 1} there ends in "
                f"{'nothing' if last is None else last.head[:12]}…, here in {body.prev[:12]}…: give another folder"
            )
        manifest = segments.sign(body, self._signer)
        await self._in_thread(partial(write_whole, self._folder / segments.manifest_file(number), manifest))
        logger.info("segment_written", number=number, first=body.first, last=body.last, size=body.size)
        return body

    async def _publish_answers(self, number: int, first: int, last: int) -> Digest | None:
        source = self._transcripts
        if source is None:
            return None

        def publish() -> Digest | None:
            part = _Part(self._folder / segments.transcripts_file(number))
            try:
                for line in source.lines(first, last):
                    part.add_bytes(line)
                    if part.waiting >= PIECE_BYTES:
                        part.write()
                return part.finish() if part.records else None
            finally:
                part.close()

        return await self._in_thread(publish)

    # -- going on --------------------------------------------------------------------------------------

    async def _resume(self, opened: LogOpened) -> SegmentBody | None:
        """The last segment that lies in the folder; None: none does."""
        index = await self._in_thread(partial(_read, self._folder / segments.INDEX, SegmentIndex))
        if index is None:
            return None
        if (index.genesis, index.netuid, index.verifier) != (opened.genesis, opened.netuid, opened.verifier):
            raise ExportRefused(
                f"{self._folder} holds the segments of another log, that of {index.verifier} on subnet "
                f"{index.netuid} of {index.genesis[:12]}…: give another folder"
            )
        if index.segments == 0:
            return None
        name = segments.manifest_file(index.segments - 1)
        manifest = await self._in_thread(partial(_read, self._folder / name, SegmentManifest))
        if manifest is None:
            raise ExportRefused(
                f"{self._folder / name} is missing, which {segments.INDEX} counts: give another folder"
            )
        body = manifest.body
        async with aclosing(self._log.read_lines(body.last, body.last + 1)) as lines:
            found = [line async for line in lines]
        if not found or found[0].hash != body.head:
            raise ExportRefused(
                f"{self._folder} holds the segments of another log: record {body.last} there is "
                f"{body.head[:12]}…, here {found[0].hash[:12] + '…' if found else 'there is none'}: give another folder"
            )
        return body

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(call, limiter=self._one)


class _Part:
    """A file of lines that gets its name once it is whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unfinished = path.with_name(path.name + ".part")
        self._file: IO[bytes] | None = self._unfinished.open("wb")
        self._waiting = bytearray()
        self._digest = hashlib.sha256()
        self._prev = self._head = GENESIS_HASH
        self.records = 0
        self.size = 0

    @property
    def waiting(self) -> int:
        """Bytes that are not written yet."""
        return len(self._waiting)

    @property
    def ends(self) -> tuple[Digest, Digest]:
        """Hash of the record before the first, and of the last."""
        return self._prev, self._head

    def add(self, line: LogLine) -> None:
        if self.records == 0:
            self._prev = line.prev
        self._head = line.hash
        self.add_bytes(line.to_bytes())

    def add_bytes(self, line: bytes) -> None:
        self._waiting += line
        self._waiting += b"\n"
        self.records += 1
        self.size += len(line) + 1

    def write(self) -> None:
        assert self._file is not None  # nothing is added once it is finished
        self._digest.update(self._waiting)
        self._file.write(self._waiting)
        self._waiting.clear()

    def finish(self) -> Digest:
        """Put it on disk under its name; returns its SHA-256."""
        self.write()
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._file = None
        self._unfinished.replace(self._path)
        return Digest(self._digest.hexdigest())

    def close(self) -> None:
        """Throw it away, unless it was finished."""
        if self._file is not None:
            self._file.close()
            self._file = None
            self._unfinished.unlink(missing_ok=True)


def write_whole(path: Path, message: Message) -> None:
    """Write a message as a file, which is whole whenever it is there."""
    unfinished = path.with_name(path.name + ".part")
    with unfinished.open("wb") as file:
        file.write(message.to_bytes() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    descriptor = os.open(path.parent, os.O_RDONLY)  # the names, too, are to survive a power loss
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path, kind: type[M]) -> M | None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return kind.from_bytes(data)
    except ProtocolError as error:
        raise ExportRefused(f"{path} is damaged ({error}): give another folder") from error
