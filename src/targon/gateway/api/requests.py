"""What users may ask, as pydantic models: requests are checked by them, and the OpenAPI document is made from them.

Every parameter of OpenAI's is named here. Those that can't be honoured take their default alone, and say why: an
answer must be one that the sampler can be replayed for, and nothing that was asked for may be ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from targon.protocol.messages import (
    MAX_COMPLETION_TOKENS,
    MAX_MESSAGE_CHARS,
    MAX_MESSAGES,
    MAX_STOP_CHARS,
    MAX_STOP_STRINGS,
    MAX_TOKEN_ID,
)

MAX_CHOICES = 16
"""Answers to one request. Each is a prover's whole work, and holds a place of its own."""
LEGACY_MAX_TOKENS = 16
"""OpenAI's default for ``/v1/completions``."""

UNSUPPORTED = "x-unsupported"
"""Marks a parameter of which the default alone is accepted; its description says why."""


def _default_only(why: str) -> Any:  # noqa: ANN401 - stands for a field's default
    return Field(default=None, description=why, json_schema_extra={UNSUPPORTED: True})


_NOT_REPLAYED = "Not supported: the sampler that answers are checked by has no such step."
_TEXT_ONLY = "Not supported: answers are text."
_NO_TOOLS = "Not supported: the model is given no tools."
_HOSTED = "Not supported: it belongs to OpenAI's own service."


class Asked(BaseModel):
    """Base of everything that users send: strict, and with nothing but its own fields."""

    model_config = ConfigDict(
        strict=True, extra="forbid", allow_inf_nan=False, frozen=True, use_attribute_docstrings=True
    )


class TextPart(Asked):
    """A piece of a message's text. Images, audio and files are not supported."""

    type: Literal["text"]
    text: str


def _form(value: object) -> str:
    return "parts" if isinstance(value, list) else "text"


Content = Annotated[
    Annotated[str, Field(max_length=MAX_MESSAGE_CHARS), Tag("text")]
    | Annotated[list[TextPart], Field(min_length=1, max_length=MAX_MESSAGES), Tag("parts")],
    Discriminator(_form),
]
"""Text, or pieces of text, which are joined by line feeds."""


class SystemMessage(Asked):
    """What the operator of an application says. ``developer`` is ``system`` by another name."""

    role: Literal["system", "developer"]
    content: Content
    name: None = _default_only("Not supported: the model's chat template knows no names.")


class UserMessage(Asked):
    """What the user says."""

    role: Literal["user"]
    content: Content
    name: None = _default_only("Not supported: the model's chat template knows no names.")


class AssistantMessage(Asked):
    """What the model said before, as it was answered."""

    role: Literal["assistant"]
    content: Content
    name: None = _default_only("Not supported: the model's chat template knows no names.")
    refusal: None = _default_only(_HOSTED)
    tool_calls: Annotated[list[Any], Field(max_length=0)] | None = _default_only(_NO_TOOLS)
    function_call: None = _default_only(_NO_TOOLS)
    audio: None = _default_only(_TEXT_ONLY)
    annotations: Annotated[list[Any], Field(max_length=0)] | None = _default_only(_HOSTED)


ChatTurn = Annotated[SystemMessage | UserMessage | AssistantMessage, Field(discriminator="role")]

StopString = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)]
Stop = Annotated[
    Annotated[StopString, Tag("text")]
    | Annotated[list[StopString], Field(max_length=MAX_STOP_STRINGS), Tag("parts")],
    Discriminator(_form),
]
Zero = Annotated[float, Field(ge=0.0, le=0.0)]
Tokens = Annotated[int, Field(ge=1, le=MAX_COMPLETION_TOKENS)]


class StreamOptions(Asked):
    """How an answer is streamed."""

    include_usage: bool | None = None
    """Send one more chunk before the end, without choices, that counts the tokens."""
    include_obfuscation: Literal[False] | None = _default_only("Not supported: chunks are not padded.")


