"""The launcher of a neuron that updates itself: starts it, and takes back an update that failed.

    python3 launcher.py --state STATE_FILE [--] COMMAND ...

What keeps the neuron running (PM2, systemd) starts this, and a *copy* of it that lies outside the checkout: an update
that a power cut stopped half-way leaves a checkout that nothing can be started from, this file apart. So it needs the
standard library alone, and imports nothing of targon. It looks at the state file and then becomes COMMAND (exec, so
the process keeps its number):

- no update is under way: COMMAND is started;
- one was being made: it was interrupted. The checkout goes back to where it was, and is set up again;
- a new version is on trial: its start is counted, and an alarm set, which ends the process (hung or not) unless the
  version says in time that it is healthy. After too many starts, or when its time is up, it is taken back.

A version that was taken back for its own fault is not tried again. An interruption is nobody's fault, three are.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

FORMAT = 1
RESTART_STATUS = 75
"""Exit status that asks to be started again (EX_TEMPFAIL)."""
LAUNCHER_VARIABLE = "NEURON_LAUNCHER"
"""Environment variable by which a neuron knows how it was started: JSON with ``state`` and ``command``."""
MOST_INTERRUPTIONS = 3
NEURON_LOCK = "neuron.lock"
"""File in the git folder that a neuron which updates itself holds locked while it lives, and we while we go back."""
WORK_LOCK = "neuron-update.lock"
"""File in the git folder that every program of an update holds open, so that those left over can be found."""

CHANGING, TRYING, RETURNING = "changing", "trying", "returning"

GIT_SETTINGS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.fsync=all",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=false",
    "transfer.fsckObjects=true",
    "protocol.allow=never",
    "protocol.https.allow=always",
    "protocol.ssh.allow=always",
    "protocol.file.allow=always",
    "credential.interactive=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "advice.detachedHead=false",
)
"""Nothing that comes from a remote is run, nothing is asked at a terminal, nothing goes on in the background."""


@dataclass(frozen=True)
class Update:
    """An update under way: all that is needed to take it back. Written before the first file changes."""

    step: str
    """``changing``: files or packages are being replaced; ``trying``: the new version has yet to be healthy;
    ``returning``: it is being taken back."""
    tag: str
    before: str
    """Commit that was checked out."""
    after: str
    branch: str | None
    """Branch that was checked out, if one was."""
    root: str
    """Folder of the checkout."""
    git_folder: str
    set_up: tuple[str, ...]
    """Command that makes a checkout fit to be started from, run in its folder."""
    output: str
    """File for what that command says."""
    git_s: float
    set_up_s: float
    healthy_s: float
    """Seconds from its start within which a version must say that it is healthy."""
    most_starts: int
    starts: int = 0
    started_s: float | None = None
    """When it was last started, by the clock that counts from the machine's boot."""


@dataclass
class State:
    """What is remembered from one start to the next, in one small file."""

    believed: dict[str, str] = field(default_factory=dict)
    """Tags whose signature was found good, and the object that each was."""
    refused: dict[str, dict[str, str]] = field(default_factory=dict)
    """Tags that were refused: why, and on what grounds."""
    failed: dict[str, str] = field(default_factory=dict)
    """Commits that are not tried again, and why."""
    interrupted: dict[str, int] = field(default_factory=dict)
    """Commits, and how often installing them was interrupted."""
    installed: str = ""
    """Commit of the last version that was installed and found healthy."""
    update: Update | None = None


class StateDamaged(Exception):
    """The state file is not one; the message says what to do."""


class CannotReturn(Exception):
    """A failed update could not be taken back now; the message says why."""


def read_state(path: Path) -> State:
    """The state, which is empty before there is a file.

    Raises:
        StateDamaged: if the file holds something else.
    """
    try:
        data = json.loads(path.read_bytes())
        if data["format"] != FORMAT:
            raise ValueError(f"format {data['format']!r}, expected {FORMAT}")
        given = {one.name: data[one.name] for one in fields(State) if one.name in data}
        if (update := given.get("update")) is not None:
            given["update"] = _update(update)
        state = State(**given)
        for one in (state.believed, state.refused, state.failed, state.interrupted):
            if not isinstance(one, dict):
                raise TypeError(f"got {one!r}, expected an object")
    except FileNotFoundError:
        return State()
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StateDamaged(
            f"{path} is damaged ({type(error).__name__}: {error}). See that the checkout is the version that you "
            "want (git status, make setup), then remove the file"
        ) from error
    return state


