"""An answer's text as it grows: what each token adds, and when a stop string ends it."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Collection, Sequence

from targon.protocol.messages import FinishReason
from targon.protocol.primitives import TokenId
from targon.protocol.text import REPLACEMENT, Decode, stop_position

_Utf8 = codecs.getincrementaldecoder("utf-8")

Grow = Callable[[TokenId], str]
"""Takes an answer's next token, and gives the text of all until then."""


class ByteText:
    """Text that grows by the bytes of a token, where a tokenizer's tokens are no more than bytes: what decoding
    all of them anew would give, at a cost that doesn't grow with the answer.

    Args:
        bytes_of: by token id; nothing for special tokens.
    """

    def __init__(self, bytes_of: Sequence[bytes]) -> None:
        self._bytes_of = bytes_of
        self._decoder = _Utf8("replace")
        self._text = ""

    def __call__(self, token_id: TokenId) -> str:
        if token_id < len(self._bytes_of):  # a model may have more ids than its tokenizer has tokens
            self._text += self._decoder.decode(self._bytes_of[token_id])
        return self._text


class WholeText:
    """Text of a tokenizer about which nothing is known: all tokens are decoded anew each time."""

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._ids: list[TokenId] = []

    def __call__(self, token_id: TokenId) -> str:
        self._ids.append(token_id)
        return self._decode(self._ids)


class TextStream:
    """Turns token ids, one by one, into pieces of text whose concatenation is the answer's text.

    A piece never holds text that could still change: half a character, or what might turn out to be the
    beginning of a stop string. Such text comes with a later piece, or never.
    """

    def __init__(self, grow: Grow, *, eos_ids: Collection[TokenId], stop: Sequence[str]) -> None:
        self._grow = grow
        self._eos_ids = eos_ids
        self._stop = stop
        self._text = ""
        self._sent = 0

    def push(self, token_id: TokenId, *, last: bool) -> tuple[str, FinishReason | None]:
        """Add a token.

        Args:
            last: whether no further token may follow, whatever this one is.

        Returns:
            What the token adds to the text, and why the answer ends here if it does.
        """
        ends = token_id in self._eos_ids
        if not ends:
            self._text = self._grow(token_id).rstrip(REPLACEMENT)
        text, sent = self._text, self._sent
        if not self._stop:
            self._sent = max(sent, len(text))
            return text[sent:], "stop" if ends else "length" if last else None
        # what was sent holds no stop string, nor the beginning of one
        cut = stop_position(text[sent:], self._stop)
        reason: FinishReason | None = None
        if cut is not None:
            end, reason = sent + cut, "stop_string"
        elif ends:
            end, reason = len(text), "stop"
        elif last:
            end, reason = len(text), "length"
        else:
            end = len(text) - _longest_open_prefix(text, self._stop)
        self._sent = max(sent, end)
        return text[sent:end], reason


def _longest_open_prefix(text: str, stop: Sequence[str]) -> int:
    """How many characters at the end of a text could be the beginning of a stop string."""
    for length in range(max((len(string) for string in stop), default=1) - 1, 0, -1):
        tail = text[-length:]
        if len(tail) == length and any(string.startswith(tail) for string in stop):
            return length
    return 0
