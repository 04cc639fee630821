"""What an oracle knows of the chain: who may ask, and for how long it goes by what it saw."""

from __future__ import annotations

import anyio
import pytest

from targon.chain.followed import MAX_AGE_S, METAGRAPH_BLOCKS
from targon.oracle.view import ChainView
from targon.transport import Refusal
from tests.oracle.service_world import ALICE, LATE, STRANGER, WAIT_S, ToldChain, key

pytestmark = pytest.mark.anyio


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


async def opened(chain: ToldChain, clock: Clock | None = None) -> ChainView:
    view = ChainView(chain, clock or Clock())  # type: ignore[arg-type]  # as much of one as is asked
    await view.open()
    return view


def refused(view: ChainView, who: object) -> str:
    with pytest.raises(Refusal) as error:
        view.admit(key(who))  # type: ignore[arg-type]
    return error.value.code


async def test_a_validator_permit_is_what_lets_in() -> None:
    view = await opened(ToldChain())
    view.admit(key(ALICE))
    assert view.permitted == ToldChain().permits
    assert refused(view, LATE) == "no_validator_permit"
    assert refused(view, STRANGER) == "not_registered"


async def test_nobody_is_judged_by_what_was_seen_too_long_ago() -> None:
    clock = Clock()
    view = await opened(ToldChain(), clock)
    clock.now_s += MAX_AGE_S
    view.admit(key(ALICE))
    clock.now_s += 1.0
    assert "has not been seen for 301 s" in str(view.trouble)
    for who in (ALICE, LATE, STRANGER):
        assert refused(view, who) == "chain_unavailable"


async def test_permits_are_read_again_every_few_blocks_and_after_an_outage() -> None:
    chain, clock = ToldChain(), Clock()
    view = await opened(chain, clock)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(view.run)
        chain.permits = {key(LATE)}
        clock.now_s += MAX_AGE_S + 1.0
        chain.head += METAGRAPH_BLOCKS
        with anyio.fail_after(WAIT_S):
            while view.permitted != {key(LATE)}:
                await anyio.sleep(0.005)
        assert view.trouble is None
        tasks.cancel_scope.cancel()
    view.admit(key(LATE))
    assert refused(view, ALICE) == "no_validator_permit"
