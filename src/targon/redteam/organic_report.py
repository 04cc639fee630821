"""What became of attacks that served users alone: the file, and its tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, Literal

import numpy as np
from pydantic import Field

from targon.protocol.messages import Message

Start = Literal["new", "after probation", "Challenger"]
STARTS: Final[tuple[Start, ...]] = ("new", "after probation", "Challenger")
"""When a prover begins to cheat: at once, or after so much honest work."""
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Quantiles(Message):
    """Over streams."""

    median: float
    p95: float | None
    """None: over one stream in twenty didn't come so far."""


class Caught(Message):
    """How one attack fares that begins to cheat at one moment, at one load."""

    start: Start
    load: float
    """Users' requests in a second."""
    streams: int
    audit_rate: Share
    """Mean of the rates by which its inferences were drawn for audits."""
    audited: Share
    """Share of its inferences that were drawn."""
    convicted: Share
    """Share of streams in which it was convicted."""
    failed: Share
    """Share of streams in which an inference of its failed."""
    inferences: Quantiles | None
    """Requests that it was sent until it was convicted; None: half of the streams never came so far."""
    minutes: Quantiles | None
    audits: Quantiles | None
    """Answers that were audited until then."""
    tokens: Quantiles | None
    """Of those answers."""
    until_failure: Quantiles | None
    """Requests that it was sent until an inference of its failed."""
    minutes_until_failure: Quantiles | None
    failures: float
    """Failed inferences until it was convicted, or all: mean."""
    lost: float
    """What they cost in x, 5p each: mean."""


class OrganicRow(Message):
    """One attack."""

    name: str
    kind: str
    words: str
    caught: tuple[Caught, ...]
    score: tuple[float, ...]
    """The score of a Challenger that begins to cheat and goes on with it, at one request in a second."""
    kept: float
    """What is left of an honest prover's score where it counts for weight, over that time: 1 is all."""


class Organic(Message):
    """A whole run."""

    version: Literal[1] = 1
    model: str
    model_digest: str
    calibration: str
    streams: int
    audit_s: float
    """Seconds from a request to its audit's verdict."""
    minutes: tuple[float, ...]
    """The moments of the scores."""
    honest_score: tuple[float, ...]
    rows: tuple[OrganicRow, ...]

    @property
    def false_convictions(self) -> tuple[str, ...]:
        """Honest rows that were convicted in any stream."""
        return tuple(
            row.name
            for row in self.rows
            if row.kind in ("honest", "relay") and any(one.convicted for one in row.caught)
        )


def quantiles(values: Sequence[float]) -> Quantiles | None:
    """Median and 95th percentile; infinite values are those that never came."""
    median, p95 = np.quantile(np.array(values, np.float64), (0.5, 0.95), method="inverted_cdf").tolist()
    if not np.isfinite(median):
        return None
    return Quantiles(median=round(median, 2), p95=round(p95, 2) if np.isfinite(p95) else None)


def table_of_organic(organic: Organic) -> str:
    """The table in Markdown; where two numbers stand in a cell, they are the median and the 95th percentile."""
    loads = sorted({one.load for row in organic.rows for one in row.caught})
    heads = [
        "attack",
        "new: inferences until conviction",
        "after probation: the same",
        "Challenger: the same",
        *(f"minutes at {load:g}/s" for load in loads),
        "audited",
        "audited answers (tokens)",
        "first failed inference",
        "failed (x lost)",
        "weight kept",
    ]
    lines = [f"| {' | '.join(heads)} |", "|---|" + "--:|" * (len(heads) - 1)]
    return "\n".join([*lines, *(_line(row, loads) for row in organic.rows)])


def _line(row: OrganicRow, loads: Sequence[float]) -> str:
    by = {(one.start, one.load): one for one in row.caught}
    new, after, one = (by[start, loads[0]] for start in STARTS)
    answers = "–" if one.audits is None or one.tokens is None else _both(one.audits.median, one.tokens.median)
    cells = [
        f"`{row.name}`",
        _told(new.inferences, new.convicted),
        _told(after.inferences, after.convicted),
        _told(one.inferences, one.convicted),
        *(_told(by["Challenger", load].minutes, by["Challenger", load].convicted, ".1f") for load in loads),
        f"{one.audited:.1%}",
        answers,
        _told(one.until_failure, one.failed),
        f"{one.failures:,.1f} ({one.lost:,.1f})" if one.failures else "0",
        f"{row.kept:.0%}",
    ]
    return f"| {' | '.join(cells)} |"


def _both(answers: float, tokens: float) -> str:
    return f"{answers:,.0f} ({tokens:,.0f})"


def _told(values: Quantiles | None, share: float, form: str = ",.0f") -> str:
    """Median and 95th percentile in words; where half the streams never came so far, the share that did."""
    if values is None:
        return f"{share:.0%} ever" if share else "never"
    return f"{values.median:{form}} / {'more' if values.p95 is None else format(values.p95, form)}"
