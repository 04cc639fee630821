"""Opening an engine: one that runs another model, or is another one later, is found out and named."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

from targon.engines.errors import EngineError, EngineUnavailable
from targon.engines.remote import Capabilities, Finding, open_remote_engine
from targon.engines.remote.folder import ModelFolder
from tests.engines.tasks import answer, ids_of, task

from .fake_vllm import (
    ASKED,
    COMPLETIONS,
    LISTED,
    MODEL,
    engine_at,
    event,
    healthy_vllm,
    likely,
    model_folder,
    refused,
)
from .scripted_server import Script, serving, stream, whole

pytestmark = pytest.mark.anyio

KEY = "sk-secret-3141592653"


@pytest.fixture(autouse=True)
def opened_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading the model's folder takes most of a second."""
    monkeypatch.setattr(ModelFolder, "open", lambda _: model_folder())


async def refusal(script: Script, **options: Any) -> str:
    """What is said when an engine is opened."""
    async with serving(script) as server:
        with pytest.raises(EngineUnavailable) as caught:
            async with open_remote_engine(server.url, **options):
                pass
    return str(caught.value)


async def found(script: Script) -> Capabilities:
    """What is found of an engine that may be any."""
    async with serving(script) as server, open_remote_engine(server.url, strict=False) as engine:
        return engine.capabilities


async def the_bad(script: Script) -> Finding:
    """The one thing that is wrong with an engine."""
    capabilities = await found(script)
    assert not capabilities.right_model
    (bad,) = (finding for finding in capabilities.findings if finding.judgement == "bad")
    return bad


def shifted(by: float, every: int = 1) -> Callable[[Sequence[int]], dict[int, float]]:
    """The model's rule, its log-probabilities off by so much; only at every so many positions."""
    return lambda before: {
        id_: value - by * (len(before) % every == 0) for id_, value in likely(before).items()
    }


def another(before: Sequence[int]) -> dict[int, float]:
    """Another model's rule."""
    return {id_ + 1: value for id_, value in likely(before).items()}


# a healthy one


async def test_a_healthy_engine_has_every_capability_and_answers() -> None:
    async with serving(healthy_vllm()) as server, open_remote_engine(server.url) as engine:
        capabilities, identity = engine.capabilities, engine.identity
        await engine.check()
        steps = await answer(engine, task(max_tokens=4))
    assert capabilities.right_model
    assert (capabilities.dialects, capabilities.seeds) == (("targon/1", "greedy", "native"), True)
    assert (capabilities.prompt_logprobs, capabilities.difference) == (LISTED, 0.0)
    assert (identity.dtype, identity.model_digest) == ("float32", model_folder().digest)
    assert len(steps) == 4


@pytest.mark.parametrize(("apart", "dtype"), [(1e-5, "float32"), (0.03, "bfloat16")])
async def test_its_number_format_is_seen_by_its_log_probabilities(apart: float, dtype: str) -> None:
    async with serving(healthy_vllm(rule=shifted(apart))) as server, open_remote_engine(server.url) as engine:
        assert engine.identity.dtype == dtype


async def test_a_prover_that_promises_float32_is_told_when_its_engine_computes_otherwise() -> None:
    message = await refusal(healthy_vllm(rule=shifted(0.03)), dtype="float32")
    assert "expected float32's; start it with --dtype float32" in message


async def test_an_engine_without_the_sampler_is_told_how_to_get_it() -> None:
    capabilities = await found(healthy_vllm(sampler=False))
    (finding,) = (one for one in capabilities.findings if one.what == "protocol sampler")
    assert (finding.judgement, capabilities.dialects) == ("note", ("greedy", "native"))
    assert "--logits-processors" in finding.advice


# another model

WRONG: dict[str, tuple[Script, str, str, str]] = {
    "another model": (healthy_vllm(rule=another), "weights", "0 of 48 tokens", "load the model of"),
    "4-bit weights": (healthy_vllm(rule=shifted(0.5)), "weights", "0.5 apart", "load the model's own"),
    "another tokenizer": (
        healthy_vllm(tokenizer=lambda ids: (*ids[:3], 9, *ids[4:])),
        "tokenizer",
        "at position 3 got [9, ",
        "give the engine the tokenizer of",
    ),
    "another template": (
        healthy_vllm(template=lambda ids: ids[4:]),
        "chat template",
        "at token 0",
        "--chat-template",
    ),
    "ids beyond the vocabulary": (
        healthy_vllm(template=lambda ids: (*ids, 2**40)),
        "chat template",
        f"got [{2**40}]",
        "--chat-template",
    ),
    "negative ids": (healthy_vllm(tokenizer=lambda _: (-1,)), "tokenizer", "got [-1]", "tokenizer"),
    "words for ids": (healthy_vllm(template=lambda _: ("a", None)), "chat template", "'a', None", "template"),
    "no short request": (
        healthy_vllm(max_model_len=20),
        "weights",
        "maximum context length is 20",
        "request",
    ),
}


