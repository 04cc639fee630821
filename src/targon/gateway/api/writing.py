"""Answers as users' clients read them: whole, and in pieces.

A stream's pieces differ in little but their text, so all else is written once per stream, and only text is escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from json import dumps
from json.encoder import encode_basestring_ascii as quoted
from typing import Any

from targon.gateway.api.reading import Form, Request
from targon.gateway.ports import Delta, Finished
from targon.protocol.messages import FinishReason

DONE = b"data: [DONE]\n\n"

_FINISH: dict[FinishReason, str] = {"stop": "stop", "stop_string": "stop", "length": "length"}
_STREAM_OBJECT: dict[Form, str] = {"chat": "chat.completion.chunk", "text": "text_completion"}
_WHOLE_OBJECT: dict[Form, str] = {"chat": "chat.completion", "text": "text_completion"}
_ID: dict[Form, str] = {"chat": "chatcmpl", "text": "cmpl"}


NamedToken = tuple[str | None, int, float]
"""A token's text, id and log-probability. The text is None where several tokens came as one piece: nobody knows here
which of them wrote what."""


@dataclass(slots=True)
class Collected:
    """One answer as far as it has come."""

    texts: list[str] = field(default_factory=list)
    tokens: list[NamedToken] = field(default_factory=list)
    """Those whose log-probabilities were asked for and are known."""
    unknown: bool = False
    """Whether some token came without its log-probability."""

    def take(self, delta: Delta, *, logprobs: bool) -> None:
        self.texts.append(delta.text)
        if logprobs:
            named = named_tokens(delta)
            self.unknown |= named is None
            self.tokens += named or ()


def named_tokens(delta: Delta) -> list[NamedToken] | None:
    """The tokens of a piece; None where their log-probabilities aren't known."""
    if delta.logprobs is None or len(delta.logprobs) != len(delta.token_ids):
        return None
    if len(delta.token_ids) == 1:
        return [(delta.text, delta.token_ids[0], delta.logprobs[0])]
    return [(None, token, logprob) for token, logprob in zip(delta.token_ids, delta.logprobs, strict=True)]


class ChunkWriter:
    """Writes one stream's events."""

    def __init__(self, request: Request, reply_id: str, created: int) -> None:
        self._chat = request.form == "chat"
        self._logprobs = request.logprobs
        self._usage = request.usage_chunk
        self._head = (
            f'data: {{"id":"{_ID[request.form]}-{reply_id}","object":"{_STREAM_OBJECT[request.form]}"'
            f',"created":{created},"model":{quoted(request.model)},"choices":['
        )
        body = '"delta":{"content":' if self._chat else '"text":'
        self._before = [f'{self._head}{{"index":{place},{body}' for place in range(len(request.orders))]
        close = "}" if self._chat else ""
        self._no_logprobs = f'{close},"logprobs":null'
        self._with_logprobs = f'{close},"logprobs":'
        self._end = "]" + (',"usage":null' if self._usage else "") + "}\n\n"
        self._after = f'{self._no_logprobs},"finish_reason":null}}{self._end}'
        self._written = [0] * len(request.orders)

    def role(self, place: int) -> bytes:
        """The event that says who speaks, before anything is said; nothing in the older form."""
        if not self._chat:
            return b""
        delta = '"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}'
        return f'{self._head}{{"index":{place},{delta}{self._end}'.encode()

    def delta(self, place: int, delta: Delta) -> bytes:
        """The event of a piece; nothing where it says nothing."""
        if not self._logprobs:
            if not delta.text:
                return b""
            return f"{self._before[place]}{quoted(delta.text)}{self._after}".encode()
        named = named_tokens(delta)
        if not delta.text and not named:
            return b""
        logprobs = "null" if named is None else dumps(self._shown(place, named))
        self._written[place] += len(delta.text)
        text = quoted(delta.text)
        return (
            f'{self._before[place]}{text}{self._with_logprobs}{logprobs},"finish_reason":null}}{self._end}'
        ).encode()

    def finish(self, place: int, finished: Finished, *, full: bool) -> bytes:
        """The event that ends one answer."""
        said = '"delta":{}' if self._chat else '"text":""'
        reason = _FINISH[finished.finish_reason]
        return (
            f'{self._head}{{"index":{place},{said},"logprobs":null,"finish_reason":"{reason}"'
            f',"targon":{dumps(receipt_note(finished, full=full))}}}{self._end}'
        ).encode()

    def usage(self, answers: Sequence[Finished], request: Request) -> bytes:
        """The event that counts tokens; nothing if it wasn't asked for."""
        if not self._usage:
            return b""
        return f'{self._head}],"usage":{dumps(usage_of(answers, request))}}}\n\n'.encode()

    def _shown(self, place: int, named: list[NamedToken]) -> dict[str, Any]:
        if self._chat:
            return _chat_logprobs(named)
        return _legacy_logprobs(named, self._written[place])


