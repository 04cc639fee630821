"""The embedded chain's state transitions, each on a connection that is in a transaction of its own.

A transition first settles the epochs that are due (:func:`settle`), so that every epoch sees exactly what
was written in the blocks before it, whoever computes it and however late.
"""

from __future__ import annotations

import sqlite3
from dataclasses import replace

import numpy as np

from targon.chain import commits, rules, yuma
from targon.chain.calls import CommitWeights, PutAnchor, RevealWeights, ServeAxon, SetWeights, SignedCall
from targon.chain.errors import (
    CommitRevealRefused,
    CommitRevealRequired,
    InsufficientStake,
    NotRegistered,
    NoValidatorPermit,
    RateLimited,
    StaleNonce,
)
from targon.chain.port import Axon, Metagraph, Neuron
from targon.chain.store import ChainSettings
from targon.protocol.primitives import Block, Digest, Hotkey, Uid

RAO_PER_TAO = 1_000_000_000

EMISSION_DECIMALS = 9
"""To a rao of each TAO paid out: neurons that earned alike must compare equal when one is to be replaced."""


def head(connection: sqlite3.Connection) -> tuple[Block, int]:
    """The greatest block in which anything was written, and the last epoch that was computed."""
    block, epoch = connection.execute("SELECT block, epoch FROM head").fetchone()
    return Block(block), epoch


def settle(connection: sqlite3.Connection, settings: ChainSettings, block: Block) -> None:
    """Compute every epoch up to a block that nobody has computed yet, in order, and move the head there.

    Epoch e begins block ``e · tempo``: it sees what was written before that block. Where an epoch has left
    the bonds as they were, the next ones come to the same result until somebody's stake falls inactive, and
    are not computed again.
    """
    last_block, done = head(connection)
    due = block // settings.tempo
    if due > done:
        _run_epochs(connection, settings, done, due)
    if due > done or block > last_block:
        connection.execute("UPDATE head SET block = max(block, ?), epoch = max(epoch, ?)", (block, due))


def register(connection: sqlite3.Connection, settings: ChainSettings, block: Block, hotkey: Hotkey) -> Uid:
    """Give a hotkey a UID: the one it has, else the next free one, else that of the neuron last in line."""
    held = uid_of(connection, hotkey)
    if held is not None:
        return held
    neurons = _count(connection)
    if neurons < settings.max_uids:
        uid = Uid(neurons)
    else:
        uid = rules.neuron_to_replace(
            (
                rules.Candidate(*row)
                for row in connection.execute("SELECT uid, emission, registered_at FROM neuron")
            ),
            block,
            settings.immunity_blocks,
        )
        _clear(connection, uid)
    connection.execute(
        "INSERT INTO neuron (uid, hotkey, registered_at) VALUES (?, ?, ?)", (uid, hotkey, block)
    )
    _update_permits(connection, settings)
    return uid


def uid_of(connection: sqlite3.Connection, hotkey: Hotkey) -> Uid | None:
    """The UID that a hotkey holds."""
    row = connection.execute("SELECT uid FROM neuron WHERE hotkey = ?", (hotkey,)).fetchone()
    return Uid(row[0]) if row else None


def add_stake(connection: sqlite3.Connection, settings: ChainSettings, hotkey: Hotkey, rao: int) -> int:
    """Add stake to a hotkey, registered or not; returns the new total, in rao."""
    (total,) = connection.execute(
        "INSERT INTO account (hotkey, stake_rao) VALUES (?, ?) "
        "ON CONFLICT (hotkey) DO UPDATE SET stake_rao = stake_rao + excluded.stake_rao RETURNING stake_rao",
        (hotkey, rao),
    ).fetchone()
    _update_permits(connection, settings)
    return int(total)


def nonce_of(connection: sqlite3.Connection, hotkey: Hotkey) -> int:
    """How many calls of a hotkey were taken."""
    row = connection.execute("SELECT nonce FROM account WHERE hotkey = ?", (hotkey,)).fetchone()
    return int(row[0]) if row else 0


