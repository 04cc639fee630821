"""A live crawl as a source: settings, draws, and a crawler that starts and stops with it."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from random import Random

import pytest

from targon.oracle import open_source
from targon.oracle.errors import SourceError, StoreUnavailable
from targon.oracle.refining import Refiner, Taken
from targon.oracle.sources.live import LiveText
from targon.oracle.sources.live import source as live_source
from targon.oracle.sources.live.process import in_time
from targon.oracle.sources.live.settings import read_settings
from targon.oracle.sources.live.store import Store, owned
from targon.oracle.supply import RefinedSupply
from tests.oracle.sites import Site, article, prose, site

NOW = time.time()
PATIENCE_S = 60.0
"""For a crawler, which is a process of its own, to begin and to end: a busy machine takes long over that."""
STORY = (
    "The harbour of the old town was closed on Monday after a storm had torn the roof from its largest warehouse. "
    "Engineers said that the walls were sound, and that ships could return before the end of the week."
)


def settings_file(folder: Path, one: Site, **others: object) -> Path:
    values = {
        "contact": "crawl@example.org",
        "hosts": [one.authority],
        "seeds": [one.url("/")],
        "least_seconds": 0.05,
        **others,
    }
    path = folder / "news.toml"
    path.write_text("".join(f"{name} = {value!r}\n" for name, value in values.items()), "utf-8")
    return path


@pytest.fixture
def idle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[LiveText, Store]:
    """A source without a crawler, and the store from which it draws."""
    monkeypatch.setattr(LiveText, "_keep_crawling", lambda self: None)
    path = settings_file(tmp_path, Site("127.0.0.2:1"), contact="https://example.org/bot")
    with Store(tmp_path / "news.sqlite") as store:
        text = LiveText(path, wait_s=0.0)
        yield text, store
        text.close()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No crawler is killed that would have ended by itself."""
    monkeypatch.setattr(live_source, "STOP_S", PATIENCE_S)


def eventually(holds: Callable[[], bool], within_s: float = 60.0) -> None:
    until = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < until, f"not within {within_s:g} s"
        time.sleep(0.02)


def test_it_crawls_from_the_first_draw_on_and_until_it_is_closed(tmp_path: Path) -> None:
    with site() as one:
        one.pages |= {"/": article(1, "/a", "/b"), "/a": article(2), "/b": article(3)}
        source = LiveText(settings_file(tmp_path, one), allow_private=True, wait_s=PATIENCE_S)
        manifest = source.manifest()
        assert one.asked == []
        assert not any(source.counts.values())
        found: dict[str, str] = {}
        documents = source.documents(Random(1))
        eventually(
            lambda: found.update([(d.text, d.source) for d in islice(documents, 1)]) or len(found) == 3
        )
        assert set(found) == {prose(1), prose(2), prose(3)}
        assert found[prose(2)].startswith(one.url("/a") + " fetched 20")
        assert source.counts["taken"] == 3
        assert source.manifest() == manifest
        crawler = source._crawler
        assert crawler is not None
        source.close()
        assert crawler.returncode == 0
        with owned(tmp_path / "news.sqlite"):
            pass


def test_a_crawler_that_dies_is_started_again_though_not_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_source, "RESTART_S", 1.0)
    with site() as one:
        one.pages["/"] = article(1)
        source = LiveText(settings_file(tmp_path, one), allow_private=True, wait_s=0.0)
        eventually(lambda: list(source.documents(Random(1))) != [])
        crawler = source._crawler
        assert crawler is not None
        crawler.kill()
        crawler.wait()
        assert list(source.documents(Random(1))) == []
        one.pages["/"] = article(2)
        (tmp_path / "news.toml").write_text(
            settings_file(tmp_path, one).read_text("utf-8") + "revisit_minutes = 0.001\n", "utf-8"
        )
        eventually(lambda: list(source.documents(Random(1))) == [] and source._crawler is not crawler)
        again = source._crawler
        assert again is not None
        assert again.poll() is None
        source.close()


