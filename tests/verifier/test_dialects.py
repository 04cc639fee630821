"""Each prover is given the work that its engine can do; what it says of itself spares it nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable

import anyio
import pytest
from bittensor.keyfiles import Keypair
from starlette.types import Receive, Send

from targon.chain import Axon
from targon.ledger import Attempt, Event, StepClosed, Verdict
from targon.protocol.messages import Dialect, ProverStatus
from targon.protocol.primitives import Block, Hotkey
from targon.prover.service import ProverService
from targon.transport import Code, NeuronClient, Refusal, SignedRequest, Unreachable, send_json
from targon.verification.verdict import NATIVE
from targon.verifier import dialects
from targon.verifier.challenges import Challenge
from targon.verifier.dialects import LEAST_BELIEVED, Offers, dialect_for
from tests.tiny_engine import TinyEngine
from tests.verifier.conftest import VERIFIER, World
from tests.verifier.test_verifier import standings_of, steps, verdicts

pytestmark = pytest.mark.anyio

PROVERS = [Hotkey(Keypair.create_from_uri(f"//Prover{number}").ss58_address) for number in range(3)]
ALICE = PROVERS[0]
HERE, THERE = Axon("127.0.0.1", 8001), Axon("127.0.0.1", 8002)
INTERVAL = 24

# -- which dialect follows ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offered", "expected"),
    [
        (("targon/1", "greedy"), "targon/1"),
        (("native", "greedy", "targon/1"), "targon/1"),
        (("greedy",), "greedy"),
        (("native", "greedy"), "greedy"),
        (("native",), "native"),
        (("vllm", "native"), "native"),
        (("vllm",), "targon/1"),
        ((), "targon/1"),
    ],
)
def test_the_best_that_a_prover_offers_is_asked_for(offered: tuple[Dialect, ...], expected: Dialect) -> None:
    assert dialect_for(offered) == expected


def test_native_is_no_way_to_keep_a_score_that_was_earned() -> None:
    assert dialect_for(("native",), 0.01) == "targon/1"
    assert dialect_for(("native", "greedy"), 0.01) == "greedy"
    assert dialect_for(("native",), 0.0) == "native"


def test_a_challenge_keeps_its_words_in_every_dialect_and_its_parameters_in_all_but_greedy() -> None:
    challenge = Challenge((), 0.8, 0.95, 40, ("###",), 64)
    made = {dialect: challenge.sampling(dialect, 7) for dialect in ("targon/1", "greedy", "native")}
    for dialect, sampling in made.items():
        assert (sampling.dialect, sampling.seed) == (dialect, f"{7:016x}")
        assert (sampling.stop, sampling.max_tokens) == (("###",), 64)
        drawn = (0.0, 1.0, 0) if dialect == "greedy" else (0.8, 0.95, 40)
        assert (sampling.temperature, sampling.top_p, sampling.top_k) == drawn


# -- what is known of a prover, and for how long -----------------------------------------------------------


class Gossip(NeuronClient):
    """A client that answers for the provers. A prover that isn't in ``says`` is unreachable."""

    def __init__(self, says: dict[Hotkey, tuple[Dialect, ...]]) -> None:
        super().__init__()
        self.says = says
        self.asked: list[Hotkey] = []

    async def status(self, axon: Axon, prover: Hotkey, *_: object, **__: object) -> ProverStatus:  # type: ignore[override]
        self.asked.append(prover)
        if prover not in self.says:
            raise Unreachable(axon, "nobody there")
        return ProverStatus(
            version="1",
            hotkey=prover,
            models=(),
            dialects=self.says[prover],
            capacity=1,
            queued=0,
            running=0,
        )


class Network:
    """Offers, and the blocks that pass."""

    def __init__(self, **says: tuple[Dialect, ...]) -> None:
        self.client = Gossip({ALICE: says["alice"]} if says else {})
        self.offers = Offers(self.client, VERIFIER, INTERVAL)

    async def at(self, block: int, axon: Axon = HERE) -> tuple[Dialect, ...]:
        await self.offers.refresh([(ALICE, axon)], Block(block))
        return self.offers.of(ALICE, Block(block))


