"""Keys: what is kept of them, whom they let in, and what they may use."""

from __future__ import annotations

import sqlite3
import stat
from dataclasses import dataclass

import anyio
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from targon.gateway.accounts import Account, Bucket, Need
from targon.gateway.api import Bounds
from targon.gateway.errors import KeyFileBroken, NoSuchKey
from targon.gateway.keyring import KeyRing, require
from targon.gateway.keys import DAY_S, Allowed, Key, KeyFile, Usage, digest_of, looks_like_a_key
from targon.gateway.refusals import ApiError
from targon.transport import Clock
from tests.gateway.front_world import HELLO, MODEL, NOW, Script, a_front, chat, leave_after

pytestmark = pytest.mark.anyio

HI = [{"role": "user", "content": "Say hello."}]


@pytest.fixture
def file(tmp_path):
    opened = KeyFile(tmp_path / "keys.sqlite")
    yield opened
    opened.close()


@dataclass
class Hands:
    """Two clocks that a test turns."""

    s: float = float(NOW)

    def clock(self) -> Clock:
        return Clock(now_ns=lambda: int(self.s * 1e9), monotonic_s=lambda: self.s)


def test_a_key_is_kept_as_a_digest_alone(file, tmp_path):
    key, secret = file.create("joe", now=NOW)
    assert looks_like_a_key(secret)
    assert file.keys() == {digest_of(secret): key}
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert secret.encode() not in kept
    assert secret.removeprefix("tg-").encode() not in kept


def test_only_its_owner_can_read_the_file(file, tmp_path):
    file.create("joe", now=NOW)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


def test_two_keys_are_never_the_same(file):
    assert len({file.create("joe", now=NOW)[1] for _ in range(50)}) == 50


def test_a_key_is_revoked_by_id_or_by_a_name_that_is_one_s_alone(file):
    one, _ = file.create("joe", now=NOW)
    two, _ = file.create("joe", now=NOW)
    ann, _ = file.create("ann", now=NOW)
    with pytest.raises(NoSuchKey, match=f"several have that name: {one.id}, {two.id}"):
        file.revoke("joe", now=NOW + 1)
    with pytest.raises(NoSuchKey, match="'targon key list' names them"):
        file.revoke("bob", now=NOW + 1)
    assert file.revoke(one.id, now=NOW + 1).id == one.id
    assert file.revoke("ann", now=NOW + 1).id == ann.id
    file.revoke("ann", now=NOW + 9)
    assert [key.revoked_at for key in file.keys().values()] == [NOW + 1, None, NOW + 1]


def test_what_was_used_adds_up_by_day_and_outlives_the_process(tmp_path):
    path = tmp_path / "keys.sqlite"
    file = KeyFile(path)
    key, _ = file.create("joe", now=NOW)
    file.add({(key.id, 1): Usage(1, 2, 3), (key.id, 2): Usage(10, 20, 30)})
    file.add({(key.id, 2): Usage(100, 200, 300)})
    file.close()
    again = KeyFile(path)
    assert again.used(2) == {key.id: (Usage(110, 220, 330), Usage(111, 222, 333))}
    again.close()


@pytest.mark.parametrize("content", [b"no database at all" * 100, None])
def test_a_file_that_is_something_else_is_named(tmp_path, content):
    path = tmp_path / "keys.sqlite"
    if content is None:
        other = sqlite3.connect(path)
        other.execute("CREATE TABLE t (x)")
        other.commit()
        other.close()
    else:
        path.write_bytes(content)
    with pytest.raises(KeyFileBroken, match=r"keys\.sqlite"):
        KeyFile(path)


@pytest.mark.parametrize(
    ("header", "code", "message"),
    [
        (None, "missing_api_key", "no API key came"),
        ("", "missing_api_key", "no API key came"),
        ("Basic abc", "invalid_api_key", "another form"),
        ("Bearer", "invalid_api_key", "another form"),
        ("Bearer sk-abc", "invalid_api_key", "this is no API key of this gateway"),
        ("Bearer tg-" + "a" * 43, "invalid_api_key", "is not known here"),
        ("Bearer tg-" + "\xe9" * 43, "invalid_api_key", "this is no API key of this gateway"),
    ],
)
def test_who_brings_no_good_key_is_told_what_is_wrong_with_it(file, header, code, message):
    file.create("joe", now=NOW)
    with pytest.raises(ApiError, match=message) as caught:
        KeyRing(file).account(header)
    assert (caught.value.status, caught.value.code) == (401, code)
    assert "aaa" not in str(caught.value)


