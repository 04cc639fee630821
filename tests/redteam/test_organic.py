"""Attacks that serve users alone: audits find them, by the protocol's rates, and it costs them what the rules say."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import anyio
import numpy as np
import pytest

from targon.protocol.audits import AUDIT_RATES, PROBATION_RATE
from targon.protocol.profile import DEMO, STANDARD
from targon.protocol.rewards import INFERENCE_PENALTY_FACTOR, PENALTY
from targon.protocol.tiers import TIERS, Tier
from targon.redteam import ATTACKS, Organic, run_organic, table_of_organic, with_needs
from targon.redteam.career import AUDIT_S, Career
from targon.redteam.organic import Cheat, OrganicBench
from targon.redteam.organic_answers import Served
from targon.redteam.organic_report import STARTS, quantiles
from tests.redteam.conftest import PASSAGES, TinyBench, tiny_calibration

NAMES = ("wrong-seed", "int4", "int4-20%", "truncated", "wrong-key", "relay")
DOCS = Path(__file__).resolve().parents[2] / "docs"


def run(bench: TinyBench, names=NAMES) -> Organic:
    ticks = count()

    async def whole() -> Organic:
        return await run_organic(
            bench,
            with_needs(names),
            tiny_calibration,
            clock=lambda: float(next(ticks)),
            tell=lambda *_: None,
            streams=4,
            most=400,
            loads=(1.0, 10.0),
            profile=DEMO,
        )

    return anyio.run(whole)


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> TinyBench:
    return TinyBench(tmp_path_factory.mktemp("kept"), PASSAGES, completions=12)


@pytest.fixture(scope="module")
def organic(kept) -> Organic:
    return run(kept)


@pytest.fixture(scope="module")
def rows(organic):
    return {row.name: row for row in organic.rows}


def test_there_is_a_row_for_each_attack_and_for_those_that_only_users_make_possible(rows):
    assert set(rows) == {*NAMES, "honest-bf16", "drops", "drops-5%", "truncated-long"}
    for row in rows.values():
        assert [(one.start, one.load) for one in row.caught] == [
            (s, load) for s in STARTS for load in (1.0, 10.0)
        ]


def test_cheats_are_convicted_by_audits_alone_whenever_they_begin(rows):
    for name in ("wrong-seed", "int4", "int4-20%"):
        for one in rows[name].caught:
            if name == "int4-20%" and one.start == "Challenger":
                continue  # 400 requests are too few for one audit in fifty to meet it every time
            assert one.convicted == 1.0, (name, one.start)
            assert one.inferences is not None
            assert one.audits is not None
            assert one.audits.median <= one.inferences.median
        assert rows[name].kept < 0.7


def test_the_honest_and_who_relays_to_them_never_are(rows, organic):
    for name in ("honest-bf16", "relay"):
        assert [(one.convicted, one.failures) for one in rows[name].caught] == [(0.0, 0.0)] * 6
        assert rows[name].kept == pytest.approx(1.0, abs=0.02)
    assert organic.false_convictions == ()


def test_a_false_conviction_is_named(organic):
    honest = next(row for row in organic.rows if row.kind == "honest")
    one = honest.caught[0].model_copy(update={"convicted": 0.25})
    worse = honest.model_copy(update={"caught": (one, *honest.caught[1:])})
    assert organic.model_copy(update={"rows": (worse,)}).false_convictions == ("honest-bf16",)


def test_a_forged_receipt_and_silence_fail_at_once_and_without_an_audit(rows):
    for name in ("wrong-key", "drops"):
        for one in rows[name].caught:
            assert one.until_failure is not None
            assert (one.until_failure.median, one.audited, one.convicted) == (1.0, 0.0, 0.0)
            assert one.lost == pytest.approx(one.failures * PENALTY * INFERENCE_PENALTY_FACTOR)
        assert rows[name].kept < 0.2


def test_a_second_run_finds_the_same(kept, organic):
    assert run(kept) == organic


def test_it_survives_its_file_and_the_table_has_a_line_for_each(organic):
    assert Organic.from_bytes(organic.to_bytes()) == organic
    lines = table_of_organic(organic).splitlines()
    assert len(lines) == 2 + len(organic.rows)
    assert len({line.count("|") for line in lines}) == 1


def test_the_page_s_table_is_that_of_the_file_and_no_honest_prover_was_convicted():
    measured = Organic.from_bytes((DOCS / "redteam" / "organic.json").read_bytes())
    page = (DOCS / "redteam.md").read_text("utf-8")
    assert page.partition("<!-- organic -->\n")[2].partition("\n<!-- end -->")[0] == table_of_organic(
        measured
    )
    assert measured.false_convictions == ()
    assert {attack.name for attack in ATTACKS} <= {row.name for row in measured.rows}


# -- lives ---------------------------------------------------------------------------------------------------


def answer(*, passes: bool = True, broken: bool = False, counted: bool = True) -> Served:
    outcome = "inconclusive" if not counted else "pass" if passes else "fail"
    return Served("", 0, 40, 64, broken, dict.fromkeys(Tier, outcome), None, counted)


def test_a_career_is_audited_at_the_rate_of_its_tier_and_probation():
    career = Career("a", STANDARD)
    for place in range(400):
        career.serve(answer(), place + 1.0)
    assert career.tally.rates / career.tally.served == PROBATION_RATE  # nothing was verified with evidence
    assert career.tally.audited / career.tally.served == pytest.approx(PROBATION_RATE, abs=0.08)
    assert AUDIT_RATES[Tier.BRONZE] < PROBATION_RATE


def test_a_tier_s_limit_sends_the_rest_to_others_until_the_interval_ends():
    career = Career("b", STANDARD)
    limit = TIERS[Tier.BRONZE].request_limit
    sent = [career.serve(answer(), (place + 1) / 10) for place in range(limit + 20)]
    assert (sum(sent), career.tally.served) == (limit, limit)
    assert career.serve(answer(), STANDARD.interval_blocks * 12.0 + 1.0)


def test_a_failed_audit_costs_five_times_a_challenge_once_its_verdict_is_there():
    career = Career("c", STANDARD)
    for place in range(50):
        career.serve(answer(passes=False), place + 1.0)
    career.wait_until(60.0 + AUDIT_S)
    assert career.tally.failed == career.tally.audited > 0
    assert career.tally.lost == pytest.approx(0.5 * career.tally.failed)
    assert career.tally.first_failed is not None
    assert career.tally.first_failed[1] >= AUDIT_S
    honest = Career("c", STANDARD)
    for place in range(50):
        honest.serve(answer(), place + 1.0)
    honest.wait_until(60.0 + AUDIT_S)
    assert career.standing.score < honest.standing.score


def test_what_is_not_counted_costs_and_earns_nothing():
    career = Career("d", STANDARD)
    for place in range(50):
        career.serve(answer(counted=False), place + 1.0)
    career.wait_until(200.0)
    standing = career.standing
    assert (standing.score, standing.attempts, career.tally.lost) == (0.0, 0, 0.0)
    assert standing.native == 50


def test_equal_names_live_equal_lives_and_others_do_not():
    lives = [Career(name, STANDARD) for name in ("e", "e", "f")]
    for career in lives:
        for place in range(200):
            career.serve(answer(passes=place % 7 > 0), place + 1.0)
    assert lives[0].tally == lives[1].tally != lives[2].tally


def test_a_prologue_that_leads_nowhere_is_said():
    bench = OrganicBench.__new__(OrganicBench)
    with pytest.raises(
        ValueError, match="honest answers made no 'Challenger' of a prover within 40 intervals"
    ):
        bench.__init__([answer(passes=False)], [answer()], streams=1, profile=DEMO)  # type: ignore[misc]


def test_a_share_of_requests_is_cheated_on():
    cheat, honest = answer(passes=False), answer()
    drawn = Cheat("x", "now and then", "", (cheat,), (honest,), 0.25).draw(np.random.default_rng(1))
    several = [next(drawn) for _ in range(2_000)]
    assert several.count(cheat) / 2_000 == pytest.approx(0.25, abs=0.03)


def test_quantiles_say_what_never_came():
    assert quantiles([1.0, 2.0, float("inf")]) == quantiles([2.0, 1.0, float("inf")])
    found = quantiles([1.0, 2.0, float("inf")])
    assert found is not None
    assert (found.median, found.p95) == (2.0, None)
    assert quantiles([1.0, float("inf"), float("inf")]) is None
