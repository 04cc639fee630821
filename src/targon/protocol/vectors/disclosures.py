"""Vectors of what a verifier tells: its status, a prover's own standing, and the lines of its log."""

from __future__ import annotations

import json
from typing import Any

from targon.protocol.canonical import canonical_bytes
from targon.protocol.disclosures import ProverOwnStanding, VerifierStatus
from targon.protocol.messages import Message
from targon.protocol.primitives import Digest
from targon.protocol.records import GENESIS_HASH, LogLine, LogPageEnd, record_hash
from targon.protocol.vectors.messages import ALICE, BOB
from targon.protocol.vectors.rule import Json, Rule

_KINDS: dict[str, type[Message]] = {
    kind.__name__: kind for kind in (VerifierStatus, ProverOwnStanding, LogPageEnd)
}


def _disclosure(given: Json) -> Json:
    message = _KINDS[given["kind"]].from_bytes(given["json"])
    return {"canonical": message.to_bytes().decode(), "digest": message.digest()}


def _text(kind: type[Message], value: Json) -> dict[str, str]:
    return {"kind": kind.__name__, "json": json.dumps(value, ensure_ascii=False)}


def status_json(**changes: Any) -> dict[str, Json]:  # noqa: ANN401 - any JSON value
    """A status in which everything is told."""
    return {
        "spec_version": 1,
        "software": "targon 0.1.0",
        "hotkey": BOB,
        "netuid": 4,
        "genesis": "22" * 32,
        "models": [{"name": "SmolLM2-135M-Instruct", "model_digest": "77" * 32}],
        "block": 5_000_000,
        "interval": 13_888,
        "released": 1_200,
        "released_head": "88" * 32,
        "anchored": {"interval": 13_888, "block": 4_999_681},
        "draining": False,
    } | changes


def standing_json(**changes: Any) -> dict[str, Json]:  # noqa: ANN401 - any JSON value
    """A standing in which everything is told."""
    return {
        "spec_version": 1,
        "verifier": BOB,
        "prover": ALICE,
        "block": 5_000_000,
        "uid": 7,
        "tier": "Gold",
        "fallen_from": "Platinum",
        "attempts": 40,
        "successes": 39,
        "replies": 40,
        "inconclusive": 1,
        "native": 0,
        "sent": 41,
        "requests_left": 4_959,
        "settled_attempts": 200,
        "settled_successes": 160,
        "total_successes": 612,
        "success_rate": 0.975,
        "score": 0.4375,
        "verified_tokens": 60_000,
        "on_probation": False,
        "probation_tokens": 5_000,
        "convictions": 1,
        "last_conviction": {
            "seq": 800, "block": 4_900_000, "tokens": 111, "completions": 3, "log_e": 9.5,
        },
        "last_verdict": {
            "seq": 1_300, "outcome": "pass", "method": "divergence", "reason": "all 64 tokens are as drawn",
        },
        "weight": 32_768,
        "weights_block": 4_999_900,
        "medians": {"SmolLM2-135M-Instruct": 31.25},
    } | changes  # fmt: skip


_UNKNOWN = dict.fromkeys(
    ("uid", "fallen_from", "success_rate", "last_conviction", "last_verdict", "weight", "weights_block")
)

DISCLOSURES = Rule(
    name="disclosures",
    about="What a verifier tells, as JSON text, in its canonical form, and its digest. What is not exactly such a "
    "message is refused.",
    inputs={
        "verifier's status": _text(VerifierStatus, status_json()),
        "status of a verifier that has just begun": _text(
            VerifierStatus, status_json(interval=None, released=0, released_head=None, anchored=None)
        ),
        "status with a field more": _text(VerifierStatus, status_json(log_head="88" * 32)),
        "status whose count is negative": _text(VerifierStatus, status_json(released=-1)),
        "status whose head is in upper case": _text(VerifierStatus, status_json(released_head="AA" * 32)),
        "status that says neither yes nor no": _text(VerifierStatus, status_json(draining=1)),
        "standing": _text(ProverOwnStanding, standing_json()),
        "standing of a newcomer": _text(ProverOwnStanding, standing_json(**_UNKNOWN, medians={})),
        "standing in a tier that there isn't": _text(ProverOwnStanding, standing_json(tier="Copper")),
        "standing that fell from a tier that there isn't": _text(
            ProverOwnStanding, standing_json(fallen_from="gold")
        ),
        "standing with a rate above 1": _text(ProverOwnStanding, standing_json(success_rate=1.5)),
        "standing with a weight beyond 65535": _text(ProverOwnStanding, standing_json(weight=65_536)),
        "end of a piece of log": _text(LogPageEnd, {"next": 1_000, "released": 1_200}),
        "end of a piece without its next": _text(LogPageEnd, {"released": 1_200}),
    },
    evaluate=_disclosure,
)

_EVENT = canonical_bytes({"kind": "step_closed", "version": 1, "block": 41}).decode()
_SAID = canonical_bytes(
    {"kind": "weights_not_set", "version": 1, "block": 41, "reason": 'größer {"seq":1}'}
).decode()


def _record(given: Json) -> Json:
    line = LogLine.from_bytes(given["line"].encode())
    return {"seq": line.seq, "prev": line.prev, "hash": line.hash, "event": line.event.decode()}


def _line(event: str, *, seq: int = 0, prev: str = GENESIS_HASH, hash_: str | None = None) -> dict[str, str]:
    data = event.encode()
    known = Digest(prev)
    line = LogLine(seq, known, Digest(hash_ or record_hash(seq, known, data)), data)
    return {"line": line.to_bytes().decode()}


_GOOD = _line(_EVENT)["line"]

RECORDS = Rule(
    name="records",
    about="A line of a verifier's log: the canonical form of a record with its hash. The hash is SHA-256 over the same "
    "line without '\"hash\":…,'. A line that is not in canonical form, or not what its hash says, is refused.",
    inputs={
        "first record": {"line": _GOOD},
        "a later record": _line(_EVENT, seq=1_234_567, prev="ab" * 32),
        "an event that looks like a line's end": _line(_SAID, seq=3, prev="ab" * 32),
        "another record's hash": _line(_EVENT, seq=1, hash_=json.loads(_GOOD)["hash"]),
        "a changed event": {"line": _GOOD.replace("41", "42")},
        "a changed predecessor": {"line": _GOOD.replace('"prev":"0', '"prev":"1')},
        "keys in another order": {
            "line": _GOOD.replace(f'"event":{_EVENT},', "").replace("}", f',"event":{_EVENT}}}')
        },
        "with a space": {"line": _GOOD.replace('"seq":0', '"seq": 0')},
        "with a field more": {"line": _GOOD.replace('"seq":0', '"seq":0,"t":1')},
        "an event that is no object": _line("[]"),
        "an event that is no JSON": _line("{"),
        "an event with a key twice": _line('{"block":41,"block":42}'),
        "an event with a space": _line('{"block": 41}'),
        "an event with another spelling of a number": _line('{"block":41.0}'),
        "no line": {"line": ""},
    },
    evaluate=_record,
)

RULES = (DISCLOSURES, RECORDS)
