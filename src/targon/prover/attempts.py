"""Which attempts were answered already: an attempt has one answer, and one receipt."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from targon.protocol.messages import GenerateRequest
from targon.protocol.primitives import Block, Hotkey
from targon.protocol.schedule import MAX_BLOCK_AGE
from targon.transport import Code, Refusal


class AnsweredAttempts:
    """Remembers (verifier, attempt) while a request for it could still be fresh; bounded by that.

    Args:
        max_entries: most attempts remembered at once; over it, requests are refused.
    """

    def __init__(self, *, max_entries: int = 200_000) -> None:
        self._max_entries = max_entries
        self._by_block: dict[Block, set[tuple[Hotkey, str]]] = {}

    def __len__(self) -> int:
        return sum(len(keys) for keys in self._by_block.values())

    @contextmanager
    def claim(self, request: GenerateRequest, current: Block) -> Iterator[None]:
        """Claim an attempt while it is answered. If the answer fails, the claim is given up.

        Raises:
            Refusal: ``already_answered`` or ``overloaded``.
        """
        for block in [block for block in self._by_block if block < current - MAX_BLOCK_AGE]:
            del self._by_block[block]
        key = (request.verifier, request.attempt)
        if any(key in keys for keys in self._by_block.values()):
            raise Refusal(
                Code.ALREADY_ANSWERED,
                "this attempt was answered, or is being answered, already; a new try is a new attempt",
                got=request.attempt,
                expected="an attempt number of its own for every request",
            )
        if len(self) >= self._max_entries:
            raise Refusal(Code.OVERLOADED, "too many requests in the last blocks", retry_after_s=12.0)
        keys = self._by_block.setdefault(request.block, set())
        keys.add(key)
        try:
            yield
        except BaseException:
            keys.discard(key)
            raise
