"""Vectors of canonical digests, messages, receipts and draws."""

from __future__ import annotations

import json
from typing import Any

from targon.protocol import draws, receipts
from targon.protocol import messages as wire
from targon.protocol.canonical import canonical_bytes, digest
from targon.protocol.errors import MalformedMessage
from targon.protocol.keys import hotkey_of, public_key
from targon.protocol.primitives import AttemptNumber, Block, Hotkey, Interval, u64_hex
from targon.protocol.vectors.rule import Json, Rule

ALICE = Hotkey("5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY")
"""The prover: the well-known development key ``//Alice``."""
BOB = Hotkey("5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty")
"""The verifier: ``//Bob``."""


def _canonical(given: Json) -> Json:
    try:
        value = json.loads(given)
    except (ValueError, RecursionError) as error:  # pragma: no cover - every case is JSON
        raise MalformedMessage(str(error)) from error
    return {"canonical": canonical_bytes(value).decode(), "sha256": digest(value)}


CANONICAL = Rule(
    name="canonical",
    about="JSON text, its RFC 8785 form, and the SHA-256 of that form's UTF-8 bytes. Values without such a form, and "
    "integers beyond 2^53 - 1, are refused.",
    inputs={
        "keys in UTF-16 order (RFC 8785, 3.2.3)": r'{"\u20ac":"Euro Sign","\r":"Carriage Return","\ufb33":"Hebrew '
        r'Letter Dalet With Dagesh","1":"One","\ud83d\ude00":"Emoji: Grinning Face","\u0080":"Control",'
        r'"\u00f6":"Latin Small Letter O With Diaeresis"}',
        "numbers (RFC 8785, 3.2.2)": "[333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001]",
        "a whole float has no point": "[1.0, 0.0, -0.0, 100.0]",
        "floats of sampling": "[0.8, 0.95, 0.05, 1e-7, 0.1]",
        "strings (RFC 8785, 3.2.2)": r'"\u20ac$\u000F\u000aA\u0027\u0042\u0022\u005c\\\"\/"',
        "literals and nesting": '{"b": [null, true, false, {}], "a": {"c": [], "": ""}}',
        "largest integer": "9007199254740991",
        "smallest integer": "-9007199254740991",
        "integer too large": "9007199254740992",
        "infinite number": "1e400",
        "half a surrogate pair": r'"\ud800"',
    },
    evaluate=_canonical,
)

_MESSAGES: dict[str, type[wire.Message]] = {
    kind.__name__: kind
    for kind in (
        wire.Sampling,
        wire.GenerateRequest,
        wire.Completion,
        wire.ReceiptBody,
        wire.TokenEvent,
        wire.ProverStatus,
    )
}


def _message(given: Json) -> Json:
    message = _MESSAGES[given["kind"]].from_bytes(given["json"])
    return {"canonical": message.to_bytes().decode(), "digest": message.digest()}


def request_json(**changes: Any) -> dict[str, Json]:  # noqa: ANN401 - any JSON value
    """A request in which everything is told."""
    return {
        "spec_version": 1,
        "salt": "11" * 32,
        "genesis": "22" * 32,
        "netuid": 4,
        "verifier": BOB,
        "prover": ALICE,
        "attempt": u64_hex(1234),
        "block": 5_000_000,
        "block_hash": "33" * 32,
        "log_head": "44" * 32,
        "model": "SmolLM2-135M-Instruct",
        "messages": [{"role": "user", "content": "Grüße, 世界! 👋\nWhat is a prime?"}],
        "sampling": {
            "dialect": "targon/1",
            "seed": "fedcba9876543210",
            "temperature": 0.8,
            "top_p": 0.95,
            "top_k": 0,
            "max_tokens": 64,
            "stop": ["\n\n"],
            "choice": 0,
        },
        "stream": False,
    } | changes


REQUEST = wire.GenerateRequest.from_json(request_json())


def completion_json(**changes: Any) -> dict[str, Json]:  # noqa: ANN401 - any JSON value
    """An answer to :data:`REQUEST`."""
    return {
        "salt": "55" * 32,
        "request_digest": REQUEST.digest(),
        "token_ids": [42, 7, 2],
        "finish_reason": "stop",
        "text": "A number",
        "logprobs": [-0.25, -1.5, -0.015625],
    } | changes


