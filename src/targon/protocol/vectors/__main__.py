"""``python -m targon.protocol.vectors``: write the conformance vectors, or check a folder of them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from targon.protocol.errors import VectorMismatch
from targon.protocol.vectors import check_files, files


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status: 0, or 1 if a vector does not come out as it stands."""
    parser = argparse.ArgumentParser(prog="python -m targon.protocol.vectors", description=__doc__)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", type=Path, metavar="DIR", help="compute the vectors and write them")
    action.add_argument("--check", type=Path, metavar="DIR", help="check the vectors that stand there")
    options = parser.parse_args(arguments)
    if options.write is not None:
        return write(options.write)
    return check(options.check)


def write(folder: Path) -> int:
    """Write every file of vectors into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files().items():
        (folder / name).write_text(content, encoding="utf-8")
    sys.stdout.write(f"{len(files())} files written to {folder}\n")
    return 0


def check(folder: Path) -> int:
    """Check the files of vectors in a folder."""
    contents = {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.json"))}
    try:
        cases = check_files(contents)
    except VectorMismatch as error:
        sys.stderr.write(f"{folder}: {error}\n")
        return 1
    sys.stdout.write(f"{sum(cases.values())} cases of {len(cases)} rules agree\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
