"""The released part of a verifier's log as files: where one segment ends, and what a verifier signs of each.

A segment is a file of log lines (:mod:`targon.protocol.records`), each followed by a line break. It ends before a
record that opens an interval, or with the record that fills it; so whoever has the log cuts it at the same places, and
gets the same bytes. Of each segment the verifier signs a manifest, which names the one before it. ``signed_bytes`` is
``"targon/segment/1" ‖ 0x00 ‖ RFC 8785 form of the body``.

Signatures are randomised, so manifests are chained by the digests of their bodies.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from targon.protocol.errors import SegmentMismatch
from targon.protocol.keys import Signer, verify_signature
from targon.protocol.messages import MAX_SAFE_INTEGER, Message
from targon.protocol.primitives import SPEC_VERSION, Digest, Hex32, Hex64, HotkeyField
from targon.protocol.records import GENESIS_HASH

MAX_SEGMENT_RECORDS: Final = 100_000
MAX_SEGMENT_BYTES: Final = 64 << 20
"""A segment ends with the record that reaches this size, line breaks included."""

NO_MANIFEST: Final = Digest("0" * 64)
"""What the first manifest names as the one before it."""

INDEX: Final = "index.json"

_DOMAIN = b"targon/segment/1\x00"
_OPENS_AN_INTERVAL: Final = b'"kind":"interval_opened","version":1}'

_Number = Annotated[int, Field(ge=0, lt=100_000_000)]
_Seq = Annotated[int, Field(ge=0, le=MAX_SAFE_INTEGER)]


class SegmentBody(Message):
    """What a verifier signs of a segment of its log."""

    spec_version: Literal[1] = SPEC_VERSION
    genesis: Hex32
    netuid: Annotated[int, Field(ge=0, lt=65_536)]
    verifier: HotkeyField
    number: _Number
    """Its place among the segments, from 0 without gaps."""
    first: _Seq
    """Its first record."""
    last: _Seq
    """Its last record."""
    prev: Hex32
    """Hash of the record before its first; 64 zeros before record 0."""
    head: Hex32
    """Hash of its last record: with it, all of the log up to there."""
    size: _Seq
    """Of the file, in bytes."""
    content: Hex32
    """SHA-256 of the file."""
    transcripts: Hex32 | None = None
    """SHA-256 of the file of answers that are published with it; null: there is none."""
    previous: Hex32
    """Digest of the body of the manifest before this one; 64 zeros in the first."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.last < self.first:
            raise ValueError(f"last: got {self.last}, expected {self.first} or more, the first")
        return self


class SegmentManifest(Message):
    """A verifier's signed statement of what a segment of its log holds."""

    body: SegmentBody
    signature: Hex64
    """sr25519 by the verifier's hotkey over :func:`signed_bytes`."""


class SegmentIndex(Message):
    """What is published of a log; unsigned, as all of it stands in the manifests."""

    spec_version: Literal[1] = SPEC_VERSION
    genesis: Hex32
    netuid: Annotated[int, Field(ge=0, lt=65_536)]
    verifier: HotkeyField
    segments: _Number
    """How many segments there are."""
    records: _Seq
    """How many records they hold."""
    head: Hex32
    """Hash of the last of them; 64 zeros while there is none."""


def segment_file(number: int) -> str:
    """The name of a segment's file."""
    return f"segment-{number:08d}.jsonl"


def manifest_file(number: int) -> str:
    """The name of the file that holds a segment's manifest."""
    return f"segment-{number:08d}.json"


def transcripts_file(number: int) -> str:
    """The name of the file of answers that are published with a segment."""
    return f"transcripts-{number:08d}.jsonl"


def opens_interval(event: bytes) -> bool:
    """Whether an event in its canonical form opens an interval: a segment ends before it."""
    return event.endswith(_OPENS_AN_INTERVAL)


def is_full(records: int, size: int) -> bool:
    """Whether a segment ends here: with so many records, of so many bytes."""
    return records >= MAX_SEGMENT_RECORDS or size >= MAX_SEGMENT_BYTES


def signed_bytes(body: SegmentBody) -> bytes:
    """The exact bytes that a verifier signs."""
    return _DOMAIN + body.to_bytes()


def sign(body: SegmentBody, signer: Signer) -> SegmentManifest:
    """Sign what a segment of our log holds."""
    return SegmentManifest(body=body, signature=bytes(signer.sign(signed_bytes(body))).hex())


def check(manifest: SegmentManifest, before: SegmentBody | None) -> None:
    """Check that a manifest is the verifier's own, and follows another.

    Args:
        before: the manifest before it; None: it is to be the first.

    Raises:
        SegmentMismatch: if it follows another one, or is of another log; the field is named.
        InvalidSignature: if the hotkey that it names did not sign it.
    """
    body = manifest.body
    expected: dict[str, object] = {
        "number": 0 if before is None else before.number + 1,
        "first": 0 if before is None else before.last + 1,
        "prev": GENESIS_HASH if before is None else before.head,
        "previous": NO_MANIFEST if before is None else before.digest(),
    }
    if before is not None:
        expected |= {"genesis": before.genesis, "netuid": before.netuid, "verifier": before.verifier}
    for field, value in expected.items():
        got = getattr(body, field)
        if got != value:
            raise SegmentMismatch(field, got, value)
    verify_signature(body.verifier, signed_bytes(body), bytes.fromhex(manifest.signature))