COMPLETION = wire.Completion.from_json(completion_json())


def _without(value: dict[str, Json], *names: str) -> dict[str, Json]:
    return {name: item for name, item in value.items() if name not in names}


def _text(kind: str, value: Json) -> dict[str, str]:
    return {"kind": kind, "json": json.dumps(value, ensure_ascii=False)}


_DEFAULTS = {"seed": "fedcba9876543210", "temperature": 1, "max_tokens": 16}

MESSAGES = Rule(
    name="messages",
    about="A message as JSON text, its canonical form with every default written out, and its digest. A completion's "
    "digest leaves the text out. What is not exactly a message is refused.",
    inputs={
        "request": _text("GenerateRequest", request_json()),
        "request with defaults left out": _text(
            "GenerateRequest", request_json(sampling=_DEFAULTS) | {"stream": True}
        ),
        "whole floats": _text("Sampling", _DEFAULTS),
        "completion": _text("Completion", completion_json()),
        "completion with another text has the same digest": _text("Completion", completion_json(text="x")),
        "completion without log-probabilities": _text("Completion", _without(completion_json(), "logprobs")),
        "empty completion": _text("Completion", completion_json(token_ids=[], logprobs=[], text="")),
        "token event": _text("TokenEvent", {"token_ids": [1, 2], "text": "ab"}),
        "status": _text(
            "ProverStatus",
            {
                "version": "0.1.0",
                "hotkey": ALICE,
                "models": ["m"],
                "dialects": ["targon/1", "greedy"],
                "capacity": 8,
                "queued": 0,
                "running": 1,
            },
        ),
        "unknown field": _text("GenerateRequest", request_json(purpose="challenge")),
        "missing field": _text("GenerateRequest", _without(request_json(), "salt")),
        "another version": _text("GenerateRequest", request_json(spec_version=2)),
        "salt too short": _text("GenerateRequest", request_json(salt="11")),
        "salt in upper case": _text("GenerateRequest", request_json(salt="AA" * 32)),
        "block as a string": _text("GenerateRequest", request_json(block="5000000")),
        "block as a float": _text("GenerateRequest", request_json(block=5.5)),
        "block beyond 2^53 - 1": _text("GenerateRequest", request_json(block=1 << 53)),
        "negative token id": _text("Completion", completion_json(token_ids=[-1])),
        "token id of 2^31": _text("Completion", completion_json(token_ids=[1 << 31])),
        "token id as a boolean": _text("Completion", completion_json(token_ids=[True])),
        "infinite log-probability": {
            "kind": "Completion",
            "json": json.dumps(completion_json()).replace("-0.25", "-1e400"),
        },
        "unknown finish reason": _text("Completion", completion_json(finish_reason="eos")),
        "no messages": _text("GenerateRequest", request_json(messages=[])),
        "unknown role": _text("GenerateRequest", request_json(messages=[{"role": "tool", "content": ""}])),
        "not an object": {"kind": "Sampling", "json": "[]"},
        "not JSON": {"kind": "Sampling", "json": "{"},
    },
    evaluate=_message,
)

RECEIPT_BODY = {
    "spec_version": 1,
    "salt": "66" * 32,
    "genesis": REQUEST.genesis,
    "netuid": REQUEST.netuid,
    "verifier": BOB,
    "prover": ALICE,
    "attempt": REQUEST.attempt,
    "block": REQUEST.block,
    "request_digest": REQUEST.digest(),
    "completion_digest": COMPLETION.digest(),
    "model": REQUEST.model,
    "model_digest": "77" * 32,
    "issued_at": 1_800_000_000,
}

SIGNATURE = (
    "72e060a27a2192edbcb8ff9088a2e53fc770c1ca0bcd7d46eaa3a5823b7df135"
    "7e50a9e5ae58d2065c28addf57ab503c6864c59fa92784552dc3a331a3485c8d"
)
"""By ``//Alice`` over the body above. sr25519 signatures are randomised, so that one is kept to be verified."""


