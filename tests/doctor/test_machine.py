"""Disk, memory, open files, and the software."""

from __future__ import annotations

import resource
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import pytest

from targon.doctor.machine import (
    GIB,
    MIB,
    Room,
    amount,
    available_memory,
    judge_disk,
    judge_files,
    judge_memory,
    room_of,
)
from targon.doctor.software import check_software
from tests.doctor.looks import only


def test_the_room_of_a_folder_that_is_still_to_be_made_is_its_disk_s(tmp_path: Path) -> None:
    room = room_of(tmp_path / "a" / "b")
    assert room.free > 0
    assert abs(room.free - room_of(tmp_path).free) < 64 * MIB


@pytest.mark.parametrize(
    ("room", "outcome"),
    [
        (Room(50 * GIB, 1_000_000), "good"),
        (Room(50 * GIB, None), "good"),
        (Room(2 * GIB, 1_000_000), "note"),
        (Room(100 * MIB, 1_000_000), "bad"),
        (Room(50 * GIB, 10), "bad"),
    ],
)
def test_little_room_is_noted_and_none_is_bad(room: Room, outcome: str, tmp_path: Path) -> None:
    assert only(judge_disk(room, tmp_path)).outcome == outcome


def test_this_machine_says_how_much_memory_is_available() -> None:
    available = available_memory(Path("/proc"), Path("/sys/fs/cgroup"))
    assert available is not None
    assert available > 10 * MIB


def a_system(folder: Path, limit: str) -> tuple[Path, Path]:
    proc, cgroup = folder / "proc", folder / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal: 8388608 kB\nMemAvailable:    4194304 kB\n")
    (proc / "self" / "cgroup").write_text("0::/box\n")
    (cgroup / "box").mkdir(parents=True)
    (cgroup / "box" / "memory.max").write_text(f"{limit}\n")
    (cgroup / "box" / "memory.current").write_text(f"{GIB}\n")
    return proc, cgroup


@pytest.mark.parametrize(
    ("limit", "available"), [("max", 4 * GIB), (str(3 * GIB), 2 * GIB), (str(GIB // 2), 0)]
)
def test_a_container_s_limit_counts(tmp_path: Path, limit: str, available: int) -> None:
    assert available_memory(*a_system(tmp_path, limit)) == available


def test_memory_that_does_not_suffice_is_bad() -> None:
    assert only(judge_memory(4 * GIB, 2 * GIB)).outcome == "good"
    assert only(judge_memory(1 * GIB, 2 * GIB)).outcome == "bad"
    assert only(judge_memory(None, 2 * GIB)).outcome == "note"


@pytest.mark.parametrize(
    ("soft", "hard", "outcome", "advice"),
    [
        (4_096, 4_096, "good", ""),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, "good", ""),
        (1_024, 4_096, "note", "ulimit -n 1280"),
        (64, 4_096, "bad", "ulimit -n 1280"),
        (64, 64, "bad", "raise the hard limit (64) as root"),
    ],
)
def test_the_limit_of_open_files_is_held_against_what_the_role_may_need(
    soft: int, hard: int, outcome: str, advice: str
) -> None:
    finding = only(judge_files(soft, hard, 1_280))
    assert (finding.outcome, finding.advice.startswith(advice)) == (outcome, True)


def test_amounts_are_read_by_people() -> None:
    assert [amount(size) for size in (512, 3 * MIB, 1.5 * GIB)] == ["0.5 KiB", "3.0 MiB", "1.5 GiB"]


@pytest.mark.parametrize("extras", [frozenset(), frozenset({"engine"})])
def test_the_software_that_these_tests_run_on_is_good(extras: frozenset[str]) -> None:
    finding = only(check_software(extras))
    assert (finding.outcome, "packages are within their bounds" in finding.found) == ("good", True)


def test_an_engine_s_packages_are_counted_only_where_one_is_started() -> None:
    alone, with_engine = (
        only(check_software(extras)).found for extras in (frozenset(), frozenset({"engine"}))
    )
    assert alone != with_engine


def a_package(folder: Path, *lines: str) -> Distribution:
    info = folder / "targon-9.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "\n".join(("Metadata-Version: 2.1", "Name: targon", "Version: 9.9", *lines, ""))
    )
    return Distribution.at(info)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("Requires-Dist: numpy<1", "numpy is"),
        ("Requires-Dist: nosuchpackage>=2", "nosuchpackage is missing, expected >=2"),
        ("Requires-Python: >=4.0", "expected >=4.0"),
    ],
)
def test_what_is_outside_of_its_bounds_is_bad_and_named(tmp_path: Path, line: str, said: str) -> None:
    package = a_package(tmp_path, line)
    finding = only(check_software(frozenset(), lambda: package))
    assert (finding.outcome, said in finding.found) == ("bad", True)


def test_packages_of_parts_that_are_not_used_do_not_count(tmp_path: Path) -> None:
    package = a_package(tmp_path, 'Requires-Dist: nosuchpackage>=2; extra == "engine"')
    assert only(check_software(frozenset(), lambda: package)).outcome == "good"
    assert only(check_software(frozenset({"engine"}), lambda: package)).outcome == "bad"


def test_software_that_is_not_installed_is_bad() -> None:
    def missing() -> Distribution:
        raise PackageNotFoundError("targon")

    assert only(check_software(frozenset(), missing)).outcome == "bad"
    assert distribution("targon").version
