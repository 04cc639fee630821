"""A neuron that is killed at any moment of an update, or loses its power, starts again by itself."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from targon.updates import launcher
from tests.updates.world import WAIT_S, Neuron, World, run


@pytest.mark.parametrize("step", ["drain", "record", "checkout", "set up", "check", "restart", "healthy"])
def test_killed_before_any_step_it_ends_up_with_the_new_version(world: World, step: str) -> None:
    neuron = Neuron(world)
    with neuron.kept_running():
        neuron.wait_until("serves", version="1.0.0")
        (world.folder / "die at").write_text(step, "utf-8")
        commit = world.release("v1.1.0")
        neuron.wait_until("is updated nevertheless", version="1.1.0")
        assert neuron.statuses == [-9]
    assert world.head() == commit
    assert world.changes() == ""


def test_killed_in_set_up_what_it_left_running_is_ended_too(world: World) -> None:
    neuron = Neuron(world)
    with neuron.kept_running():
        neuron.wait_until("serves", version="1.0.0")
        (world.folder / "die in set-up").touch()
        world.release("v1.1.0")
        neuron.wait_until("is updated nevertheless", version="1.1.0")
        time.sleep(1.2)  # by when the leftover would have spoilt the environment
        assert (world.checkout / "environment" / "version").read_text("utf-8") == "1.1.0"
    assert "going back from v1.1.0" in neuron.log()


def test_killed_while_going_back_it_goes_back(world: World) -> None:
    neuron = Neuron(world)
    with neuron.kept_running():
        neuron.wait_until("serves", version="1.0.0")
        broken = world.release("v1.1.0", "fails its check")
        (world.folder / "die at").write_text("restart", "utf-8")
        deadline = time.monotonic() + WAIT_S
        while (world.folder / "die at").exists() and time.monotonic() < deadline:
            time.sleep(0.001)
        (world.folder / "die in set-up").touch()
        neuron.wait_until("is back", version="1.0.0")
        assert neuron.statuses == [-9, -9]
    assert list(world.state().failed) == [broken]


def test_killed_in_the_middle_of_a_checkout_the_files_are_put_back(world: World) -> None:
    """A filter of the operator's own configuration stops git between two files."""
    stop = world.folder / "stop.sh"
    stop.write_text(f'#!/bin/sh\ntouch "{world.folder}/stopped"\nsleep 60\n', "utf-8")
    stop.chmod(0o755)
    before = world.head()
    neuron = Neuron(world)
    with neuron.kept_running():
        neuron.wait_until("serves", version="1.0.0")
        run(
            "git",
            "config",
            "filter.stop.smudge",
            f"test -e '{world.folder}/stopped' && cat || {stop}",
            folder=world.checkout,
        )
        world.release("v1.1.0", **{".gitattributes": "zz* filter=stop\n", "zz": "last\n"})
        neuron.wait_until("is in the checkout", logged="updating")
        deadline = time.monotonic() + WAIT_S
        while not (world.folder / "stopped").exists():
            assert time.monotonic() < deadline, neuron.log()
            time.sleep(0.02)
        assert (world.checkout / "VERSION").read_text("utf-8") == "1.1.0"
        assert (world.checkout / ".git" / "index.lock").exists()
        assert world.head() == before
        neuron.kill()
        neuron.wait_until("is updated nevertheless", version="1.1.0")
    assert "going back from v1.1.0" in neuron.log()
    assert world.changes() == ""


def test_a_version_whose_installing_is_interrupted_three_times_is_given_up(world: World) -> None:
    neuron = Neuron(world)
    with neuron.kept_running():
        neuron.wait_until("serves", version="1.0.0")
        commit = world.commit("1.1.0")
        for time_ in range(launcher.MOST_INTERRUPTIONS):
            (world.folder / "die at").write_text("check", "utf-8")
            if time_ == 0:
                world.tag("v1.1.0")
            deadline = time.monotonic() + WAIT_S
            while (world.folder / "die at").exists():
                assert time.monotonic() < deadline, neuron.log()
                time.sleep(0.001)
        neuron.wait_until("gives up", logged="it was installed and taken back")
        neuron.wait_until("is back", version="1.0.0")
    assert list(world.state().failed) == [commit]


