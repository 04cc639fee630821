"""Weights on their way to the chain: every way in which an answer gets lost, and nothing is done twice.

The chain is the embedded one, under a clock that the test moves; what fails is how it is reached.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from bittensor.keyfiles import Keypair

from targon.chain import ChainSettings, ChainUnavailable, EmbeddedChain
from targon.ledger import Event, SqliteLog, WeightsNotSet, WeightsProposed, WeightsSet
from targon.protocol.primitives import Block, Hotkey, Uid
from targon.verifier import Journal
from targon.verifier.anchoring import Anchors
from targon.verifier.weights import WeightSetter
from tests.ledger.history import ALICE, BOB, History, attempt, interval_closed, step_closed, verdict

pytestmark = pytest.mark.anyio

VERIFIER = Keypair.create_from_uri("//Verifier")
TEMPO = 10
CALLS = ("set_weights", "commit_weights", "reveal_weights", "anchor")


class Line:
    """The way to a chain: it counts the calls that went through, and loses answers or calls on demand."""

    def __init__(self, chain: EmbeddedChain) -> None:
        self._chain = chain
        self.lose: str | None = None
        self.made: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._chain, name)
        return self._through(name, method) if name in CALLS else method

    def _through(self, name: str, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(*arguments: Any) -> Any:
            lose, self.lose = self.lose, None
            if lose == "call":
                raise ChainUnavailable("the chain cannot be reached")
            result = await method(*arguments)
            self.made[name] += 1
            if lose == "answer":
                raise ChainUnavailable("the connection broke")
            return result

        return call


class Setting:
    """A verifier's weights, from a log in which ALICE, UID 1, has earned all there is."""

    def __init__(self, chain: EmbeddedChain, path: Path) -> None:
        self.chain = chain
        self.line = Line(chain)
        self._path = path
        self._now = 1_000_000.0

    def clock(self) -> float:
        return self._now

    async def open(self) -> None:
        """Open the log, as at a start of the verifier."""
        self.log = await SqliteLog.open(self._path)
        self.journal = await Journal.open(self.log)
        if self.journal.standings.opened is None:
            await self.journal.append(*_earned())
        self.setter = WeightSetter(self.line, self.journal, VERIFIER, 1_000, lambda _: bytes(32))
        self.anchors = Anchors(self.line, self.journal, VERIFIER)

    async def restart(self) -> None:
        await self.log.aclose()
        await self.open()

    async def step(self, block: int) -> None:
        """What is due in a block, as the role does it."""
        self._now = 1_000_000.0 + 2.0 * block
        with suppress(ChainUnavailable):
            await self.setter.step(Block(block), await self.chain.info())

    async def fates(self) -> list[Event]:
        return [
            record.event
            async for record in self.log.read()
            if isinstance(record.event, WeightsProposed | WeightsSet | WeightsNotSet)
        ]

    async def kinds(self) -> list[str]:
        return [event.kind for event in await self.fates()]


def _earned() -> list[Event]:
    history = History.begun(BOB, ALICE)
    for block in range(1, 4):
        number = history.next
        history.add(attempt(ALICE, block), verdict(number), step_closed(block))
    return history.events


@pytest.fixture
async def setting(tmp_path: Path) -> AsyncIterator[Setting]:
    now: list[Setting] = []
    settings = ChainSettings(
        block_seconds=2.0, tempo=TEMPO, weights_rate_limit=4, immunity_blocks=0, weights_version_key=1_000
    )
    chain = EmbeddedChain.create(
        tmp_path / "chain.sqlite", settings, clock=lambda: now[0].clock() if now else 1_000_000.0
    )
    world = Setting(chain, tmp_path / "log.sqlite")
    now.append(world)
    chain.register(VERIFIER)
    chain.register(Keypair.create_from_uri("//Alice"))
    chain.add_stake(VERIFIER, 1_000.0)
    await world.open()
    yield world
    await world.log.aclose()
    await chain.aclose()


async def test_weights_are_proposed_set_read_back_and_logged_once_an_epoch(setting: Setting):
    for block in range(10, 31):
        await setting.step(block)
    assert await setting.kinds() == ["weights_proposed", "weights_set"] * 3
    assert setting.line.made == {"set_weights": 3}
    assert await setting.chain.weights_of(Uid(0)) == {1: 65_535}


