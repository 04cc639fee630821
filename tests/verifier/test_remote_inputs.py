"""A verifier's private inputs from an oracle that tells the truth, lies, is late, or isn't there."""

from __future__ import annotations

import json
from contextlib import aclosing
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from structlog.testing import capture_logs

from targon.audit import Exporter, audit_folder
from targon.cli import main
from targon.ledger import InputsCommitted, LogOpened, ReliesOn, SqliteLog
from targon.protocol.primitives import Block, Hotkey
from targon.protocol.private_inputs import Commitment, PrivateInput, check_commitment, contradict
from targon.transport import Code, Refusal
from targon.verifier import remote_inputs
from targon.verifier.remote_inputs import UNSETTLED_BLOCKS
from tests.ledger.history import interval_closed, interval_opened
from tests.verifier.oracle_seat import ME, MINE, ORACLES, OTHER, OTHERS_KEY, an_oracle, seated
from tests.verifier.scripted_oracle import FIRST, PERIOD, STRANGER, Period, hash_of, periods

pytestmark = pytest.mark.anyio

SETTLED = FIRST + UNSETTLED_BLOCKS
"""From here on whose each leaf of the first period is can't be in doubt."""


# -- one that tells the truth --------------------------------------------------------------------------------


async def test_what_was_committed_to_before_its_period_is_given_through_rotation(tmp_path: Path):
    async with seated(tmp_path, an_oracle()) as seat:
        texts = []
        for block in range(FIRST, FIRST + 2 * PERIOD):
            await seat.reach(block)
            texts += [await seat.text(draw) for draw in (7, 8, 9)]
        assert all(text.startswith("Passage") for text in texts)
        assert len(set(texts)) == len(texts)
        assert [number for number, _ in await seat.committed()] == [0, 1, 2]
        assert all(seen < FIRST + number * PERIOD for number, seen in await seat.committed())
        assert (await seat.relied_on())[-1] == (ORACLES,)
        assert await seat.caught() == []
        assert seat.counted("private_inputs_total", source="oracle") == len(texts)


async def test_places_are_taken_in_the_order_of_draws_and_a_draw_keeps_its_own(tmp_path: Path):
    async with seated(tmp_path, an_oracle()) as seat:
        await seat.reach(FIRST)
        first, second, again = [await seat.text(draw) for draw in (70, 80, 70)]
        assert first == again != second
        assert [place for *_, place in seat.oracle.asked] == [0, 1, 0]


async def test_what_exceeds_a_blocks_places_comes_from_the_own_source(tmp_path: Path):
    async with seated(tmp_path, an_oracle()) as seat:
        await seat.reach(FIRST)
        texts = [await seat.text(draw) for draw in range(4)]
        assert texts[3] == "own 3"
        assert all(text.startswith("Passage") for text in texts[:3])
        assert seat.counted("oracle_troubles_total", kind="out_of_places") == 1
        assert seat.inputs.relies == (ORACLES,)


async def test_that_an_oracle_gives_too_few_is_said_once_with_what_to_do(tmp_path: Path):
    async with seated(tmp_path, an_oracle()) as seat:
        await seat.reach(FIRST)
        with capture_logs() as logs:
            for draw in range(9):
                await seat.text(draw)
        said = [each for each in logs if each["log_level"] == "warning"]
        assert [each["event"] for each in said] == ["oracle_gives_too_few"]
        assert "--oracle.places" in said[0]["do"]
        assert seat.counted("oracle_troubles_total", kind="out_of_places") == 6


async def test_a_block_that_has_passed_is_made_up_for_by_the_newest(tmp_path: Path):
    async with seated(tmp_path, an_oracle()) as seat:
        await seat.reach(FIRST + 1)
        texts = {await seat.text(5, block=FIRST), await seat.text(6)}
        assert len(texts) == 2
        assert [(block, place) for _, block, place in seat.oracle.asked] == [
            (FIRST, 0),
            (FIRST + 1, 0),
            (FIRST + 1, 1),
        ]


