"""Sentence embeddings from a process that is started when the first ones are wanted.

Nothing here imports torch, so a process that only needs answers stays small. Native work is rare: a verifier that
meets none never starts it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import anyio
import numpy as np
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream
from numpy.typing import NDArray

from targon.engines.errors import EngineUnavailable, TaskRefused

DIMENSIONS: Final = 384
TIMEOUT_S: Final = 120.0
"""Seconds for one answer; the first includes the start, which takes some seconds."""

MAX_CHARS: Final = 8_000_000
"""Of all texts of one question together."""

_MAX_HEAD: Final = 65_536
_STOP_S: Final = 5.0


@asynccontextmanager
async def open_sentence_embedder(*, timeout_s: float = TIMEOUT_S) -> AsyncGenerator[SentenceEmbedder, None]:
    """Embed sentences until the block ends; then the process, if one was started, is stopped.

    It also stops when this process dies, however it dies.
    """
    embedder = SentenceEmbedder([sys.executable, "-m", "targon.engines.minilm_process"], timeout_s)
    try:
        yield embedder
    finally:
        with anyio.CancelScope(shield=True):
            await embedder.aclose()


@dataclass(frozen=True, slots=True)
class _Running:
    process: Process
    answers: BufferedByteReceiveStream


class SentenceEmbedder:
    """``targon.verification.Embedder`` over a process's pipes; made by :func:`open_sentence_embedder`.

    One question at a time. A process that broke, or that nobody waits for any more, is replaced with the next
    question.
    """

    def __init__(self, command: Sequence[str], timeout_s: float) -> None:
        self._command = list(command)
        self._timeout_s = timeout_s
        self._running: _Running | None = None
        self._lock = anyio.Lock()

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """``(len(texts), 384) float32``: a vector of length 1 for each text.

        Raises:
            TaskRefused: if the texts are too long.
            EngineUnavailable: if the model isn't installed, or no answer came in time.
        """
        if (size := sum(map(len, texts))) > MAX_CHARS:
            raise TaskRefused(f"texts: got {size:,} characters, expected at most {MAX_CHARS:,}")
        async with self._lock:
            whole = False
            try:
                with anyio.fail_after(self._timeout_s):
                    vectors = await self._ask(texts)
                whole = True
            except TimeoutError as error:
                raise EngineUnavailable(
                    f"sentence embeddings: no answer within {self._timeout_s:g} s"
                ) from error
            except (
                OSError,
                anyio.BrokenResourceError,
                anyio.ClosedResourceError,
                anyio.IncompleteRead,
            ) as error:
                raise EngineUnavailable(
                    "sentence embeddings: their process ended before it had answered; its log says why"
                ) from error
            except (anyio.DelimiterNotFound, ValueError, TypeError) as error:
                raise EngineUnavailable(
                    "sentence embeddings: their process answered with what is no answer; its log says why"
                ) from error
            finally:
                if not whole:  # what it says next would be the answer to another question
                    with anyio.CancelScope(shield=True):
                        await self.aclose()
        return vectors

    async def aclose(self) -> None:
        """Stop the process, if there is one."""
        running, self._running = self._running, None
        if running is None:
            return
        if running.process.returncode is None:
            running.process.terminate()
        with anyio.move_on_after(_STOP_S):
            await running.process.wait()
        if running.process.returncode is None:
            running.process.kill()
        await running.process.aclose()

    async def _ask(self, texts: Sequence[str]) -> NDArray[np.float32]:
        running = await self._started()
        assert running.process.stdin is not None  # it was started with one
        # lone surrogates can't be encoded, but JSON's escapes carry them; the tokenizer takes them for unknown
        await running.process.stdin.send(json.dumps({"texts": list(texts)}).encode() + b"\n")
        head = json.loads(await running.answers.receive_until(b"\n", _MAX_HEAD))
        if not isinstance(head, dict):
            raise TypeError(f"got {type(head).__name__}, expected an object")
        if "failure" in head:
            raise EngineUnavailable(str(head["failure"]))
        data = await running.answers.receive_exactly(len(texts) * DIMENSIONS * 4) if texts else b""
        return np.frombuffer(data, "<f4").reshape(len(texts), DIMENSIONS)

    async def _started(self) -> _Running:
        if self._running is None:
            process = await anyio.open_process(self._command, stderr=None)
            assert process.stdout is not None
            self._running = _Running(process, BufferedByteReceiveStream(process.stdout))
        return self._running
