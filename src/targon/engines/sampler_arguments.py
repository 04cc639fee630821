"""How a request's sampling travels to the plugin inside an engine: flat JSON scalars beside its own parameters.

| argument | value |
|---|---|
| ``targon_run_key`` | 16 lower-case hex digits |
| ``targon_temperature`` | 0, or 0.05 to 10 |
| ``targon_top_k`` | 0 (off) or more; may be left out |
| ``targon_top_p`` | over 0, to 1 (off); may be left out |
| ``targon_choice`` | 0 to 127; may be left out |
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from targon.protocol.messages import MAX_TOKEN_ID, Sampling
from targon.protocol.primitives import u64_hex
from targon.protocol.sampler import MIN_TEMPERATURE, check_replayable

_PREFIX = "targon_"
_MAX_TEMPERATURE = 10.0
_MAX_CHOICE = 127
_NAMES = tuple(_PREFIX + name for name in ("run_key", "temperature", "top_k", "top_p", "choice"))
_RUN_KEY, _TEMPERATURE, _TOP_K, _TOP_P, _CHOICE = _NAMES


@dataclass(frozen=True, slots=True)
class Draw:
    """How one request's tokens are drawn by ``targon/1``, but for the position."""

    run_key: int
    """64 bits."""
    temperature: float
    top_k: int = 0
    top_p: float = 1.0
    choice: int = 0

    def sampling(self) -> Sampling:
        """The same as the wire's type, which :func:`targon.protocol.sampler.choose` takes."""
        return Sampling(
            seed=u64_hex(0),  # is in the run key
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            choice=self.choice,
            max_tokens=1,
        )


def sampler_arguments(sampling: Sampling, run_key: int) -> dict[str, str | int | float]:
    """The arguments that have a plugin draw a request's tokens.

    Args:
        sampling: dialect ``targon/1`` or ``greedy``.
        run_key: 64 bits (:func:`targon.protocol.draws.run_key`).

    Raises:
        UnsupportedSampling: if the parameters are not this sampler's.
        ValueError: if the key has more than 64 bits.
    """
    check_replayable(sampling)
    return {
        _RUN_KEY: u64_hex(run_key),
        _TEMPERATURE: sampling.temperature,
        _TOP_K: sampling.top_k,
        _TOP_P: sampling.top_p,
        _CHOICE: sampling.choice,
    }


def parse_sampler_arguments(extra: Mapping[str, Any] | None) -> Draw | None:
    """The draw that a request's arguments ask for; None where none of them is this sampler's.

    Args:
        extra: arguments by name, among them others' own.

    Raises:
        ValueError: naming the argument that is wrong, unknown or missing, what was got and what is expected.
    """
    given = {name: value for name, value in (extra or {}).items() if name.startswith(_PREFIX)}
    if not given:
        return None
    for name in given:
        if name not in _NAMES:
            raise ValueError(f"{name}: got an unknown argument, expected some of {', '.join(_NAMES)}")
    for name in (_RUN_KEY, _TEMPERATURE):
        if name not in given:
            raise ValueError(f"{name}: got none, expected one beside {', '.join(given)}")
    return Draw(
        run_key=_run_key(given[_RUN_KEY]),
        temperature=_temperature(given[_TEMPERATURE]),
        top_k=_whole(_TOP_K, given.get(_TOP_K, 0), MAX_TOKEN_ID),
        top_p=_share(given.get(_TOP_P, 1.0)),
        choice=_whole(_CHOICE, given.get(_CHOICE, 0), _MAX_CHOICE),
    )


def _run_key(value: object) -> int:
    if not isinstance(value, str) or len(value) != 16 or set(value) - set("0123456789abcdef"):
        raise _wrong(_RUN_KEY, value, "16 lower-case hex digits")
    return int(value, 16)


def _temperature(value: object) -> float:
    number = _number(value)
    if number != 0.0 and not MIN_TEMPERATURE <= number <= _MAX_TEMPERATURE:
        raise _wrong(_TEMPERATURE, value, f"0, or {MIN_TEMPERATURE} to {_MAX_TEMPERATURE:g}")
    return number


def _share(value: object) -> float:
    number = _number(value)
    if not 0.0 < number <= 1.0:
        raise _wrong(_TOP_P, value, "a number over 0, to 1")
    return number


def _whole(name: str, value: object, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise _wrong(name, value, f"an integer from 0 to {most}")
    return value


def _number(value: object) -> float:
    """A JSON number as a float; anything else as NaN, which no range holds."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def _wrong(name: str, value: object, expected: str) -> ValueError:
    return ValueError(f"{name}: got {repr(value)[:80]}, expected {expected}")
