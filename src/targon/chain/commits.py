"""The embedded chain's commit-reveal and its anchors: state transitions within a transaction, as in `state`.

Weights that are committed to in epoch e are taken when they are revealed in epoch e + ``reveal_epochs``, and in
no other. Source: opentensor/subtensor, ``pallets/subtensor/src/subnets/weights.rs``
(``internal_commit_weights``, ``internal_reveal_weights``), read at commit 14bc6f9f.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Mapping

from targon.chain.calls import RevealWeights, reveal_content
from targon.chain.errors import CommitRevealRefused, RateLimited
from targon.chain.port import Anchor, WeightsCommit
from targon.chain.store import ChainSettings
from targon.protocol.primitives import Block, Digest, Hotkey, Uid, u64_hex

MAX_UNREVEALED = 10
"""Most commits of one neuron that wait for their reveal."""

SALT_BYTES = 32


def digest_of(hotkey: Hotkey, weights: Mapping[Uid, int], version_key: int, salt: bytes) -> Digest:
    """SHA-256 of what a reveal says, in the hotkey's name.

    Raises:
        ValueError: if the salt is not 32 bytes.
    """
    if len(salt) != SALT_BYTES:
        raise ValueError(f"salt: got {len(salt)} bytes, expected {SALT_BYTES}")
    pairs = tuple((uid, weights[uid]) for uid in sorted(weights) if weights[uid] > 0)
    reveal = RevealWeights(weights=pairs, version_key=u64_hex(version_key), salt=salt.hex())
    return Digest(hashlib.sha256(reveal_content(hotkey, reveal)).hexdigest())


def reveal_epochs(connection: sqlite3.Connection) -> int:
    """How many epochs lie between a commit and its reveal; 0: weights are set outright."""
    return int(connection.execute("SELECT reveal_epochs FROM head").fetchone()[0])


def pending(
    connection: sqlite3.Connection, settings: ChainSettings, uid: Uid, block: Block
) -> tuple[WeightsCommit, ...]:
    """A neuron's commits that may still be revealed, oldest first."""
    wait = reveal_epochs(connection)
    rows = connection.execute('SELECT digest, block FROM "commit" WHERE uid = ? ORDER BY place', (uid,))
    found = []
    for digest, made in rows:
        epoch = made // settings.tempo + wait
        commit = WeightsCommit(
            Digest(digest), Block(made), Block(epoch * settings.tempo), Block((epoch + 1) * settings.tempo)
        )
        if wait and block < commit.reveal_until:
            found.append(commit)
    return tuple(found)


def commit(
    connection: sqlite3.Connection, settings: ChainSettings, block: Block, uid: Uid, digest: Digest
) -> None:
    """Keep a commit.

    Raises:
        CommitRevealRefused: if too many wait for their reveal.
    """
    waiting = pending(connection, settings, uid, block)
    if len(waiting) >= MAX_UNREVEALED:
        raise CommitRevealRefused(
            f"weights commit: got another one while {len(waiting)} are unrevealed, expected at most "
            f"{MAX_UNREVEALED}; the oldest expires in block {waiting[0].reveal_until}"
        )
    oldest = min((each.block for each in waiting), default=block)
    connection.execute('DELETE FROM "commit" WHERE uid = ? AND block < ?', (uid, oldest))
    connection.execute('INSERT INTO "commit" (uid, digest, block) VALUES (?, ?, ?)', (uid, digest, block))
    connection.execute("UPDATE neuron SET last_update = ? WHERE uid = ?", (block, uid))


def take_revealed(
    connection: sqlite3.Connection, settings: ChainSettings, block: Block, uid: Uid, digest: Digest
) -> None:
    """Take a commit off, and those before it, because it is being revealed.

    Raises:
        RateLimited: if it is too early.
        CommitRevealRefused: if there is no such commit, or it has expired.
    """
    waiting = pending(connection, settings, uid, block)
    found = next((each for each in waiting if each.digest == digest), None)
    if found is None:
        expired = connection.execute(
            'SELECT block FROM "commit" WHERE uid = ? AND digest = ?', (uid, digest)
        ).fetchone()
        if expired is not None:
            raise CommitRevealRefused(
                f"weights reveal: got weights that were committed to in block {expired[0]}, expected them "
                f"{reveal_epochs(connection)} epoch(s) later: the commit has expired; commit to weights anew"
            )
        raise CommitRevealRefused(
            f"weights reveal: got weights that match none of the {len(waiting)} commits, expected exactly what "
            "was committed to: weights, version key and salt"
        )
    if block < found.reveal_from:
        raise RateLimited(
            found.reveal_from,
            f"weights reveal: got it in block {block}, expected block {found.reveal_from} to "
            f"{found.reveal_until - 1}; try again then",
        )
    connection.execute(
        'DELETE FROM "commit" WHERE uid = ?1 AND place <= '
        '(SELECT max(place) FROM "commit" WHERE uid = ?1 AND digest = ?2)',
        (uid, digest),
    )


def put_anchor(connection: sqlite3.Connection, block: Block, hotkey: Hotkey, digest: Digest) -> None:
    """Put a digest on chain in a hotkey's name, in place of the one before."""
    connection.execute(
        "INSERT INTO anchor VALUES (?, ?, ?) "
        "ON CONFLICT (hotkey) DO UPDATE SET digest = excluded.digest, block = excluded.block",
        (hotkey, digest, block),
    )


def anchor_of(connection: sqlite3.Connection, hotkey: Hotkey) -> Anchor | None:
    """What a hotkey put on chain last."""
    row = connection.execute("SELECT digest, block FROM anchor WHERE hotkey = ?", (hotkey,)).fetchone()
    return None if row is None else Anchor(Digest(row[0]), Block(row[1]))