def apply(
    connection: sqlite3.Connection,
    settings: ChainSettings,
    block: Block,
    signed: SignedCall,
    how_to_register: str,
) -> None:
    """Apply a call whose signature was checked.

    Raises:
        StaleNonce, NotRegistered, and what the action itself is refused for.
    """
    call = signed.call
    uid = uid_of(connection, call.hotkey)
    if uid is None:
        raise NotRegistered(call.hotkey, settings.netuid, how_to_register)
    nonce, expected = int(call.nonce, 16), nonce_of(connection, call.hotkey)
    if nonce != expected:
        raise StaleNonce(nonce, expected)
    connection.execute(
        "INSERT INTO account (hotkey, nonce) VALUES (?, 1) "
        "ON CONFLICT (hotkey) DO UPDATE SET nonce = nonce + 1",
        (call.hotkey,),
    )
    match call.action:
        case SetWeights():
            _set_weights(connection, settings, block, uid, call.action)
        case CommitWeights(committed=digest):
            _commit_weights(connection, settings, block, uid, Digest(digest))
        case RevealWeights():
            _reveal_weights(connection, settings, block, uid, call.hotkey, call.action)
        case PutAnchor(anchored=digest):
            commits.put_anchor(connection, block, call.hotkey, Digest(digest))
        case ServeAxon(host=host, port=port):
            rules.check_axon(host, port)
            connection.execute(
                "UPDATE neuron SET axon_host = ?, axon_port = ? WHERE uid = ?", (host, port, uid)
            )


def metagraph(connection: sqlite3.Connection, settings: ChainSettings, block: Block) -> Metagraph:
    """Every neuron, in UID order."""
    rows = connection.execute(
        "SELECT uid, hotkey, coalesce(stake_rao, 0), permit, axon_host, axon_port, registered_at, "
        "last_update, incentive, dividends FROM neuron LEFT JOIN account USING (hotkey) ORDER BY uid"
    )
    return Metagraph(settings.netuid, block, tuple(_neuron(row) for row in rows))


def weights_of(connection: sqlite3.Connection, uid: Uid) -> dict[Uid, int]:
    """The weights that a neuron has set, in UID order."""
    rows = connection.execute("SELECT target, value FROM weight WHERE uid = ? ORDER BY target", (uid,))
    return {Uid(target): value for target, value in rows}


def _neuron(row: tuple[int, str, int, int, str | None, int | None, int, int | None, float, float]) -> Neuron:
    uid, hotkey, rao, permit, host, port, registered_at, last_update, incentive, dividends = row
    return Neuron(
        uid=Uid(uid),
        hotkey=Hotkey(hotkey),
        stake=rao / RAO_PER_TAO,
        validator_permit=bool(permit),
        axon=None if host is None or port is None else Axon(host, port),
        registered_at=Block(registered_at),
        last_update=None if last_update is None else Block(last_update),
        incentive=incentive,
        dividends=dividends,
    )


def _set_weights(
    connection: sqlite3.Connection, settings: ChainSettings, block: Block, uid: Uid, action: SetWeights
) -> None:
    if wait := commits.reveal_epochs(connection):
        raise CommitRevealRequired(
            f"weights: got them outright, expected a commit to them, and their reveal {wait} epoch(s) later: "
            "this subnet uses commit-reveal"
        )
    weights = _acceptable(connection, settings, uid, action)
    _check_pace(connection, settings, block, uid)
    _put_weights(connection, uid, weights)
    connection.execute("UPDATE neuron SET last_update = ? WHERE uid = ?", (block, uid))


def _commit_weights(
    connection: sqlite3.Connection, settings: ChainSettings, block: Block, uid: Uid, digest: Digest
) -> None:
    _check_commit_reveal(connection, "commit")
    _check_pace(connection, settings, block, uid)
    commits.commit(connection, settings, block, uid, digest)


