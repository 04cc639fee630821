"""A reference engine that is borrowed: several oracles are asked, and what enough of them say alike is believed.

The engine port for a light verifier, which has neither a GPU nor a model:

- **Replays** (verdicts hang on them), prompts, texts and the tokenizer: every oracle is asked at once. ``agreeing`` of
  them have to say the same (:mod:`targon.verification.agreement` says what that is of replays; of the others it is
  equality). Of replays, what the one in their midst says is used, so that one that lies by no more than rounding may
  explain isn't gone by while more are honest. An oracle that is outvoted is named, and counted. Where too few agree,
  the engine counts as unavailable: the verdict is inconclusive, and nobody is convicted on what oracles disagree about.
- **Ground truths** are asked of one oracle, the next where that is away. Queries are written with them, and the
  verifier looks at each query itself; no verdict that counts hangs on one. So one oracle at most knows a query
  beforehand.
- **Scores** aren't to be had: work that can't be replayed isn't judged, and earns nothing anyhow.

All oracles have to run the same model on the same engine in the same number format: the calibration is for one.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final

import anyio
import numpy as np
import structlog
from anyio import to_thread

from targon.engines import (
    EngineError,
    EngineUnavailable,
    GenerateTask,
    ModelIdentity,
    Replayed,
    ReplayTask,
    Scores,
    ScoreTask,
    Step,
    TaskRefused,
)
from targon.protocol.errors import MalformedMessage
from targon.protocol.messages import ChatMessage
from targon.protocol.primitives import Digest, Hotkey, TokenId, u64_hex
from targon.protocol.references import (
    MAX_TOKENS,
    GroundTruthResult,
    IdentityResult,
    PromptResult,
    ReferenceAnswer,
    ReferenceKind,
    ReferenceTask,
    ReplayResult,
    TextResult,
    TokenizerResult,
    columns_of,
)
from targon.protocol.replay import Replay
from targon.protocol.text import Decode, answer_text, stop_position
from targon.transport.refusals import quoted
from targon.verification.agreement import apart, distance
from targon.verification.reference import doubt_replayed
from targon.verifier.board import Board, unequal
from targon.verifier.lenders import Lenders
from targon.verifier.told import Told

logger = structlog.get_logger(__name__)

ASK_AGAIN_S: Final = 5.0
"""While a verifier waits at its start for enough oracles."""
PROMPTS_KEPT: Final = 256
"""Prompts whose tokens are remembered: each answer's is asked for more than once."""
PROMPT_TOKENS_KEPT: Final = 1 << 18
"""Of all of them together, in a megabyte; the newest one is kept whatever its length."""


async def borrow(
    lenders: Lenders, needed: int, told: Told | None = None, *, patience_s: float = 0.0
) -> BorrowedEngine:
    """Borrow the engine of oracles.

    Args:
        needed: how many have to agree, from 1.
        told: where to keep what they say.
        patience_s: for how long to ask again where too few answer.

    Raises:
        EngineUnavailable: if fewer answer that run the same.
    """
    if not 1 <= needed <= len(lenders.lenders):
        raise ValueError(
            f"needed: got {needed}, expected 1 to {len(lenders.lenders)}, the oracles that there are"
        )
    board = Board(lenders, needed, None)
    until = anyio.current_time() + patience_s
    while True:
        try:
            identity: ModelIdentity = await board.agreed(
                ReferenceTask(kind="identity"), _identity_of, unequal
            )
            break
        except EngineError:
            if anyio.current_time() + ASK_AGAIN_S > until:
                raise
        await anyio.sleep(ASK_AGAIN_S)
    lenders.expected = identity
    return BorrowedEngine(lenders, needed, identity, told)


