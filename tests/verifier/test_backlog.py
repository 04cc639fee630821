"""Audits that wait: which is next, and when a verifier takes no more than it can audit."""

from __future__ import annotations

import pytest

from targon.ledger import Answered, Event, Verdict
from targon.transport.errands import NotReady
from targon.verifier.audits import AT_ONCE
from targon.verifier.backlog import LATE_BLOCKS, MOST, Backlog
from targon.verifier.delivery import inconclusive_delivery
from targon.verifier.retained import Content
from tests.tiny_engine import TinyEngine
from tests.verifier.conftest import World
from tests.verifier.office import office, order, own_inferences, routed


def backlog(*blocks: int) -> Backlog:
    made = Backlog()
    for attempt, block in enumerate(blocks):
        made.add(attempt, block)
    return made


def test_all_that_waits_is_taken_once() -> None:
    waiting = backlog(*range(50))
    taken = [waiting.take(50) for _ in range(50)]
    assert sorted(taken) == list(range(50))
    assert len(waiting) == 0
    with pytest.raises(ValueError, match="empty"):
        waiting.take(50)


def test_nobody_can_foresee_which_is_next() -> None:
    orders = {tuple(made.take(9) for _ in range(9)) for made in (backlog(*range(9)) for _ in range(20))}
    assert len(orders) > 15


def test_one_that_waited_for_long_comes_before_all_others() -> None:
    late = LATE_BLOCKS // 2 + 1
    for _ in range(20):
        waiting = backlog(0, 1, *[late] * 30)
        assert [waiting.take(late), waiting.take(late + 1)] == [0, 1]


def test_a_verifier_is_behind_until_half_of_what_made_it_so_is_left() -> None:
    waiting = backlog(0, LATE_BLOCKS // 2)
    assert not waiting.behind(LATE_BLOCKS)
    assert waiting.behind(LATE_BLOCKS + 1)
    assert waiting.take(LATE_BLOCKS + 1) == 0
    assert waiting.behind(LATE_BLOCKS + 1), "the next one has waited for more than half as long"
    assert waiting.take(LATE_BLOCKS + 1) == 1
    waiting.add(2, LATE_BLOCKS // 2 + 1)
    assert not waiting.behind(LATE_BLOCKS + 1)


def test_a_verifier_is_behind_while_too_many_wait_however_new_they_are() -> None:
    waiting = backlog(*[7] * (MOST - 1))
    assert not waiting.behind(7)
    waiting.add(MOST, 7)
    seen = []
    while waiting.behind(7):
        seen.append(len(waiting))
        waiting.take(7)
    assert (seen[0], seen[-1]) == (MOST, MOST // 2)


@pytest.mark.anyio
async def test_no_inference_is_taken_while_audits_pile_up_and_all_are_judged_in_the_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("targon.verifier.backlog.MOST", 4)
    monkeypatch.setattr("targon.verifier.audits.RETRY_S", 0.05)
    async with world.prover("Honest"), office(world) as here:
        await here.serve()
        audits, registry = here.desk._audits, here.desk._metrics._registry
        away = TinyEngine(down=True)
        monkeypatch.setattr(audits, "_engine", away)
        while not audits._behind:
            errand = await here.take()
            await here.desk.answered(errand, await here.send(errand))
            if len(audits._backlog) >= 4:
                with pytest.raises(NotReady, match="answers wait to be verified") as refused:
                    await here.desk.take(order())
                assert refused.value.retry_after_s >= 30.0
        before = await world.events()
        with pytest.raises(NotReady):
            await here.desk.take(order())
        sent = len(routed(before))
        assert len(routed(await world.events())) == sent, "nothing of it is logged"
        assert registry.get_sample_value("targon_verifier_audits_behind") == 1.0
        assert (registry.get_sample_value("targon_verifier_turned_away_behind_total") or 0.0) >= 2.0
        away.down = False
        last, _ = await here.serve()
        assert registry.get_sample_value("targon_verifier_audits_behind") == 0.0
        drawn = {e.attempt for e in before if isinstance(e, Answered) and e.audited}
        events = await here.events_until(
            lambda events: drawn <= {e.attempt for e in events if isinstance(e, Verdict)}
        )
    assert last.request.attempt_number in routed(events)


@pytest.mark.anyio
async def test_what_waited_before_a_restart_counts_after_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("targon.verifier.audits.RETRY_S", 0.05)
    async with world.prover("Honest"):
        async with office(world) as here:
            monkeypatch.setattr(here.desk._audits, "_engine", TinyEngine(down=True))
            await here.events_until(
                lambda events: any(
                    isinstance(e, Answered) and e.attempt in own_inferences(events) for e in events
                )
            )
        monkeypatch.setattr("targon.verifier.backlog.MOST", 1)
        async with office(world) as again:
            monkeypatch.setattr(again.desk._audits, "_engine", away := TinyEngine(down=True))
            while not again.desk._open:
                await again.events_until(bool)
            with pytest.raises(NotReady, match="wait to be verified"):
                await again.desk.take(order())
            away.down = False
            monkeypatch.setattr("targon.verifier.backlog.MOST", 10_000)
            await again.serve()


class CountedEngine(TinyEngine):
    """Counts how often it is asked whether it works."""

    checks = 0

    async def check(self) -> None:
        self.checks += 1
        await super().check()


@pytest.mark.anyio
async def test_the_engine_is_asked_whether_it_works_now_and_then_and_after_an_audit_that_came_to_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def judged(events: list[Event]) -> int:
        return sum(isinstance(e, Verdict) and e.attempt in routed(events) for e in events)

    async def nothing(content: Content, _: float, *, counted: bool = True) -> tuple[Verdict, None]:
        return inconclusive_delivery(content.request.attempt_number, "targon/1", "lost", replied=True), None

    monkeypatch.setattr("targon.verifier.audits.TRUSTED_S", 3_600.0)
    async with world.prover("Honest"), office(world) as here:
        audits = here.desk._audits
        monkeypatch.setattr(audits, "_engine", engine := CountedEngine())
        monkeypatch.setattr(audits, "_trusted_until_s", float("-inf"))
        while judged(events := await world.events()) < 6:
            await here.serve()
        assert engine.checks <= AT_ONCE
        monkeypatch.setattr(audits._asker, "judge", nothing)
        before, asked = judged(events), engine.checks
        while judged(await world.events()) < before + 8:  # some were judged before, and not written yet
            await here.serve()
        assert engine.checks > asked