def _reveal_weights(
    connection: sqlite3.Connection,
    settings: ChainSettings,
    block: Block,
    uid: Uid,
    hotkey: Hotkey,
    action: RevealWeights,
) -> None:
    _check_commit_reveal(connection, "reveal")
    revealed = rules.without_duplicates(action.weights)
    digest = commits.digest_of(hotkey, revealed, int(action.version_key, 16), bytes.fromhex(action.salt))
    commits.take_revealed(connection, settings, block, uid, digest)
    _put_weights(connection, uid, _acceptable(connection, settings, uid, action))


def _check_commit_reveal(connection: sqlite3.Connection, what: str) -> None:
    if not commits.reveal_epochs(connection):
        raise CommitRevealRefused(
            f"weights {what}: got one, expected weights set outright: this subnet doesn't use commit-reveal"
        )


def _acceptable(
    connection: sqlite3.Connection, settings: ChainSettings, uid: Uid, action: SetWeights | RevealWeights
) -> dict[Uid, int]:
    """The weights of an action, if this neuron may set them.

    Raises:
        WeightsRefused, InsufficientStake, NoValidatorPermit.
    """
    version_key = int(action.version_key, 16)
    weights = rules.well_formed(rules.without_duplicates(action.weights), version_key)
    neurons = _count(connection)
    rules.check_length(weights, neurons)
    permit, rao = connection.execute(
        "SELECT permit, coalesce(stake_rao, 0) FROM neuron LEFT JOIN account USING (hotkey) WHERE uid = ?",
        (uid,),
    ).fetchone()
    if rao < settings.weights_min_stake * RAO_PER_TAO:
        raise InsufficientStake(
            f"weights: got them from UID {uid} with {rao / RAO_PER_TAO:g} TAO of stake, expected "
            f"{settings.weights_min_stake} or more; add some: targon chain register … --stake TAO"
        )
    rules.check_version_key(version_key, settings.weights_version_key)
    if not permit:
        raise NoValidatorPermit(
            f"weights: got them from UID {uid}, which has no validator permit at {rao / RAO_PER_TAO:g} TAO "
            f"of stake, expected one of the {settings.max_validators} neurons with most stake; "
            "add some: targon chain register … --stake TAO"
        )
    rules.check_targets(weights, neurons)
    return weights


def _check_pace(connection: sqlite3.Connection, settings: ChainSettings, block: Block, uid: Uid) -> None:
    (last,) = connection.execute("SELECT last_update FROM neuron WHERE uid = ?", (uid,)).fetchone()
    if last is not None and block - last < settings.weights_rate_limit:
        allowed_at = Block(last + settings.weights_rate_limit)
        raise RateLimited(
            allowed_at,
            f"weights: got a setting in block {block} after one in block {last}, expected "
            f"{settings.weights_rate_limit} blocks between them; try again from block {allowed_at} on",
        )


def _put_weights(connection: sqlite3.Connection, uid: Uid, weights: dict[Uid, int]) -> None:
    connection.execute("DELETE FROM weight WHERE uid = ?", (uid,))
    connection.executemany(
        "INSERT INTO weight VALUES (?, ?, ?)",
        [(uid, target, value) for target, value in rules.max_upscaled(weights).items()],
    )


