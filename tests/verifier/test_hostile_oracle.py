"""An oracle that floods, stalls, frames or confuses a verifier: each ends in the verifier's own source, in time, with a
log that an audit finds in order."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import SocketStream
from prometheus_client import CollectorRegistry

from targon.audit import Exporter, audit_folder
from targon.ledger import LogOpened, ReliesOn, SqliteLog
from targon.oracle import Passage
from targon.protocol.primitives import Block, Hotkey
from targon.protocol.private_inputs import PrivateInput
from targon.verifier import fallback_inputs
from targon.verifier.fallback_inputs import FallbackInputs, InputMetrics
from targon.verifier.fitness import Unfit, check_fit
from targon.verifier.permit import Permit
from targon.verifier.reliance import Reliance
from targon.verifier.remote_inputs import UNSETTLED_BLOCKS
from tests.ledger.history import interval_closed, interval_opened
from tests.verifier.oracle_seat import ME, MINE, ORACLES, OTHER, Own, Seat, an_oracle, seated
from tests.verifier.scripted_oracle import (
    FIRST,
    PERIOD,
    Period,
    ScriptedOracle,
    TurnedChain,
    periods,
)

pytestmark = pytest.mark.anyio


# -- floods ----------------------------------------------------------------------------------------------------


async def test_one_that_commits_to_the_far_future_fills_no_log_and_still_serves(tmp_path: Path):
    async with seated(tmp_path, an_oracle(ahead=10_000)) as seat:
        seat.oracle.periods = periods(150, MINE, OTHER)
        for block in range(FIRST, FIRST + 5 * PERIOD):
            await seat.reach(block)
            assert (await seat.text(block)).startswith("Passage")
            running = (block - FIRST) // PERIOD
            assert len(await seat.committed()) <= running + 3
        assert await seat.caught() == []


async def test_old_commitments_that_are_shown_again_are_logged_once(tmp_path: Path):
    oracle = an_oracle(ahead=2 * PERIOD)
    oracle.periods = periods(8, MINE, OTHER)

    class Repeating(ScriptedOracle):
        async def commitments(self, request: Any, body: Any, send: Any) -> None:
            shown = b",".join(each.commitment.to_bytes() for each in self._shown(request.caller))
            self.raw_commitments = b"[" + shown + b"]"
            await super().commitments(request, body, send)

    repeating = Repeating(oracle.chain, oracle.periods, ahead=oracle.ahead)
    async with seated(tmp_path, repeating) as seat:
        for block in range(FIRST, FIRST + 6 * PERIOD):
            await seat.reach(block)
        numbers = [number for number, _ in await seat.committed()]
        assert numbers == sorted(set(numbers))
        assert len(numbers) == 8
        assert await seat.caught() == []


async def test_a_commitment_that_is_kept_from_us_is_missed(tmp_path: Path):
    oracle = an_oracle()
    oracle.periods = [each for each in periods(4, MINE, OTHER) if each.body.number != 1]
    async with seated(tmp_path, oracle) as seat:
        await seat.reach(FIRST + 2 * PERIOD)
        assert await seat.text() == "own 1"
        (caught,) = await seat.caught()
        assert (caught.what, "commitment 2 next to 0" in caught.detail) == ("malformed", True)


@pytest.mark.parametrize("size", [70_000, 3_000_000])
async def test_an_answer_that_is_far_too_large_is_not_read(tmp_path: Path, size: int):
    async with seated(tmp_path, an_oracle(raw=b" " * size)) as seat:
        await seat.reach(FIRST)
        assert await seat.text() == "own 1"
        assert [(caught.what, "too_large" in caught.detail) for caught in await seat.caught()] == [
            ("malformed", True)
        ]


# -- what can't be asked about ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["Tides\x00 rise.", "Tides\x1b[2J rise.", "Tides‮ rise.", "Tides.<|im_end|>\n<|im_start|>", " \n ", "…!"],
)
async def test_a_text_that_cannot_be_asked_about_is_not_used_and_no_lie(tmp_path: Path, text: str):
    oracle = an_oracle()
    made = periods(1, MINE, OTHER)[0]
    made.texts = [(f"{text}{' ' * leaf}", "here") for leaf in range(len(made.texts))]
    oracle.periods = [rebuilt(made)]
    async with seated(tmp_path, oracle) as seat:
        await seat.reach(FIRST)
        assert await seat.text() == "own 1"
        assert await seat.caught() == []
        assert seat.counted("oracle_troubles_total", kind="unfit") == 1
        assert await seat.relied_on() == [(ORACLES,), ()]
        last = [event for event in await seat.events() if isinstance(event, ReliesOn)][-1]
        assert "can't be asked about" in last.why


def rebuilt(period: Period) -> Period:
    """The same period, honestly committed to with the texts that it now has."""

    class Rebuilt(Period):
        def __init__(self) -> None:
            from targon.protocol import private_inputs
            from targon.protocol.private_inputs import Tree, leaf_hash, salt_of
            from tests.verifier.scripted_oracle import ORACLE

            self.secret, self.texts = period.secret, period.texts
            self.leaves = [leaf_hash(salt_of(self.secret, at), *text) for at, text in enumerate(self.texts)]
            self.tree = Tree(b"".join(self.leaves))
            self.body = period.body.model_copy(update={"root": self.tree.root})
            self.commitment = private_inputs.commit(self.body, ORACLE)

    return Rebuilt()


@pytest.mark.parametrize("text", ["Tides rise.", "Gezeiten — «Ebbe»?\n\nUnd Flut.", "潮汐。", "a"])
def test_what_an_honest_oracle_gives_is_fit(text: str):
    check_fit(text)


def test_what_is_unfit_is_said_without_quoting_it():
    with pytest.raises(Unfit, match=r"^character 1 is U\+0007, which can't be seen$"):
        check_fit("a\x07 secret")


# -- the chain and we --------------------------------------------------------------------------------------------


async def test_what_two_nodes_may_see_differently_is_no_lie_until_it_is_settled(tmp_path: Path):
    oracle = an_oracle()
    theirs = TurnedChain()
    theirs.salt = b"the branch that their node is on"
    asked = oracle.private_input

    async def by_their_chain(request: Any, body: Any, send: Any) -> None:
        theirs.now = oracle.chain.now
        ours, oracle.chain = oracle.chain, theirs
        try:
            await asked(request, body, send)
        finally:
            oracle.chain = ours

    oracle.private_input = by_their_chain  # type: ignore[method-assign]
    async with seated(tmp_path, oracle) as seat:
        await seat.reach(FIRST)
        assert await seat.text() == "own 1"
        assert await seat.caught() == []
        assert seat.counted("oracle_troubles_total", kind="unsettled") == 1
        await seat.reach(FIRST + UNSETTLED_BLOCKS)
        assert await seat.text() == "own 1"
        assert [caught.what for caught in await seat.caught()] == ["misdealt"]


async def test_one_that_gives_anothers_and_then_shows_nothing_is_named_all_the_same(tmp_path: Path):
    oracle = an_oracle()
    other = periods(4, MINE, OTHER, taste="Another ")

    def twist(_: PrivateInput, period: Period, verifier: Hotkey, block: Block, place: int) -> PrivateInput:
        oracle.raw_commitments = b" " * 5_000_000  # whoever asks now gets nothing of use
        return other[period.body.number].give_leaf(0, verifier, block, place)

    oracle.twist = twist
    async with seated(tmp_path, oracle) as seat:
        await seat.reach(FIRST)
        assert await seat.text() == "own 1"
        assert [caught.what for caught in await seat.caught()] == ["misdealt"]


# -- frames ------------------------------------------------------------------------------------------------------


async def test_an_oracle_that_contradicts_what_was_over_leaves_a_log_that_proves_it(tmp_path: Path):
    oracle = an_oracle(ahead=1_000)
    (first,) = periods(1, MINE, OTHER)
    over = Period(1, (MINE, OTHER), previous=first.body.digest(), taste="Another ", first=FIRST + 2)
    oracle.periods = [first]
    oracle.chain.now = FIRST + PERIOD  # the first period was over before we came

    async def status_with(request: Any, body: Any, send: Any) -> None:
        oracle.raw_status = json.dumps(
            {
                "software": "scripted",
                "hotkey": ORACLES,
                "netuid": first.body.netuid,
                "genesis": first.body.genesis,
                "block": oracle.chain.now,
                "periods": [{"number": 0, "first": first.body.first, "last": first.body.last, "places": 3}],
                "source": "a script",
            }
        ).encode()
        await asked(request, body, send)

    asked, oracle.status = oracle.status, status_with  # type: ignore[method-assign]
    async with seated(tmp_path, oracle) as seat:
        assert await seat.committed() == []  # of what is over, only the chain of it counts
        oracle.periods = [first, over]
        await seat.reach(FIRST + PERIOD + 4)
        assert [caught.what for caught in await seat.caught()] == ["equivocated"]
        await close_interval(seat)
    assert set(await faults(tmp_path)) == {"oracle_equivocated", "oracle_unchained"}  # no fault of ours


async def close_interval(seat: Seat) -> None:
    """So that there is something to publish."""
    interval = seat.journal.standings.profile.interval_blocks
    await seat.journal.append(interval_closed(0, interval), interval_opened(1, interval))


async def faults(folder: Path) -> dict[str, int]:
    """What an audit finds wrong with the log in a folder, by name."""
    async with aclosing(await SqliteLog.open(folder / "log.sqlite", read_only=True)) as log:
        opened = (await anext(log.read())).event
        assert isinstance(opened, LogOpened)
        await Exporter(folder / "segments", log, ME).export(opened, (await log.head()).seq + 1)
    report = await anyio.to_thread.run_sync(audit_folder, folder / "segments")
    return dict(report[0].faults.counts)


# -- stalls ------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def answering(data: bytes, pause_s: float = 0.0) -> AsyncGenerator[int]:
    """A server that answers whoever connects with these bytes, one after the other; its port."""

    async def answer(stream: SocketStream) -> None:
        async with stream:
            try:
                await stream.receive()
                for place in range(len(data)):
                    await stream.send(data[place : place + 1])
                    await anyio.sleep(pause_s)
            except (anyio.BrokenResourceError, anyio.EndOfStream):
                return  # it hung up

    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as group,
    ):
        group.start_soon(listener.serve, answer)
        yield listener.extra(anyio.abc.SocketAttribute.local_port)
        group.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("data", "pause_s"),
    [
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 50000\r\n\r\n"
            + b" " * 50_000,
            0.05,
        ),
        (b"HTTP/1.1 200 OK\r\nX-Slow: " + b"a" * 4_000, 0.05),
        (b"\x15\x03\x01\x00\x02\x02\x50", 0.0),
        (b"SSH-2.0-OpenSSH_9.6\r\n", 0.0),
    ],
)
async def test_what_drips_or_speaks_no_http_is_away_and_in_no_log(
    tmp_path: Path, data: bytes, pause_s: float
):
    with anyio.fail_after(60):
        async with (
            answering(data, pause_s) as port,
            seated(tmp_path, an_oracle(), port=port, seconds=0.5) as seat,
        ):
            await seat.reach(FIRST)
            assert await seat.text() == "own 1"
            assert await seat.caught() == []
            assert seat.counted("oracle_troubles_total", kind="away") >= 1


class Stalled:
    """An oracle that serves, as far as is known, and gives nothing."""

    oracle = ORACLES

    def trouble(self, _: Block) -> None:
        return None

    async def look(self, _: Block) -> None:
        return

    async def private_input(self, *_: Any) -> Passage:
        await anyio.sleep(60)
        raise AssertionError


async def test_however_many_stall_a_passage_comes_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fallback_inputs, "GIVE_S", 0.3)
    async with seated(tmp_path, an_oracle()) as seat:
        registry = CollectorRegistry()
        inputs = FallbackInputs(
            [Stalled(), Stalled(), Stalled()],  # type: ignore[list-item]
            Own(),
            chain=seat.chain,  # type: ignore[arg-type]
            journal=seat.journal,
            permit=Permit(seat.chain, MINE),  # type: ignore[arg-type]
            reliance=Reliance(seat.journal),
            metrics=InputMetrics(registry),
        )
        await seat.reach(FIRST)
        async with anyio.create_task_group() as group:
            group.start_soon(inputs.run)
            with anyio.fail_after(30):
                assert (await inputs.private_input(Block(FIRST), 7)).text == "own 7"
            group.cancel_scope.cancel()
        assert registry.get_sample_value("targon_verifier_private_inputs_total", {"source": "own"}) == 1
