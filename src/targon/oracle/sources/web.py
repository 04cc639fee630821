"""Files on web servers, read in ranges over HTTP; taken whole, within bounds, where a server gives no ranges.

Addresses come from operators and from lists that others publish, so they are looked at: http and https only, no user
names, and no address of this machine or of a private network, unless a setting allows it. The address that was looked
at is the one that is connected to, and every redirect is looked at again. Proxies of the environment aren't used.
"""

from __future__ import annotations

import http.client
import ipaddress
import re
import shutil
import socket
import ssl
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urljoin, urlsplit

from targon.oracle.sources.blobs import LocalBlob
from targon.oracle.sources.limits import WEB_LIMITS, WebLimits
from targon.oracle.sources.skipped import Unreadable

_RANGE: Final = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")
_AHEAD: Final = 1 << 18
"""Read at least, at once."""
_PIECE: Final = 1 << 18
_PAUSE_S: Final = 0.5
"""Before another attempt; twice as long before the next."""
_KEPT: Final = 8
"""Idle connections."""
_TRANSLATED: Final = ipaddress.ip_network("64:ff9b::/96")
_OF_NOBODY: Final = (ipaddress.ip_network("::/96"), ipaddress.ip_network("64:ff9b:1::/48"))
"""IPv4 within IPv6 as it was once written, and as a network may do for itself."""

Key = tuple[str, str, int]


