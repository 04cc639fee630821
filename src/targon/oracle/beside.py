"""The port ``PeriodWriter``, by a process of its own (:mod:`targon.oracle.process`).

It is started with the first thing that is wanted, and again where it ended: whatever it held by then is lost, and no
text is lost that was committed to. One that gives no sign of life is killed. It ends with this process, however that
ends.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Self

import anyio
import structlog
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream
from pydantic import ValidationError

from targon.oracle.errors import WriterEnded, WriterFailed
from targon.oracle.ports import Filled, Written
from targon.oracle.process import END_S, Answer, Opening
from targon.protocol.primitives import Digest

COMMAND: Final = (sys.executable, "-m", "targon.oracle.process")
OPEN_S: Final = 900.0
"""For opening a source: of a list, each address is asked."""
STALL_S: Final = 180.0
"""Between two signs of life: a slice of a slow source, or the files of the largest period."""
MAX_LINE: Final = 1 << 20

logger = structlog.get_logger("targon.oracle")


class WriterBeside:
    """The process, as its one user knows it.

    Args:
        opening: what it works with.
        command: starts it.
        stall_s: between two signs of life, at most.
    """

    def __init__(
        self, opening: Opening, *, command: Sequence[str] = COMMAND, stall_s: float = STALL_S
    ) -> None:
        self._opening = opening
        self._command = command
        self._stall_s = stall_s
        self._process: Process | None = None
        self._answers: BufferedByteReceiveStream | None = None
        self._alone = anyio.Lock()
        self.refused: Mapping[str, int] = {}
        """Draws that gave no passage, by reason, since it was started."""
        self.came_to: Mapping[str, int] = {}
        """What the source came to beside texts, by name."""

    async def __aenter__(self) -> Self:
        """Start it.

        Raises:
            WriterFailed: if the source can't be opened; the message says why.
            WriterEnded: if it doesn't run.
        """
        async with self._alone:
            await self._running()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._end(END_S + 2.0)

    async def fill(self, count: int) -> Filled:
        """See ``PeriodWriter``."""
        taken = 0

        def count_up(answer: Answer) -> None:
            nonlocal taken
            taken += answer.taken

        last = await self._ask({"fill": count}, count_up)
        return Filled(last.held, taken)

    async def write(self, number: int, secret: bytes, count: int) -> Written:
        """See ``PeriodWriter``."""
        answer = await self._ask({"write": [number, secret.hex(), count]})
        if answer.root is None or answer.source is None:
            raise WriterFailed("it didn't say what it wrote")
        return Written(Digest(answer.root), Digest(answer.source))

    async def used(self, count: int) -> None:
        """See ``PeriodWriter``. Where it has ended, what it held has ended with it."""
        if self._process is None:
            return
        try:
            await self._ask({"used": count})
        except WriterEnded as error:
            logger.warning("writer_ended", error=str(error))

    async def _ask(
        self, wanted: Mapping[str, object], hear: Callable[[Answer], None] | None = None
    ) -> Answer:
        async with self._alone:
            process = await self._running()
            done = False
            try:
                answer = await self._told(process, json.dumps(wanted).encode(), self._stall_s, hear)
                done = True
            finally:
                if not done:  # it ended, or nobody knows how far it is
                    await self._end(0.0)
        if answer.failed is not None:
            raise WriterFailed(answer.failed, exhausted=answer.exhausted)
        return answer

    async def _running(self) -> Process:
        if self._process is not None and self._process.returncode is None:
            return self._process
        if self._process is not None:
            code = self._process.returncode
            await self._end(0.0)
            logger.warning("writer_ended", exit_code=code, next="it is started again")
        process = self._process = await anyio.open_process(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=None
        )
        assert process.stdout is not None  # it is a pipe
        self._answers = BufferedByteReceiveStream(process.stdout)
        opened = False
        try:
            answer = await self._told(process, self._opening.model_dump_json().encode(), OPEN_S)
            if answer.failed is not None:
                raise WriterFailed(answer.failed, exhausted=answer.exhausted)
            opened = True
        finally:
            if not opened:
                await self._end(0.0)
        return process

    async def _told(
        self, process: Process, line: bytes, stall_s: float, hear: Callable[[Answer], None] | None = None
    ) -> Answer:
        """Say a line, and hear its answers to the last."""
        assert process.stdin is not None  # it is a pipe
        assert self._answers is not None  # it runs
        try:
            with anyio.fail_after(stall_s):
                await process.stdin.send(line + b"\n")
            while True:
                with anyio.fail_after(stall_s):
                    said = await self._answers.receive_until(b"\n", MAX_LINE)
                answer = Answer.model_validate_json(said)
                self.refused, self.came_to = answer.refused or self.refused, answer.came_to or self.came_to
                if hear is not None:
                    hear(answer)
                if answer.done:
                    return answer
        except TimeoutError:
            raise WriterEnded(
                f"the process that writes periods gave no sign of life for {stall_s:g} s, and was ended: does its "
                "source, or its disk, hang? It is started again"
            ) from None
        except (
            anyio.EndOfStream,
            anyio.IncompleteRead,
            anyio.BrokenResourceError,
            anyio.ClosedResourceError,
        ):
            with anyio.move_on_after(END_S):
                await process.wait()
            code = process.returncode
            raise WriterEnded(
                f"the process that writes periods ended with code {code}"
                + (": was it killed, for memory perhaps?" if code == -9 else "")
                + " It is started again"
            ) from None
        except (anyio.DelimiterNotFound, ValidationError) as error:
            raise WriterEnded(f"the process that writes periods said what is no answer: {error}") from None

    async def _end(self, patience_s: float) -> None:
        """End the process: it does by itself when its stdin does, and is made to if it doesn't."""
        process, self._process, self._answers = self._process, None, None
        if process is None:
            return
        with anyio.CancelScope(shield=True):
            if process.stdin is not None:
                await process.stdin.aclose()
            with anyio.move_on_after(patience_s):
                await process.wait()
            if process.returncode is None:
                process.kill()
            await process.aclose()
