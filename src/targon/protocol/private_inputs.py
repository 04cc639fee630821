"""Private inputs from an oracle: what it commits to beforehand, whose each of them is, and what it signs of each.

An oracle commits to a *period* at once: a run of blocks within one interval, before the first of them. In each block,
each verifier that may ask has a number of places, and each place has a private input of its own, a leaf of a Merkle
tree whose root the commitment names. Which leaf a place has is settled by the hash of the period's first block, which
nobody knew when the root was signed: so an oracle can favour nobody, and nobody can know whose a passage will be.

1. Leaf ``i`` is ``SHA-256(0x00 ‖ salt ‖ SHA-256(RFC 8785 form of {"source", "text"}))``. Its salt is
   ``HMAC-SHA256(secret, "salt" ‖ i (8, BE))``; the secret is committed to by its SHA-256. Without its salt, a leaf
   says nothing of a text that could be guessed.
2. The tree is that of RFC 6962, section 2.1: inner nodes are ``SHA-256(0x01 ‖ left ‖ right)``, and of n leaves the
   left branch has the largest power of two below n.
3. A place's rank is ``((block - first) · verifiers + number of the verifier) · places + place``, where the
   commitment's verifiers are in the order in which it names them.
4. The leaves are dealt in the order of ``SHA-256("targon/deal/1" ‖ root ‖ block hash ‖ i (8, BE))[:8]``, with the hash
   of the period's first block (equal ones by i): rank r gets the r-th.

Commitments are chained: each names the digest of the body of the one before. After its last block an oracle reveals a
period's secret and texts, and anyone can compute the root again.

Signed are ``"targon/oracle-commitment/1" ‖ 0x00 ‖ RFC 8785 form of the body`` and
``"targon/private-input/1" ‖ 0x00 ‖ RFC 8785 form of the body``.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import Annotated, Final, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from targon.protocol.canonical import canonical_bytes
from targon.protocol.errors import PrivateInputMismatch
from targon.protocol.keys import Signer, verify_signature
from targon.protocol.messages import MAX_SAFE_INTEGER, Message
from targon.protocol.primitives import SPEC_VERSION, Block, Digest, Hex32, Hex64, Hotkey, HotkeyField

MAX_VERIFIERS: Final = 4_096
"""That one period serves. A subnet has 64 validators."""
MAX_PLACES: Final = 256
"""Private inputs of one verifier in one block."""
MAX_LEAVES: Final = 1 << 22
"""Of one period."""
MAX_TEXT_CHARS: Final = 4_000
MAX_SOURCE_CHARS: Final = 1_000
MAX_PROOF: Final = 22
"""Hashes: the height of the highest tree."""
PLACE_AFTER_BLOCKS: Final = 210
"""Who held a validator permit so many blocks before a period's first has a place in it: an oracle commits half an
interval ahead at most, and may have seen the permits some minutes before."""

NO_COMMITMENT: Final = Digest("0" * 64)
"""What the first commitment names as the one before it."""

_COMMITMENT_DOMAIN = b"targon/oracle-commitment/1\x00"
_INPUT_DOMAIN = b"targon/private-input/1\x00"
_DEAL_DOMAIN = b"targon/deal/1"

_Netuid = Annotated[int, Field(ge=0, lt=65_536)]
_Block = Annotated[Block, Field(ge=0, le=MAX_SAFE_INTEGER)]


class CommitmentBody(Message):
    """What an oracle commits to: one period's private inputs."""

    spec_version: Literal[1] = SPEC_VERSION
    genesis: Hex32
    netuid: _Netuid
    oracle: HotkeyField
    number: Annotated[int, Field(ge=0, le=MAX_SAFE_INTEGER)]
    """Its place among the oracle's commitments, from 0 without gaps."""
    first: _Block
    """The period's first block."""
    last: _Block
    """The period's last block."""
    verifiers: Annotated[tuple[HotkeyField, ...], Field(min_length=1, max_length=MAX_VERIFIERS)]
    """Who has places, in ascending order."""
    places: Annotated[int, Field(ge=1, le=MAX_PLACES)]
    """Of each verifier in each block."""
    root: Hex32
    secret: Hex32
    """SHA-256 of the secret from which the salts are made."""
    source: Hex32
    """Names the body of text that the inputs were drawn from: a digest of its manifest."""
    previous: Hex32
    """Digest of the body of the commitment before this one; 64 zeros in the first."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.last < self.first:
            raise ValueError(f"last: got {self.last}, expected {self.first} or more, the first")
        if any(left >= right for left, right in zip(self.verifiers, self.verifiers[1:], strict=False)):
            raise ValueError("verifiers: expected each hotkey once, in ascending order")
        if self.leaves > MAX_LEAVES:
            raise ValueError(f"leaves: got {self.leaves}, expected at most {MAX_LEAVES}")
        return self

    @property
    def leaves(self) -> int:
        """How many private inputs the period has."""
        return (self.last - self.first + 1) * len(self.verifiers) * self.places


class Commitment(Message):
    """An oracle's signed commitment."""

    body: CommitmentBody
    signature: Hex64
    """sr25519 by the oracle's hotkey over :func:`signed_commitment`."""


