"""What an oracle says for its engine to verifiers that have none: tasks, results, and what it signs of each.

A *light* verifier borrows its reference engine: it sends a task to oracles that run one, and goes by what enough of
them say alike. So that it can show later what it was told, an oracle signs every result, with the task that it answers.

1. A task is of one kind and has the fields of that kind, and no others (:data:`FIELDS`); what it doesn't have is empty
   or null. Its digest is that of its RFC 8785 form.
2. A result is of the task's kind. Numbers for each position of a replay are *columns*: base64 of little-endian numbers
   in the order of the positions, with the types of :data:`COLUMNS`. So NaN and infinities have a form, and nothing is
   rounded on the way.
3. Signed is ``"targon/reference/1" ‖ 0x00 ‖ RFC 8785 form of the body``, in which stand the network, who asked and who
   answered, the digests of task and result, the model and the engine, and the newest block that the oracle knew.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from targon.protocol.errors import MalformedMessage, ReferenceMismatch
from targon.protocol.keys import Signer, verify_signature
from targon.protocol.messages import (
    MAX_MESSAGES,
    MAX_SAFE_INTEGER,
    MAX_TOKEN_ID,
    ChatMessage,
    Dialect,
    FinishReason,
    Message,
    Sampling,
)
from targon.protocol.primitives import (
    SPEC_VERSION,
    Block,
    Hex8,
    Hex32,
    Hex64,
    Hotkey,
    HotkeyField,
    TokenId,
)
from targon.protocol.replay import Replay

MAX_TOKENS: Final = 8_192
"""Of a completion that is replayed or generated for a light verifier: a challenge has hundreds at most."""
MAX_PROMPT_TOKENS: Final = 131_072
MAX_TOKENIZER_CHARS: Final = 4 << 20
"""The default model's has 3.4 million. Reading one takes some twenty times as much memory; of models with larger ones,
texts are asked for."""

ReferenceKind = Literal["identity", "tokenizer", "prompt", "text", "replay", "ground_truth"]

FIELDS: Final[dict[ReferenceKind, frozenset[str]]] = {
    "identity": frozenset(),
    "tokenizer": frozenset(),
    "prompt": frozenset({"messages"}),
    "text": frozenset({"token_ids"}),
    "replay": frozenset({"messages", "token_ids", "sampling", "run_key"}),
    "ground_truth": frozenset({"messages", "sampling", "run_key"}),
}
"""What a task of each kind has."""

REPLAY_COLUMNS: Final[dict[str, np.dtype[Any]]] = {
    name: np.dtype(kind)
    for name, kind in {
        "best_ids": "<i8",
        "gaps": "<f8",
        "margins": "<f8",
        "among": "?",
        "unsure": "?",
        "on_cut": "?",
        "tail_mass": "<f8",
        "in_tail": "?",
        "rivals": "<u4",
        "claimed_rivals": "u1",
    }.items()
}
"""The fields of :class:`targon.protocol.replay.Replay`, as bytes."""

COLUMNS: Final[dict[str, np.dtype[Any]]] = REPLAY_COLUMNS | {
    "claimed_logprobs": np.dtype("<f4"),
    "claimed_ranks": np.dtype("<i4"),
}
"""What a replay says of each position, in 49 bytes: the fields of :class:`targon.protocol.replay.Replay`, the claimed
tokens' natural-log probabilities, and how many tokens are likelier than each of them."""

_DOMAIN = b"targon/reference/1\x00"

_Token = Annotated[TokenId, Field(ge=0, le=MAX_TOKEN_ID)]
_Tokens = Annotated[tuple[_Token, ...], Field(max_length=MAX_TOKENS)]
_Count = Annotated[int, Field(ge=0, le=MAX_SAFE_INTEGER)]
_Words = Annotated[str, Field(min_length=1, max_length=256)]
_Column = Annotated[str, Field(max_length=12 * MAX_TOKENS)]


