"""Files that are broken, or were made to do harm: left out, counted by reason, and never a danger to the process."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from structlog.testing import capture_logs

from targon.oracle import NothingReadable, open_source
from targon.oracle.sources import parquet as parquet_source
from targon.oracle.sources.limits import Limits
from targon.oracle.sources.skipped import REASONS
from tests.oracle.bodies import (
    REDPAJAMA,
    conversion,
    gzip_members,
    gzip_stream,
    json_lines,
    page,
    response,
    texts,
    warc_record,
    zstd_frames,
    zstd_stream,
)

GOOD = "A good text that anybody may read at any time of the day."


def read(spec: str, count: int = 200, seed: int = 1) -> tuple[set[str], dict[str, int]]:
    """What texts are drawn, and what is skipped meanwhile."""
    source = open_source(spec)
    found = {document.text for document in islice(source.documents(Random(seed)), count)}
    return found, {reason: number for reason, number in source.counts.items() if number}


def only(folder: Path, name: str, data: bytes, kind: str = "redpajama") -> tuple[set[str], dict[str, int]]:
    """What is drawn of a file with a good one beside it."""
    (folder / name).write_bytes(data)
    if kind == "redpajama":
        (folder / "good.jsonl").write_bytes(json_lines([GOOD])[0])
    else:
        (folder / "good.wet.gz").write_bytes(gzip.compress(conversion(0, GOOD)) * 50)
    return read(f"{kind}:{folder}")


def line(**fields: object) -> bytes:
    return json.dumps(fields).encode() + b"\n"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"this is no JSON at all, but a line\n" * 9, "not_json"),
        (b'["a", "list"]\n' * 9, "not_json"),
        (b"[" * 100_000 + b"\n", "not_json"),
        (b'{"text": ' + b"9" * 10_000 + b"}\n", "not_json"),
        (line(body="text under another name"), "no_text"),
        (line(text=["a", "list"]), "no_text"),
        (line(text=""), "no_text"),
        (b'{"text": "Gr\xf6\xdfe in Latin-1"}\n', "not_unicode"),
        (b'{"text": "' + b"x" * (9 << 20) + b'"}\n', "too_long"),
    ],
    ids=["words", "list", "nested", "digits", "other name", "no string", "empty", "latin-1", "long"],
)
@pytest.mark.parametrize("packing", ["plain", "gzip", "zstd"])
def test_lines_that_are_none_are_counted_by_reason(
    tmp_path: Path, data: bytes, reason: str, packing: str
) -> None:
    match packing:
        case "plain":
            found, counts = only(tmp_path, "bad.jsonl", data)
        case "gzip":
            found, counts = only(tmp_path, "bad.jsonl.gz", gzip.compress(data))
        case _:
            found, counts = only(tmp_path, "bad.jsonl.zst", zstandard.ZstdCompressor().compress(data))
    assert found == {GOOD}
    assert set(counts) <= {reason, "dropped", "bomb"}
    assert counts.get(reason, 0) + counts.get("bomb", 0) > 0


@pytest.mark.parametrize("write", [gzip_stream, gzip_members, zstd_stream, zstd_frames, REDPAJAMA["parquet"]])
@pytest.mark.parametrize("harm", ["cut", "flipped", "zeroed"])
def test_broken_files_give_no_broken_texts(tmp_path: Path, write, harm: str) -> None:
    of = texts(60)
    write(tmp_path, of)
    for path in tmp_path.iterdir():
        data = bytearray(path.read_bytes())
        half = len(data) // 2
        if harm == "cut":
            del data[half:]
        elif harm == "flipped":
            for place in range(half, len(data), 997):
                data[place] ^= 0xFF
        else:
            data[half : half + 2_000] = bytes(2_000)
        path.write_bytes(data)
    (tmp_path / "good.jsonl").write_bytes(json_lines([GOOD])[0] * 200)
    found, counts = read(f"redpajama:{tmp_path}", 1_000)
    assert GOOD in found
    # without checksums, a flipped bit within a text can't be told from a text
    assert len(found - {GOOD, *of}) <= (3 if harm == "flipped" else 0)
    assert sum(counts.values()) > 0


def test_halves_of_surrogate_pairs_are_replaced_and_control_characters_left(tmp_path: Path) -> None:
    data = b'{"text": "one \\ud83d two \\u0000\\u001b[31m three"}\n'
    found, counts = only(tmp_path, "odd.jsonl", data)
    assert found == {GOOD, "one � two \x00\x1b[31m three"}
    assert counts == {}
    for text in found:
        text.encode()


def test_a_file_is_said_once_however_much_of_it_is_skipped(tmp_path: Path) -> None:
    with capture_logs() as logs:
        _, counts = only(tmp_path, "bad.jsonl", b"no JSON\n" * 200)
    assert counts["not_json"] > 20
    said = [entry for entry in logs if entry["file"] == "bad.jsonl"]
    assert len(said) == 1
    assert said[0]["meaning"] == REASONS["not_json"]


def test_a_source_in_which_nothing_can_be_read_says_what_it_found_and_expects(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_bytes(b"no JSON\n" * 200)
    (tmp_path / "worse.jsonl.gz").write_bytes(b"nor gzip" * 200)
    with pytest.raises(NothingReadable, match=r"found 2 files of 3,200 bytes, expected JSON lines") as error:
        next(open_source(f"redpajama:{tmp_path}").documents(Random(1)))
    assert error.value.skipped["not_json"] > 0
    assert error.value.skipped["corrupt"] > 0
    assert error.value.skipped["dropped"] == 2


def test_compressed_nothing_is_given_up(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl.gz").write_bytes(gzip.compress(b""))
    with pytest.raises(NothingReadable):
        next(open_source(f"redpajama:{tmp_path}").documents(Random(1)))


def test_links_that_lead_in_circles_are_followed_once_and_pipes_not_opened(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "good.jsonl").write_bytes(json_lines([GOOD])[0])
    (tmp_path / "private.jsonl").write_bytes(json_lines(["A text of somebody's own."])[0] * 9)
    (folder / "up").symlink_to(tmp_path)
    (folder / "out.jsonl").symlink_to(tmp_path / "private.jsonl")
    (folder / "in.jsonl").symlink_to(folder / "good.jsonl")
    (folder / "self").symlink_to(folder)
    (folder / "round.jsonl").symlink_to(folder / "round.jsonl")
    os.mkfifo(folder / "pipe.jsonl")
    found, counts = read(f"redpajama:{folder}")
    assert found == {GOOD}
    assert counts == {"unreadable": 4}


def test_a_file_that_shrinks_or_goes_away_is_counted_and_survived(tmp_path: Path) -> None:
    of = texts(40)
    REDPAJAMA["plain"](tmp_path, of)
    REDPAJAMA["zstd"](tmp_path, of)
    REDPAJAMA["parquet"](tmp_path, of)
    (tmp_path / "good.jsonl").write_bytes(json_lines([GOOD])[0] * 50)
    source = open_source(f"redpajama:{tmp_path}")
    documents = source.documents(Random(1))
    assert len(list(islice(documents, 50))) == 50
    os.truncate(tmp_path / "one.jsonl", 100)
    os.truncate(tmp_path / "one.jsonl.zst", 100)
    os.truncate(tmp_path / "one.parquet", 100)
    (tmp_path / "deep" / "er" / "two.json").unlink()
    later = {document.text for document in islice(documents, 2_000)}
    assert GOOD in later
    assert source.counts["shrunk"] > 0
    assert source.counts["unreadable"] > 0


def test_a_table_without_a_column_of_text_says_which_it_has(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1, 2], "body": ["a", "b"]}), tmp_path / "other.parquet")
    with capture_logs() as logs, pytest.raises(NothingReadable, match="no_text"):
        next(open_source(f"redpajama:{tmp_path}").documents(Random(1)))
    assert "got the columns id, body, expected one of text" in logs[0]["detail"]


def test_values_of_a_table_that_are_no_text_are_left_out(tmp_path: Path) -> None:
    values = [None, "", GOOD, b"\xff\xfe broken".decode("latin-1"), GOOD * 2]
    pq.write_table(pa.table({"text": pa.array(values)}), tmp_path / "some.parquet")
    assert read(f"redpajama:{tmp_path}")[0] == {value for value in values if value}
    pq.write_table(
        pa.table({"text": pa.array([b"\xff\xfe\xff" * 20, GOOD.encode()])}), tmp_path / "some.parquet"
    )
    found, counts = read(f"redpajama:{tmp_path}")
    assert found == {GOOD}
    assert set(counts) == {"not_unicode"}


def test_a_table_s_page_that_is_too_large_is_never_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(pa.table({"text": ["a" * 5_000_000, "b"]}), tmp_path / "bomb.parquet", compression="zstd")
    assert (tmp_path / "bomb.parquet").stat().st_size < 10_000
    monkeypatch.setattr(parquet_source, "LIMITS", Limits(page_bytes=1_000_000))
    with pytest.raises(NothingReadable, match="too_long"):
        next(open_source(f"redpajama:{tmp_path}").documents(Random(1)))


def test_broken_records_of_a_crawl_are_counted_and_the_others_read(tmp_path: Path) -> None:
    whole = gzip.compress(conversion(1, "x" * 3_000 + str(Random(1).random()) * 500))
    corrupt = whole[:200] + bytes(64) + whole[264:]
    lying = conversion(2, "text").replace(b"Content-Length: 4", b"Content-Length: 4000")
    records = [
        corrupt,
        gzip.compress(lying),
        gzip.compress(b"WARC/1.0\r\nno header's end"),
        gzip.compress(
            conversion(3, "").replace(b"Content-Length: 0", b"Content-Length: 99999999999999999999")
        ),
        gzip.compress(warc_record("conversion", b"Gr\xf6\xdfe in Latin-1" * 20, "https://example.org")),
        gzip.compress(conversion(4, GOOD)),
        gzip.compress(conversion(5, "z" * (9 << 20))),
        gzip.compress(conversion(6, "cut off"))[:-12],
    ]
    found, counts = only(tmp_path, "bad.wet.gz", b"".join(records), "crawl")
    assert found == {GOOD}
    assert {"corrupt", "truncated", "not_unicode", "too_long"} <= set(counts)


@pytest.mark.parametrize("suffix", ["warc", "warc.gz"])
def test_pages_are_decoded_as_they_say(tmp_path: Path, suffix: str) -> None:
    text = "Größe und Gewicht, über alle Maße hinaus: so steht es hier geschrieben. " * 5
    text = text.strip()
    pages = [
        response(0, page(text).decode().encode("latin-1"), "Content-Type: text/html; charset=iso-8859-1"),
        response(1, page(text).replace(b"<head>", b"<head><meta charset=utf-8>"), "Content-Type: text/html"),
        response(2, b"\xff\xfe" + page(text).decode().encode("utf-16-le"), "Content-Type: text/html"),
        response(3, gzip.compress(page(text)), "Content-Type: text/html\r\nContent-Encoding: gzip"),
        response(4, text.encode(), "Content-Type: text/plain; charset=utf-8"),
        response(5, page("gone"), status="404 Not Found"),
        response(6, b"\x89PNG\r\n" * 50, "Content-Type: image/png"),
    ]
    packed = [gzip.compress(each) if suffix == "warc.gz" else each for each in pages]
    (tmp_path / f"one.{suffix}").write_bytes(b"".join(packed))
    source = open_source(f"crawl:{tmp_path}")
    found = list(islice(source.documents(Random(1)), 500))
    assert {document.text.strip() for document in found} == {text}
    assert {document.source[20] for document in found} == set("01234")
    assert sum(source.counts.values()) == 0


def test_pages_that_would_take_long_to_parse_are_left_out(tmp_path: Path) -> None:
    deep = b"<html><body>" + b"<div>" * 20_000 + GOOD.encode()
    wide = (
        b"<html><body><p " + b" ".join(b"a%d=1" % number for number in range(20_000)) + b">" + GOOD.encode()
    )
    strokes = b"<html><body><svg><div>" + b"<path/>" * 20_000 + GOOD.encode()
    drawing = b"<svg>" + b'<path d="M0 0"/>' * 2_000 + b"</svg>"
    fine = page(GOOD).replace(b"<main>", drawing + b"<main>")
    bomb = gzip.compress(b"<p>" + b" " * (1 << 26))
    packed = [
        response(0, deep),
        response(1, wide),
        response(2, strokes),
        response(3, fine),
        response(4, bomb, "Content-Type: text/html\r\nContent-Encoding: gzip"),
    ]
    found, counts = only(tmp_path, "bad.warc.gz", b"".join(map(gzip.compress, packed)), "crawl")
    assert found == {GOOD}
    assert set(counts) <= {"too_deep", "no_text", "dropped"}
    assert counts["too_deep"] >= 1


PAGES = {
    # each paragraph sets up again what the first one left open
    "open formatting": b"<p>" + b"".join(b"<b i=%d>" % number for number in range(200)) + b"<p>x" * 40_000,
    "ends of nothing": b"<div></x>" * 60_000,
    "cells in a drawing": b"<svg>" + b"<td>" * 100_000,
    "long and deep": b"<div>" * 250 + b"<p>x" * 200_000,
    "ends of the outside": (b"<p>" + b"".join(b"<b i=%d>" % number for number in range(100)))
    + b"<svg><foreignObject>"
    + b"</b>" * 100
    + b"<div>x</div>" * 40_000,
}
"""Pages that ask a parser for far more than they are."""

MEASURED = """
import sys, time
from pathlib import Path
from itertools import islice
from random import Random
from targon.oracle import open_source
began = time.process_time()
source = open_source(sys.argv[1])
found = {document.text for document in islice(source.documents(Random(1)), 100)}
assert found
[peak] = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
print(int(peak) // 1024, time.process_time() - began)
"""


@pytest.mark.parametrize(
    "kind", ["sparse", "gzip bomb", "zstd bomb", "wet bomb", "nested", "many links", *PAGES]
)
def test_memory_and_time_stay_small_whatever_a_file_unpacks_to(tmp_path: Path, kind: str) -> None:
    good = b'{"text": "a good text"}\n'
    source = "redpajama"
    match kind:
        case "sparse":
            with (tmp_path / "one.jsonl").open("wb") as file:
                file.seek(1 << 30)
                file.write(b"\n" + good * 40_000)
        case "gzip bomb":
            packed = gzip.compress(bytes(1 << 26), 9)
            (tmp_path / "one.jsonl.gz").write_bytes(packed * 16)
        case "zstd bomb":
            packer = zstandard.ZstdCompressor()
            with (tmp_path / "one.jsonl.zst").open("wb") as file, packer.stream_writer(file) as stream:
                for _ in range(1 << 10):
                    stream.write(bytes(1 << 20))
        case "wet bomb":
            source = "crawl"
            record = gzip.compress(warc_record("conversion", bytes(1 << 26)), 9)
            (tmp_path / "one.wet.gz").write_bytes(
                record * 4 + gzip.compress(conversion(0, "a good text")) * 2_000
            )
        case _ if kind in PAGES:
            source = "crawl"
            records = [response(0, b"<main>" + PAGES[kind]), *[conversion(1, "a good text")] * 200]
            (tmp_path / "one.warc.gz").write_bytes(b"".join(map(gzip.compress, records)))
        case "nested":
            (tmp_path / "one.jsonl").write_bytes(b'{"text": [' + b"{}," * 2_700_000 + b"{}]}\n")
        case _:
            (tmp_path / "one.jsonl.gz").write_bytes(gzip.compress(b"\n" * (1 << 26), 9))
    if source == "redpajama":
        (tmp_path / "good.jsonl").write_bytes(good)
    run = subprocess.run(
        [sys.executable, "-c", MEASURED, f"{source}:{tmp_path}"], capture_output=True, text=True, timeout=240
    )
    assert run.returncode == 0, run.stderr
    megabytes, seconds = run.stdout.split()[-2:]
    assert int(megabytes) <= 300
    assert float(seconds) < 30
