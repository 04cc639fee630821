"""What an operator may set of a verifier."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator

from targon import __version__


def version_key(version: str = __version__) -> int:
    """A version as the chain compares them: ``1000 · major + 10 · minor + patch``, as the subnet always had it."""
    major, minor, patch = (int(part) for part in version.split(".")[:3])
    return 1_000 * major + 10 * minor + patch


class VerifierSettings(BaseModel):
    """Named as operators know them (``--neuron.…``)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sample_size: int = Field(10, ge=1, le=65_536)
    """How many provers are challenged in a block."""
    disable_set_weights: bool = False
    """Verify, keep tiers and scores, but set no weights on chain."""
    vpermit_tao_limit: float = Field(4096.0, ge=0.0)
    """A neuron with a validator permit and more stake than this many TAO is no prover."""
    min_tokens: int = Field(32, ge=32)
    """Shortest challenge, in tokens."""
    max_tokens: int = Field(128, ge=32)
    """Longest challenge, in tokens."""
    compute_stats_interval: int = Field(360, ge=1)
    """Blocks between two lines of statistics in the log output."""
    query_tokens: int = Field(32, ge=4, le=256)
    """Longest query, in tokens."""
    version_key: int = Field(default_factory=version_key, ge=0, le=(1 << 53) - 1)
    """Version key that weights are set with. The subnet's owner raises the one that is asked for to have verifiers
    upgraded: setting it by hand only hides that."""

    @model_validator(mode="after")
    def _check_lengths(self) -> VerifierSettings:
        if self.max_tokens < self.min_tokens:
            raise ValueError(
                f"max_tokens: got {self.max_tokens}, expected at least min_tokens ({self.min_tokens})"
            )
        return self
