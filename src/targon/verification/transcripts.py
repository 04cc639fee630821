"""What an engine answered, kept: the raw material of calibrations and of everything that is tried on cheats.

A transcript holds all that a reference needs to judge it, and nothing that the judging method decides. So it
is generated once, which is dear, and judged as often as anyone likes, which is cheap. A file of transcripts
holds one as JSON on each line; generating goes on where a file ends.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Self

import anyio
from pydantic import Field

from targon.engines import Engine, GenerateTask, ReplayTask
from targon.protocol.messages import ChatMessage, FinishReason, Message, Sampling
from targon.protocol.primitives import Hex8, TokenId, u64_hex

REPLAYED_TOGETHER = 16
"""Completions handed to a reference at once."""


class Transcript(Message):
    """One request, as an engine saw it, and the tokens that it answered."""

    number: Annotated[int, Field(ge=0)]
    """Its place among the tasks of its run: equal numbers of two runs were asked the same."""
    messages: tuple[ChatMessage, ...]
    sampling: Sampling
    run_key: Hex8
    token_ids: Annotated[tuple[Annotated[TokenId, Field(ge=0)], ...], Field(min_length=1)]
    finish_reason: FinishReason
    seconds: Annotated[float, Field(ge=0.0)] = 0.0
    """How long the engine took, waiting included; 0 where nobody measured."""

    @classmethod
    def of(
        cls,
        number: int,
        task: GenerateTask,
        token_ids: Sequence[TokenId],
        finish: FinishReason,
        seconds: float = 0.0,
    ) -> Self:
        """The transcript of a task's answer."""
        return cls(
            number=number,
            messages=task.messages,
            sampling=task.sampling,
            run_key=u64_hex(task.run_key),
            token_ids=tuple(token_ids),
            finish_reason=finish,
            seconds=seconds,
        )

    def replay_task(self) -> ReplayTask:
        """What a reference is to replay."""
        return ReplayTask(self.messages, self.token_ids, self.sampling, int(self.run_key, 16))

    def generate_task(self) -> GenerateTask:
        """What was asked."""
        return GenerateTask(self.messages, self.sampling, int(self.run_key, 16))


def read_transcripts(path: Path) -> Iterator[Transcript]:
    """The transcripts of a file, in its order. A last line that was cut short is left out.

    Raises:
        MalformedMessage: if another line is none.
        OSError: if the file can't be read.
    """
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if line.endswith("\n"):
                yield Transcript.from_bytes(line)


async def transcribe(
    engine: Engine,
    tasks: Sequence[tuple[int, GenerateTask]],
    *,
    together: int,
    clock: Callable[[], float],
) -> AsyncIterator[Transcript]:
    """Have an engine answer numbered tasks, so many at a time; yields each when it is done.

    Raises:
        EngineError: as the engine does.
    """
    left = iter(tasks)
    send, receive = anyio.create_memory_object_stream[Transcript](len(tasks))

    async def work() -> None:
        for number, task in left:
            began = clock()
            async with aclosing(engine.generate(task)) as steps:
                answer = [step async for step in steps]
            reason = answer[-1].finish_reason
            assert reason is not None  # the engine port promises it of the last step
            ids = [step.token_id for step in answer]
            await send.send(Transcript.of(number, task, ids, reason, clock() - began))

    async def work_all() -> None:
        async with anyio.create_task_group() as workers:
            for _ in range(together):
                workers.start_soon(work)
        send.close()

    async with anyio.create_task_group() as group:
        group.start_soon(work_all)
        async with receive:
            async for transcript in receive:
                yield transcript
        group.cancel_scope.cancel()


async def complete_file(
    path: Path,
    engine: Engine,
    tasks: Sequence[GenerateTask],
    *,
    together: int,
    clock: Callable[[], float],
    done: Callable[[Transcript], None] = lambda _: None,
) -> None:
    """Generate what a file of transcripts lacks of the tasks, and append it.

    Args:
        done: told of each new transcript.

    Raises:
        EngineError: as the engine does; what was generated until then is kept.
    """
    have = await anyio.to_thread.run_sync(_numbers, path)
    missing = [(number, task) for number, task in enumerate(tasks) if number not in have]
    async with (
        await anyio.open_file(path, "a", encoding="utf-8") as file,
        aclosing(transcribe(engine, missing, together=together, clock=clock)) as made,  # type: ignore[type-var]
    ):
        async for transcript in made:
            await file.write(transcript.to_bytes().decode() + "\n")
            await file.flush()
            done(transcript)


def _numbers(path: Path) -> set[int]:
    """The numbers that a file holds; a last line that was cut short is removed from it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        return set()
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        with path.open("r+b") as file:
            file.truncate(whole)
    return {transcript.number for transcript in read_transcripts(path)}