def _update(data: dict[str, Any]) -> Update:
    # what a newer version wrote beside it is left alone
    known = {one.name: data[one.name] for one in fields(Update) if one.name in data}
    update = Update(**{**known, "set_up": tuple(map(str, known["set_up"]))})
    if update.step not in (CHANGING, TRYING, RETURNING):
        raise ValueError(f"step {update.step!r}, expected {CHANGING}, {TRYING} or {RETURNING}")
    return update


def write_state(path: Path, state: State) -> None:
    """Replace the file as a whole; when this returns, a power cut leaves the new one."""
    temporary = path.with_name(f"{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump({"format": FORMAT, **asdict(state)}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def git_command(*arguments: str, settings: tuple[str, ...] = ()) -> list[str]:
    options = [part for setting in (*GIT_SETTINGS, *settings) for part in ("-c", setting)]
    return ["git", *options, *arguments]


def git_environment() -> dict[str, str]:
    """The environment without what would point git elsewhere, or let it or ssh ask somebody."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return {**kept, "GIT_TERMINAL_PROMPT": "0", "SSH_ASKPASS_REQUIRE": "never", "LC_ALL": "C"}


def fault(update: Update, now_s: float) -> str | None:
    """Why a version on trial is to be taken back; None: it may be started."""
    elapsed = now_s - update.started_s if update.started_s is not None else 0.0
    if elapsed >= update.healthy_s:
        return f"it was not healthy {update.healthy_s:g} s after its start"
    if update.starts >= update.most_starts:
        return f"it ended {update.starts} times before it was healthy"
    return None


def return_needed(state: State, now_s: float) -> bool:
    """Whether the update is to be taken back; if so, notes in the state that it is, and whose fault it was."""
    update = state.update
    if update is None or update.step == RETURNING:
        return update is not None
    if update.step == TRYING:
        why = fault(update, now_s)
        if why is None:
            return False
        state.failed[update.after] = why
    else:
        times = state.interrupted.get(update.after, 0) + 1
        state.interrupted[update.after] = times
        why = f"installing it was interrupted (time {times} of {MOST_INTERRUPTIONS})"
        if times >= MOST_INTERRUPTIONS:
            state.failed[update.after] = why
    say(f"{update.tag}: {why}")
    state.update = _at(update, RETURNING)
    return True


def take_back(update: Update) -> bool:
    """Check out what was there before, and set it up; False: somebody else has checked out something since.

    Raises:
        CannotReturn: if git failed, so that nobody knows what is checked out.
    """
    hold(Path(update.git_folder) / NEURON_LOCK)
    end_leftovers(Path(update.git_folder) / WORK_LOCK)
    for name in ("index.lock", "HEAD.lock"):
        (Path(update.git_folder) / name).unlink(missing_ok=True)
    head = _git(update, "rev-parse", "--verify", "HEAD^{commit}").strip()
    if head not in (update.before, update.after):
        say(f"{update.root} is at {head[:12]}, which no update put there: it is left as it is")
        return False
    go_back = ("checkout", "--quiet", "--force", "--detach", update.before)
    try:
        _git(update, *go_back)
    except CannotReturn:
        # a power cut can tear git's index, which git makes anew from the commit
        (Path(update.git_folder) / "index").unlink(missing_ok=True)
        _git(update, *go_back)
    # files that are new in the other version; before it was checked out, nothing was in their place
    for name in _git(
        update, "diff", "-z", "--name-only", "--no-renames", "--diff-filter=A", update.before, update.after
    ).split("\0"):
        if name:
            (Path(update.root) / name).unlink(missing_ok=True)
    if update.branch is not None:
        branch = f"refs/heads/{update.branch}"
        if _git(update, "rev-parse", "--verify", f"{branch}^{{commit}}").strip() == update.before:
            _git(update, "symbolic-ref", "HEAD", branch)
    os.sync()
    return True


def set_up_again(update: Update) -> bool:
    """Run the set-up command; whether it succeeded. What it says is added to its file."""
    with Path(update.output).open("ab") as output:
        try:
            status = _run(update.set_up, update, update.set_up_s, output.fileno())
        except (OSError, subprocess.TimeoutExpired) as error:
            output.write(f"{error}\n".encode())
            return False
    os.sync()
    return status == 0


def hold(lock: Path) -> int:
    """Lock a file until this process ends or becomes another; returns its descriptor.

    Raises:
        CannotReturn: if another process holds it.
    """
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise CannotReturn(f"another process holds {lock}: stop the other neuron of this checkout") from error
    return descriptor


def end_leftovers(lock: Path) -> None:
    """Kill programs of an update whose neuron was killed: they would go on changing what is taken back."""
    try:
        wanted = lock.stat()
    except FileNotFoundError:
        return
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid() and _has_open(entry / "fd", wanted):
            # it began a session of its own, in which its own programs are
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(os.getpgid(int(entry.name)), signal.SIGKILL)
    with lock.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)


def _has_open(descriptors: Path, wanted: os.stat_result) -> bool:
    try:
        for one in descriptors.iterdir():
            with contextlib.suppress(FileNotFoundError):
                found = one.stat()
                if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
                    return True
    except (PermissionError, FileNotFoundError, ProcessLookupError):
        pass  # another user's, or it has ended
    return False


def _git(update: Update, *arguments: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - a list, without a shell
            git_command(*arguments),
            cwd=update.root,
            env=git_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=update.git_s,
            check=True,
            start_new_session=True,
        )
    except subprocess.CalledProcessError as error:
        raise CannotReturn(f"git {arguments[0]}: {error.stderr.decode(errors='replace').strip()}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotReturn(f"git {arguments[0]}: {error}") from error
    return done.stdout.decode(errors="surrogateescape")


def _run(command: tuple[str, ...], update: Update, deadline_s: float, output: int) -> int:
    """Run a program in the checkout, and end all of it at the deadline."""
    with (Path(update.git_folder) / WORK_LOCK).open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        process = subprocess.Popen(  # noqa: S603 - a list, without a shell
            command,
            cwd=update.root,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            pass_fds=(lock.fileno(),),
        )
        try:
            return process.wait(deadline_s)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _at(update: Update, step: str, **changes: object) -> Update:
    return Update(**{**asdict(update), "set_up": update.set_up, "step": step, **changes})


def launch(state_file: Path, now_s: float) -> float:
    """Bring the checkout in order; returns the seconds that COMMAND has to become healthy (0: no limit).

    Raises:
        CannotReturn: if it can't be brought in order.
    """
    state_file.parent.mkdir(parents=True, exist_ok=True)
    try:
        state = read_state(state_file)
    except StateDamaged as error:
        say(str(error))
        return 0.0
    update = state.update
    if update is None:
        return 0.0
    if return_needed(state, now_s):
        write_state(state_file, state)
        say(f"going back from {update.tag} ({update.after[:12]}) to {update.before[:12]}")
        if take_back(update) and not set_up_again(update):
            # as good as it gets now: the neuron is started, and the next start tries again
            say(f"{' '.join(update.set_up)} failed in {update.root}; {update.output} says why")
            return 0.0
        state.update = None
        write_state(state_file, state)
        return 0.0
    state.update = _at(update, TRYING, starts=update.starts + 1, started_s=now_s)
    write_state(state_file, state)
    say(f"start {update.starts + 1} of {update.most_starts} of {update.tag}, which is on trial")
    return update.healthy_s


def say(text: str) -> None:
    sys.stderr.write(f"launcher: {text}\n")
    sys.stderr.flush()


def main(arguments: list[str]) -> int:
    """Start the command; returns only if that can't be done."""
    command = arguments[3:] if arguments[2:3] == ["--"] else arguments[2:]
    if arguments[:1] != ["--state"] or not command:
        say("got other arguments, expected: --state STATE_FILE -- COMMAND ...")
        return 2
    state_file = Path(arguments[1]).expanduser().resolve()
    signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        healthy_s = launch(state_file, time.monotonic())
    except (CannotReturn, OSError) as error:
        say(f"{error}. Nothing was started; this is tried again at the next start")
        return RESTART_STATUS
    again = [sys.executable, str(Path(__file__).resolve()), "--state", str(state_file), "--", *command]
    os.environ[LAUNCHER_VARIABLE] = json.dumps({"state": str(state_file), "command": again})
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, healthy_s)
    try:
        os.execvp(command[0], command)  # noqa: S606 - what the operator asked for
    except OSError as error:
        signal.setitimer(signal.ITIMER_REAL, 0)
        say(f"{command[0]} can't be started: {error}")
        return RESTART_STATUS


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
