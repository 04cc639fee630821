"""What every source promises, asked of each of them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from random import Random

import pytest

from targon.oracle import NothingReadable, StandardLibraryText, UnknownSource, open_source
from targon.oracle.sources import crawl, files, json_lines
from targon.oracle.sources.limits import Limits
from targon.oracle.sources.sampling import Pace
from tests.oracle.bodies import BODIES, REDPAJAMA, texts

COUNT = 100
DRAWS = 6_000


def body(tmp_path: Path, kind: str, of: Sequence[str]) -> str:
    """The name of a source that holds these texts."""
    source, write = BODIES[kind]
    folder = tmp_path / kind.replace(" ", "-")
    folder.mkdir()
    write(folder, of)
    return f"{source}:{folder}"


@pytest.fixture(params=[*BODIES, "embedded"])
def spec(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "embedded" if request.param == "embedded" else body(tmp_path, request.param, texts(COUNT))


@pytest.fixture
def independent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Visits that give about one draw, and windows that are far smaller than the files."""
    for module, name in ((files, "_RECORDS_PACE"), (crawl, "TEXT_PACE"), (crawl, "PAGES_PACE")):
        monkeypatch.setattr(module, name, Pace(window=4_096, intensity=1))


def excess(counts: Counter[str], expected: dict[str, float]) -> float:
    """Pearson's chi-square, as standard deviations above what chance alone gives."""
    draws, whole = sum(counts.values()), sum(expected.values())
    assert set(counts) <= set(expected)
    freedom = len(expected) - 1
    square = sum(
        (counts[key] - draws * share / whole) ** 2 / (draws * share / whole)
        for key, share in expected.items()
    )
    return (square - freedom) / (2 * freedom) ** 0.5


def drawn(spec: str, seed: int, draws: int = DRAWS) -> Counter[str]:
    documents = islice(open_source(spec).documents(Random(seed)), draws)
    return Counter(document.text.split()[0] for document in documents)


def test_documents_are_texts_of_the_source_with_their_place(spec: str) -> None:
    found = list(islice(open_source(spec).documents(Random(1)), 200))
    assert len(found) == 200
    for document in found:
        assert document.text.strip()
        assert 0 <= document.at < 1
        assert document.source.isprintable()
        assert 0 < len(document.source) <= 1_000


def test_equal_randomness_gives_equal_documents(spec: str) -> None:
    one, other = open_source(spec), open_source(spec)
    first = list(islice(one.documents(Random(5)), 100))
    assert first == list(islice(other.documents(Random(5)), 100))
    assert first == list(islice(one.documents(Random(5)), 100))
    assert first != list(islice(one.documents(Random(6)), 100))


def test_the_manifest_is_that_of_the_content(spec: str, tmp_path: Path) -> None:
    manifest = open_source(spec).manifest()
    assert manifest == open_source(spec).manifest()
    if spec == "embedded":
        assert manifest == StandardLibraryText().digest()
        return
    kind, _, folder = spec.partition(":")
    elsewhere = shutil.copytree(folder, tmp_path / "elsewhere" / "still")
    assert open_source(f"{kind}:{elsewhere}").manifest() == manifest
    file = next(path for path in sorted(elsewhere.rglob("*")) if path.is_file())
    file.write_bytes(file.read_bytes() + b" ")
    assert open_source(f"{kind}:{elsewhere}").manifest() != manifest


@pytest.mark.parametrize("kind", BODIES)
def test_every_text_is_drawn_as_it_was_written(tmp_path: Path, kind: str) -> None:
    of = texts(30)
    found = {
        document.text
        for document in islice(open_source(body(tmp_path, kind, of)).documents(Random(2)), 3_000)
    }
    assert found == set(of)


@pytest.mark.usefixtures("independent")
@pytest.mark.parametrize("kind", BODIES)
def test_every_character_is_as_likely_as_every_other(tmp_path: Path, kind: str) -> None:
    of = texts(COUNT)
    counts = drawn(body(tmp_path, kind, of), seed=3)
    assert excess(counts, {text.split()[0]: len(text) for text in of}) < 5
    # what would be seen if each document were as likely as every other
    assert excess(counts, {text.split()[0]: 1 for text in of}) > 50


