"""The headers that a request is signed by are bittensor's own, to the byte."""

from __future__ import annotations

import pytest
from bittensor import http_auth
from bittensor.keyfiles import Keypair

from targon.protocol.primitives import Hotkey
from targon.transport.auth import sign

RECEIVER = Hotkey(Keypair.create_from_uri("//Receiver").ss58_address)
BODY = b'{"a":1}'


class _Nonces:
    def check_and_store(self, hotkey_ss58: str, nonce_ns: int) -> bool:
        return True


@pytest.mark.parametrize("crypto_type", [0, 1])
def test_headers_are_those_that_bittensor_makes_and_reads(crypto_type: int) -> None:
    signer = Keypair.create_from_uri("//Signer", crypto_type=crypto_type)
    ours = sign(signer, method="POST", target="/v1/generate?x=1", body=BODY, receiver=RECEIVER, nonce_ns=123)
    theirs = http_auth.sign(
        signer, method="POST", path="/v1/generate?x=1", body=BODY, receiver_ss58=RECEIVER, nonce_ns=123
    )
    # each signature is another: sr25519 draws a nonce for each
    ours_signed, theirs_signed = (one.pop(http_auth.HEADER_SIGNATURE) for one in (ours, theirs))
    assert (list(ours.items()), len(ours_signed)) == (list(theirs.items()), len(theirs_signed))
    caller = http_auth.verify(
        {**ours, http_auth.HEADER_SIGNATURE: ours_signed},
        BODY,
        method="POST",
        path="/v1/generate?x=1",
        self_hotkey_ss58=RECEIVER,
        nonce_store=_Nonces(),
        now_ns=123,
    )
    assert caller.hotkey_ss58 == signer.ss58_address
