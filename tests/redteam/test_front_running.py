"""Running ahead: what a prover can still say that learned everything before today, and what that gains it."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from pathlib import Path

import anyio
import numpy as np
import pytest

from targon.protocol.primitives import TokenId
from targon.redteam import (
    FrontRunning,
    evaluation_passages,
    run_front_running,
    table_of_front_running,
    with_needs,
)
from targon.redteam.front_running import Foreseen, Texts, free_tokens, kept_tasks, said_again, texts_of
from targon.redteam.front_running_drawn import Wishes, drawn
from targon.redteam.front_running_report import Interval, Pairs, Said, live, make_gain
from targon.verification.transcripts import Transcript
from targon.verification.workload import CHALLENGES
from targon.verifier.shapes import USUAL
from targon.verifier.wordings import WISHES
from tests.redteam.conftest import TinyBench, task_of, tiny_calibration

DOCS = Path(__file__).resolve().parents[2] / "docs"
ANSWERS = 12
SHORT = replace(CHALLENGES, min_tokens=6, max_tokens=12)


def run(bench: TinyBench) -> FrontRunning:
    ticks = count()

    async def whole() -> FrontRunning:
        return await run_front_running(
            bench,
            with_needs(("int4",)),
            tiny_calibration,
            clock=lambda: float(next(ticks)),
            tell=lambda *_: None,
            streams=20,
            most_tokens=2_000,
            mix=SHORT,
        )

    return anyio.run(whole)


@pytest.fixture(scope="module")
def passages() -> tuple[str, ...]:
    return tuple(evaluation_passages()[:160])


@pytest.fixture(scope="module")
def texts(passages, tmp_path_factory) -> Texts:
    return texts_of(passages, tmp_path_factory.mktemp("texts"))


@pytest.fixture(scope="module")
def kept(tmp_path_factory, passages) -> TinyBench:
    return TinyBench(tmp_path_factory.mktemp("kept"), passages, completions=ANSWERS)


@pytest.fixture(scope="module")
def found(kept) -> FrontRunning:
    return run(kept)


@pytest.fixture(scope="module")
def rows(found):
    return {(row.world, row.dialect, row.prover): row for row in found.rows}


@pytest.fixture(scope="module")
def gains(found):
    return {(gain.world, gain.dialect): gain for gain in found.gains if not gain.drawn}


def test_of_an_oracle_s_passages_none_was_foreseen_and_of_the_public_ones_each(found):
    public, oracle, _ = found.looked_up
    assert (public.world, public.found) == ("public", public.challenges)
    assert (oracle.world, oracle.found, oracle.share.value) == ("oracle", 0, 0.0)
    assert oracle.challenges >= 15
    assert oracle.share.high < 0.2


def test_against_an_oracle_a_cache_gains_nothing_at_any_temperature(rows, gains):
    for dialect in ("greedy", "targon/1"):
        bare, cached = (rows["oracle", dialect, name] for name in ("int4", "int4-cache"))
        assert cached.kept == 0.0
        same = ("answers", "tokens", "failed", "conviction", "median", "earned")
        assert [getattr(cached, name) for name in same] == [getattr(bare, name) for name in same]
        assert cached.conviction.convicted == 1.0
        assert gains["oracle", dialect].tokens == Interval(value=1.0, low=1.0, high=1.0)
        assert gains["oracle", dialect].earned == Interval(value=0.0, low=0.0, high=0.0)


def test_of_public_passages_at_t_0_the_cache_is_everything(rows, gains):
    row = rows["public", "greedy", "int4-cache"]
    assert (row.kept, row.true, row.conviction.convicted, row.earned.value) == (1.0, True, 0.0, 1.0)
    assert rows["public", "greedy", "int4"].conviction.convicted == 1.0
    gain = gains["public", "greedy"]
    assert gain.tokens.value is None
    assert gain.earned.low > 0.5


def test_above_t_0_it_is_the_beginning_of_an_answer_and_the_rest_convicts(rows, gains):
    row = rows["public", "targon/1", "int4-cache"]
    assert 0.0 < row.kept < 0.5
    assert row.conviction.convicted == 1.0
    assert not row.true
    assert 0.5 < gains["public", "targon/1"].tokens.value < 10.0


def test_what_wants_something_of_known_words_is_foreseen_without_its_passage_and_nothing_else_is(
    found, texts
):
    *_, worded = found.looked_up
    assert (worded.world, worded.drawn) == ("oracle", True)
    wishes = Wishes(texts.known)
    assert len(wishes) == found.wishes
    said = list(zip(texts.asked["oracle"], drawn(texts.asked["oracle"]), strict=True))
    foreseen = [(passage, turns) for passage, turns in said if turns in wishes]
    assert worded.found == len(foreseen)
    assert 0.02 < worded.share.value < 0.3
    assert not any(passage[:20] in turns[0] or "query" in turns[0] for passage, turns in foreseen)


def test_what_is_foreseen_of_challenges_as_drawn_gains_more_than_nothing_and_less_than_public_ones(
    found, gains
):
    cold, warm = (gain for gain in found.gains if gain.drawn)
    assert (cold.world, cold.dialect, warm.dialect) == ("oracle", "greedy", "targon/1")
    assert 1.0 <= cold.tokens.value < 2.0
    assert 0.0 < cold.earned.value < 0.1 < gains["public", "greedy"].earned.value
    assert cold.earned.value > warm.earned.value


def test_the_nearest_passage_s_answer_convicts(rows):
    for dialect in ("greedy", "targon/1"):
        assert rows["oracle", dialect, "nearest"].conviction.convicted == 1.0


def test_no_honest_prover_is_convicted_and_one_that_were_is_named(found):
    assert found.false_convictions == ()
    honest = next(row for row in found.rows if row.honest)
    worse = honest.model_copy(update={"conviction": honest.conviction.model_copy(update={"convicted": 0.5})})
    assert found.model_copy(update={"rows": (worse,)}).false_convictions == ("honest (public, greedy)",)


def test_a_second_run_makes_nothing_again_and_finds_the_same(kept, found):
    files = {path: path.stat().st_mtime_ns for path in kept.folder.rglob("*") if path.is_file()}
    assert run(kept) == found
    assert {path: path.stat().st_mtime_ns for path in kept.folder.rglob("*") if path.is_file()} == files


def test_it_survives_its_file_and_every_row_is_in_the_tables(found):
    assert FrontRunning.from_bytes(found.to_bytes()) == found
    tables = [table.splitlines() for table in table_of_front_running(found).split("\n\n")]
    assert [len(table) - 2 for table in tables] == [3, len(found.rows), len(found.gains)]
    for table in tables:
        assert len({line.count("|") for line in table}) == 1


def test_the_page_s_tables_are_those_of_the_file_and_the_cache_gained_nothing_against_an_oracle():
    measured = FrontRunning.from_bytes((DOCS / "redteam" / "front-running.json").read_bytes())
    page = (DOCS / "redteam.md").read_text("utf-8")
    tables = page.partition("<!-- front-running -->\n")[2].partition("\n<!-- end -->")[0]
    assert tables == table_of_front_running(measured)
    assert measured.false_convictions == ()
    oracle = next(one for one in measured.looked_up if one.world == "oracle" and not one.drawn)
    assert oracle.found == 0
    assert oracle.share.high is not None
    assert oracle.share.high < 0.02
    of_oracle = [gain for gain in measured.gains if gain.world == "oracle" and not gain.drawn]
    assert [(gain.tokens.value, gain.earned.value) for gain in of_oracle] == [(1.0, 0.0)] * 2
    assert all(gain.earned.low == 0.0 for gain in measured.gains if gain.drawn)
    assert f"{measured.wishes // 1_000_000} million conversations" in page


# -- parts ---------------------------------------------------------------------------------------------------


def answer(*tokens: int, finish: str = "length", temperature: float = 1.0) -> Transcript:
    task = task_of(temperature=temperature)
    return Transcript.of(0, task, [TokenId(token) for token in tokens], finish)


def test_nobody_knows_what_the_oracle_gives_today(passages, tmp_path):
    texts = texts_of(passages, tmp_path)
    assert not set(texts.known) & set(texts.asked["oracle"])
    assert set(texts.asked["public"]) < set(texts.known)
    assert len(set(texts.asked["oracle"])) == len(texts.asked["oracle"])


def test_kept_distributions_give_today_s_tokens_up_to_the_one_that_leaves_every_path():
    true = answer(1, 2, 3, 4, 5)
    assert free_tokens(true, [answer(9, 2, 3)]) == 1
    assert free_tokens(true, [answer(9, 2, 3), answer(1, 2, 8)]) == 3
    assert free_tokens(true, [answer(1, 2, 3, 4, 5)]) == 5


def test_what_is_said_again_is_no_longer_than_asked():
    steps = said_again(answer(1, 2, 3, finish="stop"), task_of(max_tokens=2))
    assert [(step.token_id, step.finish_reason) for step in steps] == [(1, None), (2, "length")]
    assert said_again(answer(1, 2, finish="stop"), task_of(max_tokens=2))[-1].finish_reason == "stop"


def test_one_answer_is_kept_at_t_0_and_several_above_it_under_other_noise():
    (cold,) = kept_tasks([task_of(temperature=0.0)], 100, 4)
    assert cold.sampling.max_tokens == 100
    warm = kept_tasks([task_of()], 100, 4)
    assert len({task.run_key for task in warm} - {task_of().run_key}) == 4


def test_the_nearest_conversation_asks_the_same_of_the_passage_with_most_words_in_common():
    foreseen = Foreseen(["Bread is made of flour.", "Boats are counted by night."])
    nearest = foreseen.nearest(task_of("Who counts boats by night?\n\nWhat is it?").messages)
    assert nearest[-1].content == "Boats are counted by night.\n\nWhat is it?"
    assert len(foreseen) == 2 * 8


def test_failed_answers_are_not_paid():
    said = [Said(10, 0, failed, None) for failed in (True, False)]
    lives = live(said, np.random.default_rng(1), 5, 1_000, once=True)
    assert lives.earned.tolist() == [0.5] * 5
    assert not np.isfinite(lives.took).any()


def test_a_cheat_that_nobody_convicts_has_no_ratio_and_earns_what_its_cache_spares_it():
    bare = [Said(10, 0, failed, None) for failed in (True, False)] * 8
    cached = [replace(one, failed=False) for one in bare]
    gain = make_gain("public", "targon/1", "int4", [Pairs(cached, bare)], streams=5, most=400)
    assert gain.tokens == Interval(value=None, low=None, high=None)
    assert gain.earned.value == pytest.approx(0.5, abs=0.1)
    assert gain.earned.low is not None
    assert gain.earned.high is not None
    assert gain.earned.low < 0.5 < gain.earned.high


def test_a_wish_about_words_that_stood_together_is_foreseen_in_each_wording_however_it_is_typed():
    wishes = Wishes(["The lighthouse was painted slowly.", "Boats were painted.", "Boats!"])
    for said in (
        "Write a poem about painted, lighthouse and slowly.",
        "write a poem about slowly, painted and lighthouse",
        "Is boats and painted worth it?",
        "What is boats?",
    ):
        assert (said,) in wishes
    for said in (
        "Write a poem about painted, lighthouse and boats.",
        "Who paints the lighthouse?",
        "The lighthouse was painted slowly.",
    ):
        assert (said,) not in wishes
    assert ("What is boats?", "Boats!", "Go on.") not in wishes
    assert len(wishes) == (6 + 2 + 1) * 2 * len(WISHES) * len(USUAL.systems)
