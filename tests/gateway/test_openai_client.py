"""Users' own client, unchanged, against a gateway's front."""

from __future__ import annotations

import asyncio
import functools

import anyio
import openai
import pytest
from anyio.to_thread import run_sync

from targon.gateway.api import Bounds
from targon.gateway.errors import ServiceFailed
from targon.protocol.messages import GenerateRequest, GenerateResponse
from targon.protocol.receipts import check
from targon.transport.errands import AnswerRefused, NobodyFree, NotReady, Unservable
from tests.gateway.front_world import HELLO, MODEL, Script, a_front, delta, leave_after

pytestmark = pytest.mark.anyio

HI = [{"role": "user", "content": "Say hello."}]


async def test_a_whole_chat_answer_has_its_text_usage_and_receipt(tmp_path):
    async with a_front(tmp_path) as world, world.client() as client:
        raw = await client.chat.completions.with_raw_response.create(model=MODEL, messages=HI)
        answer = raw.parse()
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == (
        "assistant",
        "Hello",
        "stop",
    )
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (
        7,
        3,
        10,
    )
    assert (answer.object, answer.model, answer.id[:9]) == ("chat.completion", MODEL, "chatcmpl-")
    assert raw.headers["targon-receipt-id"] == choice.targon["receipt_id"]
    assert raw.headers["x-request-id"].startswith("req_")


async def test_the_synchronous_client_works_as_well(tmp_path):
    async with a_front(tmp_path) as world:

        def talk() -> tuple[str, str]:
            with world.sync_client() as client:
                whole = client.chat.completions.create(model=MODEL, messages=HI)
                stream = client.chat.completions.create(model=MODEL, messages=HI, stream=True)
                streamed = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
                return whole.choices[0].message.content or "", streamed

        assert await run_sync(talk) == ("Hello", "Hello")


async def test_a_streamed_chat_answer_comes_piece_by_piece_and_ends_with_its_receipt(tmp_path):
    async with a_front(tmp_path) as world, world.client() as client:
        stream = await client.chat.completions.create(model=MODEL, messages=HI, stream=True)
        chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].delta.content for chunk in chunks] == ["", "Hel", "lo", None]
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None, None, None, "stop"]
    assert chunks[-1].choices[0].targon["receipt_id"] == stream.response.headers["targon-receipt-id"]
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.usage is None for chunk in chunks)


async def test_a_streamed_piece_arrives_before_the_next_is_there(tmp_path):
    hold = asyncio.Event()
    script = Script(pieces=[delta("first", 1), hold.wait, delta(" second", 2)])
    async with a_front(tmp_path, script) as world, world.client() as client:
        stream = await client.chat.completions.create(model=MODEL, messages=HI, stream=True)
        texts = []
        async for chunk in stream:
            texts.append(chunk.choices[0].delta.content)
            if texts[-1] == "first":
                assert not script.finished
                hold.set()
    assert texts == ["", "first", " second", None]


