"""An answer's text as it grows: what each token adds, and when a stop string ends it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from targon.protocol.messages import FinishReason
from targon.protocol.primitives import TokenId
from targon.protocol.text import Decode, answer_text, stop_position


class TextStream:
    """Turns token ids, one by one, into pieces of text whose concatenation is the answer's text.

    A piece never holds text that could still change: half a character, or what might turn out to be the
    beginning of a stop string. Such text comes with a later piece, or never.
    """

    def __init__(self, decode: Decode, *, eos_ids: Collection[TokenId], stop: Sequence[str]) -> None:
        self._decode = decode
        self._eos_ids = eos_ids
        self._stop = stop
        self._ids: list[TokenId] = []
        self._sent = 0

    def push(self, token_id: TokenId, *, last: bool) -> tuple[str, FinishReason | None]:
        """Add a token.

        Args:
            last: whether no further token may follow, whatever this one is.

        Returns:
            What the token adds to the text, and why the answer ends here if it does.
        """
        self._ids.append(token_id)
        text = answer_text(self._ids, self._decode, eos_ids=self._eos_ids, stop=())
        cut = stop_position(text, self._stop)
        reason: FinishReason | None = None
        if cut is not None:
            end, reason = cut, "stop_string"
        elif token_id in self._eos_ids:
            end, reason = len(text), "stop"
        elif last:
            end, reason = len(text), "length"
        else:
            end = len(text) - _longest_open_prefix(text, self._stop)
        piece = text[self._sent : end]
        self._sent = max(self._sent, end)
        return piece, reason


def _longest_open_prefix(text: str, stop: Sequence[str]) -> int:
    """How many characters at the end of a text could be the beginning of a stop string."""
    for length in range(max((len(string) for string in stop), default=1) - 1, 0, -1):
        tail = text[-length:]
        if len(tail) == length and any(string.startswith(tail) for string in stop):
            return length
    return 0
