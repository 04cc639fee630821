"""The attacks, by name: what each does, in one line, and what it is made of.

An attack is one of three things: an engine that answers (a model that was changed, or a wrapper around an
honest one); a mixture of two sets of answers that exist already; or a change of signed answers. Everything runs
in bfloat16, as provers do, so that a cheat hides in honest noise as well as it can.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Literal, TypeAlias

from targon.engines import Engine
from targon.redteam.adaptive import Repairing
from targon.redteam.cheats import (
    Canned,
    OwnSeed,
    Resampled,
    Rewritten,
    RunsOn,
    Truncated,
    WrongSeed,
    shortened,
    without_passage,
    without_system,
)
from targon.redteam.forgeries import FORGERIES, Forge
from targon.redteam.mixtures import InTheTail, Recorded, WhereUnwatched, looks_like_challenge

Kind = Literal[
    "honest", "weights", "cache", "seed", "sampling", "prompt", "answer", "now and then", "receipt", "adaptive", "relay"
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """How an engine process is started."""

    dtype: str = "bfloat16"
    variant: str | None = None
    batch: int = 16
    """Completions that it decodes together."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a wrapper can be made of."""

    engine: Engine
    """The attack's own."""
    second: Engine
    """The attack's second engine; its own, where it has none."""
    recorded: Recorded
    """What the honest engine answered to the same requests."""


Wrap: TypeAlias = Callable[[Parts], Engine]

HONEST: Final = EngineSpec()
BASELINES: Final[Mapping[str, str]] = {
    "challenges": "honest-bf16", "organic": "honest-organic", "top-k": "honest-top-k",
}  # fmt: skip
"""The honest answers to each workload that attacks have: what they are mixed with and compared with."""


@dataclass(frozen=True, slots=True)
class Attack:
    """One row of the matrix."""

    name: str
    kind: Kind
    words: str
    """What it does, in one line."""
    workload: str = "challenges"
    engine: EngineSpec = HONEST
    second: EngineSpec | None = None
    wrap: Wrap | None = None
    needs_honest: bool = False
    """Whether its wrapper uses recorded honest answers."""
    mixed: tuple[str, float] | None = None
    """The attack whose answers are this one's on a share of requests; the others are the honest engine's."""
    forge: Forge | None = None
    """What is done to signed honest answers."""
    goal: int | None = None
    """Verified tokens within which half of such provers should be convicted."""
    factor: float = field(default=1.0, kw_only=True)
    """How many times as many completions as other attacks: what is rare needs more."""

    @property
    def honest(self) -> bool:
        """Whether it must never be convicted."""
        return self.kind == "honest"

    @property
    def true(self) -> bool:
        """Whether its answers are those of an honest engine."""
        return self.kind in ("honest", "relay")

    @property
    def generates(self) -> bool:
        """Whether it has answers of its own."""
        return self.mixed is None and self.forge is None

    @property
    def needs(self) -> tuple[str, ...]:
        """Attacks whose answers must be there first."""
        names = [self.mixed[0]] if self.mixed else []
        if (self.mixed or self.forge or self.needs_honest) and self.workload in BASELINES:
            names.append(BASELINES[self.workload])
        return tuple(dict.fromkeys(names))


def _over(
    name: str,
    kind: Kind,
    words: str,
    wrapper: Callable[[Engine], Engine],
    *,
    workload: str = "challenges",
    goal: int | None = None,
) -> Attack:
    """An honest engine in a wrapper."""
    return Attack(name, kind, words, workload, wrap=lambda parts: wrapper(parts.engine), goal=goal)


def _weights(variant: str, words: str, goal: int | None = None, name: str = "") -> Attack:
    return Attack(name or variant, "weights", words, engine=EngineSpec(variant=variant), goal=goal)


def _cache(variant: str, words: str, goal: int | None = None) -> Attack:
    return Attack(variant, "cache", words, engine=EngineSpec(variant=variant), goal=goal)


def _hotter(by: float, goal: int) -> Attack:
    name = f"T{by:+.2f}".rstrip("0")
    words = f"samples {abs(by):g} {'hotter' if by > 0 else 'colder'} than asked"
    return _over(name, "sampling", words, partial(Resampled, hotter=by), goal=goal)


def _sometimes(cheat: str, share: float, goal: int | None = None) -> Attack:
    words = f"{cheat} on {share:.0%} of requests, honest on the others"
    return Attack(f"{cheat}-{share:.0%}", "now and then", words, mixed=(cheat, share), goal=goal)


def _repairing(variant: str, tolerance: float, checks: int) -> Attack:
    return Attack(
        f"adaptive-{variant}-{checks}",
        "adaptive",
        f"{variant}, but repairs tokens that miss by over {tolerance:g}: up to {checks} prefills of the true model",
        engine=EngineSpec(variant=variant),
        second=HONEST,
        wrap=lambda parts: Repairing(parts.engine, parts.second, tolerance=tolerance, checks=checks),
        factor=0.2,  # to go on by replay is slow
    )


def _forged(name: str, words: str) -> Attack:
    return Attack(name, "receipt", words, forge=FORGERIES[name])


