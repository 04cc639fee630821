"""Manifests of segments: a verifier's own, in an unbroken row, and nothing in them can be changed."""

from __future__ import annotations

from typing import Any

import pytest
from bittensor.keyfiles import Keypair
from hypothesis import given
from hypothesis import strategies as st

from targon.protocol import (
    Hotkey,
    InvalidSignature,
    MalformedMessage,
    SegmentMismatch,
    canonical_bytes,
    segments,
)
from targon.protocol.records import GENESIS_HASH
from targon.protocol.segments import MAX_SEGMENT_BYTES, MAX_SEGMENT_RECORDS, SegmentBody, SegmentManifest


def body(verifier: Keypair, **changes: Any) -> SegmentBody:
    value = {
        "genesis": "22" * 32,
        "netuid": 4,
        "verifier": Hotkey(verifier.ss58_address),
        "number": 0,
        "first": 0,
        "last": 99,
        "prev": GENESIS_HASH,
        "head": "99" * 32,
        "size": 30_000,
        "content": "aa" * 32,
        "previous": segments.NO_MANIFEST,
    }
    return SegmentBody(**(value | changes))


def following(before: SegmentBody, **changes: Any) -> SegmentBody:
    value = {
        "number": before.number + 1,
        "first": before.last + 1,
        "last": before.last + 50,
        "prev": before.head,
        "head": "88" * 32,
        "previous": before.digest(),
    }
    return before.model_copy(update=value | changes)


def test_manifests_in_a_row_are_accepted(verifier: Keypair) -> None:
    first = segments.sign(body(verifier), verifier)
    segments.check(first, None)
    segments.check(segments.sign(following(first.body), verifier), first.body)


def test_one_signed_anew_has_the_same_place_in_the_row(verifier: Keypair) -> None:
    once, again = (segments.sign(body(verifier), verifier) for _ in range(2))
    assert once.signature != again.signature
    segments.check(segments.sign(following(once.body), verifier), again.body)


OTHER: dict[str, Any] = {
    "number": 7,
    "first": 3,
    "prev": "77" * 32,
    "previous": "77" * 32,
    "genesis": "77" * 32,
    "netuid": 5,
}


@pytest.mark.parametrize("field", OTHER)
def test_one_that_does_not_follow_is_refused_by_field(field: str, verifier: Keypair) -> None:
    first = body(verifier)
    other = following(first, **{field: OTHER[field]})
    with pytest.raises(SegmentMismatch, match=f"^segment's {field}: got") as caught:
        segments.check(segments.sign(other, verifier), first)
    assert (caught.value.field, caught.value.got) == (field, OTHER[field])


def test_another_verifiers_does_not_follow(verifier: Keypair, prover: Keypair) -> None:
    first = body(verifier)
    other = following(first, verifier=Hotkey(prover.ss58_address))
    with pytest.raises(SegmentMismatch, match="segment's verifier: got"):
        segments.check(segments.sign(other, prover), first)


@pytest.mark.parametrize("field", ["head", "content", "size", "last", "transcripts"])
def test_nothing_can_be_changed_after_signing(field: str, verifier: Keypair) -> None:
    manifest = segments.sign(body(verifier), verifier)
    changed = {"size": 1, "last": 98}.get(field, "66" * 32)
    forged = manifest.model_copy(update={"body": manifest.body.model_copy(update={field: changed})})
    with pytest.raises(InvalidSignature):
        segments.check(forged, None)


def test_somebody_elses_signature_is_refused(verifier: Keypair, prover: Keypair) -> None:
    with pytest.raises(InvalidSignature):
        segments.check(segments.sign(body(verifier), prover), None)


def test_a_segment_holds_a_record_at_least(verifier: Keypair) -> None:
    with pytest.raises(MalformedMessage, match="last: got 4, expected 5 or more"):
        SegmentManifest.from_json(
            {"body": body(verifier).to_json() | {"first": 5, "last": 4}, "signature": "00" * 64}
        )


def test_files_have_the_names_of_their_numbers() -> None:
    assert segments.segment_file(0) == "segment-00000000.jsonl"
    assert segments.manifest_file(12_345) == "segment-00012345.json"
    assert segments.transcripts_file(99_999_999) == "transcripts-99999999.jsonl"


NESTED = st.sampled_from(
    [
        None,
        1,
        '"kind":"interval_opened","version":1}',
        {"kind": "interval_opened", "version": 1},
        [{"z": {"kind": "interval_opened", "version": 1}}],
    ]
)


@given(
    st.sampled_from(["interval_opened", "interval_closed", "verdict"]),
    st.dictionaries(st.sampled_from(["block", "evidence", "interval", "commitment"]), NESTED),
)
def test_only_an_event_of_its_kind_opens_an_interval(kind: str, fields: dict[str, Any]) -> None:
    event = canonical_bytes({**fields, "kind": kind, "version": 1})
    assert segments.opens_interval(event) == (kind == "interval_opened")


@pytest.mark.parametrize(
    ("records", "size", "full"),
    [
        (1, 300, False),
        (MAX_SEGMENT_RECORDS - 1, 300, False),
        (MAX_SEGMENT_RECORDS, 300, True),
        (1, MAX_SEGMENT_BYTES - 1, False),
        (1, MAX_SEGMENT_BYTES, True),
    ],
)
def test_a_segment_is_full_of_records_or_of_bytes(records: int, size: int, full: bool) -> None:
    assert segments.is_full(records, size) is full
