"""A running neuron that replaces itself by newer releases.

    look ─▶ verify ─▶ drain ─▶ checkout ─▶ set up ─▶ check ─▶ start again ─▶ healthy
                                  └─────────┴──────────┴──────────┴─▶ taken back by the launcher, at the next start

Before the first file changes, the state file says what is being replaced by what. From there on nothing here takes
anything back: whatever fails, and whatever power cut comes between, the process is started again, and the launcher
puts the old version back (see there). So there is one way back, and it needs nothing of what may be broken.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast, get_args

import anyio
import structlog
from anyio import to_thread
from anyio.abc import TaskStatus

from targon.updates import launcher
from targon.updates.decide import Refusal, Situation, Target, decide
from targon.updates.errors import (
    BadUpdateSettings,
    CannotUpdate,
    CheckoutInUse,
    GitFailed,
    NotLaunched,
    StepFailed,
    UpdateError,
    WorkTreeRefused,
)
from targon.updates.git import OBJECT_ID, Checkout
from targon.updates.launcher import State, Update, read_state, write_state
from targon.updates.programs import run_program
from targon.updates.settings import UpdateSettings
from targon.updates.signers import Signers
from targon.updates.versions import Channel

Step = Literal["drain", "record", "checkout", "set up", "check", "restart", "healthy"]

PROBE_S = 1.0
"""Between two questions whether a new version is healthy."""
PROBE_DEADLINE_S = 10.0
LONGEST_REASON = 300

logger = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Plan:
    """How this software is set up and checked: what doesn't change from one operator to the other."""

    program: Path
    """A file of the running software, by which its checkout is found."""
    set_up: tuple[str, ...]
    """Command that makes a checkout fit to be started from; run in its folder, before it is started."""
    checks: tuple[tuple[str, ...], ...]
    """Commands that fail where a version can't be started."""


