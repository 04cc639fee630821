"""Vectors of what an oracle commits to, of whose each private input is, and of what it signs."""

from __future__ import annotations

from typing import Final

from targon.protocol import private_inputs
from targon.protocol.primitives import Block, Digest, Hotkey
from targon.protocol.private_inputs import Commitment, CommitmentBody, PrivateInput, PrivateInputBody, Tree
from targon.protocol.vectors.messages import ALICE, BOB, REQUEST
from targon.protocol.vectors.rule import Json, Rule

CHARLIE: Final = Hotkey("5FLSigC9HGRKVhB9FiEo4Y3koPsNmBmLJbpXg2mp1hXcS59Y")
SECRET: Final = bytes(range(32))
FIRST_HASH: Final = "c1" * 32
FIRST, LAST, PLACES = Block(REQUEST.block), Block(REQUEST.block + 2), 2
VERIFIERS: Final = (BOB, CHARLIE)


def _text(leaf: int) -> str:
    return f"Passage {leaf} is about something that nobody read before."


def _source(leaf: int) -> str:
    return f"crawl.warc.gz#{100 * leaf}"


def leaves(count: int) -> list[bytes]:
    """The hashes of made-up leaves, of which leaf i says its number."""
    return [
        private_inputs.leaf_hash(private_inputs.salt_of(SECRET, leaf), _text(leaf), _source(leaf))
        for leaf in range(count)
    ]


COUNT: Final = (LAST - FIRST + 1) * len(VERIFIERS) * PLACES
TREE: Final = Tree(b"".join(leaves(COUNT)))

BODY_JSON: Final = {
    "spec_version": 1,
    "genesis": REQUEST.genesis,
    "netuid": REQUEST.netuid,
    "oracle": ALICE,
    "number": 0,
    "first": FIRST,
    "last": LAST,
    "verifiers": list(VERIFIERS),
    "places": PLACES,
    "root": TREE.root,
    "secret": private_inputs.secret_digest(SECRET),
    "source": "5e" * 32,
    "previous": private_inputs.NO_COMMITMENT,
}
BODY: Final = CommitmentBody.from_json(BODY_JSON)
DEALT: Final = private_inputs.deal(BODY, FIRST_HASH)
LEAF: Final = int(DEALT[private_inputs.rank_of(BODY, BOB, Block(FIRST + 1), 1)])

INPUT_JSON: Final = {
    "spec_version": 1,
    "genesis": REQUEST.genesis,
    "netuid": REQUEST.netuid,
    "oracle": ALICE,
    "verifier": BOB,
    "block": FIRST + 1,
    "place": 1,
    "commitment": BODY.digest(),
    "leaf": LEAF,
    "salt": private_inputs.salt_of(SECRET, LEAF).hex(),
    "text": _text(LEAF),
    "source": _source(LEAF),
}
INPUT: Final = PrivateInputBody.from_json(INPUT_JSON)

COMMITMENT_SIGNATURE: Final = (
    "aa6052b401883e437cd00b331ad5ea18190f0e4beff065ef35f37a7c8053bd32"
    "562b40a873dc4add2dfafd5c5157f7084d072c16de51525ad5976a96dd751c8c"
)
INPUT_SIGNATURE: Final = (
    "489450d67853c726381bc430c2c54b37e9cc1dcc722c945cf81da6b5327ac175"
    "dc4eb4915fbaa142215436f494e2575058d55a55dedfdcadbdbc070de0697f81"
)
"""By ``//Alice`` over the bodies above; kept, because sr25519 signatures are randomised."""


def _committed(*, signature: str = COMMITMENT_SIGNATURE, before: Json = None, **body: Json) -> Json:
    return {"body": BODY_JSON | body, "signature": signature, "before": before}


def _commitment(given: Json) -> Json:
    commitment = Commitment.from_json({"body": given["body"], "signature": given["signature"]})
    before = None if given["before"] is None else CommitmentBody.from_json(given["before"])
    private_inputs.check_commitment(commitment, before)
    signed = private_inputs.signed_commitment(commitment.body).hex()
    return {"valid": True, "leaves": commitment.body.leaves, "signed_bytes": signed}


COMMITMENTS = Rule(
    name="oracle_commitments",
    about="An oracle's commitment to the private inputs of a period, checked beside the body of the one before it "
    "(null: it isn't at hand). What is signed is 'targon/oracle-commitment/1', a zero byte, and the canonical form of "
    "the body.",
    inputs={
        "valid": _committed(),
        "a block more after signing": _committed(last=LAST + 1),
        "another root": _committed(root="00" * 32),
        "the first, naming another": _committed(previous="5e" * 32),
        "ends before it begins": _committed(last=FIRST - 1),
        "no verifiers": _committed(verifiers=[]),
        "verifiers out of order": _committed(verifiers=[CHARLIE, BOB]),
        "a verifier twice": _committed(verifiers=[BOB, BOB]),
        "no places": _committed(places=0),
        "more leaves than a period may have": _committed(last=FIRST + (1 << 22)),
        "after itself": _committed(before=BODY_JSON),
        "after another network's": _committed(before=BODY_JSON | {"netuid": 5}),
        "after another oracle's": _committed(before=BODY_JSON | {"oracle": BOB}),
        "signature too short": _committed(signature="00" * 63),
        "another's signature": _committed(signature=INPUT_SIGNATURE),
    },
    evaluate=_commitment,
)


