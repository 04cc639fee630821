"""The sampler ``targon/1`` inside an unmodified SGLang: start it with ``--enable-custom-logit-processor``.

A request names its processor itself: ``custom_logit_processor`` is :data:`PROCESSOR`, and ``custom_params``
are the arguments of :mod:`targon.engines.sampler_arguments`. With ``temperature`` 0 SGLang takes the highest
logit, and the processor leaves only one. The log-probabilities that SGLang reports are taken after it and say
nothing then. SGLang 0.5.23 was read for what follows.

**Position.** Under overlap scheduling ``len(req.output_ids)`` trails by one in some steps, so it isn't the
position. ``kv_committed_len`` doesn't trail: before a step is launched it is set to the length of what is
prefilled (``alloc_for_extend``), or grows by the one token that is decoded (``alloc_for_decode``), whatever
results are still to come; after a retraction the next prefill sets it anew, output tokens included. So the
position is ``kv_committed_len − len(origin_input_ids)``, and ``len(output_ids)`` must be that or one less:
another relation means that this SGLang counts otherwise, and drawing on would convict an honest prover. Then
the processor raises, which ends the engine: an operator's mistake is to be found at the first request, as
with speculative decoding, where a request has several rows. Inside a prompt that is prefilled in chunks the
position is below 0: nothing is drawn, as SGLang drops what comes of it.

**What one request got wrong** ends nothing: a row whose arguments are malformed is left as it was, and logged.

Requests must not ask for penalties, logit bias, min-p or a grammar: SGLang applies those before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import structlog

from targon.engines.sampler_arguments import Draw, parse_sampler_arguments

if TYPE_CHECKING:
    import torch

_logger = structlog.get_logger(__name__)

_PICKLE = (
    b"\x80\x04\x95\x32\x00\x00\x00\x00\x00\x00\x00"
    b"\x8c\x1ctargon.engines.sglang_plugin\x94\x8c\rTargonSampler\x94\x93\x94."
)
PROCESSOR = '{"callable": "' + _PICKLE.hex() + '"}'
"""What SGLang's ``CustomLogitProcessor.to_str()`` gives for :class:`TargonSampler`: its name, and no code."""


class TargonSampler:
    """Draws the tokens of the requests that ask for it; SGLang builds one whenever a batch comes together.

    SGLang calls it and asks nothing else of it, so it need not inherit from SGLang's own class, and a client
    that wants :data:`PROCESSOR` loads neither SGLang nor torch.
    """

    def __call__(
        self, logits: torch.Tensor, custom_param_list: Sequence[dict[str, Any] | None] | None = None
    ) -> torch.Tensor:
        """Draw, in place.

        Args:
            logits: ``(rows, vocab) float32``.
            custom_param_list: per row its request's ``custom_params``, with SGLang's request as ``__req__``.

        Raises:
            RuntimeError: if this engine decodes speculatively, or counts tokens in a way that isn't known here.
        """
        import torch

        from targon.engines.torch_sampler import row_sampler, sent

        rows, draws, positions = _drawn(custom_param_list or ())
        if not rows:
            return logits
        where = sent(rows, torch.int64, logits.device)
        values = logits.index_select(0, where).float()
        chosen = row_sampler(draws, logits.device).choose(values, positions)
        logits.index_fill_(0, where, -torch.inf)
        logits[where, chosen] = 0.0
        return logits


def _drawn(all_params: Sequence[dict[str, Any] | None]) -> tuple[list[int], list[Draw], list[int]]:
    """The rows that are to be drawn, how, and their positions."""
    if len({id(params) for params in all_params if params}) < sum(1 for params in all_params if params):
        raise RuntimeError(
            "speculative decoding: got several rows of one request, expected one: start SGLang without "
            "--speculative-algorithm"
        )
    rows, draws, positions = [], [], []
    for row, params in enumerate(all_params):
        draw = _draw_of(params or {})
        if draw is None or params is None:
            continue
        position = _position(params.get("__req__"))
        if position >= 0:
            rows.append(row)
            draws.append(draw)
            positions.append(position)
    return rows, draws, positions


def _draw_of(params: Mapping[str, Any]) -> Draw | None:
    given = tuple((name, value) for name, value in params.items() if name.startswith("targon_"))
    try:
        return _parsed(given)
    except (ValueError, TypeError) as error:  # TypeError: a list or an object, where a number should be
        _logger.warning("sampling arguments refused", error=str(error))
        return None


@lru_cache(maxsize=4096)
def _parsed(given: tuple[tuple[str, Any], ...]) -> Draw | None:
    return parse_sampler_arguments(dict(given))


def _position(request: Any) -> int:  # noqa: ANN401 - a weak proxy of sglang's Req
    """How many tokens a request's answer has so far; below 0 inside its prompt."""
    committed = getattr(getattr(request, "kv", None), "kv_committed_len", None)
    if committed is None:
        raise RuntimeError(
            "this SGLang's requests have no kv.kv_committed_len, expected as in SGLang 0.5.23: the position of a "
            "token cannot be told"
        )
    position = int(committed) - len(request.origin_input_ids)
    known = len(request.output_ids)
    if position >= 0 and position - known not in (0, 1):
        raise RuntimeError(
            f"position of the next token: got {position} with {known} tokens known, expected {known} or {known + 1}: "
            "this SGLang counts otherwise than 0.5.23 does"
        )
    return position
