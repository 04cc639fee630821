"""A whole run over tiny engines: what is kept, what is judged, and what is written."""

from __future__ import annotations

import json
import re
from io import StringIO
from itertools import count

import anyio
import pytest
from rich.console import Console

from targon.redteam import Matrix, page_of, run_bench, table_of, with_needs, write_chart
from targon.redteam.attacks import BY_NAME
from targon.redteam.judging import EVIDENCE, EXACT, METHODS, STRUCTURE
from targon.verification.replays import load_replays, replay_all, replays_path
from targon.verification.transcripts import read_transcripts
from tests.redteam.conftest import PASSAGES, TinyBench, tiny_calibration
from tests.tiny_engine import TinyEngine

NAMES = (
    "wrong-seed",
    "int4",
    "int4-20%",
    "int4-tail",
    "adaptive-int8-4",
    "wrong-key",
    "relay",
    "user-parameters",
)


def run(bench, names=NAMES, tell=lambda *_: None, **more) -> Matrix:
    ticks = count()

    async def whole() -> Matrix:
        return await run_bench(
            bench,
            with_needs(names),
            tiny_calibration,
            clock=lambda: float(next(ticks)),
            tell=tell,
            streams=30,
            most_tokens=1_500,
            **more,
        )

    return anyio.run(whole)


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> TinyBench:
    return TinyBench(tmp_path_factory.mktemp("kept"), PASSAGES, completions=12)


@pytest.fixture(scope="module")
def matrix(kept) -> Matrix:
    return run(kept)


@pytest.fixture(scope="module")
def rows(matrix):
    return {row.name: row for row in matrix.rows}


def test_there_is_a_row_for_each_attack_and_what_it_needs(rows):
    assert set(rows) == {*NAMES, "honest-bf16"}
    assert all(set(row.detection) == set(METHODS) for row in rows.values())


def test_cheats_are_convicted_and_neither_the_honest_nor_who_relays_to_them(rows, matrix):
    for name in ("wrong-seed", "int4", "int4-20%", "int4-tail"):
        assert rows[name].conviction.convicted == 1.0, name
    for name in ("honest-bf16", "relay"):
        assert rows[name].conviction.convicted == 0.0, name
        assert rows[name].detection[EXACT] == 0.0
    assert matrix.false_convictions == ()


def test_what_an_adaptive_prover_paid_is_counted(rows):
    row = rows["adaptive-int8-4"]
    assert row.repairs.answers == row.completions == 4
    assert 4 < row.repairs.checked <= 16  # it may check each answer four times
    assert 0 < row.repairs.repaired <= row.repairs.checked
    assert all(row.repairs is None for name, row in rows.items() if name != "adaptive-int8-4")


def test_a_forged_receipt_fails_by_its_form_and_leaves_no_evidence(rows):
    row = rows["wrong-key"]
    assert row.detection[STRUCTURE] == 1.0
    assert (row.outside, row.conviction) == (row.completions, None)
    assert all(rows[name].detection[STRUCTURE] == 0.0 for name in NAMES if name != "wrong-key")


def test_parameters_that_are_not_calibrated_leave_no_evidence(rows):
    assert 0 < rows["user-parameters"].outside <= 12


def test_a_verdict_s_cost_is_the_time_of_a_replay_against_that_of_generating(matrix):
    assert matrix.costs[EXACT] == matrix.costs[EVIDENCE] == 1.0  # a clock that ticks at each look
    assert matrix.costs[STRUCTURE] == 1.0


def test_a_second_run_makes_nothing_again_and_finds_the_same(kept, matrix):
    files = {path: path.stat().st_mtime_ns for path in kept.folder.rglob("*") if path.is_file()}
    told: list[str] = []
    assert run(kept, tell=lambda what, *_: told.append(what)) == matrix
    assert {path: path.stat().st_mtime_ns for path in kept.folder.rglob("*") if path.is_file()} == files
    assert [what for what in told if what.startswith("answering")] == []


def test_more_answers_go_on_from_those_that_are_there(tmp_path):
    few, more = (TinyBench(tmp_path, PASSAGES, completions=number) for number in (8, 10))
    run(few, ["wrong-seed"])
    path = few.path(BY_NAME["wrong-seed"])
    first = path.read_text()
    told: list[str] = []
    made = run(more, ["wrong-seed"], tell=lambda what, *_: told.append(what))
    assert path.read_text().startswith(first)
    assert told.count("answering as wrong-seed") == 2
    assert {row.name: row.completions for row in made.rows} == {"honest-bf16": 20, "wrong-seed": 10}


