"""Vectors of what users order, and of what a verifier says of the receipts that it has on file."""

from __future__ import annotations

import json
from typing import Any

from targon.protocol import countersignatures, filed
from targon.protocol import messages as wire
from targon.protocol.countersignatures import Countersignature
from targon.protocol.orders import Order
from targon.protocol.primitives import u64_hex
from targon.protocol.vectors.messages import ALICE, BOB, RECEIPT_BODY, REQUEST, SIGNATURE
from targon.protocol.vectors.rule import Json, Rule

RECEIPT_JSON = {"body": RECEIPT_BODY, "signature": SIGNATURE}
RECEIPT = wire.Receipt.from_json(RECEIPT_JSON)

COUNTERSIGNED = {
    "spec_version": 1,
    "genesis": REQUEST.genesis,
    "netuid": REQUEST.netuid,
    "verifier": BOB,
    "attempt": REQUEST.attempt,
    "record": 1240,
    "record_hash": "88" * 32,
    "receipt_digest": RECEIPT.digest(),
}

COUNTERSIGNATURE = (
    "e4824b694560cb99f9f1f3ba49484c169a2a3c388f4db487fb6599aaaad7b45c"
    "6b04b8ef36b8df510f339a95d1eae49b59f69720fcbb1372c32c3985da06c389"
)
"""By ``//Bob`` over the body above; kept, because sr25519 signatures are randomised."""


def _countersignature(given: Json) -> Json:
    receipt = wire.Receipt.from_json({"body": RECEIPT_BODY | given["receipt"], "signature": SIGNATURE})
    countersignature = Countersignature.from_json({"body": given["body"], "signature": given["signature"]})
    countersignatures.check(countersignature, receipt)
    return {"valid": True, "signed_bytes": countersignatures.signed_bytes(countersignature.body).hex()}


def _countersigned(
    *, signature: str = COUNTERSIGNATURE, receipt: Json = None, **body: Json
) -> dict[str, Json]:
    return {"body": COUNTERSIGNED | body, "signature": signature, "receipt": receipt or {}}


COUNTERSIGNATURES = Rule(
    name="countersignatures",
    about="A verifier's countersignature checked against a receipt: that of the case 'valid' in receipts.json, with "
    "the fields under 'receipt' replaced in its body. What is signed is 'targon/countersignature/1', a zero byte, and "
    "the canonical form of the body. Whether the prover signed the receipt is another question.",
    inputs={
        "valid": _countersigned(),
        "another receipt": _countersigned(receipt={"issued_at": 1_800_000_001}),
        "another receipt's digest": _countersigned(receipt_digest="78" * 32),
        "another attempt": _countersigned(attempt=u64_hex(1235)),
        "another verifier": _countersigned(verifier=ALICE),
        "another network": _countersigned(netuid=5),
        "another chain": _countersigned(genesis="23" * 32),
        "place changed after signing": _countersigned(record=1241),
        "hash changed after signing": _countersigned(record_hash="89" * 32),
        "the prover's signature": _countersigned(signature=SIGNATURE),
        "no signature of anything": _countersigned(signature="00" * 64),
        "signature too short": _countersigned(signature="00" * 63),
        "a place of 2^53": _countersigned(record=1 << 53),
    },
    evaluate=_countersignature,
)

AUDIT = {
    "outcome": "pass",
    "method": "divergence",
    "score": 0.984375,
    "reason": "63 of 64 tokens are as drawn",
    "record": 1300,
}


def statement_json(**changes: Any) -> dict[str, Json]:  # noqa: ANN401 - any JSON value
    """A statement in which everything is told."""
    return {
        "spec_version": 1,
        "receipt": RECEIPT_JSON,
        "countersignature": {"body": COUNTERSIGNED, "signature": COUNTERSIGNATURE},
        "block": REQUEST.block + 1,
        "audit": AUDIT,
    } | changes