def test_a_key_that_was_revoked_or_has_expired_lets_nobody_in(file):
    hands = Hands()
    _, revoked = file.create("ann", now=NOW)
    file.revoke("ann", now=NOW)
    _, expiring = file.create("joe", now=NOW, expires_at=NOW + 10)
    ring = KeyRing(file, clock=hands.clock())
    with pytest.raises(ApiError, match="was revoked") as caught:
        ring.account(f"Bearer {revoked}")
    assert caught.value.code == "revoked_api_key"
    assert ring.account(f"Bearer {expiring}").name == "joe"
    hands.s += 10
    with pytest.raises(ApiError, match="has expired") as caught:
        ring.account(f"bearer {expiring}")
    assert caught.value.code == "expired_api_key"


async def test_a_running_gateway_learns_of_a_key_and_of_its_end_within_seconds(tmp_path):
    async with a_front(tmp_path) as world:
        other = KeyFile(tmp_path / "keys.sqlite")
        key, secret = other.create("late", now=NOW)
        await world.ring.keep_up()
        async with world.client(secret) as client:
            await client.chat.completions.create(model=MODEL, messages=HI)
            other.revoke(key.id, now=NOW + 1)
            other.close()
            await world.ring.keep_up()
            with pytest.raises(openai.AuthenticationError, match="was revoked"):
                await client.chat.completions.create(model=MODEL, messages=HI)


async def test_keys_stay_as_they_are_while_their_file_can_t_be_read(tmp_path):
    async with a_front(tmp_path) as world:
        broken = sqlite3.connect(tmp_path / "keys.sqlite")
        broken.execute("UPDATE keys SET models = 'no json'")
        broken.commit()
        broken.close()
        await world.ring.keep_up()
        assert (await world.post(chat()))[0] == 200


def test_a_key_reaches_no_further_than_its_scope_and_models(file):
    _, reading = file.create("reader", now=NOW, scopes=["receipts"])
    _, asking = file.create("asker", now=NOW, scopes=["inference"], models=["a", "b"])
    ring = KeyRing(file)
    reader, asker = ring.account(f"Bearer {reading}"), ring.account(f"Bearer {asking}")
    require(reader, "receipts")
    require(asker, "inference", "a")
    for account, scope, model, message in (
        (reader, "inference", None, "not for inference; it is for receipts"),
        (asker, "receipts", None, "not for receipts"),
        (asker, "inference", "c", "not for the model 'c'"),
    ):
        with pytest.raises(ApiError, match=message) as caught:
            require(account, scope, model)
        assert caught.value.status == 403


async def test_scopes_hold_over_http(tmp_path):
    async with a_front(tmp_path) as world:
        _, reading = world.file.create("reader", now=NOW, scopes=["receipts"])
        _, asking = world.file.create("asker", now=NOW, scopes=["inference"], models=["other"])
        await world.ring.keep_up()
        world.ring._version = -1  # the file was written by this process, whose own writes it doesn't look for
        await world.ring.keep_up()
        async with world.client(reading) as client:
            with pytest.raises(openai.PermissionDeniedError, match="not for inference"):
                await client.chat.completions.create(model=MODEL, messages=HI)
        async with world.client(asking) as client:
            with pytest.raises(openai.PermissionDeniedError, match="not for the model"):
                await client.chat.completions.create(model=MODEL, messages=HI)
            with pytest.raises(openai.PermissionDeniedError, match="not for receipts"):
                await client.get(f"/receipts/{'0' * 64}", cast_to=object)


async def test_an_open_gateway_serves_whoever_asks(tmp_path):
    async with a_front(tmp_path, open_to_all=True) as world:
        status, headers, _ = await world.post(chat(), authorization="")
        other, _, _ = await world.post(chat(), authorization="Bearer whatever")
    assert (status, other) == (200, 200)
    assert not [name for name in headers if name.startswith("x-ratelimit")]


# -- limits ------------------------------------------------------------------------------------------------


