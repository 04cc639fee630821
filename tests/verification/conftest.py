"""A request, an honest answer to it, and a reference engine whose every token is known."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence

import numpy as np
import pytest
from bittensor.keyfiles import Keypair

from targon.engines import (
    EngineUnavailable,
    GenerateTask,
    ModelIdentity,
    Replayed,
    ReplayTask,
    Scores,
    ScoreTask,
    Step,
)
from targon.protocol import receipts
from targon.protocol.messages import (
    ChatMessage,
    Completion,
    FinishReason,
    GenerateRequest,
    GenerateResponse,
    Sampling,
)
from targon.protocol.primitives import Block, Digest, Hotkey, TokenId
from targon.protocol.replay import replay_tokens

EOS = TokenId(2)
VERIFIER = Keypair.create_from_uri("//Verifier")
PROVER = Keypair.create_from_uri("//Prover")


class LetterEngine:
    """Token 10 + i is the i-th letter. It is sure of one answer, and draws no other whatever the noise."""

    def __init__(self, answer: Sequence[int]) -> None:
        self.answer = answer
        self.down = False
        self.prompt = (TokenId(1),)
        self.unlikely = -60.0  # log-probability of every token but the right one
        self.seen = 0  # of how many tokens a replay says that it was made; 0: all

    @property
    def identity(self) -> ModelIdentity:
        return ModelIdentity(
            name="letters",
            model_digest=Digest("d" * 64),
            dtype="float32",
            engine="letters 1",
            vocab_size=36,
            context_length=512,
            eos_ids=(EOS,),
            dialects=("targon/1", "greedy"),
            max_batch=1,
        )

    async def generate(self, task: GenerateTask) -> AsyncGenerator[Step, None]:
        raise NotImplementedError
        yield  # type: ignore[unreachable]  # a generator, of nothing

    async def score(self, tasks: Sequence[ScoreTask]) -> list[Scores]:
        raise NotImplementedError

    async def replay(self, tasks: Sequence[ReplayTask]) -> list[Replayed]:
        if self.down:
            raise EngineUnavailable("the engine is down")
        return [self._replay(task) for task in tasks]

    def _replay(self, task: ReplayTask) -> Replayed:
        count, vocabulary = len(task.token_ids), self.identity.vocab_size
        logprobs = np.full((count, vocabulary), self.unlikely, dtype=np.float32)
        sure = [*self.answer, *([EOS] * count)][:count]
        logprobs[np.arange(count), sure] = 0.0
        claimed = np.array(task.token_ids)
        own = logprobs[np.arange(count), claimed]
        replay = replay_tokens(
            np.tile(np.arange(vocabulary), (count, 1)),
            logprobs,
            claimed,
            own,
            vocab_size=vocabulary,
            sampling=task.sampling,
            run_key=task.run_key,
        )
        return Replayed(replay, own, (own < 0).astype(np.int32), prompt_tokens=1, top_k=self.seen)

    async def prompt_token_ids(self, messages: Sequence[ChatMessage]) -> tuple[TokenId, ...]:
        await self.check()
        return self.prompt

    async def text(self, token_ids: Sequence[TokenId], stop: Sequence[str]) -> str:
        if self.down:
            raise EngineUnavailable("the engine is down")
        return letters(token_ids)

    async def check(self) -> None:
        if self.down:
            raise EngineUnavailable("the engine is down")

    async def aclose(self) -> None:
        raise NotImplementedError


def letters(token_ids: Sequence[int], stop: Sequence[str] = ()) -> str:
    """The text of tokens, up to the first stop string."""
    text = "".join(chr(ord("a") + token - 10) for token in token_ids if token != EOS)
    for string in stop:
        text = text.partition(string)[0]
    return text


@pytest.fixture
def engine() -> LetterEngine:
    return LetterEngine([10, 11, 12, 13])


@pytest.fixture
def make_request() -> Callable[..., GenerateRequest]:
    def make(max_tokens: int = 4, stop: tuple[str, ...] = ()) -> GenerateRequest:
        return GenerateRequest(
            salt="01" * 32,
            genesis="02" * 32,
            netuid=4,
            verifier=Hotkey(VERIFIER.ss58_address),
            prover=Hotkey(PROVER.ss58_address),
            attempt="00000000000000ff",
            block=Block(77),
            block_hash="03" * 32,
            log_head="04" * 32,
            model="letters",
            messages=(ChatMessage(role="user", content="Say the letters."),),
            sampling=Sampling(seed="00" * 8, temperature=0.8, max_tokens=max_tokens, stop=stop),
        )

    return make


@pytest.fixture
def answer() -> Callable[..., GenerateResponse]:
    """An answer that the prover signed, whatever it says."""

    def make(
        request: GenerateRequest,
        token_ids: Sequence[int] = (10, 11, 12, 13),
        finish_reason: FinishReason = "length",
        *,
        logprobs: tuple[float, ...] | None = None,
        request_digest: str | None = None,
        signer: Keypair = PROVER,
        text: str | None = None,
    ) -> GenerateResponse:
        completion = Completion(
            salt="05" * 32,
            request_digest=request_digest or request.digest(),
            token_ids=tuple(TokenId(token) for token in token_ids),
            finish_reason=finish_reason,
            text=letters(token_ids, request.sampling.stop) if text is None else text,
            logprobs=logprobs,
        )
        receipt = receipts.issue(
            request,
            completion,
            model_digest=Digest("d" * 64),
            issued_at=1_800_000_000,
            salt=bytes(32),
            signer=signer,
        )
        return GenerateResponse(completion=completion, receipt=receipt)

    return make
