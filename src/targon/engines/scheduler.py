"""Continuous batching: one task that owns the model, and the requests that wait for it.

Between two turns of the batch, requests join, finished and cancelled ones leave, and one forward pass of
scoring is done, so that neither generating nor scoring can starve the other.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import anyio
import structlog
from anyio.streams.memory import MemoryObjectSendStream

from targon.engines.batch import Batch, Decoding, Token
from targon.engines.errors import EngineBusy, EngineUnavailable
from targon.engines.model_runner import FORWARD_TOKENS, ModelRunner, ReplayRow, ScoreRow
from targon.engines.model_thread import ModelThread
from targon.engines.port import Replayed, Scores, Step
from targon.engines.text_stream import TextStream

log = structlog.get_logger()

Row = ScoreRow | ReplayRow
R = TypeVar("R", bound=Row)
S = TypeVar("S")


@dataclass(eq=False, slots=True)
class _Request:
    """One generation: its state in the batch, and the way back to who asked."""

    decoding: Decoding
    text: TextStream
    steps: MemoryObjectSendStream[Step]
    complete: bool = False
    """Whether its last step was sent."""
    leaving: bool = False
    """Whether it is to leave the batch at the next turn: complete, or nobody listens any more."""


@dataclass(eq=False, slots=True)
class _ScoreJob:
    """The sequences of one call to score or replay; each result has its place."""

    work: Callable[..., list[Any]]
    """What does it, given some of the sequences."""
    left: deque[tuple[int, Row]]
    results: list[Any]
    done: anyio.Event = field(default_factory=anyio.Event)
    cancelled: bool = False


class Scheduler:
    """Shares one model between concurrent requests."""

    def __init__(
        self, runner: ModelRunner, batch: Batch, thread: ModelThread, *, max_batch: int, max_queue: int
    ) -> None:
        self._runner = runner
        self._batch = batch
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._waiting: deque[_Request] = deque()
        self._active: dict[Decoding, _Request] = {}
        self._score_jobs: deque[_ScoreJob] = deque()
        self._work = anyio.Event()
        self._failure: str | None = None
        self._thread = thread

    @property
    def active(self) -> int:
        """How many requests are in the batch."""
        return len(self._active)

    def check(self) -> None:
        """Raise ``EngineUnavailable`` if the engine broke or was closed."""
        if self._failure is not None:
            raise EngineUnavailable(self._failure)

    async def generate(self, decoding: Decoding, text: TextStream) -> AsyncGenerator[Step, None]:
        """Generate one completion; closing the generator takes it out of the batch at the next step."""
        self._accept(len(self._waiting), "completions")
        send, receive = anyio.create_memory_object_stream[Step](math.inf)
        request = _Request(decoding, text, send)
        self._waiting.append(request)
        self._work.set()
        try:
            with send, receive:
                async for step in receive:
                    yield step
            if not request.complete:
                self.check()
        finally:
            request.leaving = True
            self._work.set()

    async def score(self, rows: Sequence[ScoreRow]) -> list[Scores]:
        """Score several sequences; short ones share forward passes."""
        return await self._all(self._runner.score, rows)

    async def replay(self, rows: Sequence[ReplayRow]) -> list[Replayed]:
        """Replay several sequences; short ones share forward passes."""
        return await self._all(self._runner.replay, rows)

    async def _all(self, work: Callable[[Sequence[R]], list[S]], rows: Sequence[R]) -> list[S]:
        self._accept(len(self._score_jobs), "calls to score")
        by_length: list[tuple[int, Row]] = sorted(enumerate(rows), key=lambda entry: len(entry[1].tokens))
        job = _ScoreJob(work, deque(by_length), [None] * len(rows))
        self._score_jobs.append(job)
        self._work.set()
        try:
            await job.done.wait()
        finally:
            job.cancelled = True
        self.check()
        return job.results

    def _accept(self, waiting: int, what: str) -> None:
        self.check()
        if waiting >= self._max_queue:
            raise EngineBusy(
                f"engine queue: {waiting} {what} wait already, expected fewer than {self._max_queue}; "
                "ask again later, or ask fewer at once"
            )

    async def run(self) -> None:
        """Work until cancelled. A failure of the model ends the engine, never the caller's task group."""
        try:
            while True:
                if not (self._waiting or self._active or self._score_jobs):
                    await self._work.wait()
                self._work = anyio.Event()
                await self._turn()
        except Exception as error:  # whatever breaks the model, those who wait must be told
            log.exception("engine failed")
            self._stop(f"the engine failed ({type(error).__name__}: {error}); restart it")
        finally:
            self._stop("the engine was closed")

    async def _turn(self) -> None:
        leaving = [request for request in self._active.values() if request.leaving]
        for request in leaving:
            del self._active[request.decoding]
        joining = []
        while self._waiting and len(self._active) < self._max_batch:
            request = self._waiting.popleft()
            if request.leaving:
                continue
            self._active[request.decoding] = request
            joining.append(request.decoding)
        for token in await self._in_thread_turn([request.decoding for request in leaving], joining):
            self._deliver(token)
        await self._score_some()

    async def _in_thread_turn(self, leaving: list[Decoding], joining: list[Decoding]) -> list[Token]:
        if not (leaving or joining or self._active):
            return []

        def work() -> list[Token]:
            for decoding in leaving:
                self._batch.leave(decoding)
            for decoding in joining:
                self._batch.join(decoding)
            return self._batch.turn()

        return await self._thread.run(work)

    def _deliver(self, token: Token) -> None:
        """Hand a token to who asked for it."""
        request = self._active[token.decoding]
        if request.leaving:
            return
        last = token.decoding.generated >= token.decoding.sampling.max_tokens
        text, reason = request.text.push(token.token_id, last=last)
        request.steps.send_nowait(Step(token.token_id, text, token.logprob, reason))
        if reason is not None:
            request.leaving = request.complete = True
            request.steps.close()

    async def _score_some(self) -> None:
        """One forward pass for the oldest call to score, and for later ones of its kind that fit in."""
        self._score_jobs = deque(job for job in self._score_jobs if not job.cancelled)
        if not self._score_jobs:
            return
        work = self._score_jobs[0].work
        taken = _next_rows([job for job in self._score_jobs if job.work == work])
        results = await self._thread.run(work, [row for _, _, row in taken])
        for (job, place, _), result in zip(taken, results, strict=True):
            job.results[place] = result
            if not job.left:
                job.done.set()
        self._score_jobs = deque(job for job in self._score_jobs if job.left)

    def _stop(self, why: str) -> None:
        """Tell everyone who waits; the first reason stands."""
        if self._failure is None:
            self._failure = why
        for request in (*self._waiting, *self._active.values()):
            request.steps.close()
        for job in self._score_jobs:
            job.done.set()
        self._waiting.clear()
        self._active.clear()
        self._score_jobs.clear()


def _next_rows(jobs: Sequence[_ScoreJob]) -> list[tuple[_ScoreJob, int, Row]]:
    """Take what fits one forward pass from the sequences of some calls, each in order of length; at least one."""
    taken: list[tuple[_ScoreJob, int, Row]] = []
    longest = 0
    for job in jobs:
        while job.left:
            longest = max(longest, len(job.left[0][1].tokens))
            if taken and longest * (len(taken) + 1) > FORWARD_TOKENS:
                return taken
            taken.append((job, *job.left.popleft()))
    return taken
