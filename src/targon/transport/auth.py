"""btauth/1: who sent this request, to whom, when, and with exactly this body.

A *claim* is what the headers say, checked for everything that needs no body. The signature covers the
body's hash, so it can be checked only once the body is here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from bittensor import http_auth

from targon.protocol.errors import MalformedMessage
from targon.protocol.keys import Signer, hotkey_of, public_key
from targon.protocol.primitives import Hotkey
from targon.transport.refusals import Code, Refusal

_HEADERS = (
    http_auth.HEADER_VERSION,
    http_auth.HEADER_HOTKEY,
    http_auth.HEADER_RECEIVER,
    http_auth.HEADER_NONCE,
    http_auth.HEADER_SIGNATURE,
)
_BY_LOWER = {name.lower().encode(): name for name in (*_HEADERS, http_auth.HEADER_CRYPTO)}
_SR25519 = 1
"""bittensor's number of the scheme that it takes a request to be signed by unless a header says another."""
_NONCE = re.compile(r"[0-9]{1,20}")
_SIGNATURE = re.compile(r"0x[0-9a-fA-F]{128}")


@dataclass(frozen=True, slots=True)
class Claim:
    """What a request's headers say of its sender. Nothing of it is proven yet."""

    hotkey: Hotkey
    nonce_ns: int
    arrived_ns: int
    """Our clock when the headers were here: the moment by which freshness is judged."""
    headers: dict[str, str]


def read_claim(
    headers: Iterable[tuple[bytes, bytes]],
    *,
    receiver: Hotkey,
    arrived_ns: int,
    max_age_s: float,
    allowed_skew_s: float,
) -> Claim:
    """Check the shape of the btauth/1 headers, that they are addressed to us, and that they are fresh.

    Raises:
        Refusal: ``unsigned``, ``malformed_auth``, ``wrong_receiver`` or ``stale_nonce``.
    """
    found = _collect(headers)
    if not found:
        raise Refusal(
            Code.UNSIGNED,
            "the request is not signed: sign it with your hotkey as btauth/1 says",
            expected=list(_HEADERS),
        )
    missing = [name for name in _HEADERS if name not in found]
    if missing:
        raise _malformed("the signature's headers are incomplete", f"no {', '.join(missing)}", list(_HEADERS))
    if found[http_auth.HEADER_VERSION] != http_auth.VERSION:
        raise _malformed(http_auth.HEADER_VERSION, found[http_auth.HEADER_VERSION], http_auth.VERSION)
    if found.get(http_auth.HEADER_CRYPTO, "sr25519") != "sr25519":
        raise _malformed(
            http_auth.HEADER_CRYPTO, found[http_auth.HEADER_CRYPTO], "sr25519, or no such header"
        )
    hotkey = _hotkey(found[http_auth.HEADER_HOTKEY])
    nonce = found[http_auth.HEADER_NONCE]
    if not _NONCE.fullmatch(nonce):
        raise _malformed(http_auth.HEADER_NONCE, nonce, "nanoseconds since 1970, in decimal digits")
    if not _SIGNATURE.fullmatch(found[http_auth.HEADER_SIGNATURE]):
        raise _malformed(http_auth.HEADER_SIGNATURE, None, "0x and 128 hex digits")
    if found[http_auth.HEADER_RECEIVER] != receiver:
        raise Refusal(
            Code.WRONG_RECEIVER,
            "the request was signed for another hotkey; read our axon from the chain again",
            got=found[http_auth.HEADER_RECEIVER],
            expected=receiver,
        )
    nonce_ns = int(nonce)
    age_s = (arrived_ns - nonce_ns) / 1e9
    if not -allowed_skew_s <= age_s <= max_age_s:
        raise Refusal(
            Code.STALE_NONCE,
            "the nonce is outside the freshness window; sign each try anew, and check your clock",
            got=f"{age_s:.3f} s old by our clock",
            expected=f"between -{allowed_skew_s:g} and {max_age_s:g} s",
        )
    return Claim(hotkey, nonce_ns, arrived_ns, found)


def check_signature(claim: Claim, body: bytes, *, method: str, target: str, receiver: Hotkey) -> None:
    """Check that the claim's hotkey signed exactly this request. Replays are not looked for here.

    Raises:
        Refusal: ``bad_signature``.
    """
    try:
        http_auth.verify(
            claim.headers,
            body,
            method=method,
            path=target,
            self_hotkey_ss58=receiver,
            nonce_store=_ANY_NONCE,
            # Freshness was judged when the headers came; a body that took its time does not age them.
            now_ns=claim.nonce_ns,
        )
    except http_auth.AuthError as error:
        raise Refusal(
            Code.BAD_SIGNATURE,
            f"the signature is not the claimed hotkey's over this method, path and body ({error})",
            got=claim.hotkey,
        ) from error


def sign(
    signer: Signer, *, method: str, target: str, body: bytes, receiver: Hotkey, nonce_ns: int
) -> dict[str, str]:
    """The btauth/1 headers of one request."""
    if signer.crypto_type != _SR25519:
        return http_auth.sign(
            signer, method=method, path=target, body=body, receiver_ss58=receiver, nonce_ns=nonce_ns
        )
    # The same, without the search for what kind of wallet it is, which takes longer than to sign.
    payload = http_auth.build_payload(
        scheme="sr25519",
        method=method,
        path=target,
        body=body,
        nonce_ns=nonce_ns,
        sender_ss58=signer.ss58_address,
        receiver_ss58=receiver,
    )
    return {
        http_auth.HEADER_VERSION: http_auth.VERSION,
        http_auth.HEADER_HOTKEY: signer.ss58_address,
        http_auth.HEADER_NONCE: str(nonce_ns),
        http_auth.HEADER_SIGNATURE: f"0x{bytes(signer.sign(payload)).hex()}",
        http_auth.HEADER_RECEIVER: receiver,
    }


class _AnyNonce:
    """Accepts every nonce: replays are the business of our own, asynchronous store."""

    def check_and_store(self, hotkey_ss58: str, nonce_ns: int) -> bool:  # noqa: ARG002 - the interface's
        return True


_ANY_NONCE = _AnyNonce()


def _collect(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name = _BY_LOWER.get(raw_name.lower())
        if name is None:
            continue
        if name in found:
            raise _malformed(name, "the header twice", "the header once")
        found[name] = raw_value.decode("latin-1")
    return found


def _hotkey(text: str) -> Hotkey:
    """A hotkey in its one spelling: the same key in another address format would be a second identity."""
    try:
        spelled = hotkey_of(public_key(Hotkey(text)))
    except (MalformedMessage, ValueError):
        spelled = None
    if spelled != text:
        raise _malformed(http_auth.HEADER_HOTKEY, text, "an ss58 address of format 42")
    return spelled


def _malformed(what: str, got: str | None, expected: str | list[str]) -> Refusal:
    return Refusal(Code.MALFORMED_AUTH, f"{what}: not as btauth/1 has it", got=got, expected=expected)
