"""A request, its completion and a prover's key, as every test of the protocol room starts from."""

from __future__ import annotations

import pytest
from bittensor.keyfiles import Keypair

from targon.protocol import Completion, GenerateRequest, Receipt, receipts


@pytest.fixture(scope="session")
def prover() -> Keypair:
    return Keypair.create_from_uri("//Alice")


@pytest.fixture(scope="session")
def verifier() -> Keypair:
    return Keypair.create_from_uri("//Bob")


@pytest.fixture(scope="session")
def request_message(prover: Keypair, verifier: Keypair) -> GenerateRequest:
    return GenerateRequest.from_json(
        {
            "salt": "01" * 32,
            "genesis": "02" * 32,
            "netuid": 4,
            "verifier": verifier.ss58_address,
            "prover": prover.ss58_address,
            "attempt": f"{77:016x}",
            "block": 123_456,
            "block_hash": "03" * 32,
            "log_head": "04" * 32,
            "model": "m",
            "messages": [{"role": "user", "content": "Why?"}],
            "sampling": {"seed": f"{2**64 - 1:016x}", "temperature": 0.8, "max_tokens": 32},
        }
    )


@pytest.fixture(scope="session")
def completion(request_message: GenerateRequest) -> Completion:
    return Completion.from_json(
        {
            "salt": "05" * 32,
            "request_digest": request_message.digest(),
            "token_ids": [5, 6, 2],
            "finish_reason": "stop",
            "text": "Because.",
            "logprobs": [-0.5, -1.25, -0.125],
        }
    )


@pytest.fixture(scope="session")
def receipt(request_message: GenerateRequest, completion: Completion, prover: Keypair) -> Receipt:
    return receipts.issue(
        request_message,
        completion,
        model_digest="06" * 32,
        issued_at=1_800_000_000,
        salt=bytes(32),
        signer=prover,
    )
