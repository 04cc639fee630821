"""Recorded answers with the verifier's verdicts on them: what a prover that serves users alone is drawn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from targon.engines import Engine, Replayed, ReplayTask
from targon.protocol.messages import ChatMessage
from targon.protocol.primitives import TokenId
from targon.protocol.tiers import TIERS, Tier
from targon.protocol.verdicts import Outcome
from targon.redteam.cheats import Wrapper
from targon.redteam.forgeries import Forge, Keys, exchange
from targon.verification import Bets, Calibration, Judgement, Observations, bets_of, judge
from targon.verification.transcripts import Transcript


@dataclass(frozen=True, slots=True)
class Served:
    """One answer to a user, and what a verifier makes of it."""

    source: str
    """Whose answer it is."""
    number: int
    """Its place among the requests: equal numbers of two attacks were asked the same."""
    tokens: int
    asked: int
    """``max_tokens`` of its request."""
    broken: bool
    """Whether its form is wrong: that shows without an audit, before the user has it."""
    outcomes: Mapping[Tier, Outcome]
    """Of an audit, by the prover's tier."""
    evidence: tuple[Observations, Bets] | None
    counted: bool
    """Whether a calibration covers the request: else the work counts for nothing."""
    true: bool = False
    """Whether it is an honest engine's. Then evidence takes it once in a life: what it has by chance would come back
    each time that it is drawn, as no honest prover's answers do."""


class RecordedReference(Wrapper):
    """A reference engine whose replays are on file. What else it is asked, it is asked once.

    A replay is found by conversation and tokens: the request that is made of a transcript has a run key of its own.
    """

    def __init__(self, engine: Engine, replays: Mapping[tuple[object, ...], Replayed]) -> None:
        super().__init__(engine)
        self._replays = replays
        self._texts: dict[tuple[object, ...], str] = {}
        self._prompts: dict[tuple[ChatMessage, ...], tuple[TokenId, ...]] = {}

    @classmethod
    def of(
        cls, engine: Engine, transcripts: Sequence[Transcript], replays: Sequence[Replayed]
    ) -> RecordedReference:
        """One that knows these answers."""
        pairs = zip(transcripts, replays, strict=True)
        return cls(engine, {(one.messages, one.token_ids): replayed for one, replayed in pairs})

    async def replay(self, tasks: Sequence[ReplayTask]) -> list[Replayed]:
        return [self._replays[task.messages, task.token_ids] for task in tasks]

    async def text(self, token_ids: Sequence[TokenId], stop: Sequence[str]) -> str:
        key = (tuple(token_ids), tuple(stop))
        if key not in self._texts:
            self._texts[key] = await super().text(token_ids, stop)
        return self._texts[key]

    async def prompt_token_ids(self, messages: Sequence[ChatMessage]) -> tuple[TokenId, ...]:
        key = tuple(messages)
        if key not in self._prompts:
            self._prompts[key] = await super().prompt_token_ids(messages)
        return self._prompts[key]

    async def check(self) -> None:
        """It works: it was asked when the replays were made."""


async def judge_served(
    transcripts: Sequence[Transcript],
    replays: Sequence[Replayed],
    reference: Engine,
    calibration: Calibration,
    keys: Keys,
    forge: Forge | None = None,
    *,
    source: str = "",
    true: bool = False,
) -> list[Served]:
    """Judge answers as an audit does (:func:`targon.verification.judge`), at every tier.

    Args:
        replays: what the reference says of each.
        reference: for its vocabulary and tokenizer.
        forge: what is done to each signed answer on its way; None: nothing.
        source: whose answers they are.
        true: whether they are an honest engine's.

    Raises:
        EngineError: as the reference does.
    """
    recorded = RecordedReference.of(reference, transcripts, replays)
    judged = [await _judge_one(one, recorded, calibration, keys, forge) for one in transcripts]
    return [replace(one, source=source, true=true) for one in judged]


async def _judge_one(
    transcript: Transcript, reference: Engine, calibration: Calibration, keys: Keys, forge: Forge | None
) -> Served:
    honest = await exchange(transcript, reference, keys)
    response = honest.response if forge is None else forge(honest, keys)

    async def at(tier: Tier) -> Judgement:
        threshold = TIERS[tier].similarity_threshold
        return await judge(
            honest.request, response, reference, calibration=calibration, similarity_threshold=threshold
        )

    lowest, highest = await at(Tier.BRONZE), await at(Tier.CHALLENGER)
    outcome = lowest.verdict.outcome
    if outcome == highest.verdict.outcome:  # what passes the highest threshold passes the others
        outcomes: dict[Tier, Outcome] = dict.fromkeys(Tier, outcome)
    else:
        outcomes = {tier: (await at(tier)).verdict.outcome for tier in Tier}
    observed, band = lowest.observations, lowest.band
    return Served(
        source="",
        number=transcript.number,
        tokens=len(transcript.token_ids),
        asked=transcript.sampling.max_tokens,
        broken=lowest.verdict.method == "structure",
        outcomes=outcomes,
        evidence=None if observed is None or band is None else (observed, bets_of(band)),
        counted=outcome != "inconclusive",
    )
