"""Query generation: what may be asked about a passage, and what comes of a model that writes nothing of use."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from targon.engines import EngineUnavailable, GenerateTask
from targon.protocol.prompt import QUERY_EXAMPLES, query_messages
from targon.verification.querying import MAX_CHARS, Ending, NoQuery, QueryWriter, fault_of
from tests.tiny_engine import SayingEngine, TinyEngine

PASSAGE = (
    "The harbour master keeps a register of every ship that enters at night. Ships without lanterns pay a fine of "
    "two crowns, which is given to the widows of the town."
)
GOOD = "Who receives the fine that ships without lanterns pay?"
SEEDS = (11, 22)


async def written(engine: TinyEngine, seeds: Sequence[int] = SEEDS) -> tuple[str, list[Ending]]:
    endings: list[Ending] = []
    query = await QueryWriter(engine, 32, endings.append).write(PASSAGE, seeds)
    return query, endings


@pytest.mark.anyio
async def test_what_the_model_asks_is_asked_on_one_line_with_its_mark():
    engine = SayingEngine(" Who receives the fine\tthat ships  without lanterns pay")
    assert await written(engine) == (GOOD, ["first"])
    (task,) = engine.asked
    assert task.run_key == SEEDS[0]
    assert task.sampling.dialect == "targon/1"
    assert task.messages == query_messages(PASSAGE, "register")


@pytest.mark.anyio
async def test_a_second_try_is_about_another_word_and_has_another_seed():
    engine = SayingEngine("What?", GOOD.rstrip("?"))
    assert await written(engine) == (GOOD, ["second"])
    first, second = engine.asked
    assert (first.run_key, second.run_key) == SEEDS
    assert second.messages == query_messages(PASSAGE, "lanterns")


@pytest.mark.anyio
async def test_after_two_tries_there_is_no_query_and_both_faults_are_named():
    endings: list[Ending] = []
    with pytest.raises(NoQuery, match="no query in 2 tries: too short, unrelated") as error:
        await QueryWriter(SayingEngine("", "What is this text about"), 32, endings.append).write(
            PASSAGE, SEEDS
        )
    assert error.value.faults == ("too short", "unrelated")
    assert endings == ["none"]


@pytest.mark.anyio
async def test_an_engine_without_the_sampler_asks_greedily_and_its_second_try_differs_all_the_same():
    engine = SayingEngine("What?", GOOD, dialects=("greedy", "native"))
    await written(engine)
    assert [task.sampling.temperature for task in engine.asked] == [0.0, 0.0]
    assert engine.asked[0].messages != engine.asked[1].messages


@pytest.mark.anyio
async def test_what_was_cut_off_by_its_length_is_not_asked():
    engine = SayingEngine(GOOD, GOOD, finish="length")
    with pytest.raises(NoQuery, match="unfinished, unfinished"):
        await written(engine)


@pytest.mark.anyio
async def test_an_engine_that_is_down_is_no_fault_of_a_query():
    with pytest.raises(EngineUnavailable):
        await written(SayingEngine(GOOD, down=True))


@pytest.mark.anyio
async def test_equal_seeds_give_equal_queries():
    """Of the real sampler, on an engine whose words mean nothing: what it says is compared, not judged."""
    said: list[list[GenerateTask]] = [[], []]
    for run in said:
        engine = TinyEngine()
        with pytest.raises(NoQuery):
            await written(engine)
        run.extend(engine.asked)
    assert said[0] == said[1]


@pytest.mark.parametrize(
    "query",
    [
        GOOD,
        "What does the harbour master keep?",
        "How large is the fine for a ship without lanterns?",
        "In which book is every ship registered that enters at night?",
        "who gets fined",
        "Wofür zahlen Schiffe ohne lanterns?",
    ],
)
def test_a_question_about_the_passage_has_no_fault(query: str):
    assert fault_of(query, PASSAGE) is None


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        ("", "too short"),
        ("?", "too short"),
        ("What fine?", "too short"),
        ("What is " + "the fine of the ships " * 20 + "?", "too long"),
        ("Is the f" + "i" * MAX_CHARS + "ne large?", "too long"),
        ("Who pays the\x00 fine of the ships?", "unprintable"),
        ("Who pays the fine?<|im_end|>", "unprintable"),
        ("Who pays the \u202eenif of ships?", "unprintable"),
        ("Кто получает штраф за корабли?", "other script"),
        ("Ships without lanterns pay a fine of two crowns?", "no question"),
        ("The harbour keeps ships in the register at night?", "no question"),
        ("Which is given to the widows of the town?", "copied"),
        ("What is the capital of France?", "unrelated"),
        ("What is this passage about?", "unrelated"),
    ],
)
def test_each_fault_is_named(query: str, fault: str):
    assert fault_of(query, PASSAGE) == fault


def test_a_word_counts_with_another_ending():
    assert fault_of("What is being registered here?", PASSAGE) is None
    assert fault_of("What does a shipyard do?", PASSAGE) is None
    assert fault_of("What does a shi do?", PASSAGE) == "unrelated"


def test_the_examples_that_the_model_is_shown_are_good_themselves():
    for text, topic, query in QUERY_EXAMPLES:
        assert fault_of(query, text) is None
        assert topic in text.casefold()
        assert topic in query


@given(st.text(max_size=400), st.text(max_size=400))
def test_any_words_at_all_are_judged(query: str, passage: str):
    assert fault_of(query, passage) == fault_of(query, passage)