class ReferenceTask(Message):
    """``POST /v1/reference``: what a light verifier asks of an oracle's engine."""

    kind: ReferenceKind
    messages: Annotated[tuple[ChatMessage, ...], Field(max_length=MAX_MESSAGES)] = ()
    token_ids: _Tokens = ()
    """The claimed tokens of a replay; the tokens whose text is wanted."""
    sampling: Sampling | None = None
    run_key: Hex8 | None = None
    """64 bits: of the sampler's noise."""

    @model_validator(mode="after")
    def _as_its_kind(self) -> Self:
        for name in ("messages", "token_ids", "sampling", "run_key"):
            given = getattr(self, name) not in ((), None)
            if given != (name in FIELDS[self.kind]):
                raise ValueError(
                    f"{name}: got {'some' if given else 'none'}, which is no task of kind {self.kind}"
                )
        return self


# -- results -----------------------------------------------------------------------------------------------


class IdentityResult(Message):
    """Which model the oracle's engine runs, and how (fields as those of :class:`targon.engines.ModelIdentity`)."""

    kind: Literal["identity"] = "identity"
    name: _Words
    model_digest: Hex32
    dtype: _Words
    engine: _Words
    vocab_size: Annotated[int, Field(ge=1, le=MAX_TOKEN_ID)]
    context_length: Annotated[int, Field(ge=1, le=MAX_TOKEN_ID)]
    eos_ids: Annotated[tuple[_Token, ...], Field(max_length=256)]
    dialects: Annotated[tuple[Dialect, ...], Field(max_length=8)]
    max_batch: Annotated[int, Field(ge=1, le=MAX_TOKEN_ID)]


class TokenizerResult(Message):
    """The model's tokenizer, in the form of a ``tokenizer.json``."""

    kind: Literal["tokenizer"] = "tokenizer"
    tokenizer: Annotated[str, Field(min_length=2, max_length=MAX_TOKENIZER_CHARS)]


class PromptResult(Message):
    """A conversation as the model reads it."""

    kind: Literal["prompt"] = "prompt"
    token_ids: Annotated[tuple[_Token, ...], Field(max_length=MAX_PROMPT_TOKENS)]


class TextResult(Message):
    """The text of an answer."""

    kind: Literal["text"] = "text"
    text: Annotated[str, Field(max_length=64 * MAX_TOKENS)]


class ReplayResult(Message):
    """What the model and the sampler say of given tokens; columns as of :data:`COLUMNS`."""

    kind: Literal["replay"] = "replay"
    positions: Annotated[int, Field(ge=1, le=MAX_TOKENS)]
    prompt_tokens: Annotated[int, Field(ge=1, le=MAX_TOKEN_ID)]
    top_k: Annotated[int, Field(ge=0, le=MAX_TOKEN_ID)]
    """How many of the most likely tokens were seen at each position; 0: the whole vocabulary."""
    best_ids: _Column
    gaps: _Column
    margins: _Column
    among: _Column
    unsure: _Column
    on_cut: _Column
    tail_mass: _Column
    in_tail: _Column
    rivals: _Column
    claimed_rivals: _Column
    claimed_logprobs: _Column
    claimed_ranks: _Column


class GroundTruthResult(Message):
    """A completion that the oracle's engine generated."""

    kind: Literal["ground_truth"] = "ground_truth"
    token_ids: Annotated[_Tokens, Field(min_length=1)]
    texts: Annotated[tuple[Annotated[str, Field(max_length=4_096)], ...], Field(max_length=MAX_TOKENS)]
    """What each token adds to the text."""
    logprobs: Annotated[tuple[float, ...], Field(max_length=MAX_TOKENS)]
    """Natural-log probability of each token, before temperature and cuts."""
    finish_reason: FinishReason

    @model_validator(mode="after")
    def _each_token(self) -> Self:
        if not len(self.token_ids) == len(self.texts) == len(self.logprobs):
            raise ValueError("texts and logprobs: expected one of each token")
        return self


ReferenceResult = Annotated[
    IdentityResult | TokenizerResult | PromptResult | TextResult | ReplayResult | GroundTruthResult,
    Field(discriminator="kind"),
]


# -- statements --------------------------------------------------------------------------------------------


