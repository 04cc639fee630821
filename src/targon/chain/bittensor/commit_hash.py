"""What stands on chain for weights that were committed to.

``BlakeTwo256(SCALE(hotkey, netuid, uids, values, salt, version key))``, as ``get_commit_hash`` in opentensor/subtensor,
``pallets/subtensor/src/subnets/weights.rs``. The storage index of a subnet's first mechanism is its netuid. A salt
of 32 bytes is 16 big-endian u16 there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from targon.protocol.keys import public_key
from targon.protocol.primitives import Digest, Hotkey, Uid

SALT_BYTES = 32


def salt_words(salt: bytes) -> list[int]:
    """A salt as the chain takes it.

    Raises:
        ValueError: if it is not 32 bytes.
    """
    if len(salt) != SALT_BYTES:
        raise ValueError(f"salt: got {len(salt)} bytes, expected {SALT_BYTES}")
    return [int.from_bytes(salt[place : place + 2], "big") for place in range(0, SALT_BYTES, 2)]


def commit_hash(
    hotkey: Hotkey, netuid: int, weights: Mapping[Uid, int], version_key: int, salt: bytes
) -> Digest:
    """The hash of weights in UID order, zeros left out."""
    kept = {uid: weights[uid] for uid in sorted(weights) if weights[uid] > 0}
    encoded = (
        public_key(hotkey)
        + netuid.to_bytes(2, "little")
        + _u16s(list(kept))
        + _u16s(list(kept.values()))
        + _u16s(salt_words(salt))
        + version_key.to_bytes(8, "little")
    )
    return Digest(hashlib.blake2b(encoded, digest_size=32).hexdigest())


def _u16s(values: Sequence[int]) -> bytes:
    """SCALE: the length, compact, then each value, little-endian."""
    length = len(values)
    if length < 1 << 6:
        prefix = (length << 2).to_bytes(1, "little")
    elif length < 1 << 14:
        prefix = (length << 2 | 1).to_bytes(2, "little")
    else:
        prefix = (length << 2 | 2).to_bytes(4, "little")
    return prefix + b"".join(value.to_bytes(2, "little") for value in values)