def whole(
    request: Request,
    reply_id: str,
    created: int,
    collected: Sequence[Collected],
    answers: Sequence[Finished],
    *,
    full: bool,
) -> bytes:
    """A whole reply."""
    choices = ",".join(
        _whole_choice(request, place, one, finished, full=full)
        for place, (one, finished) in enumerate(zip(collected, answers, strict=True))
    )
    return (
        f'{{"id":"{_ID[request.form]}-{reply_id}","object":"{_WHOLE_OBJECT[request.form]}"'
        f',"created":{created},"model":{quoted(request.model)},"choices":[{choices}]'
        f',"usage":{dumps(usage_of(answers, request))}}}'
    ).encode()


def receipt_note(finished: Finished, *, full: bool) -> dict[str, Any]:
    """What is added to an answer that ends."""
    note: dict[str, Any] = {"receipt_id": finished.settled.receipt_id}
    if full:
        note["request"] = finished.request.to_json()
        note["response"] = finished.response.to_json()
    return note


def usage_of(answers: Sequence[Finished], request: Request) -> dict[str, int]:
    """Tokens of a reply: each prompt is counted once, however many answers it has."""
    each = len(answers) // request.prompts
    prompt = sum(answer.prompt_tokens for answer in answers[::each])
    completion = sum(answer.completion_tokens for answer in answers)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _whole_choice(request: Request, place: int, one: Collected, finished: Finished, *, full: bool) -> str:
    text = quoted("".join(one.texts))
    chat = request.form == "chat"
    said = f'"message":{{"role":"assistant","content":{text},"refusal":null}}' if chat else f'"text":{text}'
    logprobs = "null"
    if request.logprobs and not one.unknown:
        logprobs = dumps(_chat_logprobs(one.tokens) if chat else _legacy_logprobs(one.tokens, 0))
    return (
        f'{{"index":{place},{said},"logprobs":{logprobs},"finish_reason":"{_FINISH[finished.finish_reason]}"'
        f',"targon":{dumps(receipt_note(finished, full=full))}}}'
    )


def _chat_logprobs(named: Sequence[NamedToken]) -> dict[str, Any]:
    return {
        "content": [
            {
                "token": _token_name(text, token),
                "token_id": token,
                "logprob": logprob,
                "bytes": None if text is None else list(text.encode()),
                "top_logprobs": [],
            }
            for text, token, logprob in named
        ],
        "refusal": None,
    }


def _legacy_logprobs(named: Sequence[NamedToken], offset: int) -> dict[str, Any]:
    offsets = []
    for text, _, _ in named:
        offsets.append(offset)
        offset += len(text or "")
    return {
        "tokens": [_token_name(text, token) for text, token, _ in named],
        "token_logprobs": [logprob for _, _, logprob in named],
        "top_logprobs": None,
        "text_offset": offsets,
    }


def _token_name(text: str | None, token: int) -> str:
    return f"token_id:{token}" if text is None else text
