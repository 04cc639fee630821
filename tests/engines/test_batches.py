"""Steps that come together are handed on together, and are the same steps; a tokenizer is fetched once."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import pytest

from targon.engines import GenerateTask, Step, batches_of, connect_engine, serve_engine
from targon.protocol.messages import ChatMessage, Sampling
from targon.protocol.primitives import TokenId, u64_hex
from tests.tiny_engine import TinyEngine

pytestmark = pytest.mark.anyio

TASK = GenerateTask(
    (ChatMessage(role="user", content="Go on."),),
    Sampling(seed=u64_hex(0), temperature=0.8, max_tokens=24),
    7,
)


class TwoAtATime(TinyEngine):
    """An engine that has its steps in pairs."""

    async def batches(self, task: GenerateTask) -> AsyncGenerator[Sequence[Step], None]:
        pair: list[Step] = []
        async for step in self.generate(task):
            pair.append(step)
            if len(pair) == 2 or step.finish_reason is not None:
                yield pair
                pair = []


async def test_an_engine_that_tells_nothing_gives_each_step_for_itself() -> None:
    engine = TinyEngine()
    batches = [list(batch) async for batch in batches_of(engine, TASK)]
    assert [len(batch) for batch in batches] == [1] * len(batches)
    assert [step for batch in batches for step in batch] == [step async for step in engine.generate(TASK)]


async def test_steps_that_come_together_are_the_same_steps() -> None:
    engine = TwoAtATime()
    batches = [list(batch) async for batch in batches_of(engine, TASK)]
    assert {len(batch) for batch in batches[:-1]} == {2}
    assert [step for batch in batches for step in batch] == [step async for step in engine.generate(TASK)]


async def test_an_engine_behind_a_socket_loses_no_step_between_two_reads(tmp_path: Path) -> None:
    engine = TinyEngine()
    alone = [step async for step in engine.generate(TASK)]
    async with (
        serve_engine(engine, tmp_path / "engine" / "s"),
        connect_engine(tmp_path / "engine" / "s") as client,
    ):
        batches = [list(batch) async for batch in batches_of(client, TASK)]
    assert [step for batch in batches for step in batch] == alone
    assert all(batches)


class Counting(TinyEngine):
    """An engine that hands out a tokenizer of its letters, and counts what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.handed_out = self.texts = 0

    async def tokenizer_json(self) -> str:
        from tokenizers import Tokenizer
        from tokenizers.decoders import Fuse
        from tokenizers.models import WordLevel

        self.handed_out += 1
        letters = {chr(ord("a") - 1 + token): token for token in range(27)}
        tokenizer = Tokenizer(WordLevel(letters, unk_token="a"))
        tokenizer.decoder = Fuse()
        return str(tokenizer.to_str())

    async def text(self, token_ids: Sequence[TokenId], stop: Sequence[str]) -> str:
        self.texts += 1
        return await super().text(token_ids, stop)


async def test_a_tokenizer_is_fetched_once_and_says_what_the_engine_says(tmp_path: Path) -> None:
    engine = Counting()
    ids = tuple(map(TokenId, (8, 5, 12, 12, 15)))
    own = await TinyEngine().text(ids, ("lo",))
    async with (
        serve_engine(engine, tmp_path / "engine" / "s"),
        connect_engine(tmp_path / "engine" / "s") as client,
    ):
        assert [await client.text(ids, ("lo",)) for _ in range(3)] == [own] * 3
    assert (engine.handed_out, engine.texts) == (1, 0)


async def test_an_engine_that_hands_out_no_tokenizer_is_asked_for_each_text(tmp_path: Path) -> None:
    ids = tuple(map(TokenId, (8, 5, 12, 12, 15)))
    engine = TinyEngine()
    async with (
        serve_engine(engine, tmp_path / "engine" / "s"),
        connect_engine(tmp_path / "engine" / "s") as client,
    ):
        assert await client.text(ids, ()) == await engine.text(ids, ()) == "hello"
