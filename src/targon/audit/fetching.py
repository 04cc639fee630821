"""Segments fetched from a verifier's gateway, or a mirror of it, into a folder. Whoever serves them is not trusted.

No redirect is followed, nothing is decompressed, every wait has a deadline and every file a bound: that of its kind,
then that of its manifest. No name comes from the other side: files are called what segments are called.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlsplit

import aiohttp
import anyio

from targon.audit.errors import Unreadable
from targon.audit.hashing import MAX_FILE_BYTES
from targon.audit.shelf import MAX_MESSAGE_BYTES
from targon.protocol.errors import MalformedMessage
from targon.protocol.messages import Message
from targon.protocol.segments import (
    INDEX,
    SegmentIndex,
    SegmentManifest,
    manifest_file,
    segment_file,
    transcripts_file,
)

M = TypeVar("M", bound=Message)

PATH: Final = "/v1/segments"
"""Where a gateway serves them."""
MAX_TRANSCRIPTS_BYTES: Final = 256 << 20
CONNECT_S: Final = 10.0
READ_S: Final = 30.0
"""Longest silence in the midst of an answer."""
FILE_S: Final = 600.0
"""Longest time for one file."""
LEFT_FREE_BYTES: Final = 1 << 30
"""Room that is left on the disk."""


def is_url(word: str) -> bool:
    """Whether a word names a place on the web, and no folder."""
    return word.startswith(("http://", "https://"))


async def fetch_segments(
    url: str, folder: Path, *, transcripts: bool = False, progress: Callable[[int, int], None] | None = None
) -> None:
    """Fetch everything that an index tells of. What lies in the folder already, whole, is not fetched again.

    Args:
        url: of a gateway, or of a folder that a web server serves as it lies.
        transcripts: whether to fetch the published answers as well.
        progress: told how many segments are here, of how many.

    Raises:
        Unreadable: naming the file, and what came instead.
        OSError: if it cannot be written.
    """
    parts = urlsplit(url)
    if parts.query or parts.fragment or parts.username is not None or not parts.hostname:
        raise Unreadable(
            f"got {url!r}, expected an address like https://host:port, without a query or a password"
        )
    base = url.rstrip("/") if parts.path.strip("/") else url.rstrip("/") + PATH
    await anyio.Path(folder).mkdir(parents=True, exist_ok=True)
    timeout = aiohttp.ClientTimeout(total=FILE_S, connect=CONNECT_S, sock_read=READ_S)
    async with aiohttp.ClientSession(
        timeout=timeout, auto_decompress=False, headers={"accept-encoding": "identity"}, trust_env=False
    ) as session:
        fetch = _Fetch(session, base, folder)
        index = _parsed(INDEX, await fetch.small(INDEX), SegmentIndex)
        for number in range(index.segments):
            name = manifest_file(number)
            manifest = _parsed(name, await fetch.small(name), SegmentManifest)
            await fetch.large(segment_file(number), manifest.body.size, MAX_FILE_BYTES)
            if transcripts and manifest.body.transcripts is not None:
                await fetch.large(transcripts_file(number), None, MAX_TRANSCRIPTS_BYTES)
            if progress is not None:
                progress(number + 1, index.segments)


def _parsed(name: str, data: bytes, kind: type[M]) -> M:
    try:
        return kind.from_bytes(data)
    except MalformedMessage as error:
        raise Unreadable(f"{name}: {error}") from error


class _Fetch:
    def __init__(self, session: aiohttp.ClientSession, base: str, folder: Path) -> None:
        self._session = session
        self._base = base
        self._folder = folder

    async def small(self, name: str) -> bytes:
        """A message's file, which is kept, too."""
        await self._get(name, MAX_MESSAGE_BYTES, None)
        return await anyio.Path(self._folder / name).read_bytes()

    async def large(self, name: str, size: int | None, most: int) -> None:
        """A file of lines; of so many bytes, if that is known."""
        path = anyio.Path(self._folder / name)
        if size is not None and await path.is_file() and (await path.stat()).st_size == size:
            return
        free = shutil.disk_usage(self._folder).free
        if free < (size or most) + LEFT_FREE_BYTES:
            raise Unreadable(
                f"{name}: there is no room for it: got {free} bytes free at {self._folder}, expected "
                f"{LEFT_FREE_BYTES} to be left"
            )
        await self._get(name, most if size is None else min(size, most), size)

    async def _get(self, name: str, most: int, size: int | None) -> None:
        part = self._folder / (name + ".part")
        got = 0
        try:
            async with (
                self._session.get(f"{self._base}/{name}", allow_redirects=False) as response,
                await anyio.open_file(part, "wb") as file,
            ):
                if response.status != 200:
                    where = response.headers.get("location", "")[:200]
                    raise Unreadable(
                        f"{name}: got status {response.status}"
                        + (f", a redirect to {where!r}" if where else "")
                        + ", expected 200"
                    )
                if response.headers.get("content-encoding", "identity") != "identity":
                    raise Unreadable(f"{name}: got it compressed, expected it as it lies")
                async for piece in response.content.iter_chunked(1 << 20):
                    got += len(piece)
                    if got > most:
                        raise Unreadable(
                            f"{name}: got more than {most} bytes, expected {size or 'at most that'}"
                        )
                    await file.write(piece)
        except TimeoutError as error:
            raise Unreadable(
                f"{name}: got nothing for {READ_S:.0f} s, or not all within {FILE_S:.0f} s; expected it sooner"
            ) from error
        except aiohttp.ClientError as error:
            raise Unreadable(f"{name}: {type(error).__name__}: {error}; expected an answer") from error
        finally:
            if got == 0 or got > most:
                part.unlink(missing_ok=True)
        if size is not None and got != size:
            part.unlink(missing_ok=True)
            raise Unreadable(f"{name}: got {got} bytes, expected {size}, as its manifest says")
        part.replace(self._folder / name)
