"""The plugin for vLLM draws every token as the plain sampler does, however vLLM moves its requests about.

vLLM isn't installed here: small stand-ins take the place of its interfaces, with their signatures.
"""

from __future__ import annotations

import enum
import importlib
import random
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from targon.engines.sampler_arguments import parse_sampler_arguments, sampler_arguments
from targon.protocol import Sampling, choose

VOCAB = 400
V1 = "vllm.v1.sample.logits_processor.interface"
V2 = "vllm.v1.worker.gpu.sample.logits_processor.interface"
PLUGIN = "targon.engines.vllm_plugin"


class Direction(enum.Enum):
    UNIDIRECTIONAL = enum.auto()
    SWAP = enum.auto()


class InterfaceV1(ABC):
    @abstractmethod
    def __init__(self, vllm_config, device, is_pin_memory): ...

    @abstractmethod
    def apply(self, logits): ...

    @abstractmethod
    def is_argmax_invariant(self): ...

    @abstractmethod
    def update_state(self, batch_update): ...


class InterfaceV2(ABC):
    def apply_staged_writes(self):
        return None

    @abstractmethod
    def apply(self, logits, ctx): ...


@pytest.fixture(params=[(V1, V2), (V1,), (V2,)], ids=["both", "only V1", "only V2"])
def interfaces(request) -> tuple[str, ...]:
    return request.param


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    yield from load(monkeypatch, (V1, V2))


def load(monkeypatch: pytest.MonkeyPatch, interfaces: tuple[str, ...]) -> Iterator[ModuleType]:
    for path in (V1, V2):
        parts = path.split(".")
        for length in range(1, len(parts)):
            package = ModuleType(".".join(parts[:length]))
            package.__path__ = []
            monkeypatch.setitem(sys.modules, package.__name__, package)
    for path in interfaces:
        module = ModuleType(path)
        monkeypatch.setattr(
            module, "LogitsProcessor", InterfaceV1 if path == V1 else InterfaceV2, raising=False
        )
        monkeypatch.setitem(sys.modules, path, module)
    monkeypatch.delitem(sys.modules, PLUGIN, raising=False)
    yield importlib.import_module(PLUGIN)
    sys.modules.pop(PLUGIN, None)


def config(**fields: object) -> SimpleNamespace:
    return SimpleNamespace(**({"speculative_config": None, "watermark_config": None} | fields))


def params(extra: dict[str, object] | None = None, **fields: object) -> SimpleNamespace:
    neutral: dict[str, object] = {
        "n": 1,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "repetition_penalty": 1.0,
    }
    neutral |= {"min_p": 0.0, "min_tokens": 0, "logit_bias": None, "allowed_token_ids": None}
    neutral |= {"bad_words": [], "structured_outputs": None, "thinking_token_budget": None}
    return SimpleNamespace(extra_args=extra, **(neutral | fields))


@dataclass(eq=False)
class Request:
    """A request, with or without the arguments, and its answer so far, in which vLLM may put -1 for a while."""

    number: int
    extra: dict[str, object] | None
    outputs: list[int] = field(default_factory=list)
    true: list[int] = field(default_factory=list)


def new_request(number: int, rng: random.Random) -> Request:
    if rng.random() < 0.25:
        return Request(number, rng.choice([None, {"another": 1}]))
    cuts: dict[str, float] = rng.choice([{}, {"top_p": 0.9}, {"top_k": 5}, {"top_k": 40, "top_p": 0.8}])
    base = {"seed": "0" * 16, "max_tokens": 1, "temperature": rng.choice([0.0, 0.7, 1.3])}
    sampling = Sampling.from_json({**base, **cuts})
    return Request(number, dict(sampler_arguments(sampling, rng.getrandbits(64))))


def logits_of(request: Request, position: int) -> np.ndarray:
    """What a model would say after so many tokens."""
    return (np.random.default_rng([request.number, position]).normal(size=VOCAB) * 3).astype(np.float32)


