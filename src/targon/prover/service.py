"""The handlers behind a prover's gate: ``POST /v1/generate`` and ``GET /v1/status``."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial

import anyio
import structlog
from prometheus_client import CollectorRegistry
from starlette.types import Receive, Send

from targon import __version__
from targon.engines.batches import batches_of
from targon.engines.errors import EngineUnavailable, TaskRefused
from targon.engines.port import Engine, GenerateTask, Step
from targon.protocol import receipts
from targon.protocol.draws import run_key
from targon.protocol.keys import Signer, public_key
from targon.protocol.messages import (
    Completion,
    FinishReason,
    GenerateRequest,
    GenerateResponse,
    ProverStatus,
    TokenEvent,
)
from targon.protocol.primitives import Digest, Hotkey, TokenId
from targon.prover.attempts import AnsweredAttempts
from targon.prover.checks import check_parties, check_task, parse_request
from targon.prover.metrics import ProverMetrics
from targon.prover.patience import Patience
from targon.prover.stake_queue import StakeQueue
from targon.prover.view import ChainView
from targon.transport import Clock, Code, EventStream, Refusal, SignedRequest, send_json, while_connected

SALT_BYTES = 32
DRAIN_POLL_S = 0.05
RESTART_S = 30.0
"""What a caller is told to wait where the prover is about to be started again."""


class ProverService:
    """Answers signed requests with an engine, and signs what it answers.

    Args:
        capacity: how many requests one verifier may have here at once, as it is told.
        random_bytes: where salts come from: the operating system's randomness, but for tests.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        view: ChainView,
        signer: Signer,
        queue: StakeQueue,
        capacity: int,
        step_timeout_s: float,
        registry: CollectorRegistry,
        clock: Clock,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._engine = engine
        self._view = view
        self._signer = signer
        self._hotkey = Hotkey(signer.ss58_address)
        self._queue = queue
        self._capacity = capacity
        self._step_timeout_s = step_timeout_s
        self._clock = clock
        self._random_bytes = random_bytes
        self._attempts = AnsweredAttempts()
        self._metrics = ProverMetrics(registry, queue)
        self._log = structlog.get_logger("targon.prover")
        # asking each time costs as much as telling
        self._tells_each = self._log.is_enabled_for(logging.DEBUG)
        self._engine_trouble: str | None = None
        self._draining = False

    @property
    def engine_trouble(self) -> str | None:
        """What the engine failed with last; None while it works."""
        return self._engine_trouble

    async def drain(self) -> None:
        """Take no more requests, and return when those that were taken have ended."""
        self._draining = True
        while self._queue.running or self._queue.waiting:
            await anyio.sleep(DRAIN_POLL_S)

    async def status(self, signed: SignedRequest, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """``GET /v1/status``."""
        identity = self._engine.identity
        status = ProverStatus(
            version=__version__,
            hotkey=self._hotkey,
            models=(identity.name,),
            dialects=identity.dialects,
            capacity=0 if self._draining else self._capacity,
            queued=self._queue.waiting,
            running=self._queue.running,
        )
        await send_json(send, 200, status.to_bytes())

    async def generate(self, signed: SignedRequest, receive: Receive, send: Send) -> None:
        """``POST /v1/generate``. The engine is let go as soon as the caller is."""
        started_s = self._clock.monotonic_s()
        if self._draining:
            raise Refusal(
                Code.OVERLOADED, "this prover is being restarted; try again", retry_after_s=RESTART_S
            )
        request = parse_request(signed.body)
        info = self._view.info
        check_parties(
            request, caller=signed.caller, us=self._hotkey, netuid=info.netuid, genesis=info.genesis
        )
        check_task(request, self._engine.identity)
        await self._view.check_block(request.block, Digest(request.block_hash))
        neuron = self._view.neuron(signed.caller)
        stake = neuron.stake if neuron is not None else 0.0
        with self._attempts.claim(request, self._view.head):
            await while_connected(receive, partial(self._answer, request, stake, send, started_s))

    async def _answer(self, request: GenerateRequest, stake: float, send: Send, started_s: float) -> None:
        async with self._queue.slot(stake):
            draft = _Draft()
            stream = EventStream(send) if request.stream else None
            try:
                await self._draft(request, draft, stream, started_s)
                response = self._sign(request, draft)
            except Refusal as refusal:
                if stream is not None and stream.started:
                    await stream.error(refusal)
                raise
        if stream is not None:
            await stream.done(response)
        else:
            await send_json(send, 200, response.to_bytes())
        self._metrics.answered.inc()
        if self._tells_each:
            self._log.debug(
                "answered",
                verifier=request.verifier,
                attempt=request.attempt,
                tokens=len(draft.token_ids),
                seconds=round(self._clock.monotonic_s() - started_s, 3),
            )

    async def _draft(
        self, request: GenerateRequest, draft: _Draft, stream: EventStream | None, started_s: float
    ) -> None:
        """Take the engine's steps as they come, and tell them; its failures turned into refusals."""
        task = GenerateTask(request.messages, request.sampling, self._run_key(request))
        with Patience(self._step_timeout_s) as patience:
            async with aclosing(batches_of(self._engine, task)) as batches:
                while True:
                    patience.begin()
                    try:
                        batch = await anext(batches, None)
                    except TaskRefused as error:
                        raise Refusal(Code.TASK_REFUSED, str(error)) from error
                    except EngineUnavailable as error:
                        raise self._engine_failed(str(error)) from error
                    except TimeoutError as error:
                        raise self._engine_failed("it gave up waiting") from error
                    patience.end()
                    if batch is None:
                        break
                    if not draft.token_ids:
                        self._metrics.first_token.observe(self._clock.monotonic_s() - started_s)
                    self._metrics.tokens.inc(len(batch))
                    event = draft.add(batch)
                    if stream is not None:
                        await stream.token(event)
        if patience.lost:
            raise self._engine_failed(f"no token within {self._step_timeout_s:g} s")

    def _run_key(self, request: GenerateRequest) -> int:
        return run_key(
            int(request.sampling.seed, 16),
            public_key(request.verifier),
            request.attempt_number,
            public_key(request.prover),
            bytes.fromhex(request.block_hash),
        )

    def _sign(self, request: GenerateRequest, draft: _Draft) -> GenerateResponse:
        if draft.finish_reason is None:
            raise self._engine_failed("the engine stopped without saying why")
        self._engine_works()
        completion = Completion(
            salt=self._random_bytes(SALT_BYTES).hex(),
            request_digest=request.digest(),
            token_ids=tuple(draft.token_ids),
            finish_reason=draft.finish_reason,
            text="".join(draft.texts),
            logprobs=tuple(draft.logprobs) if all(map(math.isfinite, draft.logprobs)) else None,
        )
        receipt = receipts.issue(
            request,
            completion,
            model_digest=self._engine.identity.model_digest,
            issued_at=self._clock.now_ns() // 1_000_000_000,
            salt=self._random_bytes(SALT_BYTES),
            signer=self._signer,
        )
        return GenerateResponse(completion=completion, receipt=receipt)

    def _engine_failed(self, why: str) -> Refusal:
        if self._engine_trouble is None:
            self._log.error("engine unavailable", error=why)
        self._engine_trouble = why
        return Refusal(
            Code.ENGINE_UNAVAILABLE,
            "the engine behind this prover does not work now; try again, or elsewhere",
            retry_after_s=10.0,
        )

    def _engine_works(self) -> None:
        if self._engine_trouble is not None:
            self._log.info("engine works again")
        self._engine_trouble = None


@dataclass(slots=True)
class _Draft:
    """An answer while it grows."""

    token_ids: list[TokenId] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: FinishReason | None = None

    def add(self, batch: Sequence[Step]) -> TokenEvent:
        """Take steps that came together; they are one event."""
        token_ids = tuple([step.token_id for step in batch])
        texts = [step.text for step in batch]
        logprobs = tuple([float(step.logprob) for step in batch])
        self.token_ids += token_ids
        self.texts += texts
        self.logprobs += logprobs
        self.finish_reason = batch[-1].finish_reason
        return TokenEvent(
            token_ids=token_ids,
            text="".join(texts),
            logprobs=logprobs if all(map(math.isfinite, logprobs)) else None,
        )
