"""What the embedded chain does beyond the port: its clock, its epochs, its signatures, whom it replaces."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest
from bittensor.keyfiles import Keypair
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from targon.chain import (
    ChainError,
    ChainSettings,
    ChainUnavailable,
    EmbeddedChain,
    RateLimited,
    embedded,
    rules,
)
from targon.protocol.primitives import Block, Hotkey, Uid

pytestmark = pytest.mark.anyio

DEFAULTS = {"block_seconds": 1.0, "tempo": 10, "weights_rate_limit": 0, "immunity_blocks": 0}
KEYS = [Keypair.create_from_uri(f"//{number}") for number in range(6)]


class Clock:
    """A clock that the test moves; blocks last a second."""

    def __init__(self) -> None:
        self.seconds = 5_000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


Build = Callable[..., EmbeddedChain]


@pytest.fixture
def build(tmp_path: Path, clock: Clock) -> Iterator[Build]:
    """Makes chains of ten-block epochs, which are closed at the end."""
    chains: list[EmbeddedChain] = []

    def make(name: str = "chain.sqlite", **changes: float) -> EmbeddedChain:
        chosen = ChainSettings.from_json(DEFAULTS | changes)
        chains.append(EmbeddedChain.create(tmp_path / name, chosen, clock=clock))
        return chains[-1]

    yield make
    for chain in chains:
        chain.close()


async def test_the_block_is_counted_from_the_chains_creation(build: Build, clock: Clock) -> None:
    chain = build(block_seconds=12.0)
    blocks = []
    for seconds in (0, 11.9, 12, 35, 36):
        clock.seconds = 5_000.0 + seconds
        blocks.append(await chain.block())
    assert blocks == [0, 0, 1, 2, 3]


async def test_a_blocks_time_is_when_it_begins_whatever_the_clock_does(build: Build, clock: Clock) -> None:
    chain = build(block_seconds=2.0)
    clock.seconds += 100.0
    assert await chain.block_time(Block(3)) == 5_006.0


async def test_the_block_never_goes_back_with_the_clock(build: Build, clock: Clock) -> None:
    chain = build()
    clock.seconds += 50
    assert await chain.block() == 50
    clock.seconds -= 49
    assert await chain.block() == 50


async def test_a_block_that_was_written_in_binds_every_other_process(build: Build, clock: Clock) -> None:
    chain = build()
    clock.seconds += 50
    chain.register(KEYS[0])
    clock.seconds -= 1_000
    other = EmbeddedChain.open(chain.path, clock=clock)
    assert await other.block() == 50
    assert other.register(KEYS[1]) == 1
    assert [neuron.registered_at for neuron in (await other.metagraph()).neurons] == [50, 50]
    other.close()


async def test_a_block_hash_is_the_digest_of_chain_id_and_number(build: Build, clock: Clock) -> None:
    chain, other = build(), build("other.sqlite")
    clock.seconds += 300
    chain_id = chain._store.identity.chain_id
    assert len(chain_id) == 32
    expected = hashlib.sha256(chain_id + bytes(6) + b"\x01\x02").hexdigest()
    assert await chain.block_hash(Block(258)) == expected
    assert await other.block_hash(Block(258)) != expected


async def test_a_negative_block_is_refused(build: Build) -> None:
    with pytest.raises(ChainError, match="got -1, expected 0 or higher"):
        await build().block_hash(Block(-1))


async def test_registering_again_keeps_the_uid(build: Build) -> None:
    chain = build()
    assert [chain.register(signer) for signer in KEYS[:3]] == [0, 1, 2]
    assert chain.register(Hotkey(KEYS[1].ss58_address)) == 1
    assert len((await chain.metagraph()).neurons) == 3


@pytest.mark.parametrize("hotkey", ["", "alice", "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQZ"])
def test_a_hotkey_that_is_no_address_is_refused(build: Build, hotkey: str) -> None:
    chain = build()
    for attempt in (lambda: chain.register(Hotkey(hotkey)), lambda: chain.add_stake(Hotkey(hotkey), 1)):
        with pytest.raises(ChainError, match="expected an ss58 address"):
            attempt()


@pytest.mark.parametrize("amount", [0, -1, float("nan"), float("inf"), 21_000_001])
def test_an_impossible_amount_of_stake_is_refused(build: Build, amount: float) -> None:
    with pytest.raises(ChainError, match="expected more than 0"):
        build().add_stake(KEYS[0], amount)


async def test_more_stake_than_there_is_tao_is_refused(build: Build) -> None:
    chain = build()
    chain.register(KEYS[0])
    chain.add_stake(KEYS[0], 20_000_000)
    with pytest.raises(ChainError, match="a total of 22,000,000 TAO"):
        chain.add_stake(KEYS[0], 2_000_000)
    assert (await chain.metagraph()).neurons[0].stake == 20_000_000


async def test_a_permit_follows_stake_at_once_and_moves_on(build: Build) -> None:
    chain = build(max_validators=1)
    for signer in KEYS[:2]:
        chain.register(signer)
    chain.add_stake(KEYS[0], 5)
    assert [neuron.validator_permit for neuron in (await chain.metagraph()).neurons] == [True, False]
    chain.add_stake(KEYS[1], 6)
    assert [neuron.validator_permit for neuron in (await chain.metagraph()).neurons] == [False, True]


async def test_stake_stays_with_its_hotkey(build: Build) -> None:
    chain = build(max_uids=1)
    chain.add_stake(KEYS[0], 5.5)
    chain.register(KEYS[0])
    chain.register(KEYS[1])
    assert [neuron.stake for neuron in (await chain.metagraph()).neurons] == [0]
    chain.register(KEYS[0])
    assert [neuron.stake for neuron in (await chain.metagraph()).neurons] == [5.5]


async def test_a_replaced_validator_leaves_no_weights_and_no_bonds(build: Build, clock: Clock) -> None:
    chain = build(max_uids=3)
    for signer in KEYS[:3]:
        chain.register(signer)
    chain.add_stake(KEYS[0], 1)
    clock.seconds += 1
    await chain.set_weights(KEYS[0], {Uid(1): 5, Uid(2): 5}, 0)
    clock.seconds += 20
    await chain.metagraph()
    assert _cells(chain, "bond") == {(0, 1): 65_535, (0, 2): 65_535}
    chain._store.write(lambda connection: connection.execute("UPDATE neuron SET emission = -1 WHERE uid = 0"))
    assert chain.register(KEYS[3]) == 0
    assert _cells(chain, "bond") == _cells(chain, "weight") == {}
    assert (await chain.metagraph()).neurons[0].last_update is None


async def test_immune_neurons_are_replaced_last(build: Build, clock: Clock) -> None:
    chain = build(max_uids=3, immunity_blocks=100)
    chain.register(KEYS[0])
    clock.seconds += 60
    chain.register(KEYS[1])
    clock.seconds += 50
    chain.register(KEYS[2])
    assert chain.register(KEYS[3]) == 0, "the only one whose immunity is over"
    assert chain.register(KEYS[4]) == 1, "everyone is immune: the longest registered"


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 50)), min_size=1, max_size=9),
    st.integers(50, 60),
    st.integers(0, 60),
)
def test_nobody_is_replaced_before_somebody_worse(
    neurons: list[tuple[int, int]], block: int, immunity: int
) -> None:
    candidates = [
        rules.Candidate(Uid(uid), float(emission), Block(registered))
        for uid, (emission, registered) in enumerate(neurons)
    ]
    chosen = candidates[rules.neuron_to_replace(candidates, Block(block), immunity)]
    free = [candidate for candidate in candidates if block - candidate.registered_at >= immunity]
    assert not free or chosen in free
    assert all(chosen.emission <= candidate.emission for candidate in free or candidates)


@given(st.dictionaries(st.integers(0, 65_535).map(Uid), st.integers(1, 65_535), min_size=1))
def test_max_upscaling_twice_is_max_upscaling_once(weights: dict[Uid, int]) -> None:
    once = rules.max_upscaled(weights)
    assert max(once.values()) == 65_535
    assert rules.max_upscaled(once) == once


@pytest.mark.parametrize(
    ("given_", "kept"),
    [
        ([0, 1], [65_535]),
        ([65_534], [65_535]),
        ([0, 1, 65_534], [1, 65_535]),
        ([0, 1, 2, 3, 4, 65_533, 65_535], [1, 2, 3, 4, 65_533, 65_535]),
        ([0, 1, 2, 3, 4, 32_768, 32_769], [2, 4, 6, 8, 65_533, 65_535]),
    ],
)
def test_max_upscaling_is_the_chains_own(given_: list[int], kept: list[int]) -> None:
    """Values of ``test_vec_u16_max_upscale_to_u16`` of the source; zeros are left out here."""
    weights = {Uid(uid): value for uid, value in enumerate(given_) if value}
    assert list(rules.max_upscaled(weights).values()) == kept


def _cells(chain: EmbeddedChain, table: str) -> dict[tuple[int, int], int]:
    rows = chain._store.read(
        lambda connection: connection.execute(f"SELECT uid, target, value FROM {table}").fetchall()
    )
    return {(uid, target): value for uid, target, value in rows}


Step = tuple[int, int, int]
"""(blocks to wait, who acts, the weight that it gives to its neighbour)"""


async def _live(chain: EmbeddedChain, clock: Clock, steps: list[Step], eager: bool) -> None:
    """Live through some writes; the eager one looks at the chain in every block."""
    for number, signer in enumerate(KEYS[:4]):
        chain.register(signer)
        chain.add_stake(signer, number + 1)
    for wait, who, weight in steps:
        for _ in range(wait):
            clock.seconds += 1
            if eager:
                await chain.metagraph()
        await chain.set_weights(KEYS[who], {Uid((who + 1) % 4): weight, Uid((who + 2) % 4): 9_999}, 0)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 45), st.integers(0, 3), st.integers(1, 65_535)), max_size=8))
def test_epochs_come_out_alike_however_late_they_are_computed(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Step]
) -> None:
    outcomes = []
    for eager in (True, False):
        folder, clock = tmp_path_factory.mktemp("chain"), Clock()
        chain = EmbeddedChain.create(
            folder / "chain.sqlite",
            ChainSettings(block_seconds=1.0, tempo=10, weights_rate_limit=0, activity_cutoff=30),
            clock=clock,
        )
        anyio.run(_live, chain, clock, steps, eager)
        clock.seconds = 5_000.0 + 10 * 400
        outcomes.append((anyio.run(chain.metagraph), _cells(chain, "bond")))
        chain.close()
    assert outcomes[0] == outcomes[1]


async def test_an_epoch_sees_the_weights_of_its_boundary_only(build: Build, clock: Clock) -> None:
    chain = build()
    for signer in KEYS[:3]:
        chain.register(signer)
    chain.add_stake(KEYS[0], 1)
    clock.seconds += 5
    await chain.set_weights(KEYS[0], {Uid(1): 1}, 0)
    clock.seconds += 7
    await chain.set_weights(KEYS[0], {Uid(2): 1}, 0)
    assert [neuron.incentive for neuron in (await chain.metagraph()).neurons] == [0, 1, 0]
    clock.seconds += 8
    assert [neuron.incentive for neuron in (await chain.metagraph()).neurons] == [0, 0, 1]


async def test_a_year_of_missed_epochs_is_made_up_for_at_once(build: Build, clock: Clock) -> None:
    chain = build()
    for signer in KEYS[:3]:
        chain.register(signer)
    chain.add_stake(KEYS[0], 1)
    clock.seconds += 1
    await chain.set_weights(KEYS[0], {Uid(1): 3, Uid(2): 1}, 0)
    clock.seconds += 86_400
    graph = await chain.metagraph()
    assert graph.block == 86_401
    assert [neuron.incentive for neuron in graph.neurons] == [0, 0, 0], "its stake fell inactive long ago"
    clock.seconds += 1
    await chain.set_weights(KEYS[0], {Uid(1): 3, Uid(2): 1}, 0)
    clock.seconds += 10
    assert [neuron.incentive for neuron in (await chain.metagraph()).neurons] == [0, 0.75, 0.25]


async def test_an_empty_subnet_has_epochs_too(build: Build, clock: Clock) -> None:
    chain = build()
    clock.seconds += 100
    assert (await chain.metagraph()).neurons == ()


async def test_the_first_weights_of_a_neuron_are_never_too_soon(build: Build, clock: Clock) -> None:
    chain = build(weights_rate_limit=100)
    for signer in KEYS[:2]:
        chain.register(signer)
    chain.add_stake(KEYS[0], 1)
    await chain.set_weights(KEYS[0], {Uid(1): 1}, 0)
    clock.seconds += 99
    with pytest.raises(RateLimited, match="try again from block 100 on"):
        await chain.set_weights(KEYS[0], {Uid(1): 1}, 0)
    clock.seconds += 1
    await chain.set_weights(KEYS[0], {Uid(1): 1}, 0)


async def test_a_chain_that_does_not_answer_in_time_is_unavailable(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = build()
    monkeypatch.setattr(embedded, "DEADLINE_S", 0.05)
    with chain._store._turn, pytest.raises(ChainUnavailable, match="no answer within"):
        await chain.block()
    monkeypatch.undo()
    assert await chain.block() == 0


async def test_a_closed_chain_says_so(build: Build) -> None:
    chain = build()
    await chain.aclose()
    await chain.aclose()
    with pytest.raises(ChainUnavailable, match="was closed by this process"):
        await chain.block()
