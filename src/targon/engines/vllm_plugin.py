"""The sampler ``targon/1`` inside an unmodified vLLM: start it with ``--logits-processors
targon.engines.vllm_plugin:TargonSampler``.

Requests that carry the arguments of :mod:`targon.engines.sampler_arguments` (``vllm_xargs`` of the HTTP API,
``SamplingParams.extra_args`` in Python) have their tokens drawn here; all others pass untouched. A drawn
token's logit is left as 0 and all others of its row as −∞, so that no temperature, cut or noise of vLLM's own
can change the draw afterwards. The reported log-probabilities stay those of the model: with
``--logprobs-mode raw_logprobs``, the default, vLLM takes them before it calls any processor.

One class serves both interfaces that vLLM 0.32 knows:

- *V1* (``vllm.v1.sample.logits_processor``): rows are places in a batch, whose changes are told as removals,
  additions and moves. A row's position is the length of its list of output tokens, which vLLM shares. Under
  asynchronous scheduling the last tokens may not be known yet when the next step samples: vLLM then appends
  −1 in their place right after each step's sampling (``_bookkeeping_sync``), replaces it in place once the
  token arrives (``update_async_output_token_ids``), and appends nothing for a prompt's inner chunks, so the
  *length* is right in every step. A request that was preempted comes back as an addition, with a list that
  holds what was generated before.
- *V2* (``vllm.v1.worker.gpu``): rows belong to slots, and are laid out anew in every step. A row's position
  is the place of its last token in the sequence plus one, minus the length of the slot's prompt; both are
  tensors of the device, so that nothing waits for it.

Speculative decoding is refused: several rows would belong to one request, and no position would be right.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import torch

from targon.engines.sampler_arguments import Draw, parse_sampler_arguments
from targon.engines.torch_sampler import CompiledRows, DeviceRows, row_sampler, sent, warm_up

_INTERFACES = (
    "vllm.v1.sample.logits_processor.interface",
    "vllm.v1.worker.gpu.sample.logits_processor.interface",
)

_NEUTRAL: dict[str, tuple[object, ...]] = {
    "n": (1,),
    "presence_penalty": (0.0,),
    "frequency_penalty": (0.0,),
    "repetition_penalty": (1.0,),
    "min_p": (0.0,),
    "min_tokens": (0,),
    "logit_bias": (None, {}),
    "allowed_token_ids": (None, []),
    "bad_words": (None, []),
    "structured_outputs": (None,),
    "thinking_token_budget": (None,),
    "trace_decode_token_ids": (None,),
}
"""What of vLLM's own parameters would change the logits or the tokens, and the values at which it does not."""


def _interface(module: str) -> type:
    """One of the interfaces; where this vLLM doesn't have it, a class that stands for nothing."""
    try:
        found: type = importlib.import_module(module).LogitsProcessor
    except ImportError:
        return type("Absent", (), {})
    return found


