"""The chain's own rules, as the Bittensor adapter knows them: hashes of commits, epochs, names of refusals."""

from __future__ import annotations

import hashlib
import struct

import pytest
from bittensor.keyfiles import Keypair

from targon.chain import (
    AxonRefused,
    ChainError,
    CommitRevealRefused,
    CommitRevealRequired,
    InsufficientStake,
    NotRegistered,
    NoValidatorPermit,
    RateLimited,
    WeightsRefused,
    WrongNetwork,
)
from targon.chain.bittensor.commit_hash import commit_hash, salt_words
from targon.chain.bittensor.epochs import EpochsByNumber, EpochsCounted
from targon.chain.bittensor.refusals import KNOWN, Caller, error_of
from targon.chain.bittensor.state import commits_of, is_public, read_anchor
from targon.protocol.primitives import Block, Hotkey, Uid

ALICE = Keypair.create_from_uri("//Alice")
CALLER = Caller(Hotkey(ALICE.ss58_address), 4, "btcli subnets register", Block(77))


def test_a_commits_hash_is_blake2_of_its_scale_encoding() -> None:
    salt = bytes(range(32))
    encoded = bytes(ALICE.public_key) + struct.pack("<H", 4)
    encoded += bytes([2 << 2]) + struct.pack("<2H", 1, 258)  # UIDs, after their number
    encoded += bytes([2 << 2]) + struct.pack("<2H", 65_535, 7)
    encoded += bytes([16 << 2]) + struct.pack("<16H", *struct.unpack(">16H", salt))
    encoded += struct.pack("<Q", 1 << 40)
    expected = hashlib.blake2b(encoded, digest_size=32).hexdigest()
    assert commit_hash(CALLER.hotkey, 4, {Uid(258): 7, Uid(1): 65_535, Uid(3): 0}, 1 << 40, salt) == expected


@pytest.mark.parametrize(
    ("entries", "prefix"), [(63, b"\xfc"), (64, b"\x01\x01"), (16_384, b"\x02\x00\x01\x00")]
)
def test_a_commits_lists_are_counted_in_as_many_bytes_as_it_takes(entries: int, prefix: bytes) -> None:
    uids = b"".join(struct.pack("<H", uid) for uid in range(entries))
    encoded = bytes(ALICE.public_key) + struct.pack("<H", 4) + prefix + uids
    encoded += prefix + b"\x01\x00" * entries
    encoded += bytes([16 << 2]) + bytes(32) + bytes(8)
    expected = hashlib.blake2b(encoded, digest_size=32).hexdigest()
    assert commit_hash(CALLER.hotkey, 4, dict.fromkeys(range(entries), 1), 0, bytes(32)) == expected


def test_a_salt_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="got 31 bytes, expected 32"):
        salt_words(bytes(31))


def test_the_older_rule_reads_epochs_off_the_block() -> None:
    epochs = EpochsByNumber(netuid=4, tempo=9, block=Block(23))
    assert (epochs.spacing, epochs.current()) == (10, 2)
    assert [epochs.of_commit(block) for block in (4, 5, 14, 15)] == [0, 1, 1, 2]
    assert (epochs.start(1), epochs.start(2)) == (5, 15)


def test_the_newer_rule_counts_epochs_from_the_last_one() -> None:
    epochs = EpochsCounted(index=7, last=Block(100), pending=Block(0), tempo=10)
    assert [epochs.start(epoch) for epoch in (6, 7, 8, 9)] == [90, 100, 110, 120]
    assert (epochs.spacing, epochs.current()) == (10, 7)


def test_an_epoch_that_the_owner_asked_for_comes_earlier() -> None:
    epochs = EpochsCounted(index=7, last=Block(100), pending=Block(104), tempo=10)
    assert [epochs.start(epoch) for epoch in (7, 8, 9)] == [100, 104, 114]


