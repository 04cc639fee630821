"""What hosts may send to a crawl, by fault or on purpose."""

from __future__ import annotations

import gzip
import time
import tracemalloc
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from targon.oracle.sources.live.urls import normalised, trap
from tests.oracle.crawling import SHORT, crawl, settings_for, texts
from tests.oracle.sites import Act, article, prose, reply, site

pytestmark = pytest.mark.anyio
BOUND = replace(SHORT, body_bytes=100_000)


def drip(handler) -> None:
    """A byte now and then, for ever."""
    handler.send_response(200)
    handler.send_header("Content-Type", "text/html")
    handler.end_headers()
    handler.close_connection = True
    try:
        while True:
            handler.wfile.write(b"x")
            time.sleep(0.05)
    except OSError:
        return


def endless(handler) -> None:
    """More than its bound, of no length that was said."""
    handler.send_response(200)
    handler.send_header("Content-Type", "text/html")
    handler.end_headers()
    handler.close_connection = True
    try:
        while True:
            handler.wfile.write(b"x" * 10_000)
    except OSError:
        return


def packed(body: bytes, encoding: str = "gzip") -> Act:
    return reply(200, body, Content_Encoding=encoding)


def latin(text: str, charset: str) -> Act:
    return reply(200, article(1).replace(b"Number", text.encode(charset)), f"text/html; charset={charset}")


HOSTILE: dict[str, tuple[Act, str]] = {
    "one that drips": (drip, "slow"),
    "one without an end": (endless, "large"),
    "one that says how long it is": (reply(200, b"x" * 200_000), "large"),
    "a bomb": (packed(gzip.compress(b"x" * 50_000_000)), "bomb"),
    "a bomb in many members": (packed(gzip.compress(b"x" * 60_000) * 50), "bomb"),
    "a bomb that is bare": (packed(zlib.compress(b"x" * 50_000_000)[2:-4], "deflate"), "bomb"),
    "noise that says it is packed": (packed(b"no gzip at all"), "corrupt"),
    "packed data that is cut": (packed(gzip.compress(article(1))[:100]), "corrupt"),
    "an encoding that was not asked for": (packed(b"x", "br"), "other_kind"),
    "a picture": (reply(200, b"\x89PNG", "image/png"), "other_kind"),
    "no type at all": (reply(200, article(1), ""), "other_kind"),
    "noise that says it is text": (
        reply(200, bytes(range(128, 256)) * 50, "text/plain; charset=utf-8"),
        "not_unicode",
    ),
    "elements within one another": (reply(200, b"<div>" * 10_000 + article(1)), "corrupt"),
    "a short answer": (reply(200, b"<p>Short.</p>"), "empty"),
    "a page that is gone": (reply(410), "gone"),
    "a page for members": (reply(401), "gone"),
    "a header without an end": (reply(200, article(1), X_Long="x" * 20_000), "unreachable"),
}


def raw(head: bytes) -> Act:
    def act(handler) -> None:
        handler.wfile.write(b"HTTP/1.1 " + head + b"\r\nConnection: close\r\n\r\n")
        handler.close_connection = True

    return act


def noise(handler) -> None:
    handler.wfile.write(b"\x16\x03\x01\r\n\r\n")
    handler.close_connection = True


HOSTILE |= {
    "a redirect to noise": (raw(b"302 Found\r\nLocation: ftp://\xff\xfe/\xc3"), "off_list"),
    "a redirect without an address": (reply(302), "off_list"),
    "a validator that is noise": (
        raw(b"200 OK\r\nContent-Type: text/html\r\nETag: \xff\xfe\xed\xa0\x80\r\nLast-Modified: \xff"),
        "empty",
    ),
    "links that are noise": (
        reply(200, b"<p>Short</p><a href='http://\xff\xed\xa0\x80'>x</a><a href='//[x'>&#xd800;</a>"),
        "empty",
    ),
    "text that is half characters": (reply(200, b"<p>" + b"&#xD800; and &#0; " * 5 + b"</p>"), "empty"),
    "a length that isn't kept": (
        raw(b"200 OK\r\nContent-Type: text/html\r\nContent-Length: 100"),
        "unreachable",
    ),
    "no HTTP": (noise, "unreachable"),
    "a type that is noise": (raw(b"200 OK\r\nContent-Type: \xff/;;;charset=\x00"), "unreachable"),
    "a status that is none": (raw(b"999 Odd\r\nContent-Type: text/html"), "broken"),
}


