"""Cheats that are honest most of the time: on most requests, on those that look watched, or at the beginning.

They are made of two engines, an honest one and a cheating one. Either may itself be a wrapper, or answers that
were recorded before.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing

from targon.engines import Engine, GenerateTask, ReplayTask, Step, TaskRefused
from targon.protocol.messages import ChatMessage, FinishReason
from targon.protocol.primitives import TokenId
from targon.redteam.cheats import Wrapper
from targon.verification.transcripts import Transcript

WINDOW = 16
"""Tokens that are guessed ahead: each costs a position of a prefill, and saves a prefill where it is right."""


class Sometimes(Wrapper):
    """Cheats on a share of requests: which ones follows from their run keys.

    Args:
        share: of all requests, 0 to 1.
    """

    def __init__(self, honest: Engine, cheat: Engine, share: float) -> None:
        super().__init__(honest)
        self._cheat = cheat
        self._share = share

    def generate(self, task: GenerateTask) -> AsyncGenerator[Step, None]:
        drawn = hashlib.sha256(b"sometimes %d" % task.run_key).digest()
        cheats = int.from_bytes(drawn[:8], "big") < self._share * 2**64
        return (self._cheat if cheats else self._engine).generate(task)


class WhereUnwatched(Wrapper):
    """Answers honestly what looks like a challenge, and cheats on the rest."""

    def __init__(
        self, honest: Engine, cheat: Engine, watched: Callable[[tuple[ChatMessage, ...]], bool]
    ) -> None:
        super().__init__(honest)
        self._cheat = cheat
        self._watched = watched

    def generate(self, task: GenerateTask) -> AsyncGenerator[Step, None]:
        return (self._engine if self._watched(task.messages) else self._cheat).generate(task)


def looks_like_challenge(messages: tuple[ChatMessage, ...]) -> bool:
    """A guess from the form alone: one short turn, a passage and then a question."""
    turns = [message.content for message in messages if message.role != "system"]
    return len(turns) == 1 and turns[0].count("\n\n") == 1 and len(turns[0]) < 500


class InTheTail(Wrapper):
    """Answers honestly to the middle of the tokens that were asked for, and leaves the rest to the cheat.

    The cheat goes on by replay (:func:`continued`), so that it works for engines that can't be handed the
    beginning of an answer. Its quality is the cheat's own, its cost isn't.
    """

    def __init__(self, honest: Engine, cheat: Engine) -> None:
        super().__init__(honest)
        self._cheat = cheat

    async def generate(self, task: GenerateTask) -> AsyncGenerator[Step, None]:
        async with aclosing(self._engine.generate(task)) as steps:
            answer = [step async for step in steps]
        middle = task.sampling.max_tokens // 2
        ids, finish = [step.token_id for step in answer], answer[-1].finish_reason
        if len(ids) > middle:
            ids, finish = await continued(self._cheat, task, ids[:middle], ids[middle:])
        for step in steps_of(ids, finish):
            yield step


class Recorded(Wrapper):
    """Gives recorded answers to the requests that they were given to, and knows no others.

    Args:
        engine: asked for everything but answers.
    """

    def __init__(self, engine: Engine, transcripts: Iterable[Transcript]) -> None:
        super().__init__(engine)
        self._answers = {transcript.generate_task(): transcript for transcript in transcripts}

    async def generate(self, task: GenerateTask) -> AsyncGenerator[Step, None]:
        transcript = self._answers.get(task)
        if transcript is None:
            raise TaskRefused(
                f"recorded answers: got a request with run key {task.run_key:#x}, not among them"
            )
        for step in steps_of(transcript.token_ids, transcript.finish_reason):
            yield step


def steps_of(token_ids: Sequence[TokenId], finish: FinishReason | None) -> list[Step]:
    """Tokens as an engine gives them, without text and without log-probabilities."""
    last = len(token_ids) - 1
    return [Step(token, "", 0.0, finish if place == last else None) for place, token in enumerate(token_ids)]


async def continued(
    engine: Engine, task: GenerateTask, beginning: Sequence[TokenId], guess: Sequence[TokenId] = ()
) -> tuple[list[TokenId], FinishReason]:
    """What an engine would answer after a given beginning, found by replay alone.

    A replay says of each position which token the engine would draw there. The first one after what is
    certain is certain, too, and so are those after it for as long as the guess was right.

    Args:
        guess: what might follow the beginning; the better, the fewer replays.

    Returns:
        All token ids, the beginning included, and why the answer ends.

    Raises:
        TaskRefused: if stop strings are asked for, which aren't looked for here.
        EngineError: as the engine does.
    """
    if task.sampling.stop:
        raise TaskRefused(f"stop: got {task.sampling.stop}, expected none for an answer that is continued")
    sure, limit = list(beginning), task.sampling.max_tokens
    while True:
        room = min(limit - len(sure), max(len(guess), WINDOW))
        filled = [*guess[:room], *([TokenId(0)] * (room - len(guess)))]
        claim = (*sure, *filled)
        (replayed,) = await engine.replay([ReplayTask(task.messages, claim, task.sampling, task.run_key)])
        best = [TokenId(token) for token in replayed.replay.best_ids.tolist()]
        place = len(sure)
        while True:
            sure.append(best[place])
            if best[place] in engine.identity.eos_ids:
                return sure, "stop"
            if len(sure) == limit:
                return sure, "length"
            place += 1
            if place == len(claim) or claim[place - 1] != best[place - 1]:
                break
        guess = best[place : len(claim)][:WINDOW]