def test_a_crawler_ends_with_the_process_that_draws_however_it_ends(tmp_path: Path) -> None:
    with site() as one:
        one.pages["/"] = article(1)
        path = settings_file(tmp_path, one)
        code = (
            "import os, signal, sys; from pathlib import Path; from random import Random\n"
            "from targon.oracle.sources.live import LiveText\n"
            f"source = LiveText(Path({str(path)!r}), allow_private=True, wait_s={PATIENCE_S})\n"
            "next(source.documents(Random(1)))\n"
            "print(source._crawler.pid, flush=True)\n"
            "os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        crawler = int(done.stdout)

        def gone() -> bool:
            try:
                os.kill(crawler, 0)
            except ProcessLookupError:
                return True
            return Path(f"/proc/{crawler}/stat").read_text().split()[2] == "Z"

        eventually(gone)


def test_a_source_that_is_forgotten_stops_its_crawler(tmp_path: Path) -> None:
    with site() as one:
        one.pages["/"] = article(1)
        source = LiveText(settings_file(tmp_path, one), allow_private=True, wait_s=PATIENCE_S)
        next(source.documents(Random(1)))
        crawler = source._crawler
        assert crawler is not None
        assert source._store is not None
        source._store.close()
        del source
        gc.collect()
        assert crawler.poll() == 0


def test_two_crawlers_never_share_a_state(tmp_path: Path) -> None:
    with (
        owned(tmp_path / "s"),
        pytest.raises(StoreUnavailable, match="another process crawls"),
        owned(tmp_path / "s"),
    ):
        pass


def test_a_page_that_takes_too_long_ends_the_crawler_and_nothing_else() -> None:
    code = (
        "from dataclasses import replace; from targon.oracle.sources.live import process\n"
        "process.LIVE_LIMITS = replace(process.LIVE_LIMITS, extract_s=1)\n"
        "with process.in_time():\n    pass\n"
        "with process.in_time():\n    [None for _ in iter(int, 1)]\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGVTALRM
    with in_time():
        pass
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)


def test_draws_are_even_over_the_characters_that_wait(idle: tuple[LiveText, Store]) -> None:
    source, store = idle
    lengths = {f"http://e.org/{index}": 60_000 * (index + 1) for index in range(3)}
    for index, (url, chars) in enumerate(lengths.items()):
        store.keep(url, prose(index, chars)[:chars], NOW, 1_000)
    # few enough that none is used up
    drawn = list(islice(source.documents(Random(5)), 90))
    often = Counter(document.source.split()[0] for document in drawn)
    assert [often[url] for url in lengths] == pytest.approx([15, 30, 45], abs=12)
    places = sorted(document.at for document in drawn)
    assert max(abs(place - (rank + 0.5) / 90) for rank, place in enumerate(places)) < 0.15


def test_a_text_is_drawn_as_often_as_it_has_passages_and_then_never_again(
    idle: tuple[LiveText, Store],
) -> None:
    source, store = idle
    store.keep("http://e.org/long", prose(1, 3_000)[:3_000], NOW, 1_000)
    store.keep("http://e.org/short", prose(2, 500)[:500], NOW, 1_000)
    often = Counter(document.source.split()[0] for document in source.documents(Random(1)))
    assert often == {"http://e.org/long": 5, "http://e.org/short": 1}
    assert list(source.documents(Random(2))) == []
    store.keep("http://e.org/new", prose(3), NOW, 1_000)
    assert next(source.documents(Random(3))).source == time.strftime(
        "http://e.org/new fetched %Y-%m-%dT%H:%M:%SZ", time.gmtime(NOW)
    )


def test_what_is_no_longer_fresh_is_not_drawn(idle: tuple[LiveText, Store]) -> None:
    source, store = idle
    store.keep("http://e.org/old", prose(1), NOW - 4 * 86_400, 1_000)
    assert list(source.documents(Random(1))) == []


def test_the_manifest_names_hosts_and_seeds(tmp_path: Path) -> None:
    one = Site("127.0.0.2:1")
    first = LiveText(settings_file(tmp_path, one)).manifest()
    assert LiveText(settings_file(tmp_path, one, pages_per_day=5)).manifest() == first
    assert LiveText(settings_file(tmp_path, one, seeds=[one.url("/x")])).manifest() != first
    assert LiveText(settings_file(tmp_path, one, hosts=[one.authority, "e.org"])).manifest() != first


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ({"contact": ""}, "expected an e-mail address"),
        ({"contact": "me@x.y\nCookie: a"}, "expected an e-mail address"),
        ({"hosts": []}, "hosts"),
        ({"hosts": ["Example.org"]}, "expected a host's name in lower case"),
        ({"hosts": ["http://e.org/"]}, "expected a host's name"),
        ({"seeds": ["http://elsewhere.org/"]}, "expected an address of http or https on one of the hosts"),
        ({"least_seconds": 0}, "least_seconds"),
        ({"hots": 1}, "hots: Extra inputs"),
    ],
)
def test_settings_that_don_t_fit_are_refused_by_name(
    tmp_path: Path, others: dict[str, object], said: str
) -> None:
    with pytest.raises(SourceError, match=said):
        read_settings(settings_file(tmp_path, Site("127.0.0.2:1"), **others))


def test_settings_need_a_contact_and_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("hosts = ['e.org']\nseeds = ['http://e.org/']\n", "utf-8")
    with pytest.raises(SourceError, match="contact: Field required"):
        LiveText(tmp_path / "a.toml")
    with pytest.raises(SourceError, match="can't be read as settings of a live crawl"):
        LiveText(tmp_path / "none.toml")


def test_another_file_than_a_crawl_s_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s").write_bytes(b"no database, surely" * 100)
    with pytest.raises(StoreUnavailable, match="remove the file to begin anew"):
        Store(tmp_path / "s")


def test_it_is_opened_by_its_name_and_supplies_passages_as_they_come(
    idle: tuple[LiveText, Store], tmp_path: Path
) -> None:
    assert open_source(f"live:{tmp_path / 'news.toml'}").name == f"live:{tmp_path / 'news.toml'}"
    source, store = idle
    supply = RefinedSupply(source, Taken(tmp_path / "taken.sqlite"), Random(1), refiner=Refiner(()))
    assert supply.take(3) == []
    store.keep("http://e.org/new", STORY, NOW, 1_000)
    (passage,) = supply.take(1)
    assert passage.text in STORY
    assert passage.source.startswith("http://e.org/new fetched 20")
    supply.close()