class Updater:
    """Looks for releases, and installs them.

    Args:
        drain: stop taking work and return when what runs has ended; cancelled at its deadline.
        healthy: whether this process does its work now. Asked only while a new version is on trial.
        jitter: a number from 0 to 1, each time another, so that neurons don't look all at once.
        on_step: told of each step, before it begins.
    """

    def __init__(
        self,
        *,
        settings: UpdateSettings,
        plan: Plan,
        drain: Callable[[], Awaitable[None]],
        healthy: Callable[[], Awaitable[bool]],
        jitter: Callable[[], float],
        on_step: Callable[[Step], None] | None = None,
    ) -> None:
        self._settings = settings
        self._plan = plan
        self._drain = drain
        self._healthy = healthy
        self._jitter = jitter
        self._tell = on_step
        self._installing = False
        self._complaint = ""

    async def run_beside(self, role: Callable[[], Awaitable[None]]) -> bool:
        """Run a role with updates beside it, until it ends or a release was installed.

        Returns:
            Whether the process is to be started again: call :func:`restart` once everything is closed.

        Raises:
            CannotUpdate: before the role is started, if updates were asked for and can't be had.
        """
        if not self._settings.enabled and launcher.LAUNCHER_VARIABLE not in os.environ:
            await role()
            return False
        async with anyio.create_task_group() as tasks:

            async def update(*, task_status: TaskStatus[None]) -> None:
                await self.run(task_status=task_status)
                tasks.cancel_scope.cancel()

            await tasks.start(update)
            await role()
            # a role that ended because it was drained leaves the rest to us
            if not self._installing:
                tasks.cancel_scope.cancel()
        return self._installing

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Look for releases; returns once the process is to be started again.

        Raises:
            CannotUpdate: if updates can't be had here. Then ``task_status`` is never told that this has started.
        """
        settings = self._settings
        state_file = launched_with()
        if not settings.enabled:
            # a version may be on trial nevertheless: they were turned off since
            task_status.started()
            await self._settle(state_file)
            await anyio.sleep_forever()
        checkout = await Checkout.of(self._plan.program, settings.deadlines.git_s)
        signers = await self._usable(settings)
        lock = await to_thread.run_sync(_hold, checkout)
        try:
            task_status.started()
            await self._settle(state_file)
            while not await self._step(state_file, checkout, signers):
                await anyio.sleep(settings.interval_s * (0.9 + 0.2 * self._jitter()))
        finally:
            os.close(lock)

    async def _usable(self, settings: UpdateSettings) -> Signers | None:
        if settings.channel not in get_args(Channel):
            raise BadUpdateSettings(
                f"--autoupdate.channel: got {settings.channel!r}, expected one of: {', '.join(get_args(Channel))}"
            )
        if settings.pin:
            if not OBJECT_ID.fullmatch(settings.pin):
                raise BadUpdateSettings(
                    f"--autoupdate.pin: got {settings.pin!r}, expected the whole object id of a commit or tag "
                    "(git rev-parse NAME)"
                )
            return None
        if shutil.which("ssh-keygen") is None:
            raise BadUpdateSettings(
                "ssh-keygen is not there, which verifies signatures: install OpenSSH's client"
            )
        return await to_thread.run_sync(Signers.read, settings.allowed_signers)

    async def _settle(self, state_file: Path) -> None:
        """Wait until the version on trial, if one is, is healthy; if it never is, the launcher's alarm ends us."""
        try:
            state = await to_thread.run_sync(read_state, state_file)
        except launcher.StateDamaged as error:
            logger.error("no more updates", error=str(error))
            await anyio.sleep_forever()
        update = state.update
        if update is None:
            return
        if update.step != launcher.TRYING:
            logger.error(
                "no more updates until the old version is set up again: restart",
                tag=update.tag,
                set_up=" ".join(update.set_up),
                output=update.output,
            )
            await anyio.sleep_forever()
        while not await self._probe():
            await anyio.sleep(PROBE_S)
        self._on_step("healthy")
        state.update, state.installed = None, update.after
        await to_thread.run_sync(write_state, state_file, state)
        signal.setitimer(signal.ITIMER_REAL, 0)
        logger.info("updated", tag=update.tag, commit=update.after, before=update.before)

    async def _probe(self) -> bool:
        with anyio.move_on_after(PROBE_DEADLINE_S):
            return await self._healthy()
        return False

    async def _step(self, state_file: Path, checkout: Checkout, signers: Signers | None) -> bool:
        """Look once, and install what there is; whether the process is to be started again."""
        try:
            target = await self._look(state_file, checkout, signers)
            if target is not None:
                await self._install(state_file, checkout, target)
        except (UpdateError, launcher.StateDamaged, OSError) as error:
            # the same trouble at each look is said once
            if str(error) != self._complaint:
                logger.warning("no update", error=str(error))
            self._complaint = str(error)
        else:
            self._complaint = ""
        return self._installing

    async def _look(self, state_file: Path, checkout: Checkout, signers: Signers | None) -> Target | None:
        """What to install now, if anything."""
        settings = self._settings
        await checkout.refuse_changes()
        await checkout.fetch(settings.remote, branches=bool(settings.pin))
        state = await to_thread.run_sync(read_state, state_file)
        if signers is not None:
            signers = await to_thread.run_sync(Signers.read, signers.path)
        head = await checkout.head()
        own_tags = await checkout.own_tags()
        situation = Situation(
            head=head.commit,
            branch=head.branch,
            releases=await checkout.releases(),
            channel=settings.channel,
            pin=settings.pin,
            pinned_commit=await checkout.commit_of(settings.pin) if settings.pin else None,
            installed=state.installed,
            known={
                tag: frozenset({one[tag] for one in (own_tags, state.believed) if tag in one})
                for tag in own_tags.keys() | state.believed.keys()
            },
            failed=state.failed,
        )
        while (release := (decision := decide(situation)).examine) is not None:
            assert signers is not None, "a pin needs no examination"
            why = await checkout.examine(release, signers.path)
            if why is None:
                state.believed.setdefault(release.tag, release.object_id)
            situation = replace(situation, examined={**situation.examined, release.object_id: why})
        if decision.misunderstood is not None:
            raise WorkTreeRefused(f"{checkout.root}: {decision.misunderstood}")
        self._note(decision.refusals, state)
        await to_thread.run_sync(write_state, state_file, state)
        if decision.install is not None:
            await checkout.refuse_files_in_the_way(head.commit, decision.install.commit)
        return decision.install

    def _note(self, refusals: Sequence[Refusal], state: State) -> None:
        """Say each refusal once, also over restarts; those that no longer hold are forgotten."""
        noted = {}
        for refusal in refusals:
            noted[refusal.tag] = {"object": refusal.object_id, "why": refusal.why[:LONGEST_REASON]}
            if state.refused.get(refusal.tag) != noted[refusal.tag]:
                logger.warning("release refused", tag=refusal.tag, object=refusal.object_id, why=refusal.why)
        state.refused = noted

    async def _install(self, state_file: Path, checkout: Checkout, target: Target) -> None:
        """Drain, then replace what is checked out. However that ends, the process is to be started again."""
        deadlines = self._settings.deadlines
        logger.info("updating", tag=target.tag, commit=target.commit)
        self._installing = True
        self._on_step("drain")
        with anyio.move_on_after(deadlines.drain_s) as scope:
            await self._drain()
        if scope.cancelled_caught:
            logger.warning("not everything ended in time, updating nevertheless", seconds=deadlines.drain_s)
        # that took a while: look again before anything is replaced
        head = await checkout.head()
        await checkout.refuse_changes()
        await checkout.refuse_files_in_the_way(head.commit, target.commit)
        output = state_file.with_suffix(".log")
        update = Update(
            step=launcher.CHANGING,
            tag=target.tag,
            before=head.commit,
            after=target.commit,
            branch=head.branch,
            root=str(checkout.root),
            git_folder=str(checkout.git_folder),
            set_up=self._plan.set_up,
            output=str(output),
            git_s=deadlines.git_s,
            set_up_s=deadlines.set_up_s,
            healthy_s=deadlines.healthy_s,
            most_starts=self._settings.most_starts,
        )
        state = await to_thread.run_sync(read_state, state_file)
        state.update = update
        self._on_step("record")
        await to_thread.run_sync(write_state, state_file, state)
        try:
            await self._replace(checkout, target, output)
        except (GitFailed, StepFailed) as error:
            logger.error("update failed, going back", tag=target.tag, error=str(error))
            state.failed[target.commit] = str(error)[:LONGEST_REASON]
            state.update = replace(update, step=launcher.RETURNING)
        else:
            state.update = replace(update, step=launcher.TRYING)
        await to_thread.run_sync(write_state, state_file, state)
        self._on_step("restart")

    async def _replace(self, checkout: Checkout, target: Target, output: Path) -> None:
        deadlines = self._settings.deadlines
        self._on_step("checkout")
        await checkout.switch(target.commit)
        self._on_step("set up")
        await to_thread.run_sync(lambda: output.unlink(missing_ok=True))
        await self._run(self._plan.set_up, checkout, deadlines.set_up_s, output)
        self._on_step("check")
        for check in self._plan.checks:
            await self._run(check, checkout, deadlines.check_s, output)
        await to_thread.run_sync(os.sync)

    async def _run(self, command: Sequence[str], checkout: Checkout, deadline_s: float, output: Path) -> None:
        try:
            ended = await run_program(
                command,
                folder=checkout.root,
                lock=checkout.git_folder / launcher.WORK_LOCK,
                deadline_s=deadline_s,
                output=output,
            )
        except TimeoutError as error:
            raise StepFailed(f"{_named(command)}: no end within {deadline_s:g} s; see {output}") from error
        except OSError as error:
            raise StepFailed(f"{_named(command)}: {error}") from error
        if ended.status != 0:
            raise StepFailed(f"{_named(command)}: exit status {ended.status}; {output} says why")

    def _on_step(self, step: Step) -> None:
        if self._tell is not None:
            self._tell(step)


