"""What holds of every room: it opens with its job, exports what it says, and imports downwards only."""

from __future__ import annotations

import importlib
import pkgutil
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

import targon

ROOT = Path(__file__).resolve().parents[2]
ROOMS = sorted(module.name for module in pkgutil.iter_modules(targon.__path__, "targon.") if module.ispkg)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_opens_with_what_it_is_for(room: str) -> None:
    documentation = importlib.import_module(room).__doc__
    assert documentation
    assert len(documentation.split()) >= 20


@pytest.mark.parametrize("room", ROOMS)
def test_the_names_that_a_room_exports_are_there(room: str) -> None:
    module = importlib.import_module(room)
    names: list[str] = getattr(module, "__all__", [])
    assert [name for name in names if not hasattr(module, name)] == []
    assert len(set(names)) == len(names)


def test_every_room_has_its_place_in_the_layers() -> None:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    layers = " ".join(data["tool"]["importlinter"]["contracts"][0]["layers"])
    assert set(ROOMS) <= set(re.findall(r"targon\.\w+", layers))


def test_rooms_import_downwards_only() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_version_is_one_and_the_changelog_has_it_or_what_comes_after() -> None:
    assert version("targon") == targon.__version__
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    headings = re.findall(r"^## \[([^\]]+)\]", changelog, flags=re.MULTILINE)
    assert headings[0] in {"Unreleased", targon.__version__}
    released = [heading for heading in headings if heading != "Unreleased"]
    assert released[:1] in ([], [targon.__version__])
