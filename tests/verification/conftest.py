"""A request, an honest answer to it, and a reference engine whose every token is known."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence

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

EOS = TokenId(2)
VERIFIER = Keypair.create_from_uri("//Verifier")
PROVER = Keypair.create_from_uri("//Prover")


class LetterEngine:
    """Token 10 + i is the i-th letter; always answers with the same tokens."""

    def __init__(self, answer: Sequence[int], reason: FinishReason = "length") -> None:
        self.answer = answer
        self.reason = reason
        self.down = False

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
        if self.down:
            raise EngineUnavailable("the engine is down")
        for place, token in enumerate(self.answer, start=1):
            yield Step(TokenId(token), "", -1.0, self.reason if place == len(self.answer) else None)

    async def score(self, tasks: Sequence[ScoreTask]) -> list[Scores]:
        raise NotImplementedError

    async def replay(self, tasks: Sequence[ReplayTask]) -> list[Replayed]:
        raise NotImplementedError

    async def prompt_token_ids(self, messages: Sequence[ChatMessage]) -> tuple[TokenId, ...]:
        raise NotImplementedError

    async def text(self, token_ids: Sequence[TokenId], stop: Sequence[str]) -> str:
        if self.down:
            raise EngineUnavailable("the engine is down")
        return "".join(chr(ord("a") + token - 10) for token in token_ids if token != EOS)

    async def check(self) -> None:
        raise NotImplementedError

    async def aclose(self) -> None:
        raise NotImplementedError


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
    ) -> GenerateResponse:
        completion = Completion(
            salt="05" * 32,
            request_digest=request_digest or request.digest(),
            token_ids=tuple(TokenId(token) for token in token_ids),
            finish_reason=finish_reason,
            text="whatever",
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