def _named(command: Sequence[str]) -> str:
    """A command without its flags: among them may be a password."""
    words = list(itertools.takewhile(lambda word: not word.startswith("--"), command))
    return " ".join(words) + (" …" if len(words) < len(command) else "")


def launched_with() -> Path:
    """The state file of the launcher that started this process.

    Raises:
        NotLaunched: if none did.
    """
    return Path(str(_launched()["state"]))


def restart(how: Literal["exec", "exit"] = "exec") -> int:
    """Start this process again, as the launcher first did; returns (with the exit status) only for ``exit``.

    Raises:
        NotLaunched: if no launcher started this process.
    """
    command = cast("list[str]", _launched()["command"])
    if how == "exec":
        os.execv(command[0], command)  # noqa: S606 - what started us
    return launcher.RESTART_STATUS


def _launched() -> dict[str, object]:
    try:
        return cast("dict[str, object]", json.loads(os.environ[launcher.LAUNCHER_VARIABLE]))
    except KeyError as error:
        raise NotLaunched(
            "automatic updates need the launcher, which takes back an update that failed: copy "
            f"{launcher.__file__} out of the checkout, and start this neuron by "
            "python3 launcher.py --state STATE_FILE -- COMMAND ... (docs/upgrade.md)"
        ) from error


def _hold(checkout: Checkout) -> int:
    try:
        return launcher.hold(checkout.git_folder / launcher.NEURON_LOCK)
    except launcher.CannotReturn as error:
        raise CheckoutInUse(
            f"another neuron updates {checkout.root}: give each neuron a checkout of its own, or let one update"
        ) from error
    except OSError as error:
        raise CannotUpdate(
            f"automatic updates write to the checkout, and can't ({error}): let this user write to {checkout.root} "
            "(and a systemd unit: ReadWritePaths=)"
        ) from error
