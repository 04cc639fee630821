"""What an oracle needs of its own: text, a folder that is whole and nobody else's, and an address to be called at."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from bittensor.keyfiles import Keypair

from targon.chain import ChainSettings, EmbeddedChain
from targon.doctor import AxonPlace, Finding, OraclePlan
from targon.doctor.chain import Link
from targon.doctor.oracle import (
    check_address,
    check_book,
    check_lock,
    check_periods,
    check_served,
    check_source,
)
from targon.oracle import Passage
from targon.oracle.periods import PeriodFolder
from targon.protocol.primitives import Block, Hotkey
from targon.protocol.private_inputs import (
    NO_COMMITMENT,
    Commitment,
    CommitmentBody,
    commit,
    secret_digest,
)
from tests.doctor.looks import ANOTHER, OURS, look, only

pytestmark = pytest.mark.anyio

TEXT = (
    "The harbour was quiet when the first boats came home, and nobody on the quay had expected them so early. "
    "Their nets were nearly empty, which was the weather's fault, or so the oldest of the men said to his wife. "
    "She had lived beside the water all her life, and she knew better than to believe what he told her about it. "
    "In the afternoon the wind turned to the north, and what had been a grey morning became a bright, cold day. "
    "By evening everybody had forgotten the boats, because a letter had come which was read aloud in the inn."
)


def plan(folder: Path, source: str = "embedded") -> OraclePlan:
    return OraclePlan(source=source, allow_private=False, folder=folder, places=16, period_blocks=36)


@asynccontextmanager
async def a_link(folder: Path, *, block_seconds: float = 12.0) -> AsyncIterator[Link]:
    chain = EmbeddedChain.create(folder / "chain.sqlite", ChainSettings(block_seconds=block_seconds))
    try:
        yield Link(chain, await chain.info())
    finally:
        await chain.aclose()


# -- its source


def source(folder: Path, *texts: str) -> str:
    (folder / "text").mkdir(exist_ok=True)
    (folder / "text" / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return f"redpajama:{folder / 'text'}"


def test_a_source_of_prose_gives_passages(tmp_path: Path) -> None:
    finding = only(check_source(plan(tmp_path, source(tmp_path, TEXT)), public=True))
    assert finding.outcome == "good"
    assert "of 50 texts gave a passage" in finding.found
    assert not (tmp_path / "taken.sqlite").exists()


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (("1 2 3 4 5 6 7 " * 200,), "none of 50 texts gave a passage; refused:"),
        ((), "skipped"),
    ],
)
def test_a_source_without_prose_is_bad(tmp_path: Path, texts: Sequence[str], said: str) -> None:
    finding = only(check_source(plan(tmp_path, source(tmp_path, *texts)), public=True))
    assert finding.outcome == "bad"
    assert said in finding.found or not texts


@pytest.mark.parametrize(
    "spec",
    [
        "redpajama:nowhere",
        "crawl:nowhere",
        "live:nowhere.toml",
        "books",
        "redpajama:http://127.0.0.1:9/a.jsonl",
    ],
)
def test_a_source_that_is_not_there_is_bad(tmp_path: Path, spec: str) -> None:
    finding = only(check_source(plan(tmp_path, spec), public=False))
    assert (finding.outcome, "--oracle.source" in finding.advice) == ("bad", True)


def test_what_everybody_has_is_worth_a_note_where_it_counts(tmp_path: Path) -> None:
    outcomes = [only(check_source(plan(tmp_path), public=public)).outcome for public in (False, True)]
    assert outcomes == ["good", "note"]


def test_a_live_crawl_is_not_begun(tmp_path: Path) -> None:
    settings = tmp_path / "news.toml"
    settings.write_text(
        'contact = "someone@example.org"\nhosts = ["news.example.org"]\nseeds = ["https://news.example.org/"]\n'
    )
    before = sorted(tmp_path.iterdir())
    assert only(check_source(plan(tmp_path, f"live:{settings}"), public=True)).outcome == "good"
    assert sorted(tmp_path.iterdir()) == before


# -- who may ask, and where


async def test_a_network_where_nobody_may_ask_is_bad(tmp_path: Path) -> None:
    async with a_link(tmp_path) as link:
        before = await look(check_served(link, plan(tmp_path)))
        assert isinstance(link.chain, EmbeddedChain)
        link.chain.register(ANOTHER)
        link.chain.add_stake(ANOTHER, 100.0)
        after = await look(check_served(link, plan(tmp_path)))
    assert [before.outcome, after.outcome] == ["bad", "good"]
    assert "1 with a validator permit: with 16 places each" in after.found
    assert "takes 576 passages" in after.found


@pytest.mark.parametrize(
    ("host", "tls", "public", "outcome", "url"),
    [
        ("127.0.0.1", "auto", False, "good", "http://127.0.0.1:8093"),
        ("127.0.0.1", "auto", True, "note", "http://127.0.0.1:8093"),
        ("192.0.2.7", "auto", True, "good", "https://192.0.2.7:8093"),
        ("192.0.2.7", "off", True, "note", "http://192.0.2.7:8093"),
        ("2001:db8::7", "on", True, "good", "https://[2001:db8::7]:8093"),
        ("0.0.0.0", "auto", True, "good", "https://ADDRESS:8093"),
        ("oracle.example.org", "auto", True, "bad", "expected an IP address"),
    ],
)
async def test_it_says_what_verifiers_are_to_be_told(
    host: str, tls: str, public: bool, outcome: str, url: str
) -> None:
    place = AxonPlace(role="oracle", host=host, port=8093, tls=tls)  # type: ignore[arg-type]  # one of its words
    finding = await look(check_address(OURS, place, public=public))
    assert (finding.outcome, url in finding.found) == (outcome, True)


# -- its folder


def test_a_folder_that_another_process_works_with_is_named(tmp_path: Path) -> None:
    proc = Path("/proc")
    assert only(check_lock("nobody", tmp_path, proc)).outcome == "good"
    descriptor = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    assert only(check_lock("nobody", tmp_path, proc)).outcome == "good"
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    held = [only(check_lock("nobody", tmp_path, proc)), only(check_lock("us", tmp_path, proc))]
    os.close(descriptor)
    assert [one.outcome for one in held] == ["bad", "good"]
    assert all(f"process {os.getpid()} (" in one.found for one in held)


def test_a_system_that_lists_no_locks_leaves_the_folder_unchecked(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    assert only(check_lock("nobody", tmp_path, tmp_path)).outcome == "note"


class Folder:
    """An oracle's folder, as it wrote it."""

    def __init__(self, folder: Path, link: Link, signer: Keypair = OURS) -> None:
        self.folder = folder
        self.link = link
        self._signer = signer
        self._periods = PeriodFolder(folder / "periods")
        self._made: list[CommitmentBody] = []
        (folder / "taken.sqlite").touch()

    @property
    def book(self) -> Path:
        return self.folder / "commitments.jsonl"

    def add(self, first: int, blocks: int = 4) -> Commitment:
        number, secret = len(self._made), bytes(32)
        passages = [Passage(f"Text {leaf} of {number}.", f"book:{leaf}", leaf) for leaf in range(blocks)]
        body = CommitmentBody(
            genesis=self.link.info.genesis,
            netuid=self.link.info.netuid,
            oracle=Hotkey(self._signer.ss58_address),
            number=number,
            first=Block(first),
            last=Block(first + blocks - 1),
            verifiers=(Hotkey(ANOTHER.ss58_address),),
            places=1,
            root=self._periods.write(number, secret, passages),
            secret=secret_digest(secret),
            source="03" * 32,
            previous=self._made[-1].digest() if self._made else NO_COMMITMENT,
        )
        self._made.append(body)
        made = commit(body, self._signer)
        with self.book.open("ab") as file:
            file.write(made.to_bytes() + b"\n")
        return made

    def looked_at(self) -> Finding:
        return only(check_book(self.folder, self.link, OURS))

    async def periods(self) -> Finding:
        bodies = check_book(self.folder, self.link, OURS).value
        return await look(check_periods(bodies, self.link, self.folder))


