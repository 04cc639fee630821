"""Files that are whole as far as they go, and made so that reading them would take for ever, or all the draws."""

from __future__ import annotations

import gzip
from itertools import islice
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from structlog.testing import capture_logs

from targon.oracle import open_source
from targon.oracle.sources import files, json_lines, parquet, warc
from targon.oracle.sources.blobs import LocalBlob
from targon.oracle.sources.limits import LIMITS, Limits
from targon.oracle.sources.sampling import Pace
from targon.oracle.sources.skipped import MOST_DETAIL, MOST_SAID, Skipped, Unreadable
from targon.oracle.sources.streams import GZIP_MAGIC, gzip_pieces, zstd_frame_end, zstd_pieces
from tests.oracle.bodies import conversion, gzip_members, texts, zstd_frames
from tests.oracle.bodies import json_lines as lines_of

GOOD = "A good text that anybody may read at any time of the day."


def blob(path: Path, data: bytes) -> LocalBlob:
    path.write_bytes(data)
    return LocalBlob(str(path), path.name, len(data))


def read(folder: Path, count: int = 200) -> tuple[set[str], dict[str, int]]:
    """What texts are drawn of a folder, with a good file added, and what is skipped meanwhile."""
    (folder / "good.jsonl").write_bytes(lines_of([GOOD])[0] * 200)
    source = open_source(f"redpajama:{folder}")
    found = {document.text for document in islice(source.documents(Random(1)), count)}
    return found, {reason: number for reason, number in source.counts.items() if number}


@pytest.mark.parametrize("write", [gzip_members, zstd_frames])
def test_a_small_file_among_large_ones_is_never_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write
) -> None:
    monkeypatch.setattr(files, "_RECORDS_PACE", Pace(window=1 << 16, intensity=1))
    write(tmp_path, texts(60))
    (tmp_path / "small.jsonl.gz").write_bytes(gzip.compress(lines_of(["small " * 4])[0]))
    source = open_source(f"redpajama:{tmp_path}")
    # a thousand visits to the small file or more, of which one in a thousand gives anything
    found = [document.text for document in islice(source.documents(Random(1)), 1_500)]
    assert source.counts["dropped"] == 0
    assert sum(text.startswith("small") for text in found) < 20


def test_rows_without_an_end_are_given_up(tmp_path: Path) -> None:
    nothing = pa.table({"text": pa.nulls(1_000_000, pa.string())})
    pq.write_table(nothing, tmp_path / "nothing.parquet", row_group_size=1_000_000)
    found, counts = read(tmp_path, 6_000)
    assert found == {GOOD}
    assert counts["bomb"] > 0
    assert counts["dropped"] == 1


def test_a_text_that_a_table_says_a_million_times_doesn_t_take_all_draws(tmp_path: Path) -> None:
    same = pa.DictionaryArray.from_arrays(
        pa.array([0] * 1_000_000, pa.int32()), pa.array(["once more " * 100])
    )
    pq.write_table(pa.table({"text": same}), tmp_path / "same.parquet", row_group_size=1_000_000)
    found, counts = read(tmp_path, 6_000)
    assert GOOD in found
    assert counts["bomb"] > 0
    assert counts["dropped"] == 1


def wide(path: Path, groups: int) -> None:
    """A table of 21 columns, a row in each group."""
    names = ["text", *(f"column {index}" for index in range(20))]
    with pq.ParquetWriter(path, pa.schema([(name, pa.string()) for name in names])) as writer:
        for group in range(groups):
            writer.write_table(
                pa.table({name: [f"Row {group} says something worth reading."] for name in names})
            )


@pytest.mark.parametrize("limits", [Limits(footer_bytes=100_000), Limits(footer_entries=50_000)])
def test_a_table_whose_metadata_is_large_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limits: Limits
) -> None:
    wide(tmp_path / "one.parquet", 100)
    monkeypatch.setattr(parquet, "LIMITS", limits)
    found, counts = read(tmp_path)
    assert found == {GOOD}
    assert set(counts) == {"too_long", "dropped"}


def test_a_table_of_many_row_groups_is_one_like_others(tmp_path: Path) -> None:
    """As many as 10 GiB of text have, and metadata as large."""
    wide(tmp_path / "one.parquet", 1_000)
    found, counts = read(tmp_path, 50)
    assert found > {GOOD}
    assert not counts