async def test_a_prover_is_asked_once_an_interval() -> None:
    network = Network(alice=("greedy",))
    for block in range(5, 5 + 2 * INTERVAL):
        assert await network.at(block) == ("greedy",)
    assert len(network.client.asked) == 2


async def test_a_prover_is_asked_again_soon_after_it_refused_what_it_offers() -> None:
    network = Network(alice=("targon/1",))
    await network.at(5)
    network.client.says[ALICE] = ("greedy",)
    assert await network.at(6) == ("targon/1",)
    network.offers.doubt(ALICE)
    assert await network.at(7) == ("greedy",)
    await network.at(8)
    assert len(network.client.asked) == 2


async def test_a_prover_that_does_not_say_is_asked_again_several_times_an_interval() -> None:
    network = Network()
    for block in range(INTERVAL):
        assert await network.at(block) == ()
    assert len(network.client.asked) == 12
    network.client.says[ALICE] = ("native",)
    assert await network.at(INTERVAL) == ("native",)


async def test_what_a_prover_said_outlives_a_lost_answer_but_not_lasting_silence() -> None:
    network = Network(alice=("native",))
    await network.at(0)
    network.client.says.clear()
    believed = max(2 * INTERVAL, LEAST_BELIEVED)
    for block in range(1, believed + 1):
        assert await network.at(block) == ("native",)
    assert await network.at(believed + 1) == ()


async def test_what_was_said_at_another_address_is_not_believed() -> None:
    network = Network(alice=("native",))
    await network.at(0)
    network.client.says.clear()
    assert await network.at(1, THERE) == ()


async def test_of_a_prover_nobody_asked_nothing_is_known() -> None:
    offers = Network().offers
    offers.doubt(ALICE)
    assert offers.of(ALICE, Block(3)) == ()


async def test_all_are_asked_whoever_is_challenged(world: World) -> None:
    """A status request that came only before a challenge would give it away."""
    asked = Counter[str]()
    original = ProverService.status

    async def counting(self: ProverService, signed: SignedRequest, receive: Receive, send: Send) -> None:
        asked[self._hotkey] += 1
        await original(self, signed, receive, send)

    world.settings = world.settings.model_copy(update={"sample_size": 1})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ProverService, "status", counting)
        async with world.prover("A") as a, world.prover("B") as b, world.prover("C") as c:
            await world.verify_until(lambda events: steps(events) >= 1)
    assert set(asked) == {a, b, c}


# -- a verifier among all kinds of provers -----------------------------------------------------------------


def asked_of(events: list[Event], prover: Hotkey) -> set[str]:
    return {event.dialect for event in events if isinstance(event, Attempt) and event.prover == prover}


def judged(events: list[Event], prover: Hotkey) -> list[Verdict]:
    """The verdicts of one prover; not those of the step in which the verifier was stopped."""
    whose = {at: event.prover for at, event in enumerate(events) if isinstance(event, Attempt)}
    last = max(at for at, event in enumerate(events[:-1]) if isinstance(event, StepClosed))
    return [event for event in verdicts(events[:last]) if whose[event.attempt] == prover]


async def test_each_prover_is_given_the_work_that_its_engine_can_do(world: World) -> None:
    async with (
        world.prover("Both") as both,
        world.prover("Greedy", TinyEngine(dialects=("greedy",))) as greedy,
        world.prover("Native", TinyEngine(dialects=("native",))) as native,
    ):
        events = await world.verify_until(lambda events: steps(events) >= 4, limit_s=60)
    assert [asked_of(events, each) for each in (greedy, native)] == [{"greedy"}, {"native"}]
    # at T = 0 greedy, else targon/1, where it offers both; in a few blocks T = 0 need not be drawn
    assert "targon/1" in asked_of(events, both) <= {"targon/1", "greedy"}
    for prover, method in ((both, "divergence"), (greedy, "divergence"), (native, "recheck")):
        found = judged(events, prover)
        assert {(each.outcome, each.method) for each in found} == {("pass", method)}
        assert all(each.reason.startswith(NATIVE) == (prover == native) for each in found)
        assert all((each.observed is None) == (prover == native) for each in found)
    standings = await standings_of(world)
    scores = {each.hotkey: (each.score > 0, each.attempts > 0 or each.settled_attempts > 0, each.native > 0)
              for each in standings.provers()}  # fmt: skip
    assert scores == {
        both: (True, True, False),
        greedy: (True, True, False),
        native: (False, False, True),
    }


