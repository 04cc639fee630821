"""From a body's bytes to orders, or to a complaint that names what is wrong with them.

JSON is read more strictly than most do: a key that comes twice, NaN, or text that is no Unicode has two meanings for
two readers, and is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from targon.gateway.api.requests import (
    LEGACY_MAX_TOKENS,
    MAX_CHOICES,
    UNSUPPORTED,
    AssistantMessage,
    ChatCompletionRequest,
    CompletionRequest,
    GenerationRequest,
    StreamOptions,
    SystemMessage,
    TextPart,
    UserMessage,
)
from targon.gateway.refusals import ApiError, invalid
from targon.protocol.messages import MAX_MESSAGE_CHARS, ChatMessage
from targon.protocol.orders import Order, upper_bound

M = TypeVar("M", bound=BaseModel)

Form = Literal["chat", "text"]
"""Which of the two APIs: chat completions, or the older completions."""

_SHOWN = 60
"""Characters of a wrong value that a complaint repeats."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a user wants, read and checked."""

    form: Form
    model: str
    orders: tuple[Order, ...]
    """One for each answer, in order."""
    prompts: int
    """How many different prompts the orders have; ``len(orders) / prompts`` answers to each, side by side."""
    stream: bool
    usage_chunk: bool
    logprobs: bool
    prompt_bytes: int
    """Size of all prompts' text, by which their tokens are estimated before they are counted."""
    prompt_bound: int
    """More tokens than all prompts have, in any tokenizer."""
    max_tokens: int | None
    """Longest answer; None: nobody said."""

    def at_most(self, max_tokens: int) -> Request:
        """The same, with answers of so many tokens at most."""
        orders = tuple(order.model_copy(update={"max_tokens": max_tokens}) for order in self.orders)
        return replace(self, orders=orders, max_tokens=max_tokens)


def read_chat(body: bytes) -> Request:
    """A request to ``/v1/chat/completions``.

    Raises:
        ApiError: naming the parameter that is wrong.
    """
    asked = _checked(ChatCompletionRequest, _json(body))
    _agree(asked)
    messages = tuple(
        ChatMessage(
            role="system" if turn.role == "developer" else turn.role, content=_text(turn.content, place)
        )
        for place, turn in enumerate(asked.messages)
    )
    if asked.top_logprobs is not None and not asked.logprobs:
        raise invalid("top_logprobs", "invalid_value", "top_logprobs: expected logprobs: true beside it")
    max_tokens = asked.max_completion_tokens if asked.max_tokens is None else asked.max_tokens
    return _request("chat", asked, (messages,), max_tokens, logprobs=bool(asked.logprobs))


def read_completion(body: bytes) -> Request:
    """A request to ``/v1/completions``; raises as :func:`read_chat` does."""
    asked = _checked(CompletionRequest, _json(body))
    _agree(asked)
    prompts = [asked.prompt] if isinstance(asked.prompt, str) else asked.prompt
    conversations = tuple((ChatMessage(role="user", content=prompt),) for prompt in prompts)
    max_tokens = LEGACY_MAX_TOKENS if asked.max_tokens is None else asked.max_tokens
    return _request("text", asked, conversations, max_tokens, logprobs=asked.logprobs is not None)


def _request(
    form: Form,
    asked: GenerationRequest,
    conversations: Sequence[tuple[ChatMessage, ...]],
    max_tokens: int | None,
    *,
    logprobs: bool,
) -> Request:
    each = asked.n or 1
    if each * len(conversations) > MAX_CHOICES:
        raise invalid(
            "n",
            "invalid_value",
            f"n: got {each} answers to each of {len(conversations)} prompts, expected at most {MAX_CHOICES} in all",
        )
    stop = () if asked.stop is None else (asked.stop,) if isinstance(asked.stop, str) else tuple(asked.stop)
    options = asked.stream_options or StreamOptions()
    orders = tuple(
        Order(
            model=asked.model,
            messages=messages,
            temperature=1.0 if asked.temperature is None else float(asked.temperature),
            top_p=1.0 if asked.top_p is None else float(asked.top_p),
            top_k=asked.top_k or 0,
            max_tokens=max_tokens,
            stop=stop,
            choice=group * each + number,
            seed=asked.seed,
        )
        for group, messages in enumerate(conversations)
        for number in range(each)
    )
    return Request(
        form=form,
        model=asked.model,
        orders=orders,
        prompts=len(conversations),
        stream=bool(asked.stream),
        usage_chunk=bool(options.include_usage),
        logprobs=logprobs,
        prompt_bytes=sum(len(turn.content.encode()) for turns in conversations for turn in turns),
        prompt_bound=sum(map(upper_bound, conversations)),
        max_tokens=max_tokens,
    )


def _agree(asked: GenerationRequest) -> None:
    """What must fit together."""
    if asked.stream_options is not None and not asked.stream:
        raise invalid("stream_options", "invalid_value", "stream_options: expected stream: true beside it")
    if isinstance(asked, ChatCompletionRequest):
        both = (asked.max_tokens, asked.max_completion_tokens)
        if None not in both and both[0] != both[1]:
            raise invalid(
                "max_tokens",
                "invalid_value",
                f"max_tokens: got {both[0]} beside max_completion_tokens {both[1]}, expected one of the two",
            )


def _text(content: str | list[TextPart], place: int) -> str:
    if isinstance(content, str):
        return content
    text = "\n".join(part.text for part in content)
    if len(text) > MAX_MESSAGE_CHARS:
        raise invalid(
            f"messages[{place}].content",
            "string_above_max_length",
            f"messages[{place}].content: got {len(text)} characters, expected at most {MAX_MESSAGE_CHARS}",
        )
    return text


