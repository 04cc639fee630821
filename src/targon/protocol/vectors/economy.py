"""Vectors of tiers, promotion, rewards, scores, weights and conviction."""

from __future__ import annotations

from typing import Any

from targon.protocol import conviction, rewards
from targon.protocol.primitives import Uid
from targon.protocol.profile import PROFILES
from targon.protocol.tiers import TIERS, Record, Tier, settle
from targon.protocol.vectors.rule import Json, Rule
from targon.protocol.weights import NoWeights, u16_weights


def _tiers(given: Json) -> Json:
    profile = PROFILES[given["profile"]]
    table = [
        {
            "tier": tier.label,
            "success_rate_percent": int(TIERS[tier].success_rate * 100),
            "request_limit": TIERS[tier].request_limit,
            "reward_factor": TIERS[tier].reward_factor,
            "similarity_threshold": TIERS[tier].similarity_threshold,
            "min_total_successes": profile.success_minima[tier],
        }
        for tier in Tier
    ]
    return {"profile": profile.to_json(), "tiers": table}


TIER_TABLE = Rule(
    name="tiers",
    about="The tiers from the lowest to the highest, under each profile. Success rates are exact: 98 of 100 is 98%.",
    inputs={name: {"profile": name} for name in PROFILES},
    evaluate=_tiers,
)


def _tier(label: str | None) -> Tier | None:
    return None if label is None else Tier[label.upper()]


def _promotion(given: Json) -> Json:
    fields = {name: value for name, value in given.items() if name not in ("profile", "tier", "fallen_from")}
    tier = Tier[given["tier"].upper()]
    record = Record(tier=tier, fallen_from=_tier(given["fallen_from"]), **fields)
    after, move = settle(record, PROFILES[given["profile"]])
    return {
        "move": move.kind,
        "tier": after.tier.label,
        "attempts": after.attempts,
        "successes": after.successes,
        "replies": after.replies,
        "inconclusive": after.inconclusive,
        "total_successes": after.total_successes,
        "fallen_from": None if after.fallen_from is None else after.fallen_from.label,
    }


def _record(tier: str, successes: int, attempts: int, **changes: Any) -> dict[str, Json]:  # noqa: ANN401
    return {
        "profile": "standard",
        "tier": tier,
        "attempts": attempts,
        "successes": successes,
        "replies": attempts,
        "inconclusive": 0,
        "total_successes": 10_000,
        "fallen_from": None,
    } | changes


PROMOTION = Rule(
    name="promotion",
    about="What an interval's end makes of a prover's record: its tier and counters for the next interval.",
    inputs={
        "promoted": _record("Bronze", 100, 100),
        "one tier at a time": _record("Silver", 1000, 1000),
        "exactly the next tier's rate": _record("Grandmaster", 98, 100),
        "just under the next tier's rate": _record("Grandmaster", 97, 100),
        "exactly the minimum of successes": _record("Bronze", 100, 100, total_successes=250),
        "one success short of the minimum": _record("Bronze", 100, 100, total_successes=249),
        "no tier above": _record("Challenger", 100, 100),
        "relegated": _record("Gold", 73, 100),
        "exactly the current tier's rate": _record("Gold", 74, 100),
        "one tier at a time downwards": _record("Challenger", 0, 100),
        "no tier below": _record("Bronze", 0, 100),
        "a rate no float holds exactly": _record("Emerald", 41, 50, total_successes=1500),
        "too few attempts run on": _record("Bronze", 19, 19),
        "just enough attempts": _record("Bronze", 20, 20),
        "no attempts": _record("Gold", 0, 0),
        "exactly 10% inconclusive": _record("Bronze", 90, 90, inconclusive=10),
        "over 10% inconclusive": _record("Bronze", 90, 90, inconclusive=11),
        "over 10% inconclusive still relegates": _record("Gold", 0, 90, inconclusive=90),
        "relegated while down": _record("Jade", 0, 100, replies=0),
        "down at the bottom": _record("Bronze", 0, 100, replies=0),
        "still down keeps the highest tier": _record("Ruby", 0, 100, replies=0, fallen_from="Jade"),
        "returns at once": _record("Emerald", 100, 100, fallen_from="Jade", total_successes=100),
        "returns as far as the rate allows": _record("Emerald", 82, 100, fallen_from="Challenger"),
        "returns no further than it fell from": _record("Gold", 100, 100, fallen_from="Diamond"),
        "silence that ended within the interval": _record("Ruby", 50, 100, replies=50, fallen_from="Jade"),
        "errors are no outage": _record("Ruby", 0, 100, fallen_from="Jade"),
        "demo profile": _record("Bronze", 2, 2, profile="demo", total_successes=2),
    },
    evaluate=_promotion,
)


def _rewards(given: Json) -> Json:
    if given["outcome"] == "served":
        return rewards.served(given["reward_factor"], given["speed"], given["median"])
    return rewards.failed(given["purpose"])


def _served(factor: float, speed: float | None, median: float | None) -> dict[str, Json]:
    return {"outcome": "served", "reward_factor": factor, "speed": speed, "median": median}