class PrivateInputBody(Message):
    """What an oracle signs of one private input."""

    spec_version: Literal[1] = SPEC_VERSION
    genesis: Hex32
    netuid: _Netuid
    oracle: HotkeyField
    verifier: HotkeyField
    block: _Block
    place: Annotated[int, Field(ge=0, lt=MAX_PLACES)]
    commitment: Hex32
    """Digest of the body of the commitment that it is part of."""
    leaf: Annotated[int, Field(ge=0, lt=MAX_LEAVES)]
    salt: Hex32
    text: Annotated[str, Field(min_length=1, max_length=MAX_TEXT_CHARS)]
    source: Annotated[str, Field(min_length=1, max_length=MAX_SOURCE_CHARS)]
    """Where the text was taken from."""


class PrivateInput(Message):
    """One private input, with what shows that it was committed to."""

    body: PrivateInputBody
    proof: Annotated[tuple[Hex32, ...], Field(max_length=MAX_PROOF)]
    """The leaf's audit path (RFC 6962, section 2.1.1), lowest first. It needs no signature."""
    signature: Hex64
    """sr25519 by the oracle's hotkey over :func:`signed_input`."""


# -- signing -----------------------------------------------------------------------------------------------


def signed_commitment(body: CommitmentBody) -> bytes:
    """The exact bytes that an oracle signs of a commitment."""
    return _COMMITMENT_DOMAIN + body.to_bytes()


def signed_input(body: PrivateInputBody) -> bytes:
    """The exact bytes that an oracle signs of a private input."""
    return _INPUT_DOMAIN + body.to_bytes()


def commit(body: CommitmentBody, signer: Signer) -> Commitment:
    """Sign a commitment of ours."""
    return Commitment(body=body, signature=bytes(signer.sign(signed_commitment(body))).hex())


def give(body: PrivateInputBody, proof: Sequence[Digest], signer: Signer) -> PrivateInput:
    """Sign a private input of ours."""
    signature = bytes(signer.sign(signed_input(body))).hex()
    return PrivateInput(body=body, proof=tuple(proof), signature=signature)


# -- whose a private input is ------------------------------------------------------------------------------


def secret_digest(secret: bytes) -> Digest:
    """What a commitment says of its secret."""
    return Digest(hashlib.sha256(secret).hexdigest())


def salt_of(secret: bytes, leaf: int) -> bytes:
    """The 32-byte salt of a leaf."""
    return hmac.digest(secret, b"salt" + leaf.to_bytes(8, "big"), "sha256")


def leaf_hash(salt: bytes, text: str, source: str) -> bytes:
    """The 32 bytes of a leaf."""
    content = hashlib.sha256(canonical_bytes({"source": source, "text": text})).digest()
    return hashlib.sha256(b"\x00" + salt + content).digest()


def deal(body: CommitmentBody, first_hash: str) -> npt.NDArray[np.int64]:
    """The leaves in the order of the ranks that they are dealt to: (leaves,) int64.

    Args:
        first_hash: hash of the period's first block, 64 hex digits.
    """
    begun = hashlib.sha256(_DEAL_DOMAIN + bytes.fromhex(body.root) + bytes.fromhex(first_hash))
    keys = np.empty(body.leaves, dtype=np.uint64)
    for leaf in range(body.leaves):
        one = begun.copy()
        one.update(leaf.to_bytes(8, "big"))
        keys[leaf] = int.from_bytes(one.digest()[:8], "big")
    return np.argsort(keys, kind="stable").astype(np.int64, copy=False)


def rank_of(body: CommitmentBody, verifier: Hotkey, block: Block, place: int) -> int:
    """The rank of one place.

    Raises:
        PrivateInputMismatch: if the period has no such place; the field is named.
    """
    if not body.first <= block <= body.last:
        raise PrivateInputMismatch("block", block, f"one of {body.first} to {body.last}, the period's")
    if not 0 <= place < body.places:
        raise PrivateInputMismatch("place", place, f"one of 0 to {body.places - 1}")
    try:
        number = body.verifiers.index(verifier)
    except ValueError:
        raise PrivateInputMismatch("verifier", verifier, "one that the commitment names") from None
    return ((block - body.first) * len(body.verifiers) + number) * body.places + place


# -- the tree ----------------------------------------------------------------------------------------------


class Tree:
    """The Merkle tree over a period's leaves: 32 bytes a leaf, and as much again above them.

    Args:
        leaves: (n, 32) uint8, or the n · 32 bytes of them.

    Raises:
        ValueError: if there is none.
    """

    def __init__(self, leaves: bytes) -> None:
        if not leaves or len(leaves) % 32:
            raise ValueError(f"got {len(leaves)} bytes of leaves, expected 32 of each, and one at least")
        self._levels = [leaves]
        while len(self._levels[-1]) > 32:
            self._levels.append(_parents(self._levels[-1]))

    @property
    def root(self) -> Digest:
        return Digest(self._levels[-1].hex())

    def proof(self, leaf: int) -> tuple[Digest, ...]:
        """The audit path of a leaf, lowest first.

        Raises:
            IndexError: if there is no such leaf.
        """
        if not 0 <= leaf < len(self._levels[0]) // 32:
            raise IndexError(f"got leaf {leaf}, expected one of {len(self._levels[0]) // 32}")
        path = []
        for level in self._levels[:-1]:
            beside = 32 * (leaf ^ 1)
            if beside < len(level):
                path.append(Digest(level[beside : beside + 32].hex()))
            leaf >>= 1
        return tuple(path)


