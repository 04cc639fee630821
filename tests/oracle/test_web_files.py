"""Files on web servers: read in ranges, within bounds, and from nowhere that an operator didn't mean."""

from __future__ import annotations

import gzip
import re
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from random import Random

import pytest

from targon.oracle import NothingReadable, open_source
from targon.oracle.sources import opening
from targon.oracle.sources.limits import WebLimits
from targon.oracle.sources.skipped import Unreadable
from targon.oracle.sources.web import RemoteBlob, Web, is_public, shown
from tests.oracle.bodies import BODIES, texts

PATIENT = WebLimits(attempts=2)


class Files(BaseHTTPRequestHandler):
    """Serves a folder, with ranges unless told otherwise; what it does first can be put in for a path."""

    protocol_version = "HTTP/1.1"
    folder: Path
    ranges = True
    odd: dict[str, Callable[[Files], None]]
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        path = self.path.partition("?")[0]
        if path in self.odd:
            self.odd[path](self)
        else:
            self.serve(path)

    def serve(self, path: str) -> None:
        file = self.folder / path.lstrip("/")
        if not file.is_file():
            self.answer(404, b"")
            return
        data = file.read_bytes()
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if wanted and self.ranges:
            first, last = int(wanted[1]), min(int(wanted[2]), len(data) - 1)
            headers = {"Content-Range": f"bytes {first}-{last}/{len(data)}"}
            self.answer(206, data[first : last + 1], headers)
        else:
            self.answer(200, data)

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass


@contextmanager
def served(
    folder: Path, *, ranges: bool = True, **odd: Callable[[Files], None]
) -> Iterator[tuple[str, list[str]]]:
    """The address of a server of a folder, and what it is asked for."""
    asked: list[str] = []
    names = {"/" + name.replace("_", "."): act for name, act in odd.items()}
    handler = type("Served", (Files,), {"folder": folder, "ranges": ranges, "odd": names, "asked": asked})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=partial(server.serve_forever, 0.02))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "whole"])
@pytest.mark.parametrize("kind", BODIES)
def test_a_server_s_files_are_read_as_those_of_a_folder(tmp_path: Path, kind: str, ranges: bool) -> None:
    source, write = BODIES[kind]
    of = texts(20)
    write(tmp_path, of)
    paths = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    with served(tmp_path, ranges=ranges) as (address, asked):
        (tmp_path / "urls.txt").write_text("\n".join(f"{address}/{path}" for path in paths) + "\n", "utf-8")
        for where in (f"{address}/urls.txt", str(tmp_path / "urls.txt")):
            opened = open_source(f"{source}:{where}", allow_private=True)
            found = {document.text for document in islice(opened.documents(Random(1)), 1_000)}
            assert found == set(of)
            assert not any(opened.counts.values())
        if not ranges:
            assert len(asked) == 1 + 2 * len(paths)


def test_a_list_s_relative_addresses_are_on_its_server(tmp_path: Path) -> None:
    source, write = BODIES["wet"]
    folder = tmp_path / "crawl-data" / "segment"
    folder.mkdir(parents=True)
    write(folder, texts(5))
    (tmp_path / "wet.paths.gz").write_bytes(gzip.compress(b"crawl-data/segment/one.warc.wet.gz\n"))
    with served(tmp_path) as (address, _):
        opened = open_source(f"{source}:{address}/wet.paths.gz", allow_private=True)
        assert next(opened.documents(Random(1))).source.startswith("https://example.org/")