async def test_a_lost_answer_sets_nothing_twice(setting: Setting):
    setting.line.lose = "answer"
    await setting.step(10)
    assert await setting.kinds() == ["weights_proposed"], "its fate is open"
    await setting.step(11)
    assert await setting.kinds() == ["weights_proposed", "weights_set"]
    assert setting.line.made == {"set_weights": 1}
    assert [event.block for event in await setting.fates() if isinstance(event, WeightsSet)] == [10]


async def test_a_lost_call_is_made_again(setting: Setting):
    setting.line.lose = "call"
    await setting.step(10)
    await setting.step(11)
    assert await setting.kinds() == ["weights_proposed", "weights_set"]
    assert setting.line.made == {"set_weights": 1}


async def test_a_crash_between_chain_and_log_sets_nothing_twice(setting: Setting):
    setting.line.lose = "answer"
    await setting.step(10)
    await setting.restart()
    await setting.step(12)
    assert await setting.kinds() == ["weights_proposed", "weights_set"]
    assert setting.line.made == {"set_weights": 1}


async def test_weights_that_an_outage_outlived_are_given_up_for_newer_ones(setting: Setting):
    setting.line.lose = "call"
    await setting.step(10)
    await setting.step(20)
    assert await setting.kinds() == [
        "weights_proposed",
        "weights_proposed",
        "weights_not_set",
        "weights_set",
    ]
    assert setting.line.made == {"set_weights": 1}


async def test_too_soon_is_waited_out(setting: Setting):
    await setting.chain.set_weights(VERIFIER, {Uid(0): 1}, 1_000)  # by hand, in block 0
    setting._now += 2.0 * 8
    await setting.chain.set_weights(VERIFIER, {Uid(0): 1}, 1_000)  # in block 8: none again before block 12
    for block in range(10, 14):
        await setting.step(block)
    assert await setting.kinds() == ["weights_proposed", "weights_set"]
    assert [event.block for event in await setting.fates() if isinstance(event, WeightsSet)] == [12]


async def test_what_the_chain_refuses_is_logged_with_its_reason(setting: Setting):
    setting.setter = WeightSetter(setting.line, setting.journal, VERIFIER, 999, lambda _: bytes(32))
    await setting.step(10)
    await setting.step(11)
    assert await setting.kinds() == ["weights_proposed", "weights_not_set"], "once an epoch is enough"
    refused = (await setting.fates())[1]
    assert isinstance(refused, WeightsNotSet)
    assert "got 999, expected 1000 or higher; upgrade this verifier" in refused.reason


async def test_weights_that_read_back_otherwise_are_not_said_to_stand(setting: Setting):
    setting.chain.register(Keypair.create_from_uri("//Bob"))

    async def set_others(*_: Any) -> Block:
        return await setting.chain.set_weights(VERIFIER, {Uid(2): 65_535}, 1_000)

    setting.line.set_weights = set_others  # type: ignore[attr-defined]
    await setting.step(10)
    refused = (await setting.fates())[-1]
    assert isinstance(refused, WeightsNotSet)
    assert "but holds others: got 1 weights (2: 65535), expected 1 weights (1: 65535)" in refused.reason


@pytest.mark.parametrize("lose", ["answer", "call", None])
@pytest.mark.parametrize("crash", [False, True])
async def test_a_commit_stands_once_and_is_revealed_once(setting: Setting, lose: str | None, *, crash: bool):
    setting.chain.set_commit_reveal(1)
    setting.line.lose = lose
    await setting.step(10)
    if crash:
        await setting.restart()
    for block in range(11, 20):
        await setting.step(block)
    hotkey = Hotkey(VERIFIER.ss58_address)
    assert len(await setting.chain.weights_commits(hotkey)) == 1
    assert setting.line.made == {"commit_weights": 1}
    setting.line.lose = None
    await setting.step(20)  # commits the next, then reveals the first
    assert await setting.chain.weights_of(Uid(0)) == {1: 65_535}
    assert setting.line.made == {"commit_weights": 2, "reveal_weights": 1}
    assert await setting.kinds() == ["weights_proposed", "weights_proposed", "weights_set"]


