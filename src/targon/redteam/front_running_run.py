"""A whole run of provers that run ahead: yesterday's answers, today's, replays, judgements. What is there already isn't
made again."""

from __future__ import annotations

import hashlib
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import anyio

from targon.engines import Engine, GenerateTask, ModelIdentity
from targon.protocol.messages import ChatMessage
from targon.protocol.primitives import TokenId
from targon.protocol.tiers import Tier
from targon.redteam.attacks import BASELINES, BY_NAME, Attack
from targon.redteam.bench import REFERENCE, Tell
from targon.redteam.front_running import (
    KEPT,
    WAYS,
    WORLDS,
    Foreseen,
    FrontRunner,
    SaidAgain,
    Texts,
    Way,
    World,
    free_tokens,
    kept_tasks,
    nearest_tasks,
    texts_of,
)
from targon.redteam.front_running_drawn import Wishes, drawn
from targon.redteam.front_running_report import (
    FrontRow,
    FrontRunning,
    Gain,
    LookedUp,
    Pairs,
    Said,
    make_front_row,
    make_gain,
    share_of,
)
from targon.redteam.generating import Bench
from targon.redteam.judging import DIVERGENCE, judge_replay
from targon.redteam.matrix import STREAMS
from targon.redteam.mixtures import Recorded
from targon.redteam.streams import MOST_TOKENS
from targon.verification import Calibration
from targon.verification.replays import replay_all, replays_path
from targon.verification.transcripts import Transcript, complete_file, read_transcripts
from targon.verification.workload import CHALLENGES, Mix

FAILS_AT = DIVERGENCE[Tier.CHALLENGER]
"""By what single answers fail, as audits and challenges of the most trusted do."""


CONTINUED: Final = 4
"""Answers that a front-runner gives at a time: to go on by replay is slow, and a run that is stopped keeps what is
done."""


async def run_front_running(
    bench: Bench,
    attacks: Sequence[Attack],
    calibration_of: Callable[[ModelIdentity], Calibration],
    *,
    clock: Callable[[], float],
    tell: Tell,
    streams: int = STREAMS,
    most_tokens: int = MOST_TOKENS,
    mix: Mix = CHALLENGES,
) -> FrontRunning:
    """Let provers run ahead of challenges about public passages, and of those about an oracle's.

    Args:
        attacks: the cheap models that they run for what they didn't foresee; those that aren't of the kind
            ``weights`` are left out.
        mix: how challenges' parameters are drawn.

    Raises:
        EngineError: as the engines do; what was made until then is kept.
        CalibrationError: if there is no calibration for the reference engine.
        SourceUseless: if the bench's passages are none that an oracle would give.
    """
    with tempfile.TemporaryDirectory(prefix="targon-redteam-") as folder:
        texts = await anyio.to_thread.run_sync(texts_of, bench.passages, Path(folder), mix)
    foreseen = await anyio.to_thread.run_sync(Foreseen, texts.known)
    wishes = await anyio.to_thread.run_sync(Wishes, texts.known)
    looked = (*(looked_up(world, texts, foreseen) for world in WORLDS), looked_up_drawn(texts, wishes))
    cheap = [attack for attack in attacks if attack.kind == "weights"]
    scenes = [_Scene(bench, world, dialect, texts) for dialect in WAYS for world in WORLDS]
    making = _Making(clock, tell)
    honest = BY_NAME[BASELINES["challenges"]]
    async with bench.engine(honest.engine) as engine:
        for scene in scenes:
            await making.complete(scene, "honest", engine, scene.tasks)
            await making.complete(
                scene, "kept", engine, kept_tasks(scene.foreseen_tasks(foreseen), mix.max_tokens)
            )
            if scene.world == "oracle":
                nearest = await anyio.to_thread.run_sync(nearest_tasks, scene.tasks, mix.max_tokens, foreseen)
                await making.complete(scene, "nearest-kept", engine, nearest)
                again = await anyio.to_thread.run_sync(scene.said_again, engine)
                await making.complete(scene, "nearest", again, scene.tasks)
    for attack in cheap:
        async with bench.engine(attack.engine) as engine:
            for scene in scenes:
                await making.complete(scene, attack.name, engine, scene.tasks)
                runner = await anyio.to_thread.run_sync(scene.front_runner, attack, engine)
                await making.complete(scene, f"{attack.name}-cache", runner, scene.tasks)
    async with bench.engine(REFERENCE) as reference:
        calibration = calibration_of(reference.identity)
        rows: list[FrontRow] = []
        gains: list[Gain] = []
        judged: dict[tuple[Way, World], dict[str, list[Said]]] = {}
        for done, scene in enumerate(scenes):
            tell(f"judging {scene.world} passages, {scene.dialect}", done, len(scenes))
            said = {who: await scene.judged(who, reference, calibration) for who in scene.provers(cheap)}
            some, more = await anyio.to_thread.run_sync(
                partial(_rows, scene, said, cheap, streams=streams, most=most_tokens)
            )
            rows += some
            gains += more
            judged[scene.dialect, scene.world] = said
        identity = reference.identity
    for dialect in WAYS:
        public, oracle = (judged[dialect, world] for world in WORLDS)
        gains += await anyio.to_thread.run_sync(
            partial(
                _drawn_gains, dialect, public, oracle, looked[-1], cheap, streams=streams, most=most_tokens
            )
        )
    return FrontRunning(
        model=identity.name,
        model_digest=identity.model_digest,
        calibration=calibration.digest(),
        streams=streams,
        most_tokens=most_tokens,
        kept=KEPT,
        foreseen=len(foreseen),
        wishes=len(wishes),
        looked_up=looked,
        rows=tuple(rows),
        gains=tuple(gains),
    )