def test_of_a_long_list_every_machine_takes_the_same_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "WEB_LIMITS", WebLimits(urls=3))
    for index in range(10):
        (tmp_path / f"{index}.jsonl").write_bytes(b'{"text": "a text"}\n')
    with served(tmp_path) as (address, asked):
        lines = [f"{address}/{index}.jsonl" for index in range(10)]
        (tmp_path / "one.txt").write_text("\n".join(lines), "utf-8")
        (tmp_path / "other.txt").write_text("\n".join(reversed(lines)), "utf-8")
        one = open_source(f"redpajama:{tmp_path / 'one.txt'}", allow_private=True)
        other = open_source(f"redpajama:{tmp_path / 'other.txt'}", allow_private=True)
        assert one.manifest() == other.manifest()
        assert one.counts["too_many"] == 1
        assert len(asked) == 6


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
def test_a_list_that_is_too_long_is_read_no_further_than_its_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    monkeypatch.setattr(opening, "WEB_LIMITS", WebLimits(list_bytes=100_000))
    data = b"http://127.0.0.1:9/a.jsonl\n" * 2_000_000
    path = tmp_path / f"all.paths{'.gz' if packed else ''}"
    path.write_bytes(gzip.compress(data, 1) if packed else data)
    del data
    tracemalloc.start()
    try:
        with pytest.raises(NothingReadable, match="skipped: 1 too_long"):
            open_source(f"redpajama:{path}", allow_private=True)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/a.jsonl", "http://localhost/a.jsonl", "https://[::1]/a.jsonl"]
)
def test_this_machine_is_not_asked_unless_a_setting_allows_it(url: str) -> None:
    with pytest.raises(NothingReadable, match="skipped: 1 unreadable"):
        open_source(f"redpajama:{url}")
    with pytest.raises(Unreadable, match="is no public address"):
        Web().open(url)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("10.1.2.3", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("224.0.0.1", False),
        ("0.0.0.0", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:127.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
        ("::127.0.0.1", False),
        ("fec0::1", False),
        ("64:ff9b:1::a00:1", False),
    ],
)
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert is_public(address) is public


@pytest.mark.parametrize(
    "url",
    ["ftp://example.org/a.jsonl", "file:///etc/passwd", "http:///a", "http://me:secret@example.org/a.jsonl"],
)
def test_other_schemes_and_user_names_are_refused_and_secrets_not_shown(url: str) -> None:
    with pytest.raises(Unreadable, match="expected an address of http or https") as error:
        Web(allow_private=True).open(url)
    assert "secret" not in str(error.value)
    assert shown("https://example.org/a?signature=secret#secret") == "https://example.org/a"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://example.org:99999/a.jsonl", "Port out of range"),
        ("http://[::1/a.jsonl", "Invalid IPv6 URL"),
        (f"http://{'a' * 70}.example/a.jsonl", "a{70}.example: "),
        ("http://127.0.0.1:9/a.jsonl", "127.0.0.1: .*refused"),
    ],
)
def test_addresses_that_lead_nowhere_are_unreadable(url: str, said: str) -> None:
    with pytest.raises(Unreadable, match=said):
        Web(allow_private=True).open(url)


def test_an_address_of_a_list_that_is_none_is_counted_and_the_others_are_read(tmp_path: Path) -> None:
    (tmp_path / "one.jsonl").write_bytes(b'{"text": "a text"}\n')
    with served(tmp_path) as (address, _):
        lines = ("http://[::1/a.jsonl", "http://example.org:99999/a.jsonl", f"{address}/one.jsonl")
        (tmp_path / "urls.txt").write_text("\n".join(lines), "utf-8")
        for where in (tmp_path / "urls.txt", f"{address}/urls.txt"):
            opened = open_source(f"redpajama:{where}", allow_private=True)
            assert next(opened.documents(Random(1))).text == "a text"
            assert opened.counts["unreadable"] == 2
    with pytest.raises(NothingReadable, match="skipped: 1 unreadable"):
        open_source("redpajama:http://[::1/a.jsonl")


def test_requests_say_who_asks_and_share_a_connection(tmp_path: Path) -> None:
    (tmp_path / "one.jsonl").write_bytes(b"x" * 1_000_000)
    came: list[tuple[object, str | None, str | None]] = []

    def noted(handler: Files) -> None:
        came.append(
            (handler.client_address, handler.headers["User-Agent"], handler.headers["Accept-Encoding"])
        )
        handler.serve("/one.jsonl")

    with served(tmp_path, one_jsonl=noted) as (address, _):
        web = Web(allow_private=True, limits=PATIENT)
        blob = web.open(f"{address}/one.jsonl")
        assert [len(blob.read(start, 10)) for start in (0, 500_000, 900_000)] == [10, 10, 10]
        web.close()
    assert [(who, packed) for _, who, packed in came] == [("targon", "identity")] * 4
    assert len({address for address, *_ in came[1:]}) == 1


def test_a_small_file_that_is_large_is_read_no_further(tmp_path: Path) -> None:
    (tmp_path / "all.txt").write_bytes(b"x" * 1_001)
    with served(tmp_path) as (address, _):
        assert (
            len(Web(allow_private=True, limits=WebLimits(list_bytes=1_001)).text(f"{address}/all.txt"))
            == 1_001
        )
        with pytest.raises(Unreadable, match="got more than 1000 bytes"):
            Web(allow_private=True, limits=WebLimits(list_bytes=1_000)).text(f"{address}/all.txt")


