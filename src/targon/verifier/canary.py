"""Whether our own side is in order: asked before anybody is charged for silence.

Two refusals are excuses, if they are true: that the block was too old, which our chain knows, and that no engine could
do what was asked, which our engine knows. What counts of a block is its age when the request was sent: otherwise a
prover could hold what it doesn't like until it is old.
"""

from __future__ import annotations

import math

import anyio

from targon.chain import Chain, ChainError, UnknownBlock
from targon.engines import Engine, EngineError, TaskRefused
from targon.ledger import Verdict
from targon.protocol.errors import UnsupportedSampling
from targon.protocol.messages import GenerateRequest
from targon.protocol.sampler import check_sampling
from targon.protocol.schedule import MAX_BLOCK_AGE
from targon.verification import reason_about
from targon.verifier.delivery import Undelivered

CANARY_TIMEOUT_S = 10.0


class Canary:
    """Looks at the verifier's own chain and engine."""

    def __init__(self, chain: Chain, engine: Engine) -> None:
        self._chain = chain
        self._engine = engine

    async def judge_silence(self, request: GenerateRequest, answer: Undelivered, waited_s: float) -> Verdict:
        """No whole answer. It is the prover's fault unless our own canary says that it is ours.

        Args:
            waited_s: seconds from when the request was sent.
        """
        if answer.ours:
            trouble: str | None = "our own machine could not send"
        else:
            trouble = await self._look(request, answer, waited_s)
        reason = answer.reason if trouble is None else f"{trouble}; meanwhile: {answer.reason}"
        return Verdict(
            attempt=request.attempt_number,
            outcome="fail" if trouble is None else "inconclusive",
            method="delivery",
            score=0.0,
            reason=reason_about(request.sampling.dialect, reason)[:2000],
            replied=answer.replied,
        )

    async def unservable(self, request: GenerateRequest) -> str | None:
        """What our own engine has against a request, too, in words that quote nothing of it; None: nothing.

        Raises:
            EngineError: if it doesn't say.
            TimeoutError: if it takes too long.
        """
        sampling, context = request.sampling, self._engine.identity.context_length
        try:
            check_sampling(sampling)
            with anyio.fail_after(CANARY_TIMEOUT_S):
                prompt = len(await self._engine.prompt_token_ids(request.messages))
        except UnsupportedSampling as error:
            return f"there is no sampler for the request's {error.parameter}"
        except TaskRefused:
            return "the model's chat template refuses these messages"
        if prompt + sampling.max_tokens > context:
            return (
                f"{prompt} tokens of prompt and {sampling.max_tokens} of answer exceed the model's {context}"
            )
        return None

    async def refuses(self, request: GenerateRequest) -> bool:
        """Whether our own engine has something against a request, too; not while it doesn't say."""
        try:
            return await self.unservable(request) is not None
        except (EngineError, TimeoutError):
            return False

    async def _look(self, request: GenerateRequest, answer: Undelivered, waited_s: float) -> str | None:
        """What of our own is out of order, in words; None if all is well."""
        try:
            with anyio.fail_after(CANARY_TIMEOUT_S):
                current = await self._chain.block()
                await self._engine.check()
                if answer.unservable and (why := await self.unservable(request)) is not None:
                    return f"we asked for what can't be done: {why}"
                if answer.stale:
                    passed = math.ceil(waited_s / (await self._chain.info()).block_seconds)
                    if current - passed - request.block > MAX_BLOCK_AGE:
                        return (
                            f"we sent block {request.block} too late: the chain is at block {current}, "
                            f"and the refusal took {waited_s:.0f} s"
                        )
                if answer.stale and await self._chain.block_hash(request.block) != request.block_hash:
                    return f"our block {request.block} is not the chain's any more"
        except UnknownBlock as error:
            return f"our chain went backwards: {error}"
        except (ChainError, EngineError) as error:
            return f"our own side was out of order: {error}"
        except TimeoutError:
            return f"our own chain or engine did not answer within {CANARY_TIMEOUT_S:g} s"
        return None