async def test_a_block_that_the_oracle_does_not_know_yet_is_waited_for(tmp_path: Path):
    async with seated(tmp_path, an_oracle()) as seat:
        await seat.reach(FIRST)
        async with anyio.create_task_group() as group:
            group.start_soon(seat.text, 5, FIRST + 1)
            while len(seat.oracle.asked) < 2:
                await anyio.sleep(0.005)  # it was told that the block is to come, and asks again
            seat.chain.now += 1
        assert await seat.text(5) == await seat.text(5)
        assert await seat.caught() == []
        assert seat.inputs.relies == (ORACLES,)


async def test_after_a_restart_it_goes_on_within_the_period_and_logs_nothing_twice(tmp_path: Path):
    oracle = an_oracle()
    async with seated(tmp_path, oracle) as seat:
        await seat.reach(FIRST)
        before = await seat.committed()
    async with seated(tmp_path, oracle) as seat:
        assert (await seat.text()).startswith("Passage")
        assert await seat.committed() == before


# -- one that is late, or away -------------------------------------------------------------------------------


async def test_a_commitment_that_is_first_seen_in_its_period_does_not_serve(tmp_path: Path):
    async with seated(tmp_path, an_oracle(ahead=0)) as seat:
        await seat.reach(FIRST)
        assert await seat.text() == "own 1"
        relies = [event for event in await seat.events() if isinstance(event, ReliesOn)]
        assert relies == []  # the log never spoke of any other source
        seat.oracle.ahead = 2
        await seat.reach(FIRST + PERIOD)
        assert (await seat.text()).startswith("Passage")
        assert await seat.caught() == []


async def test_when_the_next_commitment_is_late_the_own_source_bridges_its_period(tmp_path: Path):
    async with seated(tmp_path, an_oracle()) as seat:
        await seat.reach(FIRST)
        seat.oracle.ahead = -1
        await seat.reach(FIRST + PERIOD)
        assert await seat.text() == "own 1"
        seat.oracle.ahead = 2
        await seat.reach(FIRST + 2 * PERIOD)
        assert (await seat.text()).startswith("Passage")
        assert await seat.relied_on() == [(ORACLES,), (), (ORACLES,)]
        last = [event for event in await seat.events() if isinstance(event, ReliesOn)][1]
        assert "committed to nothing for block" in last.why


async def test_an_oracle_that_goes_away_is_left_and_taken_back_when_it_answers(tmp_path: Path):
    oracle = an_oracle()
    async with seated(tmp_path, oracle) as seat:
        await seat.reach(FIRST)
        assert (await seat.text()).startswith("Passage")
        oracle.refusal = Refusal(Code.CHAIN_UNAVAILABLE, "the chain is away", retry_after_s=1.0)
        assert await seat.text(2) == "own 2"
        asked = len(oracle.asked)
        assert await seat.text(3) == "own 3"
        assert len(oracle.asked) == asked  # it is left alone meanwhile
        oracle.refusal = None
        await seat.reach(FIRST + 2)
        assert (await seat.text(4)).startswith("Passage")
        assert await seat.relied_on() == [(ORACLES,), (), (ORACLES,)]
        assert await seat.caught() == []


async def test_where_nobody_answers_the_own_source_serves(tmp_path: Path):
    async with seated(tmp_path, an_oracle(), port=9) as seat:
        await seat.reach(FIRST)
        assert await seat.text() == "own 1"
        assert seat.counted("oracle_troubles_total", kind="away") == 1
        assert seat.counted("relies_on_oracle") == 0
        assert await seat.caught() == []


async def test_an_oracle_that_takes_too_long_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    async with seated(tmp_path, an_oracle()) as seat:
        await seat.reach(FIRST)
        seat.oracle.slow_s = 600.0
        monkeypatch.setattr(remote_inputs, "INPUT_S", 0.3)
        assert await seat.text() == "own 1"
        assert seat.counted("oracle_troubles_total", kind="away") == 1
        assert await seat.caught() == []