def check_row(row: torch.Tensor, request: Request, position: int) -> int:
    """That a row was drawn as the plain sampler does, or left untouched; returns the token."""
    logits = logits_of(request, position)
    draw = parse_sampler_arguments(request.extra)
    if draw is None:
        assert (row.numpy() == logits).all()
        return int(logits.argmax())
    token = int(choose(logits, draw.sampling(), draw.run_key, position))
    expected = np.full(VOCAB, -np.inf, np.float32)
    expected[token] = 0.0
    assert (row.numpy() == expected).all(), (request.number, position)
    return token


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_every_token_is_drawn_right_while_v1_moves_its_batch_about(plugin, seed, asynchronous) -> None:
    """vLLM: removals leave holes, additions fill the lowest of them, moves close the others; then some swap."""
    rng = random.Random(seed)
    sampler = plugin.TargonSampler(config(), torch.device("cpu"), False)
    batch: list[Request] = []
    waiting: list[Request] = []
    pending: list[tuple[Request, int]] = []
    number = drawn = 0
    for _ in range(120):
        removed = sorted(row for row in range(len(batch)) if rng.random() < 0.08)
        rows: list[Request | None] = [None if at in removed else one for at, one in enumerate(batch)]
        waiting += [batch[row] for row in removed if rng.random() < 0.5]  # preempted: comes back later
        added, moved = [], []
        for _ in range(rng.choice([0, 0, 0, 1, 2])):
            if waiting and rng.random() < 0.5:
                request = waiting.pop()
                request.outputs = list(request.outputs)  # vLLM may rebuild the list
                for at, (late, _token) in enumerate(pending):
                    if late is request:
                        request.outputs[-1] = pending.pop(at)[1]
                        break
            else:
                number += 1
                request = new_request(number, rng)
            row = removed.pop(0) if removed else len(rows)
            rows[row : row + 1] = [request]
            added.append((row, params(request.extra), [1, 2], request.outputs))
        holes = [row for row, one in enumerate(rows) if one is None]
        while holes:
            if rows[-1] is None:
                rows.pop()
                holes = [hole for hole in holes if hole < len(rows)]
                continue
            hole = holes.pop(0)
            moved.append((len(rows) - 1, hole, Direction.UNIDIRECTIONAL))
            rows[hole] = rows.pop()
        if len(rows) > 1 and rng.random() < 0.3:
            a, b = rng.sample(range(len(rows)), 2)
            rows[a], rows[b] = rows[b], rows[a]
            moved.append((a, b, Direction.SWAP))
        batch = [one for one in rows if one is not None]
        update = SimpleNamespace(batch_size=len(batch), removed=removed[::-1], added=added, moved=moved)
        sampler.update_state(update if removed or added or moved else None)
        for request, token in pending:  # the last step's tokens have arrived
            if request.outputs and request.outputs[-1] == -1:
                request.outputs[-1] = token
        pending = []
        if not batch:
            continue
        logits = torch.from_numpy(np.stack([logits_of(one, len(one.true)) for one in batch]))
        logits = sampler.apply(logits)
        for row, request in enumerate(batch):
            drawn += parse_sampler_arguments(request.extra) is not None
            token = check_row(logits[row], request, len(request.true))
            request.true.append(token)
            request.outputs.append(-1 if asynchronous else token)
            if asynchronous:
                pending.append((request, token))
    assert drawn > 100


def test_a_row_that_moved_over_another_replaces_it(plugin) -> None:
    sampler = plugin.TargonSampler(config(), torch.device("cpu"), False)
    rng = random.Random(1)
    requests = [new_request(number, rng) for number in range(50)]
    first, second = [one for one in requests if parse_sampler_arguments(one.extra)][:2]
    other = Request(99, None)
    added = [(row, params(one.extra), None, one.outputs) for row, one in enumerate((first, second, other))]
    sampler.update_state(SimpleNamespace(removed=[], added=added, moved=[]))
    sampler.update_state(SimpleNamespace(removed=[], added=[], moved=[(2, 0, Direction.UNIDIRECTIONAL)]))
    logits = torch.from_numpy(np.stack([logits_of(one, 0) for one in (other, second)]))
    sampler.apply(logits)
    check_row(logits[0], other, 0)
    check_row(logits[1], second, 0)


@pytest.mark.parametrize("seed", range(4))
def test_every_token_is_drawn_right_while_v2_reuses_its_slots(plugin, seed) -> None:
    rng = random.Random(seed)
    slots = 6
    prompt_len = torch.zeros(slots, dtype=torch.int32)
    states = SimpleNamespace(device=torch.device("cpu"), prompt_len=SimpleNamespace(gpu=prompt_len))
    sampler = plugin.TargonSampler(config(), states)
    held: dict[int, Request] = {}
    number = drawn = 0
    for _ in range(120):
        for slot in [slot for slot in held if rng.random() < 0.1]:
            del held[slot]
        for slot in set(range(slots)) - set(held):
            if rng.random() < 0.4:
                number += 1
                request = held[slot] = new_request(number, rng)
                prompt_len[slot] = rng.randrange(1, 50)
                expected = parse_sampler_arguments(request.extra) is not None
                assert sampler.add_request(slot, params(request.extra)) is expected
        sampler.apply_staged_writes()
        step = [slot for slot in held if rng.random() < 0.9]
        if not step:
            continue
        rng.shuffle(step)  # rows are laid out anew in every step
        mapping = torch.tensor(step, dtype=torch.int32)
        at = torch.tensor([int(prompt_len[slot]) + len(held[slot].true) - 1 for slot in step])
        ctx = SimpleNamespace(
            expanded_idx_mapping=mapping, idx_mapping=mapping, idx_mapping_np=mapping.numpy(), pos=at
        )
        rows = [held[slot] for slot in step]
        logits = torch.from_numpy(np.stack([logits_of(one, len(one.true)) for one in rows]))
        logits = sampler.apply(logits, ctx)
        for row, request in zip(logits, rows, strict=True):
            drawn += parse_sampler_arguments(request.extra) is not None
            request.true.append(check_row(row, request, len(request.true)))
    assert drawn > 100


