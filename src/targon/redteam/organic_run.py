"""A whole run over organic traffic: answers and replays as the matrix has them, then lives. What is there already isn't
made again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import anyio

from targon.engines import ModelIdentity
from targon.protocol.profile import STANDARD, Profile
from targon.redteam.attacks import BASELINES, BY_NAME, Attack
from targon.redteam.bench import REFERENCE, Tell, generate_missing
from targon.redteam.career import AUDIT_S
from targon.redteam.forgeries import make_keys
from targon.redteam.generating import Bench
from targon.redteam.organic import LOADS, MOST, OrganicBench, cheats_of
from targon.redteam.organic_answers import Served, judge_served
from targon.redteam.organic_report import Organic
from targon.verification import Calibration
from targon.verification.replays import replay_all, replays_path
from targon.verification.transcripts import Transcript, read_transcripts

ORGANIC_STREAMS = 40


async def run_organic(
    bench: Bench,
    attacks: Sequence[Attack],
    calibration_of: Callable[[ModelIdentity], Calibration],
    *,
    clock: Callable[[], float],
    tell: Tell,
    honest_files: Sequence[Path] = (),
    streams: int = ORGANIC_STREAMS,
    most: int = MOST,
    loads: Sequence[float] = LOADS,
    profile: Profile = STANDARD,
) -> Organic:
    """Let attacks serve users alone, under the audits of the protocol.

    Args:
        attacks: with all that they need (:func:`targon.redteam.attacks.with_needs`).
        calibration_of: the calibration for a reference engine.
        honest_files: transcripts of further honest engines: what provers answer before they cheat.
        most: requests after which a stream ends.

    Raises:
        EngineError: as the engines do; what was made until then is kept.
        CalibrationError: if there is no calibration for the reference engine.
    """
    await generate_missing(bench, attacks, clock, tell)
    alone = [attack for attack in attacks if attack.mixed is None]
    async with bench.engine(REFERENCE) as reference:
        calibration, keys = calibration_of(reference.identity), make_keys()

        async def served_of(
            path: Path, read: Callable[[], list[Transcript]], attack: Attack | None
        ) -> list[Served]:
            transcripts = await anyio.to_thread.run_sync(read)
            replays = await replay_all(replays_path(path, reference.identity), transcripts, reference)
            return await judge_served(
                transcripts,
                replays,
                reference,
                calibration,
                keys,
                None if attack is None else attack.forge,
                source=str(path),
                true=attack is None or attack.true,
            )

        served: dict[str, list[Served]] = {}
        for done, attack in enumerate(alone):
            tell(f"judging {attack.name}", done, len(alone))
            source = attack if attack.generates else BY_NAME[BASELINES[attack.workload]]
            served[attack.name] = await served_of(
                bench.path(source), partial(bench.transcripts, source), attack
            )
        usual = served[BASELINES["challenges"]]
        honest = list(usual)
        for path in honest_files:
            tell(f"judging {path.stem}", len(alone), len(alone))
            honest += await served_of(path, partial(_read, path), None)
        identity = reference.identity
    cheats = cheats_of(attacks, served)
    lives = await anyio.to_thread.run_sync(
        partial(OrganicBench, honest, usual, streams=streams, profile=profile, loads=loads, most=most)
    )
    rows = []
    for done, cheat in enumerate(cheats):
        tell(f"serving users as {cheat.name}", done, len(cheats))
        rows.append(await anyio.to_thread.run_sync(lives.row, cheat))
    return Organic(
        model=identity.name,
        model_digest=identity.model_digest,
        calibration=calibration.digest(),
        streams=streams,
        audit_s=AUDIT_S,
        minutes=lives.minutes,
        honest_score=lives.honest_score,
        rows=tuple(rows),
    )


def _read(path: Path) -> list[Transcript]:
    return list(read_transcripts(path))
