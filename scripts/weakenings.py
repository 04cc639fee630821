"""Weaken every check, one at a time, and see that a test fails each time.

    make mutation
    .venv/bin/python scripts/weakenings.py --only structure receipts

What is weakened is partly derived from the code: of each file in ``weakenings.toml``, every

* guard that refuses, fails or decides nothing (``if …: return failed(…)``, ``if …: raise …``) is left out;
* handler that turns an error into a verdict or into an error of ours catches nothing;
* link of a chain of checks (``a(…) or b(…)``) and row of a table of checks is left out.

The rest stands in the table: thresholds, bounds, and what feeds them. Of files that the table names in ``as_listed``
only that is tried: what would follow from their code is mostly what disks and networks do.

A weakening is tried on a copy of ``src``, with the tests that are named for its file, and has survived if they pass.
Those that change nothing that anybody could see stand in the table too, each with its reason. Exit code 1 if any other
survives.
"""

from __future__ import annotations

import argparse
import ast
import os
import shutil
import signal
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from multiprocessing import get_context
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src"
TABLE = Path(__file__).with_suffix(".toml")

REFUSALS = frozenset({"failed", "inconclusive", "Judgement", "NoBand", "_partial"})
"""Calls that decide against an answer, or decide nothing."""

_PRELOADED = ("-W", "ignore::pytest.PytestAssertRewriteWarning")
"""Plugins of pytest are loaded before it: that saves most of what a run of a few tests takes."""
_UNUSED = ("-p", "no:schemathesis")
"""It loads its reports as a run ends, and CPython 3.11 can fail there (``AST constructor recursion depth mismatch``)
when the run left tasks that failed: then nobody knows whether a test had noticed."""

LIMIT_S = 300
"""Seconds for one weakening's tests: a machine that does nothing else needs two or three."""


@dataclass(frozen=True, slots=True)
class Weakening:
    """One change of one file."""

    file: str
    """Below ``src/targon``."""
    what: str
    """In words, or the code that is left out."""
    start: int
    end: int
    """Bytes of the file, UTF-8, that are replaced."""
    put: str

    def applied(self, source: bytes) -> bytes:
        """The file, weakened."""
        return source[: self.start] + self.put.encode() + source[self.end :]


class TableError(Exception):
    """The table and the code don't fit one another."""


def load_table() -> dict[str, Any]:
    """The table of what isn't derived: tests by file, weakenings, and those that change nothing."""
    return tomllib.loads(TABLE.read_text("utf-8"))


def weakenings(table: dict[str, Any]) -> list[Weakening]:
    """All of them, those left out that are said to change nothing.

    Raises:
        TableError: if a text that is to be replaced isn't found exactly once, or a weakening that is said to
            change nothing isn't there.
    """
    found: list[Weakening] = []
    for file in table["tests"]:
        source = (SOURCE / "targon" / file).read_bytes()
        if file not in table.get("as_listed", ()):
            found += derived(file, source)
        found += [_from_table(entry, source) for entry in table["weakening"] if entry["file"] == file]
    known = {(entry["file"], entry["what"]) for entry in table.get("equivalent", [])}
    missing = known - {(one.file, one.what) for one in found}
    named = {*table.get("as_listed", ()), *(entry["file"] for entry in table["weakening"])}
    if missing or not named <= table["tests"].keys():
        raise TableError(f"weakenings.toml: of no weakening, or of a file without tests: {sorted(missing)}")
    return [one for one in found if (one.file, one.what) not in known]


def _from_table(entry: dict[str, str], source: bytes) -> Weakening:
    find = entry["find"].encode()
    if source.count(find) != 1:
        raise TableError(
            f"{entry['file']}: found {source.count(find)} times, expected once: {entry['find']!r}; "
            "the code has changed: change weakenings.toml with it"
        )
    start = source.index(find)
    return Weakening(entry["file"], entry["what"], start, start + len(find), entry["put"])


def derived(file: str, source: bytes) -> Iterator[Weakening]:
    """What follows from the code itself, in its order."""
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))

    def replaced(node: ast.AST, put: str, what: str, inside: str) -> Weakening:
        start, end = _span(node, starts)
        return Weakening(file, f"{inside}: {what}", start, end, put)

    def text(node: ast.AST) -> str:
        start, end = _span(node, starts)
        return " ".join(source[start:end].decode().split())

    for inside, node in _within_functions(ast.parse(source)):
        if isinstance(node, ast.If) and not node.orelse and _refuses(node.body[-1]):
            yield replaced(node.test, "False", f"without {text(node.test)}", inside)
        elif isinstance(node, ast.ExceptHandler) and node.type and _refuses(node.body[-1]):
            yield replaced(node.type, "InterruptedError", f"without except {text(node.type)}", inside)
        elif isinstance(node, ast.IfExp) and (_is_refusal(node.orelse) or _is_refusal(node.body)):
            yield replaced(node, "None", f"without {text(node.test)}", inside)
        elif isinstance(node, ast.BoolOp) and isinstance(node.op, ast.Or):
            if all(isinstance(value, ast.Call) for value in node.values):
                for value in node.values:
                    yield replaced(value, "None", f"without {text(value)}", inside)
        elif isinstance(node, ast.For) and isinstance(node.iter, ast.Tuple) and _is_table(node.iter):
            rows = [text(row) for row in node.iter.elts]
            for gone, row in enumerate(rows):
                kept = [other for place, other in enumerate(rows) if place != gone]
                yield replaced(
                    node.iter, f"({''.join(f'{one}, ' for one in kept)})", f"without {row}", inside
                )
        elif isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Dict):
            entries = [
                (text(key), text(of))
                for key, of in zip(node.value.keys, node.value.values, strict=True)
                if key
            ]
            for gone, (key, _) in enumerate(entries):
                kept = [f"{k}: {v}" for place, (k, v) in enumerate(entries) if place != gone]
                yield replaced(node.value, f"{{{', '.join(kept)}}}", f"without {key}", inside)