ATTACKS: Final[tuple[Attack, ...]] = (
    Attack("honest-bf16", "honest", "bf16, 16 at a time", factor=2.0),
    Attack("honest-bf16-alone", "honest", "bf16, one at a time", engine=EngineSpec(batch=1), factor=0.25),
    Attack("honest-fp32", "honest", "fp32, 16 at a time", engine=EngineSpec("float32")),
    Attack("honest-organic", "honest", "bf16, users' requests among the challenges", workload="organic"),
    Attack("honest-top-k", "honest", "bf16, candidates cut by number", workload="top-k"),
    Attack("user-prompts", "honest", "bf16, asked by a user who wants it convicted: prompts", workload="hostile"),
    Attack(
        "user-parameters", "honest", "bf16, asked by a user who wants it convicted: parameters", workload="extremes"
    ),
    _over("wrong-seed", "seed", "draws its own noise", WrongSeed, goal=16),
    _over("own-seed", "seed", "the same noise for every request", OwnSeed, goal=16),
    _weights("int3", "3-bit integers, groups of 64", 16),
    _weights("int4", "4-bit integers, groups of 64", 16),
    _weights("int6", "6-bit integers, one scale per output"),
    _weights("int8", "8-bit integers, one scale per output", 300),
    _weights("fp8", "8-bit floats, one scale per tensor", 80),
    _weights("fp8row", "8-bit floats, one scale per output", 80),
    _weights("layers:20", "a smaller model: 20 of the 30 layers", 16, "other-model"),
    _weights("skip:2", "2 of the 30 layers left out", name="skipped-layers"),
    _cache("kv8", "keys and values as 8-bit integers, one scale per token and head", 2_000),
    _cache("kvfp8", "keys and values as 8-bit floats", 2_000),
    _cache("kv4", "keys and values as 4-bit integers, one scale per token and head"),
    _hotter(0.05, 300), _hotter(-0.05, 300), _hotter(0.1, 80), _hotter(-0.1, 80), _hotter(0.2, 16), _hotter(-0.2, 16),
    _over("no-top-p", "sampling", "ignores top-p: 1.0 for 0.95", partial(Resampled, top_p=1.0), goal=80),
    _over("top-p-0.9", "sampling", "top-p 0.9 for 0.95", partial(Resampled, top_p=0.9)),
    _over("no-top-k", "sampling", "ignores top-k: all for 20 or 50", partial(Resampled, top_k=0), workload="top-k"),
    Attack(
        "top-2-bug", "sampling", "takes the second-best token at 1% of positions",
        engine=EngineSpec(variant="second:1"), goal=500, factor=2.0,
    ),
    _over("no-system", "prompt", "drops the system message", partial(Rewritten, rewrite=without_system)),
    _over("no-passage", "prompt", "drops the passage", partial(Rewritten, rewrite=without_passage)),
    _over("short-prompt", "prompt", "drops a quarter of the last turn", partial(Rewritten, rewrite=shortened)),
    _over("truncated", "answer", "stops half-way and says that the model ended", Truncated),
    _over("padded", "answer", "runs on where the model ended, saying itself again", RunsOn),
    _over("canned", "answer", "one old answer for everybody", Canned),
    _sometimes("int4", 0.01), _sometimes("int4", 0.05, 2_500), _sometimes("int4", 0.2),
    Attack(
        "int4-tail", "now and then", "int4 in the last half of answers",
        engine=EngineSpec(variant="int4"), needs_honest=True,
        wrap=lambda parts: InTheTail(parts.recorded, parts.engine),
    ),
    Attack(
        "int4-unwatched", "now and then", "int4 on what doesn't look like a challenge",
        workload="organic", engine=EngineSpec(variant="int4"), needs_honest=True,
        wrap=lambda parts: WhereUnwatched(parts.recorded, parts.engine, looks_like_challenge),
    ),
    _repairing("int8", 0.1, 4), _repairing("int4", 0.1, 4),
    _forged("wrong-key", "signs receipts with another key"),
    _forged("other-request", "sends the receipt of another request"),
    _forged("altered-token", "changes a token after signing"),
    Attack("relay", "relay", "passes requests on to an honest engine", mixed=("honest-bf16", 1.0)),
)  # fmt: skip

BY_NAME: Final[Mapping[str, Attack]] = {attack.name: attack for attack in ATTACKS}

QUICK: Final = ("wrong-seed", "int4", "fp8", "T+0.2", "truncated", "int4-20%", "wrong-key", "relay")
"""Attacks that are known again after minutes."""


class UnknownAttack(ValueError):
    """There is no attack of that name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"attack: got {name!r}, expected one of {', '.join(BY_NAME)}")


def with_needs(names: Sequence[str]) -> tuple[Attack, ...]:
    """Attacks by name, with those that they are made of and the honest engines that they are compared with, in the
    order in which they can be made.

    Raises:
        UnknownAttack: naming what there is.
    """
    wanted: set[str] = set()
    pending = list(names)
    while pending:
        name = pending.pop()
        if name not in BY_NAME:
            raise UnknownAttack(name)
        if name in wanted:
            continue
        wanted.add(name)
        attack = BY_NAME[name]
        pending.extend(attack.needs)
        pending.extend(BASELINES[attack.workload] for _ in range(attack.workload in BASELINES))
    return tuple(attack for attack in ATTACKS if attack.name in wanted)
