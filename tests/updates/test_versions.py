"""Tags of releases, and their order."""

from __future__ import annotations

from itertools import pairwise

import pytest

from targon.updates import parse_tag


def test_releases_are_ordered_as_semantic_versioning_orders_them() -> None:
    """The numbers of its sections 11.2 to 11.4, as far as our tags can say them."""
    tags = [
        "v1.0.0-beta.2",
        "v1.0.0-beta.11",
        "v1.0.0-rc.1",
        "v1.0.0",
        "v2.0.0",
        "v2.1.0",
        "v2.1.1",
        "v2.10.0",
    ]
    versions = [version for tag in tags if (version := parse_tag(tag)) is not None]
    assert len(versions) == len(tags)
    assert all(older < newer for older, newer in pairwise(versions))
    assert [f"v{version}" for version in versions] == tags


@pytest.mark.parametrize(
    "tag",
    [
        "1.2.3",
        "v1.2",
        "v1.2.3.4",
        "v01.2.3",
        "v1.2.3-rc",
        "v1.2.3-rc.01",
        "v1.2.3-alpha.1",
        "v1.2.3+build",
        "v1.2.3\n",
        "v1.2.3/x",
        "v1.2.٣",
        "v9999999999.0.0",
        "vv1.2.3",
        "V1.2.3",
    ],
)
def test_what_is_not_exactly_a_release_s_tag_is_none(tag: str) -> None:
    assert parse_tag(tag) is None


def test_the_stable_channel_has_releases_alone_and_the_beta_channel_all() -> None:
    release, candidate = parse_tag("v1.0.0"), parse_tag("v1.0.0-rc.1")
    assert release is not None
    assert candidate is not None
    assert (release.is_in("stable"), candidate.is_in("stable")) == (True, False)
    assert (release.is_in("beta"), candidate.is_in("beta")) == (True, True)
