"""Private inputs from prose: passages a second that are drawn, cut, cleaned, judged and remembered on disk."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random

from benchmarks.row import Row
from targon.oracle import StandardLibraryText
from targon.oracle.ports import Document
from targon.oracle.refining import Refiner, Taken, cut
from targon.oracle.supply import RefinedSupply
from targon.protocol.primitives import Digest

COPIES = 200
"""Of the library's text, each with other words in it: so much that draws seldom meet."""


class _Book:
    """One long text of real sentences."""

    name = "book"

    def __init__(self, text: str) -> None:
        self.text = text
        self.counts: Mapping[str, int] = {}

    def close(self) -> None:
        return

    def manifest(self) -> Digest:
        return Digest("00" * 32)

    def documents(self, random: Random) -> Iterator[Document]:
        while True:
            yield Document(self.text, self.name, random.random())


def run(quick: bool) -> list[Row]:
    """Measure."""
    count = 2_000 if quick else 20_000
    book = _Book(_prose(20 if quick else COPIES))
    with tempfile.TemporaryDirectory() as folder:
        supply = RefinedSupply(book, Taken(Path(folder) / "taken.sqlite"), Random(1))
        supply.take(100)
        began, drawn, cpu = supply.counts.taken, supply.counts.draws, time.process_time()
        while supply.counts.taken - began < count:
            supply.take(500)
        spent = time.process_time() - cpu
        taken, draws = supply.counts.taken - began, supply.counts.draws - drawn
        supply.close()
    return [
        Row(
            "supply",
            taken / spent,
            "passages/s",
            ">= 2,000 passages/s",
            f"on one core, {draws / taken:.1f} draws each",
        ),
        _cut(book.text, count),
        _judge(count),
    ]


def _prose(copies: int) -> str:
    """Paragraphs of the library's passages, each copy with other words in them."""
    library = StandardLibraryText()
    passages = [library.passage(-(-(index << 64) // len(library))).text for index in range(len(library))]
    kept = [text for text in map(Refiner().judge, passages) if isinstance(text, str)]
    random = Random(2)
    paragraphs = []
    for _ in range(copies):
        names = ["".join(random.choices("abcdefghijklmnoprstuvwy", k=6)) for _ in range(200)]
        for text in kept:
            words = [
                random.choice(names) if len(word) == 3 or (len(word) > 6 and word.isalpha()) else word
                for word in text.split()
            ]
            paragraphs.append(" ".join(words))
    random.shuffle(paragraphs)
    return "\n\n".join(" ".join(paragraphs[place : place + 5]) for place in range(0, len(paragraphs), 5))


def _cut(text: str, count: int) -> Row:
    random = Random(3)
    began = time.process_time()
    for _ in range(count):
        cut(text, random.random())
    note = f"one place in a text of {len(text) / 1e6:,.0f} million characters"
    return Row("cut", (time.process_time() - began) / count * 1e6, "µs", note=note)


def _judge(count: int) -> Row:
    library, refiner = StandardLibraryText(), Refiner()
    texts = [library.passage(-(-(index << 64) // 1_000)).text for index in range(1_000)]
    began = time.process_time()
    for index in range(count):
        refiner.judge(texts[index % 1_000])
    return Row("judge", (time.process_time() - began) / count * 1e6, "µs", note="one passage of the library")