@pytest.mark.parametrize("what", HOSTILE)
async def test_what_can_t_be_used_is_counted_by_name_and_the_crawl_goes_on(tmp_path: Path, what: str) -> None:
    act, reason = HOSTILE[what]
    with site() as one:
        one.pages |= {"/": article(1, "/good", "/odd"), "/odd": act, "/good": article(2)}
        counts = await crawl(
            tmp_path / "s",
            settings_for(one),
            lambda store: store.counts()["taken"] == 2 and store.counts()[reason] > 0,
            limits=replace(BOUND, request_s=3.0) if reason == "slow" else BOUND,
        )
        assert set(counts) == {"taken", reason}
        assert set(texts(tmp_path / "s")) == {one.url("/"), one.url("/good")}


async def test_a_bomb_is_unpacked_no_further_than_its_bound(tmp_path: Path) -> None:
    with site() as one:
        one.pages["/"] = packed(gzip.compress(b"x" * 50_000_000))
        tracemalloc.start()
        try:
            await crawl(
                tmp_path / "s", settings_for(one), lambda store: store.counts()["bomb"] > 0, limits=BOUND
            )
            assert tracemalloc.get_traced_memory()[1] < 20_000_000
        finally:
            tracemalloc.stop()


async def test_the_environments_proxies_are_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with site("127.0.0.3") as proxy, site() as one:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url(""))
        one.pages["/"] = article(1)
        await crawl(tmp_path / "s", settings_for(one), lambda store: sum(store.counts().values()) > 0)
        assert one.paths == ["/"]
        assert proxy.asked == []


@pytest.mark.parametrize(
    ("act", "expected"),
    [
        (packed(gzip.compress(article(1))), "Number 1"),
        (packed(gzip.compress(article(1)[:300]) + gzip.compress(article(1)[300:])), "Number 1"),
        (packed(gzip.compress(article(1)) + b"behind the end"), "Number 1"),
        (packed(zlib.compress(article(1)), "deflate"), "Number 1"),
        (packed(zlib.compress(article(1))[2:-4], "deflate"), "Number 1"),
        (reply(200, prose(1).encode(), "text/plain"), "Number 1"),
        (latin("Käse für Łódź", "iso-8859-2"), "Käse für Łódź"),
        (latin("Привет", "windows-1251"), "Привет"),
        (
            reply(
                200, article(1).replace(b"Number", "naïve".encode("latin-1")), "text/html; charset=unknown"
            ),
            "naïve",
        ),
        (
            reply(
                200,
                article(1, head="<meta charset=shift_jis>").replace(b"Number", "日本語".encode("shift_jis")),
                "text/html",
            ),
            "日本語",
        ),
    ],
)
async def test_pages_are_unpacked_and_decoded_as_they_say(tmp_path: Path, act: Act, expected: str) -> None:
    with site() as one:
        one.pages["/"] = act
        await crawl(tmp_path / "s", settings_for(one), lambda store: store.counts()["taken"] == 1)
        assert expected in texts(tmp_path / "s")[one.url("/")]


@pytest.mark.parametrize(
    ("page", "used", "followed"),
    [
        (article(1, "/a", head="<meta name=robots content='NOINDEX'>"), False, True),
        (article(1, "/a", head="<meta name='Robots' content='index, nofollow'>"), True, False),
        (article(1, "/a", head="<meta name=targon content=none>"), False, False),
        (article(1, "/a", head="<meta name=otherbot content=noindex>"), True, True),
        (article(1, "/a", head="<meta name=tdm-reservation content=1>"), False, True),
        (reply(200, article(1, "/a"), X_Robots_Tag="noindex, nofollow"), False, False),
        (reply(200, article(1, "/a"), X_Robots_Tag="targon: noindex"), False, True),
        (reply(200, article(1, "/a"), X_Robots_Tag="otherbot: noindex"), True, True),
        (reply(200, article(1, "/a"), tdm_reservation="1"), False, True),
        (article(1, "/a' rel='external nofollow"), True, False),
        (article(1, "a", head="<base href=/deep/>"), True, False),
    ],
)
async def test_pages_say_whether_they_are_used_and_followed(
    tmp_path: Path, page: bytes | Act, used: bool, followed: bool
) -> None:
    with site() as one:
        one.pages |= {"/": page, "/a": article(2)}
        await crawl(
            tmp_path / "s",
            settings_for(one),
            lambda store: sum(store.counts().values()) > followed,
            more_s=0.15,
        )
        assert ("/a" in one.paths) is followed
        expected = {"/": used, "/a": followed}
        assert set(texts(tmp_path / "s")) == {one.url(path) for path, there in expected.items() if there}


