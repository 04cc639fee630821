"""Signed answers of the tiny engine."""

from __future__ import annotations

from typing import Any

from bittensor.keyfiles import Keypair

from targon.engines import GenerateTask
from targon.protocol import receipts
from targon.protocol.draws import request_run_key
from targon.protocol.messages import ChatMessage, Completion, GenerateRequest, GenerateResponse, Sampling
from targon.protocol.primitives import Block, Digest, Hotkey
from tests.tiny_engine import TinyEngine

VERIFIER = Keypair.create_from_uri("//Verifier")
PROVER = Keypair.create_from_uri("//Prover")
LENGTH = 12


def tiny_request(number: int = 0, prover: Keypair = PROVER, **sampling: Any) -> GenerateRequest:
    """A request to the tiny engine; each number has a prompt and a seed of its own."""
    parameters = {"seed": f"{number:016x}", "temperature": 0.8, "max_tokens": LENGTH, **sampling}
    return GenerateRequest(
        salt="01" * 32,
        genesis="02" * 32,
        netuid=4,
        verifier=Hotkey(VERIFIER.ss58_address),
        prover=Hotkey(prover.ss58_address),
        attempt=f"{number:016x}",
        block=Block(77),
        block_hash="03" * 32,
        log_head="04" * 32,
        model="tiny",
        messages=(ChatMessage(role="user", content=f"number {number}"),),
        sampling=Sampling.from_json(parameters),
    )


async def honestly(
    request: GenerateRequest, *, wrong: bool = False, prover: Keypair = PROVER
) -> GenerateResponse:
    """An honest, signed answer (or one with noise that nobody asked for)."""
    task = GenerateTask(request.messages, request.sampling, request_run_key(request))
    steps = [step async for step in TinyEngine(wrong=wrong).generate(task)]
    completion = Completion(
        salt="05" * 32,
        request_digest=request.digest(),
        token_ids=tuple(step.token_id for step in steps),
        finish_reason=steps[-1].finish_reason or "length",
        text="".join(step.text for step in steps),
    )
    return signed(request, completion, prover=prover)


def signed(
    request: GenerateRequest,
    completion: Completion,
    *,
    model_digest: str = "d" * 64,
    prover: Keypair = PROVER,
) -> GenerateResponse:
    """A response whose receipt is right, whatever the completion says."""
    receipt = receipts.issue(
        request,
        completion,
        model_digest=Digest(model_digest),
        issued_at=1_800_000_000,
        salt=bytes(32),
        signer=prover,
    )
    return GenerateResponse(completion=completion, receipt=receipt)


async def whole_answer(*, wrong: bool = False) -> tuple[GenerateRequest, GenerateResponse]:
    """A request whose answer has all the tokens that it may have, and the answer."""
    for number in range(1000):
        request = tiny_request(number)
        response = await honestly(request, wrong=wrong)
        if response.completion.finish_reason == "length":
            return request, response
    raise AssertionError("no prompt has a long answer")
