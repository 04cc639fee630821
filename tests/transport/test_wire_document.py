"""docs/wire.md says what the code does."""

from __future__ import annotations

import hashlib
import re
import time
from pathlib import Path

import pytest
from bittensor import http_auth
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from targon.http.pool import KEEP_ALIVE_S
from targon.protocol import tls
from targon.transport import STATUS, Code, Deadlines, Limits
from targon.transport.certificates import MAX_CERTIFICATE_BYTES, check_certificate
from targon.transport.client import BASE_RESPONSE_BYTES, BYTES_PER_TOKEN, MAX_RESPONSE_BYTES
from targon.transport.tls import ALPN, LIFETIME_S
from tests.transport.certificates import DAY, NOW, Certificate
from tests.transport.world import ALICE, BOB, PROVER, VERIFIER, a_gate, post

DOCUMENT = (Path(__file__).parents[2] / "docs" / "wire.md").read_text("utf-8")


def test_the_documented_codes_and_statuses_are_those_of_the_wire() -> None:
    rows = re.findall(r"^\| `([a-z_]+)` \| (\d{3}) \|", DOCUMENT, flags=re.MULTILINE)

    assert {code: int(status) for code, status in rows} == {code.value: STATUS[code] for code in Code}


@pytest.mark.parametrize(
    "header",
    [
        http_auth.HEADER_VERSION,
        http_auth.HEADER_HOTKEY,
        http_auth.HEADER_RECEIVER,
        http_auth.HEADER_NONCE,
        http_auth.HEADER_SIGNATURE,
        http_auth.HEADER_CRYPTO,
    ],
)
def test_every_header_is_documented(header: str) -> None:
    assert f"`{header}`" in DOCUMENT


@pytest.mark.anyio
async def test_a_request_signed_by_hand_as_documented_is_accepted() -> None:
    body, nonce = b'{"by": "hand"}', str(time.time_ns())
    lines = ["btauth/1", "sr25519", "POST", "/v1/generate", hashlib.sha256(body).hexdigest()]
    signature = ALICE.sign("\n".join([*lines, nonce, VERIFIER, PROVER]).encode())
    headers = {
        "X-Bittensor-Version": "1",
        "X-Bittensor-Hotkey": VERIFIER,
        "X-Bittensor-Receiver": PROVER,
        "X-Bittensor-Nonce": nonce,
        "X-Bittensor-Signature": "0x" + bytes(signature).hex(),
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
    }

    async with a_gate() as gate:
        assert (await post(gate.port, body, headers)).status == 200


@pytest.mark.parametrize("kind", ["P-256", "Ed25519"])
def test_a_certificate_vouched_for_by_hand_as_documented_is_accepted(kind: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1()) if kind == "P-256" else ed25519.Ed25519PrivateKey.generate()
    key_info = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    times = NOW.to_bytes(8, "big") + (NOW + DAY).to_bytes(8, "big")
    signed = b"targon/tls/1\x00" + hashlib.sha256(key_info).digest() + times
    statement = bytes.fromhex("0460") + bytes(BOB.public_key) + bytes(BOB.sign(signed))
    certificate = Certificate(
        key=key,
        statement=statement,
        not_after=NOW + DAY,
        oid=x509.ObjectIdentifier("1.3.6.1.3.1952543335.1"),
    )

    check_certificate(certificate.der(), PROVER, now=NOW)
    assert len(statement) == 98
    assert len(signed) == 61
    (oid,) = re.findall(r"`(06 0a [0-9a-f ]+)`", DOCUMENT)
    assert bytes.fromhex(oid) in certificate.der()


def test_the_documented_bounds_are_the_defaults() -> None:
    text, limits, waits = " ".join(DOCUMENT.split()), Limits(), Deadlines()
    hotkey, address = limits.per_hotkey, limits.per_address
    for phrase in (
        f"headers up to {limits.max_header_bytes >> 10} KiB",
        f"`Content-Length` up to {limits.max_body_bytes >> 20} MiB",
        f"within {limits.body_timeout_s:g} s and, after the first {limits.body_grace_s:g} s, "
        f"at {limits.min_body_bytes_per_s >> 10} KiB/s",
        f"accepted from {limits.max_age_s:g} s before to {limits.allowed_skew_s:g} s after",
        f"At most {limits.max_connections:,}, of these {limits.max_connections_per_address}",
        f"headers within {limits.header_timeout_s:g} s",
        f"cut off after {limits.write_stall_s:g} s",
        f"let go after {KEEP_ALIVE_S:g} s",
        f"keeps them for {limits.idle_timeout_s} s",
        f"{hotkey.per_second:g} requests a second ({hotkey.burst} at once after a quiet time), "
        f"{hotkey.concurrent} running",
        f"{address.per_second:g} a second ({address.burst}), {address.concurrent} running",
        f"{limits.max_concurrent} running in all",
        f"| connecting, with the TLS handshake | {waits.connect_s:g} s |",
        f"| first byte of a stream | {waits.first_byte_s:g} s |",
        f"| between two pieces | {waits.between_bytes_s:g} s |",
        f"| altogether | {waits.total_s:g} s |",
        f"{BASE_RESPONSE_BYTES >> 10} KiB + {BYTES_PER_TOKEN} B for each token of `max_tokens`, "
        f"at most {MAX_RESPONSE_BYTES >> 20} MiB",
        f"ALPN `{ALPN}`",
        f"DER of at most {MAX_CERTIFICATE_BYTES} bytes",
        f"at most {tls.MAX_LIFETIME_S // DAY} days",
        f"valid for {LIFETIME_S // DAY} days, and another one for new connections after {LIFETIME_S // DAY // 2}",
        f"`{tls.STATEMENT_OID}`",
        f"between notBefore − {tls.ALLOWED_SKEW_S} s and notAfter + {tls.ALLOWED_SKEW_S} s",
        f"the first request's headers {limits.header_timeout_s:g} s together",
    ):
        assert phrase in text
