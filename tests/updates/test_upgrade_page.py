"""What docs/upgrade.md tells operators and maintainers to type works as it stands."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from targon.updates import UpdateDeadlines, UpdateSettings, launcher
from tests.updates.world import Neuron, World, run

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "upgrade.md").read_text("utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", PAGE, flags=re.DOTALL)


def block(beginning: str) -> str:
    (found,) = [one for one in BLOCKS if one.startswith(beginning)]
    return found


@pytest.fixture
def home(world: World) -> Path:
    """The home of an operator and maintainer."""
    home = world.folder / "home"
    (home / ".ssh").mkdir(parents=True)
    for suffix in ("", ".pub"):
        shutil.copy(world.folder / f"key{suffix}", home / ".ssh" / f"id_ed25519{suffix}")
    return home


def shell(script: str, folder: Path, home: Path) -> str:
    identity = {
        f"GIT_{who}_{what}": "maintainer@example.org"
        for who in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    }
    return run("sh", "-e", "-c", script, folder=folder, HOME=str(home), **identity)


def test_a_release_that_is_signed_as_the_page_says_is_installed_by_a_neuron_started_as_it_says(
    world: World, home: Path
) -> None:
    shell(block("mkdir -p ~/.targon"), ROOT, home)
    run("git", "config", "user.email", "maintainer@example.org", folder=world.maintainer)
    shell(block("git config gpg.format"), world.maintainer, home)
    line = shell(block("echo"), world.maintainer, home)
    (home / ".targon" / "allowed_signers").write_text(line + "\n", "utf-8")
    world.allowed_signers.write_text(line + "\n", "utf-8")
    world.commit("1.3.0")
    world.push()
    shell(block("git tag -s"), world.maintainer, home)
    shell(block("git -c gpg.ssh"), world.maintainer, home)

    class AsThePageSays(Neuron):
        def command(self) -> list[str]:
            line = block("pm2 start").replace("~", str(home)).replace("$PWD", str(self.world.checkout))
            words = shlex.split(line)
            script, options = words[2], words[words.index("--") + 1 :]
            options[options.index("--") + 1] = str(self.world.checkout / "neuron.py")
            options.insert(options.index("--") + 1, sys.executable)
            return [words[words.index("--interpreter") + 1], script, *options]

    neuron = AsThePageSays(world)
    world.state_file = home / ".targon" / "prover" / "update.json"
    with neuron.kept_running():
        neuron.wait_until("is updated", version="1.3.0")


def test_a_release_is_gone_back_from_by_hand_and_forward_again(world: World, home: Path) -> None:
    world.release("v1.2.3")
    by_hand, back = block("git pull"), block("git checkout v1.2.3")
    assert by_hand.splitlines()[1:] == back.splitlines()[1:] == ["make setup", "pm2 restart prover"]
    shell(by_hand.splitlines()[0], world.checkout, home)
    latest = world.release("v1.3.0")
    shell(by_hand.splitlines()[0], world.checkout, home)
    assert world.head() == latest
    shell(back.splitlines()[0], world.checkout, home)
    assert (world.checkout / "VERSION").read_text("utf-8") == "1.2.3"
    assert "`git checkout main` comes before the next `git pull`" in PAGE
    shell("git checkout main", world.checkout, home)
    shell(by_hand.splitlines()[0], world.checkout, home)
    assert world.head() == latest


def test_what_the_page_prints_as_pin_is_one(world: World, home: Path) -> None:
    world.release("v1.2.3", key="stranger")
    pin = shell(block("git fetch --tags"), world.checkout, home)
    neuron = Neuron(world, PIN=pin)
    with neuron.kept_running():
        neuron.wait_until("is at the pin", version="1.2.3")


def test_a_release_that_was_taken_back_is_tried_again_once_the_state_file_is_removed(
    world: World, home: Path
) -> None:
    world.state_file = home / ".targon" / "prover" / "update.json"
    world.state_file.parent.mkdir(parents=True)
    commit = world.release("v1.1.0")
    launcher.write_state(world.state_file, launcher.State(failed={commit: "it crashed"}))
    neuron = Neuron(world)
    with neuron.kept_running():
        neuron.wait_until("refuses it", logged="it was installed and taken back: it crashed")
    (removing,) = [line for line in block("pm2 stop").splitlines() if line.startswith("rm ")]
    shell(removing, world.folder, home)
    again = Neuron(world)
    with again.kept_running():
        again.wait_until("is updated", version="1.1.0")


def test_the_options_on_the_page_are_the_settings() -> None:
    named = set(re.findall(r"^\| `--autoupdate\.(\w+)`", PAGE, flags=re.MULTILINE))
    settings = {field.name.removesuffix("_s") for field in fields(UpdateSettings)}
    assert named <= settings


def test_the_page_s_deadlines_are_the_defaults() -> None:
    deadlines = UpdateDeadlines()
    assert (deadlines.drain_s, deadlines.set_up_s, deadlines.healthy_s) == (300, 3600, 900)
    assert "within 5 minutes" in PAGE
    assert "within an hour" in PAGE
    assert "15 minutes and three starts" in PAGE
    assert UpdateSettings().most_starts == 3
    assert UpdateSettings().interval_s == 3600