async def test_usage_is_counted_in_one_more_chunk_if_it_is_asked_for(tmp_path):
    async with a_front(tmp_path) as world, world.client() as client:
        stream = await client.chat.completions.create(
            model=MODEL, messages=HI, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens == 10
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * 4


@pytest.mark.parametrize("stream", [False, True])
async def test_log_probabilities_name_each_token(tmp_path, stream):
    async with a_front(tmp_path) as world, world.client() as client:
        reply = await client.chat.completions.create(model=MODEL, messages=HI, logprobs=True, stream=stream)
        choices = [chunk.choices[0] async for chunk in reply] if stream else [reply.choices[0]]
    tokens = [token for choice in choices if choice.logprobs for token in choice.logprobs.content]
    assert [(token.token, token.logprob) for token in tokens] == [("Hel", -0.5), ("lo", -0.25), ("", -0.125)]
    assert [token.token_id for token in tokens] == [1, 2, 0]
    assert bytes(tokens[0].bytes) == b"Hel"


async def test_tokens_that_came_as_one_piece_are_named_by_their_ids(tmp_path):
    script = Script(pieces=[delta("Hello", 5, 6, logprobs=[-1.0, -2.0])])
    async with a_front(tmp_path, script) as world, world.client() as client:
        answer = await client.chat.completions.create(model=MODEL, messages=HI, logprobs=True)
    content = answer.choices[0].logprobs.content
    assert [(one.token, one.logprob, one.bytes) for one in content] == [
        ("token_id:5", -1.0, None),
        ("token_id:6", -2.0, None),
    ]


async def test_log_probabilities_that_nobody_knows_are_null(tmp_path):
    script = Script(pieces=[delta("Hello", 1)])
    async with a_front(tmp_path, script) as world, world.client() as client:
        answer = await client.chat.completions.create(model=MODEL, messages=HI, logprobs=True)
    assert answer.choices[0].logprobs is None


async def test_several_answers_have_a_receipt_each(tmp_path):
    async with a_front(tmp_path) as world, world.client() as client:
        raw = await client.chat.completions.with_raw_response.create(model=MODEL, messages=HI, n=3)
        answer = raw.parse()
    ids = [choice.targon["receipt_id"] for choice in answer.choices]
    assert len(set(ids)) == 3
    assert raw.headers["targon-receipt-id"] == ", ".join(ids)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (7, 9)
    assert [order.choice for order in world.script.orders] == [0, 1, 2]


async def test_several_answers_stream_side_by_side(tmp_path):
    async with a_front(tmp_path) as world, world.client() as client:
        stream = await client.chat.completions.create(model=MODEL, messages=HI, n=2, stream=True)
        texts = {0: "", 1: ""}
        ends = set()
        async for chunk in stream:
            (choice,) = chunk.choices
            texts[choice.index] += choice.delta.content or ""
            if choice.finish_reason:
                ends.add(choice.index)
    assert texts == {0: "Hello", 1: "Hello"}
    assert ends == {0, 1}


async def test_an_answer_is_read_while_another_has_yet_to_begin(tmp_path):
    async def second_waits() -> None:
        while len(script.orders) == 2 and not script.finished:
            await anyio.sleep(0.01)

    async def until_both_were_asked() -> None:
        while len(script.orders) < 2:
            await anyio.sleep(0.01)

    script = Script(before=None)
    first = iter([until_both_were_asked])

    async def before() -> None:
        await next(first, second_waits)()

    script.before = before
    async with a_front(tmp_path, script) as world, world.client() as client:
        with anyio.fail_after(5):
            stream = await client.chat.completions.create(model=MODEL, messages=HI, n=2, stream=True)
            texts = {0: "", 1: ""}
            async for chunk in stream:
                texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == {0: "Hello", 1: "Hello"}


async def test_what_was_asked_for_reaches_the_provers(tmp_path):
    async with a_front(tmp_path) as world, world.client() as client:
        await client.chat.completions.create(
            model=MODEL,
            messages=[
                {"role": "developer", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
                {"role": "assistant", "content": "c"},
                {"role": "user", "content": "d"},
            ],
            temperature=0.5,
            top_p=0.9,
            max_completion_tokens=17,
            stop=["x", "y"],
            seed=-3,
            user="somebody",
            metadata={"a": "b"},
            frequency_penalty=0,
            presence_penalty=0,
            response_format={"type": "text"},
            extra_body={"top_k": 40},
        )
        await client.chat.completions.create(model=MODEL, messages=HI, stop="z")
    order, plain = world.script.orders
    assert [(one.role, one.content) for one in order.messages] == [
        ("system", "Be brief."),
        ("user", "a\nb"),
        ("assistant", "c"),
        ("user", "d"),
    ]
    assert (order.temperature, order.top_p, order.top_k, order.max_tokens) == (0.5, 0.9, 40, 17)
    assert (order.stop, order.seed) == (("x", "y"), -3)
    assert (plain.temperature, plain.top_p, plain.top_k, plain.max_tokens, plain.stop) == (
        1.0,
        1.0,
        0,
        None,
        ("z",),
    )


async def test_an_answer_can_be_sent_back_as_it_came(tmp_path):
    async with a_front(tmp_path) as world, world.client() as client:
        first = await client.chat.completions.create(model=MODEL, messages=HI)
        said = first.choices[0].message
        await client.chat.completions.create(model=MODEL, messages=[*HI, said, *HI])
        await client.chat.completions.create(model=MODEL, messages=[*HI, said.model_dump(), *HI])
    assert [one.content for one in world.script.orders[1].messages] == ["Say hello.", "Hello", "Say hello."]


async def test_the_older_form_answers_a_prompt_or_several(tmp_path):
    async with a_front(tmp_path) as world, world.client() as client:
        one = await client.completions.create(model=MODEL, prompt="Say hello.", logprobs=0)
        two = await client.completions.create(model=MODEL, prompt=["a", "b"], n=2, max_tokens=5)
        stream = await client.completions.create(model=MODEL, prompt="a", stream=True)
        streamed = [chunk async for chunk in stream]
    assert (one.choices[0].text, one.choices[0].finish_reason, one.object) == (
        "Hello",
        "stop",
        "text_completion",
    )
    assert one.choices[0].logprobs.tokens == ["Hel", "lo", ""]
    assert one.choices[0].logprobs.text_offset == [0, 3, 5]
    assert [choice.index for choice in two.choices] == [0, 1, 2, 3]
    assert two.usage.prompt_tokens == 14
    assert [order.messages[0].content for order in world.script.orders[1:5]] == ["a", "a", "b", "b"]
    assert [order.max_tokens for order in world.script.orders] == [16, 5, 5, 5, 5, 16]
    assert [chunk.choices[0].text for chunk in streamed] == ["Hel", "lo", ""]
    assert streamed[-1].choices[0].finish_reason == "stop"


@pytest.mark.parametrize(("ended", "said"), [("stop_string", "stop"), ("length", "length")])
async def test_how_an_answer_ended_is_said_in_openai_s_words(tmp_path, ended, said):
    async with a_front(tmp_path, Script(finish_reason=ended)) as world, world.client() as client:
        answer = await client.chat.completions.create(model=MODEL, messages=HI)
    assert answer.choices[0].finish_reason == said


@pytest.mark.parametrize("stream", [False, True])
async def test_the_whole_signed_answer_comes_along_if_it_is_asked_for(tmp_path, stream):
    async with a_front(tmp_path) as world, world.client(default_headers={"Targon-Receipt": "full"}) as client:
        reply = await client.chat.completions.create(model=MODEL, messages=HI, stream=stream)
        choice = [chunk.choices[0] async for chunk in reply][-1] if stream else reply.choices[0]
    request = GenerateRequest.from_json(choice.targon["request"])
    response = GenerateResponse.from_json(choice.targon["response"])
    check(response.receipt, request, response.completion)
    assert request.digest() == choice.targon["receipt_id"]


async def test_models_are_listed_and_found_by_name(tmp_path):
    async with a_front(tmp_path) as world, world.client() as client:
        listed = [model async for model in client.models.list()]
        found = await client.models.retrieve(MODEL)
        with pytest.raises(openai.NotFoundError, match="got model 'other', expected one of: tiny/model-1"):
            await client.models.retrieve("other")
    assert [model.id for model in listed] == [found.id] == [MODEL]
    assert found.targon["context_length"] == 2048


@pytest.mark.parametrize(
    ("trouble", "kind", "status", "code"),
    [
        (NobodyFree("all provers are busy", 2.0), openai.InternalServerError, 503, "overloaded"),
        (NotReady("the chain is away", 3.0), openai.InternalServerError, 503, "not_ready"),
        (
            Unservable("messages", "context_length_exceeded", "too long"),
            openai.BadRequestError,
            400,
            "context_length_exceeded",
        ),
        (AnswerRefused("no receipt"), openai.InternalServerError, 502, "answer_failed"),
        (ServiceFailed("gone", begun=False), openai.InternalServerError, 502, "answer_failed"),
        (TimeoutError(), openai.InternalServerError, 504, "timed_out"),
        (ZeroDivisionError("the prompt was 'secret'"), openai.InternalServerError, 500, "internal_error"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_what_can_t_be_served_is_an_error_of_its_own(tmp_path, trouble, kind, status, code, stream):
    async with a_front(tmp_path, Script(before=trouble)) as world, world.client() as client:
        with pytest.raises(kind) as caught:
            await client.chat.completions.create(model=MODEL, messages=HI, stream=stream)
    assert (caught.value.status_code, caught.value.code) == (status, code)
    assert "secret" not in str(caught.value)
    if isinstance(trouble, NobodyFree | NotReady):
        assert caught.value.response.headers["retry-after"] == str(int(trouble.retry_after_s))


async def test_a_client_that_retries_gets_its_answer_once_somebody_is_free(tmp_path):
    script = Script(before=NobodyFree("all provers are busy", 0.01))

    async def free_soon() -> None:
        await anyio.sleep(0.5)
        script.before = None

    async with (
        a_front(tmp_path, script) as world,
        world.client(max_retries=3) as client,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(free_soon)
        answer = await client.chat.completions.create(model=MODEL, messages=HI)
    assert answer.choices[0].message.content == "Hello"
    assert world.count("targon_gateway_requests_total", route="/v1/chat/completions", status="503") >= 1


async def test_an_answer_that_breaks_off_raises_in_the_client_and_has_no_finish_reason(tmp_path):
    script = Script(pieces=[delta("Hel", 1), ServiceFailed("the prover went away", begun=True)])
    async with a_front(tmp_path, script) as world, world.client() as client:
        stream = await client.chat.completions.create(model=MODEL, messages=HI, stream=True)
        chunks = []

        async def read() -> None:
            async for chunk in stream:
                chunks.append(chunk)  # noqa: PERF401 - those before the error are wanted

        with pytest.raises(openai.APIError, match="is not to be used: the prover went away") as caught:
            await read()
    assert caught.value.code == "answer_broken_off"
    assert [chunk.choices[0].delta.content for chunk in chunks] == ["", "Hel"]
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None, None]
    assert world.count("targon_gateway_broken_off_total") == 1


async def test_one_of_several_answers_that_fails_fails_the_request_and_hangs_up_on_the_rest(tmp_path):
    count = 0

    async def second_fails() -> None:
        nonlocal count
        count += 1
        if count == 2:
            raise NobodyFree("only one prover was free", 1.0)
        await anyio.sleep_forever()

    script = Script(before=second_fails)
    async with a_front(tmp_path, script) as world, world.client() as client:
        with pytest.raises(openai.InternalServerError, match="only one prover was free"):
            await client.chat.completions.create(model=MODEL, messages=HI, n=2, stream=True)
        assert script.hung_up == 1


async def test_a_client_that_gives_up_waiting_is_hung_up_on_at_the_prover(tmp_path):
    script = Script(before=anyio.sleep_forever)
    async with a_front(tmp_path, script) as world, world.client(timeout=0.3) as client:
        with pytest.raises(openai.APITimeoutError):
            await client.chat.completions.create(model=MODEL, messages=HI)
        with anyio.fail_after(5):
            while not script.hung_up:
                await anyio.sleep(0.01)
    assert world.count("targon_gateway_abandoned_total") == 1


async def test_a_client_that_leaves_a_stream_is_hung_up_on_at_the_prover(tmp_path):
    script = Script(pieces=[*HELLO, anyio.sleep_forever])
    async with a_front(tmp_path, script, bounds=Bounds(left_s=0.2)) as world, world.client() as client:
        await leave_after(client, "lo", script)
    assert script.finished == 0


async def test_many_requests_at_once_are_answered(tmp_path):
    script = Script(before=functools.partial(anyio.sleep, 0.01))
    async with a_front(tmp_path, script) as world, world.client() as client:
        answers = await asyncio.gather(
            *(client.chat.completions.create(model=MODEL, messages=HI) for _ in range(100))
        )
    assert {answer.choices[0].message.content for answer in answers} == {"Hello"}
    assert len({answer.id for answer in answers}) == 100
