"""What an updater makes of a remote: real git, real signatures. It is stopped before it installs."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
import structlog

import targon
from targon.updates import (
    BadUpdateSettings,
    CheckoutInUse,
    NotACheckout,
    NotLaunched,
    Plan,
    UpdateDeadlines,
    Updater,
    UpdateSettings,
    launcher,
)
from targon.updates.git import Checkout
from tests.updates.world import World, run

pytestmark = pytest.mark.anyio


class Look:
    """One look at the remote, and what came of it."""

    def __init__(self, world: World, **settings: object) -> None:
        self.world = world
        self.settings = UpdateSettings(
            **{"enabled": True, "allowed_signers": world.allowed_signers, "interval_s": 0.01, **settings}
        )
        self.installs = ""

    async def __call__(self) -> list[str]:
        """Returns what was logged as warning."""
        updater = Updater(
            settings=self.settings,
            plan=Plan(self.world.checkout / "neuron.py", ("true",), ()),
            drain=self.drain,
            healthy=self.healthy,
            jitter=self.after_one_look,
        )
        with structlog.testing.capture_logs() as logged, anyio.CancelScope() as self.scope:
            await updater.run()
        for line in logged:
            if line["event"] == "updating":
                self.installs = line["tag"]
        return [
            f"{line.get('tag', '')}: {line.get('why') or line.get('error')}"
            for line in logged
            if line["log_level"] == "warning"
        ]

    async def drain(self) -> None:
        self.scope.cancel()
        await anyio.lowlevel.checkpoint()

    async def healthy(self) -> bool:
        return True

    def after_one_look(self) -> float:
        self.scope.cancel()
        return 0.5


@pytest.fixture(autouse=True)
def launched(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    world.state_file.parent.mkdir()
    value = json.dumps({"state": str(world.state_file), "command": []})
    monkeypatch.setenv(launcher.LAUNCHER_VARIABLE, value)


async def test_a_release_that_a_trusted_key_signed_is_installed(world: World) -> None:
    world.release("v1.1.0")
    look = Look(world)
    assert await look() == []
    assert look.installs == "v1.1.0"


async def test_a_release_that_a_stranger_signed_is_refused_once(world: World) -> None:
    world.release("v1.1.0", key="stranger")
    look = Look(world)
    (warning,) = await look()
    assert warning.startswith("v1.1.0: it is signed by a stranger")
    assert (await look(), look.installs) == ([], "")


async def test_a_retired_key_signs_no_more_whatever_date_it_writes(world: World, monkeypatch) -> None:
    retired = (world.folder / "stranger.pub").read_text("utf-8")
    with world.allowed_signers.open("a", encoding="utf-8") as file:
        file.write(f'retired namespaces="git",valid-before="20250101" {retired}')
    monkeypatch.setenv("GIT_COMMITTER_DATE", "2024-06-01T12:00:00Z")
    world.release("v1.1.0", key="stranger")
    (warning,) = await Look(world)()
    assert "v1.1.0: it is signed by a stranger" in warning


async def test_a_tag_with_a_second_signature_is_refused_and_no_other_program_is_asked(world: World) -> None:
    commit = world.commit("1.1.0")
    message = "v1.1.0\n-----BEGIN SSH SIGNATURE-----\nnone\n-----END SSH SIGNATURE-----\n"
    signed = f"{message}-----BEGIN PGP SIGNATURE-----\n\nnone\n-----END PGP SIGNATURE-----\n"
    header = f"object {commit}\ntype commit\ntag v1.1.0\ntagger M <m@example.org> 1700000000 +0000\n\n"
    made = world.folder / "tag"
    made.write_text(header + signed, "utf-8")
    tag = run("git", "hash-object", "-t", "tag", "-w", made, folder=world.maintainer)
    run("git", "update-ref", "refs/tags/v1.1.0", tag, folder=world.maintainer)
    world.push("v1.1.0")
    (warning,) = await Look(world)()
    assert "more than that signature stands in it" in warning


async def test_a_stranger_whose_key_the_operator_adds_is_no_stranger(world: World) -> None:
    world.release("v1.1.0", key="stranger")
    look = Look(world)
    await look()
    with world.allowed_signers.open("a") as file:
        file.write(f"friend {(world.folder / 'stranger.pub').read_text()}")
    await look()
    assert look.installs == "v1.1.0"


async def test_a_key_that_may_sign_something_else_may_not_sign_releases(world: World) -> None:
    text = world.allowed_signers.read_text("utf-8")
    world.allowed_signers.write_text(text.replace('"git"', '"file"'), "utf-8")
    world.release("v1.1.0")
    look = Look(world)
    assert len(await look()) == 1
    assert look.installs == ""


async def test_an_unsigned_and_a_lightweight_tag_are_refused(world: World) -> None:
    world.release("v1.1.0", key=None)
    world.commit("1.2.0")
    run("git", "tag", "v1.2.0", folder=world.maintainer)
    world.push("v1.2.0")
    look = Look(world)
    assert await look() == [
        "v1.2.0: it is not signed: it is a lightweight tag",
        "v1.1.0: it is not signed, or not by an SSH key",
    ]


def forge(world: World, tag: str, change: Callable[[bytes], bytes], of: str) -> None:
    """Publish a changed copy of a signed tag object under a name."""
    content = run("git", "cat-file", "tag", of, folder=world.maintainer).encode() + b"\n"
    forged = world.folder / "forged"
    forged.write_bytes(change(content))
    command = ("git", "hash-object", "-t", "tag", "-w", "--literally", str(forged))
    object_id = run(*command, folder=world.maintainer)
    run("git", "update-ref", f"refs/tags/{tag}", object_id, folder=world.maintainer)
    world.push(tag)


async def test_a_signature_of_something_else_is_bad(world: World) -> None:
    world.release("v1.1.0")
    forge(world, "v1.1.0", lambda content: content.replace(b"\nv1.1.0\n", b"\nv1.1.O\n"), "v1.1.0")
    look = Look(world)
    (warning,) = await look()
    assert warning.startswith("v1.1.0: its signature is bad")


async def test_a_signed_tag_under_another_name_is_refused(world: World) -> None:
    world.release("v1.1.0-beta.1")
    forge(world, "v1.1.0", lambda content: content, "v1.1.0-beta.1")
    look = Look(world)
    (warning,) = await look()
    assert "got tag 'v1.1.0-beta.1', expected 'v1.1.0'" in warning


async def test_a_tag_with_an_openpgp_signature_is_not_taken_for_signed(world: World) -> None:
    world.release("v1.1.0")
    pgp = b"-----BEGIN PGP SIGNATURE-----\n\nnonsense\n-----END PGP SIGNATURE-----\n"
    forge(world, "v1.1.0", lambda content: content.partition(b"-----BEGIN SSH")[0] + pgp, "v1.1.0")
    assert await Look(world)() == ["v1.1.0: it is not signed, or not by an SSH key"]


async def test_a_moved_tag_is_refused_also_where_its_new_place_is_signed(world: World) -> None:
    world.commit("1.1.0")
    world.tag("v1.1.0")
    look = Look(world)
    await look()
    assert look.installs == "v1.1.0"
    look.installs = ""
    world.release("v1.1.0", extra="moved")
    (warning,) = await look()
    assert "v1.1.0: it was moved" in warning
    assert look.installs == ""


async def test_a_tag_that_is_another_one_in_the_clone_was_moved(world: World) -> None:
    world.release("v1.1.0")
    run("git", "tag", "v1.1.0", "HEAD", folder=world.checkout)
    (warning,) = await Look(world)()
    assert "v1.1.0: it was moved" in warning


async def test_a_release_beside_what_is_checked_out_is_refused(world: World) -> None:
    run("git", "checkout", "-q", "--orphan", "other", folder=world.maintainer)
    run("git", "branch", "-q", "-D", "main", folder=world.maintainer)
    run("git", "branch", "-q", "-m", "main", folder=world.maintainer)
    world.release("v1.1.0")
    (warning,) = await Look(world)()
    assert "does not come after" in warning


async def test_tags_of_other_things_than_commits_disturb_nothing(world: World) -> None:
    world.release("v1.1.0")
    world.tag("v1.2.0", commit="HEAD:VERSION")
    world.tag("v1.3.0", commit="v1.1.0")
    look = Look(world)
    warnings = await look()
    assert [warning.partition(":")[0] for warning in warnings] == ["v1.3.0", "v1.2.0"]
    assert look.installs == "v1.1.0"


async def test_local_changes_are_named_and_kept(world: World) -> None:
    world.release("v1.1.0")
    (world.checkout / "VERSION").write_text("mine", "utf-8")
    look = Look(world)
    (warning,) = await look()
    assert "has local changes in VERSION: commit them" in warning
    assert (world.checkout / "VERSION").read_text("utf-8") == "mine"


async def test_an_untracked_file_in_the_place_of_a_new_one_is_named_and_kept(world: World) -> None:
    world.release("v1.1.0")
    (world.checkout / "only-in-1.1.0").write_text("mine", "utf-8")
    (warning,) = await Look(world)()
    assert "untracked files in the place of new ones: only-in-1.1.0" in warning


async def test_an_unfinished_merge_is_named(world: World) -> None:
    (world.checkout / ".git" / "MERGE_HEAD").write_text(world.head(), "utf-8")
    (warning,) = await Look(world)()
    assert "is in the middle of a merge" in warning


async def test_a_remote_that_is_not_there_or_does_not_answer_is_named(world: World) -> None:
    (warning,) = await Look(world, remote="--upload-pack=evil")()
    assert "got remote '--upload-pack=evil', expected one of: origin" in warning
    shutil.move(world.remote, world.folder / "gone")
    (warning,) = await Look(world)()
    assert "git fetch" in warning


async def test_a_remote_helper_that_would_run_a_command_is_not_run(world: World) -> None:
    proof = world.folder / "proof"
    run("git", "remote", "set-url", "origin", f"ext::touch {proof}", folder=world.checkout)
    (warning,) = await Look(world)()
    assert "transport 'ext' not allowed" in warning
    assert not proof.exists()


async def test_a_git_that_hangs_is_ended_at_its_deadline(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = world.folder / "slow"
    slow.write_text("#!/bin/sh\nsleep 60\n", "utf-8")
    slow.chmod(0o755)
    run("git", "config", "remote.origin.uploadpack", str(slow), folder=world.checkout)
    (warning,) = await Look(world, deadlines=UpdateDeadlines(git_s=1.0))()
    assert "git fetch: no end within 1 s" in warning


async def test_the_operator_s_own_tags_branches_and_files_stay_as_they_are(world: World) -> None:
    before = run("git", "for-each-ref", "refs/heads", "refs/tags", "refs/remotes", folder=world.checkout)
    world.release("v1.1.0", key="stranger")
    await Look(world)()
    assert (
        run("git", "for-each-ref", "refs/heads", "refs/tags", "refs/remotes", folder=world.checkout) == before
    )


async def test_hooks_of_the_checkout_are_not_run(world: World) -> None:
    hook = world.checkout / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {world.folder}/proof\n", "utf-8")
    hook.chmod(0o755)
    commit = world.release("v1.1.0")
    checkout = await Checkout.of(world.checkout / "neuron.py", 30.0)
    await checkout.fetch("origin", branches=False)
    await checkout.switch(commit)
    assert world.head() == commit
    assert not (world.folder / "proof").exists()


async def test_without_the_launcher_the_error_says_how_to_start(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(launcher.LAUNCHER_VARIABLE)
    with pytest.raises(
        NotLaunched, match=r"start this neuron by python3 launcher\.py --state STATE_FILE -- COMMAND"
    ):
        await Look(world)()


async def test_outside_a_checkout_the_error_says_how_to_upgrade(world: World, tmp_path: Path) -> None:
    look = Look(world)
    for program in (tmp_path / "site-packages" / "targon.py", world.checkout / "environment" / "targon.py"):
        program.parent.mkdir(exist_ok=True)
        program.touch()
        with pytest.raises(NotACheckout, match="pip install --upgrade"):
            await Checkout.of(program, 30.0)
    assert look.installs == ""


async def test_this_software_is_of_its_checkout() -> None:
    checkout = await Checkout.of(Path(targon.__file__), 30.0)
    assert (checkout.root / "scripts" / "setup.sh").is_file()


async def test_two_neurons_of_one_checkout_do_not_both_update_it(world: World) -> None:
    held = launcher.hold(world.checkout / ".git" / launcher.NEURON_LOCK)
    try:
        with pytest.raises(CheckoutInUse, match="a checkout of its own"):
            await Look(world)()
    finally:
        os.close(held)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"allowed_signers": None}, "allowed_signers is missing"),
        ({"allowed_signers": Path("/nowhere")}, "/nowhere can't be read"),
        ({"channel": "nightly"}, "got 'nightly', expected one of: stable, beta"),
        ({"pin": "v1.0.0"}, "expected the whole object id"),
        ({"pin": "abc123"}, "expected the whole object id"),
    ],
)
async def test_settings_that_cannot_be_are_named_at_the_start(world: World, settings, error: str) -> None:
    with pytest.raises(BadUpdateSettings, match=error):
        await Look(world, **settings)()


async def test_a_file_of_signers_without_any_is_named_at_the_start(world: World) -> None:
    world.allowed_signers.write_text("# nobody yet\n", "utf-8")
    with pytest.raises(BadUpdateSettings, match="got no key in"):
        await Look(world)()


async def test_a_pin_may_be_a_tag_s_object_and_needs_no_signers(world: World) -> None:
    world.commit("1.1.0")
    pin = world.tag("v1.1.0", key=None)
    look = Look(world, pin=pin, allowed_signers=None)
    assert await look() == []
    assert look.installs == f"pin {pin[:12]}"
