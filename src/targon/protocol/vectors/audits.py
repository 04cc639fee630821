"""Vectors of how users' requests are shared out, which of them are audited, and of the segments of a log."""

from __future__ import annotations

from typing import Any

from targon.protocol import audits, routing, segments
from targon.protocol.primitives import Uid
from targon.protocol.tiers import Tier
from targon.protocol.vectors.messages import ALICE, BOB
from targon.protocol.vectors.rule import Json, Rule

_TOP = "f" * 16


def _routing(given: Json) -> Json:
    if "capacities" in given:
        capacities = {Uid(int(uid)): capacity for uid, capacity in given["capacities"].items()}
        return [list(share) for share in routing.shares(capacities)]
    return routing.pick(int(given["draw"], 16), [(Uid(uid), share) for uid, share in given["shares"]])


def _pick(draw: str, *shares: tuple[int, int]) -> dict[str, Json]:
    return {"draw": draw, "shares": [list(share) for share in shares]}


_THREE = ((1, 1), (4, 2), (9, 1))

ROUTING = Rule(
    name="routing",
    about="Every prover's share, from how many requests each takes at once; or the prover on whom a 64-bit draw falls: "
    "the one in whose part of the shares, laid end to end, floor(draw * total / 2^64) lies.",
    inputs={
        "nobody": {"capacities": {}},
        "one": {"capacities": {"7": 3}},
        "in UID order": {"capacities": {"10": 4, "9": 5, "2": 6}},
        "the least, of one that takes little": {"capacities": {"1": 1, "2": 100, "3": 100}},
        "the most, of one that claims much": {
            "capacities": {"1": 1_000_000, "2": 1, "3": 1, "4": 1, "5": 1, "6": 1}
        },
        "an even number of provers": {"capacities": {"1": 1, "2": 2, "3": 4, "4": 40}},
        "one that says much of itself": {"capacities": {"1": 1, "2": 1, "3": 15}},
        "the lowest draw": _pick("0" * 16, *_THREE),
        "the last of the first's": _pick("3" + _TOP[1:], *_THREE),
        "the first of the second's": _pick("4" + "0" * 15, *_THREE),
        "the last of the second's": _pick("b" + _TOP[1:], *_THREE),
        "the first of the third's": _pick("c" + "0" * 15, *_THREE),
        "the highest draw": _pick(_TOP, *_THREE),
        "thirds": _pick("5" * 16, (1, 1), (2, 1), (3, 1)),
        "just beyond a third": _pick("5" * 15 + "6", (1, 1), (2, 1), (3, 1)),
    },
    evaluate=_routing,
)


def _audits(given: Json) -> Json:
    if "tier" in given:
        rate = audits.audit_rate(
            Tier[given["tier"].upper()], on_probation=given["on_probation"], log_e=given["log_e"]
        )
        return {"rate": rate, "audited": audits.is_drawn(int(given["draw"], 16), rate)}
    return audits.own_inference_due(
        int(given["draw"], 16), audits=given["audits"], interval_blocks=given["interval_blocks"]
    )


def _rate(tier: str, draw: str = "8" + "0" * 15, *, on_probation: bool = False, log_e: float = 0.0) -> Json:
    return {"tier": tier, "on_probation": on_probation, "log_e": log_e, "draw": draw}


def _own(draw: str, audited: int, blocks: int = 360) -> Json:
    return {"draw": draw, "audits": audited, "interval_blocks": blocks}


AUDITS = Rule(
    name="audits",
    about="The rate at which a prover's inferences are audited, min(1, r * (1 + max(0, ln e))), and whether a 64-bit "
    "draw audits one: draw < rate * 2^64, in float64. Or whether a block is one in which the verifier sends a prover "
    "an inference of its own.",
    inputs={
        **{tier.label: _rate(tier.label) for tier in Tier},
        "on probation": _rate("Challenger", on_probation=True),
        "on probation, the draw just below": _rate("Bronze", "7" + _TOP[1:], on_probation=True),
        "some evidence": _rate("Challenger", log_e=3.0),
        "evidence of honesty": _rate("Challenger", log_e=-50.0),
        "all of them": _rate("Gold", _TOP, log_e=9.0),
        "all of them, on probation": _rate("Gold", _TOP, on_probation=True, log_e=1.0),
        "the lowest draw": _rate("Challenger", "0" * 16),
        "the highest draw": _rate("Challenger", _TOP),
        "an own inference": _own("02" + _TOP[2:], 0),
        "none in this block": _own("03" + "0" * 14, 0),
        "one audit short": _own("0" * 16, 3),
        "enough were audited": _own("0" * 16, 4),
        "a short interval": _own(_TOP, 0, 3),
    },
    evaluate=_audits,
)