@pytest.mark.parametrize("crash", [False, True])
async def test_a_reveal_whose_answer_got_lost_is_found_on_chain(setting: Setting, *, crash: bool):
    setting.chain.set_commit_reveal(1)
    await setting.step(10)
    await setting.journal.append(interval_closed(0, 15))  # nothing new is proposed that could be lost instead
    setting.setter._tried_epoch = 2
    setting.line.lose = "answer"
    await setting.step(20)
    assert await setting.kinds() == ["weights_proposed"]
    if crash:
        await setting.restart()
        setting.setter._tried_epoch = 2
    await setting.step(21)
    assert await setting.kinds() == ["weights_proposed", "weights_set"]
    assert setting.line.made == {"commit_weights": 1, "reveal_weights": 1}


async def test_a_commit_that_expired_during_an_outage_is_given_up(setting: Setting):
    setting.chain.set_commit_reveal(1)
    await setting.step(10)
    await setting.step(30)
    assert await setting.kinds() == ["weights_proposed", "weights_proposed", "weights_not_set"]
    gone = (await setting.fates())[-1]
    assert isinstance(gone, WeightsNotSet)
    assert "expired" in gone.reason


async def test_a_subnet_that_turns_to_commit_reveal_gets_commits_from_the_next_epoch_on(setting: Setting):
    setting.line.lose = "call"
    await setting.step(10)
    setting.chain.set_commit_reveal(1)
    await setting.step(11)
    assert await setting.kinds() == ["weights_proposed", "weights_not_set"]
    await setting.step(20)
    await setting.step(30)
    assert (await setting.kinds())[2:] == ["weights_proposed", "weights_proposed", "weights_set"]


async def test_a_head_is_anchored_once_whatever_gets_lost(setting: Setting):
    head = setting.journal.standings.interval_head
    for block, lose in ((10, "call"), (11, "answer")):
        setting.line.lose = lose
        with pytest.raises(ChainUnavailable):
            await setting.anchors.step(Block(block))
    await setting.restart()
    await setting.anchors.step(Block(12))
    await setting.anchors.step(Block(13))
    assert setting.line.made == {"anchor": 1}
    found = await setting.chain.anchor_of(Hotkey(VERIFIER.ss58_address))
    assert found is not None
    assert found.digest == head
    assert setting.journal.standings.anchored == 0


async def test_weights_of_a_uid_that_changed_hands_are_proposed_anew(setting: Setting):
    setting.line.lose = "call"
    await setting.step(10)
    alice = Keypair.create_from_uri("//Alice").ss58_address
    setting._now += 2.0
    number = 0
    while (await setting.chain.metagraph()).neurons[
        1
    ].hotkey == alice:  # until the subnet is full, and her turn comes
        setting.chain.register(Keypair.create_from_uri(f"//Other{number}"))
        number += 1
    block = await setting.chain.block()
    await setting.step(block)
    assert (await setting.kinds())[:2] == ["weights_proposed", "weights_not_set"]
    gone = (await setting.fates())[1]
    assert isinstance(gone, WeightsNotSet)
    assert "UID 1 has another holder" in gone.reason


async def test_weights_equal_to_older_ones_are_not_said_to_stand_by_a_commit_that_never_was(setting: Setting):
    await setting.step(10)
    assert await setting.kinds() == ["weights_proposed", "weights_set"]
    setting.chain.set_commit_reveal(1)
    setting.line.lose = "call"
    await setting.step(20)
    setting.setter._tried_epoch = 3
    await setting.step(30)
    assert (await setting.kinds())[2:] == ["weights_proposed", "weights_not_set"]


async def test_one_proposal_that_cannot_be_asked_about_keeps_no_other_from_its_turn(setting: Setting):
    setting.chain.set_commit_reveal(1)
    await setting.step(10)
    setting.line.lose = "call"
    await setting.step(20)  # the reveal is lost, the next commit is not
    assert setting.line.made == {"commit_weights": 2}
    await setting.step(21)
    assert setting.line.made == {"commit_weights": 2, "reveal_weights": 1}
