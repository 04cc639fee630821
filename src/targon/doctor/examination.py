"""Runs checks at once, each as soon as what it needs was found, and none longer than it may take.

A check that crashes or hangs is bad, with its error; it ends nothing else. A check whose need came to nothing isn't
run, and says so: one fault is told once. Where nothing was wrong with that need (there is no log yet, say), there is
nothing to tell.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

import anyio
import anyio.to_thread

from targon.doctor.findings import Finding, Outcome, Result

DEADLINE_S = 15.0
"""How long a check may take that says nothing else. Counted from when what it needs was there."""


@dataclass(frozen=True, slots=True, eq=False)
class Check:
    """One check.

    Attributes:
        look: called with the values of what it needs, in order.
    """

    name: str
    look: Callable[..., Awaitable[Result]]
    needs: tuple[Check, ...] = ()
    deadline_s: float = DEADLINE_S


@dataclass(frozen=True, slots=True)
class Row:
    """A finding, and the check that it is of."""

    check: str
    outcome: Outcome
    found: str
    advice: str = ""


def blocking(look: Callable[..., Result]) -> Callable[..., Awaitable[Result]]:
    """A look that blocks, made one that doesn't: it runs in a thread, which is left behind if it takes too long."""

    async def run(*values: object) -> Result:
        return await anyio.to_thread.run_sync(partial(look, *values), abandon_on_cancel=True)

    return run


async def examine(checks: Sequence[Check]) -> list[Row]:
    """Run checks; returns what they found, in the order of the checks.

    Raises:
        ValueError: if a check stands before one that it needs.
    """
    ended: dict[Check, anyio.Event] = {}
    for check in checks:
        missing = [need.name for need in check.needs if need not in ended]
        if missing:
            raise ValueError(f"check {check.name!r}: expected {', '.join(missing)} before it")
        ended[check] = anyio.Event()
    results: dict[Check, Result] = {}

    async def run(check: Check) -> None:
        for need in check.needs:
            await ended[need].wait()
        results[check] = await _run(check, results)
        ended[check].set()

    async with anyio.create_task_group() as tasks:
        for check in checks:
            tasks.start_soon(run, check)
    return [
        Row(check.name, finding.outcome, finding.found, finding.advice)
        for check in checks
        for finding in results[check].findings
    ]


async def _run(check: Check, results: dict[Check, Result]) -> Result:
    without = [need for need in check.needs if results[need].value is None]
    if any(_untroubled(results[need]) for need in without):
        return Result(())
    if without:
        names = " and ".join(need.name for need in without)
        return _only("note", f"not checked: that needs what {names} should have found")
    try:
        with anyio.fail_after(check.deadline_s):
            return await check.look(*(results[need].value for need in check.needs))
    except TimeoutError:
        return _only(
            "bad",
            f"no answer within {check.deadline_s:g} s",
            "look at what it asks: a disk, a file or a connection that hangs; then run this again",
        )
    except Exception as error:  # noqa: BLE001 - a check that breaks must say so, and end no other
        return _only(
            "bad",
            f"the check itself failed: {type(error).__name__}: {str(error)[:300]}",
            "report this line to those who make targon, with the flags that were given",
        )


def _untroubled(result: Result) -> bool:
    return all(finding.outcome == "good" for finding in result.findings)


def _only(outcome: Outcome, found: str, advice: str = "") -> Result:
    return Result((Finding(outcome, found, advice),))