class BorrowedEngine:
    """The engine port over oracles; made by :func:`borrow`."""

    def __init__(self, lenders: Lenders, needed: int, identity: ModelIdentity, told: Told | None) -> None:
        self._lenders = lenders
        self._identity = identity
        self._board = Board(lenders, needed, told)
        self._decode: Decode | None = None
        self._tokenizer_asked = False
        self._tokenizer_fetched = anyio.Lock()
        """Held while it is: what several ask for at once would lie in memory as often, from every oracle."""
        self._prompts: OrderedDict[Digest, array[int]] = OrderedDict()
        self._prompts_tokens = 0

    @property
    def identity(self) -> ModelIdentity:
        return self._identity

    @property
    def lent_by(self) -> tuple[Hotkey, ...]:
        """Whose engines it is, in order of preference."""
        return self._lenders.hotkeys

    @property
    def agreeing(self) -> int:
        """How many of them have to agree."""
        return self._board.needed

    async def generate(self, task: GenerateTask) -> AsyncGenerator[Step, None]:
        asked = _task(
            "ground_truth", messages=task.messages, sampling=task.sampling, run_key=u64_hex(task.run_key)
        )

        def fault(answer: ReferenceAnswer) -> str | None:
            return _fault_of_truth(answer, task, self._identity)

        result = (await self._board.first(asked, fault)).result
        assert isinstance(result, GroundTruthResult)  # as its task's kind
        last = len(result.token_ids) - 1
        for place, (token, text, logprob) in enumerate(
            zip(result.token_ids, result.texts, result.logprobs, strict=True)
        ):
            yield Step(token, text, logprob, result.finish_reason if place == last else None)

    async def score(self, tasks: Sequence[ScoreTask]) -> list[Scores]:
        if not tasks:
            return []
        raise TaskRefused("a borrowed engine replays, and doesn't score: this verifier has none of its own")

    async def replay(self, tasks: Sequence[ReplayTask]) -> list[Replayed]:
        results: dict[int, Replayed] = {}
        troubles: list[EngineError] = []

        async def one(place: int) -> None:
            try:
                results[place] = await self._replay(tasks[place])
            except EngineError as error:
                troubles.append(error)

        async with anyio.create_task_group() as group:
            for place in range(len(tasks)):
                group.start_soon(one, place)
        if troubles:
            raise troubles[0]
        return [results[place] for place in range(len(tasks))]

    async def _replay(self, task: ReplayTask) -> Replayed:
        asked = _task(
            "replay",
            messages=task.messages,
            token_ids=task.token_ids,
            sampling=task.sampling,
            run_key=u64_hex(task.run_key),
        )
        claimed = np.array(task.token_ids, dtype=np.int64)

        def read(answer: ReferenceAnswer) -> Replayed:
            replayed = _replayed_of(answer)
            doubt = doubt_replayed([replayed], claimed, self._identity.vocab_size)
            if doubt is not None:
                raise MalformedMessage(doubt)
            return replayed

        def compare(one: Replayed, other: Replayed) -> str | None:
            return apart(one, other, task.sampling.temperature)

        def apart_by(one: Replayed, other: Replayed) -> float:
            return distance(one, other, task.sampling.temperature)

        replayed: Replayed = await self._board.agreed(asked, read, compare, apart_by)
        return replayed

    async def prompt_token_ids(self, messages: Sequence[ChatMessage]) -> tuple[TokenId, ...]:
        asked = _task("prompt", messages=tuple(messages))
        digest = asked.digest()
        known = self._prompts.get(digest)
        if known is None:
            known = array("i", await self._board.agreed(asked, self._prompt_of, unequal))
            self._remember(digest, known)
        return tuple(map(TokenId, known))

    def _prompt_of(self, answer: ReferenceAnswer) -> tuple[TokenId, ...]:
        assert isinstance(answer.result, PromptResult)  # as its task's kind
        found = answer.result.token_ids
        if found and max(found) >= self._identity.vocab_size:
            raise MalformedMessage(f"got token {max(found)}, expected one of {self._identity.vocab_size}")
        return found

    def _remember(self, digest: Digest, tokens: array[int]) -> None:
        if digest not in self._prompts:  # else it was asked for twice at once
            self._prompts_tokens += len(tokens)
        self._prompts[digest] = tokens
        while len(self._prompts) > 1 and (
            len(self._prompts) > PROMPTS_KEPT or self._prompts_tokens > PROMPT_TOKENS_KEPT
        ):
            _, oldest = self._prompts.popitem(last=False)
            self._prompts_tokens -= len(oldest)

    async def text(self, token_ids: Sequence[TokenId], stop: Sequence[str]) -> str:
        """Text by the model's tokenizer, which is fetched once; asked for where oracles hand none out."""
        ids = tuple(token_ids)
        unknown = next((id_ for id_ in ids if not 0 <= id_ < self._identity.vocab_size), None)
        if unknown is not None:
            raise TaskRefused(
                f"token id: got {unknown}, expected one from 0 to {self._identity.vocab_size - 1}"
            )
        async with self._tokenizer_fetched:
            if not self._tokenizer_asked:
                self._decode = await self._fetch_tokenizer()
                self._tokenizer_asked = True
        if self._decode is not None:
            return answer_text(ids, self._decode, eos_ids=self._identity.eos_ids, stop=stop)
        if not ids:
            return ""
        asked = _task("text", token_ids=ids)
        text: str = await self._board.agreed(asked, _text_of, unequal)
        return text[: stop_position(text, stop)]

    async def _fetch_tokenizer(self) -> Decode | None:
        task = ReferenceTask(kind="tokenizer")
        try:
            said: str = await self._board.agreed(task, _tokenizer_of, unequal)
        except TaskRefused:
            return None
        # imported late: where oracles hand no tokenizer out, it isn't needed
        from tokenizers import Tokenizer

        try:
            tokenizer = await to_thread.run_sync(Tokenizer.from_str, said)
        except Exception as error:  # noqa: BLE001 - the library raises nothing more telling
            logger.warning("tokenizer_not_read", effect="texts are asked for", error=quoted(error, 300))
            return None
        return lambda ids: str(tokenizer.decode(list(ids), skip_special_tokens=True))

    async def check(self) -> None:
        found = await self._board.agreed(ReferenceTask(kind="identity"), _identity_of, unequal)
        if found != self._identity:
            raise EngineUnavailable(
                f"oracles run {found} now, expected {self._identity} as before; start anew"
            )

    async def aclose(self) -> None:
        """Nothing is held."""


