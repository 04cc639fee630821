"""Which release to install, if any. Decided from what was seen, without any I/O.

1. With a pin there is one candidate: the commit that it names. Neither signature nor order matters; the object id
   is the content.
2. Otherwise candidates are the channel's releases that are newer than what is checked out: newer than the newest
   release in its history whose signature is good. (An unsigned tag there must not hold anybody back.)
3. The newest candidate without an objection is installed. Objections: its tag is no annotated tag of a commit; its tag
   was another object when it was believed, or in this clone; its commit does not come after what is checked out;
   it was taken back before; and what the examination of its signature found.
4. What is checked out must be understood: a branch, or exactly a release, the pin, or what was installed before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from targon.updates.versions import Channel, Version


@dataclass(frozen=True)
class Release:
    """A release's tag, as the remote has it."""

    tag: str
    version: Version
    object_id: str
    """Of the tag itself; of what it points at, where it is no annotated tag."""
    commit: str
    """What it points at; empty if that is no commit."""
    annotated: bool
    in_history: bool
    """What is checked out is this commit, or comes after it."""
    comes_after: bool
    """This commit comes after what is checked out."""


@dataclass(frozen=True)
class Target:
    """What to install."""

    tag: str
    commit: str


@dataclass(frozen=True)
class Refusal:
    """A tag that is not installed although it is newer, and why."""

    tag: str
    object_id: str
    why: str


@dataclass(frozen=True)
class Situation:
    """All that a decision is made from."""

    head: str
    """Commit that is checked out."""
    branch: str | None
    """Branch that is checked out, if one is."""
    releases: tuple[Release, ...]
    channel: Channel = "stable"
    pin: str = ""
    pinned_commit: str | None = None
    """Commit that the pin names, if the remote has it."""
    installed: str = ""
    """Commit that was installed last."""
    known: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Objects that tags were before: where they were believed, or in this clone."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """Commits that were taken back, and why."""
    examined: Mapping[str, str | None] = field(default_factory=dict)
    """Tag objects whose signature was examined, and what was wrong with it; None: nothing."""


@dataclass(frozen=True)
class Decision:
    """What to do: examine a release and decide again, or install something, or (neither) stay."""

    examine: Release | None = None
    install: Target | None = None
    refusals: tuple[Refusal, ...] = ()
    misunderstood: str | None = None
    """Why the checkout is left alone, whatever there is."""


def decide(situation: Situation) -> Decision:
    """What to do now."""
    if (why := _misunderstood(situation)) is not None:
        return Decision(misunderstood=why)
    if situation.pin:
        return _decide_pinned(situation)
    floor: Version | None = None
    for release in _newest_first(situation, in_history=True):
        if not release.annotated:
            continue
        if release.object_id not in situation.examined:
            return Decision(examine=release)
        if situation.examined[release.object_id] is None:
            floor = release.version
            break
    refusals: list[Refusal] = []
    for release in _newest_first(situation, in_history=False):
        if not release.version.is_in(situation.channel) or (floor is not None and release.version <= floor):
            continue
        why = _objection(release, situation)
        if why is None and release.object_id not in situation.examined:
            return Decision(examine=release, refusals=tuple(refusals))
        why = why or situation.examined[release.object_id]
        if why is None:
            return Decision(install=Target(release.tag, release.commit), refusals=tuple(refusals))
        refusals.append(Refusal(release.tag, release.object_id, why))
    return Decision(refusals=tuple(refusals))


def _decide_pinned(situation: Situation) -> Decision:
    pin, commit = situation.pin, situation.pinned_commit
    name = f"pin {pin[:12]}"
    if commit is None:
        return Decision(refusals=(Refusal(name, pin, "the remote has no commit or tag of this object id"),))
    if commit == situation.head:
        return Decision()
    if commit in situation.failed:
        return Decision(refusals=(Refusal(name, pin, _taken_back(situation.failed[commit])),))
    return Decision(install=Target(name, commit))


def _newest_first(situation: Situation, *, in_history: bool) -> Iterator[Release]:
    found = [one for one in situation.releases if one.in_history == in_history]
    yield from sorted(found, key=lambda one: one.version, reverse=True)


def _objection(release: Release, situation: Situation) -> str | None:
    """What keeps a release from being installed, whoever signed it."""
    if not release.annotated:
        return "it is not signed: it is a lightweight tag"
    if not release.commit:
        return "it is not the tag of a commit"
    before = situation.known.get(release.tag, frozenset()) - {release.object_id}
    if before:
        return f"it was moved: got {release.object_id[:12]}, before it was {min(before)[:12]}"
    if not release.comes_after:
        return f"its commit {release.commit[:12]} does not come after {situation.head[:12]}, which is checked out"
    if release.commit in situation.failed:
        return _taken_back(situation.failed[release.commit])
    return None


def _taken_back(why: str) -> str:
    return f"it was installed and taken back: {why}"


def _misunderstood(situation: Situation) -> str | None:
    if situation.branch is not None:
        return None
    understood = {one.commit for one in situation.releases} | {situation.installed, situation.pinned_commit}
    if situation.head in understood:
        return None
    return (
        f"HEAD is detached at {situation.head[:12]}, expected a branch or a release: "
        "check out either (git checkout main)"
    )
