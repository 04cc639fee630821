"""A verifier's axon: who is let in, what each is told, and where it is announced."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
import structlog
from structlog.testing import capture_logs

from targon import __version__
from targon.chain import Axon, AxonRefused, ChainUnavailable, EmbeddedChain
from targon.transport import BadResponse, Refused
from tests.ledger.history import answered, head_anchored, inference, verdict, weights_set
from tests.transport.world import head, read_reply, send_raw
from tests.verifier.shop import (
    ME,
    NOBODY,
    OTHER,
    PROVER,
    ROUTES,
    STRANGER,
    VERIFIER,
    Shop,
    a_chain,
    a_shop,
    get,
    key,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
async def chain(tmp_path: Path) -> AsyncIterator[EmbeddedChain]:
    async with a_chain(tmp_path) as chain:
        yield chain


@pytest.fixture
async def shop(tmp_path: Path, chain: EmbeddedChain) -> AsyncIterator[Shop]:
    async with a_shop(tmp_path, chain) as shop:
        yield shop


# -- who is let in -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ROUTES)
async def test_an_unsigned_request_is_refused(shop: Shop, path: str):
    reply = await send_raw(shop.axon.port, head({}, method="GET", path=path))
    assert (reply.status, reply.code) == (401, "unsigned")


@pytest.mark.parametrize("path", ROUTES)
async def test_a_caller_without_a_uid_is_refused(shop: Shop, path: str):
    reply = await shop.get(path, NOBODY)
    assert (reply.status, reply.code) == (403, "not_registered")
    assert reply.error["got"] == NOBODY.ss58_address


@pytest.mark.parametrize("path", ROUTES)
async def test_a_replayed_request_is_refused(shop: Shop, path: str):
    request = get(path)
    assert (await send_raw(shop.axon.port, request)).status == 200
    reply = await send_raw(shop.axon.port, request)
    assert (reply.status, reply.code) == (401, "replayed")


@pytest.mark.parametrize("path", ROUTES)
async def test_another_method_is_refused_naming_the_one_that_is_served(shop: Shop, path: str):
    reply = await shop.get(path, method="PUT")
    assert (reply.status, reply.code, reply.headers["allow"]) == (405, "method_not_allowed", "GET")


async def test_a_request_for_another_verifier_is_refused(shop: Shop):
    reply = await shop.get("/v1/status", receiver=key(OTHER))
    assert reply.code == "wrong_receiver"


async def test_the_signature_covers_what_is_asked_for(shop: Shop):
    await shop.release()
    reply = await shop.get("/v1/log?start=1", signed_path="/v1/log?start=0")
    assert (reply.status, reply.code) == (401, "bad_signature")


@pytest.mark.parametrize("path", ["/v1/generate", "/v1/status?x=1", "/v1/standing?hotkey=5F", "/v1/log/"])
async def test_there_is_nothing_else(shop: Shop, path: str):
    reply = await shop.get(path)
    assert (reply.status, reply.code) == (404, "no_such_path")


async def test_the_liveness_probe_is_open(shop: Shop):
    reply = await send_raw(shop.axon.port, head({}, method="GET", path="/healthz"))
    assert (reply.status, reply.body) == (200, b'{"status":"ok"}')


async def test_who_registers_later_is_let_in_after_a_few_blocks(shop: Shop):
    assert (await shop.get("/v1/status", NOBODY)).status == 403
    await anyio.to_thread.run_sync(shop.chain.register, NOBODY)
    with anyio.fail_after(10):
        while (await shop.get("/v1/status", NOBODY)).status != 200:
            await anyio.sleep(0.1)


async def test_nobody_is_judged_by_a_chain_that_was_not_seen_for_long(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("targon.verifier.watch.MAX_AGE_S", -1.0)
    reply = await shop.get("/v1/status")
    assert (reply.status, reply.code) == (503, "chain_unavailable")
    assert int(reply.headers["retry-after"]) >= 1


# -- the verifier's status -----------------------------------------------------------------------------


async def test_a_verifier_says_what_it_verifies_and_how_far_its_log_is_released(shop: Shop):
    info = await shop.chain.info()
    before = await shop.client.verifier_status(shop.axon, ME, PROVER)
    assert (before.released, before.released_head, before.anchored) == (0, None, None)
    await shop.step(1)
    interval_head = shop.journal.standings.interval_head
    await shop.journal.append(head_anchored(0, interval_head, 2))
    released = await shop.release()
    with anyio.fail_after(10):
        while shop.watch.head < 3:
            await anyio.sleep(0.02)
    status = await shop.client.verifier_status(shop.axon, ME, PROVER)
    assert (status.hotkey, status.netuid, status.genesis) == (ME, info.netuid, info.genesis)
    assert status.software == f"targon {__version__}"
    assert [(model.name, model.model_digest) for model in status.models] == [("tiny", "d" * 64)]
    assert (status.interval, status.draining) == (1, False)
    assert status.anchored is not None
    assert (status.anchored.interval, status.anchored.block) == (0, 2)
    assert status.released == released < shop.journal.head.seq
    assert status.released_head == json.loads(shop.lines()[released - 1])["hash"]
    assert 3 <= status.block <= await shop.chain.block()


async def test_a_verifier_that_was_asked_to_stop_says_so(shop: Shop):
    shop.draining = True
    assert (await shop.client.verifier_status(shop.axon, ME, PROVER)).draining


async def test_a_verifier_is_no_prover_to_who_asks_it_as_one(shop: Shop):
    with pytest.raises(BadResponse, match="ProverStatus"):
        await shop.client.status(shop.axon, ME, PROVER)


# -- a prover's own standing ---------------------------------------------------------------------------


async def test_a_prover_is_told_how_it_stands_and_why(shop: Shop):
    await shop.step(1)
    await shop.step(2, outcome="fail", reason="3 of 64 tokens differ by more than noise")
    await shop.journal.append(weights_set({0: 65_535, 1: 7}, 3))
    told = await shop.client.standing(shop.axon, ME, PROVER)
    stands = shop.journal.standings.prover(key(PROVER))
    assert stands is not None
    assert (told.verifier, told.prover, told.uid, told.block) == (ME, key(PROVER), 0, 2)
    assert (told.tier, told.attempts, told.successes, told.success_rate) == ("Bronze", 2, 1, 0.5)
    assert (told.sent, told.requests_left, told.total_successes) == (2, 498, 1)
    assert told.score == stands.score > 0
    assert (told.verified_tokens, told.on_probation, told.probation_tokens) == (64, False, 64)
    assert told.last_verdict is not None
    assert (told.last_verdict.outcome, told.last_verdict.reason) == (
        "fail",
        "3 of 64 tokens differ by more than noise",
    )
    assert json.loads(shop.lines()[told.last_verdict.seq])["event"]["outcome"] == "fail"
    assert (told.weight, told.weights_block) == (65_535, 3)


async def test_a_prover_is_not_told_which_of_its_answers_are_audited(shop: Shop):
    async def serve(*, audited: bool) -> dict[str, Any]:
        """One of the verifier's own inferences, answered and judged; what changes of the standing meanwhile."""
        before = (await shop.client.standing(shop.axon, ME, PROVER)).model_dump()
        number = shop.journal.head.seq + 1
        asked = inference(key(PROVER), 1, route=None)
        await shop.journal.append(asked, answered(number, key(PROVER), audited=audited))
        between = (await shop.client.standing(shop.axon, ME, PROVER)).model_dump()
        if audited:
            await shop.journal.append(verdict(number))
        after = (await shop.client.standing(shop.axon, ME, PROVER)).model_dump()
        assert between == after
        numbers = (int, float)
        return {
            name: value - (before[name] or 0) if isinstance(value, numbers) else value
            for name, value in after.items()
        }

    await serve(audited=False)
    unaudited = await serve(audited=False)
    assert unaudited["successes"] == unaudited["attempts"] == 1
    assert await serve(audited=True) == unaudited


