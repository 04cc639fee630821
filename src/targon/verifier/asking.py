"""One attempt: its request, its delivery, and its verdict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import anyio

from targon.chain import Axon, Chain, ChainError, UnknownBlock
from targon.engines import Engine, EngineError
from targon.ledger import Attempt, Verdict
from targon.protocol import draws
from targon.protocol.keys import Signer, public_key
from targon.protocol.messages import Dialect, GenerateRequest
from targon.protocol.primitives import AttemptNumber, Block, Digest, Hotkey, u64_hex
from targon.protocol.schedule import MAX_BLOCK_AGE
from targon.transport import NeuronClient
from targon.verification import Calibration, Embedder, Judgement, judge, reason_about
from targon.verifier.challenges import Challenge
from targon.verifier.delivery import Undelivered, deliver
from targon.verifier.dialects import Offers

CANARY_TIMEOUT_S = 10.0

JUDGE_TIMEOUT_S = 120.0
"""Seconds that the reference engine has for one question about an answer; it may be busy with others."""


@dataclass(frozen=True, slots=True)
class Moment:
    """What every request of one step shares."""

    genesis: Digest
    netuid: int
    block: Block
    block_hash: Digest
    log_head: Digest
    secret: bytes


class Asker:
    """Asks provers and judges what they answer. It never raises for what a prover does."""

    def __init__(
        self,
        *,
        chain: Chain,
        engine: Engine,
        client: NeuronClient,
        signer: Signer,
        random_bytes: Callable[[int], bytes],
        calibration: Calibration | None,
        offers: Offers,
        embedder: Embedder | None = None,
    ) -> None:
        self._chain = chain
        self._engine = engine
        self._client = client
        self._signer = signer
        self._random_bytes = random_bytes
        self._calibration = calibration
        self._offers = offers
        self._embedder = embedder

    def request(
        self,
        challenge: Challenge,
        prover: Hotkey,
        attempt: AttemptNumber,
        moment: Moment,
        dialect: Dialect,
    ) -> GenerateRequest:
        """The request of one attempt. Everything in it but the salt follows from the log."""
        return GenerateRequest(
            salt=self._random_bytes(32).hex(),
            genesis=moment.genesis,
            netuid=moment.netuid,
            verifier=Hotkey(self._signer.ss58_address),
            prover=prover,
            attempt=u64_hex(attempt),
            block=moment.block,
            block_hash=moment.block_hash,
            log_head=moment.log_head,
            model=self._engine.identity.name,
            messages=challenge.messages,
            sampling=challenge.sampling(
                dialect, draws.request_seed(moment.secret, attempt, public_key(prover))
            ),
            stream=True,
        )

    async def ask(
        self, request: GenerateRequest, axon: Axon, similarity_threshold: float
    ) -> tuple[Verdict, Judgement | None]:
        """Send a request and judge what comes back.

        Args:
            similarity_threshold: of the prover's tier.

        Returns:
            The verdict, without its evidence, and the judgement from which that follows; None where there was
            no answer to judge.
        """
        answer = await deliver(self._client, axon, request, self._signer)
        if isinstance(answer, Undelivered):
            if answer.unsupported:
                self._offers.doubt(request.prover)
            return await self._judge_silence(request, answer), None
        judgement = await judge(
            request,
            answer.response,
            self._engine,
            calibration=self._calibration,
            similarity_threshold=similarity_threshold,
            deadline_s=JUDGE_TIMEOUT_S,
            embedder=self._embedder,
        )
        found = judgement.verdict
        verdict = Verdict(
            attempt=request.attempt_number,
            outcome=found.outcome,
            method=found.method,
            score=found.score,
            reason=found.reason[:2000],
            evidence=found.evidence,
            replied=True,
            tokens_per_s=answer.tokens_per_s if found.outcome == "pass" else None,
            # A receipt that failed its check is no statement of anybody's.
            receipt=None if found.method == "structure" else answer.response.receipt,
        )
        return verdict, judgement

    async def _judge_silence(self, request: GenerateRequest, answer: Undelivered) -> Verdict:
        """No whole answer. It is the prover's fault unless our own canary says that it is ours."""
        trouble = (
            "our own machine could not send"
            if answer.ours
            else await self._canary(request, stale=answer.stale)
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

    async def _canary(self, request: GenerateRequest, *, stale: bool) -> str | None:
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


def attempt_event(request: GenerateRequest, block: Block) -> Attempt:
    """What is logged before a challenge is sent."""
    return Attempt(
        block=block,
        purpose="challenge",
        prover=request.prover,
        request_digest=request.digest(),
        model=request.model,
        dialect=request.sampling.dialect,
        max_tokens=request.sampling.max_tokens,
    )