REWARDS = Rule(
    name="rewards",
    about="x of one request: factor * (1/2 + 1/2 * sigma(4 * (v / median - 1))) where it was served, sigma being the "
    "logistic function and v/median 1 where either is missing; -0.1 for a failed challenge, five times that for "
    "a failed inference.",
    inputs={
        "at the median": _served(1.0, 100.0, 100.0),
        "twice the median": _served(1.0, 200.0, 100.0),
        "half the median": _served(1.0, 50.0, 100.0),
        "standing still": _served(1.0, 0.0, 100.0),
        "a thousand times the median": _served(1.0, 100_000.0, 100.0),
        "no median yet": _served(0.98, 100.0, None),
        "median 0": _served(0.98, 100.0, 0.0),
        "speed not measured": _served(0.444, None, 100.0),
        "at Bronze": _served(0.444, 120.0, 100.0),
        "failed challenge": {"outcome": "failed", "purpose": "challenge"},
        "failed inference": {"outcome": "failed", "purpose": "inference"},
    },
    evaluate=_rewards,
)


def _scores(given: Json) -> Json:
    score = given["score"]
    trace = []
    for earned in given["blocks"]:
        score = rewards.score_step(score, earned, given["alpha"])
        trace.append(score)
    return trace


SCORES = Rule(
    name="scores",
    about="The score after each block in which work was offered: (1 - alpha) * score + alpha * sum of x, never below "
    "0. The sum is exactly rounded, so the order within a block changes nothing.",
    inputs={
        "one request a block": {"score": 0.0, "alpha": 0.05, "blocks": [[0.75], [0.75], [0.75]]},
        "volume pays": {"score": 0.0, "alpha": 0.05, "blocks": [[0.75, 0.75, 0.75, 0.75]]},
        "nothing earned": {"score": 1.0, "alpha": 0.05, "blocks": [[]]},
        "never below 0": {"score": 0.01, "alpha": 0.05, "blocks": [[-0.5], [-0.1], [0.75]]},
        "a sum that order would change": {"score": 0.0, "alpha": 1.0, "blocks": [[1e16, 1.0, -1e16]]},
        "another alpha": {"score": 0.5, "alpha": 0.5, "blocks": [[1.0], [-0.1]]},
    },
    evaluate=_scores,
)


def _medians(given: Json) -> Json:
    return rewards.median_speed(given["speeds"])


MEDIANS = Rule(
    name="medians",
    about="A model's median speed over an interval: the middle one, or the mean of the middle two; null if none.",
    inputs={
        "none": {"speeds": []},
        "odd": {"speeds": [30.0, 10.0, 20.0]},
        "even": {"speeds": [40.0, 10.0, 20.0, 30.0]},
    },
    evaluate=_medians,
)


def _probation(given: Json) -> Json:
    return rewards.on_probation(given["verified_tokens"], PROFILES[given["profile"]])


PROBATION = Rule(
    name="probation",
    about="Whether a prover has weight 0 still, because too few of its tokens were verified.",
    inputs={
        "none": {"profile": "standard", "verified_tokens": 0},
        "one short": {"profile": "standard", "verified_tokens": 4_999},
        "just enough": {"profile": "standard", "verified_tokens": 5_000},
    },
    evaluate=_probation,
)


def _weights(given: Json) -> Json:
    weights = u16_weights({Uid(int(uid)): score for uid, score in given["scores"].items()})
    if isinstance(weights, NoWeights):
        return None
    return {str(uid): weight for uid, weight in weights.items()}


WEIGHTS = Rule(
    name="weights",
    about="Weights by UID: round-half-up(65535 * score / largest score) in exact arithmetic, zeros left out; null: no "
    "weights are set.",
    inputs={
        "one": {"scores": {"7": 0.3}},
        "two": {"scores": {"0": 1.0, "1": 0.5}},
        "half rounds up": {"scores": {"0": 65_535.0, "1": 0.5, "2": 1.5, "3": 2.5}},
        "just under half": {"scores": {"0": 65_535.0, "1": 0.49999999999999994}},
        "a zero is left out": {"scores": {"0": 0.0, "1": 1.0}},
        "thirds": {"scores": {"0": 0.3, "1": 0.1, "2": 0.2}},
        "already weights": {"scores": {"0": 65_535.0, "1": 32_768.0, "2": 1.0}},
        "tiny scores": {"scores": {"0": 5e-324, "1": 1e-323}},
        "huge scores": {"scores": {"0": 1.7e308, "1": 1.6e308}},
        "all zero": {"scores": {"0": 0.0, "1": 0.0}},
        "nobody": {"scores": {}},
    },
    evaluate=_weights,
)


def _conviction(given: Json) -> Json:
    if not conviction.convicts(given["log_e"]):
        return None
    left = conviction.sentence()
    return {
        "tier": left.record.tier.label,
        "attempts": left.record.attempts,
        "total_successes": left.record.total_successes,
        "fallen_from": None,
        "score": left.score,
        "verified_tokens": left.verified_tokens,
    }


CONVICTION = Rule(
    name="conviction",
    about="What is left of a prover whose evidence, given as its natural logarithm, reaches 1 / alpha = 10,000; null: "
    "it isn't convicted. Its evidence begins anew at 1.",
    inputs={
        "no evidence": {"log_e": 0.0},
        "evidence of honesty": {"log_e": -100.0},
        "just under": {"log_e": 9.2103},
        "just over": {"log_e": 9.2104},
        "far over": {"log_e": 250.0},
    },
    evaluate=_conviction,
)

RULES = (TIER_TABLE, PROMOTION, REWARDS, SCORES, MEDIANS, PROBATION, WEIGHTS, CONVICTION)
