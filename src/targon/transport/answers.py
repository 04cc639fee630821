"""What a client hands back: the signed answer, and how long it took."""

from __future__ import annotations

from dataclasses import dataclass

from targon.protocol.messages import GenerateResponse


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """How long a client waits, in seconds."""

    connect_s: float = 5.0
    """For a connection."""
    first_byte_s: float = 60.0
    """From the request to the first byte of a streamed answer: the prover's queue and its prefill. A whole
    answer begins when the work is done, so only ``total_s`` bounds it."""
    between_bytes_s: float = 20.0
    """Between any two pieces of the answer."""
    total_s: float = 300.0
    """From the request to the answer's last byte."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """When an answer came, in seconds after the request was sent. Measured here, never believed."""

    first_token_s: float | None
    """When the first tokens came; None for a whole answer, which does not show it."""
    last_token_s: float | None
    total_s: float
    """When the answer was whole."""
    first_tokens: int
    """How many tokens came with the first event."""
    tokens: int
    bytes: int
    """Size of the answer's body."""

    @property
    def tokens_per_s(self) -> float | None:
        """Speed after the first token; None where it was not seen (a whole answer, a single event).

        A prover that holds everything back and sends it in a burst looks fast by this figure alone:
        :attr:`overall_tokens_per_s` does not.
        """
        if self.first_token_s is None or self.last_token_s is None or self.last_token_s <= self.first_token_s:
            return None
        return (self.tokens - self.first_tokens) / (self.last_token_s - self.first_token_s)

    @property
    def overall_tokens_per_s(self) -> float:
        """All tokens over the whole time, the wait for the first one included."""
        return self.tokens / self.total_s if self.total_s > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer. Its form is right; nothing else about it has been checked."""

    response: GenerateResponse
    timing: Timing