def test_redirects_are_followed_so_often_and_looked_at_each_time(tmp_path: Path) -> None:
    (tmp_path / "good.jsonl").write_bytes(b'{"text": "a text"}\n')

    def onwards(to: str) -> Callable[[Files], None]:
        return lambda handler: handler.answer(302, b"", {"Location": to})

    with served(
        tmp_path,
        here_jsonl=onwards("/good.jsonl"),
        round_jsonl=onwards("/round.jsonl"),
        away_jsonl=onwards("file:///etc/passwd"),
    ) as (address, asked):
        web = Web(allow_private=True, limits=PATIENT)
        assert web.open(f"{address}/here.jsonl").read(0, 9) == b'{"text": '
        with pytest.raises(Unreadable, match="more than 5 redirects"):
            web.open(f"{address}/round.jsonl")
        assert asked.count("/round.jsonl") == 6
        with pytest.raises(Unreadable, match="expected an address of http or https"):
            web.open(f"{address}/away.jsonl")
        web.close()


def test_answers_that_are_none_are_refused(tmp_path: Path) -> None:
    def cut(handler: Files) -> None:
        handler.answer(200, b"x", {"Content-Length": "100", "Connection": "close"})

    def elsewhere(handler: Files) -> None:
        handler.answer(206, b"x", {"Content-Range": "bytes 0-0/1000"})

    with served(
        tmp_path,
        cut_jsonl=cut,
        packed_jsonl=lambda handler: handler.answer(200, b"x", {"Content-Encoding": "gzip"}),
        other_jsonl=elsewhere,
        odd_jsonl=lambda handler: handler.answer(206, b"x", {"Content-Range": "bytes */*"}),
        noise_jsonl=lambda handler: handler.wfile.write(b"\x00\xff no HTTP \r\n\r\n") and None,
    ) as (address, _):
        web = Web(allow_private=True, limits=PATIENT)
        for name, said in (
            ("none", "got status 404"),
            ("packed", "compressed"),
            ("odd", "which range"),
            ("noise", "unreadable"),
            ("cut", "99 bytes are missing"),
        ):
            with pytest.raises(Unreadable, match=said):
                web.open(f"{address}/{name}.jsonl")
        other = web.open(f"{address}/other.jsonl")
        with pytest.raises(Unreadable, match="another file"):
            other.read(500, 1)
        web.close()


def test_an_answer_that_takes_long_is_left(tmp_path: Path) -> None:
    cut = threading.Event()

    def slowly(handler: Files) -> None:
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        try:
            for _ in range(300):
                handler.wfile.write(b"x")
                time.sleep(0.1)
        except OSError:
            cut.set()

    with served(tmp_path, slow_jsonl=slowly) as (address, _):
        web = Web(allow_private=True, limits=WebLimits(download_s=2, attempts=1))
        with pytest.raises(Unreadable, match="takes more than 2 s"):
            web.open(f"{address}/slow.jsonl")
        assert cut.wait(20)
        web.close()


def test_a_file_that_is_too_large_to_be_taken_whole_is_refused(tmp_path: Path) -> None:
    (tmp_path / "large.jsonl").write_bytes(b"x" * 100_000)
    with served(tmp_path, ranges=False) as (address, _):
        web = Web(allow_private=True, limits=WebLimits(download_bytes=50_000))
        with pytest.raises(Unreadable, match="gives no ranges, and it is too large"):
            web.open(f"{address}/large.jsonl")


def test_a_file_that_changes_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "one.jsonl"
    file.write_bytes(b"x" * 600_000)
    with served(tmp_path) as (address, _):
        web = Web(allow_private=True, limits=PATIENT)
        blob = web.open(f"{address}/one.jsonl")
        assert isinstance(blob, RemoteBlob)
        assert blob.read(599_990, 100) == b"x" * 10
        file.write_bytes(b"x" * 500_000)
        with pytest.raises(Unreadable, match="another file"):
            blob.read(0, 100)
        file.unlink()
        with pytest.raises(Unreadable, match="status 404"):
            blob.read(0, 100)
        web.close()
