"""The list of attacks: each can be made, and is asked what it says."""

from __future__ import annotations

import pytest

from targon.redteam.attacks import ATTACKS, BASELINES, BY_NAME, QUICK, Parts, UnknownAttack, with_needs
from targon.redteam.mixtures import Recorded
from targon.redteam.workloads import WORKLOADS, tasks_of, workload_id
from targon.verification.workload import CHALLENGES
from tests.redteam.conftest import PASSAGES, tiny_calibration
from tests.tiny_engine import TinyEngine


def test_names_are_unique_and_each_attack_says_what_it_does():
    assert len(BY_NAME) == len(ATTACKS)
    assert [attack.name for attack in ATTACKS if not attack.words or attack.workload not in WORKLOADS] == []


def test_every_attack_is_made_in_one_way():
    for attack in ATTACKS:
        made = (attack.mixed is not None) + (attack.forge is not None) + attack.generates
        assert made == 1, attack.name
        if attack.wrap is not None:
            engine = TinyEngine()
            attack.wrap(Parts(engine, engine, Recorded(engine, ())))


def test_the_figures_to_reach_stand_beside_the_attacks():
    goals = {attack.name: attack.goal for attack in ATTACKS if attack.goal is not None}
    assert {
        name: goals[name] for name in ("wrong-seed", "int4", "other-model", "T+0.2", "T-0.2")
    } == dict.fromkeys(("wrong-seed", "int4", "other-model", "T+0.2", "T-0.2"), 16)
    assert (goals["fp8"], goals["T+0.1"], goals["no-top-p"]) == (80, 80, 80)
    assert (goals["int8"], goals["T-0.05"], goals["top-2-bug"], goals["int4-5%"]) == (300, 300, 500, 2_500)


def test_an_attack_brings_what_it_is_made_of_and_compared_with_in_an_order_that_works():
    names = [attack.name for attack in with_needs(["int4-5%", "no-top-k"])]
    assert names == ["honest-bf16", "honest-top-k", "int4", "no-top-k", "int4-5%"]


def test_what_an_attack_needs_comes_before_it():
    seen: set[str] = set()
    for attack in with_needs([attack.name for attack in ATTACKS]):
        assert set(attack.needs) <= seen, attack.name
        seen.add(attack.name)


def test_an_attack_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(UnknownAttack, match="got 'int5', expected one of honest-bf16"):
        with_needs([*QUICK, "int5"])


def test_equal_numbers_are_asked_the_same_however_many_there_are():
    for workload in WORKLOADS.values():
        many = tasks_of(workload, PASSAGES, 20)
        assert tasks_of(workload, PASSAGES, 7) == many[:7]
        assert len({task.run_key for task in many}) == 20


def test_other_passages_are_another_workload():
    workload = WORKLOADS["challenges"]
    assert workload_id(workload, PASSAGES) == workload_id(workload, PASSAGES)
    assert workload_id(workload, PASSAGES) != workload_id(workload, PASSAGES[1:])


def test_attacks_are_tried_on_challenges_as_the_figures_ask():
    assert set(BASELINES) < set(WORKLOADS)
    for task in tasks_of(WORKLOADS["challenges"], PASSAGES, 40):
        assert task.sampling.temperature in CHALLENGES.temperatures
        assert task.sampling.top_p == 0.95
        assert 32 <= task.sampling.max_tokens <= 128


def test_a_hostile_user_s_prompts_come_with_parameters_that_are_judged():
    calibration = tiny_calibration(TinyEngine().identity)
    for task in tasks_of(WORKLOADS["hostile"], PASSAGES, 60):
        assert calibration.bands[0].scope.refusal(task.sampling, 1, "whole") is None


def test_a_hostile_user_s_parameters_reach_beyond_what_is_judged():
    calibration = tiny_calibration(TinyEngine().identity)
    refused = [
        calibration.bands[0].scope.refusal(task.sampling, 1, "whole")
        for task in tasks_of(WORKLOADS["extremes"], PASSAGES, 60)
    ]
    assert sum(reason is not None for reason in refused) > 30
