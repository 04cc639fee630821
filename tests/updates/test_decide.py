"""Which release is installed, decided from what was seen."""

from __future__ import annotations

from dataclasses import replace

import pytest

from targon.updates import Decision, Refusal, Release, Situation, Target, decide, parse_tag

HEAD = "c0"


def release(tag: str, **changes: object) -> Release:
    version = parse_tag(tag)
    assert version is not None
    return replace(
        Release(
            tag=tag,
            version=version,
            object_id=f"tag of {tag}",
            commit=f"commit of {tag}",
            annotated=True,
            in_history=False,
            comes_after=True,
        ),
        **changes,
    )


def past(tag: str, **changes: object) -> Release:
    return release(tag, **{"in_history": True, "comes_after": False, **changes})


def situation(*releases: Release, **changes: object) -> Situation:
    """All signatures were examined and found good, unless a test says otherwise."""
    examined = {one.object_id: None for one in releases}
    return replace(Situation(head=HEAD, branch="main", releases=releases, examined=examined), **changes)


def why(decision: Decision) -> str:
    (refusal,) = decision.refusals
    return refusal.why


def test_the_newest_release_is_installed() -> None:
    decision = decide(situation(past("v1.0.0"), release("v1.9.0"), release("v1.10.0"), release("v1.2.0")))
    assert decision == Decision(install=Target("v1.10.0", "commit of v1.10.0"))


def test_without_a_newer_release_there_is_nothing_to_do() -> None:
    assert decide(situation(past("v1.0.0"))) == Decision()


@pytest.mark.parametrize(
    ("channel", "tags", "chosen"),
    [
        ("stable", ["v1.1.0-rc.1"], None),
        ("beta", ["v1.1.0-rc.1"], "v1.1.0-rc.1"),
        ("beta", ["v1.1.0-rc.1", "v1.1.0-beta.7"], "v1.1.0-rc.1"),
        ("beta", ["v1.1.0-rc.1", "v1.1.0"], "v1.1.0"),
        ("stable", ["v1.1.0", "v1.2.0-beta.1"], "v1.1.0"),
    ],
)
def test_a_channel_has_its_own_newest_release(channel: str, tags: list[str], chosen: str | None) -> None:
    install = decide(situation(past("v1.0.0"), *map(release, tags), channel=channel)).install
    assert (install and install.tag) == chosen


def test_nothing_older_than_what_is_checked_out_is_installed_though_its_commit_comes_after() -> None:
    assert decide(situation(past("v1.1.0"), release("v1.0.9"))) == Decision()


def test_an_unsigned_tag_in_the_history_holds_nobody_back() -> None:
    junk = past("v99.0.0")
    decision = decide(
        situation(
            junk,
            past("v1.0.0"),
            release("v1.1.0"),
            examined={
                junk.object_id: "it is not signed",
                "tag of v1.0.0": None,
                "tag of v1.1.0": None,
            },
        )
    )
    assert decision.install == Target("v1.1.0", "commit of v1.1.0")


def test_signatures_are_examined_before_anything_is_decided_on_them() -> None:
    releases = (past("v1.0.0"), release("v1.1.0"))
    world = situation(*releases, examined={})
    assert decide(world).examine == releases[0]
    assert decide(replace(world, examined={"tag of v1.0.0": None})).examine == releases[1]


def test_where_the_newest_is_refused_the_next_one_is_installed() -> None:
    decision = decide(
        situation(
            release("v1.1.0"), release("v1.2.0"), examined={"tag of v1.1.0": None, "tag of v1.2.0": "bad"}
        )
    )
    assert decision == Decision(
        install=Target("v1.1.0", "commit of v1.1.0"), refusals=(Refusal("v1.2.0", "tag of v1.2.0", "bad"),)
    )


def test_a_lightweight_tag_is_not_signed() -> None:
    assert (
        why(decide(situation(release("v1.1.0", annotated=False))))
        == "it is not signed: it is a lightweight tag"
    )


def test_a_tag_of_something_else_than_a_commit_is_refused() -> None:
    assert why(decide(situation(release("v1.1.0", commit="")))) == "it is not the tag of a commit"


def test_a_moved_tag_is_refused_and_one_that_is_where_it_was_is_not() -> None:
    moved = situation(release("v1.1.0"), known={"v1.1.0": frozenset({"another"})})
    assert "it was moved" in why(decide(moved))
    same = situation(release("v1.1.0"), known={"v1.1.0": frozenset({"tag of v1.1.0"})})
    assert decide(same).install is not None


def test_a_release_that_does_not_come_after_what_is_checked_out_is_refused() -> None:
    assert "does not come after" in why(decide(situation(release("v1.1.0", comes_after=False))))


def test_a_release_that_was_taken_back_is_not_tried_again() -> None:
    decision = decide(situation(release("v1.1.0"), failed={"commit of v1.1.0": "it crashed"}))
    assert why(decision) == "it was installed and taken back: it crashed"


def test_a_pin_is_installed_whatever_is_released_signed_or_newer() -> None:
    world = situation(release("v2.0.0"), pin="c9", pinned_commit="c9")
    assert decide(world).install == Target("pin c9", "c9")
    assert decide(replace(world, head="c9")) == Decision()


def test_a_pin_that_the_remote_has_not_or_that_failed_is_refused() -> None:
    assert "no commit or tag" in why(decide(situation(pin="c9")))
    assert "taken back" in why(decide(situation(pin="c9", pinned_commit="c9", failed={"c9": "it hung"})))


def test_a_detached_head_is_understood_if_it_is_a_release_or_was_installed() -> None:
    lost = situation(release("v1.1.0"), branch=None)
    assert "HEAD is detached at c0" in (decide(lost).misunderstood or "")
    assert decide(replace(lost, installed=HEAD)).install is not None
    at_release = situation(past("v1.0.0", commit=HEAD), release("v1.1.0"), branch=None)
    assert decide(at_release).install is not None
