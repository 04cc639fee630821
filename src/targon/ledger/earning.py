"""What work is worth, and how it moves counters and scores: what the rules of challenges and inferences share."""

from __future__ import annotations

from targon.ledger.events import Attempt, Verdict
from targon.ledger.standing import State
from targon.protocol import rewards, tiers
from targon.protocol.primitives import Block, Hotkey
from targon.protocol.profile import Profile


def worth(s: State, attempt: Attempt, verdict: Verdict) -> float | None:
    """x: what a verdict on an attempt earns in a state; None if it counts for nothing."""
    if verdict.outcome == "inconclusive" or not counts(attempt):
        return None
    if verdict.outcome == "fail":
        return rewards.failed(attempt.purpose)
    return served(s, attempt, verdict.tokens_per_s)


def served(s: State, attempt: Attempt, tokens_per_s: float | None) -> float:
    """x: what a success earns."""
    factor = tiers.TIERS[s.provers[attempt.prover].tier].reward_factor
    return rewards.served(factor, tokens_per_s, s.medians.get(attempt.model))


def counts(attempt: Attempt) -> bool:
    """Whether work of this kind moves rates, totals and scores at all."""
    return attempt.counted and attempt.dialect in rewards.COUNTED_DIALECTS


def succeed(s: State, attempt: Attempt, tokens_per_s: float | None) -> None:
    """Count a success, and its speed."""
    state = s.provers[attempt.prover]
    state.successes += 1
    state.total_successes += 1
    if tokens_per_s is not None:
        speeds = s.speeds.get(attempt.model)
        if speeds is None:
            speeds = s.speeds[attempt.model] = []
        speeds.append(tokens_per_s)


def earn(s: State, attempt: Attempt, x: float) -> None:
    """In its block's step; an inference, which belongs to no step, in the next one that closes."""
    by_prover = s.earned[attempt.block] if attempt.purpose == "challenge" else s.served
    earned = by_prover.get(attempt.prover)
    if earned is None:
        earned = by_prover[attempt.prover] = []
    earned.append(x)


def move_scores(s: State, earned: dict[Hotkey, list[float]]) -> None:
    """Let the score of each prover take one step with the sum of what it earned."""
    alpha = profile_of(s).ema_alpha
    for hotkey, worths in earned.items():
        state = s.provers[hotkey]
        state.score = rewards.score_step(state.score, worths, alpha)


def reach(s: State, block: Block) -> None:
    """Note the newest block that the log speaks of."""
    if block > s.block:
        s.block = block


def profile_of(s: State) -> Profile:
    """The rules under which the log stands."""
    assert s.opened is not None  # fold() lets nothing come before log_opened
    return s.opened.profile