SEGMENT_BODY: dict[str, Json] = {
    "spec_version": 1,
    "genesis": "22" * 32,
    "netuid": 4,
    "verifier": BOB,
    "number": 1,
    "first": 1_000,
    "last": 2_499,
    "prev": "88" * 32,
    "head": "99" * 32,
    "size": 1_234_567,
    "content": "aa" * 32,
    "transcripts": None,
    "previous": "bb" * 32,
}

_BEFORE: dict[str, Json] = SEGMENT_BODY | {
    "number": 0,
    "first": 0,
    "last": 999,
    "prev": "00" * 32,
    "head": "88" * 32,
    "previous": "00" * 32,
}

_SIGNATURE = (
    "a2e49e8491ac6e2badf27103c3a66836e8c760b07660ca7e303dd6ab7aba5b56"
    "66be8c674c114f5233af1d6d2ea2779ea368c59673141d84ed802447ad2eec81"
)
"""By the hotkey of ``//Bob``, over the body of the case "valid"."""


def _segment(given: Json) -> Json:
    manifest = segments.SegmentManifest.from_json({"body": given["body"], "signature": given["signature"]})
    before = None if given["before"] is None else segments.SegmentBody.from_json(given["before"])
    segments.check(manifest, before)
    return {"valid": True, "signed_bytes": segments.signed_bytes(manifest.body).hex()}


def _segment_case(
    *,
    before: Json = _BEFORE,
    signature: str = _SIGNATURE,
    **body: Any,  # noqa: ANN401 - any JSON value
) -> dict[str, Json]:
    return {"body": SEGMENT_BODY | _AFTER_BEFORE | body, "signature": signature, "before": before}


_AFTER_BEFORE = {"previous": segments.SegmentBody.from_json(_BEFORE).digest()}

SEGMENTS = Rule(
    name="segments",
    about="A segment's manifest checked against the body of the manifest before it (null: it is to be the first). "
    "sr25519 by the verifier's hotkey over 'targon/segment/1', a zero byte, and the canonical form of the body.",
    inputs={
        "valid": _segment_case(),
        "taken for the first": _segment_case(before=None),
        "another place": _segment_case(number=2),
        "a record left out": _segment_case(first=1_001),
        "a record twice": _segment_case(first=999),
        "another record before": _segment_case(prev="89" * 32),
        "another manifest before": _segment_case(before=_BEFORE | {"content": "ab" * 32}),
        "another network": _segment_case(netuid=5),
        "another verifier": _segment_case(verifier=ALICE),
        "no record": _segment_case(last=999),
        "content changed after signing": _segment_case(content="ab" * 32),
        "head changed after signing": _segment_case(head="98" * 32),
        "transcripts added after signing": _segment_case(transcripts="cc" * 32),
        "no signature of anything": _segment_case(signature="00" * 64),
        "signature too short": _segment_case(signature="00" * 63),
    },
    evaluate=_segment,
)


def _cut(given: Json) -> Json:
    return {
        "opens_interval": segments.opens_interval(given["event"].encode()),
        "full": segments.is_full(given["records"], given["size"]),
    }


def _place(event: str, records: int = 1, size: int = 300) -> dict[str, Json]:
    return {"event": event, "records": records, "size": size}


_OPENED = '{"block":360,"commitment":"' + "11" * 32 + '","interval":1,"kind":"interval_opened","version":1}'
_STEP = '{"block":41,"kind":"step_closed","version":1}'

CUTS = Rule(
    name="segment_cuts",
    about="Where a segment of a log ends: before a record that opens an interval, and after one with which it "
    "holds 100,000 records or 64 MiB of lines, line breaks included.",
    inputs={
        "an interval opens": _place(_OPENED),
        "a step closes": _place(_STEP),
        "one that only speaks of it": _place(
            '{"block":41,"kind":"weights_not_set","reason":"\\"kind\\":\\"interval_opened\\",\\"version\\":1}","version":1}'
        ),
        "one record short": _place(_STEP, records=99_999),
        "full of records": _place(_STEP, records=100_000),
        "one byte short": _place(_STEP, size=(64 << 20) - 1),
        "full of bytes": _place(_STEP, size=64 << 20),
    },
    evaluate=_cut,
)

RULES = (ROUTING, AUDITS, SEGMENTS, CUTS)
