"""What the evidence takes in of a replay, and how it is written down."""

from __future__ import annotations

import base64
import math
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from targon.protocol.replay import MARGIN_CLIP, Replay
from targon.protocol.suspicions import LEAD_EDGES, NO_RIVAL, NO_RIVALS
from targon.verification.bets import bets_of
from targon.verification.evidence import EvidenceState, advance, trace
from targon.verification.observations import GAP_EDGES, GAP_STRATA, Observations
from tests.verification.completions import HONEST, INT4, INT8, band_with, drawn

BETS = bets_of(band_with())


def replay(count: int, **fields: object) -> Replay:
    """A replay of an honest answer, but for these fields."""
    usual: dict[str, object] = {
        "best_ids": np.arange(count),
        "gaps": np.full(count, 0.5),
        "margins": np.zeros(count),
        "among": np.ones(count, np.bool_),
        "unsure": np.zeros(count, np.bool_),
        "on_cut": np.zeros(count, np.bool_),
        "tail_mass": np.full(count, 0.25),
        "in_tail": np.zeros(count, np.bool_),
        "rivals": np.full(count, NO_RIVALS, np.uint32),
        "claimed_rivals": np.zeros(count, np.uint8),
    }
    return Replay(**{name: np.array(value) for name, value in (usual | fields).items()})  # type: ignore[arg-type]


positions = st.tuples(
    st.floats(0.0, MARGIN_CLIP),
    st.sampled_from([0.0, 0.0, 1e-12, 0.3, MARGIN_CLIP]),
    st.booleans(),
    st.booleans(),
    st.floats(0.0, 1.0) | st.just(math.nan),
    st.booleans(),
    st.lists(st.sampled_from([*range(len(LEAD_EDGES)), NO_RIVAL]), min_size=7, max_size=7),
    st.integers(0, 127),
)


@st.composite
def replays(draw: st.DrawFn) -> Replay:
    rows = draw(st.lists(positions, max_size=40))
    gaps, margins, unsure, on_cut, masses, tails, rivals, claims = list(zip(*rows, strict=True)) or [()] * 8
    return replay(
        len(rows),
        gaps=np.array(gaps, np.float64),
        margins=np.array(margins, np.float64),
        unsure=np.array(unsure, np.bool_),
        on_cut=np.array(on_cut, np.bool_),
        tail_mass=np.array(masses, np.float64),
        in_tail=np.array(tails, np.bool_),
        rivals=np.array([sum(one << 4 * at for at, one in enumerate(each)) for each in rivals], np.uint32),
        claimed_rivals=np.array(
            [
                sum(bits & (1 << at) for at, one in enumerate(each) if one != NO_RIVAL)
                for each, bits in zip(rivals, claims, strict=True)
            ],
            np.uint8,
        ),
    )


# of a replay


@pytest.mark.parametrize(("temperature", "gap"), [(1.0, 0.4), (0.5, 0.2), (0.0, 0.4)])
def test_gaps_are_in_logits_whatever_the_temperature(temperature: float, gap: float) -> None:
    assert Observations.of(replay(1, gaps=[0.4]), temperature).gaps.tolist() == [gap]


def test_a_mismatch_is_a_margin_however_small() -> None:
    observed = Observations.of(replay(3, margins=[0.0, 1e-300, MARGIN_CLIP]), 0.8)
    assert observed.mismatched.tolist() == [False, True, True]


def test_positions_that_are_unsure_or_hang_on_a_cut_or_have_no_gap_are_skipped() -> None:
    observed = Observations.of(
        replay(
            4,
            unsure=[False, True, False, False],
            on_cut=[False, False, True, False],
            gaps=[1.0, 1.0, 1.0, math.nan],
        ),
        1.0,
    )
    assert observed.unsure.tolist() == [False, True, True, True]
    assert observed.positions == 4
    assert observed.gaps.tolist() == [1.0, 1.0, 1.0, 0.0]


def test_tails_are_taken_over_and_where_there_is_none_there_stays_none() -> None:
    observed = Observations.of(replay(3, tail_mass=[0.0, math.nan, 1.0], in_tail=[False, False, True]), 1.0)
    np.testing.assert_array_equal(observed.tail_mass, [0.0, math.nan, 1.0])
    assert observed.in_tail.tolist() == [False, False, True]


