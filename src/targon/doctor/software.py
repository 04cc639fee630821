"""The software: this Python, and every package, are ones that this version was made for."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import Distribution, PackageNotFoundError, distribution, version

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from targon.doctor.findings import Result, bad, good

ENGINE = "engine"
"""The extra that an engine needs which is started here."""
ORACLE = "oracle"
"""The extra that an oracle needs, to read its source."""


def check_software(
    extras: frozenset[str], ours: Callable[[], Distribution] = lambda: distribution("targon")
) -> Result:
    """Compare what is installed with what our package's own metadata asks for.

    Args:
        extras: which optional parts are used.
        ours: our package.
    """
    try:
        package = ours()
    except PackageNotFoundError:
        return bad(
            "targon itself is not installed as a package here", "pip install . (in its folder), or make setup"
        )
    python = ".".join(map(str, sys.version_info[:3]))
    asked = SpecifierSet(package.metadata["Requires-Python"] or "")
    if not asked.contains(python, prereleases=True):
        return bad(
            f"Python {python}, expected {asked}", "make the virtual environment again with such a Python"
        )
    wanted = [one for one in map(Requirement, package.requires or ()) if _counts(one, extras)]
    wrong = [problem for one in wanted if (problem := _problem(one))]
    if wrong:
        names = ",".join(sorted(extras))
        return bad(
            f"targon {package.version} on Python {python}: {'; '.join(wrong)}",
            f"pip install --upgrade 'targon{f'[{names}]' if names else ''}', or make setup in its folder",
        )
    return good(
        f"targon {package.version} on Python {python}; {len(wanted)} packages are within their bounds"
    )


def _counts(wanted: Requirement, extras: frozenset[str]) -> bool:
    return wanted.marker is None or any(
        wanted.marker.evaluate({"extra": extra}) for extra in (extras or {""})
    )


def _problem(wanted: Requirement) -> str | None:
    try:
        got = version(wanted.name)
    except PackageNotFoundError:
        return f"{wanted.name} is missing, expected {wanted.specifier}"
    if wanted.specifier.contains(got, prereleases=True):
        return None
    return f"{wanted.name} is {got}, expected {wanted.specifier}"
