"""Sources of text in files: how soon the first document comes, how many a second after it, and in how much memory.

python -m benchmarks.oracle_sources --gibibytes 10      with bodies of another size than ``python -m benchmarks`` makes

For each kind of file a body of text of ``GIBIBYTES`` (``--quick``: a fifth of it) is made in a temporary folder, and
drawn from in a process of its own, whose memory and processor time are what is measured. The temporary folder is the
one that ``TMPDIR`` names.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from benchmarks.row import Row

GIBIBYTES: Final = 1.0
"""Of each body: unpacked for the compressed ones, since they are made of the same texts."""
DOCUMENTS: Final = 5_000
_VARIANTS: Final = 2_000
"""Texts that are made; bodies repeat them."""

MEASURED: Final = """
import json, sys, time
from pathlib import Path
from itertools import islice
from random import Random
began, used = time.perf_counter(), time.process_time()
from targon.oracle import open_source
documents = open_source(sys.argv[1]).documents(Random(1))
next(documents)
first = time.perf_counter() - began
used = time.process_time()
for _ in islice(documents, int(sys.argv[2])):
    pass
spent = time.process_time() - used
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
memory = int(peak.split()[1]) // 1024
print(json.dumps([first, int(sys.argv[2]) / spent, memory]))
"""


def run(quick: bool) -> list[Row]:
    """Measure."""
    return measure(int(GIBIBYTES * (1 << 30) / (5 if quick else 1)), DOCUMENTS // (5 if quick else 1))


def measure(size: int, documents: int) -> list[Row]:
    """Measure with bodies of that many bytes of text."""
    rows = []
    for name, kind, write in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), size)
            lies = sum(path.stat().st_size for path in Path(folder).rglob("*"))
            done = subprocess.run(
                [sys.executable, "-c", MEASURED, f"{kind}:{folder}", str(documents)],
                capture_output=True,
                text=True,
                check=True,
            )
        first, rate, memory = json.loads(done.stdout.splitlines()[-1])
        note = f"{size / (1 << 30):.1f} GiB of text in {lies / (1 << 30):.2f} GiB"
        rows += [
            Row(f"{name}: first document", first, "s", "< 1 s", f"{note}; with Python's start"),
            Row(f"{name}: documents", rate, "/s", note="by processor time"),
            Row(f"{name}: memory", memory, "MB", "<= 300 MB", "peak, resident"),
        ]
    return rows


def _texts() -> list[str]:
    random = Random(1)
    words = ["".join(random.choices("etaoinshrdlu", k=random.randrange(2, 10))) for _ in range(5_000)]
    return [" ".join(random.choices(words, k=random.randrange(50, 1_200))) for _ in range(_VARIANTS)]


def _batches(size: int) -> Iterator[list[str]]:
    """Texts of about that many bytes, a thousand at a time."""
    texts, random = _texts(), Random(2)
    while size > 0:
        batch = random.choices(texts, k=1_000)
        size -= sum(map(len, batch))
        yield batch


def _lines(size: int) -> Iterator[bytes]:
    for batch in _batches(size):
        yield b"".join(json.dumps({"text": text, "meta": {"url": "u"}}).encode() + b"\n" for text in batch)


def _plain(folder: Path, size: int) -> None:
    with (folder / "one.jsonl").open("wb") as file:
        file.writelines(_lines(size))


def _gzip(folder: Path, size: int) -> None:
    with gzip.open(folder / "one.jsonl.gz", "wb", 1) as file:
        for piece in _lines(size):
            file.write(piece)


def _zstd(folder: Path, size: int) -> None:
    with (
        (folder / "one.jsonl.zst").open("wb") as file,
        zstandard.ZstdCompressor().stream_writer(file) as stream,
    ):
        for piece in _lines(size):
            stream.write(piece)


def _parquet(folder: Path, size: int) -> None:
    schema = pa.schema([("text", pa.string())])
    with pq.ParquetWriter(folder / "one.parquet", schema, compression="zstd", use_dictionary=False) as writer:
        for batch in _batches(size):
            writer.write_table(pa.table({"text": batch}, schema))


def _wet(folder: Path, size: int) -> None:
    head = "WARC/1.0\r\nWARC-Type: conversion\r\nWARC-Target-URI: https://example.org/\r\nContent-Length: {}\r\n\r\n"
    with (folder / "one.warc.wet.gz").open("wb") as file:
        for batch in _batches(size):
            for text in batch:
                record = head.format(len(text)) + text + "\r\n\r\n"
                file.write(gzip.compress(record.encode(), 1))


KINDS: Final[list[tuple[str, str, Callable[[Path, int], None]]]] = [
    ("JSON lines", "redpajama", _plain),
    ("JSON lines, gzip", "redpajama", _gzip),
    ("JSON lines, zstd", "redpajama", _zstd),
    ("Parquet", "redpajama", _parquet),
    ("WET", "crawl", _wet),
]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Sources of text in files.")
    parser.add_argument("--gibibytes", type=float, default=GIBIBYTES, help="of text in each body")
    for row in measure(int(parser.parse_args().gibibytes * (1 << 30)), DOCUMENTS):
        print(f"{row.name}: {row.figure:,.2f} {row.unit} ({row.note})")
