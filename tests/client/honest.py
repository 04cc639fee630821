"""Somebody behind a real gateway who fulfils orders honestly: the tiny engine, a prover's key and a verifier's."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator

from targon.engines import GenerateTask
from targon.gateway.ports import Began, Delta, Finished
from targon.protocol import Completion, Digest, GenerateRequest, Sampling
from targon.protocol.draws import request_run_key
from targon.protocol.orders import Order
from targon.protocol.primitives import Block, Hotkey
from targon.transport.errands import AuditVerdict, FiledReceipt, OfferedModel, Settled
from tests.client.gateway import GENESIS, MODEL_DIGEST, PROVER, VERIFIER, signed, statement
from tests.tiny_engine import TinyEngine

MODEL = "SmolLM2-135M-Instruct"
"""What the tiny engine passes for: the pages' scripts ask for it."""
AUDITED = AuditVerdict(outcome="pass", method="divergence", score=1.0, reason="as drawn", record=10**6)


class HonestOrders:
    """The port of orders."""

    def __init__(self) -> None:
        self.filed: dict[Digest, FiledReceipt] = {}
        self.engine = TinyEngine()
        self._chance = random.Random(1)

    def models(self) -> tuple[OfferedModel, ...]:
        return (OfferedModel(MODEL, Digest(MODEL_DIGEST), 2048, 1024),)

    async def fulfil(self, order: Order) -> AsyncGenerator[Began | Delta | Finished, None]:
        request = GenerateRequest(
            salt=self._chance.randbytes(32).hex(),
            genesis=GENESIS,
            netuid=4,
            verifier=Hotkey(VERIFIER.ss58_address),
            prover=Hotkey(PROVER.ss58_address),
            attempt=f"{len(self.filed):016x}",
            block=Block(77),
            block_hash="03" * 32,
            log_head="04" * 32,
            model=order.model,
            messages=order.messages,
            sampling=Sampling(
                dialect="greedy" if order.temperature == 0 else "targon/1",
                seed=self._chance.randbytes(8).hex(),
                temperature=order.temperature,
                top_p=order.top_p,
                top_k=order.top_k,
                max_tokens=order.max_tokens or 20,
                stop=order.stop,
                choice=order.choice,
            ),
            stream=True,
        )
        receipt_id = request.digest()
        yield Began(receipt_id)
        steps = []
        task = GenerateTask(request.messages, request.sampling, request_run_key(request))
        async for step in self.engine.generate(task):
            steps.append(step)
            yield Delta(step.text, (step.token_id,), None if step.logprob is None else (step.logprob,))
        completion = Completion(
            salt=self._chance.randbytes(32).hex(),
            request_digest=receipt_id,
            token_ids=tuple(step.token_id for step in steps),
            finish_reason=steps[-1].finish_reason or "length",
            text="".join(step.text for step in steps),
            logprobs=tuple(step.logprob for step in steps if step.logprob is not None),
        )
        response = signed(request, completion)
        told = statement(response)
        record = told.countersignature.body.record
        self.filed[receipt_id] = FiledReceipt(response.receipt, told.countersignature, told.block, AUDITED)
        yield Finished(
            finish_reason=completion.finish_reason,
            prompt_tokens=7,
            completion_tokens=len(completion.token_ids),
            settled=Settled(receipt_id, record, Digest(told.countersignature.body.record_hash)),
            request=request,
            response=response,
        )

    async def receipt(self, receipt_id: Digest) -> FiledReceipt | None:
        return self.filed.get(receipt_id)
