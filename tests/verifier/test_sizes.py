"""How long prompts and answers are, and what of them can be served."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from targon.engines import TaskRefused
from targon.protocol.messages import ChatMessage
from targon.protocol.orders import Order, upper_bound
from targon.protocol.primitives import TokenId
from targon.transport.errands import NotReady, Unservable
from targon.verifier.sizes import DEFAULT_MAX_TOKENS, Sizes, check_order, sampling_of
from tests.tiny_engine import TinyEngine
from tests.verifier.conftest import CALIBRATION

pytestmark = pytest.mark.anyio


class Counting(TinyEngine):
    """Reads a token for each letter, in a context of 1,000, and counts how often it is asked."""

    counted = 0

    @property
    def identity(self):
        import dataclasses

        return dataclasses.replace(super().identity, context_length=1_000)

    async def prompt_token_ids(self, messages) -> tuple[TokenId, ...]:
        await self.check()
        self.counted += 1
        return (TokenId(1),) * sum(len(message.content) for message in messages)


def order(content: str = "Say the letters.", **changes: Any) -> Order:
    said = (ChatMessage(role="user", content=content),)
    return Order(**({"model": "tiny", "messages": said} | changes))


async def test_of_short_prompts_only_the_first_of_each_order_of_roles_is_counted() -> None:
    engine = Counting()
    sizes = Sizes(engine, CALIBRATION)
    for content in ("One.", "Two.", "Three."):
        size = await sizes.measure(order(content, max_tokens=8))
        assert (size.exact, size.max_tokens, engine.counted) == (False, 8, 1)
    said = (ChatMessage(role="system", content="Be brief."), ChatMessage(role="user", content="Four."))
    await sizes.measure(order(messages=said, max_tokens=8))
    assert engine.counted == 2


async def test_messages_that_the_models_template_refuses_are_refused_by_name_each_time() -> None:
    class Picky(Counting):
        async def prompt_token_ids(self, messages) -> tuple[TokenId, ...]:
            if messages[0].content == "bad":
                raise TaskRefused("messages: the model's chat template refuses them: no")
            return await super().prompt_token_ids(messages)

    sizes = Sizes(Picky(), CALIBRATION)
    for _ in range(2):
        with pytest.raises(Unservable, match="template refuses them") as refused:
            await sizes.measure(order("bad", max_tokens=8))
        assert (refused.value.parameter, refused.value.code) == ("messages", "unsupported_value")
    await sizes.measure(order("good", max_tokens=8))


async def test_a_prompt_that_may_not_fit_is_counted_once() -> None:
    engine = Counting()
    sizes = Sizes(engine, CALIBRATION)
    for _ in range(3):
        size = await sizes.measure(order("x" * 900, max_tokens=100))
        assert (size.prompt_tokens, size.exact, size.max_tokens) == (900, True, 100)
    assert engine.counted == 1


async def test_what_does_not_fit_is_refused_with_the_numbers() -> None:
    sizes = Sizes(Counting(), CALIBRATION)
    with pytest.raises(
        Unservable, match="a prompt of 900 tokens and an answer of up to 101, expected at most 1000"
    ):
        await sizes.measure(order("x" * 900, max_tokens=101))
    with pytest.raises(Unservable) as full:
        await sizes.measure(order("x" * 1_000))
    assert (full.value.parameter, full.value.code) == ("messages", "context_length_exceeded")


async def test_an_answer_without_a_length_has_what_the_context_leaves_or_is_calibrated() -> None:
    longest = CALIBRATION.bands[0].scope.max_tokens
    assert (await Sizes(Counting(), CALIBRATION).measure(order())).max_tokens == min(longest, 1_024)
    assert (await Sizes(Counting(), None).measure(order("x" * 990))).max_tokens == 10
    assert (await Sizes(TinyEngine(), None).measure(order())).max_tokens == DEFAULT_MAX_TOKENS


async def test_while_the_engine_is_away_what_surely_fits_is_served() -> None:
    engine = Counting()
    engine.down = True
    size = await Sizes(engine, CALIBRATION).measure(order("x" * 500, max_tokens=8))
    assert (size.exact, size.max_tokens) == (False, 8)
    with pytest.raises(NotReady, match="can't be counted now") as away:
        await Sizes(engine, CALIBRATION).measure(order("x" * 990, max_tokens=8))
    assert away.value.retry_after_s > 0


async def test_only_what_is_calibrated_counts() -> None:
    sizes = Sizes(TinyEngine(), CALIBRATION)
    usual, hot = order(temperature=0.8, max_tokens=8), order(temperature=1.9, max_tokens=8)
    assert sizes.covers(sampling_of(usual, "targon/1", 0, 8), 1)
    assert not sizes.covers(sampling_of(hot, "targon/1", 0, 8), 1)
    assert not sizes.covers(sampling_of(usual, "targon/1", 0, 8), 1_000_000)
    assert not Sizes(TinyEngine(), None).covers(sampling_of(usual, "targon/1", 0, 8), 1)


def test_a_temperature_without_a_sampler_is_refused_by_name() -> None:
    with pytest.raises(Unservable, match="temperature") as refused:
        check_order(order(temperature=0.03))
    assert (refused.value.parameter, refused.value.code) == ("temperature", "unsupported_value")
    check_order(order(temperature=0.0))
    check_order(order(temperature=0.05))


def test_where_the_likeliest_token_is_taken_there_is_nothing_to_cut() -> None:
    sampling = sampling_of(order(temperature=0.0, top_p=0.3, top_k=5), "greedy", 1, 8)
    assert (sampling.top_p, sampling.top_k, sampling.seed) == (1.0, 0, "0000000000000001")


@given(st.lists(st.text(max_size=40), min_size=1, max_size=8))
def test_no_prompt_is_longer_than_its_bound(contents: list[str]) -> None:
    messages = [ChatMessage(role="user", content=content) for content in contents]
    in_bytes = sum(len(content.encode()) for content in contents)
    assert upper_bound(messages) >= in_bytes + 8 * len(messages)
