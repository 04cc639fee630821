"""What the doctor's tests share: one finding out of a look, keys, and somebody who may do little."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager

import anyio
from anyio.abc import SocketAttribute, SocketStream
from bittensor.keyfiles import Keypair

from targon.doctor import Finding, Result

OURS = Keypair.create_from_uri("//Bob")
ANOTHER = Keypair.create_from_uri("//Charlie")
NOBODY = 65_534


def only(result: Result) -> Finding:
    """The one finding of a result."""
    (finding,) = result.findings
    return finding


async def look(result: Awaitable[Result]) -> Finding:
    return only(await result)


@contextmanager
def unprivileged() -> Iterator[None]:
    """As a user for whom modes of files count: root is let in everywhere."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@asynccontextmanager
async def a_web_server() -> AsyncIterator[int]:
    """The port of something that speaks HTTP, and is no neuron."""

    async def page(stream: SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\nhi")

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, page)
        yield listener.extra(SocketAttribute.local_port)
        tasks.cancel_scope.cancel()


@contextmanager
def dropping() -> Iterator[int]:
    """A port of loopback that answers to nothing, as behind a firewall: its queue of connections is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port: int = listener.getsockname()[1]
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", port))
        yield port