def _statement(given: Json) -> Json:
    statement = filed.ReceiptStatement.from_bytes(given)
    filed.check(statement)
    return {"canonical": statement.to_bytes().decode(), "receipt_id": statement.receipt_id}


def _text(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False)


STATEMENTS = Rule(
    name="statements",
    about="What a verifier says of a receipt (GET /v1/receipts/{id}), as JSON text, and its canonical form. Both "
    "signatures are checked, and that its parts can all be true.",
    inputs={
        "audited": _text(statement_json()),
        "without a verdict": _text(statement_json(audit=None)),
        "logged in the request's own block": _text(statement_json(block=REQUEST.block)),
        "logged before the request's block": _text(statement_json(block=REQUEST.block - 1)),
        "a verdict before its answer": _text(statement_json(audit=AUDIT | {"record": 1239})),
        "a score above 1": _text(statement_json(audit=AUDIT | {"score": 1.5})),
        "an outcome that there isn't": _text(statement_json(audit=AUDIT | {"outcome": "passed"})),
        "the prover did not sign": _text(
            statement_json(receipt={"body": RECEIPT_BODY | {"issued_at": 1}, "signature": SIGNATURE})
        ),
        "the verifier did not sign": _text(
            statement_json(countersignature={"body": COUNTERSIGNED, "signature": SIGNATURE})
        ),
        "another receipt's countersignature": _text(
            statement_json(
                countersignature={
                    "body": COUNTERSIGNED | {"receipt_digest": "78" * 32},
                    "signature": COUNTERSIGNATURE,
                }
            )
        ),
        "without a countersignature": _text(statement_json(countersignature=None)),
        "with a field more": _text(statement_json(audited=True)),
    },
    evaluate=_statement,
)


def order_json(**changes: Any) -> dict[str, Json]:  # noqa: ANN401 - any JSON value
    """An order in which everything is told."""
    return {
        "model": "SmolLM2-135M-Instruct",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Was ist 世界? 👋"},
        ],
        "temperature": 0.8,
        "top_p": 0.95,
        "top_k": 40,
        "max_tokens": 64,
        "stop": ["\n\n"],
        "choice": 1,
        "seed": "fffffffffffffff9",
    } | changes


def _order(given: Json) -> Json:
    order = Order.from_bytes(given)
    return {"canonical": order.to_bytes().decode(), "digest": order.digest()}


ORDERS = Rule(
    name="orders",
    about="What a user asks for, before it has a prover: an order as JSON text, its canonical form with every default "
    "written out, and its digest. A seed is the 16 hex digits of its "
    "two's complement. It never goes to a prover. What is not exactly an order is refused.",
    inputs={
        "everything told": _text(order_json()),
        "defaults": _text({"model": "m", "messages": [{"role": "user", "content": "Why?"}]}),
        "an empty message": _text(order_json(messages=[{"role": "user", "content": ""}])),
        "greedy": _text(order_json(temperature=0)),
        "four stop strings": _text(order_json(stop=["a", "b", "c", "d"])),
        "five stop strings": _text(order_json(stop=["a", "b", "c", "d", "e"])),
        "an empty stop string": _text(order_json(stop=[""])),
        "no messages": _text(order_json(messages=[])),
        "a tool's message": _text(order_json(messages=[{"role": "tool", "content": "42"}])),
        "no model": _text(order_json(model="")),
        "hotter than 10": _text(order_json(temperature=10.5)),
        "top-p of 0": _text(order_json(top_p=0)),
        "no tokens": _text(order_json(max_tokens=0)),
        "more tokens than any answer has": _text(order_json(max_tokens=131_073)),
        "the 129th choice": _text(order_json(choice=128)),
        "the least seed": _text(order_json(seed="8000000000000000")),
        "the largest seed": _text(order_json(seed="7fffffffffffffff")),
        "a seed as a number": _text(order_json(seed=7)),
        "a penalty": _text(order_json(frequency_penalty=0.5)),
    },
    evaluate=_order,
)

RULES = (COUNTERSIGNATURES, STATEMENTS, ORDERS)