def looked_up(world: World, texts: Texts, foreseen: Foreseen) -> LookedUp:
    """How many of today's challenges, one for each passage, the prover had foreseen."""
    tasks = texts.tasks(world, "targon/1", len(texts.asked[world]))
    found = sum(task.messages in foreseen for task in tasks)
    return LookedUp(
        world=world, drawn=False, challenges=len(tasks), found=found, share=share_of(found, len(tasks))
    )


def looked_up_drawn(texts: Texts, wishes: Wishes) -> LookedUp:
    """How many the prover had foreseen of what verifiers would draw about an oracle's passages, one for each."""
    said = drawn(texts.asked["oracle"])
    found = sum(turns in wishes for turns in said)
    return LookedUp(
        world="oracle", drawn=True, challenges=len(said), found=found, share=share_of(found, len(said))
    )


class _Scene:
    """Challenges of one kind, and the files of what is answered to them."""

    def __init__(self, bench: Bench, world: World, dialect: Way, texts: Texts) -> None:
        self.world: World = world
        self.dialect: Way = dialect
        self.tasks = texts.tasks(world, dialect, bench.completions)
        named = hashlib.sha256()
        for number, task in enumerate(self.tasks[:4]):
            named.update(Transcript.of(number, task, [TokenId(0)], "length").to_bytes())
        self._folder = bench.folder / f"front-running-{world}-{named.hexdigest()[:8]}"

    def path(self, who: str) -> Path:
        """Where the answers of a prover lie; other requests lie elsewhere."""
        return self._folder / f"{who}.jsonl"

    def foreseen_tasks(self, foreseen: Foreseen) -> list[GenerateTask]:
        """The challenges whose conversations the prover foresaw."""
        return [task for task in self.tasks if task.messages in foreseen]

    def provers(self, cheap: Sequence[Attack]) -> list[str]:
        """All that answer these challenges."""
        runners = [name for attack in cheap for name in (attack.name, cached(attack))]
        return ["honest", *runners, *(["nearest"] if self.world == "oracle" else [])]

    def transcripts(self, who: str) -> list[Transcript]:
        """The answers of a prover to these challenges, in their order. Reads a file."""
        found = {one.number: one for one in self._read(who) if one.number < len(self.tasks)}
        return [found[number] for number in sorted(found)]

    def front_runner(self, attack: Attack, engine: Engine) -> FrontRunner:
        """One that runs an attack's engine for what it didn't foresee, and says there what the attack said. Reads
        files."""
        today = {one.generate_task(): one for one in self.transcripts("honest")}
        return FrontRunner(Recorded(engine, self.transcripts(attack.name)), self._kept(), today)

    def said_again(self, engine: Engine) -> SaidAgain:
        """One that says what it kept of the nearest conversation. Reads a file."""
        return SaidAgain(engine, dict(zip(self.tasks, self.transcripts("nearest-kept"), strict=True)))

    def _kept(self) -> dict[tuple[ChatMessage, ...], list[Transcript]]:
        kept = defaultdict(list)
        for one in self._read("kept"):
            kept[one.messages].append(one)
        return dict(kept)

    def _read(self, who: str) -> list[Transcript]:
        path = self.path(who)
        return list(read_transcripts(path)) if path.exists() else []

    async def judged(self, who: str, reference: Engine, calibration: Calibration) -> list[Said]:
        """The answers of a prover, replayed and judged."""
        transcripts = await anyio.to_thread.run_sync(self.transcripts, who)
        replays = await replay_all(replays_path(self.path(who), reference.identity), transcripts, reference)
        free = await anyio.to_thread.run_sync(self._free, who, transcripts)
        said = []
        for transcript, replayed, kept in zip(transcripts, replays, free, strict=True):
            judged = judge_replay(transcript, replayed, reference.identity, calibration)
            said.append(Said(judged.tokens, kept, judged.failed[FAILS_AT], judged.evidence))
        return said

    def _free(self, who: str, transcripts: Sequence[Transcript]) -> list[int]:
        """Of each answer of a prover, the tokens that cost it nothing today."""
        if who == "nearest":
            return [len(one.token_ids) for one in transcripts]
        if not who.endswith(_CACHE):
            return [0] * len(transcripts)
        kept = self._kept()
        found = []
        for one, true in zip(transcripts, self.transcripts("honest"), strict=True):
            if one.messages not in kept:
                found.append(0)
            elif self.dialect == "greedy":
                found.append(len(one.token_ids))
            else:
                found.append(free_tokens(true, kept[one.messages]))
        return found


