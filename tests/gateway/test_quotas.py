"""Quotas and limits over HTTP: no request exceeds them, however it is asked."""

from __future__ import annotations

import json

import anyio
import pytest

from targon.gateway.keys import Allowed
from targon.protocol.primitives import Digest
from targon.transport.errands import OfferedModel
from tests.gateway.front_world import MODEL, Script, a_front, chat, delta

pytestmark = pytest.mark.anyio


def unlimited(**limits: int) -> Allowed:
    return Allowed(**({"requests_per_minute": 0, "tokens_per_minute": 0, "concurrent": 0} | limits))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("limit", ["daily_tokens", "total_tokens"])
async def test_who_doesn_t_say_how_long_an_answer_may_be_exceeds_no_quota(tmp_path, limit, stream):
    endless = [delta("t", 1 + number) for number in range(5000)]
    script = Script(endless, offered=(OfferedModel(MODEL, Digest("ab" * 32), 8192, 4096),))
    async with a_front(tmp_path, script, allowed=unlimited(**{limit: 12_000})) as world:
        body = json.dumps(chat(stream=stream, n=2)).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {world.key}\r\n"
        head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        statuses = []

        async def ask() -> None:
            statuses.append((await world.raw(head.encode() + body))[0])

        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(ask)
        # two answers of 4,096 tokens, two of the rest, and nothing for anybody else
        assert sorted(statuses) == [200, 200, 429, 429]
        assert sorted(order.max_tokens or 0 for order in script.orders) == [0, 0, 1786, 1786]
        await world.ring.keep_up()
        ((_, ever),) = world.file.used(0).values()
    assert 11_000 < ever.tokens <= 12_000


@pytest.mark.parametrize("text", ["🙂" * 100, "7" * 400])
async def test_a_prompt_of_more_tokens_than_were_estimated_exceeds_no_quota(tmp_path, text):
    script = Script(prompt_tokens=400)
    async with a_front(tmp_path, script, allowed=unlimited(total_tokens=450)) as world:
        status, _, reply = await world.post(chat(text, max_tokens=300))
    assert (status, reply["error"]["code"]) == (429, "insufficient_quota")


@pytest.mark.parametrize("path", ["/v1/models", f"/v1/models/{MODEL}", f"/v1/receipts/{'0' * 64}"])
async def test_looks_are_limited_as_requests_are_and_apart_from_them(tmp_path, path):
    async with a_front(tmp_path, allowed=unlimited(requests_per_minute=2)) as world:
        head = f"GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {world.key}\r\n\r\n".encode()
        replies = [await world.raw(head) for _ in range(4)]
        asked, _, _ = await world.post(chat())
    assert [status == 429 for status, _, _ in replies] == [False, False, True, True]
    assert int(replies[-1][1]["retry-after"]) > 20
    assert json.loads(replies[-1][2])["error"]["code"] == "rate_limit_exceeded"
    assert asked == 200


async def test_an_answer_of_any_length_fits_into_the_tokens_of_a_minute(tmp_path):
    async with a_front(tmp_path, allowed=unlimited(tokens_per_minute=500)) as world:
        status, _, _ = await world.post(chat("x" * 800))
    assert (status, [order.max_tokens for order in world.script.orders]) == (200, [299])
