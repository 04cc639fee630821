"""How long a prompt is, how long its answer may become, and whether all of that can be served.

Counting a prompt's tokens costs a question to the reference engine. A bound costs nothing, and nearly always decides:
no tokenizer makes more tokens than there are bytes, but for what the chat template adds.

Whether the template takes the messages at all follows from their roles, nearly always: it is asked once for each order
of roles. A prover that is sent what its template refuses would have to refuse it.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from targon.engines import Engine, EngineError, TaskRefused
from targon.protocol.errors import UnsupportedSampling
from targon.protocol.messages import MAX_COMPLETION_TOKENS, ChatMessage, Dialect, Sampling
from targon.protocol.orders import Order, upper_bound
from targon.protocol.primitives import u64_hex
from targon.protocol.sampler import check_sampling
from targon.transport.errands import NotReady, Unservable
from targon.verification import Calibration
from targon.verification.calibration import Band
from targon.verification.deadline import within

DEFAULT_MAX_TOKENS: Final = 1_024
"""Longest answer where nobody said how long it may be, as far as the model's context, and what is calibrated, reach."""
COUNT_TIMEOUT_S: Final = 10.0
REMEMBERED: Final = 10_000
"""Prompts whose length is remembered."""
RETRY_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Size:
    """Of one order."""

    prompt_tokens: int
    """At most so many; exactly, if ``exact``."""
    exact: bool
    max_tokens: int


class Sizes:
    """Measures orders for one model."""

    def __init__(self, engine: Engine, calibration: Calibration | None) -> None:
        self._engine = engine
        self._calibration = calibration
        bands = () if calibration is None else calibration.bands
        self._replay = "list" if bands and all(band.scope.replay == "list" for band in bands) else "whole"
        self._calibrated_prompt = max((band.scope.max_prompt_tokens for band in bands), default=0)
        longest = max((band.scope.max_tokens for band in bands), default=DEFAULT_MAX_TOKENS)
        self._default = min(DEFAULT_MAX_TOKENS, longest)
        self._known: OrderedDict[bytes, int] = OrderedDict()
        self._shapes: OrderedDict[bytes, int] = OrderedDict()

    @property
    def default_tokens(self) -> int:
        """Longest answer to an order that doesn't say how long it may be."""
        return min(self._default, self._engine.identity.context_length, MAX_COMPLETION_TOKENS)

    async def measure(self, order: Order) -> Size:
        """What an order needs.

        Raises:
            Unservable: if it doesn't fit into the model's context, or the model's template refuses its messages.
            NotReady: if its prompt must be counted, and the reference engine doesn't answer.
        """
        context, wanted = self._engine.identity.context_length, order.max_tokens
        bound = upper_bound(order.messages)
        length = wanted or self._default
        # beyond what is calibrated, one token too many would cost the prover what it earns
        if bound + length <= context and bound <= self._calibrated_prompt:
            await self._check_shape(order.messages)
            return Size(bound, exact=False, max_tokens=length)
        try:
            prompt = await self.prompt_tokens(order.messages)
        except NotReady:
            if bound + length > context:
                raise
            return Size(bound, exact=False, max_tokens=length)  # served, though it won't count
        left = context - prompt
        if left < (wanted or 1):
            raise Unservable(
                "messages",
                "context_length_exceeded",
                f"got a prompt of {prompt} tokens and an answer of up to {wanted or 1}, expected at most {context} "
                "tokens together, the model's context: shorten the messages, or ask for a shorter answer",
            )
        return Size(prompt, exact=True, max_tokens=min(left, length, MAX_COMPLETION_TOKENS))

    async def prompt_tokens(self, messages: Sequence[ChatMessage]) -> int:
        """Exact length of a prompt, in tokens.

        Raises:
            NotReady: if the reference engine doesn't answer.
            Unservable: if the engine can make no prompt of it.
        """
        key = _key(messages)
        known = self._known.get(key)
        if known is not None:
            self._known.move_to_end(key)
            return known
        try:
            ids = await within(COUNT_TIMEOUT_S, lambda: self._engine.prompt_token_ids(messages))
        except TaskRefused as error:
            raise Unservable("messages", "unsupported_value", str(error)) from error
        except EngineError as error:
            raise NotReady(f"the prompt's tokens can't be counted now: {error}", RETRY_S) from error
        _remember(self._known, key, len(ids))
        _remember(self._shapes, _shape(messages), len(messages))
        return len(ids)

    async def _check_shape(self, messages: Sequence[ChatMessage]) -> None:
        """Check that the model's template takes such messages: what it refuses isn't remembered, as it may be refused
        for what was said.

        Raises:
            Unservable: naming the messages.
        """
        if _shape(messages) in self._shapes:
            self._shapes.move_to_end(_shape(messages))
            return
        try:
            await self.prompt_tokens(messages)
        except NotReady:
            return  # served: while our engine is away, nobody is charged for refusing it

    def covers(self, sampling: Sampling, prompt_tokens: int) -> bool:
        """Whether evidence can be had of such a request: it counts then."""
        if self._calibration is None:
            return False
        found = self._calibration.band_for(sampling, prompt_tokens=prompt_tokens, replay=self._replay)
        return isinstance(found, Band)


def check_order(order: Order) -> None:
    """Check that there is a sampler for what is asked.

    Raises:
        Unservable: naming the parameter, what was got and what is possible.
    """
    try:
        _check_drawn(order.temperature, order.top_p, order.top_k)
    except UnsupportedSampling as error:
        raise Unservable(error.parameter, "unsupported_value", str(error)) from error


@lru_cache(maxsize=1024)  # the same few are asked for over and over
def _check_drawn(temperature: float, top_p: float, top_k: int) -> None:
    check_sampling(Sampling(seed=u64_hex(0), temperature=temperature, top_p=top_p, top_k=top_k, max_tokens=1))


def sampling_of(order: Order, dialect: Dialect, seed: int, max_tokens: int) -> Sampling:
    """An order's parameters in a dialect; where the likeliest token is taken, there is nothing to cut."""
    drawn = order.temperature > 0.0
    return Sampling(
        dialect=dialect,
        seed=u64_hex(seed),
        temperature=order.temperature,
        top_p=order.top_p if drawn else 1.0,
        top_k=order.top_k if drawn else 0,
        max_tokens=max_tokens,
        stop=order.stop,
        choice=order.choice,
    )


def _remember(known: OrderedDict[bytes, int], key: bytes, value: int) -> None:
    known[key] = value
    if len(known) > REMEMBERED:
        known.popitem(last=False)


def _shape(messages: Sequence[ChatMessage]) -> bytes:
    """Stands for an order of roles."""
    return hashlib.sha256(" ".join(message.role for message in messages).encode()).digest()


def _key(messages: Sequence[ChatMessage]) -> bytes:
    """Stands for a prompt, which is not kept."""
    digest = hashlib.sha256()
    for message in messages:
        content = message.content.encode()
        digest.update(f"{message.role} {len(content)} ".encode() + content)
    return digest.digest()
