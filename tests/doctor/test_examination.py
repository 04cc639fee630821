"""How checks are run: at once, in order, each within its time, and none at another's cost."""

from __future__ import annotations

import threading

import anyio
import pytest

from targon.doctor import Check, Result, bad, blocking, examine, good, note

pytestmark = pytest.mark.anyio

HANGS_S = 30.0


def a_check(name: str, result: Result, *needs: Check) -> Check:
    async def look(*_: object) -> Result:
        return result

    return Check(name, look, needs)


async def test_a_check_is_given_what_those_that_it_needs_found_in_their_order() -> None:
    first, second = a_check("first", good("one", value=1)), a_check("second", bad("two", "2", value=2))

    async def sum_up(one: int, two: int) -> Result:
        return good(f"{one} and {two}")

    rows = await examine([first, second, Check("third", sum_up, (first, second))])
    assert [(row.check, row.outcome, row.found) for row in rows] == [
        ("first", "good", "one"),
        ("second", "bad", "two"),
        ("third", "good", "1 and 2"),
    ]


async def test_what_a_failed_check_was_to_find_is_not_looked_for_further() -> None:
    first = a_check("first", bad("gone", "find it"))
    second = a_check("second", good("two", value=2), first)
    rows = await examine([first, second, a_check("third", good("three"), second)])
    assert [(row.outcome, row.found) for row in rows[1:]] == [
        ("note", "not checked: that needs what first should have found"),
        ("note", "not checked: that needs what second should have found"),
    ]


async def test_where_there_is_nothing_to_check_and_nothing_wrong_no_more_is_said() -> None:
    first = a_check("log", good("there is none yet"))
    second = a_check("whose", good("ours"), first)
    assert [row.check for row in await examine([first, second, a_check("third", good("3"), second)])] == [
        "log"
    ]


async def test_a_check_that_crashes_is_bad_with_its_error_and_ends_no_other() -> None:
    async def crash() -> Result:
        raise RuntimeError("the pipe burst")

    rows = await examine([Check("first", crash), a_check("second", good("two"))])
    assert (rows[0].outcome, rows[1].outcome) == ("bad", "good")
    assert "RuntimeError: the pipe burst" in rows[0].found


async def test_a_check_that_hangs_is_bad_after_its_time() -> None:
    async def hang() -> Result:
        await anyio.sleep_forever()
        return good("never")

    over = threading.Event()

    def hang_in_a_thread() -> Result:
        over.wait()
        return good("too late")

    try:
        with anyio.fail_after(HANGS_S):
            rows = await examine(
                [Check("one", hang, deadline_s=0.2), Check("two", blocking(hang_in_a_thread), deadline_s=0.2)]
            )
    finally:
        over.set()
    assert {(row.outcome, row.found) for row in rows} == {("bad", "no answer within 0.2 s")}


async def test_checks_run_at_once() -> None:
    began: list[None] = []

    async def slow() -> Result:
        began.append(None)
        while len(began) < 10:  # each waits for all the others
            await anyio.sleep(0.01)
        return note("done")

    with anyio.fail_after(HANGS_S):
        rows = await examine([Check(str(number), slow, deadline_s=2 * HANGS_S) for number in range(10)])
    assert [row.found for row in rows] == ["done"] * 10


async def test_a_check_before_its_need_is_a_mistake_that_is_named() -> None:
    first = a_check("first", good("one", value=1))
    with pytest.raises(ValueError, match="check 'second': expected first before it"):
        await examine([a_check("second", good("two"), first), first])
