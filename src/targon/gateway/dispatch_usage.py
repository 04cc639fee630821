"""How long a prompt was, for the user's usage: counted while the answer is streamed, else estimated.

An answer that the log holds is the user's, be our tokenizer there or not: nothing here can fail it.
"""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import structlog

from targon.gateway.ports import Desk
from targon.protocol.messages import ChatMessage

COUNT_S = 2.0
"""After the last token a user waits at most so long for his prompt to be counted."""
BYTES_PER_TOKEN = 4
"""Of ordinary text, about; an estimate takes it for exact."""

logger = structlog.get_logger("targon.gateway")


class PromptCount:
    """The length of one order's prompt. :meth:`run` it beside the answer."""

    __slots__ = ("_counted", "_done", "_messages")

    def __init__(self, messages: Sequence[ChatMessage]) -> None:
        self._messages = messages
        self._counted: int | None = None
        self._done = anyio.Event()

    async def run(self, desk: Desk) -> None:
        """Have it counted."""
        try:
            self._counted = await desk.prompt_tokens(self._messages)
        except Exception as error:  # noqa: BLE001 - the answer is the user's all the same
            logger.warning("prompt_not_counted", kind=type(error).__name__)
        finally:
            self._done.set()

    async def tokens(self) -> int:
        """As counted, if that is done soon; else an estimate."""
        if not self._done.is_set():
            with anyio.move_on_after(COUNT_S, shield=True):
                await self._done.wait()
        return estimated(self._messages) if self._counted is None else self._counted


def estimated(messages: Sequence[ChatMessage]) -> int:
    """About as many tokens as ordinary text has."""
    return max(1, sum(len(message.content.encode()) for message in messages) // BYTES_PER_TOKEN)