def test_what_v2_draws_inside_a_prompt_is_thrown_away_and_breaks_nothing(plugin) -> None:
    states = SimpleNamespace(
        device=torch.device("cpu"), prompt_len=SimpleNamespace(gpu=torch.tensor([900], dtype=torch.int32))
    )
    sampler = plugin.TargonSampler(config(), states)
    sampler.add_request(0, params({"targon_run_key": "0" * 16, "targon_temperature": 1.0}))
    mapping = torch.zeros(1, dtype=torch.int32)
    ctx = SimpleNamespace(
        expanded_idx_mapping=mapping, idx_mapping_np=mapping.numpy(), pos=torch.tensor([511])
    )
    assert torch.isfinite(sampler.apply(torch.zeros(1, VOCAB), ctx)).sum() == 1


def test_under_v2_the_host_waits_for_nothing_that_the_device_computes(plugin) -> None:
    """On the device ``meta`` tensors have no values: whatever read one would fail."""
    lengths = SimpleNamespace(gpu=torch.zeros(4, dtype=torch.int32, device="meta"))
    sampler = plugin.TargonSampler(config(), SimpleNamespace(device=torch.device("meta"), prompt_len=lengths))
    sampler.add_request(
        3, params({"targon_run_key": "0" * 16, "targon_temperature": 1.0, "targon_top_p": 0.9})
    )
    sampler.add_request(1, params(None))
    slots = np.array([1, 3], np.int32)
    ctx = SimpleNamespace(
        idx_mapping_np=slots,
        expanded_idx_mapping=torch.zeros(2, dtype=torch.int32, device="meta"),
        pos=torch.zeros(2, dtype=torch.int64, device="meta"),
    )
    assert sampler.apply(torch.zeros(2, VOCAB, device="meta"), ctx).shape == (2, VOCAB)


def test_v2_rows_that_are_not_one_per_request_are_refused(plugin) -> None:
    states = SimpleNamespace(device=torch.device("cpu"), prompt_len=None)
    sampler = plugin.TargonSampler(config(), states)
    sampler.add_request(0, params({"targon_run_key": "0" * 16, "targon_temperature": 1.0}))
    ctx = SimpleNamespace(idx_mapping_np=np.zeros(1, np.int32))
    with pytest.raises(ValueError, match="got 3 rows for 1 requests"):
        sampler.apply(torch.zeros(3, VOCAB), ctx)


def test_it_is_a_processor_of_whichever_interfaces_there_are(monkeypatch, interfaces) -> None:
    for plugin in load(monkeypatch, interfaces):
        assert issubclass(plugin.TargonSampler, InterfaceV1) is (V1 in interfaces)
        assert issubclass(plugin.TargonSampler, InterfaceV2) is (V2 in interfaces)
        if V1 in interfaces:
            assert plugin.TargonSampler(config(), torch.device("cpu"), False).is_argmax_invariant() is False


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 2),
        ("presence_penalty", 0.5),
        ("frequency_penalty", -0.5),
        ("repetition_penalty", 1.1),
        ("min_p", 0.1),
        ("min_tokens", 4),
        ("logit_bias", {5: 1.0}),
        ("allowed_token_ids", [1]),
        ("bad_words", ["no"]),
        ("structured_outputs", SimpleNamespace(json={})),
        ("thinking_token_budget", 10),
    ],
)
def test_a_parameter_that_would_change_the_draw_is_refused_by_name(plugin, name, value) -> None:
    extra = {"targon_run_key": "0" * 16, "targon_temperature": 1.0}
    plugin.TargonSampler.validate_params(params(extra))
    with pytest.raises(ValueError, match=rf"^{name}: got .*, expected .* beside targon_ arguments"):
        plugin.TargonSampler.validate_params(params(extra, **{name: value}))
    plugin.TargonSampler.validate_params(params(None, **{name: value}))


def test_malformed_arguments_are_refused_by_name(plugin) -> None:
    with pytest.raises(ValueError, match=r"^targon_run_key: got '1'"):
        plugin.TargonSampler.validate_params(params({"targon_run_key": "1", "targon_temperature": 1.0}))


@pytest.mark.parametrize("name", ["speculative_config", "watermark_config"])
def test_an_engine_that_decodes_speculatively_or_watermarks_is_refused(plugin, name) -> None:
    with pytest.raises(ValueError, match=f"got a {name}, expected none"):
        plugin.TargonSampler(config(**{name: SimpleNamespace()}), torch.device("cpu"), False)