def torn(world: World, step: str = launcher.CHANGING, **changes: object) -> launcher.Update:
    """The operator's checkout in the middle of an update, as a power cut leaves it; its record is written."""
    before = world.head()
    after = world.release("v1.1.0")
    run("git", "fetch", "-q", "origin", folder=world.checkout)
    update = launcher.Update(
        **{
            "step": step,
            "tag": "v1.1.0",
            "before": before,
            "after": after,
            "branch": "main",
            "root": str(world.checkout),
            "git_folder": str(world.checkout / ".git"),
            "set_up": ("sh", "-c", "cp VERSION environment/version"),
            "output": str(world.folder / "set-up.log"),
            "git_s": 30.0,
            "set_up_s": 30.0,
            "healthy_s": 30.0,
            "most_starts": 3,
            **changes,
        }
    )
    (world.checkout / "VERSION").write_text("torn", "utf-8")
    (world.checkout / "only-in-1.1.0").write_text("torn", "utf-8")
    (world.checkout / "environment" / "version").write_text("torn", "utf-8")
    world.state_file.parent.mkdir(exist_ok=True)
    launcher.write_state(world.state_file, launcher.State(update=update))
    return update


def launch(world: World, *command: str) -> subprocess.CompletedProcess[str]:
    """The launcher on its own, by the machine's Python without any package."""
    whole = ["python3", "-I", launcher.__file__, "--state", str(world.state_file), "--", *command]
    environment = {**os.environ, "PYTHONPATH": ""}
    return subprocess.run(
        whole, capture_output=True, text=True, check=False, env=environment, cwd=world.checkout
    )


def test_a_torn_checkout_is_put_in_order_before_the_command_is_started(world: World) -> None:
    update = torn(world)
    (world.checkout / ".git" / "index.lock").touch()
    done = launch(world, "cat", "VERSION", "environment/version")
    assert done.stdout == "1.0.01.0.0", done.stderr
    assert world.changes() == ""
    assert world.state() == launcher.State(interrupted={update.after: 1})


def test_a_torn_index_is_made_anew(world: World) -> None:
    torn(world)
    (world.checkout / ".git" / "index").write_bytes(b"\0" * 64)
    assert launch(world, "cat", "VERSION").stdout == "1.0.0"
    assert world.changes() == ""


def test_where_the_old_version_cannot_be_set_up_it_is_started_and_the_next_start_tries_again(
    world: World,
) -> None:
    torn(world, set_up=("false",))
    done = launch(world, "cat", "VERSION")
    assert done.stdout == "1.0.0"
    assert "false failed" in done.stderr
    state = world.state()
    assert state.update is not None
    assert state.update.step == launcher.RETURNING
    state.update = launcher.Update(**{**state.update.__dict__, "set_up": ("true",)})
    launcher.write_state(world.state_file, state)
    launch(world, "true")
    assert world.state().update is None


def test_where_git_fails_nothing_is_started(world: World) -> None:
    torn(world, git_s=1e-6)
    done = launch(world, "cat", "VERSION")
    assert (done.returncode, done.stdout) == (launcher.RESTART_STATUS, "")
    assert "Nothing was started" in done.stderr


def test_a_checkout_that_somebody_moved_by_hand_is_left_alone(world: World) -> None:
    torn(world)
    run("git", "restore", "VERSION", folder=world.checkout)
    (world.checkout / "only-in-1.1.0").unlink()
    commit = world.release("v1.2.0")
    run("git", "pull", "-q", folder=world.checkout)
    done = launch(world, "cat", "VERSION")
    assert done.stdout == "1.2.0"
    assert "it is left as it is" in done.stderr
    assert world.head() == commit


def test_while_another_neuron_holds_the_checkout_nothing_is_taken_back(world: World) -> None:
    torn(world)
    held = launcher.hold(world.checkout / ".git" / launcher.NEURON_LOCK)
    try:
        done = launch(world, "cat", "VERSION")
    finally:
        os.close(held)
    assert done.returncode == launcher.RESTART_STATUS
    assert "stop the other neuron" in done.stderr
    assert (world.checkout / "VERSION").read_text("utf-8") == "torn"


def test_a_command_that_is_not_there_is_named(world: World) -> None:
    done = launch(world, "/nowhere/targon")
    assert done.returncode == launcher.RESTART_STATUS
    assert "/nowhere/targon can't be started" in done.stderr


def test_wrong_options_of_the_launcher_are_answered_with_the_right_ones() -> None:
    done = subprocess.run(
        ["python3", launcher.__file__, "targon"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "expected: --state STATE_FILE -- COMMAND" in done.stderr


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"format": 9}', '{"format": 1, "update": {}}', '{"format": 1, "failed": 3}']
)
def test_a_damaged_state_file_is_named_and_the_neuron_started(world: World, content: str) -> None:
    world.state_file.parent.mkdir()
    world.state_file.write_text(content, "utf-8")
    done = launch(world, "cat", "VERSION")
    assert done.stdout == "1.0.0"
    assert "is damaged" in done.stderr


def test_what_a_newer_version_wrote_into_the_state_file_is_read_over(tmp_path: Path) -> None:
    path = tmp_path / "update.json"
    path.write_text('{"format": 1, "installed": "abc", "news": 1}', "utf-8")
    assert launcher.read_state(path) == launcher.State(installed="abc")
