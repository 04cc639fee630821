"""The systemd units: understood by systemd, confined, and starting what there is.

A linter of a pinned version always reads them. Where systemd is on the machine, its own checks do, too.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

from operations import tools

FOLDER = tools.ROOT / "deploy" / "systemd"
ROLES = ("prover", "verifier", "oracle")
MOST_EXPOSED = 2.0
"""Of 10, by systemd's own count; 1.4 was seen. What is left: the network, and memory that compiled code needs."""


def unit(role: str) -> dict[str, list[str]]:
    """The settings of a unit, each with its values."""
    settings = defaultdict(list)
    for line in (FOLDER / f"targon-{role}.service").read_text("utf-8").splitlines():
        if line and line[0] not in "#[":
            name, _, value = line.partition("=")
            settings[name].append(value)
    return settings


def installed(role: str, folder: Path) -> Path:
    """The unit as it would be where the project lies here: systemd looks whether the program is there."""
    copy = folder / f"targon-{role}.service"
    text = (FOLDER / copy.name).read_text("utf-8")
    copy.write_text(text.replace("/opt/targon", str(tools.ROOT)), "utf-8")
    return copy


def lint(path: Path) -> list[str]:
    """What systemdlint says of the settings."""
    result = tools.run(tools.tool("systemdlint"), "--norootfs", path)
    # its advice on security misreads a umask of 0077; systemd counts that itself
    return [line for line in tools.said(result).splitlines() if "error" in line and "[Security." not in line]


def verify(path: Path) -> list[str]:
    """What systemd says of the unit."""
    result = tools.run("systemd-analyze", "verify", "--man=no", path)
    return (result.stdout + result.stderr).splitlines()


def exposure(path: Path) -> list[str]:
    """What systemd says of the unit's exposure, where that is more than it should be."""
    result = tools.run("systemd-analyze", "security", "--offline=true", "--no-pager", path)
    level = re.search(r"Overall exposure level for \S+: ([\d.]+)", result.stdout)
    return [] if level and float(level[1]) <= MOST_EXPOSED else [tools.said(result)]


READERS = [lint, verify, exposure] if shutil.which("systemd-analyze") else [lint]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("role", ROLES)
def test_whoever_reads_a_unit_has_nothing_to_say(
    reader: Callable[[Path], list[str]], role: str, tmp_path: Path
) -> None:
    assert reader(installed(role, tmp_path)) == []


@pytest.mark.parametrize("reader", READERS)
def test_whoever_reads_a_unit_would_see_what_is_wrong(
    reader: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    bad = installed("prover", tmp_path)
    text = re.sub(r"(?m)^(Restrict|Protect|Private|SystemCall|Capability).*\n", "", bad.read_text("utf-8"))
    bad.write_text(text.replace("NoNewPrivileges", "NoNewPrivilege"), "utf-8")
    assert reader(bad) != []


@pytest.mark.parametrize("role", ROLES)
def test_a_unit_starts_its_role_with_the_file_s_flags(role: str) -> None:
    (start,) = unit(role)["ExecStart"]
    program, *words = shlex.split(start)
    assert (tools.ROOT / Path(program).relative_to("/opt/targon")).exists()
    assert words == [role, f"$TARGON_{role.upper()}_ARGS"]
    assert unit(role)["EnvironmentFile"] == [f"/etc/targon/{role}.env"]


@pytest.mark.parametrize("role", ROLES)
def test_a_unit_ends_its_neuron_politely_and_starts_it_again_unless_flags_are_wrong(role: str) -> None:
    settings = unit(role)
    assert settings["KillSignal"] == ["SIGTERM"]
    assert settings["KillMode"] == ["mixed"]
    assert settings["Restart"] == ["on-failure"]
    assert settings["RestartPreventExitStatus"] == ["2"]


@pytest.mark.parametrize("role", ROLES)
def test_no_secret_stands_in_a_unit_or_an_example(role: str) -> None:
    text = (FOLDER / f"targon-{role}.service").read_text("utf-8")
    assert not re.search(r"(?i)(password|api_key|secret)\s*=", text)
    example = (FOLDER / f"{role}.env.example").read_text("utf-8")
    secrets = re.findall(r"(?im)^#?\w*(?:PASSWORD|API_KEY)=(.*)$", example)
    assert secrets
    assert set(secrets) == {"replace-me"}