def _receipt(given: Json) -> Json:
    receipt = wire.Receipt.from_json({"body": given["body"], "signature": given["signature"]})
    request = wire.GenerateRequest.from_json(request_json() | given["request"])
    completion = wire.Completion.from_json(completion_json() | given["completion"])
    receipts.check(receipt, request, completion)
    return {"valid": True, "signed_bytes": receipts.signed_bytes(receipt.body).hex()}


def _receipt_case(
    *, signature: str = SIGNATURE, request: Json = None, completion: Json = None, **body: Json
) -> dict[str, Json]:
    return {
        "body": RECEIPT_BODY | body,
        "signature": signature,
        "request": request or {},
        "completion": completion or {},
    }


RECEIPTS = Rule(
    name="receipts",
    about="A receipt checked against a request and a completion. Both are those of the cases 'request' and "
    "'completion' in messages.json, with the fields under 'request' and 'completion' replaced. What is signed is "
    "'targon/receipt/1', a zero byte, and the canonical form of the body.",
    inputs={
        "valid": _receipt_case(),
        "valid whatever the text": _receipt_case(completion={"text": "something else"}),
        "another completion": _receipt_case(completion={"token_ids": [42, 8, 2]}),
        "other log-probabilities": _receipt_case(completion={"logprobs": None}),
        "another request": _receipt_case(request={"salt": "12" * 32}),
        "another attempt": _receipt_case(request={"attempt": u64_hex(1235)}),
        "another prover": _receipt_case(request={"prover": BOB}),
        "another verifier": _receipt_case(request={"verifier": ALICE}),
        "another model": _receipt_case(request={"model": "m"}),
        "another network": _receipt_case(request={"netuid": 5}),
        "body changed after signing": _receipt_case(model_digest="78" * 32),
        "time changed after signing": _receipt_case(issued_at=1_800_000_001),
        "salt changed after signing": _receipt_case(salt="67" * 32),
        "no signature of anything": _receipt_case(signature="00" * 64),
        "signature too short": _receipt_case(signature="00" * 63),
    },
    evaluate=_receipt,
)

_SECRET = "a5" * 32
_PROVER, _VERIFIER = public_key(ALICE).hex(), public_key(BOB).hex()
_TOP = u64_hex((1 << 64) - 1)


def _draws(given: Json) -> Json:
    if given["draw"] == "interval_secret":
        master, genesis = bytes.fromhex(given["master"]), bytes.fromhex(given["genesis"])
        return draws.interval_secret(master, genesis, given["netuid"], Interval(given["interval"])).hex()
    if given["draw"] == "commitment":
        return draws.commitment(bytes.fromhex(given["secret"]))
    if given["draw"] == "weights_salt":
        return draws.weights_salt(bytes.fromhex(given["secret"]), given["proposal"]).hex()
    if given["draw"] == "route_draw":
        attempt = AttemptNumber(int(given["attempt"], 16))
        return u64_hex(draws.route_draw(bytes.fromhex(given["secret"]), attempt, given["turn"]))
    prover = bytes.fromhex(given["prover"])
    if given["draw"] == "audit_draw":
        attempt = AttemptNumber(int(given["attempt"], 16))
        return u64_hex(draws.audit_draw(bytes.fromhex(given["secret"]), attempt, prover))
    if given["draw"] == "request_seed":
        attempt = AttemptNumber(int(given["attempt"], 16))
        return u64_hex(draws.request_seed(bytes.fromhex(given["secret"]), attempt, prover))
    if given["draw"] == "run_key":
        attempt = AttemptNumber(int(given["attempt"], 16))
        verifier, block_hash = bytes.fromhex(given["verifier"]), bytes.fromhex(given["block_hash"])
        return u64_hex(draws.run_key(int(given["seed"], 16), verifier, attempt, prover, block_hash))
    secret, block = bytes.fromhex(given["secret"]), Block(given["block"])
    if given["draw"] == "challenge_draw":
        return u64_hex(draws.challenge_draw(secret, block, prover, given["part"]))
    of_block = {
        "selection_rank": draws.selection_rank,
        "private_input_draw": draws.private_input_draw,
        "query_seed": draws.query_seed,
        "own_inference_draw": draws.own_inference_draw,
    }[given["draw"]]
    return u64_hex(of_block(secret, block, prover))


