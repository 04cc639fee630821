"""What is said at the end of a local network about its oracle."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from targon.localnet.oracle import Inputs, OraclePlace, Seen, look
from targon.localnet.processes import free_ports
from targon.protocol.primitives import Hotkey

pytestmark = pytest.mark.anyio

REVEALS = ("first period\n", "second period\n")
FIGURES = """# HELP targon_verifier_private_inputs_total Passages.
targon_verifier_private_inputs_created{source="oracle"} 1.7e+09
targon_verifier_private_inputs_total{source="oracle"} 41.0
targon_verifier_private_inputs_total{source="own"} 1.2e+01
"""


def kept(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.fixture
async def place() -> AsyncIterator[OraclePlace]:
    """An oracle with two periods that are over, and a verifier's figures, at one port."""

    async def reveal(request: web.Request) -> web.Response:
        number = int(request.match_info["number"])
        return web.Response(text=REVEALS[number]) if number < len(REVEALS) else web.Response(status=409)

    async def figures(request: web.Request) -> web.Response:
        return web.Response(text=FIGURES)

    app = web.Application()
    app.router.add_get("/v1/reveals/{number}", reveal)
    app.router.add_get("/metrics", figures)
    runner = web.AppRunner(app)
    await runner.setup()
    (port,) = free_ports(1)
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield OraclePlace(Hotkey("5Oracle"), port, port)
    await runner.cleanup()


async def test_reveals_are_kept_and_private_inputs_counted(place: OraclePlace, tmp_path: Path) -> None:
    assert await look(place, tmp_path) == Inputs(oracle=41, own=12)
    assert kept(tmp_path) == {"0.jsonl": REVEALS[0], "1.jsonl": REVEALS[1]}


async def test_who_does_not_answer_has_given_nothing(tmp_path: Path) -> None:
    one, other = free_ports(2)
    assert await look(OraclePlace(Hotkey("5Oracle"), one, other), tmp_path) == Inputs()
    assert kept(tmp_path) == {}


async def test_what_was_seen_is_told() -> None:
    given, light = Seen(Inputs(40, 2), 5, borrowed=7).facts()
    assert given.startswith("40 of 42 private inputs came from the oracle, whose commitments to 5 periods")
    assert "judged 7 challenges by the oracle's" in light
    assert len(Seen(Inputs(40, 2), 5).facts()) == 1


@pytest.mark.parametrize(
    ("seen", "fault"),
    [
        (Seen(Inputs(0, 9), 3), "no private input came from the oracle"),
        (Seen(Inputs(9, 0), 3, borrowed=0), "the light verifier judged nothing"),
        (Seen(Inputs(9, 0), 3, ("misdealt in block 4: another",)), "caught at misdealt in block 4: another"),
    ],
)
async def test_what_is_not_as_it_should_be_is_a_fault(seen: Seen, fault: str) -> None:
    (told,) = seen.faults()
    assert fault in told


async def test_nothing_is_wrong_with_an_oracle_that_served() -> None:
    assert Seen(Inputs(9, 1), 3, borrowed=2).faults() == []