def test_answers_that_two_runs_made_at_once_count_once(kept, tmp_path):
    bench = TinyBench(tmp_path, PASSAGES, completions=12)
    attack = BY_NAME["wrong-seed"]
    bench.path(attack).parent.mkdir(parents=True)
    lines = kept.path(attack).read_bytes()
    bench.path(attack).write_bytes(lines + lines)
    assert bench.transcripts(attack) == kept.transcripts(attack)
    assert bench.missing(attack) == 0


def test_an_honest_engine_s_file_gets_a_row_of_its_own(kept, tmp_path):
    path = tmp_path / "elsewhere.jsonl"
    path.write_bytes(kept.path(BY_NAME["honest-bf16"]).read_bytes())
    made = run(kept, ["wrong-seed"], honest_files=[path])
    assert made.rows[-1].name == "elsewhere"
    assert made.rows[-1].kind == "honest"
    assert made.rows[-1].completions == 24


def test_a_convicted_honest_row_is_named(matrix):
    honest = next(row for row in matrix.rows if row.kind == "honest")
    worse = matrix.model_copy(update={"rows": (honest.model_copy(update={"convicted_at": 9}), *matrix.rows)})
    assert worse.false_convictions == ("honest-bf16",)


def test_replays_are_kept_for_these_very_answers(kept, tmp_path):
    transcripts = list(read_transcripts(kept.path(BY_NAME["honest-bf16"])))[:5]
    path = replays_path(tmp_path / "some.jsonl", TinyEngine().identity)
    first = anyio.run(replay_all, path, transcripts, TinyEngine())
    again = anyio.run(replay_all, path, transcripts, TinyEngine(down=True))
    for one, other in zip(first, again, strict=True):
        assert one.replay.margins.tolist() == other.replay.margins.tolist()
        assert one.claimed_logprobs.tolist() == other.claimed_logprobs.tolist()
    other = [one.model_copy(update={"token_ids": one.token_ids[:-1]}) for one in transcripts]
    anyio.run(replay_all, path, other, TinyEngine())
    assert len(load_replays(path)) == 10


def test_a_file_of_replays_that_is_broken_is_made_again(tmp_path, kept):
    transcripts = list(read_transcripts(kept.path(BY_NAME["honest-bf16"])))[:2]
    path = replays_path(tmp_path / "some.jsonl", TinyEngine().identity)
    path.write_bytes(b"PK\x03\x04 no such thing")
    assert load_replays(path) == {}
    anyio.run(replay_all, path, transcripts, TinyEngine())
    assert len(load_replays(path)) == 2


def test_the_matrix_survives_its_file(matrix):
    assert Matrix.from_bytes(matrix.to_bytes()) == matrix
    assert matrix.to_json()["version"] == 1
    assert {"name", "detection", "conviction", "growth", "peak"} <= set(matrix.to_json()["rows"][0])


def test_the_page_holds_the_matrix_and_asks_nobody_for_anything(matrix):
    page = page_of(matrix)
    addresses = set(re.findall(r"https?://[^\"'\s]+", page))
    assert addresses == {"http://www.w3.org/2000/svg"}  # the name of SVG, which nobody opens
    assert not re.search(r"\b(src|href)\s*=|@import|url\(|fetch\(|XMLHttpRequest", page)
    assert "default-src 'none'" in page
    held = re.search(r'<script type="application/json" id="matrix">(.*?)</script>', page, re.DOTALL)
    assert held
    assert json.loads(held[1]) == matrix.to_json()


def test_words_in_the_matrix_cannot_become_markup(matrix):
    row = matrix.rows[0].model_copy(update={"words": "</script><img src=x onerror=alert(1)>"})
    page = page_of(matrix.model_copy(update={"rows": (row,)}))
    assert "<img" not in page


def test_the_table_names_every_attack_and_its_tokens(matrix, rows):
    said = StringIO()
    Console(width=200, file=said).print(table_of(matrix))
    told = said.getvalue()
    assert all(name in told for name in rows)
    assert f"{rows['wrong-seed'].conviction.median:,}" in told
    assert "never" in told


def test_the_pictures_are_drawn(matrix, tmp_path):
    png, svg = write_chart(matrix, tmp_path)
    assert png.read_bytes().startswith(b"\x89PNG")
    assert "<svg" in svg.read_text("utf-8")