async def test_too_many_requests_a_minute_are_told_when_to_come_back(tmp_path):
    allowed = Allowed(requests_per_minute=2, tokens_per_minute=0, concurrent=0)
    async with a_front(tmp_path, allowed=allowed) as world:
        replies = [await world.post(chat()) for _ in range(3)]
    assert [status for status, _, _ in replies] == [200, 200, 429]
    _, headers, reply = replies[-1]
    assert 25 <= int(headers["retry-after"]) <= 30
    assert (reply["error"]["code"], reply["error"]["type"]) == ("rate_limit_exceeded", "requests")
    assert [headers["x-ratelimit-remaining-requests"] for _, headers, _ in replies] == ["1", "0", "0"]
    assert headers["x-ratelimit-limit-requests"] == "2"
    assert 50 < float(headers["x-ratelimit-reset-requests"].removesuffix("s")) <= 60


async def test_tokens_are_reserved_by_the_longest_answer_and_corrected_by_the_real_one(tmp_path):
    allowed = Allowed(requests_per_minute=0, tokens_per_minute=1000, concurrent=0)
    async with a_front(tmp_path, allowed=allowed) as world:
        first = await world.post(chat(max_tokens=900))
        second = await world.post(chat(max_tokens=900))
        third = await world.post(chat(max_tokens=990))
        fourth = await world.post(chat(max_tokens=1001))
    assert [first[0], second[0], third[0], fourth[0]] == [200, 200, 429, 400]
    # seven tokens of prompt and three of answer each
    assert [int(reply[1]["x-ratelimit-remaining-tokens"]) for reply in (first, second)] == [990, 980]
    assert (third[2]["error"]["code"], third[2]["error"]["type"]) == ("rate_limit_exceeded", "tokens")
    assert (fourth[2]["error"]["code"], fourth[2]["error"]["param"]) == ("tokens_above_limit", "max_tokens")


async def test_requests_at_once_are_limited_and_let_go(tmp_path):
    allowed = Allowed(requests_per_minute=0, tokens_per_minute=0, concurrent=1)
    hold = anyio.Event()
    script = Script(before=hold.wait)
    async with a_front(tmp_path, script, allowed=allowed) as world:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(world.post, chat())
            while not script.orders:
                await anyio.sleep(0.01)
            status, headers, reply = await world.post(chat())
            hold.set()
        after, _, _ = await world.post(chat())
    assert (status, headers["retry-after"], after) == (429, "1", 200)
    assert "1 requests of this key are running" in reply["error"]["message"]


@pytest.mark.parametrize("limit", ["daily_tokens", "total_tokens"])
async def test_a_quota_that_is_used_up_is_said_so_and_isn_t_tried_again(tmp_path, limit):
    allowed = Allowed(requests_per_minute=0, tokens_per_minute=0, concurrent=0, **{limit: 150})
    async with a_front(tmp_path, allowed=allowed) as world, world.client(max_retries=3) as client:
        await client.chat.completions.create(model=MODEL, messages=HI, max_tokens=30)
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(model=MODEL, messages=HI, max_tokens=30)
    assert caught.value.code == "insufficient_quota"
    assert ("retry-after" in caught.value.response.headers) == (limit == "daily_tokens")
    assert world.count("targon_gateway_requests_total", route="/v1/chat/completions", status="429") == 1


async def test_what_was_used_is_in_the_file_when_the_gateway_has_ended(tmp_path):
    async with a_front(tmp_path) as world:
        await world.post(chat())
        await world.post(chat(n=2))
        await world.post(chat(tools=[{}]))
    file = KeyFile(tmp_path / "keys.sqlite")
    (used,) = [ever for _, ever in file.used(0).values()]
    file.close()
    assert used == Usage(requests=2, prompt_tokens=14, completion_tokens=9)


async def test_who_leaves_pays_for_what_had_come(tmp_path):
    script = Script(pieces=[*HELLO, anyio.sleep_forever])
    async with a_front(tmp_path, script, bounds=Bounds(left_s=0.2)) as world, world.client() as client:
        await leave_after(client, "lo", script)
    assert world.count("targon_gateway_tokens_total", kind="completion") == 3


def a_key(**allowed: int) -> Key:
    unlimited = {"requests_per_minute": 0, "tokens_per_minute": 0, "concurrent": 0}
    return Key(
        id="key_1",
        name="joe",
        scopes=frozenset({"inference"}),
        models=frozenset(),
        allowed=Allowed(**(unlimited | allowed)),
        created_at=NOW,
        expires_at=None,
        revoked_at=None,
    )


def test_a_daily_quota_begins_anew_at_midnight():
    hands = Hands(s=float(DAY_S * 20_000 + DAY_S - 100))
    account = Account(a_key(daily_tokens=10), monotonic_s=lambda: hands.s, today=20_000)
    account.reserve(Need(5, 10), now_s=hands.s)
    account.settle(Need(5, 10), 10)
    with pytest.raises(ApiError) as caught:
        account.reserve(Need(1, 1), now_s=hands.s)
    assert caught.value.retry_after_s == 100
    hands.s += 100
    account.reserve(Need(10, 10), now_s=hands.s)