class GenerationRequest(Asked):
    """What both forms of request have in common."""

    model: Annotated[str, Field(min_length=1, max_length=256)]
    """Which model, by a name that ``/v1/models`` lists."""
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] | None = None
    """0: always the likeliest token. Without it, 1."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """Draw from the likeliest tokens that together have this probability. Without it, 1: all."""
    top_k: Annotated[int, Field(ge=0, le=MAX_TOKEN_ID)] | None = None
    """Draw from so many of the likeliest tokens; 0: all. An extension of OpenAI's API."""
    max_tokens: Tokens | None = None
    """Longest answer, in tokens."""
    stop: Stop | None = None
    """End the answer before the first of these strings; up to four."""
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    """How many answers. Each has a receipt of its own."""
    seed: Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)] | None = None
    """Mixed into the request. Answers can't be repeated by it: the verifier's own draw decides what is sampled."""
    stream: bool | None = None
    """Send the answer piece by piece, as server-sent events."""
    stream_options: StreamOptions | None = None
    user: Annotated[str, Field(max_length=1024)] | None = None
    """Accepted, and not passed on."""
    metadata: Annotated[dict[str, str], Field(max_length=16)] | None = None
    """Accepted, and not passed on."""
    frequency_penalty: Zero | None = _default_only(_NOT_REPLAYED)
    presence_penalty: Zero | None = _default_only(_NOT_REPLAYED)
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = _default_only(_NOT_REPLAYED)


class TextFormat(Asked):
    """The only form of answers."""

    type: Literal["text"]


class ChatCompletionRequest(GenerationRequest):
    """``POST /v1/chat/completions``."""

    messages: Annotated[list[ChatTurn], Field(min_length=1, max_length=MAX_MESSAGES)]
    """The conversation so far."""
    max_completion_tokens: Tokens | None = None
    """Longest answer, in tokens; the newer name of ``max_tokens``."""
    logprobs: bool | None = None
    """Name each token of the answer with its log-probability, where the prover's engine has them."""
    top_logprobs: Annotated[int, Field(ge=0, le=0)] | None = _default_only(
        "Not supported: receipts hold the log-probability of the chosen token alone."
    )
    safety_identifier: Annotated[str, Field(max_length=1024)] | None = None
    """Accepted, and not passed on."""
    prompt_cache_key: Annotated[str, Field(max_length=1024)] | None = None
    """Accepted, and not passed on."""
    store: Literal[False] | None = _default_only("Not supported: answers are not kept for users.")
    service_tier: Literal["auto", "default"] | None = _default_only("Not supported: there is one service.")
    response_format: TextFormat | None = _default_only("Not supported: the sampler follows no grammar.")
    tools: Annotated[list[Any], Field(max_length=0)] | None = _default_only(_NO_TOOLS)
    tool_choice: Literal["none", "auto"] | None = _default_only(_NO_TOOLS)
    parallel_tool_calls: bool | None = _default_only(_NO_TOOLS)
    functions: Annotated[list[Any], Field(max_length=0)] | None = _default_only(_NO_TOOLS)
    function_call: Literal["none", "auto"] | None = _default_only(_NO_TOOLS)
    modalities: Annotated[list[Literal["text"]], Field(min_length=1, max_length=1)] | None = _default_only(
        _TEXT_ONLY
    )
    audio: None = _default_only(_TEXT_ONLY)
    prediction: None = _default_only("Not supported: answers are drawn token by token.")
    reasoning_effort: None = _default_only("Not supported: how long a model thinks is its own affair.")
    verbosity: Literal["medium"] | None = _default_only("Not supported: say it in a message.")
    web_search_options: None = _default_only(_HOSTED)
    moderation: None = _default_only(_HOSTED)
    prompt_cache_retention: None = _default_only(_HOSTED)
    prompt_cache_options: None = _default_only(_HOSTED)


def _prompt_form(value: object) -> str:
    return "prompts" if isinstance(value, list) else "prompt"


PromptText = Annotated[str, Field(max_length=MAX_MESSAGE_CHARS)]


class CompletionRequest(GenerationRequest):
    """``POST /v1/completions``, OpenAI's older form. A prompt becomes one user message of a chat."""

    prompt: Annotated[
        Annotated[PromptText, Tag("prompt")]
        | Annotated[list[PromptText], Field(min_length=1, max_length=MAX_CHOICES), Tag("prompts")],
        Discriminator(_prompt_form),
    ]
    """A text, or several, each of which is answered. Token ids are not supported: a prompt goes through the model's
    chat template."""
    logprobs: Annotated[int, Field(ge=0, le=0)] | None = None
    """0: name each token with its log-probability. More, for tokens that were not chosen, is not supported."""
    suffix: Literal[""] | None = _default_only("Not supported: nothing is written before a given text.")
    echo: Literal[False] | None = _default_only("Not supported: the prompt is not repeated.")
    best_of: Literal[1] | None = _default_only("Not supported: every answer is given out.")
