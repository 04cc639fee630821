"""Whether our own side is in order: asked before anybody is charged for silence."""

from __future__ import annotations

import anyio

from targon.chain import Chain, ChainError, UnknownBlock
from targon.engines import Engine, EngineError
from targon.ledger import Verdict
from targon.protocol.messages import GenerateRequest
from targon.protocol.schedule import MAX_BLOCK_AGE
from targon.verification import reason_about
from targon.verifier.delivery import Undelivered

CANARY_TIMEOUT_S = 10.0


class Canary:
    """Looks at the verifier's own chain and engine."""

    def __init__(self, chain: Chain, engine: Engine) -> None:
        self._chain = chain
        self._engine = engine

    async def judge_silence(self, request: GenerateRequest, answer: Undelivered) -> Verdict:
        """No whole answer. It is the prover's fault unless our own canary says that it is ours."""
        trouble = (
            "our own machine could not send" if answer.ours else await self._look(request, stale=answer.stale)
        )
        reason = answer.reason if trouble is None else f"{trouble}; meanwhile: {answer.reason}"
        return Verdict(
            attempt=request.attempt_number,
            outcome="fail" if trouble is None else "inconclusive",
            method="delivery",
            score=0.0,
            reason=reason_about(request.sampling.dialect, reason)[:2000],
            replied=answer.replied,
        )

    async def _look(self, request: GenerateRequest, *, stale: bool) -> str | None:
        """What of our own is out of order, in words; None if all is well."""
        try:
            with anyio.fail_after(CANARY_TIMEOUT_S):
                current = await self._chain.block()
                await self._engine.check()
                if stale and current - request.block > MAX_BLOCK_AGE:
                    return f"we sent block {request.block} too late: the chain is at block {current}"
                if stale and await self._chain.block_hash(request.block) != request.block_hash:
                    return f"our block {request.block} is not the chain's any more"
        except UnknownBlock as error:
            return f"our chain went backwards: {error}"
        except (ChainError, EngineError) as error:
            return f"our own side was out of order: {error}"
        except TimeoutError:
            return f"our own chain or engine did not answer within {CANARY_TIMEOUT_S:g} s"
        return None
