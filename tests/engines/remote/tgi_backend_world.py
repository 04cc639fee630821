"""TGI's backend before a server that replays real ones' answers, and before one that says what a test says."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from targon.engines.remote.backend import Chunk, Prompt
from targon.engines.remote.tgi import TgiBackend
from targon.protocol.messages import ChatMessage, Sampling
from tests.engines.tasks import task

from .replaying_tgi import (
    Read,
    ReplayingTgi,
)
from .scripted_server import ScriptedServer, calling, listening, serving, stream, whole

BOS = 1
MESSAGES = (ChatMessage(role="user", content="Hello"),)
PROMPT = Prompt(MESSAGES, "<s>Hello", (BOS, *map(ord, "Hello")))
GREEDY = task(dialect="greedy", temperature=0.0, max_tokens=4).sampling
NATIVE = task(dialect="native", temperature=0.7, top_p=0.9, top_k=40, max_tokens=4).sampling


def read(text: str) -> list[Read]:
    """A tokenizer of letters, to which ``<s>`` is one."""
    return [
        Read(BOS if one.group() == "<s>" else ord(one.group()), one.group(), *one.span())
        for one in re.finditer(r"<s>|.", text)
    ]


def read_with_bos(text: str) -> list[Read]:
    """The same, as most tokenizers of the Llama family do it: a ``<s>`` in front of every text."""
    return [Read(BOS), *read(text)]


def render(turns: list[dict[str, str]]) -> str:
    return "<s>" + "".join(turn["content"] for turn in turns)


@asynccontextmanager
async def replaying(server: ReplayingTgi) -> AsyncIterator[TgiBackend]:
    async with listening(server.app()) as url, calling(url) as calls:
        yield TgiBackend(calls)


@asynccontextmanager
async def scripted(*answers: object) -> AsyncIterator[tuple[TgiBackend, ScriptedServer]]:
    """A server that reads the prompt as it should, and streams what a test says."""
    tokens = whole([one._asdict() for one in read(PROMPT.text)])
    script = {
        "POST /tokenize": [tokens],
        "POST /generate_stream": [stream(*answers, done=False)],
    }
    async with serving(script) as server, calling(server.url) as calls:
        yield TgiBackend(calls), server


async def generated(backend: TgiBackend, sampling: Sampling = GREEDY, *, top: int = 0) -> list[Chunk]:
    return [chunk async for chunk in backend.generate("m", PROMPT, sampling, 5, top=top)]


def event(id_: int = 300, *, text: str = " x", special: bool = False, ended: str | None = None) -> object:
    details = {"finish_reason": ended, "generated_tokens": 1, "input_length": 6, "seed": None}
    return {
        "index": 1,
        "token": {"id": id_, "text": text, "logprob": -0.5, "special": special},
        "generated_text": text if ended else None,
        "details": details if ended else None,
    }
