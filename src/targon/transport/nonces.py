"""Replay protection: which nonces were accepted already."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from targon.protocol.primitives import Hotkey
from targon.transport.refusals import Code, Refusal


class NonceStore(Protocol):
    """Remembers accepted (hotkey, nonce) pairs at least as long as ``Limits.nonce_retention_s``.

    Asynchronous, so that one that several processes share can stand here. It is asked only about requests
    whose signature verified, so nobody can spend another's nonces.
    """

    async def check_and_store(self, hotkey: Hotkey, nonce_ns: int) -> bool:
        """True, and the pair is remembered, if it was never seen; False if it was.

        Raises:
            Refusal: if the store cannot tell (``overloaded``): better to refuse than to let a replay in.
        """
        ...


class MemoryNonceStore:
    """The store of one process. Bounded: when full of pairs that could still be replayed, it refuses.

    A restarted process has forgotten its nonces; what a replay could gain in those seconds is an answer
    that it cannot alter, to a request whose block must still be fresh.
    """

    def __init__(self, *, retention_s: float, max_entries: int, monotonic_s: Callable[[], float]) -> None:
        self._retention_s = retention_s
        self._max_entries = max_entries
        self._monotonic_s = monotonic_s
        self._seen: set[tuple[Hotkey, int]] = set()
        self._order: deque[tuple[float, tuple[Hotkey, int]]] = deque()

    def __len__(self) -> int:
        return len(self._seen)

    async def check_and_store(self, hotkey: Hotkey, nonce_ns: int) -> bool:
        now = self._monotonic_s()
        while self._order and self._order[0][0] <= now:
            self._seen.discard(self._order.popleft()[1])
        pair = (hotkey, nonce_ns)
        if pair in self._seen:
            return False
        if len(self._seen) >= self._max_entries:
            raise Refusal(
                Code.OVERLOADED,
                "too many requests within the freshness window to keep replays out; try again later",
                retry_after_s=self._retention_s,
            )
        self._seen.add(pair)
        self._order.append((now + self._retention_s, pair))
        return True
