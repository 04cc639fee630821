"""An engine that is down, breaks, refuses or is slow: each becomes an error that says whose doing it is."""

from __future__ import annotations

import json
import socket

import anyio
import pytest

from targon.engines.errors import EngineBusy, EngineError, EngineUnavailable, TaskRefused
from targon.engines.port import ScoreTask
from targon.engines.remote import RemoteEngine, calls, open_remote_engine
from tests.engines.tasks import answer, ids_of

from .fake_vllm import ASKED, COMPLETIONS, as_event, engine_at, event, healthy_vllm, sea_ids, told
from .raw_server import HEAD, Connection, handling, saying
from .scripted_server import Answer, serving, stream, whole

pytestmark = pytest.mark.anyio

SCORED = ScoreTask(ASKED.messages, sea_ids(), 5)
GOOD = as_event(told()[0])
WITHIN_S = 30.0
"""In which every test that would hang fails instead."""


async def failure(engine: RemoteEngine) -> EngineError:
    """What generating raises."""
    with anyio.fail_after(WITHIN_S), pytest.raises(EngineError) as caught:
        await answer(engine, ASKED)
    return caught.value


def closed_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


async def test_a_healthy_engines_answer_is_its_tokens() -> None:
    async with serving({COMPLETIONS: [stream(*told())]}) as server, engine_at(server.url) as engine:
        assert ids_of(await answer(engine, ASKED)) == sea_ids()


# down


async def test_an_engine_that_is_down_cannot_be_opened() -> None:
    url = f"http://127.0.0.1:{closed_port()}"
    with pytest.raises(
        EngineUnavailable, match=rf"engine at {url}: cannot be reached .*start it, or name another"
    ):
        async with open_remote_engine(url):
            pass


async def test_an_engine_that_went_down_is_unavailable() -> None:
    async with engine_at(f"http://127.0.0.1:{closed_port()}") as engine:
        assert "cannot be reached" in str(await failure(engine))
        with pytest.raises(EngineUnavailable, match="cannot be reached"):
            await engine.score([SCORED])
        with pytest.raises(EngineUnavailable, match="cannot be reached"):
            await engine.check()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("127.0.0.1:8000", "expected http://host:port"),
        ("ftp://127.0.0.1", "expected http://host:port"),
        ("http://", "expected http://host:port"),
        ("http://[::1", "expected http://host:port"),
        ("http://127.0.0.1:99999", "expected http://host:port"),
        ("http://127.0.0.1:port", "expected http://host:port"),
    ],
)
async def test_an_address_that_is_none_is_named(url: str, words: str) -> None:
    with pytest.raises(EngineUnavailable) as caught:
        async with open_remote_engine(url):
            pass
    assert words in str(caught.value)


async def test_a_host_that_nobody_knows_cannot_be_reached() -> None:
    with pytest.raises(EngineUnavailable, match="cannot be reached"):
        async with open_remote_engine("http://no-such-host.invalid:8000"):
            pass


async def test_an_address_that_speaks_no_http_broke_off() -> None:
    async with handling(saying(b"SSH-2.0-OpenSSH_9.6\r\n")) as url, engine_at(url) as engine:
        assert "it broke off" in str(await failure(engine))


# dying


@pytest.mark.parametrize(
    "parts",
    [
        [GOOD, GOOD[:30]],
        [GOOD],
        [],
    ],
    ids=["within an event", "between events", "before any"],
)
async def test_an_engine_that_dies_in_the_middle_broke_off(parts: list[bytes]) -> None:
    dying = Answer(200, {"Content-Type": "text/event-stream"}, parts, broken_off=True)
    async with serving({COMPLETIONS: [dying]}) as server, engine_at(server.url) as engine:
        error = await failure(engine)
    assert isinstance(error, EngineUnavailable)
    assert "it broke off" in str(error)


async def test_an_engine_that_dies_before_it_answers_is_asked_once_more_at_most() -> None:
    asked = []

    async def die(connection: Connection) -> None:
        asked.append(await connection.request())
        connection.reset()

    async with handling(die) as url, engine_at(url) as engine:
        assert "it broke off" in str(await failure(engine))
    assert len(asked) == 2


async def test_an_answer_that_has_begun_is_never_asked_for_again() -> None:
    dying = stream(told()[0], done=False, broken_off=True)
    async with serving({COMPLETIONS: [dying, stream(*told())]}) as server, engine_at(server.url) as engine:
        await failure(engine)
        assert len(server.asked(COMPLETIONS)) == 1


@pytest.mark.parametrize("done", [True, False])
async def test_a_stream_that_ends_without_a_reason_broke_off(done: bool) -> None:
    events = stream(*told(ended=None)[:3], done=done)
    async with serving({COMPLETIONS: [events]}) as server, engine_at(server.url) as engine:
        assert "its answer broke off after 3 tokens" in str(await failure(engine))


async def test_an_event_that_the_connections_end_cuts_cannot_be_read() -> None:
    async with handling(saying(HEAD, GOOD, GOOD[:30])) as url, engine_at(url) as engine:
        assert "cannot be read" in str(await failure(engine))