@pytest.mark.parametrize(("script", "what", "got", "advice"), WRONG.values(), ids=WRONG)
async def test_an_engine_with_another_model_is_refused_with_what_differs_and_the_remedy(
    script: Script, what: str, got: str, advice: str
) -> None:
    message = await refusal(script)
    assert "its answers would not be the model's" in message
    assert f"{what}: " in message
    assert got in message
    assert advice in message


@pytest.mark.parametrize(("script", "what", "got", "advice"), WRONG.values(), ids=WRONG)
async def test_what_differs_is_found_where_it_is_not_refused(
    script: Script, what: str, got: str, advice: str
) -> None:
    bad = await the_bad(script)
    assert bad.what == what
    assert got in bad.got
    assert advice in bad.advice


def processed(scores: dict[str, Any]) -> None:
    """Log-probabilities after the temperature."""
    for position in scores["choices"][0]["prompt_logprobs"][1:]:
        for entry in position.values():
            entry["logprob"] *= 2


def shortened(scores: dict[str, Any]) -> None:
    """A prompt cut short, by one that doesn't say so."""
    choice = scores["choices"][0]
    if len(choice["prompt_token_ids"]) > 2:
        choice["prompt_token_ids"] = choice["prompt_token_ids"][:8]
        choice["prompt_logprobs"] = choice["prompt_logprobs"][:8]
        scores["usage"]["prompt_tokens"] = 8


@pytest.mark.parametrize(
    ("scores", "got"), [(processed, "off on average"), (shortened, "of 8 tokens that are not the")]
)
async def test_scores_that_do_not_fit_its_own_answers_are_found(scores: Any, got: str) -> None:
    bad = await the_bad(healthy_vllm(scores=scores))
    assert bad.what == "scores"
    assert got in bad.got


async def test_an_engine_that_scores_only_short_prompts_is_found() -> None:
    healthy = healthy_vllm()[COMPLETIONS][0]

    def limited(asked: Any) -> Any:
        scoring = not asked.body.get("stream") and len(asked.body["prompt"]) > 2
        return refused(400, "too long") if scoring else healthy(asked)  # type: ignore[operator]

    bad = await the_bad({**healthy_vllm(), COMPLETIONS: [limited]})
    assert bad.what == "scores"
    assert "too long" in bad.got


@pytest.mark.parametrize(
    "top",
    [{}, {-1: -0.5}, {10**9: -0.5}, {5: math.nan}, {5: math.inf}],
    ids=["no", "-1", "10⁹", "nan", "inf"],
)
async def test_likely_tokens_that_are_none_are_no_sampler(top: dict[int, float]) -> None:
    def changed(one: dict[str, Any]) -> None:
        one["choices"][0]["logprobs"]["top_logprobs"] = [
            {f"token_id:{id_}": value for id_, value in top.items()}
        ]

    assert (await found(healthy_vllm(events=changed))).dialects == ("greedy", "native")


async def test_an_engine_that_never_ends_an_answer_is_left_after_a_while() -> None:
    healthy, left = healthy_vllm()[COMPLETIONS][0], []
    endless = stream(*[event([5], "x")] * 2_000, done=False)

    def natively(asked: Any) -> Any:
        left.append("seed" in asked.body)
        return endless if left[-1] else healthy(asked)  # type: ignore[operator]

    capabilities = await found({**healthy_vllm(), COMPLETIONS: [natively]})
    assert not capabilities.seeds
    assert sum(left) == 3


