"""OpenAI's answers and streams, with a receipt."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from openai import AsyncStream, Stream
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from targon.client.exchange import Exchange
from targon.client.receipts import AnswerReceipt, Expected
from targon.protocol import ReceiptStatement

C = TypeVar("C")


class Verifiable:
    """What every answer has, whole or streamed. A stream has it once it was read to its end."""

    if TYPE_CHECKING:
        _exchange: Exchange

    @property
    def receipt(self) -> AnswerReceipt:
        """The receipt of the answer; of the first one, where several were asked for. Not checked: see ``verify``.

        Raises:
            NotVerified: if none came.
        """
        return self._exchange.receipts[0]

    @property
    def receipts(self) -> tuple[AnswerReceipt, ...]:
        """The receipts of all answers, in the order of ``choices``; raises as ``receipt`` does."""
        return self._exchange.receipts

    def verify(
        self,
        *,
        verifier: str | None = None,
        prover: str | None = None,
        model_digest: str | None = None,
        netuid: int | None = None,
        genesis: str | None = None,
    ) -> None:
        """Check that this is the answer to what was asked, as a prover signed it. Asks nobody; returns nothing.

        Args:
            verifier: the hotkey that must have asked; beside what the client expects of every answer.
            prover: the hotkey that must have answered.
            model_digest: that of the model that must have answered.
            netuid: the subnet.
            genesis: hash of the chain's first block.

        Raises:
            NotVerified: naming the first thing that is wrong; its ``diagnostics()`` says what to do.
        """
        self._exchange.verify(Expected(verifier, prover, model_digest, netuid, genesis))

    def save(self, path: str | os.PathLike[str], *statements: ReceiptStatement) -> None:
        """Append the answer to a file for ``targon verify``, which replays it with the model. Blocks while it writes.

        Args:
            path: the file; it is made if there is none.
            statements: what the verifier says of each receipt (``client.receipt``), where that was asked for.

        Raises:
            NotVerified: if there is no receipt to save.
            OSError: if the file can't be written.
        """
        self._exchange.save(Path(path), statements)

    def _noted(self, chunks: Iterator[C]) -> Iterator[C]:
        for chunk in chunks:
            self._exchange.take(chunk)
            yield chunk

    async def _noted_later(self, chunks: AsyncIterator[C]) -> AsyncIterator[C]:
        async for chunk in chunks:
            self._exchange.take(chunk)
            yield chunk


class ChatAnswer(Verifiable, ChatCompletion):
    """A chat completion with its receipt."""


class TextAnswer(Verifiable, Completion):
    """A completion with its receipt."""


class ChatStream(Stream[ChatCompletionChunk], Verifiable):
    """A streamed chat completion, with its receipt at the end."""

    def __stream__(self) -> Iterator[ChatCompletionChunk]:
        return self._noted(super().__stream__())


class TextStream(Stream[Completion], Verifiable):
    """A streamed completion, with its receipt at the end."""

    def __stream__(self) -> Iterator[Completion]:
        return self._noted(super().__stream__())


class AsyncChatStream(AsyncStream[ChatCompletionChunk], Verifiable):
    """A streamed chat completion, with its receipt at the end."""

    def __stream__(self) -> AsyncIterator[ChatCompletionChunk]:
        return self._noted_later(super().__stream__())


class AsyncTextStream(AsyncStream[Completion], Verifiable):
    """A streamed completion, with its receipt at the end."""

    def __stream__(self) -> AsyncIterator[Completion]:
        return self._noted_later(super().__stream__())