def _run_key(**changes: str) -> dict[str, str]:
    return {
        "draw": "run_key",
        "seed": "fedcba9876543210",
        "verifier": _VERIFIER,
        "attempt": u64_hex(1234),
        "prover": _PROVER,
        "block_hash": "33" * 32,
    } | changes


DRAWS = Rule(
    name="draws",
    about="Everything a verifier draws from a secret that it committed to, and the key of the sampler's noise. "
    "Integers are big-endian, 64-bit ones stand here as 16 hex digits. The exact bytes: docs/protocol.md.",
    inputs={
        "interval secret": {
            "draw": "interval_secret", "master": "01" * 32, "genesis": "22" * 32, "netuid": 4, "interval": 13_888,
        },
        "the next interval's": {
            "draw": "interval_secret", "master": "01" * 32, "genesis": "22" * 32, "netuid": 4, "interval": 13_889,
        },
        "another subnet's": {
            "draw": "interval_secret", "master": "01" * 32, "genesis": "22" * 32, "netuid": 5, "interval": 13_888,
        },
        "commitment": {"draw": "commitment", "secret": _SECRET},
        "seed of attempt 0": {"draw": "request_seed", "secret": _SECRET, "attempt": u64_hex(0), "prover": _PROVER},
        "seed of attempt 1": {"draw": "request_seed", "secret": _SECRET, "attempt": u64_hex(1), "prover": _PROVER},
        "seed of the last attempt": {"draw": "request_seed", "secret": _SECRET, "attempt": _TOP, "prover": _PROVER},
        "seed for another prover": {
            "draw": "request_seed", "secret": _SECRET, "attempt": u64_hex(0), "prover": _VERIFIER,
        },
        "run key": _run_key(),
        "run key of seed 0": _run_key(seed=u64_hex(0)),
        "run key of the largest seed": _run_key(seed=_TOP),
        "run key of another attempt": _run_key(attempt=u64_hex(1235)),
        "run key of another block": _run_key(block_hash="34" * 32),
        "run key with the parties exchanged": _run_key(prover=_VERIFIER, verifier=_PROVER),
        **{
            name.replace("_", " "): {"draw": name, "secret": _SECRET, "block": 5_000_000, "prover": _PROVER}
            for name in ("selection_rank", "private_input_draw", "query_seed", "own_inference_draw")
        },
        **{
            f"challenge draw: {part}": {
                "draw": "challenge_draw", "secret": _SECRET, "block": 5_000_000, "prover": _PROVER, "part": part,
            }
            for part in ("form", "length", "delay")
        },
        **{
            f"route of attempt {attempt}, turn {turn}": {
                "draw": "route_draw", "secret": _SECRET, "attempt": u64_hex(attempt), "turn": turn,
            }
            for attempt, turn in ((0, 0), (1234, 0), (1234, 1), (1234, 63))
        },
        "audit of attempt 1234": {
            "draw": "audit_draw", "secret": _SECRET, "attempt": u64_hex(1234), "prover": _PROVER,
        },
        "audit of the same, another prover": {
            "draw": "audit_draw", "secret": _SECRET, "attempt": u64_hex(1234), "prover": _VERIFIER,
        },
        "weights salt": {"draw": "weights_salt", "secret": _SECRET, "proposal": 1234},
        "weights salt of the next proposal": {"draw": "weights_salt", "secret": _SECRET, "proposal": 1235},
        "selection rank in the next block": {
            "draw": "selection_rank", "secret": _SECRET, "block": 5_000_001, "prover": _PROVER,
        },
    },
    evaluate=_draws,
)  # fmt: skip


def _keys(given: Json) -> Json:
    if "public_key" in given:
        return {"hotkey": hotkey_of(bytes.fromhex(given["public_key"]))}
    return {"public_key": public_key(Hotkey(given["hotkey"])).hex()}


KEYS = Rule(
    name="keys",
    about="A hotkey is the ss58 address (format 42) of an sr25519 public key.",
    inputs={
        "address to key": {"hotkey": ALICE},
        "key to address": {"public_key": _VERIFIER},
        "a wrong checksum": {"hotkey": ALICE[:-1] + "Z"},
        "no address": {"hotkey": "Alice"},
    },
    evaluate=_keys,
)

RULES = (CANONICAL, KEYS, MESSAGES, RECEIPTS, DRAWS)
