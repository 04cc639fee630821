"""The way of a text: source → document → passage → private input. Who is on it, and what each promises."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

from targon.oracle.passage import Passage
from targon.protocol.primitives import Digest


@dataclass(frozen=True, slots=True)
class Document:
    """One text of a source, and the place in it that was drawn."""

    text: str
    """As it stands in the source, decoded; nothing is cleaned yet."""
    source: str
    """Where it was taken from, so that somebody could find it: file and place, or address."""
    at: float
    """In [0, 1): how far into the text the draw fell. Which passage is taken follows from it."""


class Source(Protocol):
    """A body of text, which may be far larger than memory. Its calls block: they are made in a worker thread."""

    @property
    def name(self) -> str:
        """For logs and docs."""
        ...

    @property
    def counts(self) -> Mapping[str, int]:
        """What it came to beside texts, by name: what can't be read, say. For metrics, in any thread.

        Raises:
            StoreUnavailable: if they are kept in a file that can't be read.
        """
        ...

    def manifest(self) -> Digest:
        """Names the body of text: a digest over the names and sizes (or the like) of what it consists of."""
        ...

    def documents(self, random: Random) -> Iterator[Document]:
        """Draws, one after the other, until the source is exhausted.

        Every character of every document is as likely to be drawn as every other, whatever the size of its document,
        its place in a file or the order of files; so passages of equal length are equally likely. Draws may
        repeat a document. What can't be read is skipped, counted, and said.
        """
        ...

    def close(self) -> None:
        """End what it runs and let go of what it holds; of a source that has neither, nothing."""
        ...


class Supply(Protocol):
    """Passages that are fit to be private inputs, none of which was ever given before. Its calls block."""

    def manifest(self) -> Digest:
        """Names the body of text that passages come from."""
        ...

    def take(self, count: int) -> Sequence[Passage]:
        """So many passages; fewer where the source has no more.

        They are remembered as taken, on disk, before this returns.
        """
        ...


@dataclass(frozen=True, slots=True)
class Filled:
    """How many passages are there for the next period."""

    held: int
    taken: int
    """Of them now."""


@dataclass(frozen=True, slots=True)
class Written:
    """A period's files, which lie in the oracle's folder."""

    root: Digest
    """Of the tree over their leaves."""
    source: Digest
    """Names the body of text that they were drawn from."""


class PeriodWriter(Protocol):
    """Takes passages, holds them, and writes them down as periods. What it writes is looked at before it is signed.

    All of it may take long, and none of it may keep the caller's event loop.
    """

    async def fill(self, count: int) -> Filled:
        """Take passages until so many are held; fewer where the source has no more.

        Raises:
            OracleError: if none can be had. What is held by then may be gone.
        """
        ...

    async def write(self, number: int, secret: bytes, count: int) -> Written:
        """Write the first of those that are held down as a period's files. They stay held.

        Raises:
            OracleError: if that fails. What is held by then may be gone.
        """
        ...

    async def used(self, count: int) -> None:
        """Let go of the first of those that are held: they were committed to, and are in no other period."""
        ...
