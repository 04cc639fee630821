"""A crawl of real hosts: what is fetched, how politely, and what becomes of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from targon.oracle.sources.live.crawler import Crawler
from targon.oracle.sources.live.store import Store
from tests.oracle.crawling import GAP_S, SHORT, crawl, drawn, settings_for, texts
from tests.oracle.sites import Act, article, in_turn, prose, reply, site

pytestmark = pytest.mark.anyio


def counted(reason: str, number: int = 1):
    return lambda store: store.counts()[reason] >= number


async def test_links_are_followed_on_allowed_hosts_alone_so_far_and_each_page_once(tmp_path: Path) -> None:
    with site("127.0.0.2") as one, site("127.0.0.3") as two, site("127.0.0.4") as other:
        one.pages |= {
            "/": article(
                1, "/a", "/a#part", "/a?utm_source=x", two.url("/b"), other.url("/c"), "mailto:a@b.c"
            ),
            "/a": article(2, "/", "/d"),
            "/d": article(3, "/e"),
            "/e": article(4),
        }
        two.pages["/b"] = article(5)
        other.pages["/c"] = article(6)
        counts = await crawl(tmp_path / "s", settings_for(one, two, depth=2), counted("taken", 4), more_s=0.3)
        assert sorted(one.paths) == ["/", "/a", "/d"]
        assert two.paths == ["/b"]
        assert other.asked == []
        assert counts == {"taken": 4}
        found = texts(tmp_path / "s")
        assert {url: text.strip() for url, text in found.items()} == {
            one.url("/"): prose(1),
            one.url("/a"): prose(2),
            one.url("/d"): prose(3),
            two.url("/b"): prose(5),
        }


async def test_every_request_says_who_we_are_and_carries_no_cookie(tmp_path: Path) -> None:
    with site() as one:
        one.pages |= {"/": reply(200, article(1, "/a"), Set_Cookie="id=1; Path=/"), "/a": article(2)}
        await crawl(tmp_path / "s", settings_for(one), counted("taken", 2))
        assert len(one.asked) == 3
        for asked in one.asked:
            assert asked.headers["user-agent"].startswith("targon/")
            assert "(+crawl@example.org)" in asked.headers["user-agent"]
            assert "cookie" not in asked.headers


async def test_robots_txt_is_asked_for_first_and_once_and_obeyed(tmp_path: Path) -> None:
    rules = b"\xef\xbb\xbfUser-agent: *\nDisallow: /\n\nUser-agent: Targon\nDisallow: /private\nAllow: /private/but\n"
    with site() as one:
        one.pages |= {
            "/robots.txt": reply(200, rules, "text/plain"),
            "/": article(1, "/private/a", "/private/but", "/%70rivate/b"),
            "/private/a": article(2),
            "/private/b": article(4),
            "/private/but": article(3),
        }
        counts = await crawl(
            tmp_path / "s",
            settings_for(one),
            lambda store: counted("taken", 2)(store) and counted("disallowed", 2)(store),
            more_s=0.2,
        )
        assert [asked.path for asked in one.asked] == ["/robots.txt", "/", "/private/but"]
        assert counts == {"taken": 2, "disallowed": 2}


@pytest.mark.parametrize("status", [500, 503, 429])
async def test_where_robots_txt_can_t_be_had_nothing_is_fetched_until_it_can(
    tmp_path: Path, status: int
) -> None:
    with site() as one:
        one.pages |= {
            "/robots.txt": in_turn(reply(status), reply(200, b"User-agent: *\nAllow: /\n")),
            "/": article(1),
        }
        counts = await crawl(tmp_path / "s", settings_for(one), counted("taken"))
        assert [asked.path for asked in one.asked] == ["/robots.txt", "/robots.txt", "/"]
        assert one.gaps[0] >= SHORT.robots_again_s
        assert counts == {"taken": 1, "robots_unreachable": 1}


async def test_a_host_that_is_down_is_asked_for_its_robots_txt_alone(tmp_path: Path) -> None:
    def breaks_off(handler) -> None:
        handler.close_connection = True

    with site() as one:
        one.pages |= {"/robots.txt": breaks_off, "/": article(1)}
        await crawl(tmp_path / "s", settings_for(one), counted("robots_unreachable", 2))
        assert {asked.path for asked in one.asked} == {"/robots.txt"}


@pytest.mark.parametrize("status", [401, 403, 404, 410])
async def test_where_there_is_no_robots_txt_all_is_allowed(tmp_path: Path, status: int) -> None:
    with site() as one:
        one.pages |= {"/robots.txt": reply(status, b"User-agent: *\nDisallow: /"), "/": article(1)}
        assert await crawl(tmp_path / "s", settings_for(one), counted("taken")) == {"taken": 1}


async def test_robots_txt_may_have_moved_but_not_off_the_list(tmp_path: Path) -> None:
    with site("127.0.0.2") as one, site("127.0.0.3") as two, site("127.0.0.4") as other:
        one.pages |= {
            "/robots.txt": reply(301, Location=two.url("/robots.txt")),
            "/": article(1),
            "/no": article(2),
        }
        two.pages |= {"/robots.txt": reply(302, Location=other.url("/robots.txt")), "/": article(3)}
        other.pages["/robots.txt"] = reply(200, b"User-agent: *\nAllow: /")
        settings = settings_for(one, two, seeds=(one.url("/"), two.url("/")))
        await crawl(tmp_path / "s", settings, counted("robots_unreachable", 2), more_s=0.2)
        assert one.paths == two.paths == []
        assert other.asked == []
        two.pages["/robots.txt"] = reply(200, b"User-agent: *\nDisallow: /no")
        settings = settings_for(one, two, seeds=(one.url("/"), one.url("/no")))
        counts = await crawl(tmp_path / "t", settings, lambda store: sum(store.counts().values()) == 2)
        assert one.paths == ["/"]
        assert counts == {"taken": 1, "disallowed": 1}


async def test_a_robots_txt_that_is_noise_or_endless_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    rules = (
        b"User-agent: *\nDisallow: /a\nRequest-rate: x\nCrawl-delay: nan\nDisallow: /"
        + b"*" * 5_000
        + b"b$\n"
    )
    with site() as one:
        one.pages |= {
            "/robots.txt": reply(200, rules + b"\x00\xff\xfe\n" * 300_000, "application/octet-stream"),
            "/": article(1, "/a", "/c"),
            "/a": article(2),
            "/c": article(3),
        }
        counts = await crawl(tmp_path / "s", settings_for(one), counted("taken", 2), more_s=0.2)
        assert counts == {"taken": 2, "disallowed": 1}


def held_until(holds: Callable[[], bool], page: bytes) -> Act:
    """A page that is given when something holds, and not before."""

    def act(handler) -> None:
        while not holds():
            time.sleep(0.01)
        reply(200, page)(handler)

    return act


async def test_between_two_fetches_of_a_host_lies_its_gap_always(tmp_path: Path) -> None:
    slow = "User-agent: *\nCrawl-delay: 0.4\n"
    with site("127.0.0.2") as one, site("127.0.0.3") as two:
        links = [f"/{name}" for name in "abcdefgh"]
        for each in (one, two):
            each.pages |= {link: article(index + 10) for index, link in enumerate(links)}
            each.pages["/"] = article(1, *links, one.url("/x"), two.url("/x"))
            each.pages["/x"] = reply(302, Location=each.url("/y"))
            each.pages["/a"] = reply(500)
        two.pages["/robots.txt"] = slow.encode()
        two.pages["/"] = held_until(lambda: len(one.asked) > 8, two.pages["/"])  # one host waits for no other
        settings = settings_for(one, two, seeds=(one.url("/"), two.url("/")), least_seconds=0.15)
        await crawl(tmp_path / "s", settings, lambda _: len(one.asked) > 8 and len(two.asked) > 5)
        assert min(one.gaps) >= 0.15
        assert min(two.gaps) >= 0.4


async def test_public_hosts_are_given_a_second_whatever_the_settings_say(tmp_path: Path) -> None:
    with site() as one, Store(tmp_path / "s") as store:
        crawler = Crawler(settings_for(one, least_seconds=0.01), store, None)  # nothing is asked here
        crawler._hosts["127.0.0.2"].ended = began = time.monotonic()
        async with crawler._turn("127.0.0.2"):
            assert time.monotonic() - began >= 1.0


async def test_a_host_gives_so_many_pages_a_day(tmp_path: Path) -> None:
    with site() as one:
        one.pages |= {"/": article(1, "/a", "/b", "/c")} | {f"/{n}": article(ord(n)) for n in "abc"}
        settings = settings_for(one, pages_per_day=2)
        await crawl(tmp_path / "s", settings, counted("taken", 2), more_s=0.3)
        await crawl(tmp_path / "s", settings, lambda _: True, more_s=0.3)
        assert len(one.paths) == 2


async def test_a_redirect_is_followed_when_its_host_s_turn_comes_and_never_off_the_list(
    tmp_path: Path,
) -> None:
    with site("127.0.0.2") as one, site("127.0.0.3") as two, site("127.0.0.4") as other:
        one.pages |= {
            "/": article(1, "/away", "/over", "/odd", "/round"),
            "/away": reply(302, Location=other.url("/secret")),
            "/over": reply(308, Location=two.url("/here")),
            "/odd": reply(301, Location="file:///etc/passwd"),
            "/round": reply(302, Location="/round2"),
            "/round2": reply(302, Location="/round"),
        }
        two.pages |= {"/robots.txt": b"User-agent: *\nDisallow: /private", "/here": article(2)}
        counts = await crawl(
            tmp_path / "s",
            settings_for(one, two),
            lambda store: (
                (store.counts()["off_list"], store.counts()["taken"]) == (2, 2) and "/round2" in one.paths
            ),
            more_s=0.2,
        )
        assert other.asked == []
        assert [asked.path for asked in two.asked] == ["/robots.txt", "/here"]
        assert sorted(one.paths) == ["/", "/away", "/odd", "/over", "/round", "/round2"]
        assert min(one.gaps) >= GAP_S
        assert counts == {"taken": 2, "off_list": 2}


async def test_a_chain_of_redirects_ends(tmp_path: Path) -> None:
    with site() as one:
        for index in range(10):
            one.pages[f"/{'abcdefghijk'[index]}"] = reply(302, Location=f"/{'abcdefghijk'[index + 1]}")
        settings = settings_for(one, seeds=(one.url("/a"),))
        await crawl(tmp_path / "s", settings, counted("redirects"), more_s=0.2)
        assert one.paths == [f"/{name}" for name in "abcdef"]


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("date", [False, True])
async def test_a_host_that_asks_for_it_is_left_alone_so_long(tmp_path: Path, status: int, date: bool) -> None:
    def busy(handler) -> None:
        # a date has whole seconds: 2 from now are more than 1
        until = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
        reply(status, Retry_After=until if date else "1")(handler)

    with site() as one:
        one.pages |= {"/": in_turn(busy, reply(200, article(1)))}
        counts = await crawl(tmp_path / "s", settings_for(one), counted("taken"))
        assert one.paths == ["/", "/"]
        assert one.gaps[1] >= 1.0
        assert counts == {"taken": 1, "busy": 1}


async def test_what_fails_is_tried_again_a_few_times_and_a_host_that_fails_is_left_alone(
    tmp_path: Path,
) -> None:
    with site() as one:
        one.pages |= {"/": article(1, "/a"), "/a": reply(500)}
        counts = await crawl(tmp_path / "s", settings_for(one), counted("gave_up"), more_s=0.2)
        assert one.paths == ["/", "/a", "/a", "/a"]
        assert counts == {"taken": 1, "broken": 3, "gave_up": 1}


async def test_seeds_are_looked_at_again_and_not_sent_again_where_they_didn_t_change(tmp_path: Path) -> None:
    def front(handler) -> None:
        if handler.headers["If-None-Match"] == '"1"':
            reply(304)(handler)
        else:
            reply(200, article(1, "/a"), ETag='"1"', Last_Modified="Mon, 02 Feb 2026 10:00:00 GMT")(handler)

    with site() as one:
        one.pages |= {"/": front, "/a": article(2)}
        settings = settings_for(one, revisit_minutes=0.3 / 60)
        counts = await crawl(tmp_path / "s", settings, counted("unchanged", 2))
        fronts = [asked for asked in one.asked if asked.path == "/"]
        assert fronts[1].headers["if-modified-since"] == "Mon, 02 Feb 2026 10:00:00 GMT"
        assert fronts[2].headers["if-none-match"] == '"1"'
        assert one.paths.count("/a") == 1
        assert counts["taken"] == 2


async def test_a_seed_that_changed_gives_its_new_links(tmp_path: Path) -> None:
    with site() as one:
        one.pages |= {
            "/": in_turn(reply(200, article(1, "/a")), reply(200, article(1, "/a", "/new"))),
            "/a": article(2),
            "/new": article(3),
        }
        settings = settings_for(one, revisit_minutes=0.2 / 60)
        await crawl(tmp_path / "s", settings, counted("taken", 3))
        assert one.url("/new") in texts(tmp_path / "s")


async def test_a_restart_in_the_middle_goes_on_and_keeps_the_gap(tmp_path: Path) -> None:
    with site() as one:
        links = [f"/{name}" for name in "abcdef"]
        one.pages |= {"/robots.txt": b"User-agent: *\nCrawl-delay: 0.3\n", "/": article(1, *links)}
        one.pages |= {link: article(index + 10) for index, link in enumerate(links)}
        for pages in (3, 5, 7):
            await crawl(tmp_path / "s", settings_for(one), lambda _, pages=pages: len(one.paths) >= pages)
        await crawl(tmp_path / "s", settings_for(one), counted("taken", 7))
        assert [asked.path for asked in one.asked].count("/robots.txt") == 1
        assert sorted(set(one.paths)) == ["/", *links]
        assert min(one.gaps) >= 0.3
        assert len(texts(tmp_path / "s")) == 7


async def test_a_page_by_which_the_crawler_dies_is_left_after_some_tries(tmp_path: Path) -> None:
    with site() as one:
        one.pages["/"] = article(1)
        with Store(tmp_path / "s") as store:
            store.seed([one.url("/")], ["127.0.0.2"], 0.0)
            for _ in range(SHORT.tries):
                target = store.due("127.0.0.2", 1.0)
                store.begin(target, 1)  # and then it died
        counts = await crawl(tmp_path / "s", settings_for(one), counted("gave_up"))
        assert one.paths == []
        assert counts == {"gave_up": 1}


async def test_hosts_at_private_addresses_are_refused_however_they_are_named(tmp_path: Path) -> None:
    with site("127.0.0.1") as one:
        one.pages["/"] = article(1)
        port = one.authority.partition(":")[2]
        for name in ("127.0.0.1", "localhost"):
            one.authority = f"{name}:{port}"
            path = tmp_path / name
            await crawl(path, settings_for(one), counted("robots_unreachable"), allow_private=False)
        assert one.asked == []


async def test_old_texts_are_forgotten_and_the_oldest_make_room(tmp_path: Path) -> None:
    limits = replace(SHORT, kept_chars=2_000)
    with Store(tmp_path / "s", limits) as store:
        for index in range(10):
            assert store.keep(f"http://e.org/{index}", prose(index), float(index), 1_000)
        assert len(store.waiting(0.0)) == 3
        assert [kept.at for kept in drawn(store)] == [7.0, 8.0, 9.0]
        store.keep("http://e.org/x", prose(11), 10.0, 1)
        assert [kept.at for kept in drawn(store)] == [10.0]
        assert not store.keep("http://e.org/again", prose(9).upper(), 11.0, 1_000)
        store.keep("http://e.org/y", prose(12), 12.0, 1_000)
        store.forget(13.0)
        assert not store.waiting(0.0)
