"""What is kept of what was said: encrypted, bounded, and deleted with its verdict."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from random import Random

import pytest

from targon.protocol.audits import OWN_PER_INTERVAL
from targon.protocol.messages import ChatMessage, Completion
from targon.protocol.schedule import INTERVAL_BLOCKS
from targon.verifier import VerifierSettings
from targon.verifier.retained import (
    FILE,
    KEY_FILE,
    OWN_BLOCKS,
    OWN_BYTES,
    Content,
    ContentUnreadable,
    Retained,
)
from tests.verification.answers import signed, tiny_request

pytestmark = pytest.mark.anyio


SECRET_WORDS = "the heron stands in the reeds at dusk"


def content(number: int, block: int = 77) -> Content:
    asked = (ChatMessage(role="user", content=SECRET_WORDS),)
    request = tiny_request(number).model_copy(update={"messages": asked, "block": block})
    completion = Completion(
        salt="05" * 32,
        request_digest=request.digest(),
        token_ids=tuple(range(1, 13)),
        finish_reason="length",
        text="abcdefghijkl",
    )
    return Content(request=request, response=signed(request, completion), tokens_per_s=12.5)


def everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir() if path.name != KEY_FILE)


@pytest.fixture
def retained(tmp_path: Path) -> Generator[Retained]:
    opened = Retained.open(tmp_path)
    yield opened
    opened.close()


async def test_what_is_kept_comes_back_also_after_a_restart(retained: Retained, tmp_path: Path) -> None:
    await retained.keep(content(7), own=False)
    kept = await retained.get(7)
    assert kept is not None
    assert kept.request == content(7).request
    assert await retained.get(8) is None
    retained.close()
    again = Retained.open(tmp_path)
    assert await again.get(7) == kept
    again.close()


async def test_nothing_readable_lies_in_the_files(retained: Retained, tmp_path: Path) -> None:
    for number in range(20):
        await retained.keep(content(number), own=bool(number % 2))
    stored = everything_in(tmp_path)
    assert len(stored) > 4_096
    for text in (SECRET_WORDS, content(3).response.completion.text, content(3).request.prover):
        assert text.encode() not in stored


async def test_key_and_content_are_readable_by_their_owner_only(retained: Retained, tmp_path: Path) -> None:
    for name in (KEY_FILE, FILE):
        assert (tmp_path / name).stat().st_mode & 0o077 == 0


async def test_a_users_content_is_deleted_with_its_verdict_and_ones_own_stays(retained: Retained) -> None:
    await retained.keep(content(1), own=False)
    await retained.keep(content(2), own=True)
    await retained.forget(1)
    await retained.forget(2)
    assert await retained.get(1) is None
    assert [kept.attempt for kept in retained.own()] == [2]


async def test_what_a_crash_left_of_users_is_deleted(retained: Retained) -> None:
    for number in range(6):
        await retained.keep(content(number), own=number == 5)
    await retained.forget_all_but([2, 4])
    found = [number for number in range(6) if await retained.get(number) is not None]
    assert found == [2, 4, 5]


def own_attempts(retained: Retained) -> list[int]:
    return [kept.attempt for kept in retained.own()]


async def test_of_ones_own_what_is_too_old_goes_and_a_users_stays(retained: Retained) -> None:
    await retained.keep(content(0, block=5), own=False)
    for number, block in ((1, 10), (2, 11), (3, 11 + OWN_BLOCKS), (4, 12 + OWN_BLOCKS)):
        await retained.keep(content(number, block=block), own=True)
        if number == 3:
            assert own_attempts(retained) == [2, 3]
    assert own_attempts(retained) == [3, 4]
    assert await retained.get(0) is not None, "a user's is not pushed out"


async def test_of_ones_own_the_oldest_go_where_there_is_too_much_also_after_a_restart(
    retained: Retained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await retained.keep(content(0), own=True)
    one = retained._own_bytes
    monkeypatch.setattr("targon.verifier.retained.OWN_BYTES", 4 * one)
    for number in range(1, 10):
        await retained.keep(content(number), own=True)
    before = own_attempts(retained)
    assert before in ([6, 7, 8, 9], [7, 8, 9]), "sealed, they differ by some bytes"
    retained.close()
    again = Retained.open(tmp_path)
    await again.keep(content(10), own=True)
    await again.keep(content(10), own=True)
    assert own_attempts(again)[-1] == 10
    assert len(own_attempts(again)) in (3, 4)
    stored = again._db.execute("SELECT SUM(LENGTH(sealed)) FROM content").fetchone()[0]
    assert again._own_bytes == stored <= 4 * one
    again.close()


async def test_what_is_unreadable_of_ones_own_keeps_nothing_from_being_kept(
    retained: Retained, monkeypatch: pytest.MonkeyPatch
) -> None:
    await retained.keep(content(1), own=True)
    retained._db.execute("UPDATE content SET attempt = 0")
    retained._oldest = None
    await retained.keep(content(2), own=True)
    assert await retained.get(2) is not None
    # room for one: no two sealed answers need be of one size
    monkeypatch.setattr("targon.verifier.retained.OWN_BYTES", retained._own_bytes * 3 // 4)
    await retained.keep(content(2), own=True)
    assert own_attempts(retained) == [2]


def test_all_of_an_intervals_own_work_fits_for_as_long_as_it_is_to_stay(retained: Retained) -> None:
    random = Random(7)
    words = " ".join("".join(random.choices("etaoinshrdlu", k=6)) for _ in range(500))
    settings = VerifierSettings()
    asked = (ChatMessage(role="user", content=words),)
    request = tiny_request(1).model_copy(update={"messages": asked})
    completion = Completion(
        salt="05" * 32,
        request_digest=request.digest(),
        token_ids=tuple(random.randrange(50_000) for _ in range(settings.max_tokens)),
        logprobs=tuple(-random.random() for _ in range(settings.max_tokens)),
        finish_reason="length",
        text=words[: 4 * settings.max_tokens],
    )
    long = Content(request=request, response=signed(request, completion), tokens_per_s=12.5)
    in_an_interval = settings.sample_size * INTERVAL_BLOCKS + OWN_PER_INTERVAL * 256
    intervals = OWN_BLOCKS / INTERVAL_BLOCKS
    assert len(retained._seal(1, long)) * in_an_interval * intervals < OWN_BYTES


async def test_readers_read_beside_the_writer_and_change_nothing(retained: Retained, tmp_path: Path) -> None:
    await retained.keep(content(3), own=True)
    reader = Retained.open(tmp_path, read_only=True)
    (kept,) = reader.own()
    assert (kept.attempt, kept.request) == (3, content(3).request)
    assert kept.response.completion.token_ids == content(3).response.completion.token_ids
    reader.close()


async def test_another_key_opens_nothing_and_says_what_to_do(retained: Retained, tmp_path: Path) -> None:
    await retained.keep(content(3), own=True)
    retained.close()
    (tmp_path / KEY_FILE).write_bytes(bytes(32))
    other = Retained.open(tmp_path)
    with pytest.raises(ContentUnreadable, match="restore the two together"):
        await other.get(3)
    with pytest.raises(ContentUnreadable):
        list(other.own())
    other.close()


async def test_content_moved_to_another_attempt_is_not_believed(retained: Retained) -> None:
    await retained.keep(content(3), own=True)
    retained._db.execute("UPDATE content SET attempt = 4")
    with pytest.raises(ContentUnreadable, match="attempt 4"):
        await retained.get(4)


def test_a_damaged_key_is_told(tmp_path: Path) -> None:
    (tmp_path / KEY_FILE).write_bytes(b"short")
    with pytest.raises(ContentUnreadable, match="got 5 bytes, expected 32"):
        Retained.open(tmp_path)


def test_where_there_is_nothing_to_read_that_is_told(tmp_path: Path) -> None:
    with pytest.raises(ContentUnreadable, match="expected a verifier's data folder"):
        Retained.open(tmp_path, read_only=True)
