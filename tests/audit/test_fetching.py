"""Segments fetched from whoever serves them: bounded in size and time, and by no name but their own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import anyio
import pytest

from targon.audit import Unreadable, audit_folder, fetch_segments, is_url
from targon.protocol import segments
from tests.audit.world import Published

pytestmark = pytest.mark.anyio


class Mirror(BaseHTTPRequestHandler):
    """Serves a folder as the tests say."""

    folder: Path
    status = 200
    headers_sent: tuple[tuple[str, str], ...] = ()
    more = b""
    stall = False

    def do_GET(self) -> None:
        path = self.folder / Path(self.path).name
        if not self.path.startswith("/v1/segments/") or not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes() + (self.more if path.suffix == ".jsonl" else b"")
        self.send_response(self.status)
        self.send_header("content-length", str(len(content)))
        for name, value in self.headers_sent:
            self.send_header(name, value)
        self.end_headers()
        if self.stall:
            self.wfile.write(content[:10])
            self.wfile.flush()
            threading.Event().wait(3)
            return
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the base class
        pass


@contextmanager
def mirror(folder: Path, **behaviour: object) -> Iterator[str]:
    handler = type("Handler", (Mirror,), {"folder": folder, **behaviour})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


async def test_what_is_fetched_is_what_lies_there(untouched: Published, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    with mirror(untouched.folder) as url:
        await fetch_segments(url, tmp_path / "copy", progress=lambda *here: told.append(here))
    report, _ = audit_folder(tmp_path / "copy")
    assert report.exact
    assert told[-1] == (untouched.count, untouched.count)


async def test_what_is_here_already_is_not_fetched_again(untouched: Published, tmp_path: Path) -> None:
    file = anyio.Path(tmp_path / segments.segment_file(1))
    with mirror(untouched.folder) as url:
        await fetch_segments(url, tmp_path, transcripts=True)
        before = (await file.stat()).st_mtime_ns
        await fetch_segments(url + "/v1/segments/", tmp_path)
    assert (await file.stat()).st_mtime_ns == before


@pytest.mark.parametrize(
    ("behaviour", "sentence"),
    [
        (
            {"status": 302, "headers_sent": (("location", "http://elsewhere/"),)},
            "a redirect to 'http://elsewhere/'",
        ),
        ({"status": 500}, "got status 500"),
        ({"headers_sent": (("content-encoding", "gzip"),)}, "got it compressed"),
        ({"more": b"x" * 100}, "got more than"),
    ],
)
async def test_what_is_not_as_it_should_be_is_named(
    untouched: Published, tmp_path: Path, behaviour: dict[str, object], sentence: str
) -> None:
    with mirror(untouched.folder, **behaviour) as url, pytest.raises(Unreadable, match=sentence):
        await fetch_segments(url, tmp_path)
    assert [path async for path in anyio.Path(tmp_path).glob("*.part")] == []


async def test_who_stalls_is_not_waited_for(
    untouched: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("targon.audit.fetching.READ_S", 0.2)
    with (
        mirror(untouched.folder, stall=True) as url,
        pytest.raises(Unreadable, match=r"index\.json: got nothing"),
    ):
        await fetch_segments(url, tmp_path)


async def test_a_message_without_end_is_cut_off(tmp_path: Path) -> None:
    await anyio.Path(tmp_path / "index.json").write_bytes(b" " * 100_000)
    with mirror(tmp_path) as url, pytest.raises(Unreadable, match="got more than 16384 bytes"):
        await fetch_segments(url, tmp_path / "copy")


@pytest.mark.parametrize("url", ["http://", "http://user@host/", "http://host/?x=1", "http://host/#x"])
async def test_addresses_of_another_form_are_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(Unreadable, match="expected an address like"):
        await fetch_segments(url, tmp_path)


async def test_nobody_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match=r"index\.json: Client"):
        await fetch_segments("http://127.0.0.1:1", tmp_path)


def test_an_address_is_told_from_a_folder() -> None:
    assert is_url("https://verifier.example:8093")
    assert not is_url("./segments")
