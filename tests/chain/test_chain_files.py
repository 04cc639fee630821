"""Opening and creating chain files: everything that can be wrong with one is named."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from bittensor.keyfiles import Keypair

from targon.chain import (
    ChainExists,
    ChainSettings,
    ChainUnavailable,
    EmbeddedChain,
    UnsupportedEndpoint,
    WrongNetwork,
    open_chain,
    store,
)

pytestmark = pytest.mark.anyio

ALICE = Keypair.create_from_uri("//Alice")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A chain with one neuron, closed."""
    chain = EmbeddedChain.create(tmp_path / "chain.sqlite")
    chain.register(ALICE)
    chain.close()
    return tmp_path / "chain.sqlite"


def alter(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(statement)


async def test_an_endpoint_opens_its_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    for endpoint in (
        f"sqlite://{path}",
        "sqlite:chain.sqlite",
        "sqlite:./chain.sqlite",
        f"sqlite:{path}",
        f"sqlite:///{path}",
    ):
        chain = await open_chain(endpoint, 4)
        assert isinstance(chain, EmbeddedChain)
        assert chain.path.absolute() == path
        assert (await chain.metagraph()).neurons[0].hotkey == ALICE.ss58_address
        await chain.aclose()


async def test_an_endpoint_may_hold_spaces_in_either_form(tmp_path: Path) -> None:
    EmbeddedChain.create(tmp_path / "my chain?#.sqlite").close()
    for name in ("my chain?#.sqlite", "my%20chain%3F%23.sqlite"):
        chain = await open_chain(f"sqlite://{tmp_path}/{name}", 4)
        assert isinstance(chain, EmbeddedChain)
        await chain.aclose()


async def test_an_endpoint_with_a_host_or_without_a_path_is_refused() -> None:
    with pytest.raises(UnsupportedEndpoint, match="three slashes"):
        await open_chain("sqlite://home/chain.sqlite", 4)
    with pytest.raises(UnsupportedEndpoint, match="got no path"):
        await open_chain("sqlite:", 4)


async def test_a_chain_of_another_subnet_is_refused(path: Path) -> None:
    with pytest.raises(WrongNetwork, match=r"got netuid 5, expected 4.*--netuid 4"):
        await open_chain(f"sqlite://{path}", 5)


def test_a_missing_file_is_named_and_not_made(tmp_path: Path) -> None:
    missing = tmp_path / "missing.sqlite"
    for path in (missing, tmp_path / "no" / "folder.sqlite", tmp_path):
        with pytest.raises(ChainUnavailable, match=f"chain {path}: got no file there"):
            EmbeddedChain.open(path)
    assert not missing.exists()


def test_creating_where_a_file_lies_leaves_that_file_alone(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(ChainExists, match="open that chain or move it away"):
        EmbeddedChain.create(path)
    assert path.read_bytes() == before


def test_of_two_that_create_at_once_one_wins(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda _: False)
    with pytest.raises(ChainExists):
        EmbeddedChain.create(path)
    assert list(path.parent.iterdir()) == [path]


def test_creating_in_a_folder_that_does_not_exist_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(ChainUnavailable, match=f"mkdir -p {tmp_path}/none"):
        EmbeddedChain.create(tmp_path / "none" / "chain.sqlite")


def test_creating_where_the_system_does_not_let_us_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(ChainUnavailable, match="cannot be created: Operation not permitted"):
        EmbeddedChain.create(tmp_path / "chain.sqlite")
    assert list(tmp_path.iterdir()) == []


def test_creation_leaves_one_file(path: Path) -> None:
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("nothing of a chain here\n" * 100)
    with pytest.raises(ChainUnavailable, match="no SQLite database"):
        EmbeddedChain.open(path)


def test_an_empty_file_and_another_applications_database_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    path.touch()
    with pytest.raises(ChainUnavailable, match="another application"):
        EmbeddedChain.open(path)
    alter(path, "CREATE TABLE music (title TEXT)")
    with pytest.raises(ChainUnavailable, match="another application"):
        EmbeddedChain.open(path)


def test_another_schema_version_is_refused(path: Path) -> None:
    alter(path, "PRAGMA user_version = 3")
    with pytest.raises(ChainUnavailable, match="got schema version 3, expected 2"):
        EmbeddedChain.open(path)


def test_settings_that_cannot_be_read_are_named(path: Path) -> None:
    alter(path, "UPDATE chain SET settings = '{\"tempo\": 0}'")
    with pytest.raises(ChainUnavailable, match="tempo"):
        EmbeddedChain.open(path)


def test_a_chain_without_its_tables_is_refused(path: Path) -> None:
    alter(path, "DELETE FROM chain")
    with pytest.raises(ChainUnavailable, match="damaged"):
        EmbeddedChain.open(path)
    alter(path, "DROP TABLE chain")
    with pytest.raises(ChainUnavailable, match="no such table"):
        EmbeddedChain.open(path)


def test_a_damaged_file_is_refused(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for start in range(4_096, len(data), 4_096):
        data[start : start + 64] = b"\xff" * 64
    path.write_bytes(data)
    with pytest.raises(ChainUnavailable, match="damaged"):
        EmbeddedChain.open(path)


def test_a_file_that_is_deleted_or_replaced_is_noticed(path: Path) -> None:
    chain = EmbeddedChain.open(path)
    path.unlink()
    with pytest.raises(ChainUnavailable, match="deleted or replaced"):
        chain.register(ALICE)
    EmbeddedChain.create(path).close()
    with pytest.raises(ChainUnavailable, match="deleted or replaced"):
        chain.register(ALICE)
    chain.close()


async def test_a_locked_file_is_read_but_not_written(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "BUSY_S", 0.05)
    chain = EmbeddedChain.open(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert len((await chain.metagraph()).neurons) == 1
        with pytest.raises(ChainUnavailable, match=r"locked: another process.*0\.05 s"):
            chain.register(Keypair.create_from_uri("//Bob"))
        other.execute("ROLLBACK")
    assert chain.register(Keypair.create_from_uri("//Bob")) == 1
    chain.close()


def test_a_file_that_may_not_be_written_is_named(path: Path) -> None:
    chain = EmbeddedChain.open(path)
    chain._store._connection.execute("PRAGMA query_only = 1")
    with pytest.raises(ChainUnavailable, match="give this user read and write access"):
        chain.register(Keypair.create_from_uri("//Bob"))
    chain.close()


def test_defaults_are_the_main_networks() -> None:
    chosen = ChainSettings()
    assert (chosen.netuid, chosen.block_seconds, chosen.tempo, chosen.max_uids) == (4, 12.0, 360, 256)