def _within_functions(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """Every node of every function, once, with the name of the innermost function that it stands in."""
    pending: list[tuple[str, ast.AST]] = [("", tree)]
    while pending:
        inside, node = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inside = node.name
        if inside:
            yield inside, node
        pending += [(inside, child) for child in reversed(list(ast.iter_child_nodes(node)))]


def _refuses(last: ast.stmt) -> bool:
    if isinstance(last, ast.Raise):
        return True
    if not isinstance(last, ast.Return) or last.value is None:
        return False
    return isinstance(last.value, ast.JoinedStr | ast.Name) or _is_refusal(last.value)


def _is_refusal(value: ast.expr) -> bool:
    return isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id in REFUSALS


def _is_table(value: ast.Tuple) -> bool:
    return len(value.elts) > 1 and isinstance(value.elts[0], ast.Tuple)


def _span(node: Any, starts: list[int]) -> tuple[int, int]:  # noqa: ANN401 - nodes that have a place
    return starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset


def weakened(base: Path, folder: Path, weakening: Weakening) -> None:
    """Lay out ``targon`` in a folder: links to a copy of it, but for the file that is weakened."""
    place, under = folder / "targon", base / "targon"
    for part in Path(weakening.file).parts:
        place.mkdir()
        for entry in under.iterdir():
            if entry.name != part:
                (place / entry.name).symlink_to(entry)
        place, under = place / part, under / part
    place.write_bytes(weakening.applied(under.read_bytes()))
    os.utime(place, (0, 0))  # so that no bytecode is taken for its own


def run_tests(source: str, tests: list[str]) -> tuple[int, str]:
    """Run tests on the ``targon`` of a folder, in a process that has not loaded another; exit code and output."""
    signal.alarm(LIMIT_S)
    sys.dont_write_bytecode = True
    sys.path.insert(0, source)
    os.environ["PYTHONPATH"] = source
    os.chdir(ROOT)
    options = ["-x", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0", *_PRELOADED, *_UNUSED]
    with redirect_stdout(StringIO()) as output, redirect_stderr(output):
        import pytest

        code = int(pytest.main([*options, *tests]))
        import targon

    if not str(targon.__file__).startswith(source):
        raise TableError(f"got targon from {targon.__file__}, expected it from {source}")
    return code, output.getvalue()


def survivors(chosen: list[Weakening], tests: dict[str, list[str]], jobs: int) -> Iterator[Weakening]:
    """Try all, so many at a time; yields those that no test notices, and prints how it goes.

    Raises:
        TableError: if the tests fail on the code as it is, or can't be run on what is weakened.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload(["bittensor.keyfiles", "hypothesis", "numpy", "pydantic", "pytest"])
    with tempfile.TemporaryDirectory(prefix="targon-weakened-") as folder:
        os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = folder
        base = Path(folder) / "base"
        shutil.copytree(SOURCE, base)
        with ProcessPoolExecutor(jobs, context, max_tasks_per_child=1) as pool:
            everything = sorted({test for one in chosen for test in tests[one.file]})
            code, output = pool.submit(run_tests, str(base), everything).result()
            if code != 0:
                raise TableError(f"the tests fail on the code as it is:\n{output[-4000:]}")
            running = []
            for number, one in enumerate(chosen):
                place = Path(folder) / str(number)
                place.mkdir()
                weakened(base, place, one)
                running.append(pool.submit(run_tests, str(place), tests[one.file]))
            for one, future in zip(chosen, running, strict=True):
                code, output = future.result()
                if code not in (0, 1):
                    raise TableError(f"{one.file}, {one.what}: pytest ended with {code}:\n{output[-4000:]}")
                print(f"{'noticed ' if code else 'SURVIVED'}  {one.file:32} {one.what}", flush=True)
                if not code:
                    yield one


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--only",
        nargs="+",
        default=[""],
        metavar="TEXT",
        help="weaken only what has one of these in its file's name or its words",
    )
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time (2)")
    parser.add_argument("--list", action="store_true", help="print them, and try nothing")
    options = parser.parse_args()
    table = load_table()
    chosen = [
        one for one in weakenings(table) if any(wanted in f"{one.file} {one.what}" for wanted in options.only)
    ]
    if options.list:
        for one in chosen:
            print(f"{one.file:32} {one.what}")
        print(f"{len(chosen)} weakenings")
        return 0
    left = list(survivors(chosen, table["tests"], options.jobs))
    print(f"\n{len(chosen)} weakenings, of which {len(left)} survived.")
    for one in left:
        print(f"  src/targon/{one.file}: {one.what}")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
