"""Periods written in a process of its own: ``python -m targon.oracle.process``, which an oracle starts.

Drawing, refining, hashing and writing take a processor for minutes; beside the requests, each of those would wait for
its turn. So they are done here, at lower priority, and whatever a strange file does to a library costs no more than
this process. It has no key: the oracle looks at what was written, and signs.

Lines of JSON on stdin: first an :class:`Opening`, then what is wanted: ``{"fill": count}``,
``{"write": [number, secret, count]}``, ``{"used": count}``. Each is answered by lines on stdout (:class:`Answer`), the
last of which is ``done``, or says what ``failed``. It ends with its stdin, and with it whatever a source runs.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom
from typing import Annotated, Final

import structlog
from pydantic import BaseModel, ConfigDict, Field

from targon.oracle.errors import NoText, OracleError, PassagesExhausted, SourceUseless
from targon.oracle.periods import PeriodFolder
from targon.oracle.ports import Supply
from targon.oracle.refining import Taken
from targon.oracle.sources.opening import open_source
from targon.oracle.supply import RefinedSupply
from targon.oracle.writing import PeriodWork
from targon.protocol.primitives import Hex32
from targon.protocol.private_inputs import MAX_LEAVES

NICE: Final = 10
"""Steps by which those who are served come first."""
END_S: Final = 8.0
"""From the end of stdin to the end of the process, whatever it is at."""
_EXHAUSTED: Final = (NoText, PassagesExhausted, SourceUseless)

_Count = Annotated[int, Field(ge=0, le=MAX_LEAVES)]
_Counts = dict[Annotated[str, Field(max_length=64)], Annotated[int, Field(ge=0)]]

logger = structlog.get_logger("targon.oracle")


class Opening(BaseModel):
    """What the process is told first."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    source: str
    folder: str
    """The oracle's."""
    allow_private: bool = False
    json_lines: bool = False
    """Whether it logs in JSON."""


class Answer(BaseModel):
    """A line that the process says."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    done: bool
    """Whether it is the last one for what was wanted."""
    held: _Count = 0
    taken: _Count = 0
    """Passages, since the answer before."""
    root: Hex32 | None = None
    source: Hex32 | None = None
    failed: Annotated[str, Field(max_length=4_000)] | None = None
    exhausted: bool = False
    refused: _Counts = Field(default_factory=dict)
    came_to: _Counts = Field(default_factory=dict)
    """What the source came to beside texts."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A supply, and what it counts."""

    supply: Supply
    close: Callable[[], None] = lambda: None
    refused: Callable[[], Mapping[str, int]] = dict
    came_to: Callable[[], Mapping[str, int]] = dict


def main() -> int:
    """Do what stdin wants until it ends; returns the exit code."""
    return serve(_opened)


def serve(opened: Callable[[Opening], Opened]) -> int:
    """As :func:`main`, with a supply that is opened so."""
    os.nice(NICE)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)  # those are for the oracle, with which this ends
    out = os.dup(1)
    os.dup2(2, 1)  # what a library prints is no answer
    lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    threading.Thread(target=_hear, args=(lines,), daemon=True).start()
    first = lines.get()
    if first is None:
        return 0
    opening = Opening.model_validate_json(first)
    _configure_logging(json_lines=opening.json_lines)
    try:
        there = opened(opening)
    except (OracleError, OSError) as error:
        _say(out, _failed(error))
        return 1
    try:
        _work(there, PeriodFolder(Path(opening.folder) / "periods"), lines, out)
    except BrokenPipeError:
        pass  # nobody listens any more
    finally:
        there.close()
    return 0


def _opened(opening: Opening) -> Opened:
    source = open_source(opening.source, allow_private=opening.allow_private)
    supply = RefinedSupply(source, Taken(Path(opening.folder) / "taken.sqlite"), SystemRandom())
    return Opened(
        supply,
        supply.close,
        lambda: {reason.value: count for reason, count in supply.counts.refused.items()},
        lambda: supply.source_counts,
    )


def _work(there: Opened, folder: PeriodFolder, lines: queue.SimpleQueue[bytes | None], out: int) -> None:
    work = PeriodWork(there.supply, folder)

    def say(answer: Answer) -> None:
        counts: dict[str, object] = {}
        try:
            counts = {"refused": dict(there.refused()), "came_to": dict(there.came_to())}
        except OracleError as error:
            logger.warning("counts_not_read", error=str(error))
        _say(out, answer.model_copy(update={"held": work.held, **counts}))

    say(Answer(done=True))
    while (line := lines.get()) is not None:
        wanted = json.loads(line)
        try:
            if "fill" in wanted:
                for taken in work.fill(wanted["fill"]):
                    say(Answer(done=False, taken=taken))
                say(Answer(done=True))
            elif "write" in wanted:
                number, secret, count = wanted["write"]
                written = work.write(number, bytes.fromhex(secret), count)
                say(Answer(done=True, root=written.root, source=written.source))
            else:
                work.used(wanted["used"])
                say(Answer(done=True))
        except BrokenPipeError:
            raise
        except (OracleError, OSError) as error:
            say(_failed(error))
        except Exception as error:
            # what a strange file does to a source must not end what can go on
            logger.exception("the source failed in a way that it should not")
            say(_failed(error, f"{type(error).__name__}: {error}"))


def _failed(error: Exception, text: str | None = None) -> Answer:
    return Answer(done=True, failed=(text or str(error))[:4_000], exhausted=isinstance(error, _EXHAUSTED))


def _say(out: int, answer: Answer) -> None:
    line = answer.model_dump_json(exclude_defaults=True).encode() + b"\n"
    while line:
        line = line[os.write(out, line) :]


def _hear(lines: queue.SimpleQueue[bytes | None]) -> None:
    for line in sys.stdin.buffer:
        lines.put(line)
    lines.put(None)
    # a source that hangs must not keep a process that nobody needs
    end = threading.Timer(END_S, os._exit, (1,))
    end.daemon = True
    end.start()


def _configure_logging(*, json_lines: bool) -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer()
            if json_lines
            else structlog.processors.KeyValueRenderer(key_order=["timestamp", "level", "event"]),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


if __name__ == "__main__":
    sys.exit(main())