class Web:
    """Answers of web servers, to one thread or several.

    Args:
        allow_private: whether addresses of this machine and of private networks may be asked.
    """

    def __init__(self, *, allow_private: bool = False, limits: WebLimits = WEB_LIMITS) -> None:
        self._allow_private = allow_private
        self._limits = limits
        self._tls = ssl.create_default_context()
        self._lock = threading.Lock()
        self._idle: dict[Key, http.client.HTTPConnection] = {}
        self._spool: Path | None = None
        self._spooled = 0
        weakref.finalize(self, _close, self._idle)

    def close(self) -> None:
        """Close idle connections."""
        with self._lock:
            _close(self._idle)

    def open(self, url: str) -> RemoteBlob | LocalBlob:
        """A file: read in ranges, or taken whole now.

        Raises:
            Unreadable: if it can't be had, or is too large to be taken whole.
        """
        with self._answer(url, "bytes=0-0", self._limits.download_s) as answer:
            if answer.status == 206:
                return RemoteBlob(self, url, shown(url), _range(answer)[1])
            return self._take(url, answer)

    def text(self, url: str) -> bytes:
        """A small file.

        Raises:
            Unreadable: if it can't be had, or is too large.
        """
        with self._answer(url, None, self._limits.request_s) as answer:
            data = answer.read(self._limits.list_bytes + 1)
            if len(data) > self._limits.list_bytes:
                raise Unreadable("too_long", f"got more than {self._limits.list_bytes} bytes")
            return data

    def piece(self, url: str, start: int, length: int, size: int) -> bytes:
        """A range of a file.

        Raises:
            Unreadable: if it can't be had, or the file's size changed.
        """
        for attempt in range(self._limits.attempts):
            if attempt:
                time.sleep(_PAUSE_S * 2 ** (attempt - 1))
            try:
                with self._answer(
                    url, f"bytes={start}-{start + length - 1}", self._limits.request_s
                ) as answer:
                    if answer.status != 206 or _range(answer) != (start, size):
                        raise Unreadable("shrunk", "the server has another file there", start)
                    data = answer.read(length)
                if len(data) == length:
                    return data
            except Unreadable as error:
                if error.reason != "unreadable" or attempt + 1 == self._limits.attempts:
                    raise
        raise Unreadable("truncated", f"expected {length} bytes", start)

    # -- one request -----------------------------------------------------------------------------------

    @contextmanager
    def _answer(self, url: str, wanted: str | None, within_s: float) -> Iterator[http.client.HTTPResponse]:
        """An answer, redirects followed; afterwards its connection is kept if it was read to its end."""
        until = time.monotonic() + within_s
        late = f"{shown(url)}: it takes more than {within_s:.0f} s"
        for _ in range(self._limits.redirects + 1):
            key = self._key(url)
            parts = urlsplit(url)
            connection = self._connection(key)
            watch = threading.Timer(max(0.0, until - time.monotonic()), _cut, [connection.sock])
            watch.daemon = True
            watch.start()
            try:
                target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
                connection.putrequest("GET", target, skip_accept_encoding=True)
                for name, value in (
                    ("Accept-Encoding", "identity"),
                    ("User-Agent", "targon"),
                    ("Range", wanted),
                ):
                    if value:
                        connection.putheader(name, value)
                connection.endheaders()
                with connection.getresponse() as answer:
                    if answer.status in {301, 302, 303, 307, 308} and (onwards := answer.headers["Location"]):
                        url = urljoin(url, onwards)
                        continue
                    if answer.status not in {200, 206}:
                        raise Unreadable("unreadable", f"{shown(url)}: got status {answer.status}")
                    if (answer.headers["Content-Encoding"] or "identity") != "identity":
                        raise Unreadable("unreadable", f"{shown(url)}: it comes compressed")
                    yield answer
                    if time.monotonic() > until:  # and so it was cut, which can look like its end
                        raise Unreadable("unreadable", late)
                    if answer.isclosed() and not answer.will_close:
                        self._keep(key, connection)
                return
            except (OSError, http.client.HTTPException, ValueError) as error:
                if time.monotonic() > until:  # or like a connection that broke
                    raise Unreadable("unreadable", late) from error
                raise Unreadable("unreadable", f"{shown(url)}: {type(error).__name__} {error}") from error
            finally:
                watch.cancel()
                if self._idle.get(key) is not connection:
                    connection.close()
        raise Unreadable("unreadable", f"{shown(url)}: more than {self._limits.redirects} redirects")

    def _key(self, url: str) -> Key:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise Unreadable("unreadable", f"{error}") from error
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username is not None:
            raise Unreadable(
                "unreadable", f"{shown(url)}: expected an address of http or https without a user name"
            )
        return parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80)

    def _connection(self, key: Key) -> http.client.HTTPConnection:
        with self._lock:
            kept = self._idle.pop(key, None)
        if kept is not None and kept.sock is not None and not _readable(kept.sock):
            return kept
        if kept is not None:
            kept.close()
        return self._connect(*key)

    def _connect(self, scheme: str, host: str, port: int) -> http.client.HTTPConnection:
        try:
            listed = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise Unreadable("unreadable", f"{host}: {error}") from error
        found = list(dict.fromkeys(str(address[0]) for *_, address in listed))
        for address in found:
            if not (self._allow_private or is_public(address)):
                raise Unreadable("unreadable", f"{host} is at {address}, which is no public address")
        connection = http.client.HTTPConnection(host, port)
        connection.auto_open = 0  # it would look the name up again, and go wherever that leads
        for index, address in enumerate(found):
            try:
                connection.sock = socket.create_connection((address, port), self._limits.connect_s)
                connection.sock.settimeout(self._limits.idle_s)
                if scheme == "https":
                    connection.default_port = 443
                    connection.sock = self._tls.wrap_socket(connection.sock, server_hostname=host)
                break
            except OSError as error:
                connection.close()
                if index + 1 == len(found):
                    raise Unreadable("unreadable", f"{host}: {error}") from error
        return connection

    def _keep(self, key: Key, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            if len(self._idle) < _KEPT:
                self._idle.setdefault(key, connection)

    def _take(self, url: str, answer: http.client.HTTPResponse) -> LocalBlob:
        with self._lock:
            if self._spool is None:
                self._spool = Path(tempfile.mkdtemp(prefix="targon-oracle-"))
                weakref.finalize(self, shutil.rmtree, self._spool, ignore_errors=True)
        size = 0
        with tempfile.NamedTemporaryFile(dir=self._spool, delete=False) as file:
            path = Path(file.name)
            while data := answer.read(_PIECE):
                size += len(data)
                with self._lock:
                    self._spooled += len(data)
                    full = self._spooled > self._limits.download_bytes
                if full:
                    path.unlink()
                    with self._lock:
                        self._spooled -= size
                    raise Unreadable(
                        "too_long", f"{shown(url)}: its server gives no ranges, and it is too large"
                    )
                file.write(data)
        if answer.length:
            raise Unreadable("truncated", f"{shown(url)}: {answer.length} bytes are missing")
        return _Taken(self, str(path), shown(url), size)


class _Taken(LocalBlob):
    """A file that was taken whole. It lies where it is as long as what took it is there."""

    __slots__ = ("_web",)

    def __init__(self, web: Web, path: str, name: str, size: int) -> None:
        super().__init__(path, name, size)
        self._web = web


class RemoteBlob:
    """A file on a web server."""

    near = False

    def __init__(self, web: Web, url: str, name: str, size: int) -> None:
        self._web = web
        self._url = url
        self.name = name
        self.size = size
        self._held = b""
        self._held_at = 0

    def read(self, start: int, length: int) -> bytes:
        wanted = min(length, self.size - start)
        if wanted <= 0:
            return b""
        place = start - self._held_at
        if place < 0 or place + wanted > len(self._held):
            more = min(max(wanted, _AHEAD), self.size - start)
            self._held, self._held_at = self._web.piece(self._url, start, more, self.size), start
            place = 0
        return self._held[place : place + wanted]

    def close(self) -> None:
        """Drop what was read ahead, and close the server's idle connections."""
        self._held = b""
        self._web.close()


def shown(url: str) -> str:
    """An address without what may be secret in it."""
    return url.partition("#")[0].partition("?")[0] if "@" not in url.partition("?")[0] else "an address"


def is_public(address: str) -> bool:
    """Whether an address may be asked by a machine that has private neighbours."""
    number = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(number, ipaddress.IPv6Address):
        inner = number.ipv4_mapped or number.sixtofour or (number.teredo or (None, None))[1]
        if number in _TRANSLATED:
            inner = ipaddress.IPv4Address(int(number) & 0xFFFFFFFF)
        if inner is not None:
            return inner.is_global and not inner.is_multicast
        if number.is_site_local or any(number in network for network in _OF_NOBODY):
            return False
    return number.is_global and not number.is_multicast


def _range(answer: http.client.HTTPResponse) -> tuple[int, int]:
    """Where in its file an answer begins, and the file's size."""
    found = _RANGE.fullmatch(answer.headers["Content-Range"] or "")
    if found is None:
        raise Unreadable("unreadable", "the answer doesn't say which range it is")
    return int(found[1]), int(found[3])


def _readable(sock: socket.socket) -> bool:
    """Whether something came on an idle connection: its end, most likely."""
    sock.settimeout(0)
    try:
        return sock.recv(1, 0 if isinstance(sock, ssl.SSLSocket) else socket.MSG_PEEK) is not None
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    except OSError:
        return True
    finally:
        sock.settimeout(WEB_LIMITS.idle_s)


def _close(idle: dict[Key, http.client.HTTPConnection]) -> None:
    for connection in idle.values():
        connection.close()
    idle.clear()


def _cut(sock: socket.socket) -> None:
    """End an answer whose time is over, from another thread."""
    try:
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
    except OSError:
        return