@pytest.mark.usefixtures("independent")
def test_files_of_all_kinds_are_drawn_from_by_their_text_alone(tmp_path: Path) -> None:
    of = texts(COUNT)
    for index, write in enumerate(REDPAJAMA.values()):
        folder = tmp_path / str(index)
        folder.mkdir()
        write(folder, of[index :: len(REDPAJAMA)])
    counts = drawn(f"redpajama:{tmp_path}", seed=4)
    assert excess(counts, {text.split()[0]: len(text) for text in of}) < 5


@pytest.mark.usefixtures("independent")
def test_large_streams_are_drawn_from_evenly_over_a_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = texts(COUNT)
    for index, kind in enumerate(("gzip", "zstd", "gzip members")):
        folder = tmp_path / str(index)
        folder.mkdir()
        REDPAJAMA[kind](folder, of[index::3])
    monkeypatch.setattr(json_lines, "LIMITS", Limits(enter_bytes=1_000))
    counts = drawn(f"redpajama:{tmp_path}", seed=5)
    assert excess(counts, {text.split()[0]: len(text) for text in of}) < 5


def test_the_place_within_a_text_is_uniform(spec: str) -> None:
    found = islice(open_source(spec).documents(Random(7)), 2_000)
    tenths = Counter(str(int(10 * document.at)) for document in found)
    assert excess(tenths, {str(tenth): 1 for tenth in range(10)}) < 4


def test_a_record_names_its_file_place_and_address(tmp_path: Path) -> None:
    document = next(iter(open_source(body(tmp_path, "plain", texts(1))).documents(Random(1))))
    assert document.source == "deep/er/two.json:0 https://example.org/0"


def test_a_page_is_named_by_its_address_and_date(tmp_path: Path) -> None:
    for kind in ("wet", "warc"):
        document = next(iter(open_source(body(tmp_path, kind, texts(1))).documents(Random(1))))
        assert document.source == "https://example.org/0 2026-01-02T03:04:05Z"


@pytest.mark.parametrize("spec", ["", "redpajama", "redpajama:", "pile:/tmp", "/tmp"])
def test_an_unknown_source_is_refused_with_those_that_exist(spec: str) -> None:
    with pytest.raises(UnknownSource, match=r"expected one of: embedded, redpajama:PATH"):
        open_source(spec)


def test_nothing_where_a_source_should_be_is_said_with_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(NothingReadable, match=r"no such file or folder, expected JSON lines"):
        open_source(f"redpajama:{tmp_path / 'none'}")
    with pytest.raises(NothingReadable, match=r"no file of a known format, expected WARC"):
        open_source(f"crawl:{tmp_path}")
    (tmp_path / "notes.doc").write_text("text", "utf-8")
    with pytest.raises(NothingReadable, match=r"skipped: 1 unknown_format"):
        open_source(f"crawl:{tmp_path}")


def test_the_libraries_of_the_extra_are_asked_for_only_by_what_needs_them(tmp_path: Path) -> None:
    specs = [body(tmp_path, kind, texts(5)) for kind in ("plain", "zstd", "parquet", "wet", "warc")]
    program = (
        "import sys\n"
        "for name in ('zstandard', 'pyarrow', 'fastwarc', 'resiliparse'): sys.modules[name] = None\n"
        "from random import Random\n"
        "from targon.oracle import ToolMissing, open_source\n"
        "for spec in ['embedded', *sys.argv[1:]]:\n"
        "    try: print(len(next(open_source(spec).documents(Random(1))).text) > 0)\n"
        "    except ToolMissing as error: print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", program, *specs], capture_output=True, text=True, check=True)
    first, second, *others = run.stdout.splitlines()
    assert first == second == "True"
    for said, library in zip(others, ("zstandard", "pyarrow", "fastwarc", "fastwarc"), strict=True):
        assert said.startswith(f"{library} isn't installed")
        assert "targon[oracle]" in said
