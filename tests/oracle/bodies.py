"""Bodies of text as files, made with the libraries that others make them with."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

WORDS = (
    *("river", "stone", "cloud", "ember", "copper", "meadow", "signal", "lantern", "harbor", "thistle"),
    *("Größe", "漢字", "naïve", '"quoted"'),
)


def texts(count: int, seed: int = 1, lengths: Sequence[int] = (60, 300, 900, 2_500)) -> list[str]:
    """Texts of very different lengths, each with a first word that is its own."""
    random = Random(seed)
    made = []
    for index in range(count):
        length = random.choice(lengths)
        words = [f"text{index}"]
        while sum(map(len, words)) + len(words) < length:
            words.append(random.choice(WORDS) + str(random.randrange(1_000)))
        made.append(" ".join(words))
    return made


def json_lines(of: Sequence[str]) -> list[bytes]:
    """Lines as RedPajama has them; every other one escaped to ASCII, and some with much beside the text."""
    return [
        json.dumps(
            {"meta": {"url": f"https://example.org/{index}", "rest": "x" * (index % 7 * 50)}, "text": text},
            ensure_ascii=bool(index % 2),
        ).encode()
        + b"\n"
        for index, text in enumerate(of)
    ]


def in_pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def plain(folder: Path, of: Sequence[str]) -> None:
    half = len(of) // 2
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "one.jsonl").write_bytes(b"".join(json_lines(of[:half])))
    (folder / "deep" / "er" / "two.json").write_bytes(b"".join(json_lines(of[half:])).rstrip(b"\n"))


def gzip_stream(folder: Path, of: Sequence[str]) -> None:
    (folder / "one.jsonl.gz").write_bytes(gzip.compress(b"".join(json_lines(of))))


def gzip_members(folder: Path, of: Sequence[str]) -> None:
    """Cut anywhere, within lines too."""
    packed = [gzip.compress(piece) for piece in in_pieces(b"".join(json_lines(of)), 5_000)]
    (folder / "one.jsonl.gz").write_bytes(b"".join(packed))


def zstd_stream(folder: Path, of: Sequence[str]) -> None:
    (folder / "one.jsonl.zst").write_bytes(zstandard.ZstdCompressor().compress(b"".join(json_lines(of))))


def zstd_frames(folder: Path, of: Sequence[str]) -> None:
    """As pzstd writes them: cut anywhere, a skippable frame before each."""
    packer = zstandard.ZstdCompressor(write_checksum=True)
    frames = [packer.compress(piece) for piece in in_pieces(b"".join(json_lines(of)), 5_000)]
    skippable = b"\x50\x2a\x4d\x18\x04\x00\x00\x00size"
    (folder / "one.jsonl.zst").write_bytes(b"".join(skippable + frame for frame in frames))


def parquet(folder: Path, of: Sequence[str]) -> None:
    half = len(of) // 2
    columns = {"url": [f"https://example.org/{index}" for index in range(len(of))], "raw_content": list(of)}
    table = pa.table(columns)
    pq.write_table(table.slice(0, half), folder / "one.parquet", row_group_size=10)
    pq.write_table(table.slice(half), folder / "two.parquet", row_group_size=33, compression="zstd")


def warc_record(kind: str, content: bytes, address: str = "", content_type: str = "text/plain") -> bytes:
    head = [
        b"WARC/1.0",
        f"WARC-Type: {kind}".encode(),
        b"WARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-000000000001>",
        b"WARC-Date: 2026-01-02T03:04:05Z",
        *([f"WARC-Target-URI: {address}".encode()] if address else []),
        f"Content-Type: {content_type}".encode(),
        f"Content-Length: {len(content)}".encode(),
    ]
    return b"\r\n".join(head) + b"\r\n\r\n" + content + b"\r\n\r\n"


def conversion(index: int, text: str) -> bytes:
    return warc_record("conversion", text.encode(), f"https://example.org/{index}")


def response(
    index: int, body: bytes, headers: str = "Content-Type: text/html; charset=utf-8", status: str = "200 OK"
) -> bytes:
    content = f"HTTP/1.1 {status}\r\n{headers}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    kind = "application/http; msgtype=response"
    return warc_record("response", content, f"https://example.org/{index}", kind)


def page(text: str) -> bytes:
    paragraph = text.replace('"', "&quot;")
    head = "<head><title>A page</title></head>"
    body = f"<body><nav><a href=/>Home</a></nav><main><article><p>{paragraph}</p></article></main></body>"
    return f"<!doctype html><html>{head}{body}</html>".encode()


def wet(folder: Path, of: Sequence[str]) -> None:
    records = [warc_record("warcinfo", b"software: none")]
    records += [conversion(index, text) for index, text in enumerate(of)]
    (folder / "one.warc.wet.gz").write_bytes(b"".join(map(gzip.compress, records)))


def plain_wet(folder: Path, of: Sequence[str]) -> None:
    (folder / "one.wet").write_bytes(b"".join(conversion(index, text) for index, text in enumerate(of)))


def warc(folder: Path, of: Sequence[str]) -> None:
    records = []
    for index, text in enumerate(of):
        address = f"https://example.org/{index}"
        records.append(warc_record("request", b"GET / HTTP/1.1\r\n\r\n", address, "application/http"))
        records.append(response(index, page(text)))
    (folder / "one.warc.gz").write_bytes(b"".join(map(gzip.compress, records)))


REDPAJAMA: dict[str, Callable[[Path, Sequence[str]], None]] = {
    "plain": plain,
    "gzip": gzip_stream,
    "gzip members": gzip_members,
    "zstd": zstd_stream,
    "zstd frames": zstd_frames,
    "parquet": parquet,
}
CRAWL: dict[str, Callable[[Path, Sequence[str]], None]] = {
    "wet": wet,
    "plain wet": plain_wet,
    "warc": warc,
}
BODIES = {**{name: ("redpajama", write) for name, write in REDPAJAMA.items()}} | {
    name: ("crawl", write) for name, write in CRAWL.items()
}
"""Every kind of file, with the kind of source that reads it."""
