"""A user of the local network: asks now and then, as any client of OpenAI's does, and fetches the answer's receipt."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle

import aiohttp
import anyio

QUESTIONS = (
    "What is a prime number?",
    "Why is the sky blue?",
    "Name three rivers.",
    "How does bread rise?",
)
MAX_TOKENS = 16
EVERY_S = 4.0
"""Between an answer and the next question: the engines have challenges to answer, too."""
ASKED_WITHIN_S = 60.0
TROUBLE = (aiohttp.ClientError, OSError, TimeoutError, KeyError, IndexError, TypeError, ValueError)
"""What an answer can be instead of one."""


@dataclass(frozen=True, slots=True)
class Door:
    """Where the network serves users."""

    port: int
    key: str
    model: str

    @property
    def url(self) -> str:
        """What clients of OpenAI's call the base URL."""
        return f"http://127.0.0.1:{self.port}/v1"

    def example(self) -> str:
        """A command that asks a question."""
        return (
            f"curl {self.url}/chat/completions -H 'Authorization: Bearer {self.key}' "
            f'-H \'Content-Type: application/json\' -d \'{{"model": "{self.model}", '
            '"messages": [{"role": "user", "content": "Why is the sky blue?"}], "max_tokens": 32}\''
        )


@dataclass(slots=True)
class User:
    """Asks until it is cancelled; what it can't have answered it asks again."""

    door: Door
    answered: int = 0
    receipts: int = 0
    """Of its answers, those whose receipt it could fetch."""

    async def run(self) -> None:
        timeout = aiohttp.ClientTimeout(total=ASKED_WITHIN_S)
        headers = {"Authorization": f"Bearer {self.door.key}"}
        async with aiohttp.ClientSession(timeout=timeout, headers=headers, trust_env=False) as session:
            for question in cycle(QUESTIONS):
                with suppress(*TROUBLE):  # nobody is free yet, or a cheat was refused: users ask again
                    await self._ask(session, question)
                await anyio.sleep(EVERY_S)

    async def _ask(self, session: aiohttp.ClientSession, question: str) -> None:
        body = {
            "model": self.door.model,
            "messages": [{"role": "user", "content": question}],
            "max_tokens": MAX_TOKENS,
            "temperature": 0.8,
        }
        async with session.post(f"{self.door.url}/chat/completions", json=body) as response:
            response.raise_for_status()
            receipt_id = str((await response.json())["choices"][0]["targon"]["receipt_id"])
        self.answered += 1
        async with session.get(f"{self.door.url}/receipts/{receipt_id}") as response:
            response.raise_for_status()
            self.receipts += 1
