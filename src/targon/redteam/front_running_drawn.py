"""Challenges as verifiers draw them, and those of them that a prover foresees without their passage.

Such a challenge isn't always a question beside its passage: some want something of three words of it
(:class:`targon.verifier.shapes.Shapes`). Those are foreseen by whoever knows a passage in which the same words stand
together. All others hold the passage, or a query that the model wrote from it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import partial
from itertools import combinations
from math import factorial
from typing import Final

from targon.protocol.draws import challenge_draw
from targon.protocol.primitives import Block
from targon.verifier.shapes import TOPICS, USUAL, telling_words
from targon.verifier.wordings import WISHES

Turns = tuple[str, ...]

_SECRET: Final = hashlib.sha256(b"front-running, drawn").digest()
_PROVER: Final = bytes(32)
_TYPED: Final = 2
"""Ways in which a wish is typed: with care and without."""


def drawn(passages: Sequence[str]) -> list[Turns]:
    """What challenges about these passages say, one for each, by a verifier's own draws.

    A query stands for those that the model writes from an unseen passage; nobody foresees it.
    """
    return [
        USUAL.turns(partial(challenge_draw, _SECRET, Block(number), _PROVER), passage, f"query {number}")
        for number, passage in enumerate(passages)
    ]


class Wishes:
    """Every wish about words that stand together in a passage that a prover knows, in every wording, typed either way.

    System messages aren't part of them: there are few, and it asks with each.
    """

    def __init__(self, known: Sequence[str]) -> None:
        self._together = {frozenset(telling_words(text)) for text in known}
        self._wordings = [
            re.compile(re.escape(before) + "(.+?)" + re.escape(after.rstrip(".?")) + "[.?]?", re.IGNORECASE)
            for before, _, after in (wording.partition("{}") for wording in WISHES)
        ]

    def __len__(self) -> int:
        """Conversations: with each system message one. Counts, which takes seconds."""
        about = {
            some
            for words in self._together
            for some in combinations(sorted(words), min(len(words), len(TOPICS)))
        }
        return sum(factorial(len(some)) for some in about) * len(WISHES) * _TYPED * len(USUAL.systems)

    def __contains__(self, turns: Turns) -> bool:
        if len(turns) > 1:
            return False
        about = [
            re.split(", | and ", found[1]) for one in self._wordings if (found := one.fullmatch(turns[0]))
        ]
        return any(words.issuperset(some) for some in about for words in self._together)
