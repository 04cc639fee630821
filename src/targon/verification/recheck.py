"""``native`` work with log-probabilities: are they the model's own, and were the tokens drawn by them?

An engine's own seed can't be replayed, so no single token can be told to be wrong. Two things still can:

1. *The numbers.* The claimed log-probabilities must be the reference's, up to rounding: another model's are not.
2. *The draws.* Where the tokens were really drawn from the model, their surprisal is, on average, exactly what
   the model's own distributions say, whatever the prompt. A prover that has a cheaper model (or a file) write
   the text, and states what the real model says of it after one prefill, passes the first check: its
   numbers are right. But its tokens are another model's, and are more surprising than they should be.

The second is the answer to this *prefill spoofing*, and it replaces a recheck of some positions by real
decoding. Decoding tells nothing that a prefill doesn't: measured on the default model (702 tokens), a bf16
engine's log-probabilities differ from an fp32 prefill's by 0.028 nats on average when it decodes and by 0.026
when it prefills, and from one another by 0.033, where the same prefill, alone and in a batch, differs by 0.029.
So one prefill checks every position, none is left to be guessed, and nothing has to be drawn.

Each position's surprisal is a bet: with stake λ it pays exp(λ·surprisal) over its mean under the reference, so
that honest draws win nothing on average, whatever came before. What all bets of an answer have become, ``e``,
reaches 10⁴ by chance for one honest answer in 10⁴ at most (Ville's inequality). Surprisal is clipped, which
changes the claim and its mean alike.

How far it sees, measured on the default model against an fp32 reference, some 60 tokens an answer: the numbers of
int4 weights (0.55 nats off on average, or more) and of left-out layers (0.46 or more) failed 16 times of 16; those of
int8 weights (0.06 at most) never did, like honest bf16 ones (0.04 at most). Spoofed numbers under the
tokens of int4 weights gave a median ln e of 3.6 at 90 tokens: 1 answer in 5 failed, and of honest ones none in 100. So
spoofing shows in long answers, or in the sum of ``ln_e`` over several: e of independent answers multiply.

What it can't see: rounding that shifts every distribution a little, a text that another model wrote and that
happens to be as surprising as it should be, and a relay. The outcome convicts nobody: native work earns nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from targon.engines import Engine, EngineError, Scores, ScoreTask, TaskRefused
from targon.protocol.messages import Completion, GenerateRequest, Sampling
from targon.protocol.primitives import Digest
from targon.protocol.replay import unseen_weight
from targon.verification.deadline import within
from targon.verification.observations import Floats
from targon.verification.reference import doubt_scores
from targon.verification.verdict import Verdict, failed, inconclusive

METHOD: Final = "recheck"

TOP_K: Final = 100
"""How many of the most likely tokens the reference is asked for."""

FEWER: Final = 20
"""How many it is asked for if it doesn't report so many: vLLM's own limit, unless it is told otherwise."""

FLOOR: Final = -10.0
"""Log-probabilities below this are compared as if they were this: rounding of rare tokens says little."""

SURPRISAL_CLIP: Final = 7.0
"""Nats. The surprisal of rarer tokens counts as this much, in the mean as in the claim."""

STAKES: Final = (-1.0, -0.5, -0.25, 0.25, 0.5, 1.0)
"""λ of the bets, mixed in equal parts: tokens less surprising than they should be, and more."""

LOG_FAIL: Final = math.log(1e4)
"""An honest answer's ln e reaches this by chance with probability 1e-4 at most."""

COLD: Final = 0.05
"""Below this temperature a token is expected to be the most likely one, up to rounding."""

_UNKNOWN: Final = 0.01
"""A position whose candidates' weight isn't known better than this is left out."""


@dataclass(frozen=True, slots=True)
class RecheckBounds:
    """What rounding explains: about four times the most that was seen of an honest bf16 engine against an fp32
    reference (0.039 on average over one answer, 0.27 at one token)."""

    mean_difference: float = 0.15
    """Nats: mean difference between claimed and own log-probabilities, over an answer."""
    largest_difference: float = 1.0
    """Nats."""
    cold_margin: float = 0.5
    """Nats by which a token may be less likely than the most likely one, where that is to be taken."""


@dataclass(frozen=True, slots=True)
class Draws:
    """How surprising the tokens are, and how surprising they would be if they had been drawn by the model."""

    counted: int
    """Positions whose candidates are known."""
    excess: float
    """Nats: sum of the clipped surprisals minus their means."""
    log_e: float
    """Natural log of what the bets have become: against draws from this model."""


