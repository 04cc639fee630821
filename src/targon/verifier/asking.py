"""One attempt: its request, its delivery, and its verdict."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass

import anyio

from targon.chain import Axon
from targon.engines import Engine
from targon.ledger import Attempt, Purpose, Route, Verdict
from targon.protocol import draws
from targon.protocol.keys import Signer, public_key
from targon.protocol.messages import ChatMessage, GenerateRequest, Sampling
from targon.protocol.primitives import AttemptNumber, Block, Digest, Hotkey, u64_hex
from targon.transport import NeuronClient
from targon.verification import Calibration, Embedder, Judgement, check_model, judge
from targon.verifier.canary import Canary
from targon.verifier.delivery import Undelivered, deliver, inconclusive_delivery
from targon.verifier.dialects import Offers
from targon.verifier.retained import Content

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
        engine: Engine,
        canary: Canary,
        client: NeuronClient,
        signer: Signer,
        random_bytes: Callable[[int], bytes],
        calibration: Calibration | None,
        offers: Offers,
        embedder: Embedder | None = None,
    ) -> None:
        self._engine = engine
        self.canary = canary
        self._client = client
        self._signer = signer
        self._random_bytes = random_bytes
        self._calibration = calibration
        self._offers = offers
        self._embedder = embedder

    def request(
        self,
        messages: tuple[ChatMessage, ...],
        sampling: Sampling,
        prover: Hotkey,
        attempt: AttemptNumber,
        moment: Moment,
        salt: bytes | None = None,
    ) -> GenerateRequest:
        """The request of one attempt, the same for a challenge and for an inference. Everything in a challenge but the
        salt follows from the log.

        Args:
            sampling: its seed is drawn here.
        """
        seed = draws.request_seed(moment.secret, attempt, public_key(prover))
        return GenerateRequest(
            salt=(salt or self._random_bytes(32)).hex(),
            genesis=moment.genesis,
            netuid=moment.netuid,
            verifier=Hotkey(self._signer.ss58_address),
            prover=prover,
            attempt=u64_hex(attempt),
            block=moment.block,
            block_hash=moment.block_hash,
            log_head=moment.log_head,
            model=self._engine.identity.name,
            messages=messages,
            sampling=sampling.model_copy(update={"seed": u64_hex(seed)}),
            stream=True,
        )

    async def ask(
        self,
        request: GenerateRequest,
        axon: Axon,
        similarity_threshold: float,
        excused: Callable[[Undelivered], bool],
    ) -> tuple[Verdict, Judgement | None, Content | None]:
        """Send a request and judge what comes back.

        Args:
            similarity_threshold: of the prover's tier.
            excused: whether a refusal for having too much to do is nobody's fault.

        Returns:
            The verdict, without its evidence; the judgement from which that follows, and the answer; None where there
            was no answer to judge.
        """
        sent_s = anyio.current_time()
        answer = await deliver(self._client, axon, request, self._signer)
        if isinstance(answer, Undelivered):
            if answer.unsupported:
                self._offers.doubt(request.prover)
            if answer.full and excused(answer):
                why = f"it was sent more than it takes: {answer.reason}"
                return (
                    inconclusive_delivery(
                        request.attempt_number, request.sampling.dialect, why, replied=True
                    ),
                    None,
                    None,
                )
            waited_s = anyio.current_time() - sent_s
            return await self.canary.judge_silence(request, answer, waited_s), None, None
        content = Content(request=request, response=answer.response, tokens_per_s=answer.tokens_per_s)
        return *await self.judge(content, similarity_threshold), content

    async def judge(
        self, content: Content, similarity_threshold: float, *, counted: bool = True
    ) -> tuple[Verdict, Judgement]:
        """Judge a whole answer, of a challenge or of an audited inference.

        Args:
            similarity_threshold: of the prover's tier.
            counted: as its attempt says.
        """
        request, response = content.request, content.response
        other = check_model(response, self._engine.identity.model_digest)
        if other is not None:
            judgement = Judgement(other)
        else:
            judgement = await judge(
                request,
                response,
                self._engine,
                calibration=self._calibration,
                similarity_threshold=similarity_threshold,
                deadline_s=JUDGE_TIMEOUT_S,
                embedder=self._embedder,
                counted=counted,
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
            tokens_per_s=content.tokens_per_s if found.outcome == "pass" else None,
            # A receipt that failed its check is no statement of anybody's.
            receipt=None if found.method == "structure" else response.receipt,
        )
        return verdict, judgement


def attempt_event(
    request: GenerateRequest,
    block: Block,
    *,
    purpose: Purpose = "challenge",
    digest: Digest | None = None,
    counted: bool = True,
    route: Route | None = None,
) -> Attempt:
    """What is logged before a request is sent.

    Args:
        digest: the request's, where it is known already.
    """
    return Attempt(
        block=block,
        purpose=purpose,
        prover=request.prover,
        request_digest=digest or request.digest(),
        model=request.model,
        dialect=request.sampling.dialect,
        max_tokens=request.sampling.max_tokens,
        counted=counted,
        route=route,
    )


def salted(random: bytes, user_seed: int | None) -> bytes:
    """The salt of a user's request: 32 random bytes, into which the user's own seed is mixed by HMAC-SHA256. What is
    drawn doesn't depend on it."""
    if user_seed is None:
        return random
    return hmac.new(random, b"user seed" + user_seed.to_bytes(8, "big", signed=True), hashlib.sha256).digest()
