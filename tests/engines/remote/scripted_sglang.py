"""A server that answers as SGLang's source does, and what is asked of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from targon.engines.remote.backend import Chunk, Prompt
from targon.engines.remote.sglang import SglangBackend
from targon.protocol.messages import ChatMessage, Sampling
from tests.engines.tasks import task

from .scripted_server import Answer, Asked, ScriptedServer, calling, serving, stream, whole

ROUTE = "POST /generate"
MESSAGES = (ChatMessage(role="user", content="Hello"),)
PROMPT = Prompt(MESSAGES, "Hello", (1, 15, 16))
GREEDY = task(dialect="greedy", temperature=0.0, max_tokens=4).sampling
DRAWN = task(max_tokens=4).sampling


def meta(asked: Asked, total: int, *, finish: object = None, prompt_tokens: int = 3, **more: object) -> Any:
    return {
        "id": asked.body["rid"],
        "finish_reason": finish,
        "prompt_tokens": prompt_tokens,
        "completion_tokens": total,
        "weight_version": "default",
        **more,
    }


def entries(ids: list[int]) -> list[Any]:
    """Log-probabilities that tell which token they are of."""
    return [[-id_ / 100, id_, None] for id_ in ids]


def answering(
    ids: list[int], *, incremental: bool = False, step: int = 1, finish: object = None
) -> Callable[[Asked], Answer]:
    """A stream of an answer, so many tokens an event, as SGLang gives it by default or incrementally."""

    def answer(asked: Asked) -> Answer:
        return stream(*events(asked, ids, incremental=incremental, step=step, finish=finish))

    return answer


def events(asked: Asked, ids: list[int], *, incremental: bool, step: int, finish: object = None) -> list[Any]:
    found, logprobs, top = [], asked.body["return_logprob"], asked.body["top_logprobs_num"]
    for seen in range(0, len(ids), step):
        total = min(seen + step, len(ids))
        part = ids[seen if incremental else 0 : total]
        more: dict[str, Any] = {}
        if logprobs:
            more["output_token_logprobs"] = entries(part)
            more["output_token_logprobs_length"] = total
        if logprobs and top:
            more["output_top_logprobs"] = [entries([id_, id_ + 1]) for id_ in part]
        ended = (finish or {"type": "length", "length": total}) if total == len(ids) else None
        text = "".join(f"<{id_}>" for id_ in part)
        found.append(
            {"text": text, "output_ids": part, "meta_info": meta(asked, total, finish=ended, **more)}
        )
    return found


@asynccontextmanager
async def scripted(*answers: Any) -> AsyncIterator[tuple[SglangBackend, ScriptedServer]]:
    async with serving({ROUTE: answers}) as server, calling(server.url) as calls:
        yield SglangBackend(calls), server


async def generated(backend: SglangBackend, sampling: Sampling = GREEDY, *, top: int = 0) -> list[Chunk]:
    return [chunk async for chunk in backend.generate("m", PROMPT, sampling, 2**63 + 5, top=top)]


def scored(
    ids: list[int], *, own: Any = None, lists: Any = None, width: int = 2, **more: Any
) -> Callable[[Asked], Answer]:
    """The scores of given tokens, each of which is the second of its list, behind token 50."""
    own = [[None, ids[0], None], *entries(ids[1:])] if own is None else own
    if lists is None:
        lists = [None, *([[-0.001, 50, None], [-id_ / 100, id_, None]][:width] for id_ in ids[1:])]

    def answer(asked: Asked) -> Answer:
        found = meta(asked, 1, finish={"type": "length", "length": 1}, prompt_tokens=len(ids))
        found |= {"input_token_logprobs": own}
        if lists:
            found["input_top_logprobs"] = lists
        return whole({"text": "x", "output_ids": [3], "meta_info": found, "prompt_token_ids": ids} | more)

    return answer
