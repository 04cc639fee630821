"""What an oracle gives to whom, over real HTTP, and what it refuses, by name."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from targon.chain import Axon
from targon.cli.commands.oracle import settings_of, shown_source
from targon.cli.oracle_options import OracleOptions
from targon.oracle.errors import FolderTaken
from targon.oracle.reference import PATH
from targon.oracle.settings import OracleSettings
from targon.protocol.disclosures import OracleStatus
from targon.protocol.private_inputs import (
    NO_COMMITMENT,
    Tree,
    check_commitment,
    check_input,
    deal,
    leaf_hash,
    salt_of,
    secret_digest,
)
from targon.protocol.references import ReferenceAnswer, ReferenceTask, check_reference
from targon.transport import Allowance, Limits, NeuronClient, Refused
from tests.oracle.service_world import (
    ALICE,
    BOB,
    GENESIS,
    LATE,
    NETUID,
    ORACLE,
    STRANGER,
    WAIT_S,
    Place,
    ToldChain,
    ToldSupply,
    a_get,
    an_oracle,
    hash_of,
    key,
)
from tests.tiny_engine import TinyEngine
from tests.transport.world import send_raw

pytestmark = pytest.mark.anyio

ASK = "/v1/private-input?place=0"


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with an_oracle(tmp_path) as place:
        await place.begun()
        await place.until_status(200)
        yield place


async def revealed(place: Place, number: int) -> tuple[int, list[dict[str, Any]]]:
    """Status, and the lines of a reveal."""

    def read() -> tuple[int, list[dict[str, Any]]]:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{place.port}/v1/reveals/{number}", timeout=10
        ) as reply:
            return reply.status, [json.loads(line) for line in reply]

    return await anyio.to_thread.run_sync(read)


# -- what is given -------------------------------------------------------------------------------------


async def test_each_place_has_a_private_input_of_its_own_that_was_committed_to(place: Place) -> None:
    body = (await place.committed(0)).body
    dealt = deal(body, hash_of(body.first))
    texts = set()
    for block in range(body.first, body.last + 1):
        place.chain.head = block
        for who in (ALICE, BOB):
            for number in range(body.places):
                given = await place.given(who, number, block)
                assert (given.body.block, given.body.place) == (block, number)
                check_input(given, body, verifier=key(who), dealt=dealt)
                texts.add(given.body.text)
    assert len(texts) == body.leaves


async def test_asked_again_in_the_block_it_gives_the_same_bytes(place: Place) -> None:
    first = await place.ask(ALICE, 1)
    assert (await place.ask(ALICE, 1)).body == first.body
    place.chain.head += 1
    assert (await place.given(ALICE, 1, place.chain.head)).body.text not in first.body.decode()


async def test_without_a_block_it_is_the_newest_s(place: Place) -> None:
    place.chain.head += 1
    with anyio.fail_after(WAIT_S):
        while (await place.given(ALICE)).body.block != place.chain.head:
            await anyio.sleep(0.01)


async def test_commitments_follow_one_another_and_come_two_blocks_before(tmp_path: Path) -> None:
    async with an_oracle(tmp_path, places=1, period_blocks=6) as place:
        seen: dict[int, int] = {}
        for block in range(100, 150):
            await place.reach(block)
            for commitment in await place.commitments(len(seen)):
                seen.setdefault(commitment.body.number, block)
        made = await place.commitments()
    assert len(made) > 5
    assert made[0].body.previous == NO_COMMITMENT
    for before, after in zip([None, *made], made, strict=False):
        check_commitment(after, before.body if before else None)
        assert after.body.first >= seen[after.body.number] + 2
        assert before is None or after.body.first == before.body.last + 1
        assert after.body.last // 6 == after.body.first // 6
        assert after.body.verifiers == tuple(sorted([key(ALICE), key(BOB)]))


async def test_commitments_need_no_signature_and_come_from_a_number_on(place: Place) -> None:
    place.chain.head = (await place.committed(0)).body.last
    await place.committed(1)
    numbers = [each.body.number for each in await place.commitments(1)]
    assert numbers[0] == 1
    assert await place.commitments(1_000) == []


async def test_what_is_revealed_is_what_was_committed_to(place: Place) -> None:
    body = (await place.committed(0)).body
    given = await place.given(ALICE)
    for block in (body.last, body.last + 5):
        place.chain.head = block
        refused = await place.get("/v1/reveals/0")
        assert (refused.status, refused.code) == (409, "not_revealed")
        assert int(refused.headers["retry-after"]) >= 12
    place.chain.head = body.last + 6
    with anyio.fail_after(WAIT_S):
        while (await place.get("/v1/reveals/0", method="GET")).status != 200:
            await anyio.sleep(0.01)
    _, (head, *lines) = await revealed(place, 0)
    assert (head["number"], head["commitment"]) == (0, body.digest())
    secret = bytes.fromhex(head["secret"])
    assert secret_digest(secret) == body.secret
    leaves = b"".join(
        leaf_hash(salt_of(secret, leaf), line["text"], line["source"]) for leaf, line in enumerate(lines)
    )
    assert Tree(leaves).root == body.root
    assert lines[given.body.leaf]["text"] == given.body.text


async def test_it_says_of_itself_what_it_has(place: Place) -> None:
    status = OracleStatus.from_bytes((await place.get("/v1/status")).body)
    body = (await place.committed(0)).body
    assert (status.hotkey, status.netuid, status.source) == (key(ORACLE), 4, "told")
    assert (status.periods[0].first, status.periods[0].last) == (body.first, body.last)
    assert (await place.get("/healthz")).status == 200


async def test_started_again_in_a_block_it_gives_the_same_and_commits_to_nothing_else(tmp_path: Path) -> None:
    chain, supply = ToldChain(), ToldSupply()
    async with an_oracle(tmp_path, chain, supply) as place:
        await place.begun()
        await place.until_status(200)
        first = [await place.given(who, number) for who in (ALICE, BOB) for number in range(3)]
        await place.committed(1)
        commitments = await place.commitments()
    async with an_oracle(tmp_path, chain, supply) as place:
        await place.until_status(200)
        again = [await place.given(who, number) for who in (ALICE, BOB) for number in range(3)]
        assert [one.body for one in again] == [one.body for one in first]
        assert await place.commitments() == commitments


# -- what is refused -----------------------------------------------------------------------------------


async def test_an_unsigned_request_is_refused(place: Place) -> None:
    reply = await place.get(ASK)
    assert (reply.status, reply.code) == (401, "unsigned")


async def test_who_has_no_uid_is_refused(place: Place) -> None:
    reply = await place.ask(STRANGER)
    assert (reply.status, reply.code) == (403, "not_registered")


async def test_who_has_no_permit_is_refused(place: Place) -> None:
    reply = await place.ask(LATE)
    assert (reply.status, reply.code) == (403, "no_validator_permit")


async def test_a_replayed_request_is_refused(place: Place) -> None:
    request = a_get(ASK, ALICE)
    assert (await send_raw(place.port, request)).status == 200
    reply = await send_raw(place.port, request)
    assert (reply.status, reply.code) == (401, "replayed")


async def test_an_old_signature_is_refused(place: Place) -> None:
    reply = await place.get(ASK, ALICE, nonce_ns=time.time_ns() - 60 * 10**9)
    assert (reply.status, reply.code) == (401, "stale_nonce")


async def test_a_request_for_another_receiver_is_refused(place: Place) -> None:
    reply = await place.get(ASK, ALICE, receiver=key(BOB))
    assert (reply.status, reply.code) == (401, "wrong_receiver")


async def test_the_signature_covers_the_place(place: Place) -> None:
    reply = await place.get("/v1/private-input?place=1", ALICE, signed_path=ASK)
    assert (reply.status, reply.code) == (401, "bad_signature")


@pytest.mark.parametrize(
    "query",
    [
        *(
            "",
            "?place=",
            "?place=-1",
            "?place=01",
            "?place=0&block=",
            "?place=0&block=1e3",
            "?block=104",
        ),
        *("?place=0&place=1", "?place=0&x=1", "?place=0&block=0104", f"?place={'9' * 40}", "?place=%30"),
    ],
)
async def test_another_question_is_refused(place: Place, query: str) -> None:
    reply = await place.get(f"/v1/private-input{query}", ALICE)
    assert (reply.status, reply.code) == (400, "malformed_request")


async def test_a_place_that_nobody_has_is_refused(place: Place) -> None:
    for number in (3, 255, 999_999_999):
        reply = await place.ask(ALICE, number)
        assert (reply.status, reply.code) == (404, "no_such_place")
        assert reply.error["expected"] == "0 to 2"


async def test_a_block_that_is_over_is_refused_naming_the_newest(place: Place) -> None:
    head = place.chain.head
    reply = await place.ask(ALICE, block=head - 1)
    assert (reply.status, reply.code) == (410, "block_gone")
    assert reply.error["expected"] == f"{head}, our newest block"


async def test_a_block_that_is_to_come_is_refused_saying_when(place: Place) -> None:
    reply = await place.ask(ALICE, block=place.chain.head + 3)
    assert (reply.status, reply.code) == (409, "block_not_yet")
    assert int(reply.headers["retry-after"]) >= 36


async def test_who_sees_a_block_first_has_its_answer_when_it_comes(place: Place) -> None:
    head = place.chain.head
    async with anyio.create_task_group() as tasks:

        async def turn() -> None:
            await anyio.sleep(0.2)
            place.chain.head = head + 1

        tasks.start_soon(turn)
        given = await place.given(ALICE, block=head + 1)
    assert given.body.block == head + 1


async def test_who_asks_too_often_is_refused_and_nobody_else(tmp_path: Path) -> None:
    limits = Limits(per_hotkey=Allowance(per_second=0.5, burst=3, concurrent=4), max_body_bytes=0)
    async with an_oracle(tmp_path, limits=limits) as place:
        body = (await place.begun()).body
        await place.until_status(200, BOB)
        replies = [await place.ask(ALICE, block=body.first) for _ in range(5)]
        assert [reply.status for reply in replies] == [200, 200, 200, 429, 429]
        assert replies[-1].code == "too_many_requests"
        assert replies[-1].headers["retry-after"]


@pytest.mark.parametrize("path", [ASK, "/v1/commitments?from=0", "/v1/status", "/v1/reveals/0"])
async def test_a_body_is_refused(place: Place, path: str) -> None:
    request = a_get(path, ALICE).replace(b"\r\n\r\n", b"\r\nContent-Length: 1000000\r\n\r\n")
    reply = await send_raw(place.port, request)
    assert (reply.status, reply.code) == (413, "body_too_large")


async def test_headers_that_are_too_large_are_refused(place: Place) -> None:
    request = a_get(ASK, ALICE).replace(b"\r\n\r\n", b"\r\nX: " + b"x" * 16_300 + b"\r\n\r\n")
    assert (await send_raw(place.port, request)).status in (400, 431)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/v1/commitments", "malformed_request"),
        ("/v1/commitments?from=x", "malformed_request"),
        ("/v1/reveals/-1", "malformed_request"),
        ("/v1/reveals/99999999999999999", "malformed_request"),
        ("/v1/reveals/1000", "no_such_period"),
        ("/v1/reveals/0?x=1", "no_such_path"),
        ("/v1/reveals/", "malformed_request"),
        ("/v1/status?x", "no_such_path"),
        ("/v1/periods/0.secret", "no_such_path"),
        ("/v1/reveals/../periods/0.secret", "no_such_path"),
    ],
)
async def test_what_is_open_is_no_wider_than_it_says(place: Place, path: str, code: str) -> None:
    assert (await place.get(path)).code == code


async def test_who_gets_a_permit_has_a_place_in_the_next_period(tmp_path: Path) -> None:
    async with an_oracle(tmp_path) as place:
        body = (await place.begun()).body
        await place.settle()
        place.chain.permits.add(key(LATE))
        # the metagraph is read every few blocks
        await place.reach(body.first + 5)
        with anyio.fail_after(WAIT_S):
            while (reply := await place.ask(LATE)).code != "no_place":
                await anyio.sleep(0.01)
        assert reply.status == 403
        assert int(str(reply.error["expected"]).removeprefix("block ")) > place.chain.head
        known = len(await place.commitments())
        while not (made := await place.commitments(known)):
            await place.reach(place.chain.head + 1)
        assert key(LATE) in made[0].body.verifiers
        await place.reach(made[0].body.first)
        assert (await place.ask(LATE)).status == 200


async def test_who_loses_the_permit_is_refused(place: Place) -> None:
    place.chain.permits.remove(key(BOB))
    place.chain.head += 5
    reply = await place.until_status(403, BOB)
    assert reply.code == "no_validator_permit"


async def test_a_text_that_was_changed_on_disk_is_never_signed(tmp_path: Path) -> None:
    chain = ToldChain()
    async with an_oracle(tmp_path, chain) as place:
        await place.committed(0)
        for file in (tmp_path / "periods").glob("0.jsonl"):
            file.write_bytes(file.read_bytes().replace(b"no other", b"any other"[1:].ljust(8, b"!")))
        await place.begun()
        reply = await place.until_status(500)
        assert reply.code == "internal"


async def test_two_oracles_never_work_with_one_folder(tmp_path: Path, place: Place) -> None:
    with pytest.raises(ExceptionGroup) as group:
        async with an_oracle(tmp_path):
            raise AssertionError("it began")
    assert group.group_contains(FolderTaken)


async def test_old_texts_are_forgotten_when_they_need_not_be_kept(tmp_path: Path) -> None:
    async with an_oracle(tmp_path, kept_blocks=20, period_blocks=6) as place:
        await place.begun()
        for _ in range(60):
            await place.reach(place.chain.head + 1)
        reply = await place.get("/v1/reveals/0")
        assert (reply.status, reply.code) == (410, "reveal_gone")
        kept = {int(file.name.partition(".")[0]) for file in (tmp_path / "periods").iterdir()}
        assert 0 not in kept
        assert len(kept) < 9
        assert (await place.commitments())[0].body.number == 0


def test_the_command_line_has_the_role_s_defaults() -> None:
    told = settings_of(OracleOptions())
    assert told == OracleSettings(folder=told.folder)


def test_who_asks_is_told_no_secret_of_where_the_text_comes_from() -> None:
    assert shown_source("redpajama:https://example.org/a.jsonl") == "redpajama:https://example.org/a.jsonl"
    assert shown_source("redpajama:./text?") == "redpajama:./text?"
    for secret in ("https://user:hunter2@example.org/a.jsonl", "https://example.org/a.jsonl?token=hunter2"):
        assert "hunter2" not in shown_source(f"redpajama:{secret}")


def test_the_limits_let_a_verifier_ask_for_all_its_places_at_once() -> None:
    settings = OracleSettings(folder=Path())
    assert settings.limits.per_hotkey.burst >= 256
    assert settings.limits.per_hotkey.concurrent >= 256
    assert settings.limits.max_connections >= 1_000


async def test_what_needs_no_signature_has_limits_of_its_own(tmp_path: Path) -> None:
    limits = Limits(per_open_address=Allowance(per_second=0.01, burst=3, concurrent=4), max_body_bytes=0)
    async with an_oracle(tmp_path, limits=limits) as place:
        statuses = [(await place.get("/v1/status")).status for _ in range(5)]
        assert statuses == [200, 200, 200, 429, 429]
        assert (await place.ask(STRANGER)).code == "not_registered"


async def test_an_oracle_with_an_engine_lends_it_to_whoever_may_ask_and_says_for_which_model(
    tmp_path: Path,
) -> None:
    async with an_oracle(tmp_path, engine=TinyEngine()) as place, NeuronClient(tls="off") as client:
        status = OracleStatus.from_bytes((await place.get("/v1/status")).body)
        assert status.model is not None
        assert status.model.name == "tiny"
        task = ReferenceTask(kind="identity")
        at = Axon("127.0.0.1", place.port)
        told = await client.post(at, PATH, task.to_bytes(), key(ORACLE), ALICE, max_bytes=65_536)
        answer = ReferenceAnswer.from_bytes(told)
        check_reference(answer, task, genesis=GENESIS, netuid=NETUID, oracle=key(ORACLE), verifier=key(ALICE))
        assert answer.statement.body.block == place.chain.head
        with pytest.raises(Refused, match="not_registered"):
            await client.post(at, PATH, task.to_bytes(), key(ORACLE), STRANGER, max_bytes=65_536)


async def test_an_oracle_without_an_engine_lends_none(place: Place) -> None:
    async with NeuronClient(tls="off") as client:
        with pytest.raises(Refused, match="no_such_path"):
            await client.post(
                Axon("127.0.0.1", place.port), PATH, b"{}", key(ORACLE), ALICE, max_bytes=65_536
            )
    assert OracleStatus.from_bytes((await place.get("/v1/status")).body).model is None
