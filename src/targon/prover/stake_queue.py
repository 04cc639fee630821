"""The line before the engine: bounded, ordered by the caller's stake, first come first served among equals.

When the line is full, a caller with more stake takes the place of the last in line, who is told at once and
can go elsewhere; a caller with no more stake than the last is refused itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import anyio

from targon.transport import Code, Refusal

RETRY_AFTER_S = 2.0


@dataclass(slots=True, eq=False)
class _Waiter:
    stake: float
    number: int
    called: anyio.Event = field(default_factory=anyio.Event)
    admitted: bool = False

    @property
    def rank(self) -> tuple[float, int]:
        return -self.stake, self.number


class _Slot:
    """A place in the engine for as long as the block runs."""

    __slots__ = ("_queue", "_stake")

    def __init__(self, queue: StakeQueue, stake: float) -> None:
        self._queue = queue
        self._stake = stake

    async def __aenter__(self) -> None:
        await self._queue.acquire(self._stake)

    async def __aexit__(self, *_: object) -> None:
        self._queue.pass_on()


class StakeQueue:
    """Slots of an engine, and the line for them.

    Args:
        slots: how many hold a slot at once.
        places: how many may wait.
        max_wait_s: how long anyone may wait.
    """

    def __init__(self, *, slots: int, places: int, max_wait_s: float) -> None:
        self._slots = slots
        self._places = places
        self._max_wait_s = max_wait_s
        self._running = 0
        self._arrivals = 0
        self._line: list[_Waiter] = []

    @property
    def slots(self) -> int:
        return self._slots

    @property
    def running(self) -> int:
        return self._running

    @property
    def waiting(self) -> int:
        return len(self._line)

    def slot(self, stake: float) -> _Slot:
        """Hold a slot in a block; wait for one in line if there is none.

        Raises:
            Refusal: on entering; ``queue_full``, ``evicted`` or ``waited_too_long``; each says when to try again.
        """
        return _Slot(self, stake)

    async def acquire(self, stake: float) -> None:
        """Take a slot, as :meth:`slot` does; whoever has it passes it on."""
        if self._running < self._slots:
            self._running += 1
            return
        waiter = self._line_up(stake)
        try:
            with anyio.move_on_after(self._max_wait_s):
                await waiter.called.wait()
        except BaseException:
            # Cancelled: the client went away, or we are stopping. A slot that was just given is passed on.
            if waiter.admitted:
                self.pass_on()
            raise
        finally:
            if waiter in self._line:
                self._line.remove(waiter)
        if waiter.admitted:
            return
        if waiter.called.is_set():
            raise Refusal(
                Code.EVICTED,
                "a caller with more stake took this place in the queue; try again, or elsewhere",
                got=f"stake {stake:g}",
                retry_after_s=RETRY_AFTER_S,
            )
        raise Refusal(
            Code.WAITED_TOO_LONG,
            "the engine was busy for too long; try again, or elsewhere",
            got=f"{self._max_wait_s:g} s in the queue",
            retry_after_s=RETRY_AFTER_S,
        )

    def _line_up(self, stake: float) -> _Waiter:
        self._arrivals += 1
        waiter = _Waiter(stake, self._arrivals)
        if len(self._line) >= self._places:
            last = max(self._line, key=lambda other: other.rank, default=None)
            if last is None or last.stake >= stake:
                raise Refusal(
                    Code.QUEUE_FULL,
                    "the queue is full of callers with as much stake or more; try again, or elsewhere",
                    got=f"{len(self._line)} waiting, your stake {stake:g}",
                    expected=f"fewer than {self._places} waiting"
                    + (f", or a stake over {last.stake:g}" if last is not None else ""),
                    retry_after_s=RETRY_AFTER_S,
                )
            self._line.remove(last)
            last.called.set()
        self._line.append(waiter)
        return waiter

    def pass_on(self) -> None:
        """Give a slot that came free to the first in line, directly, so that nobody can slip in between."""
        if not self._line:
            self._running -= 1
            return
        first = min(self._line, key=lambda other: other.rank)
        self._line.remove(first)
        first.admitted = True
        first.called.set()
