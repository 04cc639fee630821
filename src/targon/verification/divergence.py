"""The third method: one prefill of prompt and claimed tokens, and the sampler replayed over it.

At each position the reference engine says which token the request's own noise would have drawn, and by how
much the claimed one misses it. Nothing is decoded, and the prover sends nothing but its tokens. What it
shows, in the order in which it is looked at:

1. a claimed end-of-sequence token that the model would not have drawn there: the answer was cut short;
2. a token claimed where the model would have ended: the answer runs on;
3. the share of positions whose claimed token is the replayed choice within a margin: the similarity.

An ending by length or by a stop string is told from the tokens alone and is structure's business. A
verdict without a mismatch is exact equality with what the reference engine would have generated.

Margins are compared in logits, because rounding is: a hair at T = 1 is ten hairs at T = 0.1. A position where
the draw hangs on where exactly top-k or top-p falls is counted only if it agrees.

Beside the margins stands the surprisal, and how many unlikely tokens there are against how many there should
be: a prover that keeps every margin below the tolerance, and uses that freedom, shows there.

Our own engine may be broken. What it says must be numbers that fit one another; it must come in time; and a
failure counts only if a second replay finds the same (:func:`judge_divergence`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from targon.engines import Engine, EngineError, ModelIdentity, Replayed, ReplayTask
from targon.protocol.draws import request_run_key
from targon.protocol.errors import UnsupportedSampling
from targon.protocol.messages import Completion, GenerateRequest
from targon.protocol.primitives import Digest, TokenId
from targon.protocol.replay import MARGIN_CLIP, Replay
from targon.protocol.sampler import check_replayable
from targon.verification.deadline import within
from targon.verification.reference import contradiction, doubt_replayed
from targon.verification.verdict import Verdict, failed, inconclusive

METHOD = "divergence"

SURPRISAL_CLIP = 100.0
"""The surprisal of a token of probability zero, in nats: a number, so that means stay finite."""

ENDING_MARGIN = 1.0
"""In logits: an answer fails by its end alone only beyond this. Honest bf16 engines and an fp32 reference
disagreed by up to 0.8 in 290,000 tokens, and one near-tie at an end must not fail a whole answer."""

_NAMED = 5
"""How many of the positions that disagree a verdict names."""


@dataclass(frozen=True, slots=True)
class Divergence:
    """What a reference engine says of a completion, position by position."""

    token_ids: NDArray[np.int64]
    """``(positions,) int64``: the claimed tokens."""
    replayed: Replayed | None
    """None where nothing could be replayed."""
    eos_ids: tuple[TokenId, ...]
    temperature: float
    """At which the tokens were asked for."""
    settled: Verdict | None = None
    """Set where there is nothing to weigh: the completion cannot be an answer of this model, or the reference
    engine could not decide."""

    @property
    def replay(self) -> Replay:
        """What the replayed sampler says.

        Raises:
            ValueError: if nothing was replayed; :attr:`settled` says why.
        """
        return self._measured().replay

    @property
    def agreement(self) -> float:
        """Share of positions whose claimed token is the replayed choice."""
        return self.replay.agreement

    @property
    def mean_margin(self) -> float:
        """Mean of the clipped margins: 0 for equality, about 3 for another seed."""
        return float(self.replay.margins.mean())

    @property
    def surprisal(self) -> float:
        """Mean of -ln p over the claimed tokens, p as the model has it at temperature 1."""
        clipped = np.minimum(-self._measured().claimed_logprobs.astype(np.float64), SURPRISAL_CLIP)
        return float(clipped.mean())

    @property
    def tail(self) -> tuple[int, float]:
        """How many of the claimed tokens are unlikely ones, and how many of them the model would draw on average."""
        known = ~np.isnan(self.replay.tail_mass)
        return int(self.replay.in_tail[known].sum()), float(self.replay.tail_mass[known].sum())

    def similarity(self, margin_tolerance: float) -> float:
        """Share of the positions that count whose claimed token misses the replayed choice by no more than a
        margin, in logits; 0 if none counts."""
        apart, counted = self.apart(margin_tolerance), self._counted(margin_tolerance)
        return 1.0 - apart.size / int(counted.sum()) if counted.any() else 0.0

    def apart(self, margin_tolerance: float) -> NDArray[np.int64]:
        """The positions, in order, whose claimed token is none that rounding explains."""
        return np.flatnonzero(self._far(margin_tolerance) & self._counted(margin_tolerance))

    def uncounted(self, margin_tolerance: float) -> int:
        """How many positions aren't counted: their draw hangs on where a cut falls, and they don't agree."""
        return int((~self._counted(margin_tolerance)).sum())

    def _far(self, margin_tolerance: float) -> NDArray[np.bool_]:
        margins = self.replay.margins
        far: NDArray[np.bool_] = margins * (self.temperature or 1.0) > margin_tolerance
        return far | (margins >= MARGIN_CLIP)

    def _counted(self, margin_tolerance: float) -> NDArray[np.bool_]:
        return ~(self._far(margin_tolerance) & self.replay.on_cut)

    def _measured(self) -> Replayed:
        if self.replayed is None:
            raise ValueError(f"divergence: nothing was replayed ({self.settled}); look at `settled` first")
        return self.replayed


async def check_divergence(
    request: GenerateRequest,
    completion: Completion,
    engine: Engine,
    *,
    model_digest: Digest | None = None,
    vocab_size: int | None = None,
    deadline_s: float | None = None,
) -> Divergence:
    """Replay a completion on a reference engine.

    Args:
        engine: the reference engine; its model has to be the one that the request names.
        model_digest, vocab_size: what is known of that model; None: nothing.
        deadline_s: how long the engine may take; None: as long as it takes.

    Never raises what an engine may raise: then :attr:`Divergence.settled` says why nothing is known.
    """
    claimed = np.array(completion.token_ids, dtype=np.int64)
    identity = engine.identity
    nothing = Divergence(claimed, None, identity.eos_ids, request.sampling.temperature)
    settled = (
        _check_reference(request, identity, model_digest, vocab_size)
        or _check_sampling(request)
        or _check_tokens(request, completion, identity)
    )
    if settled is not None:
        return replace(nothing, settled=settled)
    task = ReplayTask(request.messages, completion.token_ids, request.sampling, request_run_key(request))
    try:
        results = await within(deadline_s, lambda: engine.replay([task]))
    except EngineError as error:
        reason = f"our reference engine could not decide: {error}"
        return replace(nothing, settled=inconclusive(METHOD, reason))
    doubt = doubt_replayed(results, claimed, identity.vocab_size)
    if doubt is not None:
        return replace(nothing, settled=inconclusive(METHOD, doubt))
    return replace(nothing, replayed=results[0])


async def judge_divergence(
    request: GenerateRequest,
    completion: Completion,
    engine: Engine,
    *,
    similarity_threshold: float,
    margin_tolerance: float,
    model_digest: Digest | None = None,
    deadline_s: float | None = None,
) -> tuple[Verdict, Divergence]:
    """Replay a completion and judge it; replay it again before a failure counts.

    Arguments as of :func:`check_divergence` and :func:`divergence_verdict`. The deadline holds for each replay.
    """

    async def look() -> tuple[Verdict, Divergence]:
        divergence = await check_divergence(
            request, completion, engine, model_digest=model_digest, deadline_s=deadline_s
        )
        verdict = divergence_verdict(
            divergence, similarity_threshold=similarity_threshold, margin_tolerance=margin_tolerance
        )
        return verdict, divergence

    verdict, divergence = await look()
    if verdict.outcome != "fail" or divergence.settled is not None:
        return verdict, divergence
    again, repeated = await look()
    doubt = _unconfirmed(verdict, divergence, again, repeated)
    if doubt is None:
        return verdict, divergence
    return doubt, replace(divergence, replayed=None, settled=doubt)


def divergence_verdict(
    divergence: Divergence, *, similarity_threshold: float, margin_tolerance: float
) -> Verdict:
    """Judge one completion.

    Args:
        similarity_threshold: the least share of positions that must agree, in [0, 1].
        margin_tolerance: by how much a claimed token may miss the replayed choice and still agree, in logits.

    The evidence: ``agreement``, ``mean_margin``, ``surprisal``, ``tail_drawn`` and ``tail_expected`` (how many
    unlikely tokens there are, and how many there would be on average), ``unsure`` (how many positions were),
    ``on_cut`` (how many hang on where a cut falls), ``seen`` (``vocabulary``, or how many of the most likely
    tokens), and ``disagreed``, the first few positions beyond the tolerance, each with ``position``,
    ``claimed``, ``best`` and ``margin`` (in the sampler's own units, logits divided by the temperature).

    Raises:
        ValueError: if an argument is out of range.
    """
    if not 0.0 <= similarity_threshold <= 1.0:
        raise ValueError(f"similarity_threshold: got {similarity_threshold}, expected a share from 0 to 1")
    if not 0.0 <= margin_tolerance < MARGIN_CLIP:
        raise ValueError(f"margin_tolerance: got {margin_tolerance}, expected 0 to less than {MARGIN_CLIP}")
    if divergence.settled is not None:
        return divergence.settled
    replay, count = divergence.replay, divergence.token_ids.size
    apart = divergence.apart(margin_tolerance)
    score = divergence.similarity(margin_tolerance)
    tail_drawn, tail_expected = divergence.tail
    evidence = {
        "agreement": divergence.agreement,
        "mean_margin": divergence.mean_margin,
        "surprisal": divergence.surprisal,
        "tail_drawn": tail_drawn,
        "tail_expected": tail_expected,
        "unsure": int(replay.unsure.sum()),
        "on_cut": int(replay.on_cut.sum()),
        "seen": _seen(divergence),
        "disagreed": [_position(divergence, place) for place in apart[:_NAMED].tolist()],
    }
    uncounted = divergence.uncounted(margin_tolerance)
    if uncounted == count:
        return inconclusive(
            METHOD, "nothing could be told: every draw hangs on where a cut falls", **evidence
        )
    ending = _false_ending(divergence, divergence.apart(max(margin_tolerance, ENDING_MARGIN)))
    if ending is not None:
        return failed(METHOD, ending, score, count, **evidence)
    if score < similarity_threshold:
        reason = (
            f"{apart.size} of {count} tokens are not what the sampler draws, by more than {margin_tolerance:g}: "
            f"similarity {score:.4f}, expected at least {similarity_threshold:g}; {_named(divergence, apart)}"
        )
        return failed(METHOD, reason, score, count, **evidence)
    if divergence.agreement == 1.0:
        reason = f"all {count} tokens are what the sampler draws"
    else:
        reason = (
            f"{count - apart.size - uncounted} of {count} tokens are what the sampler draws, or miss it by at most "
            f"{margin_tolerance:g}"
        )
    if uncounted:
        reason += f"; {uncounted} hang on where a cut falls, and weren't counted"
    if divergence.replayed is not None and divergence.replayed.top_k:
        reason += f", as far as the {divergence.replayed.top_k} most likely tokens of each position tell"
    return Verdict("pass", METHOD, score, reason, evidence, count)


def _check_reference(
    request: GenerateRequest, identity: ModelIdentity, model_digest: Digest | None, vocab_size: int | None
) -> Verdict | None:
    for what, got, expected in (
        ("model", identity.name, request.model),
        ("model digest", identity.model_digest, model_digest),
        ("vocabulary", identity.vocab_size, vocab_size),
    ):
        if expected is not None and got != expected:
            return inconclusive(
                METHOD, f"our reference engine runs another model: got {what} {got}, expected {expected}"
            )
    return None


def _check_sampling(request: GenerateRequest) -> Verdict | None:
    try:
        check_replayable(request.sampling)
    except UnsupportedSampling as error:
        return inconclusive(METHOD, f"this sampler cannot be replayed: {error}")
    return None


def _check_tokens(
    request: GenerateRequest, completion: Completion, identity: ModelIdentity
) -> Verdict | None:
    count = len(completion.token_ids)
    if not 1 <= count <= request.sampling.max_tokens:
        return failed(
            METHOD, f"got {count} tokens, expected 1 to {request.sampling.max_tokens}", tokens=count
        )
    outside = next((id_ for id_ in completion.token_ids if not 0 <= id_ < identity.vocab_size), None)
    if outside is not None:
        reason = f"got token id {outside}, expected ids from 0 to {identity.vocab_size - 1}"
        return failed(METHOD, reason, tokens=count)
    return None


def _unconfirmed(first: Verdict, one: Divergence, second: Verdict, other: Divergence) -> Verdict | None:
    """Why a failure doesn't count that was seen once; None if it was seen twice."""
    if one.replayed is None or other.replayed is None:
        return inconclusive(METHOD, f"{second.reason}; it had failed before: {first.reason}")
    apart = contradiction(one.replayed, other.replayed, one.temperature)
    if apart is None and second.outcome != "fail":
        apart = f"similarity {first.score:.4f}, then {second.score:.4f}"
    if apart is None:
        return None
    return inconclusive(
        METHOD, f"our reference engine contradicts itself, asked twice about one answer: got {apart}"
    )


def _false_ending(divergence: Divergence, apart: NDArray[np.int64]) -> str | None:
    """In words, the first place where the answer ends and the model would not, or the other way round."""
    for place in apart.tolist():
        claimed, best = int(divergence.token_ids[place]), int(divergence.replay.best_ids[place])
        where = f"position {place} (margin {divergence.replay.margins[place]:.2f})"
        if claimed in divergence.eos_ids and best not in divergence.eos_ids:
            return f"the answer ends at {where}, where the model goes on with token {best}"
        if best in divergence.eos_ids and claimed not in divergence.eos_ids:
            return f"the answer goes on with token {claimed} at {where}, where the model ends it"
    return None


def _named(divergence: Divergence, apart: NDArray[np.int64]) -> str:
    """The first few positions that disagree, in words."""
    parts = []
    for place in apart[:_NAMED].tolist():
        at = _position(divergence, place)
        parts.append(
            f"at {at['position']} token {at['claimed']} instead of {at['best']} (margin {at['margin']:.2f})"
        )
    return ", ".join(parts) + (", …" if apart.size > _NAMED else "")


def _position(divergence: Divergence, place: int) -> dict[str, int | float]:
    return {
        "position": place,
        "claimed": int(divergence.token_ids[place]),
        "best": int(divergence.replay.best_ids[place]),
        "margin": float(divergence.replay.margins[place]),
    }


def _seen(divergence: Divergence) -> str | int:
    top_k = divergence.replayed.top_k if divergence.replayed is not None else 0
    return top_k or "vocabulary"