async def test_one_that_keeps_failing_is_asked_ever_more_seldom(tmp_path: Path):
    async with seated(tmp_path, an_oracle()) as seat:
        seat.oracle.periods = periods(12, MINE, OTHER)
        seat.oracle.refusal = Refusal(Code.NO_VALIDATOR_PERMIT, "no permit on this subnet")
        for block in range(FIRST, FIRST + 9 * PERIOD):
            await seat.reach(block)
            await seat.text()
        assert [block - FIRST for _, block, _ in seat.oracle.asked] == [0, 2, 6, 14, 30]


# -- one that lies -------------------------------------------------------------------------------------------


def anothers_leaf(
    given: PrivateInput, period: Period, verifier: Hotkey, block: Block, place: int
) -> PrivateInput:
    return period.give_leaf((given.body.leaf + 1) % period.body.leaves, verifier, block, place)


def for_another(given: PrivateInput, period: Period, _: Hotkey, block: Block, place: int) -> PrivateInput:
    return period.give_leaf(given.body.leaf, OTHER, block, place)


def another_block(
    given: PrivateInput, period: Period, verifier: Hotkey, block: Block, place: int
) -> PrivateInput:
    return period.give_leaf(given.body.leaf, verifier, Block(block + 1), place)


def another_place(
    _: PrivateInput, period: Period, verifier: Hotkey, block: Block, place: int
) -> PrivateInput:
    """A true one, for another of our places."""
    first_hash = hash_of(period.body.first)
    return period.give(first_hash, verifier, block, (place + 1) % period.body.places)


def wrong_signature(
    given: PrivateInput, period: Period, verifier: Hotkey, block: Block, place: int
) -> PrivateInput:
    return period.give_leaf(given.body.leaf, verifier, block, place, STRANGER)


def wrong_proof(given: PrivateInput, *_: Any) -> PrivateInput:
    return given.model_copy(update={"proof": (*given.proof[:-1], "ff" * 32)})


def short_proof(given: PrivateInput, *_: Any) -> PrivateInput:
    return given.model_copy(update={"proof": given.proof[:-1]})


def another_text(
    given: PrivateInput, period: Period, verifier: Hotkey, block: Block, place: int
) -> PrivateInput:
    leaf = given.body.leaf
    period.texts[leaf] = ("Something that it thought of later.", "nowhere")
    return period.give_leaf(leaf, verifier, block, place)


@pytest.mark.parametrize(
    ("twist", "what"),
    [
        (anothers_leaf, "misdealt"),
        (for_another, "misdealt"),
        (another_block, "misdealt"),
        (another_place, "misdealt"),
        (wrong_signature, "unsigned"),
        (wrong_proof, "uncommitted"),
        (short_proof, "uncommitted"),
        (another_text, "uncommitted"),
    ],
)
async def test_a_lie_is_named_and_its_oracle_left_for_an_interval(tmp_path: Path, twist: Any, what: str):
    oracle = an_oracle(twist=twist)
    oracle.periods = periods(30, MINE, OTHER)
    async with seated(tmp_path, oracle) as seat:
        await seat.reach(SETTLED)
        assert await seat.text() == "own 1"
        (caught,) = await seat.caught()
        assert (caught.what, caught.oracle, caught.block) == (what, ORACLES, SETTLED)
        assert (caught.given is None) == (what == "unsigned")
        assert await seat.relied_on() == [(ORACLES,), ()]
        assert seat.counted("oracle_troubles_total", kind=what) == 1
        oracle.twist = None
        interval = seat.journal.standings.profile.interval_blocks
        await seat.reach(SETTLED + interval - 1)
        assert await seat.text(2) == "own 2"
        await seat.reach(SETTLED + interval + 2 * PERIOD)
        assert (await seat.text(3)).startswith("Passage")


