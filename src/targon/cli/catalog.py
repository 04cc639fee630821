"""Every option of a role by its dotted name: what loading, showing and documenting options have in common."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args, get_origin

from pydantic import BaseModel, SecretStr

from targon.cli.gateway_options import GatewayOptions
from targon.cli.options import ProcessOptions
from targon.cli.oracle_options import OracleOptions
from targon.cli.prover_options import ProverOptions
from targon.cli.verifier_options import VerifierOptions

NeuronName = Literal["prover", "verifier"]
RoleName = Literal["prover", "verifier", "gateway", "oracle"]
ROLES: dict[RoleName, type[ProcessOptions]] = {
    "prover": ProverOptions,
    "verifier": VerifierOptions,
    "gateway": GatewayOptions,
    "oracle": OracleOptions,
}

SHOWN_SECRET = "********"  # noqa: S105 - what is shown in place of one


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a role."""

    name: str
    """Dotted: ``wallet.name``."""
    default: object
    meaning: str
    choices: tuple[str, ...]
    """What it can be, where that is a list of words."""
    secret: bool

    @property
    def flag(self) -> str:
        return f"--{self.name}"

    def environment_name(self, role: RoleName) -> str:
        """The variable that gives it."""
        return environment_name(role, self.name)


def environment_name(role: RoleName, name: str) -> str:
    """The variable of the environment for a dotted name."""
    return f"TARGON_{role}__{name.replace('.', '__')}".upper()


def options_of(model: type[BaseModel], prefix: str = "") -> dict[str, Option]:
    """A model's options, those of its groups included, by dotted name and in order."""
    found: dict[str, Option] = {}
    for field, info in model.model_fields.items():
        name = f"{prefix}{field}"
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            found |= options_of(info.annotation, f"{name}.")
            continue
        annotation = info.annotation
        literal = get_origin(annotation) is Literal
        found[name] = Option(
            name=name,
            default=info.default,
            meaning=" ".join((info.description or "").split()),
            choices=tuple(str(word) for word in get_args(annotation)) if literal else (),
            secret=annotation is SecretStr,
        )
    return found


def value_of(options: BaseModel, name: str) -> object:
    """The value that an option has, by its dotted name."""
    value: object = options
    for step in name.split("."):
        value = getattr(value, step)
    return value


def plain(value: object) -> object:
    """A value as JSON and TOML have it; a secret is never among them."""
    if isinstance(value, SecretStr):
        return SHOWN_SECRET if value.get_secret_value() else ""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def written(value: object) -> str:
    """A value as it is shown to people, and as TOML writes it; nothing where there is none."""
    return "" if value is None else json.dumps(plain(value), ensure_ascii=False)


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that was probably meant, as the end of a sentence; empty if none is near."""
    names = list(known)
    tail = name.rpartition(".")[2]
    same = [one for one in names if one.rpartition(".")[2] == tail]
    close = same if len(same) == 1 else difflib.get_close_matches(name, names, n=1, cutoff=0.7)
    return f"; did you mean {close[0]}?" if close else ""
