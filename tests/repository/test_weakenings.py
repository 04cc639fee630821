"""The weakenings that `make mutation` tries are still weakenings of the code that there is."""

from __future__ import annotations

import ast
from pathlib import Path

from scripts.weakenings import SOURCE, derived, load_table, weakenings

ROOT = Path(__file__).resolve().parents[2]

CODE = b"""
def check(answer, engine):
    if not answer:
        return failed("\xc3\xbc", "empty")
    for name, got in (("model", engine.model), ("digest", engine.digest)):
        if got is None:
            raise ValueError(name)
    try:
        engine.look()
    except EngineError as error:
        return inconclusive("x", str(error))
    if answer.short:
        answer = answer.whole()
    return _first(answer) or _second(answer)
"""


def applied() -> dict[str, str]:
    return {one.what: one.applied(CODE).decode() for one in derived("check.py", CODE)}


def test_every_guard_handler_row_and_link_is_left_out_once() -> None:
    assert applied().keys() == {
        "check: without not answer",
        'check: without ("model", engine.model)',
        'check: without ("digest", engine.digest)',
        "check: without got is None",
        "check: without except EngineError",
        "check: without _first(answer)",
        "check: without _second(answer)",
    }


def test_a_weakening_changes_what_it_says_and_nothing_else() -> None:
    made = applied()
    assert "if False:\n        return failed" in made["check: without not answer"]
    assert 'in (("digest", engine.digest), ):' in made['check: without ("model", engine.model)']
    assert "except InterruptedError as error" in made["check: without except EngineError"]
    assert "return None or _second(answer)" in made["check: without _first(answer)"]
    for text in made.values():
        ast.parse(text)


def test_every_weakening_is_found_in_the_code_and_gives_code() -> None:
    found = weakenings(load_table())
    assert len(found) > 300
    for one in found:
        source = (SOURCE / "targon" / one.file).read_bytes()
        weaker = one.applied(source)
        assert weaker != source
        ast.parse(weaker)


def test_every_file_is_noticed_by_tests_that_there_are() -> None:
    for tests in load_table()["tests"].values():
        assert tests
        assert all((ROOT / test).is_file() for test in tests)


def test_every_weakening_that_changes_nothing_says_why() -> None:
    assert all(entry["why"].strip() for entry in load_table().get("equivalent", []))
