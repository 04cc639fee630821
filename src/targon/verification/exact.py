"""The second method: token-for-token equality with a ground truth.

Equal tokens are proof of an honest answer. Unequal tokens are a failed challenge, but prove nothing about
intent: an honest engine in another number format differs from the reference at about one position in
fifty, always by a hair. Where that matters, replaying the sampler on the claimed tokens decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from targon.protocol.messages import FinishReason
from targon.protocol.primitives import TokenId
from targon.verification.verdict import Verdict, failed

METHOD = "exact"


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """The verifier's own generation for a request."""

    token_ids: tuple[TokenId, ...]
    finish_reason: FinishReason


def compare(claimed: Sequence[TokenId], truth: GroundTruth) -> Verdict:
    """Compare claimed tokens with a ground truth.

    The evidence of a failure: ``position`` (the first that differs), ``claimed`` and ``expected`` (token
    ids there; null past an end), ``agreed`` (share of leading positions that agree).
    """
    expected = truth.token_ids
    if tuple(claimed) == expected:
        return Verdict(
            "pass", METHOD, 1.0, f"all {len(expected)} tokens equal the ground truth", {}, len(expected)
        )
    position = next(
        (i for i, (a, b) in enumerate(zip(claimed, expected, strict=False)) if a != b),
        min(len(claimed), len(expected)),
    )
    got = claimed[position] if position < len(claimed) else None
    want = expected[position] if position < len(expected) else None
    return failed(
        METHOD,
        f"token {position} of {len(expected)} differs from the ground truth: "
        f"got {'the end' if got is None else got}, expected {'the end' if want is None else want}",
        tokens=len(claimed),
        position=position,
        claimed=got,
        expected=want,
        agreed=position / max(len(expected), 1),
    )
