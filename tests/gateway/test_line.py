"""The line itself: a verifier that is away, comes back or falls silent; its socket; what is no frame."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from targon.gateway.errors import ServiceFailed
from targon.gateway.line import LineClient, LineServer, LineTaken
from targon.gateway.line.frames import MAX_ORDER_BYTES
from targon.gateway.line.socket import check_folder, listening
from targon.gateway.line.wire import Wire
from targon.gateway.ports import Began, Orders
from targon.protocol.messages import ChatMessage
from targon.transport import Deadlines
from targon.transport.errands import NotReady, Unservable
from tests.gateway.dispatch_world import PATIENT, Parts, a_world, all_of, an_order, answers
from tests.prover.world import CountingEngine

pytestmark = pytest.mark.anyio

MANY = range(1, 401)


@asynccontextmanager
async def a_server(orders: Orders, path: Path) -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        await tasks.start(lambda task_status: LineServer(orders, path).run(task_status=task_status))
        yield
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def a_client(path: Path, silence_s: float = 5.0) -> AsyncIterator[LineClient]:
    client = LineClient(path, silence_s=silence_s)
    async with anyio.create_task_group() as tasks:
        await tasks.start(lambda task_status: client.run(task_status=task_status))
        yield client
        tasks.cancel_scope.cancel()


async def read_out(parts: Parts) -> None:
    async for _ in parts:
        pass


async def receive_all(stream: anyio.abc.SocketStream) -> None:
    while True:
        await stream.receive()


async def until_there(client: LineClient, *, there: bool = True) -> None:
    with anyio.fail_after(30):
        while (client.ailing is None) != there:
            await anyio.sleep(0.01)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "line" / "gateway.sock"


async def test_while_the_verifier_is_away_users_are_told_to_come_back(path: Path) -> None:
    async with a_client(path) as client:
        with pytest.raises(NotReady, match="the verifier is away") as caught:
            await all_of(client.fulfil(an_order()))
        assert caught.value.retry_after_s > 0
        assert client.models() == ()


async def test_a_verifier_that_starts_again_is_found_again(path: Path) -> None:
    async with a_world(CountingEngine()) as world, a_client(path) as client:
        for _ in range(2):
            async with a_server(world.dispatcher, path):
                await until_there(client)
                await all_of(client.fulfil(an_order()))
            await until_there(client, there=False)
            assert client.models() == world.desk.models()
            with pytest.raises(NotReady, match=r"hung up|nobody answers"):
                await all_of(client.fulfil(an_order()))


async def test_a_verifier_that_goes_away_in_the_middle_is_an_error(path: Path) -> None:
    async with a_world(answers(*MANY, pause_s=0.05)) as world, a_client(path) as client:
        async with a_server(world.dispatcher, path):
            await until_there(client)
            parts = client.fulfil(an_order(max_tokens=400))
            assert isinstance(await anext(parts), Began)
        with pytest.raises(ServiceFailed, match="went away in the middle") as caught:
            await read_out(parts)
        assert caught.value.begun
        assert await world.desk.until_told(1) == [("user_left", 0)]


async def test_a_verifier_that_falls_silent_is_not_waited_for(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    async with await anyio.create_unix_listener(path) as listener, anyio.create_task_group() as tasks:

        async def say_once(stream: anyio.abc.SocketStream) -> None:
            async with stream:
                if await stream.receive() == b"\0\0\0\0W":
                    await stream.send(b"\0\0\0\2m[]")
                await anyio.sleep(30)

        tasks.start_soon(listener.serve, say_once)
        async with a_client(path, silence_s=0.3) as client:
            await until_there(client)
            with anyio.fail_after(30), pytest.raises(NotReady, match=r"it said nothing for 0.3 s"):
                await anext(client.fulfil(an_order()))
        tasks.cancel_scope.cancel()


async def test_a_verifier_of_another_version_is_named_as_that(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    async with await anyio.create_unix_listener(path) as listener, anyio.create_task_group() as tasks:

        async def greet(stream: anyio.abc.SocketStream) -> None:
            async with stream:
                await stream.send(b"\0\0\0\2m{}")
                await anyio.sleep(30)

        tasks.start_soon(listener.serve, greet)
        async with a_client(path) as client:
            with anyio.fail_after(30):
                while "version" not in (client.ailing or ""):
                    await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    "garbage",
    [b"\xff\xff\xff\xffO", b"\0\0\0\0?", b"\0\0\0\2O{}", b"\0\0\0\1R\xff", b"GET / HTTP/1.1\r\n\r\n"],
)
async def test_what_is_no_order_ends_its_connection_and_no_other(path: Path, garbage: bytes) -> None:
    async with a_world(CountingEngine()) as world, a_server(world.dispatcher, path), a_client(path) as client:
        await until_there(client)
        async with await anyio.connect_unix(path) as stream:
            await stream.send(garbage)
            await stream.send_eof()
            with anyio.fail_after(30), pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await receive_all(stream)
        await all_of(client.fulfil(an_order()))


def test_it_works_in_a_plain_event_loop_too(path: Path) -> None:
    async def main() -> str:
        async with (
            a_world(CountingEngine()) as world,
            a_server(world.dispatcher, path),
            a_client(path) as client,
        ):
            await until_there(client)
            return (await all_of(client.fulfil(an_order())))[0]

    assert asyncio.run(main()) == " 1 2 3 4"


async def test_an_order_that_is_too_large_for_anyone_is_refused_before_it_is_sent(path: Path) -> None:
    large = tuple(ChatMessage(role="user", content="\x01" * 262_144) for _ in range(6))
    async with a_world() as world, a_server(world.dispatcher, path), a_client(path) as client:
        await until_there(client)
        with pytest.raises(Unservable, match=f"at most {MAX_ORDER_BYTES}") as caught:
            await anext(client.fulfil(an_order(messages=large)))
        assert caught.value.code == "context_length_exceeded"


async def test_a_gateway_that_stops_reading_holds_up_its_own_order_alone(path: Path) -> None:
    patience = replace(PATIENT, buffer_bytes=4096, reader_s=0.3, prover=Deadlines(total_s=30.0))
    large = ["y" * 200] * 5000

    async with (
        a_world(answers(*range(5000), texts=large), patience=patience) as world,
        a_server(world.dispatcher, path),
        a_client(path) as client,
    ):
        await until_there(client)
        stuck = client.fulfil(an_order(max_tokens=5000))
        await anext(stuck)
        assert await world.desk.until_told(1) == [("user_left", 0)]
        await all_of(client.fulfil(an_order(max_tokens=5000)))
        await stuck.aclose()


def test_the_socket_is_its_owners_alone(path: Path) -> None:
    with listening(path):
        assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert not path.exists()


async def test_a_second_verifier_does_not_take_the_socket(path: Path) -> None:
    async with a_world() as world, a_server(world.dispatcher, path):
        with pytest.raises(LineTaken, match="another verifier answers"):
            await LineServer(world.dispatcher, path).run()


def test_a_socket_that_a_killed_verifier_left_is_taken_over(path: Path) -> None:
    with listening(path):
        os.link(path, path.with_suffix(".left"))
    path.with_suffix(".left").rename(path)
    with listening(path):
        assert path.is_socket()


async def test_a_folder_of_somebody_else_is_neither_served_in_nor_trusted(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening(path):
        user = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: user + 1)
        with pytest.raises(LineTaken, match=f"of user {user}, expected one of user {user + 1}"):
            check_folder(path.parent)
        async with a_client(path) as client:
            with anyio.fail_after(30):
                while f"of user {user}" not in (client.ailing or ""):
                    await anyio.sleep(0.01)
            with pytest.raises(NotReady, match=f"of user {user}"):
                await all_of(client.fulfil(an_order()))
    other = path.parent / "more"
    other.mkdir(mode=0o700)
    with pytest.raises(LineTaken, match=f"of user {user}"), listening(other / "gateway.sock"):
        pass


def test_a_socket_that_doesn_t_say_whether_it_is_served_is_left_alone(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        with pytest.raises(LineTaken, match="can't tell whether"), listening(path):
            pass
        assert path.is_socket()


@pytest.mark.parametrize(("mode", "words"), [(0o755, "chmod 700"), (0o700, "no socket")])
def test_a_folder_that_others_enter_and_a_file_that_is_no_socket_are_refused(
    path: Path, mode: int, words: str
) -> None:
    path.parent.mkdir()
    path.parent.chmod(mode)
    path.touch()
    with pytest.raises(LineTaken, match=words), listening(path):
        pass


class _Nowhere:
    """A transport that takes whatever comes."""

    def __init__(self) -> None:
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        return

    def resume_reading(self) -> None:
        return


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=300))), st.integers(1, 64))
def test_frames_come_out_as_they_went_in_however_they_are_cut(
    frames: list[tuple[int, bytes]], cut: int
) -> None:
    async def there_and_back() -> list[tuple[int, bytes]]:
        sender, receiver, between = Wire(), Wire(), _Nowhere()
        sender.connection_made(between)  # type: ignore[arg-type]
        receiver.connection_made(_Nowhere())  # type: ignore[arg-type]
        for kind, payload in frames:
            sender.send(kind, payload)
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
        for start in range(0, len(between.written), cut):
            receiver.data_received(between.written[start : start + cut])
        return [await receiver.receive() for _ in frames]

    assert anyio.run(there_and_back) == frames
