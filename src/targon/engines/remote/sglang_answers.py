"""What SGLang answers: its form, and what it says of the tokens that it generated or was given."""

from __future__ import annotations

import math
from typing import Final, TypeVar

import numpy as np

from targon.engines.remote.answers import difference
from targon.engines.remote.backend import Chunk, Ended, PromptLogprobs
from targon.engines.remote.calls import Calls, Part
from targon.protocol.primitives import TokenId

ENDED: Final[dict[str, Ended]] = {"stop": "stop", "length": "length"}
_LOWEST: Final = -3e38
"""SGLang writes a log-probability of minus infinity as the lowest float32."""

T = TypeVar("T")

_Entry = tuple[float | None, TokenId, str | None]
"""Log-probability, token id, and its text where that was asked for."""
_List = tuple[_Entry, ...]


class _Finish(Part):
    type: str
    message: str = ""
    status_code: int | None = None


class Meta(Part):
    id: str
    finish_reason: _Finish | None = None
    prompt_tokens: int | None = None
    completion_tokens: int = 0
    output_token_logprobs: _List = ()
    output_top_logprobs: tuple[_List | None, ...] = ()
    input_token_logprobs: _List = ()
    input_top_logprobs: tuple[_List | None, ...] = ()


class _Failure(Part):
    message: str = ""
    code: int | None = None


class Answer(Part):
    """A whole answer, or one event of a stream."""

    text: str = ""
    output_ids: tuple[TokenId, ...] = ()
    prompt_token_ids: tuple[TokenId, ...] | None = None
    meta_info: Meta | None = None
    error: _Failure | None = None


class GrowingAnswer:
    """What each event of a stream adds to an answer.

    Lists are either whole or hold only what is new; ``completion_tokens`` counts all in both cases, and tells which.

    Args:
        top: how many of the most likely tokens were asked for.
        logprobs: whether log-probabilities were.
    """

    def __init__(self, calls: Calls, top: int = 0, *, logprobs: bool = False) -> None:
        self._calls = calls
        self._top = top
        self._logprobs = logprobs
        self._ids: list[TokenId] = []
        self._letters = 0

    def add(self, event: Answer, meta: Meta) -> Chunk:
        """The next event. Raises ``EngineUnavailable`` if it doesn't follow on those before."""
        seen, total = len(self._ids), meta.completion_tokens
        if total < seen:
            self._calls.fail(
                f"got {total} tokens, expected the {seen} that it had streamed already, and more"
            )
        whole = len(event.output_ids) == total
        if whole and list(event.output_ids[:seen]) != self._ids:
            self._calls.fail(
                "got an event with other tokens than those before it: it belongs to another request"
            )
        new = self._new("token ids", event.output_ids, total)
        logprobs = self._own(new, meta) if self._logprobs else (math.nan,) * len(new)
        top = self._likely(meta) if self._top else ()
        text = event.text[self._letters :] if whole and seen else event.text
        self._ids += new
        self._letters += len(text)
        finish = meta.finish_reason
        return Chunk(
            token_ids=new,
            logprobs=logprobs,
            text=text,
            top=top,
            ended=None if finish is None else ENDED[finish.type],
            prompt_tokens=meta.prompt_tokens,
            completion_tokens=total,
        )

    def _new(self, what: str, values: tuple[T, ...], total: int) -> tuple[T, ...]:
        """What is new of a list."""
        seen = len(self._ids)
        if len(values) not in (total, total - seen):
            self._calls.fail(
                f"got {len(values)} {what} in an event, expected {total} or the {total - seen} new ones: its answer "
                "was cut short, or belongs to another request"
            )
        return values[seen:] if len(values) == total else values

    def _own(self, new: tuple[TokenId, ...], meta: Meta) -> tuple[float, ...]:
        entries = self._new("log-probabilities", meta.output_token_logprobs, meta.completion_tokens)
        if tuple(id_ for _, id_, _ in entries) != new:
            self._calls.fail(
                "got log-probabilities of other tokens than it streamed: they are another request's"
            )
        return tuple(math.nan if value is None else _unclamped(value) for value, _, _ in entries)

    def _likely(self, meta: Meta) -> tuple[dict[TokenId, float], ...]:
        rows = self._new("lists of likely tokens", meta.output_top_logprobs, meta.completion_tokens)
        return tuple({id_: _or_lowest(value) for value, id_, _ in row or ()} for row in rows)


def scores(calls: Calls, sent: tuple[TokenId, ...], meta: Meta, top: int) -> PromptLogprobs:
    """What stands in ``meta_info``, as arrays."""
    own, rows = meta.input_token_logprobs, meta.input_top_logprobs if top else (None,) * len(sent)
    if len(own) != len(sent) or len(rows) != len(sent) or own[0][0] is not None:
        calls.fail(
            f"got log-probabilities of {len(own)} tokens and {len(rows)} lists of likely ones, expected {len(sent)} "
            "of both, of which the first has none: its answer was cut short"
        )
    _check_ids(calls, sent, own, rows)
    count = len(sent) - 1
    top_ids, top_logprobs = np.empty((count, top), np.int32), np.empty((count, top), np.float32)
    logprobs, ranks = np.empty(count, np.float32), np.empty(count, np.int32)
    for place, (token_id, entry, row) in enumerate(zip(sent[1:], own[1:], rows[1:], strict=True)):
        order = sorted((-_or_lowest(value), id_) for value, id_, _ in row or ())
        if len(order) != top:
            calls.fail(
                f"got {len(order)} likely tokens at position {place + 1}, expected {top}: its answer was cut short"
            )
        top_ids[place] = [id_ for _, id_ in order]
        top_logprobs[place] = [-value for value, _ in order]
        logprobs[place] = _or_lowest(entry[0])
        ranks[place] = _rank(token_id, order)
    return PromptLogprobs(np.array(sent[1:], np.int64), logprobs, ranks, top_ids, top_logprobs, meta.id)


def _check_ids(calls: Calls, sent: tuple[TokenId, ...], own: _List, rows: tuple[_List | None, ...]) -> None:
    """SGLang writes 0 for the last id of the vocabulary (it takes that for padding), which is no other token's."""
    read = tuple(id_ for _, id_, _ in own)
    if read == sent:
        return
    last = max(sent)
    listed = max((id_ for row in rows for _, id_, _ in row or ()), default=0)
    if listed > last or read != tuple(TokenId(0) if id_ == last else id_ for id_ in sent):
        calls.fail(
            f"got log-probabilities of other tokens than it was sent: {difference(read, sent)}: its answer was cut "
            "short, or belongs to another request"
        )


def _rank(token_id: TokenId, order: list[tuple[float, TokenId]]) -> int:
    """How many of the listed tokens are more likely; all of them, if this one isn't listed."""
    own = next((value for value, id_ in order if id_ == token_id), None)
    return len(order) if own is None else sum(value < own for value, _ in order)


def _or_lowest(value: float | None) -> float:
    """JSON has no word for minus infinity."""
    return -math.inf if value is None else _unclamped(value)


def _unclamped(value: float) -> float:
    return -math.inf if value <= _LOWEST else value
