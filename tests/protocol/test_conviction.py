"""What convicts, and what is left then."""

from __future__ import annotations

import math

import pytest

from targon.protocol.conviction import ALPHA, CONVICTION, convicts, sentence
from targon.protocol.profile import STANDARD
from targon.protocol.rewards import on_probation
from targon.protocol.tiers import Record, Tier


def test_evidence_convicts_from_ten_thousand_on():
    assert math.isclose(ALPHA, 1e-4)
    assert math.isclose(CONVICTION, 10_000.0)
    assert convicts(math.log(10_000.1))
    assert convicts(math.log(CONVICTION))
    assert not convicts(math.log(9_999.9))


@pytest.mark.parametrize("nothing", [math.nan, -math.inf, 0.0])
def test_what_is_no_evidence_convicts_nobody(nothing):
    assert not convicts(nothing)


def test_a_convicted_prover_has_nothing_left_but_its_place():
    left = sentence()
    assert left.record == Record(tier=Tier.BRONZE, total_successes=0, fallen_from=None)
    assert left.score == 0.0


def test_a_convicted_prover_has_weight_again_after_another_probation():
    left = sentence()
    assert on_probation(left.verified_tokens, STANDARD)
    assert on_probation(left.verified_tokens + STANDARD.probation_tokens - 1, STANDARD)
    assert not on_probation(left.verified_tokens + STANDARD.probation_tokens, STANDARD)