async def test_steps_that_came_before_the_failure_were_given() -> None:
    dying = stream(*told()[:2], done=False, broken_off=True)
    async with serving({COMPLETIONS: [dying]}) as server, engine_at(server.url) as engine:
        steps = engine.generate(ASKED)
        assert ids_of([await anext(steps), await anext(steps)]) == sea_ids()[:2]
        with pytest.raises(EngineUnavailable):
            await anext(steps)


# refusing

STATUSES = [
    (400, TaskRefused),
    (413, TaskRefused),
    (422, TaskRefused),
    (401, EngineUnavailable),
    (403, EngineUnavailable),
    (404, EngineUnavailable),
    (405, EngineUnavailable),
    (429, EngineBusy),
    (500, EngineUnavailable),
    (502, EngineUnavailable),
    (503, EngineBusy),
    (204, EngineUnavailable),
]
BODIES = {
    "vllm": {"error": {"message": "so it is", "code": 1}},
    "flat": {"error": "so it is"},
    "fastapi": {"detail": "so it is"},
    "other": {"reason": "so it is"},
    "list": ["so it is"],
    "text": b"so it is",
    "html": b"<html>\n<b>so it is</b>\n</html>",
    "broken utf-8": b"\xff\xfe so it is",
    "lone surrogate": b'{"error": "so it is \\ud800"}',
    "deep": b'{"error": ' + b"[" * 100_000,
    "nothing": b"",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize(("status", "expected"), STATUSES)
async def test_a_status_says_whose_fault_it_is(status: int, expected: type[Exception], body: object) -> None:
    given = whole(body, status=status) if status != 204 else Answer(204)
    async with serving({COMPLETIONS: [given]}) as server, engine_at(server.url) as engine:
        error = await failure(engine)
        with pytest.raises(expected):
            await engine.score([SCORED])
    assert type(error) is expected or (status in (401, 403, 404, 405) and isinstance(error, expected))
    assert str(status) in str(error)
    assert server.url in str(error)
    if b"so it is" in given.parts[:1] and status not in (401, 403):
        assert "so it is" in str(error)
    str(error).encode()


async def test_an_engines_own_words_are_cut_and_come_in_one_line() -> None:
    words = "so\nit\x1b[31m is " + "x" * 10_000
    given = whole({"error": {"message": words}}, status=400)
    async with serving({COMPLETIONS: [given]}) as server, engine_at(server.url) as engine:
        error = str(await failure(engine))
    assert len(error) < calls.QUOTED + 200
    assert error.isprintable()


async def test_a_wrong_key_is_told_with_where_to_put_the_right_one() -> None:
    async with (
        serving({"GET /v1/models": [whole({"error": "no"}, status=401)]}) as server,
        engine_at(server.url) as engine,
    ):
        with pytest.raises(EngineUnavailable, match=r"it wants another key.*TARGON_ENGINE_API_KEY"):
            await engine.check()
        with pytest.raises(EngineUnavailable, match=r"it wants another key.*TARGON_ENGINE_API_KEY"):
            async with open_remote_engine(server.url):
                pass


@pytest.mark.parametrize("status", [400, 404, 413, 422, 429, 500, 503])
async def test_an_engine_that_refuses_to_say_what_it_serves_is_unavailable(status: int) -> None:
    given = whole({"error": "so it is"}, status=status)
    async with serving({"GET /v1/models": [given]}) as server, engine_at(server.url) as engine:
        with pytest.raises(EngineUnavailable):
            await engine.check()
        with pytest.raises(EngineUnavailable):
            async with open_remote_engine(server.url, kind="vllm"):
                pass


@pytest.mark.parametrize(
    "error",
    [
        {"message": "so it is", "type": "InternalServerError", "code": 500},
        {"message": "so it is", "type": "BadRequestError", "code": 400},
        {"message": "so it is"},
    ],
)
@pytest.mark.parametrize("before", [0, 2])
async def test_an_error_in_a_stream_is_an_error(error: object, before: int) -> None:
    events = stream(*told()[:before], {"error": error})
    async with serving({COMPLETIONS: [events]}) as server, engine_at(server.url) as engine:
        assert "so it is" in str(await failure(engine))


@pytest.mark.parametrize(
    "error", [b'{"error": "so it is"}', b"so it is", b'{"choices": 5, "x": "so it is"}', b"[1]", b"null", b""]
)
async def test_an_event_that_is_none_cannot_be_read(error: bytes) -> None:
    async with serving({COMPLETIONS: [stream(told()[0], error)]}) as server, engine_at(server.url) as engine:
        message = str(await failure(engine))
    assert "its answer to /v1/completions cannot be read" in message
    assert b"so it is" not in error or "so it is" in message


@pytest.mark.parametrize("data", [b"<html>welcome</html>", json.dumps({"error": "so it is"}).encode(), b""])
async def test_an_answer_that_is_no_stream_is_no_answer(data: bytes) -> None:
    async with serving({COMPLETIONS: [whole(data)]}) as server, engine_at(server.url) as engine:
        assert "broke off after 0 tokens" in str(await failure(engine))


async def test_a_long_error_in_a_stream_is_cut() -> None:
    events = stream({"error": {"message": "x" * 1_000_000}})
    async with serving({COMPLETIONS: [events]}) as server, engine_at(server.url) as engine:
        assert len(str(await failure(engine))) < 10_000


# slow


async def test_no_head_within_the_deadline_is_late() -> None:
    slow = Answer(200, {}, [], delay_s=0.3)
    async with serving({COMPLETIONS: [slow]}) as server, engine_at(server.url, timeout_s=0.1) as engine:
        error = await failure(engine)
        with pytest.raises(EngineUnavailable, match=r"nothing came within 0\.1 s"):
            await engine.score([SCORED])
    assert "nothing came within 0.1 s" in str(error)


async def say_slowly(connection: Connection, first: bytes, again: bytes) -> None:
    """A part, and then another one every 50 ms for as long as anybody listens."""
    await connection.request()
    await connection.say(HEAD, first)
    while True:
        await anyio.sleep(0.05)
        await connection.say(again)


async def test_no_next_event_within_the_deadline_is_late() -> None:
    async def stop(connection: Connection) -> None:
        await connection.request()
        await connection.say(HEAD, GOOD)
        await connection.left()

    async with handling(stop) as url, engine_at(url, timeout_s=0.2) as engine:
        assert "nothing came within 0.2 s" in str(await failure(engine))


@pytest.mark.parametrize(
    ("first", "again"),
    [
        (GOOD, b": keep-alive\n\n"),
        (b"", b": keep-alive\n\n"),
        (GOOD, b"event: ping\n\n"),
        (GOOD, b"x"),
        (b"data: ", b" "),
        (GOOD, b"\n"),
    ],
)
async def test_signs_of_life_are_no_events(first: bytes, again: bytes) -> None:
    async with (
        handling(lambda connection: say_slowly(connection, first, again)) as url,
        engine_at(url, timeout_s=0.3) as engine,
    ):
        assert "nothing came within 0.3 s" in str(await failure(engine))


async def test_an_answer_that_keeps_its_pace_may_take_longer_than_the_deadline() -> None:
    slowly = stream(*told(), delay_s=0.25)
    async with serving({COMPLETIONS: [slowly]}) as server, engine_at(server.url, timeout_s=1.0) as engine:
        assert ids_of(await answer(engine, ASKED)) == sea_ids()


@pytest.mark.parametrize(
    "nothing",
    [event([]), {"choices": []}, {}, event([], text="x")],
    ids=["no ids", "no choice", "empty", "text"],
)
async def test_events_without_tokens_are_no_answer(nothing: object) -> None:
    async def forever(connection: Connection) -> None:
        await connection.request()
        await connection.say(HEAD)
        while True:
            await connection.say(as_event(nothing))

    async with handling(forever) as url, engine_at(url) as engine:
        assert "events without" in str(await failure(engine))


async def test_a_whole_answer_that_trickles_is_late() -> None:
    async with (
        handling(lambda connection: say_slowly(connection, b"{", b" ")) as url,
        engine_at(url, timeout_s=0.3) as engine,
    ):
        with (
            anyio.fail_after(WITHIN_S),
            pytest.raises(EngineUnavailable, match=r"nothing came within 0\.3 s"),
        ):
            await engine.score([SCORED])


async def test_a_check_has_a_deadline_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("targon.engines.remote.engine.CHECK_SECONDS", 0.1)
    script = {**healthy_vllm(), "GET /version": [whole({}, delay_s=0.3)]}
    async with serving(script) as server, engine_at(server.url) as engine:
        with pytest.raises(EngineUnavailable, match=r"doesn't say what it serves within 0\.1 s"):
            await engine.check()


# too much


async def test_a_whole_answer_beyond_the_limit_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "MAX_ANSWER_BYTES", 100_000)
    async with serving({COMPLETIONS: [whole(b" " * 200_000)]}) as server, engine_at(server.url) as engine:
        with pytest.raises(EngineUnavailable, match="an answer of more than 100,000 bytes, expected less"):
            await engine.score([SCORED])


@pytest.mark.parametrize("start", [b"data: ", b": ", b""])
async def test_an_endless_line_is_not_read(monkeypatch: pytest.MonkeyPatch, start: bytes) -> None:
    monkeypatch.setattr(calls, "MAX_EVENT_BYTES", 1_000_000)

    async def endless(connection: Connection) -> None:
        await connection.request()
        await connection.say(HEAD, start)
        while True:
            await connection.say(b"x" * 50_000)

    async with handling(endless) as url, engine_at(url) as engine:
        assert "an event of more than 1,000,000 bytes, expected less" in str(await failure(engine))


async def test_a_line_that_comes_in_many_small_parts_is_read_in_time() -> None:
    """Each part must not cost what all before it did."""

    async def crumbs(connection: Connection) -> None:
        await connection.request()
        await connection.say(HEAD, b"data: " + b" " * 3_000_000)
        for _ in range(3_000):
            await connection.say(b" ")
        await connection.say(GOOD[6:])

    async with handling(crumbs) as url, engine_at(url) as engine:
        assert "broke off after 1 tokens" in str(await failure(engine))
