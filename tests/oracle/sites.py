"""Hosts on this machine's loopback addresses that write down who asks them for what, and when."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from random import Random
from threading import Thread

WORDS = ["river", "stone", "market", "winter", "letter", "garden", "teacher", "harbour", "silver", "morning"]


@dataclass(frozen=True)
class Asked:
    """One request, as the host saw it."""

    began: float
    path: str
    headers: Mapping[str, str]


Act = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Site:
    """A host. A page is its bytes, or what is done when it is asked for."""

    authority: str
    pages: dict[str, bytes | Act] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    def url(self, path: str) -> str:
        return f"http://{self.authority}{path}"

    @property
    def paths(self) -> list[str]:
        """What was asked for, in order, without robots.txt."""
        return [asked.path for asked in self.asked if asked.path != "/robots.txt"]

    @property
    def gaps(self) -> list[float]:
        """Seconds between the requests."""
        times = [asked.began for asked in self.asked]
        return [later - sooner for sooner, later in pairwise(times)]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def do_GET(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.site.asked.append(Asked(time.monotonic(), self.path, headers))
        page = self.site.pages.get(self.path)
        if page is None:
            reply(404)(self)
        elif isinstance(page, bytes):
            reply(200, page)(self)
        else:
            page(self)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass


def reply(status: int, body: bytes = b"", kind: str = "text/html; charset=utf-8", **headers: str) -> Act:
    """An answer; underscores in headers' names stand for hyphens."""

    def act(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content_Type": kind, "Content_Length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        try:
            handler.wfile.write(body)
        except OSError:
            handler.close_connection = True  # who asked had enough

    return act


def in_turn(*acts: Act) -> Act:
    """One after the other; the last for ever."""
    left = list(acts)
    return lambda handler: (left.pop(0) if len(left) > 1 else left[0])(handler)


def prose(seed: int, chars: int = 600) -> str:
    random = Random(seed)
    text = f"Number {seed} of the articles."
    while len(text) < chars:
        text += f" The {' '.join(random.choice(WORDS) for _ in range(9))} was seen again by the {random.choice(WORDS)}."
    return text


def article(seed: int, *links: str, head: str = "", chars: int = 600) -> bytes:
    anchors = "".join(f"<li><a href='{link}'>to {link}</a></li>" for link in links)
    return (
        f"<!doctype html><html><head><title>{seed}</title>{head}</head><body><nav><ul>{anchors}</ul></nav>"
        f"<main><article><p>{prose(seed, chars)}</p></article></main></body></html>"
    ).encode()


@contextmanager
def site(address: str = "127.0.0.2") -> Iterator[Site]:
    """A host at a loopback address; it has no robots.txt unless one is put in."""
    server = ThreadingHTTPServer((address, 0), _Handler, bind_and_activate=False)
    server.request_queue_size = 32
    server.daemon_threads = True
    server.server_bind()
    server.server_activate()
    served = Site(f"{address}:{server.server_address[1]}")
    server.RequestHandlerClass = type("Handler", (_Handler,), {"site": served})
    thread = Thread(target=partial(server.serve_forever, 0.02))
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