async def recheck(
    request: GenerateRequest,
    completion: Completion,
    engine: Engine,
    bounds: RecheckBounds = RecheckBounds(),
    *,
    model_digest: Digest | None = None,
    deadline_s: float | None = None,
) -> Verdict:
    """Judge ``native`` work by its log-probabilities, with one prefill.

    Args:
        completion: one that passed the check of its form.
        engine: the reference engine; its model has to be the one that the request names.
        bounds: what rounding explains, for this model.
        model_digest: of that model; None: not known.
        deadline_s: how long the engine may take; None: as long as it takes.

    The score is the share of positions whose log-probability is the reference's. Never raises what an engine
    may raise: then the verdict is inconclusive, with the reason.
    """
    refusal = _refusal(request, completion, engine, model_digest)
    if refusal is not None:
        return refusal
    assert completion.logprobs is not None
    claimed = np.array(completion.token_ids, dtype=np.int64)
    vocabulary = engine.identity.vocab_size

    async def score(top_k: int) -> list[Scores]:
        task = ScoreTask(request.messages, completion.token_ids, min(top_k, vocabulary))
        return await within(deadline_s, lambda: engine.score([task]))

    try:
        try:
            results = await score(TOP_K)
        except TaskRefused:
            results = await score(FEWER)
    except EngineError as error:
        return inconclusive(METHOD, f"our reference engine could not decide: {error}")
    doubt = doubt_scores(results, claimed, engine.identity.vocab_size)
    if doubt is not None:
        return inconclusive(METHOD, doubt)
    stated = np.array(completion.logprobs, dtype=np.float64)
    return recheck_verdict(stated, results[0], claimed, request.sampling, engine.identity.vocab_size, bounds)


def recheck_verdict(
    stated: Floats,
    scores: Scores,
    claimed: NDArray[np.int64],
    sampling: Sampling,
    vocab_size: int,
    bounds: RecheckBounds,
) -> Verdict:
    """Judge what a reference engine said.

    Args:
        stated: ``(positions,) float64``, the log-probabilities that the prover claims.
        claimed: ``(positions,) int64``, its tokens.

    The evidence: ``mean_difference`` and ``largest_difference`` (nats), ``surprisal``, ``counted``, ``excess``
    and ``ln_e`` (of :class:`Draws`), ``cold`` (at how many positions a token was taken that isn't the
    most likely one, where that is to be taken).
    """
    own = np.maximum(scores.claimed_logprobs.astype(np.float64), FLOOR)
    difference = np.abs(np.maximum(stated, FLOOR) - own)
    mean, largest = float(difference.mean()), float(difference.max())
    cold = sampling.temperature < COLD
    draws = Draws(0, 0.0, 0.0) if cold else weigh_draws(scores, claimed, sampling, vocab_size)
    margins = scores.top_logprobs[:, 0].astype(np.float64) - np.maximum(scores.claimed_logprobs, -100.0)
    missed = int((margins > bounds.cold_margin).sum()) if cold else 0
    score = float((difference <= bounds.largest_difference).mean())
    evidence = {
        "mean_difference": mean,
        "largest_difference": largest,
        "surprisal": float(-own.mean()),
        "counted": draws.counted,
        "excess": draws.excess,
        "ln_e": draws.log_e,
        "cold": missed,
    }
    if mean > bounds.mean_difference or largest > bounds.largest_difference:
        reason = (
            f"the log-probabilities are not this model's: they differ by {mean:.3f} nats on average and {largest:.2f} "
            f"at most, expected {bounds.mean_difference:g} and {bounds.largest_difference:g}"
        )
        return failed(METHOD, reason, score, claimed.size, **evidence)
    if missed:
        reason = (
            f"{missed} of {claimed.size} tokens are not the most likely one, as temperature "
            f"{sampling.temperature:g} asks for"
        )
        return failed(METHOD, reason, score, claimed.size, **evidence)
    if draws.log_e >= LOG_FAIL:
        much = "more" if draws.excess > 0.0 else "less"
        reason = (
            f"the log-probabilities are this model's, but the tokens were not drawn by them: over {draws.counted} "
            f"positions they are {abs(draws.excess):.1f} nats {much} surprising than the model's own would be"
        )
        return failed(METHOD, reason, score, claimed.size, **evidence)
    if not cold and not draws.counted:
        reason = "the log-probabilities are this model's, but at no position its candidates could be told"
        return inconclusive(METHOD, reason, **evidence)
    reason = f"{claimed.size} log-probabilities are this model's, and the tokens are as surprising as they should be"
    return Verdict("pass", METHOD, score, reason, evidence, claimed.size)


