"""The reference engine of the measured verifier: it finds every answer to be what it would have said, at once.

What a reference costs isn't measured here (``engine`` and ``divergence`` do); it runs beside, on a socket as
``targon engine`` does: ``python -m benchmarks.gateway.reference --folder DIR --socket PATH``.
"""

from __future__ import annotations

import argparse
import signal
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import anyio
import numpy as np

from benchmarks.gateway.answer import NAME, make_folder, tokens_of
from targon.engines import (
    GenerateTask,
    ModelIdentity,
    Replayed,
    ReplayTask,
    Scores,
    ScoreTask,
    Step,
    TaskRefused,
    serve_engine,
)
from targon.engines.remote.folder import ModelFolder
from targon.protocol.messages import ChatMessage
from targon.protocol.primitives import TokenId
from targon.protocol.replay import MARGIN_CLIP, Replay
from targon.protocol.suspicions import NO_RIVALS
from targon.protocol.text import answer_text


class InstantReference:
    """The engine port: generates the one answer, and agrees with every other."""

    def __init__(self, model: ModelFolder) -> None:
        self._model = model
        self._tokens = tokens_of(model)

    @property
    def identity(self) -> ModelIdentity:
        model = self._model
        return ModelIdentity(
            name=NAME,
            model_digest=model.digest,
            dtype="float32",
            engine="instant 1",
            vocab_size=model.vocab_size,
            context_length=model.context_length,
            eos_ids=model.eos_ids,
            dialects=("targon/1", "greedy"),
            max_batch=16,
        )

    async def generate(self, task: GenerateTask) -> AsyncGenerator[Step, None]:
        count = min(task.sampling.max_tokens, len(self._tokens))
        for place, (token_id, text) in enumerate(self._tokens[:count]):
            yield Step(TokenId(token_id), text, -0.25, "length" if place == count - 1 else None)

    async def score(self, tasks: Sequence[ScoreTask]) -> list[Scores]:  # noqa: ARG002
        raise TaskRefused("the instant reference scores nothing: it replays")

    async def replay(self, tasks: Sequence[ReplayTask]) -> list[Replayed]:
        return [_agreed(task) for task in tasks]

    async def prompt_token_ids(self, messages: Sequence[ChatMessage]) -> tuple[TokenId, ...]:
        return self._model.prompt(messages).token_ids

    async def tokenizer_json(self) -> str:
        return self._model.chat.as_json()

    async def text(self, token_ids: Sequence[TokenId], stop: Sequence[str]) -> str:
        return answer_text(token_ids, self._model.chat.decode, eos_ids=self._model.eos_ids, stop=stop)

    async def check(self) -> None:
        pass

    async def aclose(self) -> None:
        pass


def _agreed(task: ReplayTask) -> Replayed:
    """A replay in which each claimed token is the one that the sampler draws, by far."""
    claimed = np.array(task.token_ids, np.int64)
    none = np.zeros(claimed.size, np.bool_)
    replay = Replay(
        best_ids=claimed,
        gaps=np.full(claimed.size, MARGIN_CLIP),
        margins=np.zeros(claimed.size),
        among=~none,
        unsure=none,
        on_cut=none,
        tail_mass=np.zeros(claimed.size),
        in_tail=none,
        rivals=np.full(claimed.size, NO_RIVALS, np.uint32),
        claimed_rivals=np.zeros(claimed.size, np.uint8),
    )
    return Replayed(
        replay,
        claimed_logprobs=np.full(claimed.size, -0.25, np.float32),
        claimed_ranks=np.zeros(claimed.size, np.int32),
        prompt_tokens=1,
    )


async def _serve(folder: Path, socket: Path) -> None:
    model = await anyio.to_thread.run_sync(make_folder, folder)
    async with serve_engine(InstantReference(model), socket):
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for _ in signals:
                return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--folder", type=Path, required=True, help="the model's folder; made if it isn't there"
    )
    parser.add_argument("--socket", type=Path, required=True)
    arguments = parser.parse_args()
    anyio.run(_serve, arguments.folder, arguments.socket)


if __name__ == "__main__":
    main()
