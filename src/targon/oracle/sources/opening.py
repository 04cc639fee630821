"""From a source's name, as it stands in a flag, to the source.

``embedded``                    the documentation of this Python's standard library
``redpajama:PATH`` or ``URL``   JSON lines or Parquet: a folder, a file, or a list of addresses
``crawl:PATH`` or ``URL``       WARC or WET: the same
``live:FILE``                   pages of hosts that the settings in this file name, crawled from the first draw on

A list is a file that ends in ``.txt``, ``.paths`` or ``.paths.gz``, with an address on each line; those without a
server are on the list's own, as Common Crawl publishes them.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final
from urllib.parse import urljoin, urlsplit

from targon.oracle.errors import NothingReadable, UnknownSource
from targon.oracle.sources import files
from targon.oracle.sources.blobs import Blob, local_blobs
from targon.oracle.sources.files import FileText
from targon.oracle.sources.limits import WEB_LIMITS
from targon.oracle.sources.live import LiveText
from targon.oracle.sources.skipped import Skipped, Unreadable
from targon.oracle.sources.standard_library import StandardLibraryText
from targon.oracle.sources.web import Web, shown

SOURCES: Final = "one of: embedded, redpajama:PATH, redpajama:URL, crawl:PATH, crawl:URL, live:FILE"
_LISTS: Final = (".txt", ".paths", ".paths.gz")
_KINDS: Final[dict[str, tuple[Sequence[str], str, Callable[[str, Sequence[Blob], Skipped], FileText]]]] = {
    "redpajama": (files.REDPAJAMA_ENDINGS, files.REDPAJAMA_EXPECTED, files.redpajama),
    "crawl": (files.CRAWL_ENDINGS, files.CRAWL_EXPECTED, files.crawled),
}


def open_source(spec: str, *, allow_private: bool = False) -> FileText | LiveText | StandardLibraryText:
    """A source by its name. It blocks: sizes are looked up, and of a list of addresses each is asked.

    Args:
        allow_private: whether web servers on this machine and in private networks may be asked.

    Raises:
        UnknownSource: if no source has that name.
        NothingReadable: if there is nothing where it should be.
        NoText: if this Python has no documentation.
        SourceError: if the settings of a live crawl don't fit.
    """
    if spec == "embedded":
        return StandardLibraryText()
    kind, _, where = spec.partition(":")
    if kind == "live" and where:
        return LiveText(Path(where), allow_private=allow_private)
    if kind not in _KINDS or not where:
        raise UnknownSource(spec, SOURCES)
    endings, expected, build = _KINDS[kind]
    skipped = Skipped()
    if "://" in where:
        name, blobs = (
            f"{kind}:{shown(where)}",
            _from_web(where, Web(allow_private=allow_private), skipped, endings),
        )
    else:
        name, blobs = f"{kind}:{where}", _from_here(Path(where), allow_private, skipped, endings)
    if not blobs:
        raise NothingReadable(name, _nothing(where), expected, skipped.counts)
    return build(name, blobs, skipped)


def _nothing(where: str) -> str:
    if "://" in where or Path(where).is_dir():
        return "no file of a known format"
    return "no such file of a known format" if Path(where).exists() else "no such file or folder"


def _from_here(path: Path, allow_private: bool, skipped: Skipped, endings: Sequence[str]) -> Sequence[Blob]:
    if not path.name.lower().endswith(_LISTS) or not path.is_file():
        return local_blobs(path, skipped, endings)
    with path.open("rb") as file:
        data = file.read(WEB_LIMITS.list_bytes + 1)
    return _listed(path.name, data, None, Web(allow_private=allow_private), skipped, endings)


def _from_web(url: str, web: Web, skipped: Skipped, endings: Sequence[str]) -> Sequence[Blob]:
    if not _ends(url, _LISTS):
        return _asked([url], web, skipped, endings)
    try:
        data = web.text(url)
    except Unreadable as error:
        skipped.note(error.reason, shown(url), error.detail)
        return []
    return _listed(shown(url), data, url, web, skipped, endings)


def _listed(
    name: str, data: bytes, url: str | None, web: Web, skipped: Skipped, endings: Sequence[str]
) -> Sequence[Blob]:
    """The files of a list."""
    try:
        if name.endswith(".gz"):
            data = zlib.decompressobj(wbits=31).decompress(data, WEB_LIMITS.list_bytes + 1)
        lines = data.decode("utf-8").split(None, WEB_LIMITS.list_lines)[: WEB_LIMITS.list_lines]
    except (zlib.error, UnicodeDecodeError) as error:
        skipped.note("corrupt", name, str(error))
        return []
    if len(data) > WEB_LIMITS.list_bytes:
        skipped.note("too_long", name, f"a list of more than {WEB_LIMITS.list_bytes} bytes")
        return []
    urls = []
    for line in dict.fromkeys(lines):
        if "://" in line:
            urls.append(line)
        elif url is not None:
            urls.append(urljoin(url, "/" + line.lstrip("/")))
        else:
            skipped.note("unreadable", name, f"{line[:80]!r} is no address")
    if len(urls) > WEB_LIMITS.urls:
        skipped.note("too_many", name, f"{len(urls)} addresses, of which {WEB_LIMITS.urls} are used")
        urls = sorted(urls, key=lambda each: hashlib.sha256(each.encode()).digest())[: WEB_LIMITS.urls]
    return _asked(sorted(urls), web, skipped, endings)


def _asked(urls: Sequence[str], web: Web, skipped: Skipped, endings: Sequence[str]) -> Sequence[Blob]:
    def ask(url: str) -> Blob | Unreadable:
        try:
            return web.open(url) if _ends(url, endings) else Unreadable("unknown_format")
        except Unreadable as error:
            return error

    blobs: list[Blob] = []
    with ThreadPoolExecutor(WEB_LIMITS.at_once) as pool:
        for url, found in zip(urls, pool.map(ask, urls), strict=True):
            if isinstance(found, Unreadable):
                skipped.note(found.reason, shown(url), found.detail)
            elif found.size:
                blobs.append(found)
    return blobs


def _ends(url: str, endings: Sequence[str]) -> bool:
    """Whether an address ends so. One that is none does: whoever asks for it says what is wrong with it."""
    try:
        return urlsplit(url).path.lower().endswith(tuple(endings))
    except ValueError:
        return True