def _count(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM neuron").fetchone()[0])


def _clear(connection: sqlite3.Connection, uid: Uid) -> None:
    """Forget everything at a UID, also what others say of it. Stake stays with its hotkey."""
    connection.execute("DELETE FROM neuron WHERE uid = ?", (uid,))
    connection.execute("DELETE FROM weight WHERE uid = ?1 OR target = ?1", (uid,))
    connection.execute("DELETE FROM bond WHERE uid = ?1 OR target = ?1", (uid,))
    connection.execute('DELETE FROM "commit" WHERE uid = ?', (uid,))


def _stakes(connection: sqlite3.Connection) -> yuma.Floats:
    rows = connection.execute(
        "SELECT coalesce(stake_rao, 0) FROM neuron LEFT JOIN account USING (hotkey) ORDER BY uid"
    ).fetchall()
    return np.array([rao for (rao,) in rows], dtype=np.float64)


def _update_permits(connection: sqlite3.Connection, settings: ChainSettings) -> None:
    """Permits follow stake at once, not only at the next epoch."""
    permits = yuma.validator_permits(_stakes(connection), settings.max_validators)
    connection.executemany(
        "UPDATE neuron SET permit = ?1 WHERE uid = ?2 AND permit != ?1",
        [(int(permit), uid) for uid, permit in enumerate(permits)],
    )


def _run_epochs(connection: sqlite3.Connection, settings: ChainSettings, done: int, due: int) -> None:
    subnet = _subnet(connection)
    if not len(subnet.stake):
        return
    number = done
    while number < due:
        number += 1
        block, previous = number * settings.tempo, (number - 1) * settings.tempo
        result = yuma.epoch(
            subnet,
            block=block,
            last_epoch_block=previous,
            max_validators=settings.max_validators,
            activity_cutoff=settings.activity_cutoff,
        )
        if _at_rest(subnet, result, previous):
            still_active = subnet.last_update + settings.activity_cutoff
            falls_inactive = still_active[still_active >= block].min(initial=due * settings.tempo)
            number = min(due, max(number, int(falls_inactive) // settings.tempo))
        subnet = replace(subnet, permits=result.permits, bonds=result.bonds)
    _store(connection, result)


def _at_rest(before: yuma.Subnet, after: yuma.Epoch, previous: int) -> bool:
    """Whether the next epoch must come to the same, unless stake falls inactive before it."""
    return (
        np.array_equal(before.bonds, after.bonds)
        and np.array_equal(before.permits, after.permits)
        and not (before.registered_at >= previous).any()
    )


def _subnet(connection: sqlite3.Connection) -> yuma.Subnet:
    rows = connection.execute(
        "SELECT permit, registered_at, coalesce(last_update, registered_at) FROM neuron ORDER BY uid"
    ).fetchall()
    columns = np.array(rows, dtype=np.int64).reshape(-1, 3)
    return yuma.Subnet(
        stake=_stakes(connection),
        permits=columns[:, 0].astype(np.bool_),
        registered_at=columns[:, 1],
        last_update=columns[:, 2],
        weights=_matrix(connection, "SELECT uid, target, value FROM weight", len(rows)),
        bonds=_matrix(connection, "SELECT uid, target, value FROM bond", len(rows)),
    )


def _matrix(connection: sqlite3.Connection, query: str, neurons: int) -> yuma.Floats:
    cells = np.array(connection.execute(query).fetchall(), dtype=np.int64).reshape(-1, 3)
    matrix = np.zeros((neurons, neurons))
    matrix[cells[:, 0], cells[:, 1]] = cells[:, 2]
    return matrix


def _store(connection: sqlite3.Connection, result: yuma.Epoch) -> None:
    connection.executemany(
        "UPDATE neuron SET permit = ?, incentive = ?, dividends = ?, emission = ? WHERE uid = ?",
        [
            (int(permit), float(incentive), float(dividends), round(float(emission), EMISSION_DECIMALS), uid)
            for uid, (permit, incentive, dividends, emission) in enumerate(
                zip(result.permits, result.incentive, result.dividends, result.emission, strict=True)
            )
        ],
    )
    who, about = np.nonzero(result.bonds)
    connection.execute("DELETE FROM bond")
    connection.executemany(
        "INSERT INTO bond VALUES (?, ?, ?)",
        zip(who.tolist(), about.tolist(), result.bonds[who, about].astype(np.int64).tolist(), strict=True),
    )
