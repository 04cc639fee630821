"""From a private input to a challenge: every parameter is a draw from the interval's secret."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass

from targon.engines import Engine, GenerateTask
from targon.protocol import draws
from targon.protocol.keys import public_key
from targon.protocol.messages import ChatMessage, Sampling
from targon.protocol.primitives import Block, Hotkey, u64_hex
from targon.protocol.prompt import challenge_messages, query_messages
from targon.verifier.ports import PrivateInputs
from targon.verifier.settings import VerifierSettings

FALLBACK_QUERY = "What does the text above say?"
"""Asked where the model produced no words."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """What one prover will be asked; the attempt's number and seed are still to come."""

    messages: tuple[ChatMessage, ...]
    max_tokens: int


async def make_challenge(
    secret: bytes,
    block: Block,
    prover: Hotkey,
    *,
    inputs: PrivateInputs,
    engine: Engine,
    settings: VerifierSettings,
) -> Challenge:
    """A private input of the prover's own, a query about it, and a length.

    Raises:
        PrivateInputUnavailable, EngineError: the verifier's own trouble.
    """
    key = public_key(prover)
    passage = await inputs.private_input(block, draws.private_input_draw(secret, block, key))
    query = await _query(passage.text, draws.query_seed(secret, block, key), engine, settings)
    span = settings.max_tokens - settings.min_tokens + 1
    length = settings.min_tokens + draws.challenge_draw(secret, block, key) % span
    return Challenge(challenge_messages(query, passage.text), length)


async def _query(passage: str, seed: int, engine: Engine, settings: VerifierSettings) -> str:
    """A question about the passage, written by the model itself; one line of it."""
    sampling = Sampling(
        seed=u64_hex(seed),
        temperature=settings.temperature,
        max_tokens=settings.query_tokens,
        stop=("\n", "?"),
    )
    async with aclosing(engine.generate(GenerateTask(query_messages(passage), sampling, seed))) as steps:
        text = "".join([step.text async for step in steps]).strip()
    return f"{text}?" if text else FALLBACK_QUERY