def test_a_frame_of_endless_empty_blocks_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = zstandard.ZstdCompressor().compress(b"x" * 1_000)[:6]
    endless = blob(tmp_path / "one.zst", head + bytes(3 * LIMITS.zstd_blocks + 300_000))
    with pytest.raises(Unreadable, match="more blocks than any text"):
        zstd_frame_end(endless, 0)


def test_where_members_only_seem_to_begin_few_are_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def counted(*args: object, **kwargs: object):
        tried.append(args)
        return gzip_pieces(*args, **kwargs)

    monkeypatch.setattr(json_lines, "gzip_pieces", counted)
    skipped = Skipped()
    pace = Pace(window=1 << 16, intensity=1)
    good = gzip.compress(lines_of([GOOD])[0]) * 2
    one = blob(tmp_path / "one.jsonl.gz", good + GZIP_MAGIC * 100_000)
    [part] = json_lines.json_parts([one], pace, skipped, Random(1))
    assert list(part.visit(Random(5))) == []
    assert 0 < len(tried) <= LIMITS.attempts + 1
    assert skipped.counts["corrupt"] > 0


def test_of_records_that_unpack_to_too_much_few_are_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warc, "LIMITS", Limits(record_bytes=10_000))
    large = gzip.compress(conversion(0, "x" * 20_000))
    one = blob(tmp_path / "one.wet.gz", large * 500)
    skipped = Skipped()
    assert list(warc.packed_records(one, 0, one.size, skipped)) == []
    assert skipped.counts["too_long"] == LIMITS.attempts


def test_what_only_looks_like_a_record_s_start_is_not_unpacked(tmp_path: Path) -> None:
    """A bomb that is no record costs a look at its first bytes."""
    one = blob(tmp_path / "one.wet.gz", gzip.compress(bytes(1 << 26), 9))
    skipped = Skipped()
    assert list(warc.packed_records(one, 0, one.size, skipped)) == []
    assert skipped.total == 0


def test_names_and_details_can_t_speak_to_a_terminal(tmp_path: Path) -> None:
    name = "good\n\x1b[2Jroot ok\u202e.jsonl"
    (tmp_path / name).write_bytes(lines_of([GOOD])[0] + b"no JSON\n" * 5)
    source = open_source(f"redpajama:{tmp_path}")
    with capture_logs() as logs:
        found = list(islice(source.documents(Random(1)), 50))
    said = [entry["file"] for entry in logs]
    assert said == ["good\\n\\x1b[2Jroot ok\\u202e.jsonl"]
    assert all(document.source.isprintable() for document in found)
    with capture_logs() as logs:
        skipped = Skipped()
        skipped.note("corrupt", "a file", "\x1b]0;title\x07" + "x" * 10**6)
    assert logs[0]["detail"].startswith("\\x1b]0;title\\x07xx")
    assert len(logs[0]["detail"]) < 2 * MOST_DETAIL


def test_of_very_many_files_that_can_t_be_read_not_each_is_named() -> None:
    skipped = Skipped()
    with capture_logs() as logs:
        for index in range(MOST_SAID + 100):
            skipped.note("corrupt", f"file {index}")
    assert len(logs) == MOST_SAID + 1
    assert skipped.counts["corrupt"] == MOST_SAID + 100


@pytest.mark.parametrize("length", [99_999_999_999, -1, 2**64])
def test_a_record_that_says_two_lengths_ends_no_process(length: int) -> None:
    """What parses records reserves as much memory as the last of them says, and aborts where there is none."""
    found = warc.text_of(conversion(7, GOOD), "one.wet", 0)
    assert found == (GOOD, "https://example.org/7 2026-01-02T03:04:05Z")
    twice = conversion(7, GOOD).replace(b"\r\n\r\n", b"\r\nContent-Length: %d\r\n\r\n" % length, 1)
    assert warc.text_of(twice, "one.wet", 0) == found


@pytest.mark.parametrize("frames", [False, True])
def test_frames_and_small_files_get_half_the_window_of_large_ones(tmp_path: Path, frames: bool) -> None:
    """One large file is held open while others are looked into: two whole windows are too much for 300 MB."""
    head = b"\x28\xb5\x2f\xfd\x00" + bytes([(27 - 10) << 3])  # a frame that asks for 2**27 bytes
    one = blob(tmp_path / "one.zst", head + (3 << 3 | 1).to_bytes(3, "little") + b"abc")
    with pytest.raises(Unreadable, match="too much memory"):
        list(zstd_pieces(one, 0, members=frames))
