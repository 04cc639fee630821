"""A vLLM that runs no model, and in which one thing at a time can be broken.

    script = healthy_vllm(version="0.23.1")
    async with serving(script) as server, open_remote_engine(server.url) as engine:
        ...

It serves the default model: its tokenizer and template are the real ones, its greedy answers those of the model's
card, and everything else it "computes" is a rule (:func:`likely`). So an engine that is built on it passes every
probe. For a single answer, :func:`told` scripts the events, and :func:`engine_at` is an engine that wasn't probed.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

import numpy as np

from targon.engines.default_model import DEFAULT_MODEL_NAME
from targon.engines.model_card import CONVERSATIONS
from targon.engines.port import ModelIdentity
from targon.engines.remote import Capabilities, RemoteEngine, Served
from targon.engines.remote.backend import Backend
from targon.engines.remote.calls import Calls
from targon.engines.remote.folder import DEFAULT_MODEL, ModelFolder
from targon.engines.remote.vllm import VllmBackend
from targon.engines.remote.web import Web
from targon.engines.sampler_arguments import parse_sampler_arguments
from targon.protocol.messages import ChatMessage, Dialect
from targon.protocol.primitives import TokenId
from targon.protocol.sampler import choose
from tests.engines.tasks import task

from .scripted_server import Answer, Asked, stream, whole

COMPLETIONS = "POST /v1/completions"
MODEL = DEFAULT_MODEL_NAME
LISTED = 20
"""How many of the most likely tokens it lists at most, as vLLM does."""
SEA = "The sea is calm tonight."
ASKED = task(dialect="greedy", temperature=0.0, max_tokens=16)

Likely = Callable[[Sequence[int]], dict[int, float]]
"""The most likely tokens behind others, most likely first, with their log-probabilities."""
Changed = Callable[[dict[str, Any]], None]
"""Breaks an answer, in place."""


@cache
def model_folder() -> ModelFolder:
    return ModelFolder.open(DEFAULT_MODEL)


@cache
def prompt_ids(messages: tuple[ChatMessage, ...] = ASKED.messages) -> tuple[TokenId, ...]:
    return model_folder().chat.encode(messages)


@cache
def sea_ids() -> tuple[TokenId, ...]:
    """A short answer, and its end."""
    return (*model_folder().chat.encode_text(SEA), *model_folder().eos_ids)


def piece(token_id: int) -> str:
    return model_folder().chat.decode((TokenId(token_id),))


# one answer, as a test scripts it


def told(
    token_ids: Sequence[int] | None = None,
    *,
    ended: str | None = "stop",
    texts: Sequence[str] | None = None,
    logprobs: Sequence[float | None] | None = None,
    prompt: Sequence[int] | None = None,
    counted: Mapping[str, int] | None = None,
    model: str = MODEL,
) -> list[dict[str, Any]]:
    """The events of an answer, one for each token, and the one that counts them.

    Args:
        ended: why the last token is the last.
        texts: the engine's own text of each token.
        logprobs: in each event as they are; by default -0.5 for each token.
        prompt: what it says that it read.
        counted: what its usage says instead.
    """
    ids = sea_ids() if token_ids is None else token_ids
    usage = {"prompt_tokens": len(prompt_ids()), "completion_tokens": len(ids), **(counted or {})}
    parts = []
    for place, token_id in enumerate(ids):
        parts.append(
            event(
                [token_id],
                texts[place] if texts is not None else piece(token_id),
                [logprobs[place]] if logprobs is not None else [-0.5],
                ended=ended if place == len(ids) - 1 else None,
                prompt=(prompt_ids() if prompt is None else prompt) if place == 0 else None,
                model=model,
            )
        )
    return [*parts, {"id": "cmpl-1", "model": model, "choices": [], "usage": usage}]


def event(
    token_ids: Sequence[int],
    text: str = "",
    logprobs: Sequence[float | None] | None = None,
    *,
    top: Sequence[Mapping[int, float]] | None = None,
    ended: str | None = None,
    prompt: Sequence[int] | None = None,
    model: str = MODEL,
) -> dict[str, Any]:
    """One event of a streamed completion."""
    values = [-0.5] * len(token_ids) if logprobs is None else list(logprobs)
    lists = top or [{id_: value or 0.0} for id_, value in zip(token_ids, values, strict=False)]
    choice = {
        "index": 0,
        "text": text,
        "logprobs": {
            "text_offset": [0] * len(values),
            "tokens": [f"token_id:{id_}" for id_ in token_ids],
            "token_logprobs": values,
            "top_logprobs": [{f"token_id:{id_}": value for id_, value in one.items()} for one in lists],
        },
        "finish_reason": ended,
        "stop_reason": None,
        "token_ids": list(token_ids),
        "prompt_token_ids": None if prompt is None else list(prompt),
    }
    return {
        "id": "cmpl-1",
        "object": "text_completion",
        "created": 1,
        "model": model,
        "choices": [choice],
        "usage": None,
    }


# a whole engine


def likely(before: Sequence[int]) -> dict[int, float]:
    """The rule in the model's place: the card's answers where they are asked for, else a fixed falling list."""
    expected = _of_the_card(tuple(before))
    start, highest = (300 + len(before) * 7 % 40_000, math.log(0.2))
    if expected is None:
        return {start + place: highest - 0.3 * place for place in range(LISTED)}
    token_id, logprob = expected
    left = math.log(max((1.0 - math.exp(logprob)) / LISTED, 1e-9))
    others = (id_ for id_ in itertools.count(start) if id_ != token_id)
    falling = {next(others): min(left, logprob - 0.5) - 0.1 * place for place in range(LISTED - 1)}
    return {token_id: logprob, **falling}


@cache
def _card() -> dict[tuple[int, ...], tuple[int, float]]:
    card = model_folder().card
    assert card is not None
    found: dict[tuple[int, ...], tuple[int, float]] = {}
    for messages, answer in zip(CONVERSATIONS, card.answers, strict=True):
        prompt = prompt_ids(messages)
        for place, (id_, logprob) in enumerate(zip(answer.token_ids, answer.logprobs, strict=True)):
            found[(*prompt, *answer.token_ids[:place])] = (id_, logprob)
    return found


def _of_the_card(before: tuple[int, ...]) -> tuple[int, float] | None:
    return _card().get(before)


def healthy_vllm(
    *,
    model: str = MODEL,
    root: str = MODEL,
    max_model_len: int = 8192,
    version: str = "0.23.0",
    rule: Likely = likely,
    template: Callable[[tuple[int, ...]], Sequence[object]] = tuple,
    tokenizer: Callable[[tuple[int, ...]], Sequence[object]] = tuple,
    sampler: bool = True,
    events: Changed = lambda _: None,
    scores: Changed = lambda _: None,
) -> dict[str, list[Answer | Callable[[Asked], Answer]]]:
    """A script for the server, with which everything is as it should be.

    Args:
        rule: what it computes instead of :func:`likely`.
        template, tokenizer: change what ``/tokenize`` says of a conversation, and of a text.
        sampler: whether it draws by ``targon/1`` when it is told to.
        events: changes each event that has a token.
        scores: changes each answer to a request for ``prompt_logprobs``.
    """
    chat, numbers = model_folder().chat, itertools.count(1)

    def tokens(asked: Asked) -> Answer:
        if "messages" in asked.body:
            turns = [ChatMessage.model_validate(one) for one in asked.body["messages"]]
            return whole({"tokens": list(template(chat.encode(turns)))})
        return whole({"tokens": list(tokenizer(chat.encode_text(asked.body["prompt"])))})

    def complete(asked: Asked) -> Answer:
        body = asked.body
        if body["model"] != model:
            return refused(404, f"The model `{body['model']}` does not exist.")
        if len(body["prompt"]) + body["max_tokens"] > max_model_len:
            return refused(400, f"This model's maximum context length is {max_model_len} tokens.")
        if not body.get("stream"):
            return score(body)
        parts = _generated(body, rule, model, sampler=sampler)
        for part in parts[:-1]:
            events(part)
        return stream(*parts)

    def score(body: dict[str, Any]) -> Answer:
        if not 0 <= body["prompt_logprobs"] <= LISTED:
            return refused(400, f"Requested prompt logprobs of {body['prompt_logprobs']}, limit {LISTED}")
        found = scored(body, rule, model, f"cmpl-{next(numbers)}")
        scores(found)
        return whole(found)

    served = {"id": model, "owned_by": "vllm", "root": root, "max_model_len": max_model_len}
    return {
        "GET /v1/models": [whole({"object": "list", "data": [served]})],
        "GET /version": [whole({"version": version})],
        "POST /tokenize": [tokens],
        COMPLETIONS: [complete],
    }


def refused(status: int, words: str) -> Answer:
    return whole({"error": {"message": words, "type": "BadRequestError", "code": status}}, status=status)


def scored(body: Mapping[str, Any], rule: Likely, model: str, name: str) -> dict[str, Any]:
    """What vLLM answers to a request for ``prompt_logprobs``."""
    ids, top = body["prompt"], body["prompt_logprobs"]
    positions: list[dict[str, Any] | None] = [None]
    for place in range(1, len(ids)):
        ranked = list(rule(ids[:place]).items())
        own = next(
            ((rank, value) for rank, (id_, value) in enumerate(ranked) if id_ == ids[place]), (700, -14.0)
        )
        listed = {
            str(id_): {"logprob": value, "rank": rank + 1} for rank, (id_, value) in enumerate(ranked[:top])
        }
        positions.append({str(ids[place]): {"logprob": own[1], "rank": own[0] + 1}, **listed})
    return {
        "id": name,
        "model": model,
        "choices": [{"index": 0, "text": "", "prompt_logprobs": positions, "prompt_token_ids": list(ids)}],
        "usage": {"prompt_tokens": len(ids), "completion_tokens": 1},
    }


def _generated(body: Mapping[str, Any], rule: Likely, model: str, *, sampler: bool) -> list[dict[str, Any]]:
    """The events of an answer by a rule."""
    ids, parts = list(body["prompt"]), []
    for place in range(body["max_tokens"]):
        found = rule(ids)
        token_id = _drawn(body, found, place, sampler=sampler)
        last = token_id in model_folder().eos_ids or place == body["max_tokens"] - 1
        ended = None if not last else "stop" if token_id in model_folder().eos_ids else "length"
        top = dict(list(found.items())[: max(body["logprobs"], 1)])
        ids.append(token_id)
        value = found.get(token_id, -14.0)
        parts.append(event([token_id], piece(token_id), [value], top=[top], ended=ended, model=model))
        if last:
            break
    parts[0]["choices"][0]["prompt_token_ids"] = list(body["prompt"])
    # half characters and the like come with the token that completes them
    texts = [model_folder().chat.decode(ids[len(body["prompt"]) :])] + [""] * (len(parts) - 1)
    for part, text in zip(parts, reversed(texts), strict=True):
        part["choices"][0]["text"] = text
    usage = {"prompt_tokens": len(body["prompt"]), "completion_tokens": len(parts)}
    return [*parts, {"id": "cmpl-1", "model": model, "choices": [], "usage": usage}]


def _drawn(body: Mapping[str, Any], found: dict[int, float], place: int, *, sampler: bool) -> int:
    draw = parse_sampler_arguments(body.get("vllm_xargs"))
    if draw is not None and sampler:
        logits = np.full(model_folder().vocab_size, -np.inf, np.float32)
        logits[list(found)] = list(found.values())
        return choose(logits, draw.sampling(), draw.run_key, place)
    return list(found)[body.get("seed", 0) % LISTED]


# an engine that wasn't probed


@asynccontextmanager
async def engine_at(
    url: str,
    *,
    timeout_s: float = 5.0,
    max_requests: int = 8,
    max_queue: int = 8,
    api_key: str | None = None,
    backend: Callable[[Calls], Backend] = VllmBackend,
    context_length: int | None = None,
    dialects: tuple[Dialect, ...] = ("targon/1", "greedy", "native"),
) -> AsyncIterator[RemoteEngine]:
    """What ``open_remote_engine`` gives for a healthy vLLM, without asking it anything."""
    folder = model_folder()
    length = context_length or folder.context_length
    capabilities = Capabilities(
        kind="vllm",
        served=Served("vllm 0.23.0", MODEL, (MODEL,), folder=MODEL, context_length=length),
        dialects=dialects,
        token_ids=True,
        logprobs=True,
        prompt_logprobs=LISTED,
        seeds=True,
        context_length=length,
        difference=0.0,
        findings=(),
    )
    identity = ModelIdentity(
        name=MODEL,
        model_digest=folder.digest,
        dtype="float32",
        engine="vllm 0.23.0",
        vocab_size=folder.vocab_size,
        context_length=length,
        eos_ids=folder.eos_ids,
        dialects=dialects,
        max_batch=max_requests,
    )
    async with Web(url, api_key) as web:
        calls = Calls(web, timeout_s=timeout_s, max_requests=max_requests, max_queue=max_queue)
        yield RemoteEngine(backend(calls), folder, identity, capabilities)


def as_event(value: object) -> bytes:
    """A server-sent event, as bytes."""
    return b"data: " + (value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n\n"
