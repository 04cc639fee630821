"""Ways to run less than the promised model: what a cheating prover might do to save memory or time.

Each is a change of a loaded model, named on the command line as ``name`` or ``name:argument``. They exist
to be tried against verification; an honest engine has none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

_INT4_GROUP = 64
_FP8_LARGEST = 448.0  # of float8_e4m3fn


def apply_variant(model: Any, variant: str) -> None:  # noqa: ANN401 - any causal language model
    """Change a loaded model in place.

    Args:
        variant: ``int4``, ``int8``, ``fp8`` (round trips of the linear weights) or ``layers:N`` (a smaller
            model: only the first N layers).

    Raises:
        ValueError: if there is no such variant, or its argument makes no sense.
    """
    name, _, argument = variant.partition(":")
    if name in _ROUND_TRIPS and not argument:
        _round_trip_linear_weights(model, _ROUND_TRIPS[name])
    elif name == "layers":
        _keep_first_layers(model, argument)
    else:
        known = ", ".join([*sorted(_ROUND_TRIPS), "layers:N"])
        raise ValueError(f"variant: got {variant!r}, expected one of {known}")


def int4_round_trip(weight: torch.Tensor) -> torch.Tensor:
    """Symmetric 4-bit integers with one scale per 64 inputs. ``weight``: (outputs, inputs) float32."""
    groups = weight.reshape(weight.shape[0], -1, _INT4_GROUP)
    scale = groups.abs().amax(dim=-1, keepdim=True).clamp_min(1e-12) / 7
    return ((groups / scale).round().clamp(-8, 7) * scale).reshape(weight.shape)


def int8_round_trip(weight: torch.Tensor) -> torch.Tensor:
    """Symmetric 8-bit integers with one scale per output. ``weight``: (outputs, inputs) float32."""
    scale = weight.abs().amax(dim=-1, keepdim=True).clamp_min(1e-12) / 127
    return (weight / scale).round().clamp(-128, 127) * scale


def fp8_round_trip(weight: torch.Tensor) -> torch.Tensor:
    """8-bit floats (e4m3) with one scale per tensor. ``weight``: (outputs, inputs) float32."""
    scale = weight.abs().amax().clamp_min(1e-12) / _FP8_LARGEST
    return (weight / scale).to(torch.float8_e4m3fn).to(torch.float32) * scale


_ROUND_TRIPS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "int4": int4_round_trip,
    "int8": int8_round_trip,
    "fp8": fp8_round_trip,
}


@torch.inference_mode()
def _round_trip_linear_weights(model: Any, round_trip: Callable[[torch.Tensor], torch.Tensor]) -> None:  # noqa: ANN401
    """All linear layers but the head, which quantizing engines leave alone too."""
    head = model.get_output_embeddings()
    for module in model.modules():
        if isinstance(module, nn.Linear) and module is not head:
            module.weight.data = round_trip(module.weight.data.float()).to(module.weight.dtype)


def _keep_first_layers(model: Any, argument: str) -> None:  # noqa: ANN401
    layers = model.base_model.layers
    if not argument.isdecimal() or not 1 <= int(argument) < len(layers):
        raise ValueError(f"variant layers: got {argument!r}, expected a number from 1 to {len(layers) - 1}")
    model.base_model.layers = layers[: int(argument)]
    model.config.num_hidden_layers = int(argument)