def weigh_draws(scores: Scores, claimed: NDArray[np.int64], sampling: Sampling, vocab_size: int) -> Draws:
    """Compare the tokens' surprisal with its mean, position by position.

    Which positions are left out depends on the reference alone, never on the claimed token.
    """
    counted, excess, wealth = 0, 0.0, np.zeros(len(STAKES))
    for row, token in enumerate(claimed.tolist()):
        known = _known(scores.top_logprobs[row], sampling, vocab_size)
        if known is None:
            continue
        chances, surprisals, unseen = known
        place = np.flatnonzero(scores.top_ids[row] == token)
        got = float(surprisals[place[0]]) if place.size else SURPRISAL_CLIP
        counted += 1
        excess += got - float(chances @ surprisals) - unseen * SURPRISAL_CLIP
        means = chances @ np.exp(surprisals[:, None] * _STAKES) + unseen * np.exp(SURPRISAL_CLIP * _STAKES)
        wealth += got * _STAKES - np.log(means)
    return Draws(counted, excess, float(np.logaddexp.reduce(wealth)) - math.log(len(STAKES)))


_STAKES = np.array(STAKES)


def _known(
    top: NDArray[np.float32], sampling: Sampling, vocab_size: int
) -> tuple[Floats, Floats, float] | None:
    """What is drawn at one position, or None where the list doesn't tell it well enough.

    Returns:
        ``(k,) float64``, probability that the sampler draws each listed token, after temperature and cuts;
        ``(k,) float64``, the surprisal of each, those that a cut leaves out in the measure of those that it
        keeps; and the probability that it draws a token outside the list.
    """
    logprobs = top.astype(np.float64)
    weights = np.exp((logprobs - logprobs[0]) / sampling.temperature)
    low, high = (0.0, 0.0) if top.size == vocab_size else unseen_weight(top, vocab_size, sampling.temperature)
    if sampling.top_k:
        keep, low, high = min(sampling.top_k, top.size), 0.0, high if sampling.top_k > top.size else 0.0
    else:
        keep = top.size
    running = np.cumsum(weights[:keep])
    total = float(running[-1]) + (low + high) / 2.0
    if high - low > _UNKNOWN * total:
        return None
    if sampling.top_p < 1.0:
        keep = min(keep, int(np.searchsorted(running, sampling.top_p * total)) + 1)
        total = max(float(running[keep - 1]), sampling.top_p * total)
    chances = np.where(np.arange(top.size) < keep, weights, 0.0) / total
    with np.errstate(divide="ignore"):
        surprisals = np.clip(-np.log(weights / total), 0.0, SURPRISAL_CLIP)
    return chances, surprisals, max(0.0, 1.0 - float(chances.sum()))


def _refusal(
    request: GenerateRequest, completion: Completion, engine: Engine, model_digest: Digest | None
) -> Verdict | None:
    """Why there is nothing to recheck, or what is wrong already."""
    identity, ids, sampling = engine.identity, completion.token_ids, request.sampling
    for what, got, expected in (
        ("model", identity.name, request.model),
        ("model digest", identity.model_digest, model_digest),
    ):
        if expected is not None and got != expected:
            return inconclusive(
                METHOD, f"our reference engine runs another model: got {what} {got}, expected {expected}"
            )
    if sampling.dialect != "native":
        return inconclusive(
            METHOD,
            f"got dialect {sampling.dialect}, expected native: the others can be replayed, which tells more",
        )
    if completion.logprobs is None:
        return inconclusive(METHOD, "got no log-probabilities: there is nothing to recheck")
    if not 1 <= len(ids) <= sampling.max_tokens:
        return failed(METHOD, f"got {len(ids)} tokens, expected 1 to {sampling.max_tokens}")
    outside = next((id_ for id_ in ids if not 0 <= id_ < identity.vocab_size), None)
    if outside is not None:
        return failed(METHOD, f"got token id {outside}, expected ids from 0 to {identity.vocab_size - 1}")
    if len(completion.logprobs) != len(ids):
        return failed(METHOD, f"got {len(completion.logprobs)} log-probabilities for {len(ids)} tokens")
    bad = next((value for value in completion.logprobs if not (math.isfinite(value) and value <= 0.0)), None)
    return None if bad is None else failed(METHOD, f"got log-probability {bad}, expected a finite value ≤ 0")
