"""Serves an engine to other processes of the same user, over HTTP on a Unix domain socket."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TypeVar

import anyio
from aiohttp import web
from anyio import to_thread

from targon.engines import wire
from targon.engines.errors import EngineError, EngineUnavailable, TaskRefused
from targon.engines.port import Engine, Tokenized
from targon.protocol.errors import MalformedMessage
from targon.protocol.messages import Message

B = TypeVar("B", bound=Message)

_WRITE_SECONDS = 60.0
"""A client that takes no bytes for this long is gone."""


@asynccontextmanager
async def serve_engine(engine: Engine, path: Path) -> AsyncIterator[None]:
    """Serve an engine on a socket until the block ends; then the socket is gone.

    The socket can be used by its owner only (0600), in a folder that only the owner can enter (0700, made
    where it doesn't exist): whoever reaches it needs no further password.

    Raises:
        EngineUnavailable: if another engine answers there, or the folder is open to others.
    """
    listener, inode = await to_thread.run_sync(_listen, path)
    app = EngineServer(engine).app()
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.SockSite(runner, listener).start()
        yield
    finally:
        with anyio.move_on_after(5.0, shield=True):
            await runner.cleanup()
        _remove(path, inode)


class EngineServer:
    """The HTTP face of an engine: one route per method of the port."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def app(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(client_max_size=wire.MAX_BODY_BYTES, middlewares=[_failures])
        app.add_routes(
            [
                web.get("/identity", self._identity),
                web.get("/check", self._check),
                web.post("/prompt_token_ids", self._prompt_token_ids),
                web.post("/text", self._text),
                web.get("/tokenizer", self._tokenizer),
                web.post("/generate", self._generate),
                web.post("/score", self._score),
                web.post("/replay", self._replay),
            ]
        )
        return app

    async def _identity(self, _request: web.Request) -> web.Response:
        return _answer(wire.IdentityBody.of(self._engine.identity))

    async def _check(self, request: web.Request) -> web.Response:
        await self._engine.check()
        return await self._identity(request)

    async def _prompt_token_ids(self, request: web.Request) -> web.Response:
        body = await _body(request, wire.PromptBody)
        return _answer(wire.TokenIdsBody(token_ids=await self._engine.prompt_token_ids(body.messages)))

    async def _text(self, request: web.Request) -> web.Response:
        body = await _body(request, wire.TextBody)
        return _answer(wire.TextAnswer(text=await self._engine.text(body.token_ids, body.stop)))

    async def _tokenizer(self, _request: web.Request) -> web.Response:
        if not isinstance(self._engine, Tokenized):
            raise TaskRefused("this engine hands out no tokenizer: ask it for the text")
        return web.Response(text=await self._engine.tokenizer_json(), content_type="application/json")

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        body = await _body(request, wire.GenerateBody)
        response = web.StreamResponse(headers={"Content-Type": wire.JSON_LINES})
        async with aclosing(self._engine.generate(body.task())) as steps:
            try:
                async for step in steps:  # a refusal comes before the first step, with a status of its own
                    if not response.prepared:
                        await response.prepare(request)
                    await _write(response, wire.StepLine(step=wire.StepBody.of(step)))
            except EngineError as error:
                if not response.prepared:
                    raise
                await _write(response, wire.StepLine(failure=wire.FailureBody.of(error)))
        await response.write_eof()
        return response

    async def _score(self, request: web.Request) -> web.StreamResponse:
        body = await _body(request, wire.ScoreBody)
        tasks = [item.task() for item in body.tasks]
        return await _send(request, wire.pack_scores(tasks, await self._engine.score(tasks)))

    async def _replay(self, request: web.Request) -> web.StreamResponse:
        body = await _body(request, wire.ReplayBody)
        replayed = await self._engine.replay([item.task() for item in body.tasks])
        return await _send(request, wire.pack_replayed(self._engine.identity.model_digest, replayed))


@web.middleware
async def _failures(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Errors of the port, as answers."""
    try:
        return await handler(request)
    except MalformedMessage as error:
        return _answer(wire.FailureBody.of(TaskRefused(str(error))), status=422)
    except TaskRefused as error:
        return _answer(wire.FailureBody.of(error), status=422)
    except EngineError as error:
        return _answer(wire.FailureBody.of(error), status=503)


async def _body(request: web.Request, kind: type[B]) -> B:
    return kind.from_bytes(await request.read())


async def _send(request: web.Request, parts: list[bytes]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
    response.content_length = sum(map(len, parts))
    await response.prepare(request)
    for part in parts:
        with anyio.fail_after(_WRITE_SECONDS):
            await response.write(part)
    await response.write_eof()
    return response


def _answer(message: Message, status: int = 200) -> web.Response:
    return web.Response(body=message.model_dump_json(), status=status, content_type="application/json")


async def _write(response: web.StreamResponse, line: wire.StepLine) -> None:
    with anyio.fail_after(_WRITE_SECONDS):
        await response.write(line.model_dump_json().encode() + b"\n")


def _listen(path: Path) -> tuple[socket.socket, int]:
    """A listening socket, and the number of its file."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    mode = path.parent.stat().st_mode & 0o777
    if mode & 0o077:
        raise EngineUnavailable(
            f"socket folder {path.parent}: got mode {mode:04o}, expected 0700 (whoever enters it uses the "
            f"engine); run `chmod 700 {path.parent}`, or name a socket in another folder"
        )
    refuse_if_served(path)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen()
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise EngineUnavailable(
            f"socket {path}: cannot listen there ({error}); name another path, at most 100 characters long"
        ) from error
    return listener, path.stat().st_ino


def _remove(path: Path, inode: int) -> None:
    """Remove our socket, unless another has taken its place."""
    if path.exists() and path.stat().st_ino == inode:
        path.unlink()


def refuse_if_served(path: Path) -> None:
    """Check that no engine answers on a socket; a file that is left of one that was killed doesn't count.

    Raises:
        EngineUnavailable: if one does, or if the file there is no socket.
    """
    if not path.exists():
        return
    if not path.is_socket():
        raise EngineUnavailable(
            f"socket {path}: got a file that is no socket, expected a free path; name another"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return
    raise EngineUnavailable(f"socket {path}: another engine answers there; stop it, or name another socket")
