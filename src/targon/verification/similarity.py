"""Work that can't be replayed: does an answer mean what an honest one means?

The reference engine generates an answer of its own to the same messages, with the same sampling: the ground truth.
Similarity is the cosine of the two answers' sentence embeddings, clipped to [0, 1], and the prover's tier says how
large it must be.

It is the weakest of the methods, and the dearest: two honest answers to one question may differ in what they say, and
a smaller model may say the same. So it decides only where nothing else can:

* ``native`` work without log-probabilities, which :mod:`targon.verification.recheck` can't judge;
* work that isn't counted because no calibration covers it, where the verdict would be ``inconclusive``.

Such work earns nothing and costs nothing, leaves no evidence, and convicts nobody. ``docs/verification.md`` has what
was measured: how many honest answers fail at each tier, and how many cheats pass.

An embedding is made of the whole text, however long: windows of what the model reads at once are pooled over all
their tokens. Comparing window by window would compare the wrong parts, as soon as one answer says the same in other
words than the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from targon.engines import Engine, EngineError, GenerateTask, ModelIdentity
from targon.protocol.draws import request_run_key
from targon.protocol.errors import UnsupportedSampling
from targon.protocol.messages import Completion, Dialect, GenerateRequest, Sampling
from targon.protocol.primitives import Digest
from targon.protocol.sampler import check_sampling
from targon.verification.deadline import within
from targon.verification.verdict import Verdict, failed, inconclusive

METHOD: Final = "similarity"

NOT_INSTALLED: Final = (
    "there are no sentence embeddings to compare the answer by; "
    "install them with `pip install 'targon[engine]'`"
)

_LEAST_LENGTH: Final = 1e-6
"""A shorter vector has no direction."""


class Embedder(Protocol):
    """Anything that turns texts into vectors whose directions say what they mean."""

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """``(len(texts), dimensions) float32``, one vector for each text; equal texts have equal vectors.

        Raises:
            EngineError: if there is none to be had.
        """
        ...


def cosine(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """The cosine of two vectors, clipped to [0, 1].

    Raises:
        ValueError: if they are no vectors of equal length with a direction.
    """
    left, right = one.astype(np.float64), other.astype(np.float64)
    if left.ndim != 1 or left.shape != right.shape:
        raise ValueError(
            f"got vectors of shapes {left.shape} and {right.shape}, expected one, and equal ones"
        )
    lengths = float(np.linalg.norm(left)), float(np.linalg.norm(right))
    if not all(_LEAST_LENGTH < length < np.inf for length in lengths):
        raise ValueError(
            f"got vectors of lengths {lengths[0]:g} and {lengths[1]:g}, expected finite ones above 0"
        )
    return min(1.0, max(0.0, float(left @ right) / (lengths[0] * lengths[1])))


async def similarity(one: str, other: str, embedder: Embedder) -> float:
    """How much two texts mean the same, 0 to 1: 1 for equal texts, 0 where one of them is empty.

    Raises:
        EngineError: as the embedder does.
        ValueError: if it answers with something else than vectors.
    """
    if one == other:
        return 1.0
    if not one.strip() or not other.strip():
        return 0.0
    vectors = await embedder.embed((one, other))
    if len(vectors) != 2:
        raise ValueError(f"got {len(vectors)} vectors, expected 2")
    return cosine(vectors[0], vectors[1])


async def ground_truth(
    request: GenerateRequest, engine: Engine, *, deadline_s: float | None = None
) -> str | None:
    """What the reference engine answers to the same messages with the same sampling; None if it can't sample so.

    Args:
        deadline_s: how long it may take for the whole; None: as long as it takes.

    Raises:
        EngineError: as the engine does.
    """
    sampling = _sampling(request.sampling, engine.identity)
    if sampling is None:
        return None
    task = GenerateTask(request.messages, sampling, request_run_key(request))

    async def generate() -> str:
        async with aclosing(engine.generate(task)) as steps:
            return "".join([step.text async for step in steps])

    return await within(deadline_s, generate)


async def judge_similarity(
    request: GenerateRequest,
    completion: Completion,
    engine: Engine,
    embedder: Embedder | None,
    *,
    similarity_threshold: float,
    model_digest: Digest | None = None,
    deadline_s: float | None = None,
) -> Verdict:
    """Judge an answer by what it means, against one that the reference engine generates.

    Args:
        completion: one that passed the check of its form.
        engine: the reference engine; its model has to be the one that the request names.
        embedder: None: there is none, and nothing is found.
        similarity_threshold: of the prover's tier, in [0, 1].
        model_digest: of that model; None: not known.
        deadline_s: how long the ground truth may take, and the embeddings; None: as long as they take.

    Never raises what an engine or an embedder may raise: then the verdict is inconclusive, with the reason.
    """
    if embedder is None:
        return inconclusive(METHOD, NOT_INSTALLED)
    other = _other_model(request, engine.identity, model_digest)
    if other is not None:
        return inconclusive(METHOD, other)
    try:
        expected = await ground_truth(request, engine, deadline_s=deadline_s)
    except EngineError as error:
        return inconclusive(METHOD, f"our reference engine could not generate a ground truth: {error}")
    if expected is None:
        dialects = ", ".join(engine.identity.dialects)
        return inconclusive(
            METHOD,
            f"our reference engine could not generate a ground truth: it samples {dialects}, and none of it with "
            "what was asked for",
        )
    try:
        score = await within(deadline_s, lambda: similarity(completion.text, expected, embedder))
    except (EngineError, ValueError) as error:
        return inconclusive(METHOD, f"our sentence embeddings could not decide: {error}")
    count = len(completion.token_ids)
    evidence = {"characters": len(completion.text), "ground_truth_characters": len(expected)}
    if score < similarity_threshold:
        reason = (
            f"the answer doesn't mean what our own does: similarity {score:.4f}, expected at least "
            f"{similarity_threshold:g} (honest answers that were sampled may differ as much; nothing hangs on it)"
        )
        return failed(METHOD, reason, score, count, **evidence)
    reason = f"the answer means what our own does: similarity {score:.4f}, at least {similarity_threshold:g}"
    return Verdict("pass", METHOD, score, reason, evidence, count)


_HOT: Final[tuple[Dialect, ...]] = ("targon/1", "native", "vllm")
"""Samplers that draw, the best first: what can be made again stands before what can't."""


def _sampling(asked: Sampling, identity: ModelIdentity) -> Sampling | None:
    """What was asked for, in the best dialect that the engine has; None if it has none for it.

    Below the least temperature of a dialect, the most likely token is what is drawn.
    """
    for dialect in (*_HOT, "greedy") if asked.temperature else ("greedy", *_HOT):
        if dialect not in identity.dialects:
            continue
        changed = asked.model_copy(update={"dialect": dialect})
        if dialect == "greedy":
            changed = changed.model_copy(update={"temperature": 0.0, "top_p": 1.0, "top_k": 0})
        try:
            check_sampling(changed)
        except UnsupportedSampling:
            continue
        return changed
    return None


def _other_model(request: GenerateRequest, identity: ModelIdentity, digest: Digest | None) -> str | None:
    for what, got, expected in (
        ("model", identity.name, request.model),
        ("model digest", identity.model_digest, digest),
    ):
        if expected is not None and got != expected:
            return f"our reference engine runs another model: got {what} {got}, expected {expected}"
    return None
