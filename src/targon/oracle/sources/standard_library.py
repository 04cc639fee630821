"""Private inputs from the documentation strings of Python's standard library.

Every machine that runs a verifier has this text, so that a network can be tried with nothing else at hand.

**It is not private.** Anyone can read the same files, so a prover can know every passage beforehand. What it
can't know is which one it will be asked about, with which question, seed and length: those follow from a
secret that the verifier reveals only afterwards. A list of a few thousand passages can be prepared for (kept
in a prompt cache, for instance); a passage that nobody saw before its block can't. A network that pays should
draw from such a source instead.

The list depends on the Python that runs the verifier, down to its patch version: `StandardLibraryText.digest`
names the list, and two verifiers whose digests differ draw different passages from equal draws.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import sysconfig
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from itertools import accumulate
from pathlib import Path
from random import Random

from targon.oracle.errors import NoText, PassagesExhausted
from targon.oracle.passage import Passage
from targon.oracle.ports import Document
from targon.oracle.sources.prose import passages
from targon.protocol.primitives import Block, Digest

DRAW_BITS = 64
LEAST_PASSAGES = 100
"""A list shorter than this is refused: challenges would soon repeat."""

PACKAGES = (
    "asyncio", "collections", "concurrent", "email", "http", "importlib", "json", "logging",
    "multiprocessing", "pydoc_data", "re", "tkinter", "unittest", "urllib", "wsgiref", "xml", "xmlrpc",
)  # fmt: skip
"""The packages that are read, besides the modules that are single files. ``pydoc_data`` holds the language's
reference manual, as the values of one dict."""


class StandardLibraryText:
    """A fixed, ordered list of passages, and a draw's way into it.

    Reading the library takes about a second the first time in a process; construct it off the event loop.

    Args:
        folder: where the library's .py files lie; that of the running Python if None.

    Raises:
        NoText: if the folder holds fewer than ``LEAST_PASSAGES`` passages.
    """

    def __init__(self, folder: Path | None = None) -> None:
        place = folder or Path(sysconfig.get_path("stdlib"))
        self._passages = _read(place)
        self._used: set[int] = set()
        if len(self._passages) < LEAST_PASSAGES:
            raise NoText(str(place), len(self._passages), LEAST_PASSAGES)

    def __len__(self) -> int:
        return len(self._passages)

    def digest(self) -> Digest:
        """SHA-256 over every passage's source and text, in order: which list this is."""
        whole = hashlib.sha256()
        for passage in self._passages:
            whole.update(f"{passage.source}\0{passage.text}\n".encode())
        return Digest(whole.hexdigest())

    @property
    def name(self) -> str:
        return "embedded"

    @property
    def counts(self) -> Mapping[str, int]:
        """What was skipped, by reason: nothing ever is."""
        return {}

    def manifest(self) -> Digest:
        """The same as :meth:`digest`: it names what every document is made of."""
        return self.digest()

    def documents(self, random: Random) -> Iterator[Document]:
        """Draws from the modules' passages, for ever: a document is the passages of one module, a paragraph each.

        See :class:`targon.oracle.ports.Source`.
        """
        modules = defaultdict[str, list[Passage]](list)
        for passage in self._passages:
            modules[passage.source.partition(":")[0]].append(passage)
        documents = [("\n\n".join(passage.text for passage in of), of) for of in modules.values()]
        ends = list(accumulate(len(text) for text, _ in documents))
        while True:
            text, of = documents[bisect_right(ends, random.randrange(ends[-1]))]
            yield Document(text, of[0].source, random.random())

    def close(self) -> None:
        """It holds nothing: its text was read at the start."""

    def passage(self, draw: int, used: Collection[int] = ()) -> Passage:
        """The passage that a draw picks among those that weren't used.

        The draw is scaled to the number of passages that are left, ``draw · left // 2**64``, so that each is
        picked by as many draws as any other, to within one in 2**64.

        Args:
            draw: in [0, 2**64).
            used: indexes of passages that are not to be drawn.

        Raises:
            ValueError: if the draw is out of range.
            PassagesExhausted: if every passage was used.
        """
        if not 0 <= draw < 1 << DRAW_BITS:
            raise ValueError(f"got the draw {draw}, expected an integer in [0, 2**{DRAW_BITS})")
        left = self._passages
        if used:
            gone = frozenset(used)
            left = tuple(passage for passage in self._passages if passage.index not in gone)
        if not left:
            raise PassagesExhausted(len(self))
        return left[draw * len(left) >> DRAW_BITS]

    async def private_input(self, block: Block, draw: int) -> Passage:  # noqa: ARG002 - a port's signature
        """The passage that a draw picks in a block; none twice by this object until all were given out.

        Then a new round begins. Which passage a draw picks therefore depends on what was asked before it, and
        equal sequences of draws give equal passages.

        Raises:
            ValueError: if the draw is not in [0, 2**64).
        """
        if len(self._used) == len(self):
            self._used.clear()
        passage = self.passage(draw, self._used)
        self._used.add(passage.index)
        return passage


@cache
def _read(folder: Path) -> tuple[Passage, ...]:
    """Every passage of the library, ordered by file, line and place; a text that stands twice counts once."""
    found: dict[str, str] = {}
    for path in _files(folder):
        module = ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__")
        for line, text in passages(_documentation(path)):
            found.setdefault(text, f"{module}:{line}")
    return tuple(Passage(text, source, index) for index, (text, source) in enumerate(found.items()))


def _files(folder: Path) -> list[Path]:
    files = list(folder.glob("*.py"))
    for package in PACKAGES:
        files.extend(
            path for path in (folder / package).rglob("*.py") if not {"test", "tests"} & set(path.parts)
        )
    return sorted(files)


def _documentation(path: Path) -> Iterator[tuple[int, str]]:
    """The documentation in a file, parsed and never imported: docstrings, and what a dict of topics holds.

    Yields the line on which each begins, and its text with the common indentation removed.
    """
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, OSError):
        return
    pending: list[ast.stmt | ast.Module] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            for value in node.value.values:
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    yield value.lineno, inspect.cleandoc(value.value)
        if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        pending.extend(reversed(node.body))
        match node.body:
            case [ast.Expr(value=ast.Constant(value=str(text), lineno=line)), *_]:
                yield line, inspect.cleandoc(text)