async def test_many_that_are_lied_to_at_once_name_it_once(tmp_path: Path):
    async with seated(tmp_path, an_oracle(twist=anothers_leaf)) as seat:
        await seat.reach(SETTLED)
        async with anyio.create_task_group() as group:
            for draw in range(3):
                group.start_soon(seat.text, draw)
        assert len(await seat.caught()) == 1


@pytest.mark.parametrize("raw", [b"{}", b"[1, 2", b'{"body": null}', b"\xff\xfe"])
async def test_garbage_is_named(tmp_path: Path, raw: bytes):
    async with seated(tmp_path, an_oracle(raw=raw)) as seat:
        await seat.reach(FIRST)
        assert await seat.text() == "own 1"
        assert [caught.what for caught in await seat.caught()] == ["malformed"]


@pytest.mark.parametrize("raw", [b"{}", b"[1]", b"[" * 100_000, b"[{}]"])
async def test_a_list_of_commitments_that_is_none_is_named(tmp_path: Path, raw: bytes):
    async with seated(tmp_path, an_oracle(raw_commitments=raw)) as seat:
        await seat.reach(FIRST)
        assert [caught.what for caught in await seat.caught()] == ["malformed"]
        assert await seat.text() == "own 1"


async def test_a_commitment_that_it_did_not_sign_is_named_and_not_logged(tmp_path: Path):
    oracle = an_oracle()
    oracle.periods = [Period(0, (MINE,), signer=STRANGER)]
    async with seated(tmp_path, oracle) as seat:
        await seat.reach(FIRST)
        assert [caught.what for caught in await seat.caught()] == ["unsigned"]
        assert await seat.committed() == []


async def test_a_commitment_that_does_not_follow_is_proof_in_the_log(tmp_path: Path):
    oracle = an_oracle()
    oracle.periods = [oracle.periods[0], Period(1, (MINE, OTHER), previous="77" * 32)]
    async with seated(tmp_path, oracle) as seat:
        await seat.reach(FIRST + PERIOD)
        assert [caught.what for caught in await seat.caught()] == ["unchained"]
        assert [number for number, _ in await seat.committed()] == [0, 1]
        assert await seat.text() == "own 1"


async def test_an_oracle_that_says_two_things_is_named_at_once_and_left_for_good(tmp_path: Path):
    oracle = an_oracle()
    async with seated(tmp_path, oracle) as seat:
        await seat.reach(FIRST)
        oracle.periods = periods(40, MINE, OTHER, taste="Another ")
        await seat.reach(FIRST + PERIOD)
        (caught,) = await seat.caught()
        assert caught.what == "equivocated"
        both = [event.commitment.body for event in await seat.events() if isinstance(event, InputsCommitted)]
        assert len({body.root for body in both if body.number == both[-1].number}) == 2
        interval = seat.journal.standings.profile.interval_blocks
        await seat.reach(FIRST + 2 * interval)
        assert await seat.text() == "own 1"
    async with seated(tmp_path, oracle) as seat:
        assert await seat.text() == "own 1"
    async with seated(tmp_path, oracle, pardoned=True) as seat:
        await seat.reach(FIRST + 2 * interval + 2 * PERIOD)
        assert (await seat.text()).startswith("Another")


async def test_one_that_said_two_things_is_not_used_again_though_it_takes_one_of_them_back(tmp_path: Path):
    oracle = an_oracle()
    said = oracle.periods = periods(40, MINE, OTHER)
    async with seated(tmp_path, oracle) as seat:
        await seat.reach(FIRST)
        oracle.periods = periods(40, MINE, OTHER, taste="Another ")
        await seat.reach(FIRST + PERIOD)
        oracle.periods = said
        await seat.reach(FIRST + seat.journal.standings.profile.interval_blocks + 4 * PERIOD)
        assert [caught.what for caught in await seat.caught()] == ["equivocated"]
        assert await seat.text() == "own 1"


