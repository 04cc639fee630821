"""Set up .venv with exactly the packages of constraints.txt, and say what is going on.

Run by the Makefile (through scripts/setup.sh, which finds a Python): `setup.py run` or `setup.py develop`. With
`setup.py engines` it is .venv-engines, with those of constraints-engines.txt, with `setup.py operations`
.venv-operations, the tools that check how nodes are run, some of which come from npm, and with `setup.py gateways`
.venv-gateways, the gateways beside which ours is measured. A hash of what the environment is
made from is kept in it, so that it is made once. Standard library only.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parent.parent
FREE_BYTES = 3_000_000_000
"""What the environment and pip's temporary files take on disk, rounded up."""
LARGE_BYTES = 5_000_000
"""Downloads above this get a line of their own."""
MOST_BYTES = 300_000_000
"""Packages above this are the whole environment rather than a few more."""

SECTION = re.compile(r"^# \[(\w+)\]")
FILE = re.compile(r"^\s*(?P<how>Downloading|Using cached|Processing) (?P<what>\S+)(?: \((?P<size>[^)]+)\))?")
NPM_FILES = ("package.json", "package-lock.json")
UNITS = {"bytes": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}


@dataclass(frozen=True)
class Environment:
    """A virtual environment, and what it is made from."""

    folder: Path
    constraints: Path
    sections: tuple[str, ...]
    """Of the constraints; the later ones take what stands in the earlier ones, too."""
    packages: Path | None = None
    """Folder of a package.json with its lock, for what comes from npm."""
    tools: bool = False
    """Whether it holds tools, and not the project."""

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def fingerprint(self) -> str:
        """SHA-256 of what decides the environment's content."""
        whole = hashlib.sha256()
        files = [self.constraints, ROOT / "pyproject.toml", ROOT / "scripts" / "setup.py"]
        files += [self.packages / name for name in NPM_FILES] if self.packages else []
        for file in files:
            whole.update(file.read_bytes())
        return whole.hexdigest() + "\n"

    def pins(self) -> dict[str, list[str]]:
        """The pinned packages of each section."""
        pins: dict[str, list[str]] = {}
        section = ""
        for line in self.constraints.read_text("utf-8").splitlines():
            if header := SECTION.match(line):
                section = header[1]
                pins[section] = []
            elif line and not line.startswith("#"):
                pins[section].append(line)
        wanted: list[str] = []
        return {name: (wanted := wanted + pins[name]) for name in self.sections}


ENVIRONMENTS = (
    Environment(ROOT / ".venv", ROOT / "constraints.txt", ("run", "develop")),
    Environment(ROOT / ".venv-engines", ROOT / "constraints-engines.txt", ("engines",)),
    Environment(
        ROOT / ".venv-operations",
        ROOT / "constraints-operations.txt",
        ("operations",),
        packages=ROOT / "operations",
        tools=True,
    ),
    Environment(ROOT / ".venv-gateways", ROOT / "constraints-gateways.txt", ("gateways",), tools=True),
)

REMEDIES = (
    (r"No space left on device", "The disk is full: free about 3 GB, then run make again."),
    (
        r"NewConnectionError|Name or service not known|Temporary failure in name resolution|timed out|"
        r"ProxyError|SSLError|Connection (refused|reset|broken)",
        "pip can't reach its package index: check the network (and pip's own settings, `pip config list`), "
        "then run make again. What was downloaded is kept in pip's cache.",
    ),
    (
        r"No matching distribution|is not a supported wheel|Requires-Python",
        "Either pip's package index has not this package (`pip config list` shows which one it asks), or there "
        "is no build for this Python and platform: the pinned versions were made with Python 3.11 on Linux "
        "x86-64, which `make PYTHON=/path/to/python3.11 ...` names.",
    ),
)


