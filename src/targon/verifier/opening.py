"""The log's beginning and its loose ends: whose it is, what verdicts are judged by, and what a crash left open."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from targon import __version__
from targon.chain import Chain, SubnetInfo
from targon.engines import ModelIdentity
from targon.ledger import CalibrationAdopted, LogOpened, ModelEntry, StepClosed
from targon.protocol import draws
from targon.protocol.primitives import SPEC_VERSION, Hotkey, Interval
from targon.protocol.profile import Profile
from targon.verification import Calibration
from targon.verifier.delivery import inconclusive_delivery
from targon.verifier.journal import Journal

logger = structlog.get_logger(__name__)


class LogOfAnother(Exception):
    """The log was begun by another verifier, for another network or under another profile."""


async def open_log(
    journal: Journal, *, verifier: Hotkey, info: SubnetInfo, profile: Profile, identity: ModelIdentity
) -> None:
    """Begin an empty log; check that one that was begun is ours.

    Raises:
        LogOfAnother: naming what differs.
    """
    opened = journal.standings.opened
    if opened is None:
        await journal.append(
            LogOpened(
                spec_version=SPEC_VERSION,
                software=f"targon {__version__}",
                genesis=info.genesis,
                netuid=info.netuid,
                verifier=verifier,
                profile=profile,
                models=(ModelEntry(name=identity.name, model_digest=identity.model_digest),),
            )
        )
        return
    for name, got, expected in (
        ("verifier", opened.verifier, verifier),
        ("genesis", opened.genesis, info.genesis),
        ("netuid", opened.netuid, info.netuid),
        ("profile", opened.profile, profile),
    ):
        if got != expected:
            raise LogOfAnother(
                f"the log was begun with {name} {got!s}, expected {expected!s}: "
                "give this verifier another --data.path, or its old settings"
            )


def check_secret(journal: Journal, secret_of: Callable[[Interval], bytes]) -> None:
    """Check that the open interval can be closed: its secret is the one that was committed to.

    Raises:
        LogOfAnother: if it was committed to with another master secret.
    """
    standings = journal.standings
    interval = standings.interval
    if interval is not None and draws.commitment(secret_of(interval)) != standings.commitment:
        raise LogOfAnother(
            f"the log committed to interval {interval} with another secret than the one in draws.secret: restore the "
            "file draws.secret that belongs to this log into --data.path, or begin a new log"
        )


async def adopt_calibration(
    journal: Journal, chain: Chain, identity: ModelIdentity, calibration: Calibration | None
) -> None:
    """Say in the log what verdicts are judged by from here on."""
    if calibration is None:
        logger.warning("no_calibration", model=identity.name, effect="every verdict will be inconclusive")
        return
    digest = calibration.digest()
    if journal.standings.calibrations.get(identity.name) != digest:
        await journal.append(
            CalibrationAdopted(
                block=await chain.block(),
                model=identity.name,
                model_digest=identity.model_digest,
                calibration=digest,
            )
        )


async def close_open_attempts(journal: Journal, reason: str) -> None:
    """Nobody is charged for an answer that was never judged, or of which nobody knows what became of it.

    Inferences that await their audit go on: what was answered is kept.
    """
    standings = journal.standings
    verdicts = [
        inconclusive_delivery(attempt, event.dialect, reason, replied=False)
        for attempt, event in sorted(standings.open_attempts.items())
    ]
    ends = [StepClosed(block=standings.block)] if standings.step_open else []
    await journal.append(*verdicts, *ends)