@pytest.mark.parametrize(("begins", "what"), [(FIRST + 5 * PERIOD, "equivocated"), (90, "unchained")])
async def test_an_oracle_that_forgot_what_it_signed_and_begins_anew_is_named(
    tmp_path: Path, begins: int, what: str
):
    oracle = an_oracle()
    oracle.periods = periods(6, MINE, OTHER)
    async with seated(tmp_path, oracle) as seat:
        await seat.reach(FIRST + 5 * PERIOD)
        assert (await seat.text()).startswith("Passage")
        oracle.periods = [Period(0, (MINE, OTHER), taste="Another ", first=begins)]
        await seat.reach(begins + PERIOD - 1)
        assert await seat.text() == "own 1"
        assert [caught.what for caught in await seat.caught()] == [what]
        assert (await seat.committed())[-1][0] == 0
        assert (await seat.relied_on())[-1] == ()


async def test_an_input_of_another_commitment_has_it_ask_for_that(tmp_path: Path):
    oracle = an_oracle()
    other = periods(4, MINE, OTHER, taste="Another ")

    def twist(_: PrivateInput, period: Period, verifier: Hotkey, block: Block, place: int) -> PrivateInput:
        oracle.periods = other  # and it even admits it
        return other[period.body.number].give_leaf(0, verifier, block, place)

    oracle.twist = twist
    async with seated(tmp_path, oracle) as seat:
        await seat.reach(FIRST)
        assert await seat.text() == "own 1"
        assert [caught.what for caught in await seat.caught()] == ["equivocated"]


async def test_a_chain_that_went_another_way_is_no_lie(tmp_path: Path):
    oracle = an_oracle()
    async with seated(tmp_path, oracle) as seat:
        await seat.reach(FIRST)
        assert (await seat.text()).startswith("Passage")
        seat.chain.salt = b"a fork"  # the oracle and we both see it
        assert (await seat.text(2)).startswith("Passage")
        assert await seat.caught() == []


async def test_one_that_tells_two_verifiers_two_things_is_found_by_their_logs_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    stories = {MINE: periods(4, MINE, OTHER), OTHER: periods(4, MINE, OTHER, taste="Another ")}
    segments = []
    for me in (ME, OTHERS_KEY):
        folder = tmp_path / me.ss58_address
        folder.mkdir()
        oracle = an_oracle(told=lambda verifier: stories[verifier])
        async with seated(folder, oracle, me=me) as seat:
            await seat.reach(FIRST + PERIOD)
            assert (await seat.text()).startswith("Passage" if me is ME else "Another")
            assert await seat.caught() == []
            interval = seat.journal.standings.profile.interval_blocks
            await seat.journal.append(interval_closed(0, interval), interval_opened(1, interval))
        async with aclosing(await SqliteLog.open(folder / "log.sqlite", read_only=True)) as log:
            opened = (await anext(log.read())).event
            assert isinstance(opened, LogOpened)
            await Exporter(folder / "segments", log, me).export(opened, (await log.head()).seq + 1)
        segments.append(str(folder / "segments"))
        assert audit_folder(folder / "segments")[0].exact
    capsys.readouterr()
    command = ["audit", segments[0], "--also", segments[1], "--json"]
    assert await anyio.to_thread.run_sync(main, command) == 1
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(report["fault_counts"]) == {"oracle_equivocated"}
    one, other = (Commitment.from_json(report["oracles"]["proofs"][0][each]) for each in ("one", "other"))
    for commitment in (one, other):
        check_commitment(commitment)
    assert contradict(one.body, other.body)


async def test_one_without_a_place_for_us_is_not_asked(tmp_path: Path):
    oracle = an_oracle()
    oracle.periods = periods(2, OTHER)
    async with seated(tmp_path, oracle) as seat:
        await seat.reach(FIRST)
        assert await seat.text() == "own 1"
        assert oracle.asked == []
