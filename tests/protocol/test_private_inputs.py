"""Private inputs: committed to before anyone could know whose they would be, and nothing in them can be changed."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from bittensor.keyfiles import Keypair
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from targon.protocol import private_inputs
from targon.protocol.errors import InvalidSignature, PrivateInputMismatch
from targon.protocol.primitives import Block, Hotkey
from targon.protocol.private_inputs import CommitmentBody, PrivateInput, PrivateInputBody, Tree

SECRET = b"s" * 32
FIRST_HASH = "ab" * 32
FIRST, LAST, PLACES = 100, 104, 3
ORACLE = Keypair.create_from_uri("//Oracle")
VERIFIERS = tuple(sorted(Keypair.create_from_uri(f"//Verifier{n}").ss58_address for n in range(4)))
COUNT = (LAST - FIRST + 1) * len(VERIFIERS) * PLACES


def hashes(count: int) -> list[bytes]:
    return [
        private_inputs.leaf_hash(private_inputs.salt_of(SECRET, leaf), f"text {leaf}", f"file#{leaf}")
        for leaf in range(count)
    ]


TREE = Tree(b"".join(hashes(COUNT)))


def body(**changes: Any) -> CommitmentBody:
    value = {
        "genesis": "22" * 32,
        "netuid": 4,
        "oracle": ORACLE.ss58_address,
        "number": 0,
        "first": FIRST,
        "last": LAST,
        "verifiers": VERIFIERS,
        "places": PLACES,
        "root": TREE.root,
        "secret": private_inputs.secret_digest(SECRET),
        "source": "5e" * 32,
        "previous": private_inputs.NO_COMMITMENT,
    }
    return CommitmentBody(**(value | changes))


def following(before: CommitmentBody, **changes: Any) -> CommitmentBody:
    number, first = before.number + 1, before.last + 1
    return body(
        **{"number": number, "first": first, "last": first + 4, "previous": before.digest()} | changes
    )


def private_input(commitment: CommitmentBody, verifier: str, block: int, place: int) -> PrivateInput:
    dealt = private_inputs.deal(commitment, FIRST_HASH)
    rank = private_inputs.rank_of(commitment, Hotkey(verifier), Block(block), place)
    leaf = int(dealt[rank])
    one = PrivateInputBody(
        genesis=commitment.genesis,
        netuid=commitment.netuid,
        oracle=commitment.oracle,
        verifier=Hotkey(verifier),
        block=Block(block),
        place=place,
        commitment=commitment.digest(),
        leaf=leaf,
        salt=private_inputs.salt_of(SECRET, leaf).hex(),
        text=f"text {leaf}",
        source=f"file#{leaf}",
    )
    return private_inputs.give(one, TREE.proof(leaf), ORACLE)


def merkle_tree_hash(leaves: list[bytes]) -> bytes:
    """As RFC 6962 says it."""
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << (len(leaves) - 1).bit_length() - 1
    halves = merkle_tree_hash(leaves[:split]) + merkle_tree_hash(leaves[split:])
    return hashlib.sha256(b"\x01" + halves).digest()


@given(st.integers(1, 70), st.data())
def test_the_tree_is_that_of_rfc_6962_and_each_path_leads_to_its_root(
    count: int, data: st.DataObject
) -> None:
    leaves = hashes(count)
    tree = Tree(b"".join(leaves))
    assert tree.root == merkle_tree_hash(leaves).hex()
    leaf = data.draw(st.integers(0, count - 1))
    assert private_inputs.root_from(leaves[leaf], leaf, count, tree.proof(leaf)) == tree.root


@pytest.mark.parametrize("leaves", [b"", b"x" * 31])
def test_a_tree_needs_whole_leaves(leaves: bytes) -> None:
    with pytest.raises(ValueError, match="expected 32 of each"):
        Tree(leaves)


@pytest.mark.parametrize("leaf", [-1, COUNT])
def test_there_is_no_path_of_a_leaf_that_is_not_there(leaf: int) -> None:
    with pytest.raises(IndexError, match=f"expected one of {COUNT}"):
        TREE.proof(leaf)


def test_every_place_has_a_leaf_of_its_own() -> None:
    commitment = body()
    dealt = private_inputs.deal(commitment, FIRST_HASH)
    ranks = [
        private_inputs.rank_of(commitment, Hotkey(verifier), Block(block), place)
        for block in range(FIRST, LAST + 1)
        for verifier in VERIFIERS
        for place in range(PLACES)
    ]
    assert ranks == list(range(COUNT))
    assert sorted(dealt.tolist()) == ranks


def test_who_gets_which_leaf_is_settled_by_the_root_and_the_block_hash_together() -> None:
    usual = private_inputs.deal(body(), FIRST_HASH)
    assert not np.array_equal(usual, private_inputs.deal(body(), "ac" * 32))
    assert not np.array_equal(usual, private_inputs.deal(body(root="00" * 32), FIRST_HASH))
    assert np.array_equal(usual, private_inputs.deal(body(number=7, previous="11" * 32), FIRST_HASH))


@given(st.sampled_from(VERIFIERS), st.integers(FIRST, LAST), st.integers(0, PLACES - 1))
def test_what_was_committed_to_is_accepted(verifier: str, block: int, place: int) -> None:
    commitment = body()
    dealt = private_inputs.deal(commitment, FIRST_HASH)
    one = private_input(commitment, verifier, block, place)
    private_inputs.check_input(one, commitment, verifier=Hotkey(verifier), dealt=dealt)
    private_inputs.check_input(one, commitment, verifier=Hotkey(verifier))


def test_a_leaf_that_another_place_was_dealt_is_named() -> None:
    commitment = body()
    one = private_input(commitment, VERIFIERS[0], FIRST, 0)
    moved = private_inputs.give(one.body.model_copy(update={"place": 1}), one.proof, ORACLE)
    verifier, dealt = Hotkey(VERIFIERS[0]), private_inputs.deal(commitment, FIRST_HASH)
    private_inputs.check_input(moved, commitment, verifier=verifier)
    with pytest.raises(PrivateInputMismatch, match="private input's leaf"):
        private_inputs.check_input(moved, commitment, verifier=verifier, dealt=dealt)


@pytest.mark.parametrize("field", ["text", "source", "salt"])
def test_what_the_oracle_signed_but_never_committed_to_is_named(field: str) -> None:
    commitment = body()
    one = private_input(commitment, VERIFIERS[0], FIRST, 0)
    changed = private_inputs.give(one.body.model_copy(update={field: "00" * 32}), one.proof, ORACLE)
    with pytest.raises(PrivateInputMismatch, match="private input's root") as error:
        private_inputs.check_input(changed, commitment, verifier=Hotkey(VERIFIERS[0]))
    assert error.value.expected == commitment.root


def test_a_private_input_is_its_oracles_own() -> None:
    commitment = body()
    one = private_input(commitment, VERIFIERS[0], FIRST, 0)
    forged = private_inputs.give(one.body, one.proof, Keypair.create_from_uri("//Mallory"))
    with pytest.raises(InvalidSignature):
        private_inputs.check_input(forged, commitment, verifier=Hotkey(VERIFIERS[0]))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("genesis", "33" * 32),
        ("netuid", 5),
        ("oracle", VERIFIERS[0]),
        ("verifier", VERIFIERS[1]),
        ("commitment", "44" * 32),
        ("leaf", COUNT),
    ],
)
def test_a_private_input_of_something_else_is_named(field: str, value: object) -> None:
    """Whose signature it is isn't asked before: what is another's is another's, whoever signed it."""
    commitment = body()
    one = private_input(commitment, VERIFIERS[0], FIRST, 0)
    other = private_inputs.give(one.body.model_copy(update={field: value}), one.proof, ORACLE)
    with pytest.raises(PrivateInputMismatch) as error:
        private_inputs.check_input(other, commitment, verifier=Hotkey(VERIFIERS[0]))
    assert (error.value.field, error.value.got) == (field, value)


