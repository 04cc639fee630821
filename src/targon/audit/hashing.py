"""Every line held to its hash, its predecessor and its place, and the evidence computed again: beside the fold.

Run in a process of its own (:func:`serve`), it reads tasks, one JSON object on each line, and writes what it found.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Final

from targon.audit.errors import Unreadable
from targon.audit.faults import Fault, Faults
from targon.audit.lean import check_canonical, looks_hot
from targon.audit.proving import Proving, calibrations_at_hand
from targon.protocol.errors import MalformedMessage
from targon.protocol.records import LogLine
from targon.protocol.segments import MAX_SEGMENT_BYTES, segment_file

MAX_RECORD_BYTES: Final = 8 << 20
"""A record's line is never longer: the observations of the longest completion fit twice."""
MAX_FILE_BYTES: Final = MAX_SEGMENT_BYTES + MAX_RECORD_BYTES

START: Final = b'{"event":'
HASH: Final = b',"hash":"'
PREV: Final = b'","prev":"'
_TO_HASH_BYTES: Final = len(HASH) + 64 + len(PREV)


@dataclass(frozen=True, slots=True)
class Task:
    """A segment to look at, as its manifest tells of it."""

    folder: str
    number: int
    first: int
    last: int
    prev: str
    head: str
    size: int
    content: str


@dataclass(frozen=True, slots=True)
class Hashed:
    """What was found of a segment."""

    number: int
    records: int
    """Good ones, from its first on."""
    faults: tuple[Fault, ...]
    """What is wrong with its lines, or with the file."""
    evidence: tuple[Fault, ...] = ()
    """What is wrong with the evidence that they tell of."""