async def test_a_calendar_without_an_end_is_left(tmp_path: Path) -> None:
    limits = replace(SHORT, same_shape=10, poll_s=0.005)
    with site() as one:
        for month in range(500):
            one.pages[f"/calendar/{month}"] = article(
                month, *(f"/calendar/{month + step}" for step in range(1, 9))
            )
        one.pages["/"] = article(1_000, "/calendar/0", "/real")
        one.pages["/real"] = article(1_001)
        settings = settings_for(one, depth=10, least_seconds=0.01)
        counts = await crawl(
            tmp_path / "s", settings, lambda store: store.counts()["taken"] == 12, limits=limits, more_s=0.3
        )
        assert len(one.paths) == 12
        assert counts["trap"] > 8


async def test_the_same_text_at_other_addresses_is_taken_once_and_its_links_are_not_followed(
    tmp_path: Path,
) -> None:
    with site() as one:
        one.pages |= {"/": article(1, *(f"/{name}/x" for name in "abc"))}
        one.pages |= {f"/{name}/x": article(2, f"/{name}/deeper") for name in "abc"}
        one.pages |= {f"/{name}/deeper": article(ord(name)) for name in "abc"}
        counts = await crawl(
            tmp_path / "s",
            settings_for(one),
            lambda store: (store.counts()["taken"], store.counts()["duplicate"]) == (3, 2),
            more_s=0.2,
        )
        assert counts == {"taken": 3, "duplicate": 2}
        assert len([path for path in one.paths if path.endswith("deeper")]) == 1


async def test_a_host_fills_no_more_than_its_share(tmp_path: Path) -> None:
    limits = replace(SHORT, urls_per_host=20, links=1_000)
    with site() as one:
        names = [f"/{first}{second}" for first in "abcdefghij" for second in "klmnopqrst"]
        one.pages |= {name: article(index) for index, name in enumerate(names)} | {"/": article(500, *names)}
        counts = await crawl(
            tmp_path / "s",
            settings_for(one, least_seconds=0.01),
            lambda store: store.counts()["taken"] == 20,
            limits=limits,
            more_s=0.2,
        )
        assert len(one.paths) == 20
        assert counts == {"taken": 20, "trap": 81}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("HTTP://Example.ORG:80/a/../b//c?utm_source=x&b=2&a=1#part", "http://example.org/b/c?a=1&b=2"),
        ("https://e.org:443", "https://e.org/"),
        ("http://e.org:8080/x/", "http://e.org:8080/x/"),
        ("http://e.org./%7eu/%2e%2e/ä", "http://e.org/%C3%A4"),
        ("http://e.org/list;jsessionid=F00?page", "http://e.org/list?page"),
        ("http://bücher.de/", "http://xn--bcher-kva.de/"),
        ("  /rel\native ", "http://base.org/relative"),
        ("//other.org/x", "http://other.org/x"),
        ("?next=2", "http://base.org/at?next=2"),
        ("http://me:secret@e.org/", None),
        ("ftp://e.org/", None),
        ("javascript:alert(1)", None),
        ("http://[::1]/", None),
        ("http://e.org:99999/", None),
        ("http://-/", None),
    ],
)
def test_an_address_has_one_form(url: str, expected: str | None) -> None:
    assert normalised(url, "http://base.org/at") == expected
    if expected is not None:
        assert normalised(expected) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/2026/11/23/a-title.html", None),
        ("/a/b/a/b/a", "deep"),
        ("/1/2/3/4/5/6/7/8/9", "deep"),
        ("/?a=1&b=2&c=3", None),
        ("/?a=1&b=2&c=3&d=4", "query"),
        ("/" + "x" * 600, "long"),
        ("/photo.JPG", "media"),
    ],
)
def test_traps_are_known_by_their_addresses(path: str, expected: str | None) -> None:
    assert trap(f"http://e.org{path}") == expected