def _parents(level: bytes) -> bytes:
    """The level above: pairs hashed from the left, and what is left over as it stands. That gives RFC 6962's tree."""
    above = [
        hashlib.sha256(b"\x01" + level[place : place + 64]).digest()
        if place + 64 <= len(level)
        else level[place:]
        for place in range(0, len(level), 64)
    ]
    return b"".join(above)


def root_from(leaf_digest: bytes, leaf: int, leaves: int, proof: Sequence[str]) -> Digest:
    """The root that a leaf and its audit path lead to.

    Raises:
        PrivateInputMismatch: if the path is too short or too long for the tree.
    """
    node, left, last = leaf_digest, list(proof), leaves - 1
    while last:
        if leaf % 2 or leaf < last:
            if not left:
                raise PrivateInputMismatch("proof", f"{len(proof)} hashes", "one for each level")
            beside = bytes.fromhex(left.pop(0))
            pair = beside + node if leaf % 2 else node + beside
            node = hashlib.sha256(b"\x01" + pair).digest()
        leaf, last = leaf // 2, last // 2
    if left:
        raise PrivateInputMismatch("proof", f"{len(proof)} hashes", f"{len(proof) - len(left)}")
    return Digest(node.hex())


# -- checking ----------------------------------------------------------------------------------------------


def check_commitment(commitment: Commitment, before: CommitmentBody | None = None) -> None:
    """Check that a commitment is the oracle's own and, where the one before is at hand, that it follows it.

    Raises:
        PrivateInputMismatch: if it doesn't follow; the field is named.
        InvalidSignature: if the oracle's hotkey did not sign it.
    """
    body = commitment.body
    if before is not None:
        expected: dict[str, object] = {
            "genesis": before.genesis,
            "netuid": before.netuid,
            "oracle": before.oracle,
            "number": before.number + 1,
            "previous": before.digest(),
        }
        for field, value in expected.items():
            if getattr(body, field) != value:
                raise PrivateInputMismatch(field, getattr(body, field), value, of="commitment")
        if body.first <= before.last:
            raise PrivateInputMismatch(
                "first",
                body.first,
                f"more than {before.last}, the last block of the one before",
                of="commitment",
            )
    elif body.number == 0 and body.previous != NO_COMMITMENT:
        raise PrivateInputMismatch("previous", body.previous, NO_COMMITMENT, of="commitment")
    verify_signature(body.oracle, signed_commitment(body), bytes.fromhex(commitment.signature))


def check_input(
    given: PrivateInput,
    commitment: CommitmentBody,
    *,
    verifier: Hotkey,
    dealt: npt.NDArray[np.int64] | None = None,
) -> None:
    """Check that a private input is the oracle's own, committed to, and the asking verifier's.

    Args:
        commitment: of its period, checked before.
        dealt: :func:`deal` of the commitment; None: whose the leaf is isn't looked at.

    Raises:
        PrivateInputMismatch: if it is another's, or was not committed to; the field is named.
        InvalidSignature: if the oracle's hotkey did not sign it.
    """
    body = given.body
    expected: dict[str, object] = {
        "genesis": commitment.genesis,
        "netuid": commitment.netuid,
        "oracle": commitment.oracle,
        "verifier": verifier,
        "commitment": commitment.digest(),
    }
    for field, value in expected.items():
        if getattr(body, field) != value:
            raise PrivateInputMismatch(field, getattr(body, field), value)
    rank = rank_of(commitment, body.verifier, body.block, body.place)
    if body.leaf >= commitment.leaves:
        raise PrivateInputMismatch("leaf", body.leaf, f"less than {commitment.leaves}")
    if dealt is not None and dealt[rank] != body.leaf:
        raise PrivateInputMismatch("leaf", body.leaf, int(dealt[rank]))
    digest = leaf_hash(bytes.fromhex(body.salt), body.text, body.source)
    root = root_from(digest, body.leaf, commitment.leaves, given.proof)
    if root != commitment.root:
        raise PrivateInputMismatch("root", root, commitment.root)
    verify_signature(body.oracle, signed_input(body), bytes.fromhex(given.signature))


def contradict(one: CommitmentBody, other: CommitmentBody) -> bool:
    """Whether an oracle said two things: other inputs for the same block, or two commitments of the same number.

    Two signed commitments that contradict each other are proof against whoever signed them.
    """
    same = (one.genesis, one.netuid, one.oracle) == (other.genesis, other.netuid, other.oracle)
    if not same or one == other:
        return False
    overlap = one.first <= other.last and other.first <= one.last
    return overlap or one.number == other.number
