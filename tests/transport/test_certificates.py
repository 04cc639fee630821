"""What a certificate must be, without any connection: made and read, and altered in every way."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from targon.protocol.primitives import Hotkey
from targon.transport.certificates import UntrustedCertificate, check_certificate, make_certificate
from tests.transport.certificates import DAY, HOSTILE, NOW, Certificate
from tests.transport.world import BOB, PROVER, VERIFIER

MADE = x509.load_pem_x509_certificate(make_certificate(BOB, not_before=NOW, not_after=NOW + 30 * DAY))
DER = MADE.public_bytes(Encoding.DER)


def test_a_certificate_that_is_made_shows_its_hotkey_and_no_other() -> None:
    check_certificate(DER, PROVER, now=NOW)

    with pytest.raises(UntrustedCertificate, match=f"hotkey: got {PROVER}, expected {VERIFIER}"):
        check_certificate(DER, VERIFIER, now=NOW)
    with pytest.raises(UntrustedCertificate, match="expected an ss58 address"):
        check_certificate(DER, Hotkey("nobody"), now=NOW)


def test_clocks_may_differ_by_five_minutes() -> None:
    for now in (NOW - 300, NOW + 30 * DAY + 300):
        check_certificate(DER, PROVER, now=now)
    for now in (NOW - 301, NOW + 30 * DAY + 301):
        with pytest.raises(UntrustedCertificate, match="expected at"):
            check_certificate(DER, PROVER, now=now)


def test_a_key_of_the_other_accepted_kind_is_as_good() -> None:
    check_certificate(Certificate(key=ed25519.Ed25519PrivateKey.generate()).der(), PROVER, now=NOW)


@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_wrong_with_a_certificate_is_said(what: str) -> None:
    make, says = HOSTILE[what]
    with pytest.raises(UntrustedCertificate, match=says):
        check_certificate(make().der(), PROVER, now=NOW)


@given(st.integers(0, len(DER) - 1), st.integers(1, 255))
def test_a_certificate_with_any_byte_altered_is_refused(place: int, change: int) -> None:
    altered = DER[:place] + bytes([DER[place] ^ change]) + DER[place + 1 :]
    with pytest.raises(UntrustedCertificate):
        check_certificate(altered, PROVER, now=NOW)


@given(st.integers(0, len(DER) - 1), st.binary(max_size=40))
def test_a_certificate_that_breaks_off_or_goes_on_is_refused(length: int, more: bytes) -> None:
    with pytest.raises(UntrustedCertificate):
        check_certificate(DER[:length] + more, PROVER, now=NOW)
