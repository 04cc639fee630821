"""What the replay of one completion says, as the evidence takes it in."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from targon.protocol.replay import Replay
from targon.protocol.suspicions import possible_codes

Floats: TypeAlias = NDArray[np.float64]
Bools: TypeAlias = NDArray[np.bool_]
Ints: TypeAlias = NDArray[np.int64]
Halves: TypeAlias = NDArray[np.uint16]
Codes: TypeAlias = NDArray[np.uint32]
Masks: TypeAlias = NDArray[np.uint8]

GAP_EDGES: Final = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 4.0)
"""What divides the gaps into strata; a gap that equals an edge lies above it."""

_GRAINS: Final = 65_535.0
"""The mass of a tail is rounded to parts of this, so that it can be written down exactly."""

_COLUMNS: Final = tuple(map(np.dtype, ("<u1", "<u2", "<u4", "<u1")))
_PACKED_BYTES: Final = sum(dtype.itemsize for dtype in _COLUMNS)
_MOST_PACKED: Final = 65_536
"""Positions: more than any completion has."""

GAP_STRATA: Final = len(GAP_EDGES) + 1

TAIL_EDGES: Final = (0.05, 0.1, 0.2, 0.4, 0.7)
"""What divides the tail masses into strata."""

TAIL_STRATA: Final = len(TAIL_EDGES) + 1


@dataclass(frozen=True, slots=True, eq=False)
class Observations:
    """One completion, position by position, in order. All arrays have the shape ``(positions,)``.

    Raises:
        ValueError: if lengths differ, a gap is negative or no number, a tail mass lies outside [0, 1], or a
            rival is claimed where nothing mismatches.
    """

    gaps: Floats
    """By how much the replayed sampler's best token leads its second-best, in logits (so that rounding means the
    same at every temperature), ≥ 0. The claimed token has no part in it."""
    mismatched: Bools
    """Whether the claimed token is another than the replayed sampler's choice."""
    unsure: Bools
    """Where the replay could not say for certain, or the draw hangs on where exactly a cut falls: such a
    position is skipped. The claimed token has no part in that either."""
    tail_mass: Floats
    """Probability of all tokens below ``TAIL_PROBABILITY`` in the distribution that was sampled from; NaN
    where there is none to speak of (T = 0) or it isn't known: no bet on surprisal there."""
    in_tail: Bools
    """Whether the claimed token is one of those."""
    rivals: Codes
    """By how much the replayed choice leads its rival under each suspicion
    (:func:`targon.protocol.suspicions.lead_code`). The claimed token has no part in it."""
    claimed_rivals: Masks
    """Bit n: the claimed token is the rival under suspicion n. Only where there is a mismatch."""

    @classmethod
    def of(cls, replay: Replay, temperature: float) -> Self:
        """What a replay says, for the evidence.

        Args:
            temperature: at which the tokens were asked for.
        """
        broken = np.isnan(replay.gaps)
        mismatched = replay.margins > 0.0
        return cls(
            gaps=np.where(broken, 0.0, replay.gaps) * (temperature or 1.0),
            mismatched=mismatched,
            unsure=replay.unsure | replay.on_cut | broken,
            tail_mass=np.round(replay.tail_mass * _GRAINS) / _GRAINS,
            in_tail=replay.in_tail,
            rivals=replay.rivals,
            claimed_rivals=np.where(mismatched, replay.claimed_rivals, np.uint8(0)),
        )

    def pack(self) -> str:
        """All that the evidence depends on, as text: eight bytes per position, deflated, in base64.

        First a byte for each position: the gap's stratum (4 bits), whether there is a mismatch, whether it is unsure,
        whether the token lies in the tail, and whether there is a tail. Then two for each: the tail's mass in
        parts of 65,535. Then four: the leads of the rivals. Then one: which of those were claimed. Numbers of
        several bytes begin with the lowest.
        """
        known = ~np.isnan(self.tail_mass)
        flags = gap_stratum(self.gaps) | (self.mismatched * 16) | (self.unsure * 32)
        flags = flags | (self.in_tail * 64) | (known * 128)
        mass = np.round(np.where(known, self.tail_mass, 0.0) * _GRAINS)
        columns = (flags, mass, self.rivals, self.claimed_rivals)
        data = b"".join(
            column.astype(dtype).tobytes() for column, dtype in zip(columns, _COLUMNS, strict=True)
        )
        return base64.b64encode(zlib.compress(data, 9)).decode()

    @classmethod
    def unpack(cls, text: str) -> Self:
        """What was packed. Gaps come back as the lower ends of their strata.

        Raises:
            ValueError: if the text is none that :meth:`pack` makes, or of more than ``_MOST_PACKED`` positions.
        """
        return cls._of_columns(*_columns_of(_inflated(text, _MOST_PACKED)))

    @classmethod
    def unpack_all(cls, texts: Sequence[str], most: int) -> tuple[list[int], Self]:
        """What was packed of several completions, one after another, and how many positions each has.

        Raises:
            ValueError: if one of the texts is none that :meth:`pack` makes, or of more than so many positions.
        """
        parts = [_columns_of(_inflated(text, most)) for text in texts]
        whole = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        return [columns[0].size for columns in parts], cls._of_columns(*whole)

    @classmethod
    def _of_columns(cls, flags: Masks, mass: Halves, rivals: Codes, claimed_rivals: Masks) -> Self:
        strata = flags & 15
        if (strata >= GAP_STRATA).any():
            raise ValueError(f"observations: got stratum {strata.max()}, expected one below {GAP_STRATA}")
        if not possible_codes(rivals, claimed_rivals).all():
            raise ValueError("observations: got codes of rivals that no replay makes")
        return cls(
            gaps=np.array([0.0, *GAP_EDGES])[strata],
            mismatched=flags & 16 > 0,
            unsure=flags & 32 > 0,
            tail_mass=np.where(flags & 128 > 0, mass / _GRAINS, np.nan),
            in_tail=flags & 64 > 0,
            rivals=rivals.astype(np.uint32),
            claimed_rivals=claimed_rivals,
        )

    def __post_init__(self) -> None:
        shapes = {field.name: np.shape(getattr(self, field.name)) for field in fields(self)}
        if len(set(shapes.values())) != 1 or self.gaps.ndim != 1:
            raise ValueError(f"got arrays of shapes {shapes}, expected one length for all")
        if not (self.gaps >= 0.0).all():
            raise ValueError("gaps: got a negative one or NaN, expected values >= 0")
        if ((self.tail_mass < 0.0) | (self.tail_mass > 1.0)).any():
            raise ValueError("tail_mass: got one outside [0, 1], expected a probability, or NaN for none")
        if self.claimed_rivals[~self.mismatched].any():
            raise ValueError("claimed_rivals: got one where nothing mismatches, expected none")

    @property
    def positions(self) -> int:
        """How many there are, unsure ones included."""
        return int(self.gaps.size)