async def test_native_work_of_another_model_is_shown_to_fail(world: World) -> None:
    async with world.prover("Cheat", TinyEngine(dialects=("native",), wrong=True)) as cheat:
        events = await world.verify_until(lambda events: steps(events) >= 2)
    assert {(each.outcome, each.method) for each in judged(events, cheat)} == {("fail", "recheck")}
    standing = (await standings_of(world)).prover(cheat)
    assert standing is not None
    assert (standing.attempts, standing.convictions, standing.score) == (0, 0, 0.0)
    assert standing.native_replies > 0


async def garbage(_: ProverService, signed: SignedRequest, receive: Receive, send: Send) -> None:
    await send_json(send, 200, b'{"dialects":["native"]}')


async def too_much(_: ProverService, signed: SignedRequest, receive: Receive, send: Send) -> None:
    await send_json(send, 200, b" " * 1_000_000)


async def refusal(_: ProverService, signed: SignedRequest, receive: Receive, send: Send) -> None:
    raise Refusal(Code.OVERLOADED, "not now")


async def silence(_: ProverService, signed: SignedRequest, receive: Receive, send: Send) -> None:
    await anyio.sleep_forever()


async def another(_: ProverService, signed: SignedRequest, receive: Receive, send: Send) -> None:
    status = ProverStatus(
        version="1", hotkey=ALICE, models=(), dialects=("native",), capacity=1, queued=0, running=0
    )
    await send_json(send, 200, status.to_bytes())


Answer = Callable[[ProverService, SignedRequest, Receive, Send], Awaitable[None]]


@pytest.mark.parametrize("status", [garbage, too_much, refusal, silence, another])
async def test_a_prover_that_does_not_say_what_it_offers_is_asked_as_ever(
    world: World, monkeypatch: pytest.MonkeyPatch, status: Answer
) -> None:
    monkeypatch.setattr(ProverService, "status", status)
    monkeypatch.setattr(dialects, "STATUS_TIMEOUT_S", 0.3)
    async with world.prover("Able") as able, world.prover("Unable", TinyEngine(dialects=("native",))) as not_:
        events = await world.verify_until(lambda events: steps(events) >= 2)
    assert asked_of(events, able) == asked_of(events, not_) == {"targon/1"}
    assert {each.outcome for each in judged(events, able)} == {"pass"}
    assert {(each.outcome, each.method) for each in judged(events, not_)} == {("fail", "delivery")}
    assert all("unsupported_sampling" in each.reason for each in judged(events, not_))


async def test_a_prover_that_turns_to_native_work_first_loses_what_it_had_earned(world: World) -> None:
    engine = TinyEngine()
    async with world.prover("Turncoat", engine) as prover:
        earned = await world.verify_until(lambda events: steps(events) >= 2)
        engine.dialects = ("native",)
        events = await world.verify_until(
            lambda events: "native" in asked_of(events, prover) and steps(events) > steps(earned)
        )
    first = next(at for at, event in enumerate(events) if getattr(event, "dialect", "") == "native")
    between = judged(events[: first + 1], prover)[len(judged(earned, prover)) :]
    assert {each.outcome for each in between} >= {"fail"}
    standing = (await standings_of(world)).prover(prover)
    assert standing is not None
    assert standing.score == 0.0


async def test_a_native_prover_that_does_not_answer_is_shown_silent(world: World) -> None:
    world.timeout_s = 1.0
    async with world.prover("Slow", TinyEngine(dialects=("native",), pause_s=0.5)) as slow:
        events = await world.verify_until(lambda events: steps(events) >= 1)
    first = verdicts(events)[0]
    assert (first.outcome, first.method) == ("fail", "delivery")
    assert first.reason.startswith(NATIVE)
    standing = (await standings_of(world)).prover(slow)
    assert standing is not None
    assert (standing.attempts, standing.score) == (0, 0.0)
    assert standing.native >= 1
