"""The git checkout that this software was started from: what it is at, what its remote has, and switching it.

git is run with argument lists and deadlines, with neither hooks nor submodules, and only names that were looked up or
checked reach its command line. What the remote has is fetched into references of our own (``refs/neuron/``), so that
the operator's tags and branches stay as they are, and a tag that the remote moved is seen to be moved.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from targon.updates.decide import Release
from targon.updates.errors import GitFailed, NotACheckout, WorkTreeRefused
from targon.updates.launcher import WORK_LOCK, git_command, git_environment
from targon.updates.programs import Ended, TooMuchOutput, run_program
from targon.updates.versions import parse_tag

OBJECT_ID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_FETCHED = "refs/neuron/"
_TAGS = f"{_FETCHED}tags/"
_SIGNATURE = b"-----BEGIN SSH SIGNATURE-----\n"
_SIGNATURE_END = b"-----END SSH SIGNATURE-----\n"
_BEGINNING = b"-----BEGIN "
_OPERATIONS = {
    "MERGE_HEAD": "a merge",
    "CHERRY_PICK_HEAD": "a cherry-pick",
    "REVERT_HEAD": "a revert",
    "BISECT_LOG": "a bisection",
    "rebase-merge": "a rebase",
    "rebase-apply": "a rebase",
}
_MOST_NAMED = 10
_FIELDS = "%(refname)%00%(objecttype)%00%(objectname)%00%(*objecttype)%00%(*objectname)"


@dataclass(frozen=True)
class Head:
    """What is checked out."""

    commit: str
    branch: str | None


class Checkout:
    """A git checkout. ``git_s``: seconds that a git command may take."""

    def __init__(self, root: Path, git_folder: Path, git_s: float) -> None:
        self.root = root
        self.git_folder = git_folder
        self._git_s = git_s

    @classmethod
    async def of(cls, program: Path, git_s: float) -> Checkout:
        """The checkout that a file of the running software belongs to.

        Raises:
            NotACheckout: if it belongs to none.
        """
        outside = cls(program.parent, program.parent, git_s)
        try:
            root = await outside._line("rev-parse", "--show-toplevel", locked=False)
            folder = await outside._line("rev-parse", "--absolute-git-dir", locked=False)
            # a package that is installed somewhere below a checkout is not of it
            await outside._git("ls-files", "--error-unmatch", "--", program.name, locked=False)
        except GitFailed as error:
            raise NotACheckout(str(program), str(error)) from error
        return cls(Path(root), Path(folder), git_s)

    async def head(self) -> Head:
        commit = await self._line("rev-parse", "--verify", "HEAD^{commit}")
        named = await self._try("symbolic-ref", "--quiet", "--short", "HEAD")
        return Head(commit, named.output.decode().strip() if named.status == 0 else None)

    async def refuse_changes(self) -> None:
        """See that nothing of the operator's would be lost.

        Raises:
            WorkTreeRefused: if files were changed, or git is in the middle of something.
        """
        for name, what in _OPERATIONS.items():
            if (self.git_folder / name).exists():
                raise WorkTreeRefused(f"{self.root} is in the middle of {what}: finish it (git status)")
        status = await self._git("status", "--porcelain=v1", "-z", "--no-renames", "--untracked-files=no")
        changed = [line[3:] for line in status.split("\0") if line]
        if changed:
            raise WorkTreeRefused(
                f"{self.root} has local changes in {_listed(changed)}: commit them, put them aside (git stash) "
                "or undo them (git restore)"
            )

    async def refuse_files_in_the_way(self, before: str, after: str) -> None:
        """See that what is new in a commit takes no untracked file's place.

        Raises:
            WorkTreeRefused: if it would.
        """
        listing = await self._git(
            "diff", "-z", "--name-only", "--no-renames", "--diff-filter=A", before, after, "--"
        )
        in_the_way = [name for name in listing.split("\0") if name and (self.root / name).is_symlink()]
        in_the_way += [name for name in listing.split("\0") if name and (self.root / name).exists()]
        if in_the_way:
            raise WorkTreeRefused(
                f"{self.root} has untracked files in the place of new ones: {_listed(in_the_way)}; move them away"
            )

    async def fetch(self, remote: str, *, branches: bool) -> None:
        """Bring what the remote has now: tags of releases, and its branches if asked.

        Raises:
            GitFailed: if there is no such remote, or it does not answer.
        """
        remotes = (await self._git("remote")).splitlines()
        if remote not in remotes:
            raise GitFailed(f"got remote {remote!r}, expected one of: {', '.join(remotes) or '(none)'}")
        wanted = [f"+refs/tags/v*:{_TAGS}v*"]
        if branches:
            wanted += [f"+refs/heads/*:{_FETCHED}heads/*"]
        await self._git(
            "fetch", "--quiet", "--no-tags", "--prune", "--no-write-fetch-head", "--", remote, *wanted
        )

    async def releases(self) -> tuple[Release, ...]:
        """The releases among the tags that were fetched."""
        in_history = set(await self._references("--merged", "HEAD"))
        comes_after = set(await self._references("--contains", "HEAD"))
        listing = await self._git("for-each-ref", f"--format={_FIELDS}", _TAGS)
        releases = []
        for line in listing.splitlines():
            name, kind, object_id, peeled_kind, peeled = line.split("\0")
            tag = name.removeprefix(_TAGS)
            version = parse_tag(tag)
            if version is None:
                continue
            annotated = kind == "tag"
            points_at_commit = (peeled_kind if annotated else kind) == "commit"
            commit = (peeled if annotated else object_id) if points_at_commit else ""
            releases.append(
                Release(
                    tag=tag,
                    version=version,
                    object_id=object_id,
                    commit=commit,
                    annotated=annotated,
                    in_history=name in in_history,
                    comes_after=name in comes_after,
                )
            )
        return tuple(releases)

    async def own_tags(self) -> dict[str, str]:
        """The clone's own tags, and the object that each is."""
        listing = await self._git("for-each-ref", "--format=%(refname)%00%(objectname)", "refs/tags/v*")
        lines = (line.split("\0") for line in listing.splitlines())
        return {name.removeprefix("refs/tags/"): object_id for name, object_id in lines}

    async def commit_of(self, object_id: str) -> str | None:
        """The commit that an object is, or is the tag of; None if there is no such object here."""
        found = await self._try(
            "rev-parse", "--quiet", "--verify", "--end-of-options", f"{object_id}^{{commit}}"
        )
        return found.output.decode().strip() if found.status == 0 else None

    async def examine(self, release: Release, allowed_signers: Path) -> str | None:
        """What is wrong with a tag's signature, or with what was signed; None: nothing."""
        content = (await self._run("cat-file", "tag", release.object_id)).output
        if (why := misfit(content, release)) is not None:
            return why
        signed, marker, rest = content.partition(_SIGNATURE)
        with TemporaryDirectory(prefix="targon-release-") as folder:
            return await self._check_signature(Path(folder), signed, marker + rest, allowed_signers)

    async def _check_signature(
        self, folder: Path, signed: bytes, signature: bytes, allowed_signers: Path
    ) -> str | None:
        """What is wrong with an SSH signature; None: nothing.

        Not by ``git verify-tag``: that judges a key's validity as of the date in the tag, which its signer chooses, and
        asks whatever program the signature's kind names. Here keys are judged as of now, by ssh-keygen alone.
        """
        paths = folder / "signed", folder / "signature"
        for path, content in zip(paths, (signed, signature), strict=True):
            path.write_bytes(content)
        found = await self._ssh_keygen("find-principals", "-f", str(allowed_signers), "-s", str(paths[1]))
        principals = found.output.decode(errors="replace").splitlines()
        said = " ".join(found.errors.split())
        if found.status != 0 or not principals:
            return f"it is signed by a stranger, by no key of {allowed_signers} that is valid now: {said}"
        for principal in principals:
            named = ("-f", str(allowed_signers), "-I", principal, "-n", "git", "-s", str(paths[1]))
            checked = await self._ssh_keygen("verify", *named, input_=paths[0])
            if checked.status == 0:
                return None
            said = " ".join(checked.errors.split())
        return f"its signature is bad: {said}"

    async def _ssh_keygen(self, *arguments: str, input_: Path | None = None) -> Ended:
        try:
            return await run_program(
                ["ssh-keygen", "-Y", *arguments],
                folder=self.root,
                lock=Path("/dev/null"),
                deadline_s=self._git_s,
                environment=git_environment(),
                input_=input_,
            )
        except (OSError, TimeoutError, TooMuchOutput) as error:
            raise GitFailed(f"ssh-keygen: {error or 'no end in time'}") from error

    async def switch(self, commit: str) -> None:
        """Check out a commit, on no branch."""
        await self._git("checkout", "--quiet", "--detach", commit, "--")

    async def _references(self, *condition: str) -> list[str]:
        return (await self._git("for-each-ref", "--format=%(refname)", *condition, _TAGS)).splitlines()

    async def _line(self, *arguments: str, locked: bool = True) -> str:
        return (await self._git(*arguments, locked=locked)).strip()

    async def _git(self, *arguments: str, locked: bool = True) -> str:
        return (await self._run(*arguments, locked=locked)).output.decode(errors="surrogateescape")

    async def _run(self, *arguments: str, locked: bool = True) -> Ended:
        ended = await self._try(*arguments, locked=locked)
        if ended.status != 0:
            raise GitFailed(f"git {arguments[0]}: {ended.errors or f'exit status {ended.status}'}")
        return ended

    async def _try(self, *arguments: str, settings: tuple[str, ...] = (), locked: bool = True) -> Ended:
        """Run git, whatever its status.

        Raises:
            GitFailed: if it can't be run, or takes too long.
        """
        try:
            return await run_program(
                git_command(*arguments, settings=settings),
                folder=self.root,
                lock=self.git_folder / WORK_LOCK if locked else Path("/dev/null"),
                deadline_s=self._git_s,
                environment=git_environment(),
            )
        except TimeoutError as error:
            raise GitFailed(f"git {arguments[0]}: no end within {self._git_s:g} s") from error
        except OSError as error:
            raise GitFailed(f"git {arguments[0]}: {error}") from error
        except TooMuchOutput as error:
            raise GitFailed(f"git {arguments[0]}: its output is too long to be right") from error


def misfit(content: bytes, release: Release) -> str | None:
    """Why a tag object is not the one of its release. A good signature under another name proves nothing."""
    message, signature, _ = content.partition(_SIGNATURE)
    if not signature:
        return "it is not signed, or not by an SSH key"
    if content.count(_BEGINNING) != 1 or not content.endswith(_SIGNATURE_END):
        return "it is not signed by one SSH key alone: more than that signature stands in it"
    said = dict(_headers(message))
    expected = {"object": release.commit, "type": "commit", "tag": release.tag}
    wrong = [
        f"{name} {said.get(name)!r}, expected {value!r}"
        for name, value in expected.items()
        if said.get(name) != value
    ]
    return f"it is the tag of something else: got {'; '.join(wrong)}" if wrong else None


def _headers(content: bytes) -> Iterator[tuple[str, str]]:
    head = content.partition(b"\n\n")[0]
    for line in head.decode(errors="replace").splitlines():
        name, _, value = line.partition(" ")
        yield name, value


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(sorted(set(names))[:_MOST_NAMED]) + more