class ReferenceBody(Message):
    """What an oracle signs of one result."""

    spec_version: Literal[1] = SPEC_VERSION
    genesis: Hex32
    netuid: Annotated[int, Field(ge=0, lt=65_536)]
    oracle: HotkeyField
    verifier: HotkeyField
    block: Annotated[Block, Field(ge=0, le=MAX_SAFE_INTEGER)]
    """The newest one that the oracle knew."""
    task: Hex32
    """Digest of the task."""
    model_digest: Hex32
    engine: _Words
    dtype: _Words
    result: Hex32
    """Digest of the result."""


class ReferenceStatement(Message):
    """What an oracle says for its engine."""

    body: ReferenceBody
    signature: Hex64
    """sr25519 by the oracle's hotkey over :func:`signed_reference`."""


class ReferenceAnswer(Message):
    """The answer to ``POST /v1/reference``."""

    result: ReferenceResult
    statement: ReferenceStatement


def signed_reference(body: ReferenceBody) -> bytes:
    """The exact bytes that an oracle signs of a result."""
    return _DOMAIN + body.to_bytes()


def state(body: ReferenceBody, signer: Signer) -> ReferenceStatement:
    """Sign what an engine of ours said."""
    return ReferenceStatement(body=body, signature=bytes(signer.sign(signed_reference(body))).hex())


def check_reference(
    answer: ReferenceAnswer,
    task: ReferenceTask,
    *,
    genesis: str,
    netuid: int,
    oracle: Hotkey,
    verifier: Hotkey,
) -> None:
    """Check that an answer is the oracle's own, to this task, for this verifier.

    Which model and engine it comes from is for the caller to look at.

    Raises:
        ReferenceMismatch: if it speaks of something else; the field is named.
        InvalidSignature: if the oracle's hotkey did not sign it.
    """
    body = answer.statement.body
    expected: dict[str, object] = {
        "genesis": genesis,
        "netuid": netuid,
        "oracle": oracle,
        "verifier": verifier,
        "task": task.digest(),
        "result": answer.result.digest(),
    }
    for field, value in expected.items():
        if getattr(body, field) != value:
            raise ReferenceMismatch(field, getattr(body, field), value)
    if answer.result.kind != task.kind:
        raise ReferenceMismatch("kind", answer.result.kind, task.kind)
    if isinstance(answer.result, ReplayResult) and answer.result.positions != len(task.token_ids):
        raise ReferenceMismatch("positions", answer.result.positions, len(task.token_ids))
    verify_signature(body.oracle, signed_reference(body), bytes.fromhex(answer.statement.signature))


# -- columns -----------------------------------------------------------------------------------------------


def replay_result(
    replay: Replay,
    claimed_logprobs: NDArray[np.float32],
    claimed_ranks: NDArray[np.int32],
    *,
    prompt_tokens: int,
    top_k: int,
) -> ReplayResult:
    """A replay as it is told. Arrays are (positions,)."""
    arrays: dict[str, NDArray[Any]] = {name: getattr(replay, name) for name in Replay.__slots__}
    arrays |= {"claimed_logprobs": claimed_logprobs, "claimed_ranks": claimed_ranks}
    columns: dict[str, Any] = {
        name: base64.b64encode(arrays[name].astype(kind).tobytes()).decode() for name, kind in COLUMNS.items()
    }
    return ReplayResult(positions=replay.best_ids.size, prompt_tokens=prompt_tokens, top_k=top_k, **columns)


def columns_of(result: ReplayResult) -> dict[str, NDArray[Any]]:
    """A replay's columns as arrays, by name: (positions,) of the types of :data:`COLUMNS`.

    Raises:
        MalformedMessage: if a column is no base64, or not as long as there are positions.
    """
    columns = {}
    for name, kind in COLUMNS.items():
        try:
            data = base64.b64decode(getattr(result, name), validate=True)
        except binascii.Error as error:
            raise MalformedMessage(f"{name}: expected base64: {error}") from error
        if len(data) != result.positions * kind.itemsize:
            raise MalformedMessage(
                f"{name}: got {len(data)} bytes, expected {kind.itemsize} for each of {result.positions} positions"
            )
        if kind == np.dtype("?") and any(byte > 1 for byte in data):
            raise MalformedMessage(f"{name}: got bytes that are neither 0 nor 1")
        columns[name] = np.frombuffer(data, kind)
    return columns
