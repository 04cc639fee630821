"""What was found of an engine: what it can do, whether it runs the model that it should, and advice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from targon.engines.port import Step
from targon.engines.remote.backend import Served
from targon.protocol.messages import Dialect

Judgement = Literal["good", "note", "bad"]
"""``good``: as it should be. ``note``: something that can't be had, with advice. ``bad``: work would go wrong."""

FLOAT32_DIFFERENCE: Final = 2e-4
"""Nats. Mean difference of log-probabilities up to which an engine computes in float32: seen were 1e-5 (vLLM)."""
HALF_DIFFERENCE: Final = 0.15
"""Nats. Up to which it computes in a half-precision format, or with 8-bit weights: seen were 0.03 and 0.06.
Beyond lie 4-bit weights (0.5) and other models."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of what was found."""

    what: str
    judgement: Judgement
    got: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can do."""

    kind: str
    served: Served
    dialects: tuple[Dialect, ...]
    """The samplers that it was seen to run."""
    token_ids: bool
    """Whether it says which tokens it generated."""
    logprobs: bool
    """Whether it says how likely each was."""
    prompt_logprobs: int
    """How many of the most likely tokens it reports for given ones; 0: none, it can be no reference."""
    seeds: bool
    """Whether the same seed gives the same answer."""
    context_length: int
    difference: float | None
    """Mean difference of its log-probabilities from those of the model's card, in nats; None if there is no card."""
    findings: tuple[Finding, ...]
    said: tuple[tuple[Step, ...], ...] = ()
    """What it answered to the card's conversations, in order: by which it is known again."""

    @property
    def right_model(self) -> bool:
        """Whether nothing was found that makes its answers another model's."""
        return all(finding.judgement != "bad" for finding in self.findings)

    @property
    def dtype(self) -> str:
        """What its log-probabilities look like: ``float32``, ``bfloat16`` (for any half precision), ``unknown``."""
        if self.difference is None:
            return "unknown"
        return "float32" if self.difference <= FLOAT32_DIFFERENCE else "bfloat16"


def advice(found: Capabilities, vocab_size: int) -> tuple[Finding, ...]:
    """What can and what can't be had, a line each, and what would change it."""
    lists, kind = found.prompt_logprobs, found.kind
    no_ids = "only `native` work can be had from this API; use the engine's own, if it has one"
    no_sampler = _SAMPLER_ADVICE.get(kind, _NO_SAMPLER)
    no_seeds = "start it with --enable-deterministic-inference" if kind == "sglang" else ""
    most = "the whole vocabulary" if lists >= vocab_size else f"the {lists} most likely of each position"
    return (
        _had("token ids", found.token_ids, "", no_ids),
        _had("log-probabilities", found.logprobs, "", ""),
        _had("protocol sampler", "targon/1" in found.dialects, ": its draws were replayed", no_sampler),
        _had("seeds", found.seeds, "", no_seeds),
        _had("scores given tokens", lists > 0, f", {most}", "it can serve a prover, but be no reference"),
    )


def _had(what: str, can: bool, more: str, otherwise: str) -> Finding:
    return Finding(what, "good", f"yes{more}") if can else Finding(what, "note", "no", otherwise)


_NO_SAMPLER: Final = (
    "provers get `greedy` work where token ids can be had, else `native` work, which earns nothing"
)
_SAMPLER_ADVICE: Final = {
    "vllm": "start it with --logits-processors targon.engines.vllm_plugin:TargonSampler, with targon installed beside "
    "it; without, provers get `greedy` work",
    "sglang": "start it with --enable-custom-logit-processor, with targon installed beside it; without, provers get "
    "`greedy` work",
}
