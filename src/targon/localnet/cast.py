"""Who plays in a local network: honest provers and cheats, by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

CheatName = Literal["wrong-seed", "int4", "canned", "truncated", "offline", "relay-other-model"]
CHEATS: tuple[CheatName, ...] = get_args(CheatName)

CHEAT_WORDS: dict[CheatName, str] = {
    "wrong-seed": "draws its own noise instead of the request's",
    "int4": "runs the model with 4-bit weights",
    "canned": "gives one old answer to everybody",
    "truncated": "stops half-way and claims that the model had ended",
    "offline": "is registered and announced, but answers nothing",
    "relay-other-model": "passes requests on to a smaller model (20 of the 30 layers)",
}

EngineName = Literal["fp32", "bf16", "int4", "other-model"]

ENGINE_OF: dict[CheatName, EngineName | None] = {
    "wrong-seed": "fp32",
    "int4": "int4",
    "canned": "fp32",
    "truncated": "fp32",
    "offline": None,
    "relay-other-model": "other-model",
}


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """How an engine process is started."""

    dtype: str
    variant: str | None = None


ENGINES: dict[EngineName, EngineSpec] = {
    "fp32": EngineSpec("float32"),
    "bf16": EngineSpec("bfloat16"),
    "int4": EngineSpec("float32", "int4"),
    "other-model": EngineSpec("float32", "layers:20"),
}


@dataclass(frozen=True, slots=True)
class Player:
    """One prover of the local network."""

    name: str
    engine: EngineName | None
    """None: no engine, for it never answers."""
    cheat: CheatName | None = None

    @property
    def honest(self) -> bool:
        """Whether it does what it promises."""
        return self.cheat is None

    @property
    def convictable(self) -> bool:
        """Whether it cheats in what it answers, and so must be convicted. Silence convicts nobody."""
        return self.cheat is not None and self.engine is not None


def cast(fp32: int, bf16: int, cheats: tuple[CheatName, ...]) -> tuple[Player, ...]:
    """The players, honest first; names are unique."""
    players = [Player(f"honest-{i + 1}", "fp32") for i in range(fp32)]
    players += [Player(f"honest-bf16-{i + 1}", "bf16") for i in range(bf16)]
    for name in cheats:
        number = sum(player.cheat == name for player in players) + 1
        players.append(Player(name if number == 1 else f"{name}-{number}", ENGINE_OF[name], name))
    return tuple(players)
