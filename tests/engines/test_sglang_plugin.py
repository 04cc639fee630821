"""The plugin for SGLang draws every token as the plain sampler does, and is named by a constant text."""

from __future__ import annotations

import gc
import json
import pickle
import pickletools
import subprocess
import sys
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from targon.engines.sampler_arguments import sampler_arguments
from targon.engines.sglang_plugin import PROCESSOR, TargonSampler
from targon.protocol import Sampling, choose

VOCAB = 400
SAMPLING = Sampling.from_json({"seed": "0" * 16, "max_tokens": 1, "temperature": 0.9, "top_p": 0.95})


class Req:
    """As much of SGLang's request as the plugin reads, moved on as its scheduler does."""

    def __init__(self, run_key: int, prompt: int) -> None:
        self.run_key = run_key
        self.origin_input_ids = list(range(prompt))
        self.output_ids: list[int] = []
        self.kv = SimpleNamespace(kv_committed_len=0)
        self.params = {**sampler_arguments(SAMPLING, run_key), "__req__": weakref.proxy(self)}

    def prefill(self, up_to: int | None = None) -> None:
        length = len(self.origin_input_ids) + len(self.output_ids)
        self.kv.kv_committed_len = length if up_to is None else up_to

    def decode(self) -> None:
        self.kv.kv_committed_len += 1


def logits_of(run_key: int, position: int) -> np.ndarray:
    return (np.random.default_rng([run_key, position]).normal(size=VOCAB) * 3).astype(np.float32)


def expected(run_key: int, position: int) -> int:
    return int(choose(logits_of(run_key, position), SAMPLING, run_key, position))


def draw(requests: list[Req], positions: list[int]) -> list[int]:
    """One step of SGLang: the tokens of some requests, whose positions are as told."""
    logits = torch.from_numpy(
        np.stack([logits_of(one.run_key, at) for one, at in zip(requests, positions, strict=True)])
    )
    left = TargonSampler()(logits, [one.params for one in requests])
    assert (torch.isfinite(left).sum(dim=1) == 1).all()
    assert (left.amax(dim=1) == 0.0).all()
    return left.argmax(dim=1).tolist()


def test_tokens_are_drawn_right_though_results_come_one_step_late() -> None:
    requests = [Req(key, prompt=5 + key) for key in range(3)]
    for one in requests:
        one.prefill()
    late = draw(requests, [0, 0, 0])
    for position in range(1, 12):
        for one in requests:
            one.decode()
        tokens = draw(requests, [position] * 3)
        for one, token in zip(requests, late, strict=True):
            assert token == expected(one.run_key, position - 1)
            one.output_ids.append(token)
        late = tokens


def test_tokens_are_drawn_right_where_every_result_is_waited_for() -> None:
    one = Req(7, prompt=3)
    one.prefill()
    for position in range(8):
        assert draw([one], [position]) == [expected(7, position)]
        one.output_ids.append(expected(7, position))
        one.decode()


def test_a_request_that_was_retracted_goes_on_where_it_was() -> None:
    one = Req(7, prompt=3)
    one.output_ids = [expected(7, position) for position in range(4)]
    one.kv.kv_committed_len = 0
    one.prefill()
    assert draw([one], [4]) == [expected(7, 4)]


def test_inside_a_prompt_nothing_is_drawn() -> None:
    one, other = Req(7, prompt=30), Req(8, prompt=3)
    one.prefill(up_to=10)
    other.prefill()
    logits = torch.from_numpy(np.stack([logits_of(7, 0), logits_of(8, 0)]))
    left = TargonSampler()(logits.clone(), [one.params, other.params])
    assert (left[0] == logits[0]).all()
    assert int(left[1].argmax()) == expected(8, 0)


@pytest.mark.parametrize("theirs", [None, {}, {"thinking_budget": 3}])
def test_rows_of_others_are_left_as_they_are(theirs) -> None:
    one = Req(7, prompt=3)
    one.prefill()
    logits = torch.from_numpy(np.stack([logits_of(1, 0), logits_of(7, 0)]))
    left = TargonSampler()(logits.clone(), [theirs, one.params])
    assert (left[0] == logits[0]).all()
    assert int(left[1].argmax()) == expected(7, 0)
    assert TargonSampler()(logits.clone(), None).equal(logits)


@pytest.mark.parametrize("wrong", [{"targon_top_p": 2.0}, {"targon_top_k": [3]}, {"targon_run_key": "x"}])
def test_malformed_arguments_are_one_requests_trouble(wrong) -> None:
    one, other = Req(7, prompt=3), Req(8, prompt=3)
    one.prefill()
    other.prefill()
    one.params |= wrong
    logits = torch.from_numpy(np.stack([logits_of(7, 0), logits_of(8, 0)]))
    left = TargonSampler()(logits.clone(), [one.params, other.params])
    assert (left[0] == logits[0]).all()
    assert int(left[1].argmax()) == expected(8, 0)


def test_an_engine_that_counts_otherwise_is_not_drawn_for() -> None:
    one = Req(7, prompt=3)
    one.prefill()
    one.kv.kv_committed_len += 2
    with pytest.raises(RuntimeError, match="got 2 with 0 tokens known, expected 0 or 1"):
        draw([one], [0])
    del one.kv
    with pytest.raises(RuntimeError, match="kv_committed_len"):
        draw([one], [0])


def test_several_rows_of_one_request_are_refused() -> None:
    one = Req(7, prompt=3)
    one.prefill()
    with pytest.raises(RuntimeError, match="speculative decoding"):
        TargonSampler()(torch.zeros(2, VOCAB), [one.params, one.params])


def test_no_request_is_kept_alive() -> None:
    one = Req(7, prompt=3)
    one.prefill()
    draw([one], [0])
    gone = weakref.ref(one)
    del one
    gc.collect()
    assert gone() is None


def test_the_constant_names_the_class_and_carries_no_code() -> None:
    data = bytes.fromhex(json.loads(PROCESSOR)["callable"])
    steps = [(op.name, argument) for op, argument, _ in pickletools.genops(data)]
    assert [argument for name, argument in steps if name == "SHORT_BINUNICODE"] == [
        TargonSampler.__module__,
        TargonSampler.__name__,
    ]
    harmless = {"PROTO", "FRAME", "SHORT_BINUNICODE", "MEMOIZE", "STACK_GLOBAL", "STOP"}
    assert {name for name, _ in steps} == harmless
    assert ("FRAME", len(data) - 11) in steps


def test_the_constant_is_what_sglang_would_write() -> None:
    """SGLang writes it with dill, which names a class that can be imported just as pickle does."""
    data = pickle.dumps(TargonSampler, protocol=4)
    assert json.dumps({"callable": data.hex()}) == PROCESSOR


def test_naming_it_loads_neither_torch_nor_sglang() -> None:
    program = """
import sys
from targon.engines.sglang_plugin import PROCESSOR
assert not {"torch", "sglang", "dill"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