def _task(kind: ReferenceKind, **fields: Any) -> ReferenceTask:  # noqa: ANN401 - a message's fields
    try:
        return ReferenceTask(kind=kind, **fields)
    except ValueError as error:
        raise TaskRefused(
            f"no oracle takes this task ({kind}, of at most {MAX_TOKENS} tokens): {str(error)[:200]}"
        ) from error


def _fault_of_truth(answer: ReferenceAnswer, task: GenerateTask, identity: ModelIdentity) -> str | None:
    """Why a ground truth can be none of this task's."""
    result = answer.result
    assert isinstance(result, GroundTruthResult)  # as its task's kind
    if len(result.token_ids) > task.sampling.max_tokens:
        return f"got {len(result.token_ids)} tokens, expected at most {task.sampling.max_tokens}"
    if max(result.token_ids) >= identity.vocab_size:
        return f"got token {max(result.token_ids)}, expected one of {identity.vocab_size}"
    return None


def _identity_of(answer: ReferenceAnswer) -> ModelIdentity:
    """The identity, but for how many requests are decoded at once, which may differ."""
    result, body = answer.result, answer.statement.body
    assert isinstance(result, IdentityResult)  # as its task's kind
    found = ModelIdentity(**result.model_dump(exclude={"kind", "max_batch"}), max_batch=1)
    if (body.model_digest, body.engine, body.dtype) != (found.model_digest, found.engine, found.dtype):
        raise MalformedMessage("its statement names another engine than its identity")
    return found


def _text_of(answer: ReferenceAnswer) -> str:
    assert isinstance(answer.result, TextResult)  # as its task's kind
    return answer.result.text


def _tokenizer_of(answer: ReferenceAnswer) -> str:
    assert isinstance(answer.result, TokenizerResult)  # as its task's kind
    return answer.result.tokenizer


def _replayed_of(answer: ReferenceAnswer) -> Replayed:
    result = answer.result
    assert isinstance(result, ReplayResult)  # as its task's kind
    columns = columns_of(result)
    logprobs, ranks = columns.pop("claimed_logprobs"), columns.pop("claimed_ranks")
    return Replayed(
        Replay(**columns), logprobs, ranks, prompt_tokens=result.prompt_tokens, top_k=result.top_k
    )