def opened(path: Path, most: int) -> IO[bytes]:
    """A plain file, no link, of bounded size, opened.

    Raises:
        Unreadable: if it is none.
        FileNotFoundError: if there is none.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Unreadable(f"{path.name}: {error.strerror}, expected a plain file") from error
    file = os.fdopen(descriptor, "rb", buffering=1 << 16)
    about = os.fstat(descriptor)
    if not stat.S_ISREG(about.st_mode) or about.st_size > most:
        file.close()
        raise Unreadable(
            f"{path.name}: got {about.st_size} bytes of {stat.filemode(about.st_mode)}, expected a plain "
            f"file of at most {most}"
        )
    return file


def hash_segment(task: Task, proving: Proving) -> Hashed:
    """Look at every line of a segment, and at the file as a whole.

    Args:
        proving: follows the evidence from segment to segment.
    """
    faults = Faults()
    before = len(proving.faults.kept)
    name = f"segment {task.number}"
    records = 0
    try:
        with opened(Path(task.folder) / segment_file(task.number), MAX_FILE_BYTES) as file:
            content, size, records = _lines(file, task, faults, proving)
    except FileNotFoundError:
        faults.add("omitted", name, "no file", f"records {task.first} to {task.last}")
        return Hashed(task.number, 0, tuple(faults.kept))
    except (OSError, Unreadable) as error:
        faults.add("malformed", name, str(error), "a segment's file")
        return Hashed(task.number, 0, tuple(faults.kept))
    if size != task.size or content != task.content:
        faults.add(
            "truncated" if faults.counts["truncated"] and size < task.size else "tampered",
            name,
            f"{size} bytes with SHA-256 {content[:12]}…",
            f"{task.size} bytes with {task.content[:12]}…, as its manifest says",
        )
    return Hashed(task.number, records, tuple(faults.kept), tuple(proving.faults.kept[before:]))


def _lines(file: IO[bytes], task: Task, faults: Faults, proving: Proving) -> tuple[str, int, int]:
    """SHA-256 and size of the file, and how many lines are good."""
    sha256, prev, seq = hashlib.sha256, task.prev, task.first
    while line := file.readline(MAX_RECORD_BYTES + 1):
        # what follows the event must be this, once the event's hash is put in: so every byte of the line is held to it
        end = b'%b","seq":%d}\n' % (prev.encode(), seq)
        before_hash = -len(end) - _TO_HASH_BYTES
        start = line[:before_hash]
        hash_ = sha256(b'%b,"prev":"%b' % (start, end[:-1])).hexdigest()
        if line[before_hash:] == b',"hash":"%b","prev":"%b' % (hash_.encode(), end) and start.startswith(
            START
        ):
            if not looks_hot(line, len(START)):
                event = start[len(START) :]
                try:
                    proving.take(seq, check_canonical(event), len(event))
                except MalformedMessage as error:
                    faults.add("malformed", seq, str(error), "an event in canonical form")
            prev = hash_
            seq += 1
            continue
        proving.settle(seq)
        _name(line, seq, prev, file, faults)
        return *_whole(file), seq - task.first
    proving.settle(seq)
    _ends(task, seq, prev, faults)
    return *_whole(file), seq - task.first


def _whole(file: IO[bytes]) -> tuple[str, int]:
    """SHA-256 and size of a file, from its beginning."""
    file.seek(0)
    digest, size = hashlib.sha256(), 0
    while piece := file.read(1 << 20):
        digest.update(piece)
        size += len(piece)
    return digest.hexdigest(), size


def _ends(task: Task, seq: int, head: str, faults: Faults) -> None:
    if seq != task.last + 1:
        faults.add(
            "truncated" if seq <= task.last else "tampered",
            f"segment {task.number}",
            f"its end after record {seq - 1}",
            f"after record {task.last}, as its manifest says",
        )
    elif head != task.head:
        faults.add(
            "tampered",
            seq - 1,
            f"the hash {head[:12]}…",
            f"{task.head[:12]}…, as segment {task.number}'s manifest says",
        )


def _name(line: bytes, seq: int, prev: str, file: IO[bytes], faults: Faults) -> None:
    """Find out what is wrong with the first line that is not as it should be."""
    if len(line) > MAX_RECORD_BYTES:
        faults.add("malformed", seq, f"a line of over {MAX_RECORD_BYTES} bytes", "a record")
        return
    if not line.endswith(b"\n"):
        faults.add("truncated", seq, f"{len(line)} bytes without a line break", "a whole record")
        return
    try:
        got = LogLine.from_bytes(line[:-1])
    except MalformedMessage as error:
        faults.add(
            "tampered" if "got the hash" in str(error) else "malformed", seq, str(error), "what was hashed"
        )
        return
    if got.seq < seq:
        faults.add("reordered", seq, f"record {got.seq} once more", f"record {seq}")
    elif got.seq > seq:
        if _stands_later(file, seq):
            faults.add("reordered", seq, f"record {got.seq}, and record {seq} later", f"record {seq}")
        else:
            faults.add(
                "omitted", seq, f"record {got.seq}", f"record {seq}, and {got.seq - seq} in all between"
            )
    else:
        faults.add(
            "forked",
            seq,
            f"a record that follows {got.prev[:12]}…",
            f"one that follows {prev[:12]}…, the one before it",
        )


def _stands_later(file: IO[bytes], seq: int) -> bool:
    end = b'","seq":%d}\n' % seq
    while line := file.readline(MAX_RECORD_BYTES + 1):
        if line.endswith(end):
            return True
    return False


def main(tasks: IO[bytes], results: IO[bytes]) -> None:
    """Look at segments as they are named, until there are no more. First come the places of calibrations; what was
    counted comes last."""
    proving = Proving(calibrations_at_hand(Path(place) for place in json.loads(tasks.readline())))
    for line in tasks:
        found = hash_segment(Task(**json.loads(line)), proving)
        results.write(json.dumps(asdict(found)).encode() + b"\n")
        results.flush()
    counted = (proving.checked, proving.unchecked, sorted(proving.missing))
    results.write(json.dumps(counted).encode() + b"\n")
    results.flush()


def result_of(line: bytes) -> Hashed:
    """What another process found of a segment."""
    value: dict[str, Any] = json.loads(line)
    faults, evidence = (tuple(Fault(**fault) for fault in value[name]) for name in ("faults", "evidence"))
    return Hashed(value["number"], value["records"], faults, evidence)


def serve() -> None:
    """What the process that hashes runs: tasks come on stdin, results go to stdout."""
    main(sys.stdin.buffer, sys.stdout.buffer)