@asynccontextmanager
async def a_folder(tmp_path: Path, signer: Keypair = OURS) -> AsyncIterator[Folder]:
    async with a_link(tmp_path) as link:
        yield Folder(tmp_path, link, signer)


async def test_a_folder_goes_on_where_it_is_whole(tmp_path: Path) -> None:
    async with a_folder(tmp_path) as folder:
        none_yet = folder.looked_at()
        for first in (2, 6, 10):
            folder.add(first)
        with folder.book.open("ab") as file:
            file.write(b'{"body":{"fir')  # it is being written
        size = folder.book.stat().st_size
        found, periods = folder.looked_at(), await folder.periods()
    assert [none_yet.outcome, found.outcome, periods.outcome] == ["good"] * 3
    assert found.found == "3 commitments, the newest for blocks 10 to 13"
    assert "come next, 1, 2, every file is whole" in periods.found
    assert folder.book.stat().st_size == size


async def test_another_oracle_s_folder_is_bad(tmp_path: Path) -> None:
    async with a_folder(tmp_path, ANOTHER) as folder:
        folder.add(2)
        finding = folder.looked_at()
    assert (finding.outcome, f"is of oracle {ANOTHER.ss58_address}" in finding.found) == ("bad", True)


async def test_another_network_s_folder_is_bad(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    async with a_folder(tmp_path) as folder, a_link(tmp_path / "other") as other:
        folder.add(2)
        finding = only(check_book(tmp_path, other, OURS))
    assert (finding.outcome, "on subnet 4 of" in finding.found) == ("bad", True)


@pytest.mark.parametrize("line", [b"{}", b"\xff", b'{"body": null}'])
async def test_a_book_that_is_damaged_is_bad(tmp_path: Path, line: bytes) -> None:
    async with a_folder(tmp_path) as folder:
        folder.add(2)
        folder.book.write_bytes(folder.book.read_bytes() + line + b"\n")
        finding = folder.looked_at()
    assert (finding.outcome, "line 2" in finding.found) == ("bad", True)


async def test_a_book_that_lost_a_line_is_bad(tmp_path: Path) -> None:
    async with a_folder(tmp_path) as folder:
        folder.add(2)
        second = folder.add(6)
        folder.book.write_bytes(second.to_bytes() + b"\n")
        finding = folder.looked_at()
    assert (finding.outcome, "commitment 1, expected 0" in finding.found) == ("bad", True)


async def test_a_folder_that_forgot_what_was_taken_is_bad(tmp_path: Path) -> None:
    async with a_folder(tmp_path) as folder:
        folder.add(2)
        (tmp_path / "taken.sqlite").unlink()
        finding = folder.looked_at()
    assert (finding.outcome, "texts would come again" in finding.found) == ("bad", True)


@pytest.mark.parametrize("ending", ["jsonl", "leaves", "places", "secret"])
async def test_a_period_that_lost_a_file_is_bad(tmp_path: Path, ending: str) -> None:
    async with a_folder(tmp_path) as folder:
        folder.add(2)
        (tmp_path / "periods" / f"0.{ending}").unlink()
        finding = await folder.periods()
    assert (finding.outcome, "period 0" in finding.found) == ("bad", True)


async def test_a_period_whose_leaves_were_changed_is_bad(tmp_path: Path) -> None:
    async with a_folder(tmp_path) as folder:
        folder.add(2)
        leaves = tmp_path / "periods" / "0.leaves"
        leaves.write_bytes(bytes(len(leaves.read_bytes())))
        finding = await folder.periods()
    assert (finding.outcome, "the root of its leaves" in finding.found) == ("bad", True)


async def test_a_period_that_others_can_read_is_bad(tmp_path: Path) -> None:
    async with a_folder(tmp_path) as folder:
        folder.add(2)
        (tmp_path / "periods" / "0.secret").chmod(0o640)
        finding = await folder.periods()
    assert (finding.outcome, "0.secret has mode 0640" in finding.found) == ("bad", True)


async def test_periods_that_are_long_over_are_not_looked_at(tmp_path: Path) -> None:
    async with a_link(tmp_path, block_seconds=0.01) as link:
        folder = Folder(tmp_path, link)
        folder.add(0, blocks=1)
        (tmp_path / "periods" / "0.secret").unlink()
        while await link.chain.block() < 10:
            pass
        finding = await folder.periods()
    assert (finding.outcome, finding.found.startswith("none runs")) == ("good", True)
