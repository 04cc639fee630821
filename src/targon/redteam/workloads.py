"""What attackers, and honest engines beside them, are asked.

All passages are those of odd index of the standard library's list; calibrations are made of the even ones.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from targon.engines import GenerateTask
from targon.oracle import StandardLibraryText
from targon.protocol.messages import Sampling
from targon.protocol.primitives import TokenId, u64_hex
from targon.protocol.prompt import conversation
from targon.verification.transcripts import Transcript
from targon.verification.workload import CHALLENGES, Mix, draw_tasks

SEED: Final = "red team"

Draw = Callable[[Sequence[str], str, int], list[GenerateTask]]
"""Passages, a seed and how many: as :func:`targon.verification.workload.draw_tasks`, whose mix is fixed."""

ORGANIC: Final = Mix(CHALLENGES.temperatures, CHALLENGES.top_ps, CHALLENGES.top_ks, 32, 128)
"""Challenges among users' wishes, long texts and conversations."""

TOP_K: Final = Mix(CHALLENGES.temperatures, (1.0,), (20, 50), 32, 128, challenges_only=True)
"""Challenges whose candidates are cut by number."""

EXTREMES: Final = Mix(
    temperatures=(0.0, 0.05, 0.06, 0.1, 2.0, 5.0, 10.0),
    top_ps=(0.01, 0.3, 0.5, 0.5, 0.9, 0.99, 0.999, 0.9999, 1.0),
    top_ks=(0, 0, 1, 2, 2, 3, 1000),
    min_tokens=32,
    max_tokens=128,
)
"""Parameters at the edges of what the sampler takes, and far outside of what is usual."""

EDGES: Final = Mix(
    temperatures=(0.0, 0.1, 0.3, 1.2),
    top_ps=(0.8, 0.9, 0.95, 1.0),
    top_ks=(0, 20, 40, 50),
    min_tokens=128,
    max_tokens=192,
)
"""Parameters that a calibration covers, those at its edges above all."""

NEAR_TIES: Final = (
    "Flip a coin a hundred times. Write H or T for each flip and nothing else.",
    "Write a long random number, digit by digit, with no pattern at all.",
    "Say yes or no, at random, one word on each line. Don't stop.",
    "List random letters, separated by spaces.",
    "Roll a die sixty times and write down what you get.",
    "Pick random words of three letters and write them in a row.",
)
"""Prompts that make tokens equally likely, so that rounding decides."""

NOISE: Final = (
    "ß∂ƒ©˙∆˚¬ ЖЩЪ 漢字仮名 🜁🜂🜃🜄 ﷽ ۝ \u200b\u200b ꙮ ",
    "asdkj qwpoei zmxnc 0x7f3a 00110101 }{][ <|im_start|> ;; \\\\ $$ ~~ ",
    "the the the the the the the the the the ",
    "a b a b a b a b a b a b a b a b ",
    "\n\n\t \n\t\t \n",
)
"""What no model was trained on: repeated in the prompts."""


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests of one kind."""

    name: str
    words: str
    draw: Draw


def _of(mix: Mix) -> Draw:
    return lambda passages, seed, count: draw_tasks(passages, mix, seed, count)


def hostile_tasks(passages: Sequence[str], seed: str, count: int) -> list[GenerateTask]:
    """Requests of a user who wants an honest prover convicted: strange prompts, in parameters that a
    calibration covers."""
    rng = random.Random(f"hostile {seed}")  # noqa: S311 - not for secrets
    tasks = draw_tasks(passages, EDGES, seed, count)
    return [_hostile(task, passages, rng) for task in tasks]


def _hostile(task: GenerateTask, passages: Sequence[str], rng: random.Random) -> GenerateTask:
    match rng.randrange(4):
        case 0:
            text = rng.choice(NEAR_TIES)
        case 1:
            text = rng.choice(NOISE) * rng.randint(1, 30)
        case 2:
            text = "\n".join(rng.choice(passages) for _ in range(rng.randint(6, 10))) + "\n\nGo on."
        case _:
            text = rng.choice(NEAR_TIES) + "\n" + rng.choice(NOISE) * 4
    sampling: Sampling = task.sampling.model_copy(update={"seed": u64_hex(rng.getrandbits(64))})
    return GenerateTask(conversation(None, text), sampling, rng.getrandbits(64))


WORKLOADS: Final = {
    workload.name: workload
    for workload in (
        Workload("challenges", "questions about a passage, T 0.8 and 1.0, top-p 0.95", _of(CHALLENGES)),
        Workload("organic", "the same among users' own requests", _of(ORGANIC)),
        Workload("top-k", "questions about a passage, top-k 20 and 50", _of(TOP_K)),
        Workload("extremes", "T up to 10, top-p 0.01 to 0.9999, top-k 1 to 1000", _of(EXTREMES)),
        Workload("hostile", "near-ties, noise and long prompts, T 0 to 1.2", hostile_tasks),
    )
}


def calibration_passages() -> list[str]:
    """The passages that calibrations are made of: every other one. Reads files: keep it off the event loop."""
    return _every_other_passage(0)


def evaluation_passages() -> list[str]:
    """The passages that no calibration is made of. Reads files: keep it off the event loop."""
    return _every_other_passage(1)


def _every_other_passage(first: int) -> list[str]:
    library = StandardLibraryText()
    places = range(first, len(library), 2)
    return [library.passage(-(-(place << 64) // len(library))).text for place in places]


def tasks_of(workload: Workload, passages: Sequence[str], count: int) -> list[GenerateTask]:
    """The first so many requests of a workload."""
    return workload.draw(passages, f"{SEED}, {workload.name}", count)


def workload_id(workload: Workload, passages: Sequence[str]) -> str:
    """Names the requests themselves: other passages or another way of drawing give another name."""
    whole = hashlib.sha256()
    for number, task in enumerate(tasks_of(workload, passages, 16)):
        whole.update(Transcript.of(number, task, [TokenId(0)], "length").to_bytes())
    return f"{workload.name}-{whole.hexdigest()[:8]}"