def _inflated(text: str, most: int) -> bytes:
    inflater = zlib.decompressobj()
    try:
        data = inflater.decompress(base64.b64decode(text, validate=True), most * _PACKED_BYTES)
    except zlib.error as error:
        raise ValueError(f"observations: got text that can't be inflated: {error}") from error
    if not inflater.eof or inflater.unused_data or len(data) % _PACKED_BYTES:
        raise ValueError(
            f"observations: got {len(data)} bytes and {'more' if not inflater.eof else 'no more'}, expected "
            f"{_PACKED_BYTES} for each of at most {most} positions"
        )
    return data


def _columns_of(data: bytes) -> tuple[Masks, Halves, Codes, Masks]:
    count, offset, columns = len(data) // _PACKED_BYTES, 0, []
    for dtype in _COLUMNS:
        columns.append(np.frombuffer(data, dtype, count, offset))
        offset += columns[-1].nbytes
    return tuple(columns)  # type: ignore[return-value]


def gap_stratum(gaps: Floats) -> Ints:
    """The stratum of each gap, 0 to ``GAP_STRATA`` − 1."""
    return np.searchsorted(_GAP_EDGES, gaps, side="right")


def tail_stratum(masses: Floats) -> Ints:
    """The stratum of each tail mass, 0 to ``TAIL_STRATA`` − 1."""
    return np.searchsorted(_TAIL_EDGES, masses, side="right")


_GAP_EDGES = np.array(GAP_EDGES)
_TAIL_EDGES = np.array(TAIL_EDGES)
