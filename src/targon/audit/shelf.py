"""A folder of segments as a stranger finds it: which there are, and whether their manifests are in a row."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from targon.audit.errors import Unreadable
from targon.audit.faults import FaultKind, Faults
from targon.audit.hashing import Task, opened
from targon.protocol import segments
from targon.protocol.errors import InvalidSignature, MalformedMessage, SegmentMismatch
from targon.protocol.messages import Message
from targon.protocol.segments import SegmentBody, SegmentIndex, SegmentManifest

MAX_MESSAGE_BYTES: Final = 16_384
"""An index or a manifest is never longer."""

_NAME: Final = re.compile(r"segment-([0-9]{8})\.json(l?)")

_FIELDS: Final[dict[str, tuple[FaultKind, str]]] = {
    "number": ("reordered", "by its place"),
    "first": ("omitted", "after the last record of the segment before"),
    "prev": ("forked", "the hash of the record before"),
    "previous": ("forked", "the digest of the manifest before"),
    "genesis": ("stranger", "as in the segments before"),
    "netuid": ("stranger", "as in the segments before"),
    "verifier": ("stranger", "as in the segments before"),
}
"""What it says of a manifest that a field is not as it should be, and why it should."""

M = TypeVar("M", bound=Message)


@dataclass(slots=True)
class Shelf:
    """The segments of a folder, up to the first that is missing."""

    folder: Path
    index: SegmentIndex | None
    bodies: list[SegmentBody] = field(default_factory=list)
    """Those whose manifests are in a row, genuine, and of one log."""

    def tasks(self) -> list[Task]:
        """What is to be hashed."""
        return [
            Task(
                folder=str(self.folder),
                number=body.number,
                first=body.first,
                last=body.last,
                prev=body.prev,
                head=body.head,
                size=body.size,
                content=body.content,
            )
            for body in self.bodies
        ]


def read_message(path: Path, kind: type[M]) -> M:
    """A message in a file.

    Raises:
        Unreadable, MalformedMessage: if it is none.
        FileNotFoundError: if there is none.
    """
    with opened(path, MAX_MESSAGE_BYTES) as file:
        data = file.read()
    message = kind.from_bytes(data)
    if message.to_bytes() + b"\n" != data:
        raise MalformedMessage(
            f"{path.name}: it is not in canonical form (RFC 8785) with a line break after it"
        )
    return message


def look(folder: Path, faults: Faults) -> Shelf:
    """Look at a folder's index and manifests.

    Raises:
        Unreadable: if there are no segments at all.
    """
    try:
        names = [_NAME.fullmatch(path.name) for path in folder.iterdir()]
    except OSError as error:
        raise Unreadable(f"{folder}: {error.strerror}, expected a folder of segments") from error
    numbers = {int(found[1]) for found in names if found is not None}
    index = None
    try:
        index = read_message(folder / segments.INDEX, SegmentIndex)
    except FileNotFoundError:
        if not numbers:
            raise Unreadable(
                f"{folder}: there are no segments here: expected {segments.INDEX} and files like "
                f"{segments.segment_file(0)}"
            ) from None
        faults.add("omitted", segments.INDEX, "no such file", "a list of the segments")
    except (OSError, Unreadable, MalformedMessage) as error:
        faults.add("malformed", segments.INDEX, str(error), "a list of the segments")
    count = max([0 if index is None else index.segments, *(number + 1 for number in numbers)])
    shelf = Shelf(folder, index)
    for number in range(count):
        body = _manifest(shelf, number, faults)
        if body is None:
            if number + 1 < count:
                faults.add(
                    "omitted",
                    f"segments {number} to {count - 1}",
                    "no good manifest to begin with",
                    "one: they are not audited",
                )
            break
        shelf.bodies.append(body)
    _compare(shelf, faults)
    return shelf


def _manifest(shelf: Shelf, number: int, faults: Faults) -> SegmentBody | None:
    where = f"segment {number}"
    before = shelf.bodies[-1] if shelf.bodies else None
    try:
        manifest = read_message(shelf.folder / segments.manifest_file(number), SegmentManifest)
        segments.check(manifest, before)
    except FileNotFoundError:
        faults.add("omitted", where, "no manifest", segments.manifest_file(number))
    except SegmentMismatch as error:
        kind, of = _FIELDS[error.field]
        faults.add(kind, where, f"{error.field} {error.got}", f"{error.expected}, {of}")
    except InvalidSignature as error:
        faults.add("signature", where, str(error), "a manifest that its verifier signed")
    except (OSError, Unreadable, MalformedMessage) as error:
        faults.add("malformed", where, str(error), "a manifest")
    else:
        return manifest.body
    return None


def _compare(shelf: Shelf, faults: Faults) -> None:
    """The index against the manifests."""
    index = shelf.index
    if index is None:
        return
    last = shelf.bodies[-1] if shelf.bodies else None
    if last is not None and (last.genesis, last.netuid, last.verifier) != (
        index.genesis,
        index.netuid,
        index.verifier,
    ):
        faults.add(
            "stranger",
            segments.INDEX,
            f"{index.verifier} on subnet {index.netuid} of {index.genesis[:12]}…",
            f"{last.verifier} on subnet {last.netuid} of {last.genesis[:12]}…, as in the manifests",
        )
    if (
        len(shelf.bodies) == index.segments
        and last is not None
        and (index.records != last.last + 1 or index.head != last.head)
    ):
        faults.add(
            "tampered",
            segments.INDEX,
            f"{index.records} records up to {index.head[:12]}…",
            f"{last.last + 1} up to {last.head[:12]}…, as in the manifests",
        )
    if len(shelf.bodies) > index.segments:
        faults.add(
            "omitted",
            segments.INDEX,
            f"{index.segments} segments",
            f"{len(shelf.bodies)}, as many as lie here",
        )


def compare_copies(one: Shelf, other: Shelf, faults: Faults) -> int:
    """Compare two copies of a verifier's segments; returns how many both have.

    Two genuine manifests for one place that say different things are proof of a fork.
    """
    both = list(zip(one.bodies, other.bodies, strict=False))
    for mine, theirs in both:
        if (mine.genesis, mine.netuid, mine.verifier) != (theirs.genesis, theirs.netuid, theirs.verifier):
            faults.add("stranger", "the other copy", theirs.verifier, mine.verifier)
            break
        if (mine.first, mine.last, mine.head, mine.content) != (
            theirs.first,
            theirs.last,
            theirs.head,
            theirs.content,
        ):
            faults.add(
                "forked",
                f"segment {mine.number}",
                f"records {mine.first} to {mine.last} up to {mine.head[:12]}…, signed by the verifier",
                f"{theirs.first} to {theirs.last} up to {theirs.head[:12]}…, which it signed in the other copy",
            )
            break
    return len(both)
