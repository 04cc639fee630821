"""A streamed answer as it comes: its events, checked against what was asked and against what is signed at the end."""

from __future__ import annotations

from targon.protocol.errors import MalformedMessage
from targon.protocol.messages import GenerateRequest, GenerateResponse, TokenEvent
from targon.transport.answers import Answer, Timing
from targon.transport.errors import BadResponse, Endpoint
from targon.transport.exchange import Exchange
from targon.transport.replies import DONE, ERROR
from targon.transport.sse import Event


class StreamReading:
    """One stream's events, checked against what was asked and against what is signed at the end."""

    def __init__(self, axon: Endpoint, request: GenerateRequest, exchange: Exchange) -> None:
        self._axon = axon
        self._most = request.sampling.max_tokens
        self._exchange = exchange
        self._tokens: list[int] = []
        self._logprobs: list[tuple[int, tuple[float, ...]]] = []
        """Log-probabilities that were sent, each with the place of its first token."""
        self._first: tuple[float, int] | None = None
        self._last_s: float | None = None

    def take(self, event: Event) -> TokenEvent | Answer:
        if event.name == "message":
            return self._token(event.data)
        if event.name == DONE:
            return self._answer(event.data)
        if event.name == ERROR:
            raise self._exchange.refused(200, event.data, None)
        raise BadResponse(
            self._axon, "malformed", f"got an event {event.name[:40]!r}, expected {DONE} or {ERROR}"
        )

    def _token(self, data: bytes) -> TokenEvent:
        try:
            event = TokenEvent.from_bytes(data)
        except MalformedMessage as error:
            raise BadResponse(self._axon, "malformed", str(error)) from error
        if event.logprobs is not None:
            if len(event.logprobs) != len(event.token_ids):
                raise BadResponse(
                    self._axon,
                    "inconsistent",
                    f"got {len(event.logprobs)} log-probabilities for {len(event.token_ids)} tokens of an event",
                )
            self._logprobs.append((len(self._tokens), event.logprobs))
        if event.token_ids:
            self._last_s = self._exchange.elapsed_s
            if self._first is None:
                self._first = (self._last_s, len(event.token_ids))
            self._tokens.extend(event.token_ids)
        if len(self._tokens) > self._most:
            raise BadResponse(
                self._axon, "too_large", f"got {len(self._tokens)} tokens, expected at most {self._most}"
            )
        return event

    def _answer(self, data: bytes) -> Answer:
        response = parse_response(self._axon, data)
        signed = response.completion.token_ids
        if tuple(self._tokens) != signed:
            raise BadResponse(
                self._axon,
                "inconsistent",
                f"streamed {len(self._tokens)} tokens that are not the {len(signed)} that were signed",
            )
        self._check_logprobs(response.completion.logprobs)
        first_s, first_tokens = self._first or (None, 0)
        timing = Timing(
            first_token_s=first_s,
            last_token_s=self._last_s,
            total_s=self._exchange.elapsed_s,
            first_tokens=first_tokens,
            tokens=len(signed),
            bytes=self._exchange.received,
        )
        return Answer(response, timing)

    def _check_logprobs(self, signed: tuple[float, ...] | None) -> None:
        """What was sent must be what is signed. A prover signs none unless it has one for every token."""
        if signed is None:
            return
        for place, sent in self._logprobs:
            if signed[place : place + len(sent)] != sent:
                raise BadResponse(
                    self._axon,
                    "inconsistent",
                    "streamed log-probabilities that are not those that were signed",
                )


def parse_response(axon: Endpoint, body: bytes) -> GenerateResponse:
    """The response in a body, or in the last event of a stream; ``BadResponse`` if it is none."""
    try:
        return GenerateResponse.from_bytes(body)
    except MalformedMessage as error:
        raise BadResponse(axon, "malformed", str(error)) from error