async def test_each_is_told_its_own_standing_alone(shop: Shop):
    await shop.step(1, OTHER)
    first = await shop.client.standing(shop.axon, ME, PROVER)
    second = await shop.client.standing(shop.axon, ME, OTHER)
    assert (first.prover, first.attempts, first.last_verdict) == (key(PROVER), 0, None)
    assert (first.success_rate, first.weight, first.weights_block) == (None, None, None)
    assert (second.prover, second.attempts) == (key(OTHER), 1)
    assert key(OTHER) not in first.to_bytes().decode()


async def test_a_standing_tells_the_speeds_that_others_are_measured_by(shop: Shop):
    await shop.step(1, tokens_per_s=40.0)
    await shop.release()
    assert (await shop.client.standing(shop.axon, ME, PROVER)).medians == {"smollm2": 40.0}


async def test_who_never_was_a_prover_is_told_so(shop: Shop):
    with pytest.raises(Refused) as caught:
        await shop.client.standing(shop.axon, ME, STRANGER)
    assert (caught.value.status, caught.value.code) == (404, "not_a_prover")
    assert caught.value.got == STRANGER.ss58_address


# -- where it is announced -----------------------------------------------------------------------------


class Line:
    """The way to a chain, on which announcing fails while it is told to."""

    def __init__(self, chain: EmbeddedChain) -> None:
        self._chain = chain
        self.down = True

    async def serve_axon(self, *arguments: Any) -> None:
        if self.down:
            raise ChainUnavailable("the chain is down")
        await self._chain.serve_axon(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._chain, name)


