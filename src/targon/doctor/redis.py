"""The log in Redis: it lets us in, keeps what it takes, has memory left, and nobody else writes the log.

The secret that draws are made from lies in the data folder all the same.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from targon.doctor.examination import Check, blocking
from targon.doctor.findings import Result, bad, good, note
from targon.doctor.machine import amount
from targon.doctor.sqlite import check_folder, check_secret
from targon.ledger import Log, LogUnavailable
from targon.ledger.redis import RedisAddress, RedisFacts, RedisLog, look_at

FULL: Final = 0.9
"""Share of its memory. Rewriting its file takes Redis some more for a while, and a full one refuses to append."""
FILLING: Final = 0.7
LOOK_S: Final = 75.0
"""A Redis that loads its file is waited for, which the adapter does for a minute."""


class RedisPlace:
    """A log in a database of Redis, with the verifier's secret in a folder.

    Args:
        folder: what ``--data.path`` names.
    """

    def __init__(self, address: RedisAddress, folder: Path) -> None:
        self._address = address
        self._server = Check("redis", lambda: check_server(address), deadline_s=LOOK_S)
        self._checks = (
            self._server,
            Check("redis: what it keeps", check_kept, (self._server,)),
            Check("redis: memory", check_memory, (self._server,)),
            Check("data folder", blocking(lambda: check_folder(folder))),
            Check(
                "secret",
                blocking(lambda facts: check_secret(folder, begun=facts.begun)),
                (self._server,),
            ),
            Check("writer", check_writer, (self._server,)),
        )

    @property
    def checks(self) -> Sequence[Check]:
        return self._checks

    @property
    def needed(self) -> tuple[Check, ...]:
        return (self._server,)

    @property
    def flag(self) -> str:
        return "--database.index"

    @property
    def larger(self) -> str:
        return "more memory for Redis (maxmemory in redis.conf)"

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Log | None, None]:
        if not (await look_at(self._address)).begun:
            yield None
            return
        async with RedisLog.open(self._address, read_only=True) as log:
            yield log

    async def size(self) -> int | None:
        return (await look_at(self._address)).size

    async def room(self) -> int | None:
        facts = await look_at(self._address)
        return None if facts.most is None or facts.used is None else max(0, facts.most - facts.used)


async def check_server(address: RedisAddress) -> Result:
    """It answers, lets us in, and holds a log or nothing. Hands on its :class:`RedisFacts`."""
    try:
        facts = await look_at(address)
    except LogUnavailable as error:
        return bad(str(error), "docs/redis.md has what to do about each message")
    holds = "a log" if facts.begun else "nothing yet"
    return good(
        f"Redis {facts.version or 'of a version that it hides'} at {address} holds {holds}", value=facts
    )


async def check_kept(facts: RedisFacts) -> Result:
    """What it acknowledges outlives a restart, and isn't thrown away when it is full."""
    if facts.weak:
        return bad("; ".join(facts.weak), facts.cure)
    if None in (facts.appendonly, facts.appendfsync, facts.policy):
        return note(
            "not checked: this user may not look at the server's settings",
            "as its administrator: redis-cli CONFIG GET append* shows yes, and always or everysec; CONFIG GET "
            "maxmemory* shows noeviction",
        )
    lost = (
        "nothing"
        if facts.appendfsync == "always"
        else "the newest second, if the verifier's machine fails, too"
    )
    return good(
        f"appendonly {facts.appendonly}, appendfsync {facts.appendfsync} (a power cut loses {lost}), maxmemory-policy "
        f"{facts.policy}"
    )


async def check_memory(facts: RedisFacts) -> Result:
    """There is memory left: the whole log lies in it."""
    if facts.used is None or not facts.most:
        return note("not checked: the server doesn't say how much memory it takes, or may take")
    log = "" if facts.size is None else f", of which the log {amount(facts.size)}"
    whose = "its maxmemory" if facts.limited else "its machine's memory"
    found = f"{amount(facts.used)} taken{log}, of {amount(facts.most)}, {whose}"
    share = facts.used / facts.most
    advice = (
        "raise maxmemory, or give Redis a larger machine" if facts.limited else "give Redis a larger machine"
    )
    if share > FULL:
        return bad(f"{found}: a full Redis takes no records", advice)
    if share > FILLING:
        return note(found, advice)
    return good(found)


async def check_writer(facts: RedisFacts) -> Result:
    """Nobody else writes the log."""
    if facts.writer is None:
        return good("nobody writes it")
    return note(
        f"{facts.writer} writes it now. A second verifier would be refused",
        "stop that one before you start another on this database",
    )