class TargonSampler(_interface(_INTERFACES[0]), _interface(_INTERFACES[1])):  # type: ignore[misc]
    """Draws the tokens of the requests that ask for it; built by vLLM, once per worker.

    Args:
        vllm_config: of the engine.
        place: V1: the ``torch.device`` of the logits; V2: the state of the runner's request slots.
        is_pin_memory: V1 only.

    Raises:
        ValueError: if the engine decodes speculatively, or watermarks.
    """

    def __init__(self, vllm_config: Any, place: Any, is_pin_memory: bool | None = None) -> None:  # noqa: ANN401, ARG002
        if getattr(vllm_config, "speculative_config", None) is not None:
            raise ValueError(
                "speculative decoding: got a speculative_config, expected none: TargonSampler draws one token "
                "per request and step; start vLLM without --speculative-config, or without this processor"
            )
        if getattr(vllm_config, "watermark_config", None) is not None:
            raise ValueError(
                "watermarking: got a watermark_config, expected none: a watermark would change the draws of "
                "TargonSampler; start vLLM without it, or without this processor"
            )
        self._slots = None if isinstance(place, torch.device) else place
        self._device = torch.device(place if self._slots is None else place.device)
        warm_up(self._device)
        self._draws: dict[int, Draw] = {}
        """By row (V1) or slot (V2)."""
        self._outputs: dict[int, Sequence[int]] = {}
        """V1: by row, the output tokens so far; vLLM appends to them."""
        self._layout: bytes | None = None
        """V2: the slots of the rows for which the next was prepared."""
        self._prepared: tuple[torch.Tensor, CompiledRows | DeviceRows] | None = None
        """The rows to draw, as a tensor of the device, and their sampler."""

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:  # noqa: ANN401 - vllm.SamplingParams
        """Refuse a request that could not be drawn as its arguments say; vLLM answers it with HTTP 400.

        Raises:
            ValueError: naming the parameter, what was got and what is expected.
        """
        if parse_sampler_arguments(sampling_params.extra_args) is None:
            return
        for name, neutral in _NEUTRAL.items():
            got = getattr(sampling_params, name, neutral[0])
            if got not in neutral:
                raise ValueError(
                    f"{name}: got {repr(got)[:80]}, expected {neutral[0]!r} beside targon_ arguments (a default "
                    "of the model's own generation_config.json? start vLLM with --generation-config vllm)"
                )

    def is_argmax_invariant(self) -> bool:
        """V1: no, so that greedy requests come here, too."""
        return False

    def update_state(self, batch_update: Any) -> None:  # noqa: ANN401 - BatchUpdate or None
        """V1: follow the changes of the batch."""
        if batch_update is None:
            return
        self._prepared = None
        for row in batch_update.removed:
            self._leave(row)
        for row, params, _prompt, outputs in batch_update.added:
            self._leave(row)
            draw = parse_sampler_arguments(params.extra_args)
            if draw is not None:
                self._draws[row], self._outputs[row] = draw, outputs
        for source, target, direction in batch_update.moved:
            coming, going = self._leave(source), self._leave(target)
            if coming is not None:
                self._draws[target], self._outputs[target] = coming
            if going is not None and direction.name == "SWAP":
                self._draws[source], self._outputs[source] = going

    def _leave(self, row: int) -> tuple[Draw, Sequence[int]] | None:
        draw = self._draws.pop(row, None)
        return None if draw is None else (draw, self._outputs.pop(row))

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:  # noqa: ANN401 - vllm.SamplingParams
        """V2: a request takes a slot, and whatever was there is gone; returns whether its tokens are drawn here."""
        self._layout = None
        self._draws.pop(req_idx, None)
        draw = parse_sampler_arguments(sampling_params.extra_args)
        if draw is not None:
            self._draws[req_idx] = draw
        return draw is not None

    def apply(self, logits: torch.Tensor, ctx: Any = None) -> torch.Tensor:  # noqa: ANN401 - LogitsContext
        """Draw, in place.

        Args:
            logits: ``(rows, vocab) float32``.
            ctx: V2: how this step's batch is laid out.
        """
        if not self._draws:
            return logits
        return self._apply_to_batch(logits) if ctx is None else self._apply_to_slots(logits, ctx)

    def _apply_to_batch(self, logits: torch.Tensor) -> torch.Tensor:
        rows = sorted(self._draws)
        if self._prepared is None:
            self._prepared = self._prepare(rows, [self._draws[row] for row in rows])
        return _draw(logits, *self._prepared, [len(self._outputs[row]) for row in rows])

    def _apply_to_slots(self, logits: torch.Tensor, ctx: Any) -> torch.Tensor:  # noqa: ANN401
        slots = ctx.idx_mapping_np
        if len(slots) != logits.shape[0]:
            raise ValueError(
                f"logits: got {logits.shape[0]} rows for {len(slots)} requests, expected one each"
            )
        if self._prepared is None or self._layout != slots.tobytes():
            rows = [row for row, slot in enumerate(slots.tolist()) if slot in self._draws]
            self._prepared = self._prepare(rows, [self._draws[int(slots[row])] for row in rows])
            self._layout = slots.tobytes()
        rows_drawn, sampler = self._prepared
        if not rows_drawn.numel():
            return logits
        assert self._slots is not None
        prompts = self._slots.prompt_len.gpu[ctx.expanded_idx_mapping[rows_drawn].long()]
        positions = ctx.pos[rows_drawn].long() + 1 - prompts.long()
        # inside a prompt that comes in chunks, it is below 0: what is drawn there is thrown away
        return _draw(logits, rows_drawn, sampler, positions.clamp_(min=0))

    def _prepare(
        self, rows: Sequence[int], draws: Sequence[Draw]
    ) -> tuple[torch.Tensor, CompiledRows | DeviceRows]:
        return sent(rows, torch.int64, self._device), row_sampler(draws, self._device)


def _draw(
    logits: torch.Tensor,
    rows: torch.Tensor,
    sampler: CompiledRows | DeviceRows,
    positions: Sequence[int] | torch.Tensor,
) -> torch.Tensor:
    """Draw some rows' tokens, and leave nothing else to choose there.

    Args:
        logits: ``(all rows, vocab)``, changed in place.
        rows: ``(rows,) int64``, increasing.
        positions: ``(rows,)``.
    """
    if rows.numel() == logits.shape[0]:
        chosen = sampler.choose(logits.float(), positions)
        logits.fill_(-torch.inf)
    else:
        chosen = sampler.choose(logits.index_select(0, rows).float(), positions)
        logits.index_fill_(0, rows, -torch.inf)
    logits[rows, chosen] = 0.0
    return logits
