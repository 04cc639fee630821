"""An engine in a process of its own: how it starts, ends, dies, and who may use it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from anyio.abc import Process

from targon.engines import (
    EngineClient,
    EngineUnavailable,
    connect_engine,
    engine_answers,
    serve_engine,
    start_engine_process,
)
from targon.engines.process import main
from targon.engines.transformers_engine import TransformersEngine

from .tasks import answer, claim, task

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "engine.sock"


@asynccontextmanager
async def engine_process(path: Path, model: Path) -> AsyncIterator[Process]:
    """A running engine process that answers."""
    command = [sys.executable, "-m", "targon.engines.process", "--socket", str(path), "--model", str(model)]
    async with await anyio.open_process(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            with anyio.fail_after(60):
                while not await engine_answers(path):
                    assert process.returncode is None, "the engine process ended before it answered"
                    await anyio.sleep(0.05)
            yield process
        finally:
            if process.returncode is None:
                process.kill()


async def test_a_killed_engine_is_unavailable_and_its_place_is_taken_by_the_next(
    path: Path, tiny_model: Path
) -> None:
    asked = task(max_tokens=4_000)
    async with engine_process(path, tiny_model) as process, connect_engine(path, timeout_s=20) as engine:
        steps = engine.generate(asked)
        first = await anext(steps)
        process.send_signal(signal.SIGKILL)
        with pytest.raises(EngineUnavailable, match=r"engine\.sock.*start it again"):
            async for _ in steps:
                pass
        for call in (
            engine.check,
            lambda: answer(engine, asked),
            lambda: engine.score([claim(asked, [first])]),
        ):
            with pytest.raises(EngineUnavailable, match=r"engine\.sock"):
                await call()
        await process.wait()
        assert await anyio.Path(path).exists()
        async with engine_process(path, tiny_model) as successor:
            await engine.check()
            assert len(await answer(engine, task(max_tokens=3))) == 3
            successor.terminate()
            assert await successor.wait() == 0
    assert not await anyio.Path(path).exists()


async def test_a_stopped_engine_has_said_nothing_but_log_lines_on_stderr(
    path: Path, tiny_model: Path
) -> None:
    async with engine_process(path, tiny_model) as process:
        assert (await anyio.Path(path).stat()).st_mode & 0o777 == 0o600
        process.terminate()
        assert process.stdout is not None
        assert process.stderr is not None
        assert [part async for part in process.stdout] == []
        lines = b"".join([part async for part in process.stderr]).decode().splitlines()
        assert await process.wait() == 0
    assert [line for line in lines if not line.startswith("timestamp=")] == []
    assert "SIGTERM" in lines[-1]


async def test_an_engine_stops_with_the_process_that_started_it(path: Path, tiny_model: Path) -> None:
    starter = (
        "import anyio, os, sys\nfrom pathlib import Path\nfrom targon.engines import start_engine_process\n"
        "async def main():\n"
        "    async with start_engine_process(Path(sys.argv[1]), model=sys.argv[2]) as engine:\n"
        "        os._exit(7)\n"
        "anyio.run(main)\n"
    )
    result = await anyio.run_process(
        [sys.executable, "-c", starter, str(path), str(tiny_model)], check=False, stderr=subprocess.DEVNULL
    )
    assert result.returncode == 7
    with anyio.fail_after(60):
        while await anyio.Path(path).exists():
            await anyio.sleep(0.05)


async def test_an_engine_that_cannot_start_says_so_and_is_not_waited_for(path: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match="exited with code 1 before it served"):
        async with start_engine_process(path, model=tmp_path / "nothing"):
            pass


async def test_a_second_engine_does_not_take_a_socket_from_one_that_answers(
    engine_socket: Path,
) -> None:
    command = [sys.executable, "-m", "targon.engines.process", "--socket", str(engine_socket)]
    result = await anyio.run_process(command, check=False)
    assert result.returncode == 1
    assert b"another engine answers there" in result.stderr
    assert await engine_answers(engine_socket)


async def test_a_folder_that_others_can_enter_is_refused(
    tmp_path: Path, fp32_engine: TransformersEngine
) -> None:
    folder = tmp_path / "open"
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    with pytest.raises(EngineUnavailable, match=r"got mode 0755, expected 0700.*chmod 700"):
        async with serve_engine(fp32_engine, folder / "engine.sock"):
            pass


async def test_a_file_that_is_no_socket_is_left_alone(path: Path, fp32_engine: TransformersEngine) -> None:
    await anyio.Path(path).write_text("precious")
    with pytest.raises(EngineUnavailable, match="no socket"):
        async with serve_engine(fp32_engine, path):
            pass
    assert await anyio.Path(path).read_text() == "precious"


async def test_nobody_at_the_socket_is_said_with_what_to_do(path: Path) -> None:
    with pytest.raises(EngineUnavailable, match=r"engine\.sock.*python -m targon\.engines\.process --socket"):
        async with connect_engine(path):
            pass


async def test_an_engine_that_never_answers_is_given_up(path: Path) -> None:
    async def be_silent(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await anyio.sleep_forever()

    async with await anyio.create_unix_listener(path) as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, be_silent)
        with pytest.raises(EngineUnavailable, match=r"no answer within 0\.5 s"), anyio.fail_after(60):
            async with connect_engine(path, timeout_s=0.5):
                pass
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("said", "named"),
    [(b"garbage", "status|HTTP|Bad"), (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n[1]", "read")],
)
async def test_garbage_from_the_socket_is_an_engine_that_cannot_be_used(
    path: Path, said: bytes, named: str
) -> None:
    async def reply(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(said)

    async with await anyio.create_unix_listener(path) as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, reply)
        with pytest.raises(EngineUnavailable, match=named):
            async with connect_engine(path):
                pass
        tasks.cancel_scope.cancel()


async def test_a_client_that_goes_away_leaves_its_place_to_others(
    path: Path, fp32_engine: TransformersEngine
) -> None:
    async def ask(client: EngineClient) -> None:
        async for _ in client.generate(task(max_tokens=8_000)):
            pass

    async with serve_engine(fp32_engine, path):
        async with connect_engine(path) as client, anyio.create_task_group() as tasks:
            tasks.start_soon(ask, client)
            while fp32_engine.active == 0:
                await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()
        with anyio.fail_after(60):
            while fp32_engine.active:
                await anyio.sleep(0.01)


def test_talking_to_an_engine_takes_neither_torch_nor_much_memory(engine_socket: Path) -> None:
    program = (
        "import anyio, sys\nfrom pathlib import Path\nfrom targon.engines import connect_engine\n"
        "async def main():\n"
        "    async with connect_engine(Path(sys.argv[1])) as engine:\n"
        "        await engine.check()\n"
        "anyio.run(main)\n"
        "print([name for name in ('torch', 'transformers', 'numba') if name in sys.modules])\n"
        "print(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])\n"
    )
    command = [sys.executable, "-c", program, str(engine_socket)]
    imported, kilobytes = subprocess.run(
        command, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert imported == "[]"
    assert int(kilobytes) < 150_000


def test_an_impossible_command_line_is_refused_with_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--socket", "x", "--dtype", "float8"])
    assert "float32" in capsys.readouterr().err
