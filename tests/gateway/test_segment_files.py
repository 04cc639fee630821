"""Segments are served as they lie in their folder, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from targon.gateway.segments import SegmentFiles

pytestmark = pytest.mark.anyio


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "log.sqlite").write_bytes(b"private")
    folder = tmp_path / "segments"
    folder.mkdir()
    (folder / "index.json").write_bytes(b"{}\n")
    (folder / "segment-00000000.json").write_bytes(b'{"body":{}}\n')
    (folder / "segment-00000000.jsonl").write_bytes(b"0123456789\n")
    (folder / "segment-00000001.jsonl.part").write_bytes(b"unfinished")
    (folder / "segment-00000002.jsonl").symlink_to(tmp_path / "log.sqlite")
    return folder


async def get(folder: Path, target: str, **headers: str) -> httpx.Response:
    transport = httpx.ASGITransport(SegmentFiles(folder))
    async with httpx.AsyncClient(transport=transport, base_url="http://verifier") as client:
        return await client.get(target, headers=headers)


async def test_what_lies_there_is_served_as_it_is(folder: Path) -> None:
    index = await get(folder, "/v1/segments/index.json")
    assert (index.status_code, index.content, index.headers["cache-control"]) == (200, b"{}\n", "no-cache")
    manifest = await get(folder, "/v1/segments/segment-00000000.json")
    assert (manifest.content, manifest.headers["content-type"]) == (b'{"body":{}}\n', "application/json")
    content = await get(folder, "/v1/segments/segment-00000000.jsonl")
    assert (content.status_code, content.content) == (200, b"0123456789\n")
    assert content.headers["content-type"].startswith("application/x-ndjson")


async def test_a_part_is_served_to_who_asks_for_it(folder: Path) -> None:
    part = await get(folder, "/v1/segments/segment-00000000.jsonl", Range="bytes=4-")
    assert (part.status_code, part.content) == (206, b"456789\n")


@pytest.mark.parametrize(
    "name",
    [
        "segment-00000009.jsonl",
        "segment-00000001.jsonl.part",
        "segment-00000002.jsonl",
        "segment-0.jsonl",
        "log.sqlite",
        "..%2flog.sqlite",
        "%2e%2e/log.sqlite",
        "segment-00000000.jsonl%00",
        "",
    ],
)
async def test_nothing_else_is_served(folder: Path, name: str) -> None:
    assert (await get(folder, f"/v1/segments/{name}")).status_code == 404
