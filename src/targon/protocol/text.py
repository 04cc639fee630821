"""The one function that turns token ids into text.

Engines differ in how they treat stop strings, special tokens and partial UTF-8, so nobody's text is
believed: it is derived, here, from the token ids.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from targon.protocol.primitives import TokenId

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

Decode = Callable[[Sequence[TokenId]], str]
"""A tokenizer's own decoding of token ids, special tokens kept out, no clean-up of spaces."""


def answer_text(
    token_ids: Sequence[TokenId], decode: Decode, *, eos_ids: Collection[TokenId], stop: Sequence[str]
) -> str:
    """The text of an answer.

    A closing end-of-sequence token is no text; the text ends before the first stop string that it holds;
    an unfinished UTF-8 sequence at the end is left out.
    """
    ids = list(token_ids)
    if ids and ids[-1] in eos_ids:
        ids.pop()
    text = decode(ids).rstrip(REPLACEMENT)
    cut = stop_position(text, stop)
    return text if cut is None else text[:cut]


def stop_position(text: str, stop: Sequence[str]) -> int | None:
    """Where the first stop string begins in a text, or None if it holds none."""
    places = [place for place in (text.find(string) for string in stop) if place >= 0]
    return min(places) if places else None
