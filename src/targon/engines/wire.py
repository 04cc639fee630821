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
from targon.engines.port import GenerateTask, ModelIdentity, Replayed, ReplayTask, Scores, ScoreTask, Step
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
from targon.protocol.references import REPLAY_COLUMNS
from targon.protocol.replay import Replay

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


class ReplayItem(Message):
    """One completion to replay."""

    messages: tuple[ChatMessage, ...]
    token_ids: _Ids
    sampling: Sampling
    run_key: Hex8

    @classmethod
    def of(cls, task: ReplayTask) -> ReplayItem:
        return cls(
            messages=task.messages,
            token_ids=task.token_ids,
            sampling=task.sampling,
            run_key=u64_hex(task.run_key),
        )

    def task(self) -> ReplayTask:
        return ReplayTask(self.messages, self.token_ids, self.sampling, int(self.run_key, 16))


class ReplayBody(Message):
    """``POST /replay``."""

    tasks: tuple[ReplayItem, ...]


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
    line, arrays = _opened(data)
    results = []
    for head in _ScoreHeads.from_bytes(line).entries:
        shape = (head.positions, head.k)
        ids = (
            np.broadcast_to(np.arange(head.k, dtype=np.int32), shape)
            if head.vocabulary
            else arrays.take(_INT, *shape)
        )
        results.append(
            Scores(
                top_ids=ids,
                top_logprobs=arrays.take(_FLOAT, *shape),
                claimed_logprobs=arrays.take(_FLOAT, head.positions),
                claimed_ranks=arrays.take(_INT, head.positions),
                prompt_tokens=head.prompt_tokens,
            )
        )
    arrays.end()
    return results


class _ReplayHead(Message):
    """What one entry of :func:`pack_replayed` holds."""

    positions: Annotated[int, Field(ge=1)]
    prompt_tokens: Annotated[int, Field(ge=1)]
    top_k: Annotated[int, Field(ge=0)]


class _ReplayHeads(Message):
    model_digest: Digest
    entries: tuple[_ReplayHead, ...]


def pack_replayed(model_digest: Digest, results: Sequence[Replayed]) -> list[bytes]:
    """What was replayed as bytes, in parts that are to be sent one after another: 49 bytes per token."""
    heads, arrays = [], []
    for replayed in results:
        heads.append(
            {
                "positions": len(replayed.claimed_ranks),
                "prompt_tokens": replayed.prompt_tokens,
                "top_k": replayed.top_k,
            }
        )
        for name, dtype in REPLAY_COLUMNS.items():
            arrays.append(getattr(replayed.replay, name).astype(dtype).tobytes())
        arrays.append(replayed.claimed_logprobs.astype(_FLOAT).tobytes())
        arrays.append(replayed.claimed_ranks.astype(_INT).tobytes())
    return [json.dumps({"model_digest": model_digest, "entries": heads}).encode() + b"\n", *arrays]


def unpack_replayed(data: bytes) -> tuple[Digest, list[Replayed]]:
    """The digest of the model that replayed, and what :func:`pack_replayed` packed; raises as
    :func:`unpack_scores` does."""
    line, arrays = _opened(data)
    heads = _ReplayHeads.from_bytes(line)
    results = [
        Replayed(
            Replay(**{name: arrays.take(dtype, head.positions) for name, dtype in REPLAY_COLUMNS.items()}),
            claimed_logprobs=arrays.take(_FLOAT, head.positions),
            claimed_ranks=arrays.take(_INT, head.positions),
            prompt_tokens=head.prompt_tokens,
            top_k=head.top_k,
        )
        for head in heads.entries
    ]
    arrays.end()
    return heads.model_digest, results


class _Arrays:
    """The bytes behind a description, read from front to back."""

    def __init__(self, data: bytes, offset: int) -> None:
        self._data = data
        self._offset = offset

    def take(self, dtype: np.dtype[Any], *shape: int) -> Any:  # noqa: ANN401 - an array of that dtype
        array = np.frombuffer(self._data, dtype, int(np.prod(shape)), self._offset).reshape(shape)
        self._offset += array.nbytes
        return array

    def end(self) -> None:
        if self._offset != len(self._data):
            raise ValueError(
                f"arrays: got {len(self._data)} bytes, expected the {self._offset} that they describe"
            )


def _opened(data: bytes) -> tuple[bytes, _Arrays]:
    """The line that describes arrays, and the arrays."""
    line, _, _ = data.partition(b"\n")
    return line, _Arrays(data, len(line) + 1)
