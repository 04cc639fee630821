"""The small types that everything else is made of. Their names say the unit or the space."""

from __future__ import annotations

import re
from typing import Annotated, Final, NewType

from pydantic import AfterValidator, Field

SPEC_VERSION: Final = 1
"""Version of the rules in this room. Any change to what a node computes changes it."""

Block = NewType("Block", int)
"""A block number of the chain; 12 seconds on the main network."""

Interval = NewType("Interval", int)
"""An interval number: block // interval length."""

Uid = NewType("Uid", int)
"""A neuron's slot on its subnet, 0 ≤ uid < 65536."""

Hotkey = NewType("Hotkey", str)
"""A neuron's identity: its public key as an ss58 address."""

TokenId = NewType("TokenId", int)
"""An index into a model's vocabulary."""

Digest = NewType("Digest", str)
"""A SHA-256 as 64 lower-case hex digits."""

AttemptNumber = NewType("AttemptNumber", int)
"""An attempt's place in the verifier's log: the sequence number of its ``attempt`` event."""


def _hex_of(length: int) -> AfterValidator:
    matched = re.compile(f"[0-9a-f]{{{length}}}").fullmatch

    def check(value: str) -> str:
        if matched(value) is None:
            raise ValueError(f"got {value[:80]!r}, expected {length} lower-case hex digits")
        return value

    return AfterValidator(check)


Hex8 = Annotated[str, _hex_of(16)]
"""Eight bytes: a 64-bit integer on the wire (seeds, attempt numbers, balances)."""

Hex32 = Annotated[str, _hex_of(64)]
"""Thirty-two bytes: digests, salts, public keys, block hashes."""

Hex64 = Annotated[str, _hex_of(128)]
"""Sixty-four bytes: signatures."""

HotkeyField = Annotated[Hotkey, Field(min_length=40, max_length=64, pattern=r"^[1-9A-HJ-NP-Za-km-z]+$")]


def u64_hex(value: int) -> str:
    """A 64-bit unsigned integer as it stands on the wire: 16 lower-case hex digits.

    Raises:
        ValueError: if the value does not fit.
    """
    if not 0 <= value < 1 << 64:
        raise ValueError(f"got {value}, expected an integer in [0, 2**64)")
    return f"{value:016x}"
