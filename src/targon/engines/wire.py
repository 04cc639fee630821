"""What an engine process and its clients say to one another, over HTTP on a Unix domain socket.

Requests and small answers are JSON; generated steps are one JSON object per line; scores are a JSON line
that describes arrays, followed by their bytes (little-endian, in order). Nothing is ever unpickled.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NoReturn

import numpy as np
from pydantic import Field

from targon.engines.errors import EngineBusy, EngineError, EngineUnavailable, TaskRefused
from targon.engines.port import GenerateTask, ModelIdentity, Scores, ScoreTask, Step
from targon.protocol.messages import (
    MAX_COMPLETION_TOKENS,
    MAX_TOKEN_ID,
    ChatMessage,
    Dialect,
    FinishReason,
    Message,
    Sampling,
)
from targon.protocol.primitives import Digest, Hex8, TokenId, u64_hex

JSON_LINES = "application/x-ndjson"
MAX_BODY_BYTES = 64 * 1024 * 1024

_KINDS: dict[str, type[EngineError]] = {
    "task_refused": TaskRefused,
    "busy": EngineBusy,
    "unavailable": EngineUnavailable,
}
_FLOAT, _INT = np.dtype("<f4"), np.dtype("<i4")

_Ids = Annotated[
    tuple[Annotated[TokenId, Field(ge=0, le=MAX_TOKEN_ID)], ...], Field(max_length=MAX_COMPLETION_TOKENS)
]


class GenerateBody(Message):
    """``POST /generate``."""

    messages: tuple[ChatMessage, ...]
    sampling: Sampling
    run_key: Hex8

    @classmethod
    def of(cls, task: GenerateTask) -> GenerateBody:
        return cls(messages=task.messages, sampling=task.sampling, run_key=u64_hex(task.run_key))

    def task(self) -> GenerateTask:
        return GenerateTask(self.messages, self.sampling, int(self.run_key, 16))


class FailureBody(Message):
    """Why a task was not done, in place of any answer."""

    kind: Literal["task_refused", "busy", "unavailable"]
    message: str

    @classmethod
    def of(cls, error: EngineError) -> FailureBody:
        kind: Any = next(kind for kind, known in _KINDS.items() if isinstance(error, known))
        return cls(kind=kind, message=str(error))

    def throw(self) -> NoReturn:
        raise _KINDS[self.kind](self.message)


class StepBody(Message):
    """One generated token."""

    token_id: TokenId
    text: str
    logprob: float
    finish_reason: FinishReason | None

    @classmethod
    def of(cls, step: Step) -> StepBody:
        return cls(
            token_id=step.token_id, text=step.text, logprob=step.logprob, finish_reason=step.finish_reason
        )

    def step(self) -> Step:
        return Step(self.token_id, self.text, self.logprob, self.finish_reason)


class StepLine(Message):
    """One line of the answer to ``POST /generate``: a step, or why no more of them come."""

    step: StepBody | None = None
    failure: FailureBody | None = None


class ScoreItem(Message):
    """One completion to score."""

    messages: tuple[ChatMessage, ...]
    token_ids: _Ids
    top_k: Annotated[int, Field(ge=0, le=MAX_TOKEN_ID)]

    @classmethod
    def of(cls, task: ScoreTask) -> ScoreItem:
        return cls(messages=task.messages, token_ids=task.token_ids, top_k=task.top_k)

    def task(self) -> ScoreTask:
        return ScoreTask(self.messages, self.token_ids, self.top_k)


class ScoreBody(Message):
    """``POST /score``."""

    tasks: tuple[ScoreItem, ...]


class PromptBody(Message):
    """``POST /prompt_token_ids``."""

    messages: tuple[ChatMessage, ...]


class TextBody(Message):
    """``POST /text``."""

    token_ids: _Ids
    stop: tuple[str, ...]


class TokenIdsBody(Message):
    """The answer to ``POST /prompt_token_ids``."""

    token_ids: _Ids


class TextAnswer(Message):
    """The answer to ``POST /text``."""

    text: str


class IdentityBody(Message):
    """``GET /identity`` and ``GET /check``."""

    name: str
    model_digest: Digest
    dtype: str
    engine: str
    vocab_size: int
    context_length: int
    eos_ids: _Ids
    dialects: tuple[Dialect, ...]
    max_batch: int

    @classmethod
    def of(cls, identity: ModelIdentity) -> IdentityBody:
        return cls(**dataclasses.asdict(identity))

    def identity(self) -> ModelIdentity:
        return ModelIdentity(**self.model_dump())


class _ScoreHead(Message):
    """What one entry of :func:`pack_scores` holds; ``vocabulary``: ids 0, 1, 2 … are left out."""

    positions: Annotated[int, Field(ge=1)]
    k: Annotated[int, Field(ge=0)]
    vocabulary: bool
    prompt_tokens: Annotated[int, Field(ge=1)]


class _ScoreHeads(Message):
    entries: tuple[_ScoreHead, ...]


def pack_scores(tasks: Sequence[ScoreTask], results: Sequence[Scores]) -> list[bytes]:
    """Scores as bytes, in parts that are to be sent one after another."""
    heads, arrays = [], []
    for task, scores in zip(tasks, results, strict=True):
        positions, k = scores.top_logprobs.shape
        heads.append(
            {
                "positions": positions,
                "k": k,
                "vocabulary": task.top_k == 0,
                "prompt_tokens": scores.prompt_tokens,
            }
        )
        if task.top_k:
            arrays.append(scores.top_ids.astype(_INT).tobytes())
        arrays.append(scores.top_logprobs.astype(_FLOAT, copy=False).tobytes())
        arrays.append(scores.claimed_logprobs.astype(_FLOAT).tobytes())
        arrays.append(scores.claimed_ranks.astype(_INT).tobytes())
    return [json.dumps({"entries": heads}).encode() + b"\n", *arrays]


def unpack_scores(data: bytes) -> list[Scores]:
    """The scores that :func:`pack_scores` packed; arrays are read-only views of the bytes.

    Raises:
        MalformedMessage: if the description is no such thing.
        ValueError: if the bytes are fewer or more than described.
    """
    line, _, _ = data.partition(b"\n")
    offset = len(line) + 1
    results = []

    def take(dtype: np.dtype[Any], *shape: int) -> Any:  # noqa: ANN401 - float32 or int32
        nonlocal offset
        array = np.frombuffer(data, dtype, int(np.prod(shape)), offset).reshape(shape)
        offset += array.nbytes
        return array

    for head in _ScoreHeads.from_bytes(line).entries:
        shape = (head.positions, head.k)
        ids = (
            np.broadcast_to(np.arange(head.k, dtype=np.int32), shape)
            if head.vocabulary
            else take(_INT, *shape)
        )
        results.append(
            Scores(
                top_ids=ids,
                top_logprobs=take(_FLOAT, *shape),
                claimed_logprobs=take(_FLOAT, head.positions),
                claimed_ranks=take(_INT, head.positions),
                prompt_tokens=head.prompt_tokens,
            )
        )
    if offset != len(data):
        raise ValueError(f"scores: got {len(data)} bytes, expected the {offset} that they describe")
    return results
