"""The oracle of a local network: where it serves, and what it and the verifier say of it at the end."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

import aiohttp
import anyio.to_thread

from targon.protocol.primitives import Hotkey

PERIOD_BLOCKS: Final = 4
"""Of its periods: so short, so that several are over, and revealed, when a short network ends."""
SPARE_PLACES: Final = 2
"""Of a verifier in each block, beyond its challenges: for inferences of its own."""
ANSWERED_WITHIN_S: Final = 10.0
_GIVEN: Final = re.compile(
    r'^targon_verifier_private_inputs_total\{source="(oracle|own)"\} ([0-9.e+]+)$', re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class OraclePlace:
    """Where the oracle serves."""

    hotkey: Hotkey
    port: int
    metrics_port: int
    """Where the first verifier shows its figures: it counts whose private inputs it used."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@dataclass(frozen=True, slots=True)
class Inputs:
    """Where the first verifier's private inputs came from."""

    oracle: int = 0
    own: int = 0


@dataclass(frozen=True, slots=True)
class Seen:
    """What verifiers saw of the oracle, at the end."""

    inputs: Inputs
    commitments: int
    caught: Sequence[str] = ()
    """What the first verifier caught it at, in words."""
    borrowed: int | None = None
    """Challenges that the light verifier judged by the oracle's engine; None: there is no light verifier."""

    def facts(self) -> list[str]:
        """What was counted, a line each."""
        given, own = self.inputs.oracle, self.inputs.own
        told = [
            f"{given} of {given + own} private inputs came from the oracle, whose commitments to {self.commitments} "
            "periods were seen."
        ]
        if self.borrowed is not None:
            told.append(f"The verifier without an engine judged {self.borrowed} challenges by the oracle's.")
        return told

    def faults(self) -> list[str]:
        """What isn't as it should be, in words."""
        faults = [f"the oracle was caught at {caught}: expected an honest one" for caught in self.caught]
        if not self.inputs.oracle:
            faults.append(
                "no private input came from the oracle, expected some: see oracle.log and verifier-1.log"
            )
        if self.borrowed == 0:
            faults.append("the light verifier judged nothing, expected challenges: see verifier-light.log")
        return faults


async def look(place: OraclePlace, reveals: Path) -> Inputs:
    """Ask, while both run, what the verifier counted; and keep what the oracle reveals, a file ``N.jsonl`` a period.

    Where either doesn't answer, there is so much less.
    """
    timeout = aiohttp.ClientTimeout(total=ANSWERED_WITHIN_S)
    async with aiohttp.ClientSession(timeout=timeout, trust_env=False) as session:
        for number in count():
            text = await _text(session, f"{place.url}/v1/reveals/{number}")
            if text is None:
                break
            await anyio.to_thread.run_sync((reveals / f"{number}.jsonl").write_text, text, "utf-8")
        figures = await _text(session, f"http://127.0.0.1:{place.metrics_port}/metrics")
    given = {source: int(float(figure)) for source, figure in _GIVEN.findall(figures or "")}
    return Inputs(given.get("oracle", 0), given.get("own", 0))


async def _text(session: aiohttp.ClientSession, url: str) -> str | None:
    """What is there; None if nothing is, or it takes too long."""
    try:
        async with session.get(url, allow_redirects=False) as answer:
            return await answer.text("utf-8") if answer.status == 200 else None
    except (aiohttp.ClientError, OSError, TimeoutError):
        return None
