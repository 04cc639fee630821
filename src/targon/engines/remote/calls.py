"""HTTP to an engine that somebody else runs: pooled connections, a deadline for every wait, room for so many
requests at once, and failures that say whose they are.

A request is sent again, once, if no connection came about, or if the engine closed it before it answered at all, as one
that lay idle may turn out to be closed. An answer that has begun is never asked for again.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, closing, contextmanager, suppress
from functools import cache
from typing import Any, NoReturn, Self, TypeVar

import anyio
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from targon.engines.errors import EngineBusy, EngineUnavailable, TaskRefused
from targon.engines.remote.web import BrokenOff, NoConnection, Response, Unanswered, Web
from targon.protocol.text import REPLACEMENT

MAX_ANSWER_BYTES = 256 * 1024 * 1024
"""A whole answer (scores of a long completion are the largest) that is longer is none of an engine's."""
MAX_EVENT_BYTES = 4 * 1024 * 1024
"""One event of a stream; the first one may carry the whole prompt."""
MODELS = "/v1/models"
"""The route that says what an engine serves: nothing can be had from one that refuses it."""
QUOTED = 300
"""Characters of an engine's own words that an error repeats."""
MAX_WORDS = 4_000
"""Characters of an error, whatever is quoted in it."""

_TRIES = 2
_DONE = b"[DONE]"
_AGAIN = (NoConnection, Unanswered)
"""No connection, or one that the engine closed while it lay idle: nothing was answered."""


class Part(BaseModel):
    """Base of what is read of an engine's answers: the fields that matter here, and no others."""

    model_config = ConfigDict(extra="ignore", frozen=True)


P = TypeVar("P", bound=Part)


@cache
def _list_of(kind: type[P]) -> TypeAdapter[list[P]]:
    return TypeAdapter(list[kind])  # type: ignore[valid-type]


