"""A light verifier's engine: what oracles say alike over real HTTP, who is outvoted, and what is said when none can be
believed."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import anyio
import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from targon.engines import Engine, EngineUnavailable, GenerateTask, ReplayTask, ScoreTask, Step, TaskRefused
from targon.protocol.messages import ChatMessage, Sampling
from targon.protocol.primitives import TokenId
from targon.protocol.references import ReferenceAnswer, ReferenceTask, check_reference
from targon.transport import NeuronClient
from targon.verification.querying import QueryWriter
from targon.verifier.board import GRACE_S
from targon.verifier.borrowed import BorrowedEngine, borrow
from targon.verifier.lenders import Lender, Lenders
from targon.verifier.told import Told
from tests.tiny_engine import SayingEngine, TinyEngine

from .lending import (
    ALICE,
    GENESIS,
    NETUID,
    ORACLES,
    HardEngine,
    LyingEngine,
    Place,
    WordyEngine,
    an_oracle,
    hotkey,
    lent,
)

pytestmark = pytest.mark.anyio

SAID = (ChatMessage(role="user", content="Tell me about the sea."),)
SAMPLING = Sampling(seed="0000000000000007", temperature=0.8, max_tokens=24)
KEY = 7


async def generated(engine: Engine, key: int = KEY) -> list[Step]:
    async with aclosing(engine.generate(GenerateTask(SAID, SAMPLING, key))) as steps:
        return [step async for step in steps]


async def honest() -> ReplayTask:
    """An honest answer, to be replayed."""
    steps = await generated(TinyEngine())
    return ReplayTask(SAID, tuple(step.token_id for step in steps), SAMPLING, KEY)


async def dishonest() -> ReplayTask:
    """An answer with other noise than asked for."""
    steps = await generated(TinyEngine(), key=KEY + 1)
    return ReplayTask(SAID, tuple(step.token_id for step in steps), SAMPLING, KEY)


async def test_a_replay_comes_as_the_oracles_engine_made_it() -> None:
    task = await dishonest()
    (own,) = await TinyEngine().replay([task])
    async with lent(TinyEngine(), TinyEngine(), TinyEngine()) as lenders:
        (told,) = await (await borrow(lenders, 2)).replay([task])
    for name in own.replay.__slots__:
        assert np.array_equal(getattr(told.replay, name), getattr(own.replay, name), equal_nan=True), name
    assert np.array_equal(told.claimed_logprobs, own.claimed_logprobs)
    assert np.array_equal(told.claimed_ranks, own.claimed_ranks)
    assert (told.prompt_tokens, told.top_k) == (own.prompt_tokens, own.top_k)


async def test_a_ground_truth_is_the_engines_own_token_by_token() -> None:
    async with lent(TinyEngine()) as lenders:
        borrowed = await borrow(lenders, 1)
        assert await generated(borrowed) == await generated(TinyEngine())


async def test_a_ground_truth_is_asked_of_one_oracle_alone_and_of_the_next_where_that_is_away() -> None:
    engines = [TinyEngine(), TinyEngine(), TinyEngine()]
    async with lent(*engines) as lenders:
        borrowed = await borrow(lenders, 2)
        await generated(borrowed)
        assert [len(engine.asked) for engine in engines] == [1, 0, 0]
        engines[0].down = True
        await generated(borrowed)
    assert [len(engine.asked) for engine in engines] == [1, 1, 0]


async def test_an_oracle_that_refuses_or_answers_too_much_keeps_no_query_from_being_written() -> None:
    class Refusing(TinyEngine):
        async def generate(self, task: GenerateTask) -> AsyncGenerator[Step, None]:
            if task.messages:
                raise TaskRefused("it doesn't like to")
            yield Step(TokenId(1), "", 0.0)

    class Wordy(TinyEngine):
        async def generate(self, task: GenerateTask) -> AsyncGenerator[Step, None]:
            more = task.sampling.model_copy(update={"max_tokens": 200, "seed": "0000000000000001"})
            async for step in super().generate(GenerateTask(task.messages, more, task.run_key)):
                yield Step(TokenId(1), step.text, step.logprob, step.finish_reason)
            for _ in range(task.sampling.max_tokens):
                yield Step(TokenId(1), "a", 0.0, "length")

    async with lent(Refusing(), Wordy(), TinyEngine()) as lenders:
        assert await generated(await borrow(lenders, 2)) == await generated(TinyEngine())
        assert lenders.counted()[hotkey(0), "refused"] == 1
        assert lenders.counted()[hotkey(1), "faulty"] == 1
    async with lent(Refusing()) as lenders:
        with pytest.raises(TaskRefused, match="like to"):
            await generated(await borrow(lenders, 1))


async def test_queries_are_written_as_with_an_engine_of_ones_own() -> None:
    passage = "Tides are caused by the gravity of the moon, and by the sun to a lesser degree."
    said = "What causes the tides?"
    own = await QueryWriter(SayingEngine(said), 24).write(passage, [1, 2])
    async with lent(SayingEngine(said)) as lenders:
        assert await QueryWriter(await borrow(lenders, 1), 24).write(passage, [1, 2]) == own


@pytest.mark.parametrize("engine", [TinyEngine(), WordyEngine()])
async def test_text_is_the_engines_own_whether_or_not_it_hands_its_tokenizer_out(engine: TinyEngine) -> None:
    ids = tuple(map(TokenId, (8, 5, 12, 12, 15, 0)))
    async with lent(engine, engine) as lenders:
        borrowed = await borrow(lenders, 2)
        assert await borrowed.text(ids, ()) == "hello"
        assert await borrowed.text(ids, ("ll",)) == "he"
        assert await borrowed.text((), ()) == ""
        engine.down = isinstance(engine, WordyEngine)
        assert await borrowed.text(ids[:2], ()) == "he"
        with pytest.raises(TaskRefused, match="token id"):
            await borrowed.text((TokenId(27),), ())
    engine.down = False


async def test_the_tokenizer_is_fetched_once_however_many_texts_wait_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    texts: list[str] = []
    async with lent(WordyEngine(), WordyEngine()) as lenders:
        borrowed, ask = await borrow(lenders, 2), lenders.ask

        async def noted(lender: Lender, task: ReferenceTask) -> ReferenceAnswer:
            asked.append(task.kind)
            return await ask(lender, task)

        async def one() -> None:
            texts.append(await borrowed.text((TokenId(8), TokenId(9)), ()))

        monkeypatch.setattr(lenders, "ask", noted)
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(one)
    assert texts == ["hi"] * 5
    assert asked == ["tokenizer"] * 2


async def test_prompts_are_asked_for_once() -> None:
    engines = [TinyEngine(), TinyEngine()]
    async with lent(*engines) as lenders:
        borrowed = await borrow(lenders, 2)
        first = await borrowed.prompt_token_ids(SAID)
        for engine in engines:
            engine.down = True
        assert await borrowed.prompt_token_ids(SAID) == first == (1,)


async def test_of_the_prompts_the_newest_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("targon.verifier.borrowed.PROMPTS_KEPT", 2)
    several = [(ChatMessage(role="user", content="a" * number),) for number in range(1, 4)]
    engine = TinyEngine()
    async with lent(engine) as lenders:
        borrowed = await borrow(lenders, 1)
        for messages in several:
            await borrowed.prompt_token_ids(messages)
        engine.down = True
        for messages in several[1:]:
            await borrowed.prompt_token_ids(messages)
        with pytest.raises(EngineUnavailable):
            await borrowed.prompt_token_ids(several[0])


async def test_one_of_three_that_lies_is_outvoted_and_named() -> None:
    task = await dishonest()
    (own,) = await TinyEngine().replay([task])
    async with lent(LyingEngine(), TinyEngine(), TinyEngine()) as lenders:
        borrowed = await borrow(lenders, 2)
        with capture_logs() as logs:
            (told,) = await borrowed.replay([task])
        counted = lenders.counted()
    assert np.array_equal(told.replay.margins, own.replay.margins)
    (line,) = [line for line in logs if line["event"] == "oracle_outvoted"]
    assert line["oracle"] == hotkey(0)
    assert line["others"] == [hotkey(1), hotkey(2)]
    assert counted[hotkey(0), "outvoted"] == 1


async def test_one_of_three_that_would_convict_the_honest_is_outvoted() -> None:
    task = await honest()
    async with lent(HardEngine(), TinyEngine(), TinyEngine()) as lenders:
        (told,) = await (await borrow(lenders, 2)).replay([task])
        counted = lenders.counted()
    assert not told.replay.margins.any()
    assert counted[hotkey(0), "outvoted"] == 1


async def test_one_of_one_that_lies_is_believed_for_that_is_what_relying_on_it_means() -> None:
    task = await dishonest()
    async with lent(LyingEngine()) as lenders:
        borrowed = await borrow(lenders, 1)
        (told,) = await borrowed.replay([task])
        assert (borrowed.lent_by, borrowed.agreeing) == ((hotkey(0),), 1)
    assert not told.replay.margins.any()


async def test_where_one_suffices_two_that_contradict_each_other_are_both_not_believed() -> None:
    async with lent(LyingEngine(), TinyEngine()) as lenders:
        borrowed = await borrow(lenders, 1)
        with pytest.raises(EngineUnavailable, match="contradict each other"):
            await borrowed.replay([await dishonest()])


async def test_two_of_three_suffice_while_one_is_away_and_not_when_two_are() -> None:
    engines = [TinyEngine(), TinyEngine(), TinyEngine()]
    async with lent(*engines) as lenders:
        borrowed = await borrow(lenders, 2)
        engines[0].down = True
        await borrowed.replay([await honest()])
        engines[1].down = True
        with capture_logs() as logs, pytest.raises(EngineUnavailable, match="no 2 agree"):
            await borrowed.replay([await honest()])
        assert [line["event"] for line in logs if line["event"] == "reference_lost"] == ["reference_lost"]
        with pytest.raises(EngineUnavailable):
            await borrowed.check()
        engines[0].down = engines[1].down = False
        with capture_logs() as logs:
            await borrowed.replay([await honest()])
        assert "reference_found" in [line["event"] for line in logs]


async def test_the_first_in_order_is_gone_by_and_the_slow_are_not_waited_for() -> None:
    class Slow(TinyEngine):
        slow = False
        held = 0

        async def check(self) -> None:
            if self.slow:
                self.held += 1
                await anyio.sleep_forever()

    slow = Slow()
    async with lent(TinyEngine(), TinyEngine(), slow, grace_s=GRACE_S) as lenders:
        borrowed = await borrow(lenders, 2)
        slow.slow = True
        with anyio.fail_after(20):
            await borrowed.replay([await honest()])
            assert lenders.counted()[hotkey(2), "away"] == 1
            await borrowed.replay([await honest()])
    assert slow.held == 1  # it isn't asked again so soon


async def test_nobody_serving_is_said_at_once() -> None:
    async with NeuronClient(tls="off") as client:
        lenders = Lenders(
            [Lender(hotkey(0), Place(1), client)],
            ALICE,
            genesis=GENESIS,
            netuid=NETUID,
            registry=CollectorRegistry(),
        )
        with pytest.raises(EngineUnavailable, match="of 1 oracles, 0 answered"):
            await borrow(lenders, 1)


async def test_an_oracle_of_another_engine_is_no_reference_beside_the_others() -> None:
    class Other(TinyEngine):
        @property
        def identity(self):  # type: ignore[no-untyped-def]
            import dataclasses

            return dataclasses.replace(super().identity, dtype="bfloat16")

    async with lent(Other(), TinyEngine(), TinyEngine()) as lenders:
        borrowed = await borrow(lenders, 2)
        assert borrowed.identity.dtype == "float32"
        await borrowed.replay([await honest()])
        assert lenders.counted()[hotkey(0), "faulty"] == 1


async def test_what_another_signed_is_no_answer() -> None:
    async with (
        an_oracle(TinyEngine(), ORACLES[1], claims_to_be=ORACLES[0]) as port,
        NeuronClient(tls="off") as client,
    ):
        lenders = Lenders(
            [Lender(hotkey(0), Place(port), client)],
            ALICE,
            genesis=GENESIS,
            netuid=NETUID,
            registry=CollectorRegistry(),
        )
        with pytest.raises(EngineUnavailable, match="reference's oracle"):
            await borrow(lenders, 1)
    assert lenders.counted()[hotkey(0), "faulty"] == 1


async def test_what_cannot_be_done_is_refused_by_as_many_as_have_to_agree() -> None:
    task = ReplayTask(SAID, (TokenId(99),), SAMPLING, KEY)
    async with lent(TinyEngine(), TinyEngine(), TinyEngine()) as lenders:
        borrowed = await borrow(lenders, 2)
        with pytest.raises(TaskRefused, match="token ids"):
            await borrowed.replay([task])
        with pytest.raises(TaskRefused, match="doesn't score"):
            await borrowed.score([ScoreTask(SAID, (TokenId(1),), 5)])
        with pytest.raises(TaskRefused, match="8192"):
            await borrowed.replay([ReplayTask(SAID, (TokenId(1),) * 9000, SAMPLING, KEY)])
        assert await borrowed.replay([]) == []
        assert await borrowed.score([]) == []


async def test_what_was_told_can_be_shown_with_its_signatures(tmp_path: Path) -> None:
    task = await honest()
    async with lent(TinyEngine(), LyingEngine(), TinyEngine()) as lenders:
        borrowed = await borrow(lenders, 2, Told(tmp_path, max_bytes=1))
        await borrowed.replay([task])
        await borrowed.replay([task])
    assert (tmp_path / "told.1.jsonl").exists()
    line = json.loads((tmp_path / "told.jsonl").read_text())
    asked = ReferenceTask.from_json(line["task"])
    assert asked.token_ids == task.token_ids
    for number, answer in enumerate(map(ReferenceAnswer.from_json, line["answers"])):
        check_reference(
            answer, asked, genesis=GENESIS, netuid=NETUID, oracle=hotkey(number), verifier=ALICE.ss58_address
        )


@pytest.mark.parametrize("needed", [0, 2])
async def test_more_can_t_agree_than_there_are(needed: int) -> None:
    async with lent(TinyEngine()) as lenders:
        with pytest.raises(ValueError, match="needed"):
            await borrow(lenders, needed)


async def test_an_engine_that_changed_is_noticed() -> None:
    class Changing(TinyEngine):
        changed = False

        @property
        def identity(self):  # type: ignore[no-untyped-def]
            import dataclasses

            return dataclasses.replace(super().identity, engine="tiny 2" if self.changed else "tiny 1")

    engine = Changing()
    async with lent(engine) as lenders:
        borrowed: BorrowedEngine = await borrow(lenders, 1)
        await borrowed.check()
        engine.changed = True
        with pytest.raises(EngineUnavailable, match="tiny 2"):
            await borrowed.check()