class _NotJson(ValueError):
    """What the standard library's parser lets pass."""


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _NotJson(f"the key {_shown(twice)} comes twice in one object")
    return found


def _constant(word: str) -> float:
    raise _NotJson(f"{word} is no JSON number")


_decoder = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_constant)


def _json(body: bytes) -> dict[str, Any]:
    """The body's object.

    Raises:
        ApiError: if it is none, or has two meanings.
    """
    try:
        value = _decoder.decode(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise _no_json(f"it is not UTF-8, from byte {error.start} on") from None
    except json.JSONDecodeError as error:
        raise _no_json(f"{error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise _no_json("it is nested too deeply") from None
    except _NotJson as error:
        raise _no_json(str(error)) from None
    except ValueError:
        raise _no_json("it has a number with too many digits") from None
    if not isinstance(value, dict):
        raise _no_json(f"got {_kind(value)}, expected an object")
    return value


def _no_json(why: str) -> ApiError:
    return invalid(None, "invalid_json", f"the body can't be read as JSON: {why}")


def _checked(model: type[M], value: dict[str, Any]) -> M:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        raise _complaint(model, value, min(problems, key=_importance)) from None


def _importance(problem: Mapping[str, Any]) -> int:
    """Of several things that are wrong, what to say: a part of the wrong type before what it brings along."""
    kind, where = problem["type"], problem["loc"]
    if kind in {"literal_error", "union_tag_invalid"} and len(where) > 1:
        return 0
    return {"missing": 2, "extra_forbidden": 1}.get(kind, 1)


def _complaint(model: type[BaseModel], value: dict[str, Any], problem: Mapping[str, Any]) -> ApiError:
    kind: str = problem["type"]
    name = _name(value, problem["loc"], kind)
    got = problem.get("input")
    if kind == "missing":
        return invalid(name, "missing_required_parameter", f"{name} is missing")
    if kind == "extra_forbidden":
        return invalid(name, "unknown_parameter", f"{name}: there is no such parameter; leave it out")
    if kind == "string_unicode":
        return invalid(name, "invalid_value", f"{name}: got a lone surrogate, expected Unicode text")
    why = _why_unsupported(model, problem["loc"])
    if why is not None:
        return invalid(
            name,
            "unsupported_parameter",
            f"{name}: got {_shown(got)}. {why} Leave it out, or send its default",
        )
    if kind == "union_tag_invalid":
        roles = ", ".join(("system", "developer", "user", "assistant"))
        tag = problem["ctx"]["tag"]
        return invalid(
            f"{name}.role", "unsupported_value", f"{name}.role: got {_shown(tag)}, expected one of {roles}"
        )
    if kind == "union_tag_not_found":
        return invalid(f"{name}.role", "missing_required_parameter", f"{name}.role is missing")
    if kind == "literal_error" and name.endswith(".type"):
        return invalid(
            name,
            "unsupported_value",
            f"{name}: got {_shown(got)}, expected 'text': images, audio and files aren't supported",
        )
    if name.startswith("prompt[") and isinstance(got, int | list):
        return invalid(
            name,
            "unsupported_value",
            f"{name}: got token ids, expected text: it goes through the model's chat template",
        )
    code = "invalid_type" if kind.endswith(("_type", "_parsing")) else "invalid_value"
    return invalid(name, code, f"{name}: got {_shown(got)}, expected: {_expected(problem['msg'])}")


def _expected(message: str) -> str:
    return message.removeprefix("Input should be ").removeprefix("Value error, ")


def _name(value: object, where: Sequence[int | str], kind: str) -> str:
    """A place in a body as users write it: ``messages[0].content``. Steps of ours, which no body has, are left out."""
    name = ""
    for number, step in enumerate(where):
        last = number == len(where) - 1
        if isinstance(step, int) and isinstance(value, list):
            name += f"[{step}]"
            value = value[step]
        elif (
            isinstance(step, str)
            and isinstance(value, dict)
            and (step in value or (last and kind == "missing"))
        ):
            name += f".{_cut(step)}" if name else _cut(step)
            value = value.get(step)
    return name or "the body"


def _why_unsupported(model: type[BaseModel], where: Sequence[int | str]) -> str | None:
    """Why the default alone is accepted of what stands there; None: it is not so."""
    for owner, field in _fields(model, where):
        info = owner.model_fields[field]
        if isinstance(info.json_schema_extra, dict) and UNSUPPORTED in info.json_schema_extra:
            return info.description
    return None


_TURNS: dict[str, type[BaseModel]] = {
    "system": SystemMessage,
    "developer": SystemMessage,
    "user": UserMessage,
    "assistant": AssistantMessage,
}


def _fields(model: type[BaseModel], where: Sequence[int | str]) -> Iterator[tuple[type[BaseModel], str]]:
    """The fields that a place lies in, outermost first."""
    match where:
        case (str(first), *_) if first in model.model_fields:
            yield model, first
    match where:
        case ("messages", int(), str(role), str(field), *_) if role in _TURNS:
            if field in _TURNS[role].model_fields:
                yield _TURNS[role], field
        case ("stream_options", str(field), *_) if field in StreamOptions.model_fields:
            yield StreamOptions, field


def _shown(value: object) -> str:
    if isinstance(value, list | dict):
        return f"{_kind(value)} of {len(value)}" if value else f"an empty {_kind(value).split()[-1]}"
    if isinstance(value, str):
        return ascii(value) if len(value) <= _SHOWN else f"text of {len(value)} characters"
    return _kind(value) if value is None or isinstance(value, bool) else ascii(value)[:_SHOWN]


def _cut(word: str) -> str:
    return ascii(word)[1:-1][:_SHOWN]


def _kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case str():
            return "text"
        case list():
            return "an array"
        case dict():
            return "an object"
        case _:
            return "a number"
