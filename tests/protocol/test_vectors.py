"""The conformance vectors: the committed files are what this implementation computes, and each is consumed."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from targon.protocol import VectorMismatch
from targon.protocol.philox import philox4x32
from targon.protocol.vectors import RULES, check_files, compare, files, render
from targon.protocol.vectors.__main__ import main

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "vectors"
NAMES = sorted(RULES)
CASES = [(name, case) for name in NAMES for case in RULES[name].inputs]


def committed(name: str) -> dict[str, Any]:
    document = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    assert isinstance(document, dict)
    return document


def contents() -> dict[str, str]:
    return {f"{name}.json": (FOLDER / f"{name}.json").read_text(encoding="utf-8") for name in NAMES}


def test_the_folder_holds_one_file_per_rule_and_a_guide() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {f"{name}.json" for name in NAMES} | {"README.md"}


def test_the_guide_describes_every_file() -> None:
    guide = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert [name for name in NAMES if f"`{name}.json`" not in guide] == []


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_file_is_what_is_computed(name: str) -> None:
    assert RULES[name].check(committed(name)) == len(RULES[name].inputs)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_stands_as_it_is_written(name: str) -> None:
    assert (FOLDER / f"{name}.json").read_text(encoding="utf-8") == render(committed(name)) + "\n"


@pytest.mark.parametrize(("name", "case"), CASES)
def test_a_case_with_any_other_result_is_a_mismatch(name: str, case: str) -> None:
    document = committed(name)
    (found,) = (each for each in document["cases"] if each["name"] == case)
    found["out"] = {"something": "else"}
    with pytest.raises(VectorMismatch, match=r"got .*, expected"):
        RULES[name].check(document)


def test_a_changed_number_is_found_and_named() -> None:
    changed = contents()
    changed["tiers.json"] = changed["tiers.json"].replace("25000", "25001")
    with pytest.raises(
        VectorMismatch, match=r"tiers: case 'standard': out.tiers\[10\].request_limit: got 25000, exp"
    ):
        check_files(changed)


def test_a_missing_case_is_found() -> None:
    document = committed("philox")
    del document["cases"][0]
    with pytest.raises(VectorMismatch):
        RULES["philox"].check(document)


def test_a_missing_or_unknown_file_is_found() -> None:
    missing = contents()
    del missing["noise.json"]
    with pytest.raises(VectorMismatch, match=r"missing \['noise.json'\], unknown \[\]"):
        check_files(missing)
    with pytest.raises(VectorMismatch, match=r"unknown \['other.json'\]"):
        check_files(contents() | {"other.json": "{}"})


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"cases": 5}'])
def test_a_file_that_is_no_document_is_found(text: str) -> None:
    with pytest.raises(VectorMismatch, match=r"noise\.json"):
        check_files(contents() | {"noise.json": text})


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (1, 2),
        (1, 1.0),
        (1, True),
        ("1", 1),
        (None, 0),
        ([1], [1, 2]),
        ({"a": 1}, {"b": 1}),
        (1.0, 1.0 + 1e-9),
    ],
)
def test_values_that_differ_are_told_apart(got: Any, expected: Any) -> None:
    with pytest.raises(VectorMismatch):
        compare(got, expected, "x")


def test_floats_may_differ_in_their_last_bits() -> None:
    compare({"a": [0.1 + 0.2]}, {"a": [0.3]}, "x")
    compare(math.nextafter(22.873, 30.0), 22.873, "x")


def test_long_values_are_cut_in_a_complaint() -> None:
    with pytest.raises(VectorMismatch) as caught:
        compare("x" * 5000, "y", "place")
    assert len(str(caught.value)) < 400


def test_the_command_writes_what_it_then_accepts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "new" / "vectors"
    assert main(["--write", str(folder)]) == 0
    assert {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()} == files()
    assert main(["--check", str(folder)]) == 0
    assert f"{sum(len(rule.inputs) for rule in RULES.values())} cases of {len(RULES)} rules agree" in (
        capsys.readouterr().out
    )


def test_the_command_refuses_what_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--write", str(tmp_path)])
    (tmp_path / "weights.json").write_text("{}", encoding="utf-8")
    assert main(["--check", str(tmp_path)]) == 1
    assert "weights.json" in capsys.readouterr().err


def test_the_known_answers_of_random123_stand_in_the_file() -> None:
    answers = [" ".join(case["out"]) for case in committed("philox")["cases"][:3]]
    assert answers == [
        "6627e8d5 e169c58d bc57ac4c 9b00dbd8",
        "408f276d 41c83b0e a20bc7c6 6d5451fd",
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ]


def test_the_extreme_words_stand_in_the_file() -> None:
    words = {case["out"]["x"] for case in committed("noise")["cases"]}
    assert {0, 2**32 - 1} <= words


def test_the_fixed_receipt_verifies() -> None:
    outcomes = {case["name"]: case["out"] for case in committed("receipts")["cases"]}
    assert outcomes["valid"]["valid"] is True
    assert sum("error" in outcome for outcome in outcomes.values()) == len(outcomes) - 2


def test_the_sampler_in_the_documentation_agrees_with_the_vectors() -> None:
    page = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    names: dict[str, Any] = {"math": math, "philox4x32": _philox}
    exec(example, names)
    tried = 0
    for case in committed("sampler")["cases"]:
        given, out = case["in"], case["out"]
        if "error" in out or "-inf" in given["logits"]:
            continue
        key = int(given["run_key"], 16)
        logits = np.array(given["logits"], dtype=np.float32).tolist()
        cuts = (given["temperature"], given["top_k"], given["top_p"])
        assert names["choose"](logits, *cuts, key, given["position"], given["choice"]) == out["token_id"]
        tried += 1
    assert tried > 20


def _philox(counter: tuple[int, ...], key: tuple[int, int]) -> list[int]:
    c0, c1, c2, c3 = (np.array(word, dtype=np.uint64) for word in counter)
    return [int(word) for word in philox4x32((c0, c1, c2, c3), key)]
