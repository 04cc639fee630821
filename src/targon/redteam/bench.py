"""A whole run: answers, replays, judgements, matrix. What is there already isn't made again."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Final, TypeAlias

import anyio

from targon.engines import Engine, ModelIdentity, ReplayTask
from targon.protocol.conviction import CONVICTION
from targon.redteam.attacks import BASELINES, BY_NAME, Attack, EngineSpec
from targon.redteam.forgeries import exchange, make_keys
from targon.redteam.generating import Bench, generate_all, read_repairs
from targon.redteam.judging import DIVERGENCE, EVIDENCE, EXACT, STRUCTURE, SURPRISAL, Judged, judge_answers
from targon.redteam.matrix import STREAMS, Matrix, Row, make_row, usual_surprisals
from targon.redteam.streams import MOST_TOKENS
from targon.verification import Calibration, check_structure
from targon.verification.replays import replay_all, replays_path
from targon.verification.transcripts import Transcript, read_transcripts

REFERENCE: Final = EngineSpec("float32")

Tell: TypeAlias = Callable[[str, int, int], None]
"""What is being done, how much of it is, and how much there is."""


async def run_bench(
    bench: Bench,
    attacks: Sequence[Attack],
    calibration_of: Callable[[ModelIdentity], Calibration],
    *,
    clock: Callable[[], float],
    tell: Tell,
    honest_files: Sequence[Path] = (),
    streams: int = STREAMS,
    most_tokens: int = MOST_TOKENS,
) -> Matrix:
    """Run attacks against all methods.

    Args:
        attacks: with all that they need (:func:`targon.redteam.attacks.with_needs`).
        calibration_of: the calibration for a reference engine.
        honest_files: transcripts of further honest engines; each gets a row.

    Raises:
        EngineError: as the engines do; what was made until then is kept.
        CalibrationError: if there is no calibration for the reference engine.
    """
    tell("measuring what verdicts cost", 0, 1)
    async with bench.engine(REFERENCE) as reference:
        calibration = calibration_of(reference.identity)
        costs = await measure_costs(bench, reference, clock)
    await generate_missing(bench, attacks, clock, tell)
    async with bench.engine(REFERENCE) as reference:
        judging = _Judging(bench, reference, calibration, tell, len(attacks) + len(honest_files))
        judged = {attack.name: await judging.attack(attack) for attack in attacks if attack.mixed is None}
        extra = {path: await judging.file(path) for path in honest_files}
    from_files = [Attack(path.stem, "honest", "from a file", workload="") for path in extra]
    judged |= dict(zip((attack.name for attack in from_files), extra.values(), strict=True))
    usual = {
        workload: usual_surprisals(judged[name]) for workload, name in BASELINES.items() if name in judged
    }
    rows: list[Row] = []
    for attack in (*attacks, *from_files):
        tell("drawing streams", len(rows), len(attacks) + len(from_files))
        rows.append(await anyio.to_thread.run_sync(_row, bench, attack, judged, usual, streams, most_tokens))
    identity = reference.identity
    return Matrix(
        model=identity.name,
        model_digest=identity.model_digest,
        reference=f"{identity.engine}, {identity.dtype}",
        calibration=calibration.digest(),
        streams=streams,
        most_tokens=most_tokens,
        conviction=math.log(CONVICTION),
        costs=costs,
        rows=tuple(rows),
    )


async def generate_missing(
    bench: Bench, attacks: Sequence[Attack], clock: Callable[[], float], tell: Tell
) -> None:
    """Make the answers that attacks lack.

    Raises:
        EngineError: as the engines do; what was made until then is kept.
    """
    missing = await anyio.to_thread.run_sync(lambda: sum(bench.missing(attack) for attack in attacks))
    made = 0

    def done(attack: Attack, _: Transcript) -> None:
        nonlocal made
        made += 1
        tell(f"answering as {attack.name}", made, missing)

    if missing:
        tell("starting engines", 0, missing)
        await generate_all(bench, attacks, clock=clock, done=done)


class _Judging:
    """Replays answers and judges them, and says how far it is."""

    def __init__(
        self, bench: Bench, reference: Engine, calibration: Calibration, tell: Tell, total: int
    ) -> None:
        self._bench = bench
        self._reference = reference
        self._calibration = calibration
        self._tell = tell
        self._total = total
        self._done = 0
        self._keys = make_keys()

    async def attack(self, attack: Attack) -> list[Judged]:
        """The answers of an attack; those of a forgery are honest ones, forged."""
        source = attack if attack.generates else BY_NAME[BASELINES[attack.workload]]
        transcripts = await anyio.to_thread.run_sync(self._bench.transcripts, source)
        return await self._judge(attack.name, attack, self._bench.path(source), transcripts)

    async def file(self, path: Path) -> list[Judged]:
        """The answers in a file."""
        transcripts = await anyio.to_thread.run_sync(lambda: list(read_transcripts(path)))
        return await self._judge(path.stem, None, path, transcripts)

    async def _judge(
        self, name: str, attack: Attack | None, path: Path, transcripts: Sequence[Transcript]
    ) -> list[Judged]:
        self._tell(f"replaying {name}", self._done, self._total)
        replays = await replay_all(replays_path(path, self._reference.identity), transcripts, self._reference)
        self._done += 1
        forge = attack.forge if attack is not None else None
        return await judge_answers(
            transcripts, replays, self._reference, self._calibration, self._keys, forge
        )


def _row(
    bench: Bench,
    attack: Attack,
    judged: Mapping[str, Sequence[Judged]],
    usual: Mapping[str, Mapping[float, tuple[float, float]]],
    streams: int,
    most_tokens: int,
) -> Row:
    range_of = usual.get(attack.workload, {})
    repairs = read_repairs(bench.path(attack)) if attack.kind == "adaptive" else None
    if attack.mixed is None:
        own = judged[attack.name]
        return make_row(attack, own, usual=range_of, streams=streams, most=most_tokens, repairs=repairs)
    cheat, share = attack.mixed
    return make_row(
        attack,
        judged[cheat],
        beside=judged[BASELINES[attack.workload]],
        share=share,
        usual=range_of,
        streams=streams,
        most=most_tokens,
    )


_TIMED = 4


async def measure_costs(bench: Bench, reference: Engine, clock: Callable[[], float]) -> dict[str, float]:
    """By method, what a verdict costs, as a share of generating the same tokens on the same engine, one at a time.

    Raises:
        EngineError: as the reference does.
    """
    tasks = bench.tasks(BY_NAME[BASELINES["challenges"]])[: _TIMED + 1]
    keys = make_keys()
    generating = replaying = checking = 0.0
    for number, task in enumerate(tasks):
        began = clock()
        async with aclosing(reference.generate(task)) as steps:
            answer = [step async for step in steps]
        generated = clock()
        ids = tuple(step.token_id for step in answer)
        await reference.replay([ReplayTask(task.messages, ids, task.sampling, task.run_key)])
        replayed = clock()
        finish = answer[-1].finish_reason
        assert finish is not None  # the engine port promises it of the last step
        sent = await exchange(Transcript.of(number, task, ids, finish), reference, keys)
        signed = clock()
        await check_structure(sent.request, sent.response, reference)
        if number:  # the first is for warming up
            generating += generated - began
            replaying += replayed - generated
            checking += clock() - signed
    structure, replay = checking / generating, replaying / generating
    by_replay = dict.fromkeys((EXACT, *DIVERGENCE.values(), SURPRISAL, EVIDENCE), round(replay, 5))
    return {STRUCTURE: round(structure, 6), **by_replay}