def main(sections: list[str]) -> None:
    # two makes at once would unpack into the same folder: the second one waits
    lock = os.open(ROOT, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    section = sections[0] if len(sections) == 1 else ""
    environment = next((one for one in ENVIRONMENTS if section in one.sections), None)
    if environment is None:
        known = ", ".join(name for one in ENVIRONMENTS for name in one.sections)
        fail(f"got {' '.join(sections) or 'nothing'!r}, expected one of: {known}")
    stamp = environment.folder / f"{section}.stamp"
    fingerprint = environment.fingerprint()
    if not (environment.python.exists() and stamp.exists() and stamp.read_text("utf-8") == fingerprint):
        set_up(section, environment)
    # make goes by the times of these, the line above by their content; who has a later section has the first
    for name in {section, environment.sections[0]}:
        (environment.folder / f"{name}.stamp").write_text(fingerprint, "utf-8")


def set_up(section: str, environment: Environment) -> None:
    began = time.monotonic()
    wanted = environment.pins()[section]
    folder = environment.folder
    say(f"Setting up {folder.name} with {len(wanted)} packages at pinned versions. This happens once.")
    make_environment(environment)
    free = shutil.disk_usage(folder).free
    if free < FREE_BYTES and not (folder / f"{environment.sections[0]}.stamp").exists():
        fail(
            f"{folder}: got {free / 1e9:.1f} GB of free disk, expected {FREE_BYTES / 1e9:.0f}: free some space"
        )
    # until all is in place it is nobody's environment: who goes back to another version has to set it up, too
    for name in environment.sections:
        (folder / f"{name}.stamp").unlink(missing_ok=True)
    pip = Pip(environment.python)

    # --no-deps: the list is complete, and the model's package would bring a compiler run of minutes (see
    # the head of constraints.txt). --no-compile: bytecode is written when a module is first imported, which
    # is a quarter of them.
    size = pip.install("--no-deps", "--no-compile", *wanted)
    if size:
        say(f"{size / 1e6:,.0f} MB fetched and unpacked ({time.monotonic() - began:.0f} s so far)")

    if environment.packages is not None:
        install_from_npm(folder, environment.packages)
    if environment.tools:
        say(f"Ready after {time.monotonic() - began:.0f} s.")
        return

    # The CPU build of torch is complete by now and this does nothing. Where pip was given a CUDA build, it
    # fetches the libraries without which that build cannot be imported.
    torch = next(pin for pin in wanted if pin.startswith("torch=="))
    if (size := pip.install("--no-compile", "-c", str(environment.constraints), torch)) > 0:
        say(f"{size / 1e6:,.0f} MB more for this platform's build of torch")

    pip.install("--no-deps", "--no-build-isolation", "--no-compile", "-e", str(ROOT))
    say(f"Ready after {time.monotonic() - began:.0f} s.")


def install_from_npm(folder: Path, packages: Path) -> None:
    """Install what a lock file names, with the npm that stands in the environment."""
    for name in NPM_FILES:
        shutil.copyfile(packages / name, folder / name)
    bin_folder = folder / "bin"
    environment = {**os.environ, "PATH": f"{bin_folder}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
    command = [
        str(bin_folder / "npm"),
        "ci",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--prefix",
        str(folder),
    ]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        fail(
            f"{result.stdout[-2000:]}{result.stderr[-2000:]}\nnpm ended with status {result.returncode}. Check the "
            "network, and which registry npm asks (`npm config get registry`), then run make again."
        )
    say(f"{len(list((folder / 'node_modules').glob('*')))} packages from npm are here")


def make_environment(environment: Environment) -> None:
    """Make it, or make it again where its Python doesn't run (moved, or removed with the system's)."""
    folder, python = environment.folder, environment.python
    if folder.exists() and not (folder / "pyvenv.cfg").exists() and any(folder.iterdir()):
        fail(f"{folder} exists and is no virtual environment: move it away, then run make again")
    if python.exists():
        working = subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False)
        if working.returncode == 0:
            return
    version = ".".join(map(str, sys.version_info[:3]))
    say(f"Making a virtual environment with Python {version} ({sys.executable})")
    command = [sys.executable, "-m", "venv", "--clear", str(folder)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        fail(
            f"{made.stdout}{made.stderr}\n{sys.executable} could not make a virtual environment.\n"
            "On Debian and Ubuntu: apt-get install python3-venv. Then run make again."
        )


class Pip:
    """pip of one environment."""

    def __init__(self, python: Path) -> None:
        self._python = python

    def install(self, *arguments: str) -> float:
        """Run `pip install`, with a line for each large file; returns the bytes that were fetched."""
        command = [str(self._python), "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
        command += ["--progress-bar", "off", *arguments]
        lines: list[str] = []
        fetched = 0.0
        files = 0
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line)
                if (file := FILE.match(line)) and ".whl" in file["what"]:
                    size = size_of(file)
                    files += 1
                    fetched += size
                    if size >= LARGE_BYTES:
                        name = Path(unquote(urlsplit(file["what"]).path)).name.split("-")
                        verb = "downloading" if file["how"] == "Downloading" else "taking"
                        say(f"{files:4}. {verb} {name[0]} {name[1]}, {size / 1e6:,.0f} MB")
                elif line.startswith("Installing collected packages") and files > 1:
                    taken = " (about 1.5 GB on disk)" if fetched > MOST_BYTES else ""
                    say(f"{files:4} packages are here, unpacking them{taken}")
        if process.returncode != 0:
            output = "".join(lines)
            remedy = next(
                (text for pattern, text in REMEDIES if re.search(pattern, output)), "Run make again."
            )
            fail(f"{''.join(lines[-12:])}\npip ended with status {process.returncode}. {remedy}")
        return fetched


def size_of(file: re.Match[str]) -> float:
    """Bytes of a file that pip says it takes."""
    if file["size"] and file["size"].count(" ") == 1:
        number, unit = file["size"].split()
        if unit in UNITS:
            return float(number) * UNITS[unit]
    path = Path(unquote(urlsplit(file["what"]).path))
    return path.stat().st_size if path.is_file() else 0.0


def say(text: str) -> None:
    print(text, flush=True)


def fail(text: str) -> NoReturn:
    sys.exit(f"error: {text}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit("\nstopped; run make again to go on where this ended")