@settings(max_examples=200, deadline=None)
@given(
    limit=st.integers(1, 1000),
    steps=st.lists(st.tuples(st.floats(0, 30), st.integers(0, 200), st.integers(0, 200)), max_size=40),
)
def test_no_more_is_let_in_than_the_limit_earns(limit, steps):
    hands = Hands(s=0.0)
    bucket = Bucket(limit, lambda: hands.s)
    taken = 0.0
    for wait_s, amount, back in steps:
        hands.s += wait_s
        if bucket.left >= amount:
            bucket.take(amount)
            returned = min(back, amount)
            bucket.take(-returned)
            taken += amount - returned
        elif amount <= limit:
            wait = bucket.seconds_until(amount)
            assert wait > 0
    assert taken <= limit + hands.s * limit / 60 + 1e-6
    assert bucket.left <= limit


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=30), st.integers(1, 200))
def test_reservations_never_exceed_a_quota_together(requests, quota):
    account = Account(a_key(total_tokens=quota), monotonic_s=lambda: 0.0, today=0)
    open_reservations: list[tuple[int, int]] = []
    promised = used = 0
    for wanted, real in requests:
        try:
            account.reserve(Need(wanted // 4, wanted), now_s=0.0)
        except ApiError:
            if open_reservations:
                reserved, spent = open_reservations.pop()
                account.settle(Need(reserved // 4, reserved), spent)
                promised -= reserved
                used += spent
            continue
        open_reservations.append((wanted, min(real, wanted)))
        promised += wanted
        assert used + promised <= quota


def test_looks_at_once_are_limited_and_let_go():
    account = Account(a_key(concurrent=1), monotonic_s=lambda: 0.0, today=0)
    with account.looking():
        account.admit()
        with pytest.raises(ApiError, match="1 looks of this key"), account.looking():
            pass
    with account.looking():
        pass


def test_a_change_of_the_file_gives_nobody_a_minute_anew():
    key = a_key(requests_per_minute=1)
    account = Account(key, monotonic_s=lambda: 0.0, today=0)
    account.admit()
    account.renew(key, today=0, used=(Usage(), Usage()))
    with pytest.raises(ApiError, match="1 requests a minute"):
        account.admit()


def test_what_could_not_be_counted_keeps_nothing_from_being_counted(file):
    with pytest.raises(OverflowError):
        file.add({("key_1", 0): Usage(requests=2**64)})
    key, _ = file.create("joe", now=NOW)
    file.add({(key.id, 0): Usage(requests=1)})
    assert file.used(0)[key.id][1] == Usage(requests=1)


class Hooked(KeyFile):
    """Calls something in the middle of a look at it, or fails to write."""

    before_version = staticmethod(lambda: None)
    broken = False

    def version(self):
        self.before_version()
        return super().version()

    def add(self, usage):
        if self.broken:
            raise KeyFileBroken("the disk is full")
        super().add(usage)


async def test_what_is_used_during_a_look_at_the_file_counts_at_once(tmp_path):
    file = Hooked(tmp_path / "keys.sqlite")
    _, secret = file.create("joe", now=NOW, allowed=Allowed(total_tokens=10))
    ring = KeyRing(file, clock=Hands().clock())
    account = ring.account(f"Bearer {secret}")
    file.before_version = lambda: ring.count(account, Usage(completion_tokens=7))
    other = KeyFile(tmp_path / "keys.sqlite")
    other.create("jane", now=NOW)
    other.close()
    await ring.keep_up()
    file.before_version = lambda: None
    assert account.room(Need(0, 0), now_s=NOW) <= 3
    await ring.aclose()


async def test_what_could_not_be_written_is_written_later(tmp_path):
    file = Hooked(tmp_path / "keys.sqlite")
    key, secret = file.create("joe", now=NOW)
    ring = KeyRing(file, clock=Hands().clock())
    ring.count(ring.account(f"Bearer {secret}"), Usage(completion_tokens=7))
    file.broken = True
    await ring.keep_up()
    file.broken = False
    await ring.keep_up()
    assert file.used(NOW // DAY_S)[key.id][0] == Usage(completion_tokens=7)
    await ring.aclose()
