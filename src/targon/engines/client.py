"""An engine that runs in a process of its own, as seen from another: the engine port over a socket.

Nothing here imports torch, so a process that only needs answers stays small.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from pathlib import Path
from typing import NoReturn, TypeVar

import aiohttp
import anyio
from anyio import to_thread
from pydantic import ValidationError

from targon.engines import wire
from targon.engines.errors import EngineUnavailable, TaskRefused
from targon.engines.port import (
    GenerateTask,
    ModelIdentity,
    Replayed,
    ReplayTask,
    Scores,
    ScoreTask,
    Step,
)
from targon.engines.task_checks import check_token_ids
from targon.protocol.errors import MalformedMessage
from targon.protocol.messages import ChatMessage, Message
from targon.protocol.primitives import TokenId
from targon.protocol.text import Decode, answer_text

B = TypeVar("B", bound=Message)

CHECK_SECONDS = 5.0
"""How long an engine may take to say that it works."""


@asynccontextmanager
async def connect_engine(path: Path, *, timeout_s: float = 120.0) -> AsyncIterator[EngineClient]:
    """Use the engine that serves on a socket until the block ends.

    Args:
        path: the socket.
        timeout_s: the longest wait for any one answer: the next step of a generation, a call to score.

    Raises:
        EngineUnavailable: if no engine answers there.
    """
    connector = aiohttp.UnixConnector(str(path), limit=0)
    async with aiohttp.ClientSession(
        "http://engine", connector=connector, timeout=aiohttp.ClientTimeout(total=None)
    ) as session:
        identity = await _Calls(session, path, min(CHECK_SECONDS, timeout_s)).get(
            "/identity", wire.IdentityBody
        )
        yield EngineClient(session, path, identity.identity(), timeout_s)


async def engine_answers(path: Path) -> bool:
    """Whether an engine serves on a socket now."""
    try:
        async with connect_engine(path):
            return True
    except EngineUnavailable:
        return False


class EngineClient:
    """The engine port over a socket; made by :func:`connect_engine`. Outlives a restart of the engine."""

    def __init__(
        self, session: aiohttp.ClientSession, path: Path, identity: ModelIdentity, timeout_s: float
    ) -> None:
        self._session = session
        self._identity = identity
        self._decode: Decode | None = None
        self._tokenizer_asked = False
        self._calls = _Calls(session, path, timeout_s)
        self._checks = _Calls(session, path, min(CHECK_SECONDS, timeout_s))

    @property
    def identity(self) -> ModelIdentity:
        return self._identity

    async def generate(self, task: GenerateTask) -> AsyncGenerator[Step, None]:
        async with aclosing(self.batches(task)) as generated:
            async for batch in generated:
                for step in batch:
                    yield step

    async def batches(self, task: GenerateTask) -> AsyncGenerator[Sequence[Step], None]:
        """The steps of :meth:`generate`: those that the engine sent together, together."""
        with _sendable():
            body = wire.GenerateBody.of(task)
        async with self._calls.post("/generate", body) as response:
            left = b""
            while True:
                *lines, left = (left + await self._calls.part(response)).split(b"\n")
                steps = [self._calls.step(line) for line in lines]
                if steps:
                    yield steps
                    if steps[-1].finish_reason is not None:
                        return

    async def score(self, tasks: Sequence[ScoreTask]) -> list[Scores]:
        with _sendable():
            body = wire.ScoreBody(tasks=tuple(map(wire.ScoreItem.of, tasks)))
        async with self._calls.post("/score", body) as response:
            data = await self._calls.read(response)
        try:
            return wire.unpack_scores(data)
        except (MalformedMessage, ValueError) as error:
            self._calls.unreadable(error)

    async def replay(self, tasks: Sequence[ReplayTask]) -> list[Replayed]:
        with _sendable():
            body = wire.ReplayBody(tasks=tuple(map(wire.ReplayItem.of, tasks)))
        async with self._calls.post("/replay", body) as response:
            data = await self._calls.read(response)
        try:
            digest, replayed = wire.unpack_replayed(data)
        except (MalformedMessage, ValueError) as error:
            self._calls.unreadable(error)
        if digest != self._identity.model_digest:
            raise EngineUnavailable(
                f"engine at {self._calls.path}: it was answered by model {digest}, expected "
                f"{self._identity.model_digest} as before; connect anew"
            )
        return replayed

    async def prompt_token_ids(self, messages: Sequence[ChatMessage]) -> tuple[TokenId, ...]:
        body = wire.PromptBody(messages=tuple(messages))
        return (await self._calls.ask("/prompt_token_ids", body, wire.TokenIdsBody)).token_ids

    async def text(self, token_ids: Sequence[TokenId], stop: Sequence[str]) -> str:
        """Text by the engine's own tokenizer, which is fetched once: users wait for every answer's text to be looked
        at."""
        if not self._tokenizer_asked:
            self._decode = await self._fetch_tokenizer()
            self._tokenizer_asked = True
        if self._decode is not None:
            check_token_ids(token_ids, self._identity)
            return answer_text(token_ids, self._decode, eos_ids=self._identity.eos_ids, stop=stop)
        with _sendable():
            body = wire.TextBody(token_ids=tuple(token_ids), stop=tuple(stop))
        return (await self._calls.ask("/text", body, wire.TextAnswer)).text

    async def tokenizer_json(self) -> str:
        """The engine's tokenizer; raises ``TaskRefused`` if it doesn't hand it out."""
        return (await self._calls.fetch("/tokenizer")).decode()

    async def _fetch_tokenizer(self) -> Decode | None:
        """How the engine's tokenizer decodes; None if it doesn't hand it out.

        Raises:
            EngineUnavailable: if it doesn't answer. It is asked again then.
        """
        try:
            data = await self._calls.fetch("/tokenizer")
        except TaskRefused:
            return None
        # imported late: a prover never needs it
        from tokenizers import Tokenizer

        tokenizer = await to_thread.run_sync(Tokenizer.from_buffer, data)
        return lambda ids: str(tokenizer.decode(list(ids), skip_special_tokens=True))

    async def check(self) -> None:
        identity = (await self._checks.get("/check", wire.IdentityBody)).identity()
        if identity != self._identity:
            raise EngineUnavailable(
                f"engine at {self._calls.path}: got {identity}, expected {self._identity} as before; "
                "connect anew"
            )

    async def aclose(self) -> None:
        await self._session.close()


class _Calls:
    """HTTP to one engine: every wait has a deadline, every failure is one of the engines room."""

    def __init__(self, session: aiohttp.ClientSession, path: Path, timeout_s: float) -> None:
        self._session = session
        self._timeout_s = timeout_s
        self.path = path

    async def get(self, route: str, kind: type[B]) -> B:
        async with self._request("GET", route, None) as response:
            return self._parse(kind, await self.read(response))

    async def fetch(self, route: str) -> bytes:
        async with self._request("GET", route, None) as response:
            return await self.read(response)

    async def ask(self, route: str, body: Message, kind: type[B]) -> B:
        async with self.post(route, body) as response:
            return self._parse(kind, await self.read(response))

    @asynccontextmanager
    async def post(self, route: str, body: Message) -> AsyncIterator[aiohttp.ClientResponse]:
        async with self._request("POST", route, body.model_dump_json().encode()) as response:
            yield response

    async def read(self, response: aiohttp.ClientResponse) -> bytes:
        with self._waiting():
            return await response.read()

    async def part(self, response: aiohttp.ClientResponse) -> bytes:
        """What has come of an answer, at least one byte."""
        with self._waiting():
            data = await response.content.readany()
        if not data:
            self._dead("its answer broke off")
        return data

    def step(self, data: bytes) -> Step:
        line = self._parse(wire.StepLine, data)
        if line.failure is not None:
            line.failure.throw()
        if line.step is None:
            self._dead("its answer holds a line without a step")
        return line.step.step()

    def unreadable(self, error: Exception) -> NoReturn:
        self._dead(f"its answer cannot be read ({error})")

    @asynccontextmanager
    async def _request(
        self, method: str, route: str, data: bytes | None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        with self._waiting():
            response = await self._session.request(method, route, data=data)
        try:
            if response.status in (422, 503):
                self._parse(wire.FailureBody, await self.read(response)).throw()
            if response.status != 200:
                self._dead(f"it answered {route} with status {response.status}")
            yield response
        finally:
            response.close()  # an answer that was not read to its end tells the engine to stop working on it

    def _parse(self, kind: type[B], data: bytes) -> B:
        try:
            return kind.from_bytes(data)
        except MalformedMessage as error:
            self.unreadable(error)

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        try:
            with anyio.fail_after(self._timeout_s):
                yield
        except TimeoutError:
            self._dead(f"no answer within {self._timeout_s:g} s")
        except (aiohttp.ClientError, OSError) as error:
            self._dead(str(error) or type(error).__name__)

    def _dead(self, what: str) -> NoReturn:
        raise EngineUnavailable(
            f"engine at {self.path}: {what}; look at its log, and start it again with "
            f"`python -m targon.engines.process --socket {self.path}`"
        )


@contextmanager
def _sendable() -> Iterator[None]:
    """A task that has no form on the wire is one that no engine could serve."""
    try:
        yield
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise TaskRefused(f"{where}: {first['msg']}; got {first['input']!r:.80}") from error
