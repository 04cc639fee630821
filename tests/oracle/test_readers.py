"""Nobody who needs no signature has all that is read aloud, however slowly it reads."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest

from targon.oracle.readers import EACH, Readers, swiftly
from targon.transport import ClientGone, Refusal


def test_an_address_has_its_share_and_leaves_the_rest_to_others() -> None:
    readers = Readers("reveals")
    with readers.one("a", most=4), readers.one("a", most=4):
        with pytest.raises(Refusal, match="too_many_concurrent"), readers.one("a", most=4):
            raise AssertionError("it was let in")
        with readers.one("b", most=4), pytest.raises(Refusal, match="overloaded"), readers.one("c", most=3):
            raise AssertionError("it was let in")
        with readers.one("c", most=4):
            pass
    assert EACH == 2
    with readers.one("a", most=1):
        pass


async def pieces() -> AsyncIterator[bytes]:
    for _ in range(20):
        yield b"x" * 100


@pytest.mark.anyio
async def test_who_reads_too_slowly_is_cut_off_after_a_while() -> None:
    async def slowly() -> None:
        async for _ in swiftly(pieces(), grace_s=0.1, least=100_000):
            await anyio.sleep(0.02)

    with pytest.raises(ClientGone):
        await slowly()
    taken = [piece async for piece in swiftly(pieces(), grace_s=0.1, least=100_000)]
    assert len(taken) == 20