class Calls:
    """HTTP to one engine.

    Args:
        web: where it is, and how to ask there.
        timeout_s: the longest wait for any one thing: the head of an answer, its next event, the rest of it.
        max_requests: how many requests are under way at once.
        max_queue: how many more wait for their turn; beyond that ``EngineBusy`` is raised at once.
    """

    def __init__(self, web: Web, *, timeout_s: float, max_requests: int, max_queue: int) -> None:
        self.url = web.url
        self._key = web.key
        self._web = web
        self._timeout_s = timeout_s
        self._room = anyio.Semaphore(max_requests)
        self._places = max_queue

    async def get(self, route: str, kind: type[P]) -> P:
        """The answer to a GET. Raises ``EngineUnavailable``."""
        try:
            return self.parse(kind, await self._whole("GET", route, None), route)
        except TaskRefused as error:  # there was no task
            raise EngineUnavailable(f"{error}; is it an engine at all?") from error

    async def post(self, route: str, body: Mapping[str, Any], kind: type[P]) -> P:
        """The whole answer to a POST. Raises ``TaskRefused``, ``EngineBusy`` or ``EngineUnavailable``."""
        await self._turn()
        try:
            return self.parse(kind, await self._whole("POST", route, body), route)
        finally:
            self._room.release()

    async def offers(self, route: str, body: Mapping[str, Any] | None = None) -> Any:  # noqa: ANN401 - JSON
        """The answer to a GET (to a POST with a body), as JSON; None if the engine has no such route, or refuses
        what it was asked.

        Raises:
            EngineUnavailable: if it can't be reached, or fails.
        """
        try:
            return json.loads(await self._whole("GET" if body is None else "POST", route, body))
        except (_NoRoute, TaskRefused, ValueError, RecursionError):
            return None
        except _Refused:
            if route == MODELS:
                raise
            return None  # a proxy may let through some routes only

    async def events(self, route: str, body: Mapping[str, Any]) -> AsyncGenerator[bytes, None]:
        """The data of each server-sent event of the answer to a POST; as :meth:`event_batches`."""
        async with aclosing(self.event_batches(route, body)) as batches:
            async for batch in batches:
                for data in batch:
                    yield data

    async def event_batches(self, route: str, body: Mapping[str, Any]) -> AsyncGenerator[list[bytes], None]:
        """The data of the server-sent events of the answer to a POST, up to its end or ``[DONE]``: those that came
        together, together.

        Closing the generator closes the connection, which tells the engine to stop working. Raises as
        :meth:`post` does.
        """
        await self._turn()
        try:
            with closing(await self._answer("POST", route, body)) as response:
                left = bytearray()
                with _Silence(response, self._timeout_s) as silence:
                    try:
                        while part := await response.part(self._timeout_s):
                            *lines, rest = part.split(b"\n")
                            if left and lines:
                                lines[0] = bytes(left) + lines[0]
                                left.clear()
                            left += rest
                            batch = [line[5:].strip() for line in lines if line[:5] == b"data:"]
                            done = _DONE in batch
                            if done:
                                del batch[batch.index(_DONE) :]
                            if batch:
                                silence.pause()
                                yield batch
                                silence.broken()
                            if done:
                                return
                            if len(left) > MAX_EVENT_BYTES:
                                self.fail(
                                    f"got an event of more than {MAX_EVENT_BYTES:,} bytes, expected less"
                                )
                    except (BrokenOff, OSError) as error:
                        if silence.lasted or isinstance(error, TimeoutError):
                            self._late()
                        self._broke_off(error)
                    if silence.lasted:
                        self._late()
                if left.startswith(b"data:") and left[5:].strip() != _DONE:
                    yield [bytes(left[5:].strip())]
        finally:
            self._room.release()

    def parse(self, kind: type[P], data: bytes, where: str) -> P:
        """An answer, read. Raises ``EngineUnavailable``."""
        try:
            return kind.model_validate_json(data)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            field = ".".join(map(str, first["loc"])) or "the whole answer"
            words = _quoted(self._without_key(data))
            self.fail(f"its answer to {where} cannot be read ({field}: {first['msg']}; got {words})")

    def parse_all(self, kind: type[P], batch: Sequence[bytes], where: str) -> list[P]:
        """Answers that came together, read as one list: half the price. Raises ``EngineUnavailable``."""
        if len(batch) > 1:
            with suppress(ValidationError):
                parsed = _list_of(kind).validate_json(b"[" + b",".join(batch) + b"]")
                if len(parsed) == len(batch):
                    return parsed
        return [self.parse(kind, data, where) for data in batch]

    def fail(self, what: str) -> NoReturn:
        """Say what is wrong with the engine."""
        words = self._without_key(what.encode(errors="replace")).decode()
        raise EngineUnavailable(f"engine at {self.url}: {_printable(words, MAX_WORDS)}")

    def fail_midway(self, status: int | str | None, words: str) -> NoReturn:
        """Say whose fault an error in the middle of an answer is; by HTTP's statuses, where the engine names one."""
        words = _printable(self._without_key(words.encode(errors="replace")).decode(), QUOTED)
        self._blame(status, words)
        self.fail(f"it failed in the middle of an answer: {words}")

    def _blame(self, status: int | str | None, words: str, how: str = "") -> None:
        """Raises if an error isn't the engine's, but of the request, or of how many there are."""
        if status in (400, 413, 422):
            raise TaskRefused(f"the engine at {self.url} refuses this request{how}: {words}")
        if status in (429, 503):
            raise EngineBusy(f"engine at {self.url}: it has no room now{how}: {words}")

    def _without_key(self, data: bytes) -> bytes:
        """What an engine says, if it repeats our own key."""
        return data.replace(self._key.encode(), b"(the key)") if self._key else data

    async def _whole(self, method: str, route: str, body: Mapping[str, Any] | None) -> bytes:
        with closing(await self._answer(method, route, body)) as response:
            return await self._read(response)

    async def _read(self, response: Response) -> bytes:
        parts, size = [], 0
        with self._waiting():
            while part := await response.part(self._timeout_s):
                parts.append(part)
                size += len(part)
                if size > MAX_ANSWER_BYTES:
                    self.fail(f"got an answer of more than {MAX_ANSWER_BYTES:,} bytes, expected less")
        return b"".join(parts)

    async def _turn(self) -> None:
        """Take a place among the requests under way, which is given back by ``_room.release``."""
        if self._room.value:
            self._room.acquire_nowait()  # a deadline costs more than the wait that there isn't
            return
        if self._room.statistics().tasks_waiting >= self._places:
            raise EngineBusy(
                f"engine at {self.url}: {self._places} requests wait for it already; ask again later, or ask fewer "
                "at once"
            )
        with self._waiting():
            await self._room.acquire()

    async def _answer(self, method: str, route: str, body: Mapping[str, Any] | None) -> Response:
        """The answer to a request, once its head is here. Whoever has it closes it: one that was not read to its end
        tells the engine to stop working on it.
        """
        try:
            response = await self._sent(method, route, body)
        except (NoConnection, BrokenOff, OSError) as error:  # what takes too long is an OSError, too
            self._tell(error)
        if response.status != 200:
            with closing(response):
                self._refused(route, response.status, await self._read(response))
        return response

    async def _sent(self, method: str, route: str, body: Mapping[str, Any] | None) -> Response:
        loop = asyncio.get_running_loop()
        until_s = loop.time() + self._timeout_s
        for _ in range(_TRIES - 1):
            try:
                return await self._web.send(method, route, body, self._timeout_s)
            except _AGAIN:
                await anyio.sleep(min(0.05, self._timeout_s))
        return await self._web.send(method, route, body, until_s - loop.time())

    def _refused(self, route: str, status: int, data: bytes) -> NoReturn:
        words = _words(self._without_key(data))
        self._blame(status, words, f" (HTTP {status})")
        if status in (401, 403):
            raise _Refused(
                f"engine at {self.url}: it wants another key (HTTP {status}); put the right one into "
                "TARGON_ENGINE_API_KEY"
            )
        if status in (404, 405):
            raise _NoRoute(
                f"engine at {self.url}: it has no {route} (HTTP {status}): {words}; look at what it can do with "
                f"`targon engine check {self.url}`"
            )
        self.fail(f"it failed (HTTP {status}): {words}; look at its log")

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        try:
            with anyio.fail_after(self._timeout_s):
                yield
        except (NoConnection, BrokenOff, OSError) as error:
            self._tell(error)

    def _tell(self, error: NoConnection | BrokenOff | OSError) -> NoReturn:
        """What went wrong with a wait, as whose it is."""
        if isinstance(error, TimeoutError):
            self._late()
        if isinstance(error, NoConnection):
            self.fail(f"cannot be reached ({error}); start it, or name another")
        self._broke_off(error)

    def _late(self) -> NoReturn:
        self.fail(f"nothing came within {self._timeout_s:g} s; it is overloaded or stuck: look at its log")

    def _broke_off(self, error: Exception) -> NoReturn:
        self.fail(f"it broke off ({str(error) or type(error).__name__}); look at its log")


