"""What exists when a role begins to serve is left out of the search for cycles, until it ends."""

import gc

from targon.cli.memory import seldom_searched


def test_what_exists_is_not_searched_until_the_block_ends() -> None:
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    with seldom_searched():
        assert gc.get_freeze_count() > frozen
        assert gc.get_threshold()[0] > before[0]
    assert (gc.get_threshold(), gc.get_freeze_count()) == (before, 0)
