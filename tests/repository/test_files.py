"""What holds of every file of the repository."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LONGEST = 450
"""Lines. A file over about 400 is usually two rooms."""

REGISTRY = re.compile(
    "|".join(
        [
            r"pypi\.(?:org|io)",
            r"python" + r"hosted",
            r"download\.py" + r"torch",
            r"registry\.npm" + r"js",
            r"(?:deb|security)\." + r"debian\.org",
            r"--(?:extra-)?index-" + r"url|--find-" + r"links",
        ]
    )
)
SOMEBODY_S_PATH = re.compile(r"(?<![\w.$}~/-])/(?:root|home|Users|tmp|work)/\w")


def tracked() -> list[Path]:
    """Every text file that belongs to the repository: tracked, or new and not ignored."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    paths = [ROOT / line for line in listing.splitlines()]
    return [path for path in paths if path.is_file() and path.suffix not in {".png", ".svg"}]


def lines_with(pattern: re.Pattern[str], paths: list[Path]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}"
        for path in paths
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if pattern.search(line)
    ]


def test_no_file_names_a_package_registry() -> None:
    assert lines_with(REGISTRY, [path for path in tracked() if path != Path(__file__)]) == []


def test_no_file_names_a_path_of_somebody_s_machine() -> None:
    assert lines_with(SOMEBODY_S_PATH, [path for path in tracked() if path != Path(__file__)]) == []


def test_no_file_of_code_is_so_long_that_it_is_two() -> None:
    code = [path for path in tracked() if path.suffix == ".py"]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines()) for path in code}
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}


def test_nothing_is_left_to_be_done() -> None:
    unfinished = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
    assert lines_with(unfinished, [path for path in tracked() if path.suffix == ".py"]) == []
    stub = re.compile("NotImplementedError")
    assert lines_with(stub, [path for path in tracked() if ROOT / "src" in path.parents]) == []


def test_no_test_is_skipped() -> None:
    skipping = re.compile(r"pytest\.(?:mark\.)?(?:sk" + r"ip|skip" + r"if|xf" + r"ail|import" + r"orskip)\b")
    assert lines_with(skipping, [path for path in tracked() if path.suffix == ".py"]) == []


def test_every_link_between_documents_leads_somewhere() -> None:
    broken = []
    for path in tracked():
        if path.suffix != ".md":
            continue
        text = re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            file = target.partition("#")[0]
            elsewhere = "://" in target or target.startswith("mailto:")
            if file and not elsewhere and not (path.parent / file).exists():
                broken.append(f"{path.relative_to(ROOT)} -> {target}")
    assert broken == []


@pytest.mark.parametrize(
    "name",
    ["README.md", "LICENSE", "TERMS.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "docs/index.md"],
)
def test_a_reader_finds_what_a_repository_has(name: str) -> None:
    assert (ROOT / name).stat().st_size > 500


def test_every_decision_and_page_is_on_the_map() -> None:
    index = (ROOT / "docs" / "index.md").read_text("utf-8")
    pages = [path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")]
    assert [str(page) for page in pages if str(page) != "index.md" and f"({page})" not in index] == []


def test_every_command_of_make_says_what_it_does() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = re.findall(r"^([a-z]+):(.*)$", makefile, flags=re.MULTILINE)
    assert {"demo", "test", "check", "bench", "clean", "help"} <= {name for name, _ in targets}
    assert [name for name, rest in targets if "## " not in rest] == []