def _dealing(given: Json) -> Json:
    body = CommitmentBody.from_json(BODY_JSON | {"root": given["root"]})
    dealt = private_inputs.deal(body, given["first_hash"])
    if "verifier" not in given:
        return {"leaves": dealt.tolist()}
    rank = private_inputs.rank_of(body, given["verifier"], Block(given["block"]), given["place"])
    return {"rank": rank, "leaf": int(dealt[rank])}


def _place(verifier: Hotkey, block: int, place: int) -> Json:
    return {
        "root": TREE.root,
        "first_hash": FIRST_HASH,
        "verifier": verifier,
        "block": block,
        "place": place,
    }


DEALS = Rule(
    name="deals",
    about="Whose each private input is: the leaves of the commitment in the case 'valid' of oracle_commitments.json, "
    "with this root, in the order of the ranks that they are dealt to; and the rank and leaf of one place.",
    inputs={
        "the order": {"root": TREE.root, "first_hash": FIRST_HASH},
        "another root": {"root": "00" * 32, "first_hash": FIRST_HASH},
        "another block hash": {"root": TREE.root, "first_hash": "c2" * 32},
        "the first place": _place(BOB, FIRST, 0),
        "the last place": _place(CHARLIE, LAST, PLACES - 1),
        "a block before": _place(BOB, FIRST - 1, 0),
        "a block after": _place(BOB, LAST + 1, 0),
        "a place too many": _place(BOB, FIRST, PLACES),
        "a verifier without places": _place(ALICE, FIRST, 0),
    },
    evaluate=_dealing,
)


def _branch(given: Json) -> Json:
    digest = bytes.fromhex(given["leaf_hash"])
    root = private_inputs.root_from(digest, given["leaf"], given["leaves"], tuple(given["proof"]))
    return {"root": root}


def _leaf_of(count: int, leaf: int, proof: tuple[Digest, ...] | None = None) -> Json:
    hashes = leaves(count)
    path = Tree(b"".join(hashes)).proof(leaf) if proof is None else proof
    return {"leaf_hash": hashes[leaf].hex(), "leaf": leaf, "leaves": count, "proof": list(path)}


BRANCHES = Rule(
    name="oracle_proofs",
    about="The root that a leaf and its audit path lead to (RFC 6962, section 2.1.1; the path lowest first).",
    inputs={
        "one leaf": _leaf_of(1, 0),
        "two leaves": _leaf_of(2, 1),
        "seven leaves, the first": _leaf_of(7, 0),
        "seven leaves, the last": _leaf_of(7, 6),
        "twelve leaves, in the middle": _leaf_of(COUNT, LEAF),
        "a hash too few": _leaf_of(7, 0, TREE.proof(0)[:2]),
        "a hash too many": _leaf_of(7, 6, TREE.proof(0)[:3]),
    },
    evaluate=_branch,
)


def _given(
    *, signature: str = INPUT_SIGNATURE, proof: tuple[Digest, ...] | None = None, **body: Json
) -> Json:
    return {
        "body": INPUT_JSON | body,
        "proof": list(TREE.proof(LEAF) if proof is None else proof),
        "signature": signature,
        "verifier": BOB,
        "first_hash": FIRST_HASH,
    }


def _input(given: Json) -> Json:
    one = PrivateInput.from_json({key: given[key] for key in ("body", "proof", "signature")})
    dealt = private_inputs.deal(BODY, given["first_hash"])
    private_inputs.check_input(one, BODY, verifier=given["verifier"], dealt=dealt)
    return {"valid": True, "signed_bytes": private_inputs.signed_input(one.body).hex()}


INPUTS = Rule(
    name="private_inputs",
    about="A private input as an oracle signs it, checked by the verifier that asked, against the commitment in the "
    "case 'valid' of oracle_commitments.json. What is signed is 'targon/private-input/1', a zero byte, and the "
    "canonical form of the body.",
    inputs={
        "valid": _given(),
        "for another verifier": _given() | {"verifier": CHARLIE},
        "another verifier's": _given(verifier=CHARLIE) | {"verifier": CHARLIE},
        "another block's": _given(block=FIRST),
        "a block outside of the period": _given(block=LAST + 1),
        "another place's": _given(place=0),
        "a place that there isn't": _given(place=PLACES),
        "another leaf": _given(leaf=(LEAF + 1) % COUNT),
        "a leaf that there isn't": _given(leaf=COUNT),
        "dealt by another block hash": _given() | {"first_hash": "c2" * 32},
        "another text": _given(text=_text(LEAF) + " "),
        "another source": _given(source="elsewhere"),
        "another salt": _given(salt="00" * 32),
        "of another commitment": _given(commitment="00" * 32),
        "another network's": _given(netuid=5),
        "another oracle's": _given(oracle=CHARLIE),
        "a proof too short": _given(proof=TREE.proof(LEAF)[:-1]),
        "another's signature": _given(signature=COMMITMENT_SIGNATURE),
        "no text": _given(text=""),
    },
    evaluate=_input,
)

RULES = (COMMITMENTS, DEALS, BRANCHES, INPUTS)