# who answers


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ({}, "it has neither /v1/models nor /info"),
        ({"GET /v1/models": [whole({"data": []})]}, "it has neither /v1/models nor /info"),
        ({"GET /v1/models": [whole(b"[" * 100_000)]}, "it has neither /v1/models nor /info"),
        (
            healthy_vllm(model="llama", root="meta/llama"),
            "it serves 'llama' from 'meta/llama', which isn't on",
        ),
        (
            {**healthy_vllm(), "GET /v1/models": [whole({"data": [{"id": 5, "owned_by": "vllm"}]})]},
            "its answer to /v1/models cannot be read (data.0.id: ",
        ),
    ],
    ids=["nobody", "no model", "nonsense", "unknown model", "unreadable"],
)
async def test_who_answers_is_said_where_it_is_no_engine_or_not_the_one(script: Script, words: str) -> None:
    assert words in await refusal(script)


async def test_the_kind_that_is_named_has_to_be_the_one_that_answers() -> None:
    async with serving({}) as server:
        with pytest.raises(EngineUnavailable, match="it has no /v1/models"):
            async with open_remote_engine(server.url, kind="vllm"):
                pass


@pytest.mark.parametrize(
    ("slots", "room"), [(4, 4), (100, 16), (0, 16), (-1, 16), (None, 16), ("4", 16), ([], 16)]
)
async def test_an_engine_has_as_much_room_as_it_says_if_it_says_so(slots: object, room: int) -> None:
    script: Script = {
        "GET /v1/models": [whole({"data": [{"id": MODEL, "owned_by": "llamacpp"}]})],
        "GET /props": [whole({"total_slots": slots})],
        "POST /completion": [refused(400, "not now")],
    }
    async with serving(script) as server, open_remote_engine(server.url, strict=False) as engine:
        assert engine.identity.max_batch == room


# another engine later


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"max_model_len": 4096}, f"with a context of 4096 tokens, expected {MODEL} with 8192"),
        ({"model": "other"}, f"got other with a context of 8192 tokens, expected {MODEL}"),
    ],
)
async def test_another_engine_behind_the_same_address_is_noticed(change: dict[str, Any], what: str) -> None:
    later = healthy_vllm(**change)
    script = healthy_vllm()
    for route in ("GET /v1/models", "GET /version"):
        script[route] = [*script[route], *later[route]]
    async with serving(script) as server, engine_at(server.url) as engine:
        await engine.check()
        with pytest.raises(EngineUnavailable) as caught:
            await engine.check()
    assert what in str(caught.value)
    assert "start this process again" in str(caught.value)


# keys


async def test_the_key_is_sent_as_a_bearer_token_with_every_request() -> None:
    async with serving(healthy_vllm()) as server, open_remote_engine(server.url, api_key=KEY) as engine:
        await answer(engine, task(max_tokens=2))
        await engine.check()
    assert {one.headers.get("Authorization") for one in server.requests} == {f"Bearer {KEY}"}


async def test_no_key_is_sent_where_there_is_none() -> None:
    async with serving(healthy_vllm()) as server, open_remote_engine(server.url):
        pass
    assert all("Authorization" not in one.headers for one in server.requests)


REPEATS = f"Incorrect API key provided: Bearer {KEY}" + "x" * 1_000


@pytest.mark.parametrize(
    "given",
    [
        *(whole({"error": REPEATS}, status=status) for status in (400, 401, 403, 404, 429, 500, 503)),
        whole({"error": "x" * 270 + KEY}, status=400),
        stream({"error": {"message": REPEATS}}),
        stream(REPEATS),
        stream(event([1], ended="stop"), done=False, broken_off=True),
    ],
)
async def test_the_key_is_in_no_error_and_no_log(given: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with capture_logs() as logged:
        async with serving({COMPLETIONS: [given]}) as server, engine_at(server.url, api_key=KEY) as engine:
            with pytest.raises(EngineError) as caught:
                ids_of(await answer(engine, ASKED))
    assert KEY not in str(caught.value)
    assert KEY not in caplog.text
    assert KEY not in str(logged)


async def test_an_address_with_a_password_is_refused_without_repeating_it() -> None:
    with pytest.raises(EngineUnavailable, match=r"put the key .* into TARGON_ENGINE_API_KEY") as caught:
        async with open_remote_engine(f"http://me:{KEY}@127.0.0.1:8000"):
            pass
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("key", [f"{KEY}\n", f"{KEY}\r\nX-Other: 1", f"{KEY}\0"])
async def test_a_key_that_fits_in_no_header_is_refused_without_repeating_it(key: str) -> None:
    async with serving({}) as server:
        with pytest.raises(EngineUnavailable, match="got a key with a line break or the like") as caught:
            async with open_remote_engine(server.url, api_key=key):
                pass
        assert server.requests == []
    assert KEY not in str(caught.value)
