"""Every draw a verifier makes, as an HMAC of a secret that it committed to beforehand.

Each interval the verifier logs ``commitment(secret)`` before it uses the secret and reveals it
afterwards, so that anyone can derive every seed, selection and sample again, and nobody, the verifier
included, can choose among outcomes.
"""

from __future__ import annotations

import hashlib
import hmac

from targon.protocol.keys import public_key
from targon.protocol.messages import GenerateRequest
from targon.protocol.primitives import AttemptNumber, Block, Digest, Interval

SECRET_BYTES = 32

_SAMPLER_DOMAIN = b"targon/sampler/1"
_SECRET_DOMAIN = b"targon/interval-secret/1"


def interval_secret(master: bytes, genesis: bytes, netuid: int, interval: Interval) -> bytes:
    """The secret of one interval, from the verifier's master secret: revealing one reveals no other."""
    message = _SECRET_DOMAIN + genesis + netuid.to_bytes(2, "big") + int(interval).to_bytes(8, "big")
    return hmac.new(master, message, hashlib.sha256).digest()


def commitment(secret: bytes) -> Digest:
    """What is logged before a secret is used: its SHA-256."""
    return Digest(hashlib.sha256(secret).hexdigest())


def _draw(secret: bytes, label: bytes, *parts: bytes) -> bytes:
    return hmac.digest(secret, label + b"".join(parts), "sha256")


def request_seed(secret: bytes, attempt: AttemptNumber, prover_key: bytes) -> int:
    """A request's 64-bit seed: ``HMAC-SHA256(secret, "seed" ‖ attempt (8, BE) ‖ prover public key)[:8]``."""
    return int.from_bytes(_draw(secret, b"seed", attempt.to_bytes(8, "big"), prover_key)[:8], "big")


def run_key(
    seed: int, verifier_key: bytes, attempt: AttemptNumber, prover_key: bytes, block_hash: bytes
) -> int:
    """The 64-bit key of the sampler's noise for one request.

    ``SHA-256("targon/sampler/1" ‖ seed (8) ‖ verifier (32) ‖ attempt (8) ‖ prover (32) ‖ block hash (32))[:8]``,
    integers and the result big-endian. Nothing in it can be varied at will, so nobody can grind for an
    agreeable answer.
    """
    message = (
        _SAMPLER_DOMAIN
        + seed.to_bytes(8, "big")
        + verifier_key
        + attempt.to_bytes(8, "big")
        + prover_key
        + block_hash
    )
    return int.from_bytes(hashlib.sha256(message).digest()[:8], "big")


def request_run_key(request: GenerateRequest) -> int:
    """:func:`run_key` of a request, from what stands in it."""
    return run_key(
        int(request.sampling.seed, 16),
        public_key(request.verifier),
        request.attempt_number,
        public_key(request.prover),
        bytes.fromhex(request.block_hash),
    )


def selection_rank(secret: bytes, block: Block, prover_key: bytes) -> int:
    """A prover's place in a block's draw: the ``sample_size`` lowest ranks are challenged."""
    return int.from_bytes(_draw(secret, b"select", block.to_bytes(8, "big"), prover_key)[:8], "big")


def private_input_draw(secret: bytes, block: Block, prover_key: bytes) -> int:
    """A 64-bit draw that picks one prover's private input in one block."""
    return int.from_bytes(_draw(secret, b"input", block.to_bytes(8, "big"), prover_key)[:8], "big")


def challenge_draw(secret: bytes, block: Block, prover_key: bytes, part: str) -> int:
    """A 64-bit draw for one part of a challenge: ``"length"``, ``"wording"``, ``"delay"`` …

    ``HMAC-SHA256(secret, "challenge" ‖ block (8, BE) ‖ prover public key ‖ part (UTF-8))[:8]``.
    """
    place = block.to_bytes(8, "big")
    return int.from_bytes(_draw(secret, b"challenge", place, prover_key, part.encode())[:8], "big")


def route_draw(secret: bytes, attempt: AttemptNumber, turn: int) -> int:
    """A 64-bit draw that picks the prover of a user's inference.

    ``HMAC-SHA256(secret, "route" ‖ attempt number (8, BE) ‖ turn (4, BE))[:8]``; the first turn is 0.
    """
    place = attempt.to_bytes(8, "big") + turn.to_bytes(4, "big")
    return int.from_bytes(_draw(secret, b"route", place)[:8], "big")


def audit_draw(secret: bytes, attempt: AttemptNumber, prover_key: bytes) -> int:
    """A 64-bit draw that decides whether an inference is audited:
    ``HMAC-SHA256(secret, "audit" ‖ attempt number (8, BE) ‖ prover public key)[:8]``."""
    return int.from_bytes(_draw(secret, b"audit", attempt.to_bytes(8, "big"), prover_key)[:8], "big")


def own_inference_draw(secret: bytes, block: Block, prover_key: bytes) -> int:
    """A 64-bit draw that decides whether the verifier sends a prover an inference of its own in a block:
    ``HMAC-SHA256(secret, "own" ‖ block (8, BE) ‖ prover public key)[:8]``."""
    return int.from_bytes(_draw(secret, b"own", block.to_bytes(8, "big"), prover_key)[:8], "big")


def weights_salt(secret: bytes, proposal: int) -> bytes:
    """The 32-byte salt of a commit to weights: ``HMAC-SHA256(secret, "weights" ‖ proposal's number (8, BE))``.

    The secret is that of the interval that the proposal's block lies in.
    """
    return _draw(secret, b"weights", proposal.to_bytes(8, "big"))


def query_seed(secret: bytes, block: Block, prover_key: bytes) -> int:
    """The 64-bit noise key with which the query of one challenge is generated."""
    return int.from_bytes(_draw(secret, b"query", block.to_bytes(8, "big"), prover_key)[:8], "big")
