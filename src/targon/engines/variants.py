"""Ways to run less than the promised model: what a cheating prover might do to save memory or time.

Each is a change of a loaded model or of its sampler, named on the command line as ``name`` or
``name:argument``. They exist to be tried against verification; an honest engine has none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from targon.engines.compiled_sampler import choose_batch
from targon.protocol.messages import Sampling
from targon.protocol.sampler import candidates, gumbel, scaled

VARIANTS: Final = (
    "fp8", "fp8row", "int3", "int4", "int6", "int8", "kv4", "kv8", "kvfp8", "layers:N", "second:PERCENT", "skip:N",
)  # fmt: skip
"""The names, as an operator writes them.

``int3``, ``int4``, ``int6``, ``int8``, ``fp8``, ``fp8row``: round trips of the linear weights. ``kv4``, ``kv8``,
``kvfp8``: round trips of the cached keys and values. ``layers:N``: a smaller model, only the first N layers.
``skip:N``: N layers in the middle are left out. ``second:PERCENT``: the sampler takes the second-best token at
so many of a hundred positions.
"""

_INT4_GROUP = 64
_FP8_LARGEST = 448.0  # of float8_e4m3fn
_LEAST_SCALE = 1e-12

RoundTrip: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
Choose: TypeAlias = Callable[[NDArray[np.float32], Sequence[tuple[Sampling, int, int]]], Iterable[int]]


def apply_variant(model: Any, variant: str) -> None:  # noqa: ANN401 - any causal language model
    """Change a loaded model in place; a variant of the sampler leaves it as it is (:func:`sampler_of`).

    Args:
        variant: one of :data:`VARIANTS`.

    Raises:
        ValueError: if there is no such variant, or its argument makes no sense.
    """
    name, _, argument = variant.partition(":")
    if name in _WEIGHTS and not argument:
        _round_trip_linear_weights(model, _WEIGHTS[name])
    elif name in _CACHES and not argument:
        _round_trip_cache(model, _CACHES[name])
    elif name == "layers":
        count = _whole(name, argument, 1, len(model.base_model.layers) - 1)
        _keep_layers(model, range(count))
    elif name == "skip":
        layers = len(model.base_model.layers)
        count = _whole(name, argument, 1, layers - 2)
        first = (layers - count) // 2
        _keep_layers(model, [place for place in range(layers) if not first <= place < first + count])
    elif name == "second":
        _percent(argument)
    else:
        raise ValueError(f"variant: got {variant!r}, expected one of {', '.join(VARIANTS)}")


def sampler_of(variant: str | None) -> Choose:
    """The sampler of an engine: the protocol's, unless the variant says otherwise.

    Raises:
        ValueError: if the variant's argument makes no sense.
    """
    name, _, argument = (variant or "").partition(":")
    return partial(choose_second, share=_percent(argument) / 100) if name == "second" else choose_batch


def choose_second(
    logits: NDArray[np.float32], draws: Sequence[tuple[Sampling, int, int]], *, share: float
) -> list[int]:
    """The sampler with a bug: at a share of positions it takes the token whose value is second-best.

    Which positions follows from run key and position. Where there is one candidate alone, that one is taken.
    Arguments as for :func:`targon.engines.compiled_sampler.choose_batch`.
    """
    chosen = [int(token) for token in choose_batch(logits, draws)]
    for row, (sampling, key, position) in enumerate(draws):
        drawn = hashlib.sha256(b"second %d %d" % (key, position)).digest()
        if int.from_bytes(drawn[:8], "big") < share * 2**64:
            chosen[row] = _second(logits[row], sampling, key, position)
    return chosen


def _second(logits: NDArray[np.float32], sampling: Sampling, run_key: int, position: int) -> int:
    values = scaled(logits, sampling.temperature)
    ids = np.arange(values.size)
    if sampling.temperature > 0.0:
        ids = candidates(values, sampling.top_k, sampling.top_p)
        values = values[ids] + gumbel(run_key, position, sampling.choice, ids)
    return int(ids[np.argsort(-values, kind="stable")[:2][-1]])


def int_round_trip(weight: torch.Tensor, *, bits: int, group: int = 0) -> torch.Tensor:
    """Symmetric integers with one scale per group of inputs. ``weight``: (outputs, inputs) float32.

    Args:
        group: inputs that share a scale; 0: all of an output.
    """
    largest = 2 ** (bits - 1) - 1
    groups = weight.reshape(weight.shape[0], -1, group or weight.shape[1])
    scale = groups.abs().amax(dim=-1, keepdim=True).clamp_min(_LEAST_SCALE) / largest
    rounded: torch.Tensor = (groups / scale).round().clamp(-largest - 1, largest) * scale
    return rounded.reshape(weight.shape)


def int4_round_trip(weight: torch.Tensor) -> torch.Tensor:
    """Symmetric 4-bit integers with one scale per 64 inputs. ``weight``: (outputs, inputs) float32."""
    return int_round_trip(weight, bits=4, group=_INT4_GROUP)


def int8_round_trip(weight: torch.Tensor) -> torch.Tensor:
    """Symmetric 8-bit integers with one scale per output. ``weight``: (outputs, inputs) float32."""
    return int_round_trip(weight, bits=8)


def fp8_round_trip(weight: torch.Tensor) -> torch.Tensor:
    """8-bit floats (e4m3) with one scale per tensor. ``weight``: (outputs, inputs) float32."""
    scale = weight.abs().amax().clamp_min(_LEAST_SCALE) / _FP8_LARGEST
    return (weight / scale).to(torch.float8_e4m3fn).to(torch.float32) * scale


def fp8row_round_trip(weight: torch.Tensor) -> torch.Tensor:
    """8-bit floats (e4m3) with one scale per output. ``weight``: (outputs, inputs) float32."""
    scale = weight.abs().amax(dim=-1, keepdim=True).clamp_min(_LEAST_SCALE) / _FP8_LARGEST
    return (weight / scale).to(torch.float8_e4m3fn).to(torch.float32) * scale


def int_cache_round_trip(cached: torch.Tensor, *, bits: int) -> torch.Tensor:
    """Symmetric integers with one scale per token and head. ``cached``: (rows, heads, tokens, head size)."""
    largest = 2 ** (bits - 1) - 1
    scale = cached.float().abs().amax(dim=-1, keepdim=True).clamp_min(_LEAST_SCALE) / largest
    rounded: torch.Tensor = (cached / scale).round().clamp(-largest - 1, largest) * scale
    return rounded.to(cached.dtype)


def fp8_cache_round_trip(cached: torch.Tensor) -> torch.Tensor:
    """8-bit floats (e4m3) with no scale, as engines keep them by default. ``cached``: any shape."""
    return cached.float().clamp(-_FP8_LARGEST, _FP8_LARGEST).to(torch.float8_e4m3fn).to(cached.dtype)


_WEIGHTS: Mapping[str, RoundTrip] = {
    "int3": partial(int_round_trip, bits=3, group=_INT4_GROUP),
    "int4": int4_round_trip,
    "int6": partial(int_round_trip, bits=6),
    "int8": int8_round_trip,
    "fp8": fp8_round_trip,
    "fp8row": fp8row_round_trip,
}

_CACHES: Mapping[str, RoundTrip] = {
    "kv4": partial(int_cache_round_trip, bits=4),
    "kv8": partial(int_cache_round_trip, bits=8),
    "kvfp8": fp8_cache_round_trip,
}


@torch.inference_mode()
def _round_trip_linear_weights(model: Any, round_trip: RoundTrip) -> None:  # noqa: ANN401
    """All linear layers but the head, which quantizing engines leave alone too."""
    head = model.get_output_embeddings()
    for module in model.modules():
        if isinstance(module, nn.Linear) and module is not head:
            module.weight.data = round_trip(module.weight.data.float()).to(module.weight.dtype)


class _RoundedCache:
    """A cache that hands on keys and values as a smaller format keeps them. Attention asks no more of it."""

    def __init__(self, cache: Any, round_trip: RoundTrip) -> None:  # noqa: ANN401
        self._cache = cache
        self._round_trip = round_trip

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, *arguments: object, **named: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rounded = self._cache.update(self._round_trip(keys), self._round_trip(values), *arguments, **named)
        result: tuple[torch.Tensor, torch.Tensor] = rounded
        return result


def _round_trip_cache(model: Any, round_trip: RoundTrip) -> None:  # noqa: ANN401
    """Whatever attention puts into a cache is rounded on its way there; without a cache nothing changes."""

    def rounded(
        module: nn.Module,  # noqa: ARG001 - a hook's signature
        arguments: tuple[object, ...],
        named: dict[str, Any],
    ) -> tuple[tuple[object, ...], dict[str, Any]]:
        cache = named.get("past_key_values")
        return arguments, named if cache is None else {
            **named,
            "past_key_values": _RoundedCache(cache, round_trip),
        }

    for layer in model.base_model.layers:
        layer.self_attn.register_forward_pre_hook(rounded, with_kwargs=True)


def _keep_layers(model: Any, kept: Sequence[int]) -> None:  # noqa: ANN401
    layers = model.base_model.layers
    model.base_model.layers = nn.ModuleList([layers[place] for place in kept])
    for place, layer in enumerate(model.base_model.layers):
        layer.self_attn.layer_idx = place  # its place in the cache
    model.config.num_hidden_layers = len(kept)


def _whole(name: str, argument: str, least: int, most: int) -> int:
    if not argument.isdecimal() or not least <= int(argument) <= most:
        raise ValueError(f"variant {name}: got {argument!r}, expected a number from {least} to {most}")
    return int(argument)


def _percent(argument: str) -> float:
    try:
        share = float(argument)
    except ValueError:
        share = -1.0
    if not 0.0 < share <= 100.0:
        raise ValueError(f"variant second: got {argument!r}, expected a percentage above 0, up to 100")
    return share
