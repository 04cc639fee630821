"""From a private input to a challenge: every part of it is a draw from the interval's secret."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from targon.protocol import draws
from targon.protocol.keys import public_key
from targon.protocol.messages import ChatMessage, Dialect, Sampling
from targon.protocol.primitives import Block, Hotkey, u64_hex
from targon.protocol.prompt import conversation
from targon.verification.querying import NoQuery, QueryWriter
from targon.verifier.ports import PrivateInputs
from targon.verifier.settings import VerifierSettings
from targon.verifier.shapes import USUAL, Draw, Shapes, delay_s, needs_query


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
    queries: QueryWriter,
    settings: VerifierSettings,
    shapes: Shapes = USUAL,
    part: str = "",
) -> Challenge:
    """A private input of the prover's own, a conversation about it, and parameters.

    The model writes the query, where there is one: the engine is asked only for forms that hold one. Where it writes
    none that can be asked, the conversation does without (:meth:`Shapes.turns`).

    Args:
        part: what the names of its draws begin with; empty: a block's challenge. Another makes another challenge, from
            another passage: the verifier's own inferences are made so.

    Raises:
        PrivateInputUnavailable, EngineError: the verifier's own trouble.
    """
    key = public_key(prover)
    draw = _draw(secret, block, prover, part)
    place = draw("private input") if part else draws.private_input_draw(secret, block, key)
    passage = shapes.cut((await inputs.private_input(block, place)).text)
    query = None
    if needs_query(shapes.form(draw), draw):
        seed = draw("query") if part else draws.query_seed(secret, block, key)
        with contextlib.suppress(NoQuery):  # which is counted
            query = await queries.write(passage, (seed, draw("query again")))
    client = shapes.client(draw, settings.min_tokens, settings.max_tokens)
    return Challenge(
        messages=conversation(client.system, *shapes.turns(draw, passage, query)),
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
