"""A real program in a checkout of its own updates itself, or goes back, whatever the release does."""

from __future__ import annotations

import threading

import pytest

from targon.updates.launcher import RESTART_STATUS
from tests.updates.world import Neuron, World, run

SHORT = {"hangs in its set-up": {"SET_UP_S": "8"}, "hangs": {"HEALTHY_S": "12"}}
"""Deadlines that a broken release lets pass; the good one after it has no more time."""


def test_a_signed_release_is_installed_and_the_process_stays_the_same(world: World) -> None:
    neuron = Neuron(world)
    with neuron.kept_running():
        neuron.wait_until("serves", version="1.0.0")
        number = neuron.process and neuron.process.pid
        commit = world.release("v1.1.0")
        neuron.wait_until("is updated", version="1.1.0")
        assert neuron.process is not None
        assert neuron.process.pid == number
        assert neuron.statuses == []
    assert world.head() == commit
    assert world.state().installed == commit
    assert world.changes() == ""


def test_what_runs_ends_before_anything_is_replaced(world: World) -> None:
    neuron = Neuron(world)
    with neuron.kept_running():
        neuron.wait_until("serves", version="1.0.0")
        answers: list[str | None] = []
        asking = threading.Thread(target=lambda: answers.append(neuron.says(b"slow")))
        asking.start()
        world.release("v1.1.0")
        neuron.wait_until("drains", logged="updating")
        asking.join()
        neuron.wait_until("is updated", version="1.1.0")
    assert answers == ["1.0.0"]


@pytest.mark.parametrize(
    "behaviour", ["cannot be set up", "hangs in its set-up", "fails its check", "crashes at once", "hangs"]
)
def test_a_broken_release_is_taken_back_and_the_next_good_one_installed(world: World, behaviour: str) -> None:
    before = world.head()
    neuron = Neuron(world, **SHORT.get(behaviour, {}))
    with neuron.kept_running():
        neuron.wait_until("serves", version="1.0.0")
        broken = world.release("v1.1.0", behaviour)
        neuron.wait_until("is not tried again", logged="it was installed and taken back")
        neuron.wait_until("is back", version="1.0.0")
        assert world.head() == before
        assert world.changes() == ""
        assert list(world.state().failed) == [broken]
        assert run("git", "symbolic-ref", "HEAD", folder=world.checkout) == "refs/heads/main"
        assert neuron.log().count("it was installed and taken back") == 1
        world.release("v1.1.1")
        neuron.wait_until("is updated", version="1.1.1")


def test_a_version_that_serves_but_is_never_healthy_is_taken_back_once_its_time_is_up(world: World) -> None:
    neuron = Neuron(world, HEALTHY_S="12")
    with neuron.kept_running():
        neuron.wait_until("serves", version="1.0.0")
        broken = world.release("v1.1.0", "is never healthy")
        neuron.wait_until("is back", logged="it was installed and taken back")
        neuron.wait_until("is back", version="1.0.0")
    assert world.state().failed == {broken: "it was not healthy 12 s after its start"}
    assert neuron.log().count("which is on trial") == 1


def test_an_unsigned_release_is_refused_once_and_the_neuron_goes_on(world: World) -> None:
    before = world.head()
    neuron = Neuron(world)
    with neuron.kept_running():
        neuron.wait_until("serves", version="1.0.0")
        world.release("v1.1.0", key=None)
        # said before it is noted: who is killed in between says it again
        neuron.wait_for("notes the refusal", lambda: "v1.1.0" in world.state().refused)
        neuron.kill()
        neuron.wait_until("serves again", version="1.0.0")
        # the signed one that replaces it shows that it looked again meanwhile
        world.tag("v1.1.0")
        neuron.wait_until("is updated", version="1.1.0")
    assert neuron.log().count("release refused") == 1
    assert "it is not signed" in neuron.log()
    assert world.head() != before


def test_by_choice_it_ends_with_a_status_that_asks_to_be_started_again(world: World) -> None:
    neuron = Neuron(world, RESTART="exit")
    with neuron.kept_running():
        neuron.wait_until("serves", version="1.0.0")
        world.release("v1.1.0")
        neuron.wait_until("is updated", version="1.1.0")
        assert neuron.statuses == [RESTART_STATUS]


def test_what_never_drains_is_broken_off_at_the_deadline(world: World) -> None:
    world.release("v1.1.0", "never drains")
    neuron = Neuron(world, DRAIN_S="2")
    with neuron.kept_running():
        neuron.wait_until("is updated", version="1.1.0")
        world.release("v1.2.0")
        neuron.wait_until("is updated", version="1.2.0")
    assert "not everything ended in time" in neuron.log()


def test_a_pin_is_followed_whoever_signed_it_also_back(world: World) -> None:
    before = world.head()
    world.release("v1.1.0")
    neuron = Neuron(world, PIN=before)
    run("git", "pull", "-q", folder=world.checkout)
    run("git", "checkout", "-q", "v1.1.0", folder=world.checkout)
    (world.checkout / "environment" / "version").write_text("1.1.0", "utf-8")
    with neuron.kept_running():
        neuron.wait_until("is back at the pin", version="1.0.0")
    assert world.head() == before


def test_turned_off_nothing_is_looked_for(world: World) -> None:
    world.release("v1.1.0")
    neuron = Neuron(world, UPDATES="off")
    with neuron.kept_running():
        neuron.wait_until("serves", version="1.0.0")
    assert run("git", "for-each-ref", "refs/neuron/", folder=world.checkout) == ""