async def announced(chain: EmbeddedChain) -> Axon | None:
    me = (await chain.metagraph()).by_hotkey(ME)
    assert me is not None
    return me.axon


async def until_announced(chain: EmbeddedChain, axon: Axon) -> None:
    with anyio.fail_after(10):
        while await announced(chain) != axon:
            await anyio.sleep(0.05)


async def test_a_verifier_announces_where_it_serves(shop: Shop):
    await until_announced(shop.chain, shop.axon)


async def test_the_address_that_is_given_is_announced(tmp_path: Path, chain: EmbeddedChain):
    async with a_shop(tmp_path, chain, external_host="192.0.2.7", external_port=9_999) as shop:
        assert shop.axon == Axon("192.0.2.7", 9_999)
        await until_announced(chain, shop.axon)


async def test_an_axon_that_the_chain_lost_is_announced_again(
    tmp_path: Path, chain: EmbeddedChain, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("targon.chain.announcing.REANNOUNCE_BLOCKS", 1)
    async with a_shop(tmp_path, chain) as shop:
        await until_announced(chain, shop.axon)
        await chain.serve_axon(VERIFIER, Axon("192.0.2.1", 1))
        await until_announced(chain, shop.axon)


async def test_a_verifier_that_cannot_announce_warns_and_serves(
    tmp_path: Path, chain: EmbeddedChain, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("targon.chain.announcing.FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr("targon.chain.announcing.REANNOUNCE_BLOCKS", 1)
    line = Line(chain)
    structlog.reset_defaults()
    with capture_logs() as logged:
        async with a_shop(tmp_path, chain, through=line) as shop:
            with anyio.fail_after(10):
                while not any(entry["event"] == "not_announced" for entry in logged):
                    await anyio.sleep(0.01)
            assert (await shop.get("/v1/status")).status == 200
            assert await announced(chain) is None
            line.down = False
            await until_announced(chain, shop.axon)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
async def test_listening_everywhere_asks_for_an_address_to_announce(
    tmp_path: Path, chain: EmbeddedChain, host: str
):
    with pytest.raises(AxonRefused, match=r"--axon\.external_ip"):
        async with a_shop(tmp_path, chain, host=host):
            raise AssertionError("it served")


async def test_asking_too_often_is_refused_saying_for_how_long(shop: Shop):
    async with await anyio.connect_tcp("127.0.0.1", shop.axon.port) as stream:
        for _ in range(1000):  # it is allowed 50, and 5 more each second
            await stream.send(get("/v1/status"))
            reply = await read_reply(stream)
            if reply.status != 200:
                break
    assert (reply.status, reply.code) == (429, "too_many_requests")
    assert reply.headers["retry-after"] == "1"
    assert (await shop.get("/v1/status", OTHER)).status == 200, "it is each hotkey's own allowance"
