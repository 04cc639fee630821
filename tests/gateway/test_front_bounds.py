"""What the front holds against users and provers who overdo it."""

from __future__ import annotations

import json

import anyio
import pytest

from targon.gateway.api import Bounds
from targon.transport.errands import NobodyFree
from tests.gateway.front_world import Script, a_front, chat, read_reply

pytestmark = pytest.mark.anyio


async def test_a_path_with_a_slash_too_many_sends_nobody_elsewhere(tmp_path):
    async with a_front(tmp_path) as world:
        for path in ("/v1/chat/completions/", "/v1/models/"):
            status, headers, reply = await world.post(chat(), path=path, host="evil.example")
            assert (status, reply["error"]["code"]) in {(404, "not_found"), (405, "method_not_allowed")}
            assert "location" not in headers


async def test_requests_whose_bodies_are_on_their_way_count_as_running(tmp_path):
    hold = anyio.Event()
    async with a_front(tmp_path, Script(before=hold.wait), bounds=Bounds(max_running=2)) as world:
        body = json.dumps(chat()).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {world.key}\r\n"
        head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        statuses: list[int] = []
        halfway = anyio.Event()

        async def slowly() -> None:
            async with await anyio.connect_tcp("127.0.0.1", world.port) as stream:
                await stream.send(head.encode() + body[:-5])
                await halfway.wait()
                await stream.send(body[-5:])
                statuses.append((await read_reply(stream))[0])

        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                for _ in range(2):
                    tasks.start_soon(slowly)
                await anyio.sleep(0.3)
                refused, headers, _ = await world.post(chat())
                halfway.set()
                hold.set()
        assert (refused, headers["retry-after"], statuses) == (503, "1", [200, 200])
        assert (await world.post(chat()))[0] == 200


async def test_a_wait_of_any_length_is_told_as_a_day_at_most(tmp_path):
    async with a_front(tmp_path, Script(before=NobodyFree("nobody is free", float("inf")))) as world:
        status, headers, _ = await world.post(chat())
    assert (status, headers["retry-after"]) == (503, "86400")
