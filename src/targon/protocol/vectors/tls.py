"""Vectors of the statement by which a hotkey vouches for a TLS key."""

from __future__ import annotations

from targon.protocol import tls
from targon.protocol.primitives import Hotkey
from targon.protocol.vectors.messages import ALICE, BOB
from targon.protocol.vectors.rule import Json, Rule

KEY_INFO = (
    "3059301306072a8648ce3d020106082a8648ce3d030107034200048e533b6fa0bf7b4625bb30667c01fb607ef9f8b8a80fef5b300628"
    "703187b2a373eb1dbde03318366d069f83a6f5900053c73633cb041b21c55e1a86c1f400b4"
)
"""Of the P-256 key whose private number is 7."""
NOT_BEFORE = 1_800_000_000
NOT_AFTER = NOT_BEFORE + 30 * 86_400
STATEMENT = (
    "0460d43593c715fdd31c61141abd04a99fd6822c8558854ccde39a5684e7a56da27d20596448cbe10d1a4e287a92151006aaef8cea43"
    "fcc49595285f3ec2c0f9c6687c0e4616840de59b7e473f397f2aa76c4feb9371599f764aa3b62bae35318b8b"
)
"""By ``//Alice`` over the key and the times above. sr25519 signatures are randomised: one is kept to be verified."""


def _tls(given: Json) -> Json:
    key_info, times = bytes.fromhex(given["key_info"]), (given["not_before"], given["not_after"])
    tls.check(
        bytes.fromhex(given["statement"]),
        key_info,
        *times,
        hotkey=Hotkey(given["hotkey"]),
        now=given["now"],
    )
    return {"valid": True, "signed_bytes": tls.signed_bytes(key_info, *times).hex()}


def _case(**changes: Json) -> dict[str, Json]:
    return {
        "statement": STATEMENT,
        "key_info": KEY_INFO,
        "not_before": NOT_BEFORE,
        "not_after": NOT_AFTER,
        "hotkey": ALICE,
        "now": NOT_BEFORE + 1000,
    } | changes


TLS = Rule(
    name="tls",
    about="A hotkey's statement that a TLS key is its own, as it stands in the certificate's extension "
    "1.3.6.1.3.1952543335.1: 04 60, the hotkey's public key (32 bytes), its signature (64). What is signed is "
    "'targon/tls/1', a zero byte, the SHA-256 of the key's SubjectPublicKeyInfo, and the certificate's notBefore and "
    "notAfter as seconds since 1970 in eight bytes each, big-endian. Clocks may differ by 300 s.",
    inputs={
        "valid": _case(),
        "300 s early": _case(now=NOT_BEFORE - tls.ALLOWED_SKEW_S),
        "301 s early": _case(now=NOT_BEFORE - tls.ALLOWED_SKEW_S - 1),
        "300 s late": _case(now=NOT_AFTER + tls.ALLOWED_SKEW_S),
        "301 s late": _case(now=NOT_AFTER + tls.ALLOWED_SKEW_S + 1),
        "another hotkey is to be called": _case(hotkey=BOB),
        "another TLS key": _case(key_info=KEY_INFO[:-2] + "b5"),
        "made to last longer": _case(not_after=NOT_AFTER + 1),
        "made to begin earlier": _case(not_before=NOT_BEFORE - 1),
        "longer than 90 days": _case(not_after=NOT_BEFORE + tls.MAX_LIFETIME_S + 1),
        "a time before 1970": _case(not_before=-1),
        "a time after the year 9999": _case(not_after=253_402_300_800),
        "another signature": _case(statement=STATEMENT[:-2] + "8a"),
        "no signature of anything": _case(statement=STATEMENT[:68] + "00" * 64),
        "a byte short": _case(statement=STATEMENT[:-2]),
        "a byte long": _case(statement=STATEMENT + "00"),
        "no octet string": _case(statement="0c" + STATEMENT[2:]),
        "nothing": _case(statement=""),
    },
    evaluate=_tls,
)

RULES = (TLS,)
