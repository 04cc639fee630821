"""Given tokens, scored by a backend: what it answers is checked against what it was asked, and against itself.

An engine may cut a long answer short; a cache between it and us may give one request's answer to another. Neither
may become a verdict about a prover.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NoReturn

import numpy as np

from targon.engines.errors import EngineUnavailable
from targon.engines.port import Scores
from targon.engines.remote.answers import reading
from targon.engines.remote.backend import Backend, PromptLogprobs
from targon.protocol.primitives import TokenId

REMEMBERED = 4096
"""How many answers' names are kept, to notice one that is given again."""

_ROUNDING = 1e-3
"""A sum of probabilities may come out this much above 1."""


class Scorer:
    """Scores through one backend.

    Args:
        model: the name that the engine serves it under.
        vocab_size: how many token ids there are.
    """

    def __init__(self, backend: Backend, model: str, vocab_size: int) -> None:
        self._backend = backend
        self._model = model
        self._vocab_size = vocab_size
        self._seen: OrderedDict[str, None] = OrderedDict()

    async def score(self, prompt: tuple[TokenId, ...], claimed: tuple[TokenId, ...], top_k: int) -> Scores:
        """Score claimed tokens behind a prompt.

        Args:
            top_k: how many of the most likely tokens to report per position; 0: the whole vocabulary.

        Raises:
            TaskRefused, EngineBusy: as the backend does.
            EngineUnavailable: if what it answers doesn't fit what it was asked.
        """
        with reading(self._backend):
            found = await self._backend.prompt_logprobs(self._model, (*prompt, *claimed), top_k or -1)
        self._check_new(found.answer)
        sent = np.array((*prompt, *claimed)[1:], np.int64)
        if found.token_ids.shape != sent.shape or (found.token_ids != sent).any():
            self._fail(
                f"got log-probabilities of {found.token_ids.size + 1} tokens that are not the {sent.size + 1} that it "
                "was sent: they belong to another request, or it reads tokens otherwise"
            )
        rows = slice(len(prompt) - 1, None)
        own = PromptLogprobs(
            found.token_ids[rows],
            found.logprobs[rows],
            found.ranks[rows],
            found.top_ids[rows],
            found.top_logprobs[rows],
            found.answer,
        )
        self._check_numbers(own, top_k)
        return Scores(
            top_ids=own.top_ids if top_k else np.sort(own.top_ids, axis=1),
            top_logprobs=own.top_logprobs
            if top_k
            else np.take_along_axis(own.top_logprobs, np.argsort(own.top_ids, axis=1), axis=1),
            claimed_logprobs=own.logprobs,
            claimed_ranks=own.ranks,
            prompt_tokens=len(prompt),
        )

    def _check_new(self, answer: str) -> None:
        if answer in self._seen:
            self._fail(
                f"its answer {answer} was given before: a cache between it and us answers in its place; name the "
                "engine itself, or turn the cache off"
            )
        self._seen[answer] = None
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)

    def _check_numbers(self, found: PromptLogprobs, top_k: int) -> None:
        """Each row is a list of so many different tokens, falling, that can be probabilities; the token itself has
        the same log-probability in the list, if it is there."""
        width = top_k or self._vocab_size
        if found.top_ids.shape != (found.token_ids.size, width):
            self._fail(
                f"got lists of {found.top_ids.shape[-1]} tokens, expected {width}: its answer was cut short"
            )
        with np.errstate(invalid="ignore", over="ignore"):
            mass = np.exp(found.top_logprobs.astype(np.float64)).sum(axis=1)
            falling = (found.top_logprobs[:, 1:] <= found.top_logprobs[:, :-1]).all(axis=1)
        different = np.diff(np.sort(found.top_ids, axis=1), axis=1).all(axis=1)
        likelier = (found.top_logprobs > found.logprobs[:, None] + _ROUNDING).sum(axis=1)
        listed = found.top_ids == found.token_ids[:, None]
        with np.errstate(invalid="ignore"):
            same = ~listed | (np.abs(found.top_logprobs - found.logprobs[:, None]) <= _ROUNDING)
            same |= found.top_logprobs == found.logprobs[:, None]
        for what, good in (
            ("a log-probability that is none", ~np.isnan(found.logprobs) & (found.logprobs <= _ROUNDING)),
            ("a log-probability that is none in a list", ~np.isnan(found.top_logprobs).any(axis=1)),
            ("probabilities that sum to more than 1", np.isfinite(mass) & (mass <= 1.0 + _ROUNDING)),
            ("a list out of order", falling),
            ("two log-probabilities of one token", same.all(axis=1)),
            ("one token twice in a list", different),
            ("a rank that contradicts the list", found.ranks >= likelier),
            (
                "a token id beyond the vocabulary",
                ((found.top_ids >= 0) & (found.top_ids < self._vocab_size)).all(axis=1),
            ),
        ):
            if not good.all():
                self._fail(f"got {what} at position {int(np.flatnonzero(~good)[0])} of the answer")

    def _fail(self, what: str) -> NoReturn:
        raise EngineUnavailable(f"engine {self._backend.kind}, asked for scores: {what}")
