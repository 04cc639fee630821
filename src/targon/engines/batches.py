"""Steps that are here together, handed on together.

An engine that is ahead of whoever reads it has several steps ready at once. Handing them on one by one costs a prover a
message and a system call for each, and wins nobody anything: none of them waits for another.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Protocol

from targon.engines.port import Engine, GenerateTask, Step

Batches = Callable[[GenerateTask], AsyncGenerator[Sequence[Step], None]]


class Batching(Protocol):
    """An engine that knows which of its steps are here together."""

    def batches(self, task: GenerateTask) -> AsyncGenerator[Sequence[Step], None]:
        """As :meth:`~targon.engines.port.Engine.generate`: the same steps, none of them later, never an empty batch."""
        ...


def batches_of(engine: Engine, task: GenerateTask) -> AsyncGenerator[Sequence[Step], None]:
    """An engine's steps as they come: those that come together, together; each for itself where it doesn't tell.

    Raises:
        EngineError: as ``generate`` does.
    """
    its_own: Batches | None = getattr(
        engine, "batches", None
    )  # a check of the protocol costs more than a token
    return _one_by_one(engine, task) if its_own is None else its_own(task)


async def _one_by_one(engine: Engine, task: GenerateTask) -> AsyncGenerator[Sequence[Step], None]:
    async with aclosing(engine.generate(task)) as steps:
        async for step in steps:
            yield (step,)
