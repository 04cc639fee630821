"""What a caller asked for, as each prover's request must repeat it.

A gateway turns one request of OpenAI's API into one request to a prover for each answer. How, is written down here a
second time, so that no gateway has to be believed:

1. ``developer`` is ``system`` by another name; a message's parts of text are joined by line feeds; nothing else is
   added, left out or changed. The prompt of a completion is one message of a user.
2. temperature and top-p are 1 and top-k is 0 where the caller says nothing. The longest answer is what the caller
   says: 16 tokens for a completion and any length for a chat where nothing is said.
3. Answer ``n`` of prompt ``p`` has the choice ``p · (answers to each prompt) + n``.
4. What the sampler can't do takes its default alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from targon.client.errors import NotVerified, Words
from targon.protocol import GenerateRequest

Form = Literal["chat", "text"]
Body = Mapping[str, Any]
"""The JSON object that was sent."""

_TEXT_MAX_TOKENS: Final = 16
"""OpenAI's default for ``/v1/completions``."""

_HONOURED: Final = frozenset(
    (
        "model", "messages", "prompt", "temperature", "top_p", "top_k", "max_tokens", "max_completion_tokens", "stop",
        "n", "seed", "stream", "stream_options", "user", "metadata", "logprobs", "safety_identifier",
        "prompt_cache_key",
    )
)  # fmt: skip
_NEUTRAL: Final[Mapping[str, tuple[object, ...]]] = {
    "service_tier": ("auto", "default"),
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "verbosity": ("medium",),
    "best_of": (1,),
}
"""Defaults that say something; of all other parameters, those that say nothing."""
_NOTHING: Final[tuple[object, ...]] = (None, False, 0, "", [], {})


@dataclass(frozen=True, slots=True)
class Wanted:
    """One answer that was asked for."""

    choice: int
    model: str
    messages: tuple[tuple[str, str], ...]
    """Role and content of each."""
    temperature: float
    top_p: float
    top_k: int
    max_tokens: int | None
    stop: tuple[str, ...]

    def check(self, request: GenerateRequest) -> None:
        """Check that a prover was asked exactly this.

        Raises:
            NotVerified: naming the first thing that differs.
        """
        got_roles = [message.role for message in request.messages]
        if got_roles != [role for role, _ in self.messages]:
            raise self._differs("messages", got_roles, [role for role, _ in self.messages])
        for place, (message, (_, content)) in enumerate(zip(request.messages, self.messages, strict=True)):
            if message.content != content:
                raise self._differs(f"messages[{place}].content", message.content, content)
        sampling = request.sampling
        pairs: list[tuple[str, object, object]] = [
            ("model", request.model, self.model),
            ("temperature", sampling.temperature, self.temperature),
            ("top_p", sampling.top_p, self.top_p),
            ("top_k", sampling.top_k, self.top_k),
            ("stop", list(sampling.stop), list(self.stop)),
            ("choice", sampling.choice, self.choice),
        ]
        if self.max_tokens is not None:
            pairs.append(("max_tokens", sampling.max_tokens, self.max_tokens))
        for name, got, expected in pairs:
            if got != expected:
                raise self._differs(name, got, expected)

    def _differs(self, name: str, got: object, expected: object) -> NotVerified:
        advice = (
            "the receipt is for another question than yours: don't use the answer; keep it with save() to show it to "
            "others, and ask again, or ask another verifier"
        )
        return NotVerified(f"request's {name}", got, expected, advice=advice, choice=self.choice)


def wanted(form: Form, body: Body) -> list[Wanted]:
    """The answers that a body asks for, in the order of their choices.

    Raises:
        NotVerified: if it asks for something that no receipt could show.
    """
    for name, value in body.items():
        if name not in _HONOURED and value not in (*_NOTHING, *_NEUTRAL.get(name, ())):
            raise _unverifiable(name, value)
    if form == "chat":
        conversations = [tuple(_message(place, one) for place, one in enumerate(body["messages"]))]
        max_tokens = body.get("max_tokens")
        if max_tokens is None:
            max_tokens = body.get("max_completion_tokens")
    else:
        prompt = body["prompt"]
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        if not all(isinstance(each, str) for each in prompts):
            raise _unverifiable("prompt", Words("token ids"))
        conversations = [(("user", each),) for each in prompts]
        max_tokens = body.get("max_tokens")
        if max_tokens is None:
            max_tokens = _TEXT_MAX_TOKENS
    each = body.get("n") or 1
    stop = body.get("stop")
    return [
        Wanted(
            choice=group * each + number,
            model=body["model"],
            messages=messages,
            temperature=_or(body.get("temperature"), 1.0),
            top_p=_or(body.get("top_p"), 1.0),
            top_k=body.get("top_k") or 0,
            max_tokens=max_tokens,
            stop=() if stop is None else (stop,) if isinstance(stop, str) else tuple(stop),
        )
        for group, messages in enumerate(conversations)
        for number in range(each)
    ]


def _message(place: int, message: Mapping[str, Any]) -> tuple[str, str]:
    role, content = message["role"], message.get("content")
    for name, value in message.items():
        if name not in ("role", "content") and value not in _NOTHING:
            raise _unverifiable(f"messages[{place}].{name}", value)
    return "system" if role == "developer" else role, _content(place, content)


def _content(place: int, content: str | Iterable[Mapping[str, Any]] | None) -> str:
    if isinstance(content, str):
        return content
    texts = []
    for part in content or ():
        if part.get("type") != "text":
            raise _unverifiable(f"messages[{place}].content", part.get("type"))
        texts.append(str(part["text"]))
    return "\n".join(texts)


def _or(value: float | None, default: float) -> float:
    return default if value is None else float(value)


def _unverifiable(name: str, value: object) -> NotVerified:
    expected = Words("its default: no receipt can show that it was honoured")
    return NotVerified(name, value, expected, advice=f"leave out {name!r}")