class _Silence:
    """Closes an answer in which no event came for so long, whatever else did. A timer that looks now and then: setting
    one anew for each event would cost as much as reading it.
    """

    def __init__(self, response: Response, limit_s: float) -> None:
        self._response = response
        self._limit_s = limit_s
        self._loop = asyncio.get_running_loop()
        self._since_s = self._loop.time()
        self.lasted = False
        """Whether it was closed."""

    def pause(self) -> None:
        """An event came; until somebody waits for the next one, no silence is the engine's."""
        self._since_s = math.inf

    def broken(self) -> None:
        """Somebody waits for the next event."""
        self._since_s = self._loop.time()

    def __enter__(self) -> Self:
        self._timer = self._loop.call_later(self._limit_s, self._look)
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        left_s = min(self._since_s + self._limit_s - self._loop.time(), self._limit_s)
        if left_s > 0.0:
            self._timer = self._loop.call_later(left_s, self._look)
        else:
            self.lasted = True
            self._response.close()


class _Refused(EngineUnavailable):
    """The engine wants another key, or a proxy before it doesn't let us through."""


class _NoRoute(EngineUnavailable):
    """The engine answers, but has no such route."""


def _words(data: bytes) -> str:
    """The engine's own words for what is wrong."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return _quoted(data)
    for key in ("error", "message", "detail"):
        if isinstance(value, dict) and key in value:
            value = value[key]
    return _printable(value, QUOTED) if isinstance(value, str) else _quoted(data)


def _quoted(data: bytes) -> str:
    return _printable(data[: QUOTED * 8].decode(errors="replace"), QUOTED)


def _printable(text: str, most: int) -> str:
    """In one line, and nothing that a terminal would take for a command."""
    line = "".join(one if one.isprintable() else REPLACEMENT for one in " ".join(text.split()))
    return line if len(line) <= most else line[: most - 1] + "…"