_CACHE = "-cache"


def cached(attack: Attack) -> str:
    """The name of a prover that runs an attack's model for what it didn't foresee."""
    return f"{attack.name}{_CACHE}"


class _Making:
    """Has engines answer, and says how far it is."""

    def __init__(self, clock: Callable[[], float], tell: Tell) -> None:
        self._clock = clock
        self._tell = tell

    async def complete(self, scene: _Scene, who: str, engine: Engine, tasks: Sequence[GenerateTask]) -> None:
        """Make the answers that a file lacks."""
        if not tasks:
            return
        made = 0

        def done(_: Transcript) -> None:
            nonlocal made
            made += 1
            self._tell(f"answering as {who}: {scene.world} passages, {scene.dialect}", made, len(tasks))

        together = CONTINUED if isinstance(engine, FrontRunner) else engine.identity.max_batch
        await complete_file(scene.path(who), engine, tasks, together=together, clock=self._clock, done=done)


def _rows(
    scene: _Scene,
    said: Mapping[str, Sequence[Said]],
    cheap: Sequence[Attack],
    *,
    streams: int,
    most: int,
) -> tuple[list[FrontRow], list[Gain]]:
    def true(who: str) -> bool:
        """Whether all that it says is the true model's."""
        return who == "honest" or (who != "nearest" and all(one.kept == one.tokens for one in said[who]))

    words = {
        "honest": "the true model",
        "nearest": "says what it kept of the nearest passage, whatever is asked",
    }
    for attack in cheap:
        words[attack.name] = attack.words
        words[cached(attack)] = f"what it kept, and for the rest: {attack.words}"
    rows = [
        make_front_row(
            scene.world,
            scene.dialect,
            who,
            words[who],
            answers,
            honest=who == "honest",
            true=true(who),
            streams=streams,
            most=most,
        )
        for who, answers in said.items()
    ]
    gains = [
        make_gain(
            scene.world,
            scene.dialect,
            attack.name,
            [Pairs(said[cached(attack)], said[attack.name])],
            true=true(cached(attack)),
            streams=streams,
            most=most,
        )
        for attack in cheap
    ]
    return rows, gains


def _drawn_gains(
    dialect: Way,
    public: Mapping[str, Sequence[Said]],
    oracle: Mapping[str, Sequence[Said]],
    looked: LookedUp,
    cheap: Sequence[Attack],
    *,
    streams: int,
    most: int,
) -> list[Gain]:
    """What a cache gains of an oracle's challenges that are worded as drawn: those foreseen fare as public ones do."""
    return [
        make_gain(
            "oracle",
            dialect,
            attack.name,
            [
                Pairs(public[cached(attack)], public[attack.name], looked.found),
                Pairs(oracle[cached(attack)], oracle[attack.name], looked.challenges - looked.found),
            ],
            drawn=True,
            streams=streams,
            most=most,
        )
        for attack in cheap
    ]
