"""From a private input to a challenge: every part of it is a draw from the interval's secret."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass

from targon.engines import Engine, GenerateTask
from targon.protocol import draws
from targon.protocol.keys import public_key
from targon.protocol.messages import ChatMessage, Dialect, Sampling
from targon.protocol.primitives import Block, Hotkey, u64_hex
from targon.protocol.prompt import conversation, query_messages
from targon.verifier.dialects import dialect_for
from targon.verifier.ports import PrivateInputs
from targon.verifier.settings import VerifierSettings
from targon.verifier.shapes import USUAL, Draw, Shapes, delay_s, needs_query

FALLBACK_QUERY = "What does the text above say?"
"""Asked where the model produced no words."""
QUERY_TEMPERATURE = 0.8


@dataclass(frozen=True, slots=True)
class Challenge:
    """What one prover will be asked; the attempt's number and seed are still to come.

    The parameters have the names that they have in :class:`~targon.protocol.messages.Sampling`.
    """

    messages: tuple[ChatMessage, ...]
    temperature: float
    top_p: float
    top_k: int
    stop: tuple[str, ...]
    max_tokens: int

    def sampling(self, dialect: Dialect, seed: int = 0) -> Sampling:
        """Its parameters in a dialect; in ``greedy`` there is nothing to draw, and nothing to cut."""
        drawn = dialect != "greedy"
        return Sampling(
            dialect=dialect,
            seed=u64_hex(seed),
            temperature=self.temperature if drawn else 0.0,
            top_p=self.top_p if drawn else 1.0,
            top_k=self.top_k if drawn else 0,
            max_tokens=self.max_tokens,
            stop=self.stop,
        )


async def make_challenge(
    secret: bytes,
    block: Block,
    prover: Hotkey,
    *,
    inputs: PrivateInputs,
    engine: Engine,
    settings: VerifierSettings,
    shapes: Shapes = USUAL,
    part: str = "",
) -> Challenge:
    """A private input of the prover's own, a conversation about it, and parameters.

    The model writes the query, where there is one: the engine is asked only for forms that hold one.

    Args:
        part: what the names of its draws begin with; empty: a block's challenge. Another makes another challenge, from
            another passage: the verifier's own inferences are made so.

    Raises:
        PrivateInputUnavailable, EngineError: the verifier's own trouble.
    """
    key = public_key(prover)
    draw = _draw(secret, block, prover, part)
    place = draw("private input") if part else draws.private_input_draw(secret, block, key)
    passage = await inputs.private_input(block, place)
    query = FALLBACK_QUERY
    if needs_query(shapes.form(draw), draw):
        seed = draw("query") if part else draws.query_seed(secret, block, key)
        query = await write_query(passage.text, seed, engine, settings)
    client = shapes.client(draw, settings.min_tokens, settings.max_tokens)
    return Challenge(
        messages=conversation(client.system, *shapes.turns(draw, passage.text, query)),
        temperature=client.habit.temperature,
        top_p=client.habit.top_p,
        top_k=client.habit.top_k,
        stop=client.stop,
        max_tokens=client.max_tokens,
    )


def challenge_delay_s(secret: bytes, block: Block, prover: Hotkey, span_s: float, *, part: str = "") -> float:
    """How long after its block's beginning a prover's challenge is sent: in [0, span_s) seconds."""
    return delay_s(_draw(secret, block, prover, part), span_s)


def _draw(secret: bytes, block: Block, prover: Hotkey, part: str) -> Draw:
    key = public_key(prover)
    return lambda name: draws.challenge_draw(secret, block, key, part + name)


async def write_query(passage: str, seed: int, engine: Engine, settings: VerifierSettings) -> str:
    """A question about the passage, written by the model itself; one line of it. An engine without the protocol's
    sampler writes the same one each time.

    Raises:
        EngineError: as the engine does.
    """
    dialect = dialect_for(engine.identity.dialects)
    sampling = Sampling(
        dialect=dialect,
        seed=u64_hex(seed),
        temperature=0.0 if dialect == "greedy" else QUERY_TEMPERATURE,
        max_tokens=settings.query_tokens,
        stop=("\n", "?"),
    )
    async with aclosing(engine.generate(GenerateTask(query_messages(passage), sampling, seed))) as steps:
        text = "".join([step.text async for step in steps]).strip()
    return f"{text}?" if text else FALLBACK_QUERY
