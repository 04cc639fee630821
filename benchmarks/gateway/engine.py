"""An engine that answers at once, over HTTP as vLLM does.

python -m benchmarks.gateway.engine --folder DIR --port PORT

It reads as little of a request as it can and answers with bytes that were made beforehand, so that what is measured
in front of it is not it. Every answer is the same sixteen tokens (fewer where fewer were asked for; where more were,
they end with the end-of-sequence token). Each token of a stream is written for itself, as an engine does that draws
one after another: a stream that comes in one piece would be none. It serves loopback alone.

``GET /pace?first=0.02&each=0.02&tokens=16`` makes it wait so many seconds before the first token of a stream and
before each later one, and gives so many tokens; without a word of them they are 0, 0 and 16 again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

import httptools
import uvloop

from benchmarks.gateway.answer import NAME, TOKENS, make_folder, tokens_of
from targon.engines.remote.folder import ModelFolder

_MAX_TOKENS = re.compile(rb'"max_(?:completion_)?tokens"\s*:\s*(\d+)')
_STREAM = re.compile(rb'"stream"\s*:\s*true')
_USAGE = re.compile(rb'"include_usage"\s*:\s*true')
_PROMPT_IDS = re.compile(rb'"prompt"\s*:\s*\[([\d\s,]*)\]')
_IDS = re.compile(rb'"return_token_ids"\s*:\s*true')
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
_CHAT_PROMPT_TOKENS = 30
"""What it says that a conversation has: it reads none."""
_COMMON = {"id": "cmpl-0", "created": 1, "model": NAME}

Key = tuple[bool, bool, int, bool, bool, int]
"""(chat, streamed, tokens, of which one ends it, usage, prompt's length): all that answers differ by."""


class Answers:
    """The bytes of each answer, made once: a list of events, or one whole body."""

    def __init__(self, model: ModelFolder) -> None:
        self._tokens = tokens_of(model)
        self._eos = model.eos_ids[0]
        self._made: dict[Key, list[bytes]] = {}
        self.models = whole(
            {
                "object": "list",
                "data": [
                    {
                        "id": NAME,
                        "object": "model",
                        "created": 1,
                        "owned_by": "vllm",
                        "root": str(model.path),
                        "max_model_len": model.context_length,
                    }
                ],
            }
        )

    def get(self, key: Key) -> list[bytes]:
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = self._make(key)
            if len(self._made) > 10_000:  # prompts of every length
                self._made.clear()
        return made

    def _make(self, key: Key) -> list[bytes]:
        chat, stream, count, stops, usage, prompt_tokens = key
        tokens = list(islice(cycle(self._tokens), count - stops))
        reason = "length"
        if stops:
            tokens, reason = [*tokens, (self._eos, "")], "stop"
        used = {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": len(tokens),
            "total_tokens": prompt_tokens + len(tokens),
        }
        if not stream:
            text = "".join(text for _, text in tokens)
            choice: dict[str, Any] = {"index": 0, "finish_reason": reason}
            choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
            if not chat:
                choice |= {"token_ids": [id_ for id_, _ in tokens], "logprobs": _logprobs(len(tokens))}
            kind = "chat.completion" if chat else "text_completion"
            return [whole({**_COMMON, "object": kind, "choices": [choice], "usage": used})]
        events = []
        for place, (id_, text) in enumerate(tokens):
            choice = {"index": 0, "finish_reason": reason if place == len(tokens) - 1 else None}
            if chat:
                choice["delta"] = {"content": text} if place else {"role": "assistant", "content": text}
            else:
                choice |= {"text": text, "token_ids": [id_], "logprobs": _logprobs(1)}
            kind = "chat.completion.chunk" if chat else "text_completion"
            events.append(_event({**_COMMON, "object": kind, "choices": [choice]}))
        if usage:
            kind = "chat.completion.chunk" if chat else "text_completion"
            events.append(_event({**_COMMON, "object": kind, "choices": [], "usage": used}))
        events[-1] += _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
        events[0] = _STREAM_HEAD + events[0]
        return events


def _logprobs(count: int) -> dict[str, Any]:
    return {"token_logprobs": [-0.25] * count, "top_logprobs": None}


def _event(value: dict[str, Any]) -> bytes:
    return _chunk(b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n")


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def whole(value: Any, status: str = "200 OK") -> bytes:  # noqa: ANN401 - JSON
    """An answer in one piece."""
    body = json.dumps(value, separators=(",", ":")).encode()
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


_NO_ROUTE = whole({"error": {"message": "no such route", "code": 404}}, "404 Not Found")
_HEALTHY = whole({})
_VERSION = whole({"version": "0 (instant)"})
_INFO = whole({"model_path": NAME, "is_generation": True, "served_model_name": NAME})


@dataclass
class Pace:
    """How fast streams are, and how long answers, for all connections."""

    first: float = 0.0
    """Seconds before the first token."""
    each: float = 0.0
    """Seconds before each later one."""
    tokens: int = TOKENS

    def set(self, url: bytes) -> None:
        given = dict(parse_qsl(urlsplit(url.decode()).query))
        self.first, self.each = float(given.get("first", 0)), float(given.get("each", 0))
        self.tokens = int(given.get("tokens", TOKENS))


class Connection(asyncio.Protocol):
    """One connection, kept as long as the other side keeps it; one request at a time."""

    def __init__(self, answers: Answers, pace: Pace) -> None:
        self._answers = answers
        self._pace = pace
        self._body: list[bytes] = []
        self._url = b""
        self._parser: Any = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's are no subclasses
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.close()

    def on_message_begin(self) -> None:
        self._body = []
        self._url = b""

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        write, url = self._transport.write, self._url
        if url == b"/v1/chat/completions":
            self._generate(True)
        elif url == b"/v1/completions":
            self._generate(False)
        elif url == b"/v1/models":
            write(self._answers.models)
        elif url == b"/version":
            write(_VERSION)
        elif url in (b"/get_model_info", b"/model_info", b"/get_server_info", b"/server_info"):
            write(_INFO)
        elif url.startswith((b"/health", b"/ping")):
            write(_HEALTHY)
        elif url.startswith(b"/pace?"):
            self._pace.set(url)
            write(_HEALTHY)
        else:
            write(_NO_ROUTE)

    def _generate(self, chat: bool) -> None:
        body = b"".join(self._body)
        wanted = _MAX_TOKENS.search(body)
        most = self._pace.tokens + 1
        count = min(int(wanted[1]), most) if wanted else most
        stream = _STREAM.search(body) is not None
        usage = not stream or _USAGE.search(body) is not None
        ids = None if chat else _PROMPT_IDS.search(body)
        prompt_tokens = _CHAT_PROMPT_TOKENS if ids is None else ids[1].count(b",") + 1
        events = self._answers.get((chat, stream, count, count == most, usage, prompt_tokens))
        if len(events) == 1:
            self._transport.write(events[0])
        elif self._pace.first:
            first = self._pace.first
            self._timer = asyncio.get_running_loop().call_later(
                first, self._next, events, 0, len(events) - usage
            )
        else:
            self._next(events, 0, len(events) - usage)

    def _next(self, events: list[bytes], place: int, tokens: int) -> None:
        """Write one event. The loop is between two of them, so each is a system call of its own.

        What follows the tokens follows at once, as from any engine: there is nothing to decode for it.
        """
        self._transport.write(events[place])
        place += 1
        if place == len(events) or self._transport.is_closing():
            return
        loop = asyncio.get_running_loop()
        if self._pace.each and place < tokens:
            self._timer = loop.call_later(self._pace.each, self._next, events, place, tokens)
        else:
            loop.call_soon(self._next, events, place, tokens)


async def serve(folder: Path, port: int) -> None:
    """Serve until the process is stopped."""
    answers, pace = Answers(make_folder(folder)), Pace()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(answers, pace), "127.0.0.1", port, backlog=16_384)
    async with server:
        await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--folder", type=Path, required=True, help="the model's folder; made if it isn't there"
    )
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    uvloop.run(serve(arguments.folder, arguments.port))


if __name__ == "__main__":
    main()