@pytest.mark.parametrize(
    ("field", "verifier", "block", "place"),
    [
        ("block", VERIFIERS[0], FIRST - 1, 0),
        ("block", VERIFIERS[0], LAST + 1, 0),
        ("place", VERIFIERS[0], FIRST, -1),
        ("place", VERIFIERS[0], FIRST, PLACES),
        ("verifier", ORACLE.ss58_address, FIRST, 0),
    ],
)
def test_a_place_that_the_period_does_not_have_is_named(
    field: str, verifier: str, block: int, place: int
) -> None:
    with pytest.raises(PrivateInputMismatch) as error:
        private_inputs.rank_of(body(), Hotkey(verifier), Block(block), place)
    assert error.value.field == field


@pytest.mark.parametrize("change", [lambda proof: proof[:-1], lambda proof: (*proof, "00" * 32)])
def test_a_path_of_another_length_than_the_trees_is_named(change: Any) -> None:
    commitment = body()
    one = private_input(commitment, VERIFIERS[0], FIRST, 0)
    other = one.model_copy(update={"proof": change(one.proof)})
    with pytest.raises(PrivateInputMismatch, match="proof"):
        private_inputs.check_input(other, commitment, verifier=Hotkey(VERIFIERS[0]))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"last": FIRST - 1}, "last: got 99, expected 100 or more"),
        ({"verifiers": (VERIFIERS[1], VERIFIERS[0])}, "ascending order"),
        ({"verifiers": (VERIFIERS[0], VERIFIERS[0])}, "each hotkey once"),
        ({"last": FIRST + private_inputs.MAX_LEAVES // 12}, "leaves: got"),
    ],
)
def test_a_commitment_that_can_be_no_period_is_none(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        body(**changes)


def test_a_commitment_is_its_oracles_own() -> None:
    forged = private_inputs.commit(body(), Keypair.create_from_uri("//Mallory"))
    with pytest.raises(InvalidSignature):
        private_inputs.check_commitment(forged)


def test_the_first_commitment_names_none_before_it() -> None:
    with pytest.raises(PrivateInputMismatch, match="previous"):
        private_inputs.check_commitment(private_inputs.commit(body(previous="44" * 32), ORACLE))


def test_what_is_signed_says_what_it_is_for() -> None:
    commitment = body()
    one = private_input(commitment, VERIFIERS[0], FIRST, 0).body
    assert (
        private_inputs.signed_commitment(commitment)
        == b"targon/oracle-commitment/1\x00" + commitment.to_bytes()
    )
    assert private_inputs.signed_input(one) == b"targon/private-input/1\x00" + one.to_bytes()


def test_commitments_in_a_row_are_accepted() -> None:
    first = body()
    private_inputs.check_commitment(private_inputs.commit(first, ORACLE))
    private_inputs.check_commitment(private_inputs.commit(following(first), ORACLE), first)
    later = following(first, first=LAST + 50, last=LAST + 60)
    private_inputs.check_commitment(private_inputs.commit(later, ORACLE), first)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("genesis", "33" * 32),
        ("netuid", 5),
        ("oracle", VERIFIERS[0]),
        ("number", 2),
        ("previous", "44" * 32),
        ("first", LAST),
    ],
)
def test_one_that_does_not_follow_is_named(field: str, value: object) -> None:
    first = body()
    with pytest.raises(PrivateInputMismatch, match=f"commitment's {field}"):
        private_inputs.check_commitment(
            private_inputs.commit(following(first, **{field: value}), ORACLE), first
        )


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (body(), False),
        (body(root="00" * 32), True),
        (following(body()), False),
        (following(body(), first=LAST, last=LAST + 1), True),
        (following(body(), number=0), True),
        (body(root="00" * 32, oracle=VERIFIERS[0]), False),
        (body(root="00" * 32, netuid=5), False),
        (body(root="00" * 32, genesis="33" * 32), False),
    ],
)
def test_two_commitments_contradict_each_other_where_one_block_or_number_has_both(
    other: CommitmentBody, said: bool
) -> None:
    assert private_inputs.contradict(body(), other) is said
    assert private_inputs.contradict(other, body()) is said