@given(st.floats(0.0, 1.0))
def test_a_tail_mass_is_rounded_to_what_can_be_written_down(mass: float) -> None:
    rounded = float(Observations.of(replay(1, tail_mass=[mass]), 1.0).tail_mass[0])
    assert rounded == pytest.approx(mass, abs=0.5 / 65_535)
    assert rounded * 65_535 == pytest.approx(round(rounded * 65_535), abs=1e-9)


def test_a_rival_is_claimed_only_where_there_is_a_mismatch() -> None:
    observed = Observations.of(replay(2, margins=[0.0, 0.1], claimed_rivals=np.array([5, 5], np.uint8)), 1.0)
    assert observed.claimed_rivals.tolist() == [0, 5]


# packed


def deflated(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data)).decode()


@settings(deadline=None, max_examples=150)
@given(replays(), st.sampled_from([0.0, 0.3, 0.8, 1.0, 1.2]), st.integers(0, 3))
def test_what_was_packed_gives_exactly_the_same_evidence(
    made: Replay, temperature: float, before: int
) -> None:
    observed = Observations.of(made, temperature)
    back = Observations.unpack(observed.pack())
    assert back.positions == observed.positions
    state = EvidenceState()
    rng = np.random.default_rng(before)
    for _ in range(before):
        state = advance(state, drawn(rng, HONEST), BETS)
    assert advance(state, back, BETS) == advance(state, observed, BETS)
    np.testing.assert_array_equal(trace(state, back, BETS), trace(state, observed, BETS))


@settings(deadline=None, max_examples=50)
@given(replays())
def test_packing_what_was_unpacked_changes_nothing(made: Replay) -> None:
    packed = Observations.of(made, 1.0).pack()
    assert Observations.unpack(packed).pack() == packed
    assert len(zlib.decompress(base64.b64decode(packed))) == 8 * made.gaps.size


@pytest.mark.parametrize("rates", [HONEST, INT8, INT4])
def test_a_prover_s_whole_evidence_can_be_computed_from_what_was_packed(rates: np.ndarray) -> None:
    rng = np.random.default_rng(5)
    at_once, from_log = EvidenceState(), EvidenceState()
    for _ in range(40):
        one = drawn(rng, rates)
        one = replace(one, tail_mass=np.round(one.tail_mass * 65_535) / 65_535)  # as a replay's are
        at_once = advance(at_once, one, BETS)
        from_log = advance(from_log, Observations.unpack(one.pack()), BETS)
    assert from_log.to_bytes() == at_once.to_bytes()


def test_gaps_come_back_as_the_lower_ends_of_their_strata() -> None:
    ends = [0.0, *GAP_EDGES]
    packed = Observations.of(replay(GAP_STRATA, gaps=[end + 0.001 for end in ends]), 1.0).pack()
    assert Observations.unpack(packed).gaps.tolist() == ends


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (deflated(bytes(4)), "got 4 bytes and no more, expected 8 for each"),
        (deflated(bytes(9 * 65_536)), "got 524288 bytes and more, expected 8 for each of at most 65536"),
        (deflated(bytes([GAP_STRATA, *[0] * 7])), f"expected one below {GAP_STRATA}"),
        (deflated(bytes([0, 15, *[0] * 14])), "got stratum 15"),
        (deflated(bytes([0, *[0] * 6, 1])), "claimed_rivals: got one where nothing mismatches"),
        (deflated(bytes([0, 0, 0, 255, 255, 255, 255, 0])), "codes of rivals that no replay makes"),
        (deflated(bytes([16, 0, 0, 255, 255, 255, 15, 1])), "codes of rivals that no replay makes"),
        (base64.b64encode(bytes(8)).decode(), "can't be inflated"),
        (base64.b64encode(zlib.compress(bytes(8)) + b"more").decode(), "expected 8 for each"),
        ("", "got 0 bytes and more"),
        ("AAA", "padding"),
        ("AA*A", "[Nn]on-base64|[Oo]nly base64"),
    ],
)
def test_what_no_packing_makes_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Observations.unpack(text)


def test_nothing_observed_can_be_packed() -> None:
    assert Observations.unpack(Observations.of(replay(0), 1.0).pack()).positions == 0