def test_commits_are_told_as_either_runtime_keeps_them() -> None:
    digest = "ab" * 32
    (older,) = commits_of([(f"0x{digest}", 17, 0, 0)], EpochsByNumber(4, 9, Block(18)), wait=1)
    assert (older.digest, older.block, older.reveal_from, older.reveal_until) == (digest, 17, 25, 35)
    counted = EpochsCounted(7, Block(100), Block(0), 10)
    (newer,) = commits_of([(f"0x{digest}", 7, 103, 0)], counted, wait=2)
    assert (newer.digest, newer.block, newer.reveal_from, newer.reveal_until) == (digest, 103, 120, 130)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("HotKeyNotRegisteredInSubNet", NotRegistered),
        ("HotKeyNotRegisteredInNetwork", NotRegistered),
        ("AccountNotAllowedCommit", NotRegistered),
        ("NeuronNoValidatorPermit", NoValidatorPermit),
        ("NotEnoughStakeToSetWeights", InsufficientStake),
        ("StakeAmountTooLow", InsufficientStake),
        ("IncorrectWeightVersionKey", WeightsRefused),
        ("UidVecContainInvalidOne", WeightsRefused),
        ("DuplicateUids", WeightsRefused),
        ("WeightVecLengthIsLow", WeightsRefused),
        ("WeightVecNotEqualSize", WeightsRefused),
        ("UidsLengthExceedUidsInSubNet", WeightsRefused),
        ("MaxWeightExceeded", WeightsRefused),
        ("CommitRevealEnabled", CommitRevealRequired),
        ("CommitRevealDisabled", CommitRevealRefused),
        ("NoWeightsCommitFound", CommitRevealRefused),
        ("ExpiredWeightCommit", CommitRevealRefused),
        ("InvalidRevealCommitHashNotMatch", CommitRevealRefused),
        ("TooManyUnrevealedCommits", CommitRevealRefused),
        ("SettingWeightsTooFast", RateLimited),
        ("CommittingWeightsTooFast", RateLimited),
        ("RevealTooEarly", RateLimited),
        ("ServingRateLimitExceeded", RateLimited),
        ("SpaceLimitExceeded", RateLimited),
        ("RateLimitExceeded", RateLimited),
        ("InvalidIpAddress", AxonRefused),
        ("InvalidIpType", AxonRefused),
        ("InvalidPort", AxonRefused),
        ("SubnetNotExists", WrongNetwork),
    ],
)
def test_a_refusal_by_the_chain_becomes_our_error(name: str, kind: type[ChainError]) -> None:
    assert name in KNOWN
    assert type(error_of(name, "what the chain says", CALLER)) is kind


def test_a_refusal_says_how_to_register_and_when_to_try_again() -> None:
    assert "register it with: btcli subnets register" in str(error_of("AccountNotAllowedCommit", "", CALLER))
    limited = error_of("SettingWeightsTooFast", "", CALLER)
    assert isinstance(limited, RateLimited)
    assert limited.allowed_at == 77
    assert "from block 77 on" in str(limited)


def test_every_known_refusal_says_what_was_got_and_names_the_chains_own_word() -> None:
    for name in KNOWN:
        error = error_of(name, "", CALLER)
        if not isinstance(error, NotRegistered):
            assert f"({name})" in str(error)
            assert "got" in str(error) or "cannot" in str(error)


@pytest.mark.parametrize("name", ["SomethingNew", None])
def test_an_unknown_refusal_is_told_in_the_chains_words(name: str | None) -> None:
    error = error_of(name, "the runtime's own sentence", CALLER)
    assert type(error) is ChainError
    assert "the runtime's own sentence" in str(error)


@pytest.mark.anyio
async def test_a_commitment_of_something_else_is_no_anchor() -> None:
    class Node:
        async def query(self, *_: object, **__: object) -> object:
            return {"block": 5, "info": {"fields": [({"Raw5": "0x6869"},), ("ResetBondsFlag",)]}}

    assert await read_anchor(Node(), 4, CALLER.hotkey) is None


@pytest.mark.parametrize(
    ("host", "public"),
    [
        ("203.0.114.7", True),
        ("2606:4700::1111", True),
        ("127.0.0.2", False),
        ("::1", False),
        ("::ffff:127.0.0.1", False),
        ("10.1.2.3", False),
        ("169.254.169.254", False),
        ("192.168.1.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("fe80::1", False),
    ],
)
def test_only_what_lies_on_the_internet_can_be_called_there(host: str, public: bool) -> None:
    assert is_public(host) is public
