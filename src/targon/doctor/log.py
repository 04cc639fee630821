"""The verifier's log: it is whole, it is ours, and there is room for what it grows to.

Where the log lies is a :class:`LogPlace` (:mod:`targon.doctor.sqlite`, :mod:`targon.doctor.redis`), with the checks
that only such a place needs; the checks of the log itself are the same for all. Nothing is written here, and nothing
repaired.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, field
from typing import Final, Protocol

import anyio
from packaging.version import InvalidVersion, Version

from targon.doctor.chain import Link
from targon.doctor.examination import Check
from targon.doctor.findings import Result, bad, good, note
from targon.doctor.machine import amount
from targon.ledger import CorruptLog, LedgerError, Log, LogOpened, OracleFaulted
from targon.protocol.keys import Signer
from targon.protocol.primitives import Block, Hotkey
from targon.protocol.profile import Profile

READ_S: Final = 30.0
"""Records are checked for so long; a log of months takes longer, and its newest part is checked at each opening."""
LEAST_DAYS: Final = 2.0
"""Less than a weekend without anybody looking."""
FEW_DAYS: Final = 30.0


class LogPlace(Protocol):
    """Where a log lies."""

    @property
    def checks(self) -> Sequence[Check]:
        """What only a place of this kind needs, in order."""
        ...

    @property
    def needed(self) -> tuple[Check, ...]:
        """Those of them without which the log can't be opened."""
        ...

    @property
    def flag(self) -> str:
        """The flag that names another one."""
        ...

    @property
    def larger(self) -> str:
        """What to get when it gets full."""
        ...

    def open(self) -> AbstractAsyncContextManager[Log | None]:
        """The log, for reading; None: there is none yet."""
        ...

    async def size(self) -> int | None:
        """Bytes that it takes; None: not known."""
        ...

    async def room(self) -> int | None:
        """Bytes that are still free for it; None: not known."""
        ...


@dataclass(frozen=True, slots=True)
class Story:
    """What a log says of itself."""

    place: LogPlace
    opened: LogOpened
    records: int
    whole: bool
    """Whether every record was read, and not only the first ones."""
    first: Block
    last: Block
    size: int | None
    room: int | None
    caught: Mapping[Hotkey, OracleFaulted] = field(default_factory=dict)
    """What each oracle was caught at last."""

    def bytes_per_day(self, block_seconds: float) -> float | None:
        """How fast it grew; None if it is too short to tell."""
        if self.size is None or not self.whole or self.last <= self.first:
            return None
        return self.size / ((self.last - self.first) * block_seconds) * 86_400


async def check_log(place: LogPlace) -> Result:
    """Every record is what its hash says. Hands on the log's :class:`Story`."""
    restore = f"keep it as it is, and restore the log from a copy; or begin anew with another {place.flag}"
    try:
        async with place.open() as log:
            if log is None:
                return good("there is none yet; the verifier begins one at its first start")
            return await _read(log, place)
    except CorruptLog as error:
        if error.torn:
            return note(f"its last record is torn: {error}", "start the verifier")
        return bad(f"it is damaged: {error}", restore)
    except LedgerError as error:
        return bad(str(error), f"name the place of a verifier's log with {place.flag}")


async def _read(log: Log, place: LogPlace) -> Result:
    head = await log.head()
    opened: LogOpened | None = None
    blocks: list[Block] = []
    caught: dict[Hotkey, OracleFaulted] = {}
    records, whole = 0, False
    with anyio.move_on_after(READ_S):
        async with aclosing(log.read()) as reading:
            async for record in reading:
                records += 1
                opened = opened or (record.event if isinstance(record.event, LogOpened) else None)
                if isinstance(record.event, OracleFaulted):
                    caught[record.event.oracle] = record.event
                if (block := getattr(record.event, "block", None)) is not None:
                    blocks = [blocks[0] if blocks else block, block]
        whole = True
    if opened is None:
        return good("it is empty; the verifier begins it at its first start")
    first, last = blocks or (Block(0), Block(0))
    size, room = await place.size(), await place.room()
    story = Story(place, opened, records, whole, first, last, size, room, caught)
    found = f"{records} records, up to block {last}; each is what its hash says"
    if whole:
        return good(found, value=story)
    return note(
        f"the first {found}; of {head.seq + 1} in all, the others were not read within {READ_S:g} s",
        "nothing needs to be done: the newest records are checked when a verifier opens the log",
        value=story,
    )


async def check_whose(story: Story, signer: Signer, profile: Profile) -> Result:
    """The log is this verifier's, under the rules that it will run by."""
    opened = story.opened
    if opened.verifier != signer.ss58_address:
        return bad(
            f"it is the log of verifier {opened.verifier}, expected {signer.ss58_address}",
            f"give this verifier another {story.place.flag}, or the wallet that began the log",
        )
    differing = [
        f"{name} {getattr(opened.profile, name)!r}, expected {getattr(profile, name)!r}"
        for name in type(profile).model_fields
        if getattr(opened.profile, name) != getattr(profile, name)
    ]
    if differing:
        return bad(
            f"it was begun under other rules: {'; '.join(differing)}",
            f"go on with the log's own --profile and --neuron.moving_average_alpha, or give another {story.place.flag}",
        )
    return good(f"begun by this hotkey, under the profile {profile.name!r}")


async def check_network(story: Story, link: Link) -> Result:
    """The log is of the network that the chain is."""
    opened, info = story.opened, link.info
    if (opened.genesis, opened.netuid) != (info.genesis, info.netuid):
        return bad(
            f"it is of subnet {opened.netuid} on the chain with genesis {opened.genesis[:12]}…, expected subnet "
            f"{info.netuid} on {info.genesis[:12]}…",
            f"give this verifier another {story.place.flag}, or name the log's own network",
        )
    return good(f"of this chain, and of subnet {info.netuid}")


async def check_software(story: Story, version: str) -> Result:
    """No newer software began the log."""
    name = story.opened.software
    try:
        newer = Version(name.partition(" ")[2]) > Version(version)
    except InvalidVersion:
        return note(f"begun by {name!r}, of which the version can't be told")
    if newer:
        return bad(
            f"begun by {name}, which is newer than this, {version}",
            "upgrade targon to that version or later",
        )
    return good(f"begun by {name}; this is {version}")


async def check_growth(story: Story, link: Link) -> Result:
    """For how long the log has room, if it grows as it did."""
    per_day = story.bytes_per_day(link.info.block_seconds)
    if per_day is None:
        return note("not checked: the log is too short, or was not read whole, to tell how fast it grows")
    found = f"it grew by {amount(per_day)} a day"
    if story.room is None:
        return note(f"{found}; how much room is left can't be told")
    days = story.room / per_day
    found = f"{found}; what is free lasts for {days:,.0f} days"
    if days < LEAST_DAYS:
        return bad(found, f"make room now, or give it {story.place.larger}")
    if days < FEW_DAYS:
        return note(found, f"plan for {story.place.larger}")
    return good(found)
