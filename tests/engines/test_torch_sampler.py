"""Both torch forms of the sampler draw what the plain form draws, and neither needs more than an engine brings."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from targon.engines import compiled_sampler, torch_sampler
from targon.engines.compiled_sampler import choose_fast
from targon.engines.sampler_arguments import Draw
from targon.engines.torch_sampler import CompiledRows, DeviceRows, noise_rows, row_sampler
from targon.protocol import candidates, choose
from targon.protocol.sampler import gumbel, scaled, tolerance

FORMS: dict[str, Callable[[Sequence[Draw]], CompiledRows | DeviceRows]] = {
    "compiled": CompiledRows,
    "device": lambda draws: DeviceRows(draws, "cpu"),
}
VECTORS = Path(__file__).parents[2] / "vectors"
DRAWS = [
    Draw(1, 0.0),
    Draw(2**64 - 1, 0.05),
    Draw(3, 0.8),
    Draw(4, 1.0, choice=3),
    Draw(5, 2.5),
    Draw(6, 0.8, top_p=0.95),
    Draw(7, 1.0, top_p=0.3),
    Draw(8, 1.3, top_p=0.999),
    Draw(9, 0.8, top_k=1),
    Draw(10, 1.0, top_k=20),
    Draw(11, 1.2, top_k=2_500),
    Draw(12, 1.0, top_k=40, top_p=0.9),
    Draw(13, 1.0, top_k=10_000_000, top_p=0.9),
    Draw(14, 0.0, top_k=1, top_p=0.1),
]


def cases(rule: str) -> list[dict[str, Any]]:
    return json.loads((VECTORS / f"{rule}.json").read_text("utf-8"))["cases"]


def plainly(logits: np.ndarray, draw: Draw, position: int) -> int:
    return int(choose(logits, draw.sampling(), draw.run_key, position))


def shaped_as_in_real_models(rows: int, vocab: int, seed: int = 3) -> np.ndarray:
    random = np.random.default_rng(seed)
    logits = (random.normal(size=(rows, vocab)) * random.uniform(1, 4, size=(rows, 1))).astype(np.float32)
    logits[:, 77] += 12
    return logits


@pytest.mark.parametrize("form", FORMS)
def test_the_conformance_vectors_hold(form) -> None:
    checked = 0
    for case in cases("sampler"):
        asked = case["in"]
        if "token_id" not in case.get("out", {}) or asked.get("dialect", "targon/1") == "native":
            continue
        names = ("temperature", "top_k", "top_p", "choice")
        draw = Draw(int(asked["run_key"], 16), **{name: asked[name] for name in names})
        logits = torch.tensor([[float(logit) for logit in asked["logits"]]])
        chosen = FORMS[form]([draw]).choose(logits, [asked["position"]])
        assert chosen.tolist() == [case["out"]["token_id"]], case["name"]
        checked += 1
    assert checked > 20


def test_the_noise_is_that_of_the_conformance_vectors() -> None:
    for case in cases("noise"):
        asked = case["in"]
        if asked["token_id"] > 10**6:
            continue
        key = int(asked["run_key"], 16)
        low, high, choice, position = (
            torch.tensor([[value]])
            for value in (key & (2**32 - 1), key >> 32, asked["choice"], asked["position"])
        )
        noise = noise_rows(low, high, choice, position, asked["token_id"] + 1)
        assert float(noise[0, -1]) == pytest.approx(case["out"]["g"], rel=1e-14, abs=0.0), case["name"]


@pytest.mark.parametrize("form", FORMS)
def test_rows_with_different_parameters_are_drawn_together(form) -> None:
    logits = shaped_as_in_real_models(len(DRAWS), 20_000)
    for step in range(3):
        positions = [step * 100 + row for row in range(len(DRAWS))]
        chosen = FORMS[form](DRAWS).choose(torch.from_numpy(logits), positions)
        expected = [plainly(row, *each) for row, *each in zip(logits, DRAWS, positions, strict=True)]
        assert chosen.tolist() == expected
        assert chosen.dtype == torch.int64


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("draw", DRAWS)
def test_every_cut_is_drawn_as_the_plain_form_does(form, draw: Draw) -> None:
    logits = shaped_as_in_real_models(24, 5_000)
    chosen = FORMS[form]([draw] * 24).choose(torch.from_numpy(logits), torch.arange(24))
    assert chosen.tolist() == [plainly(row, draw, at) for at, row in enumerate(logits)]


@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None, max_examples=150)
@given(
    arrays(
        np.float32,
        st.tuples(st.integers(1, 4), st.integers(1, 30)),
        elements=st.one_of(
            st.integers(-2, 2).map(float), st.floats(-(2.0**100), 2.0**100, width=32), st.just(-np.inf)
        ),
    ),
    st.lists(st.sampled_from(DRAWS), min_size=4, max_size=4),
    st.integers(0, 2**32 - 5),
)
def test_any_finite_logits_are_drawn_as_the_plain_form_does(form, logits, draws, first) -> None:
    logits[:, 0] = np.where(np.isfinite(logits).any(axis=1), logits[:, 0], 1.0)
    draws = draws[: len(logits)]
    chosen = FORMS[form](draws).choose(torch.from_numpy(logits), [first + row for row in range(len(draws))])
    for row, (token, draw) in enumerate(zip(chosen.tolist(), draws, strict=True)):
        expected = plainly(logits[row], draw, first + row)
        assert token == expected or tied(logits[row], draw, first + row, token, expected)


def tied(logits: np.ndarray, draw: Draw, position: int, token: int, expected: int) -> bool:
    """Whether two candidates are so close that another logarithm may decide otherwise."""
    scores = scaled(logits, draw.temperature)
    kept = candidates(scores, draw.top_k, draw.top_p)
    values = scores[[token, expected]] + gumbel(draw.run_key, position, draw.choice, [token, expected])
    return token in kept and abs(values[0] - values[1]) <= tolerance(float(values[1]))


@settings(deadline=None, max_examples=300)
@given(
    st.integers(2, 400),
    st.integers(0, 2**32 - 1),
    st.integers(0, 3),
    st.sampled_from([0.05, 0.7, 1.0, 3.0]),
    st.one_of(st.just(1.0), st.floats(1e-6, 1.0, exclude_max=True), st.sampled_from([0.25, 0.5, 0.75])),
    st.one_of(st.just(0), st.integers(1, 500)),
)
def test_the_compiled_cut_keeps_and_draws_exactly_what_the_plain_form_does(
    vocab, seed, levels, temperature, top_p, top_k
) -> None:
    random = np.random.default_rng(seed)
    logits = (random.normal(size=vocab) * 3).astype(np.float32)
    if levels:
        logits = np.round(logits / levels).astype(np.float32) * levels  # many equals
    draw = Draw(seed, temperature, top_k, top_p)
    assert int(choose_fast(logits, draw.sampling(), seed, 5)) == plainly(logits, draw, 5)


def test_a_cut_is_left_to_the_plain_form_where_rounding_could_turn_it(monkeypatch) -> None:
    asked: list[object] = []

    def watched(*arguments):
        asked.append(arguments)
        return choose(*arguments)

    monkeypatch.setattr(compiled_sampler, "choose", watched)
    even = np.zeros(20, dtype=np.float32)  # ten of them reach half exactly
    choose_fast(even, Draw(1, 1.0, top_p=0.5).sampling(), 1, 0)
    assert len(asked) == 1
    choose_fast(even, Draw(1, 1.0, top_p=0.52).sampling(), 1, 0)
    assert len(asked) == 1


def test_a_cut_that_leaves_very_many_is_drawn_as_the_plain_form_does() -> None:
    logits = np.random.default_rng(8).normal(size=30_000).astype(np.float32)
    for draw in (Draw(4, 1.5, top_p=0.9), Draw(4, 1.5, top_k=9_000), Draw(4, 1.5, top_k=9_000, top_p=0.9)):
        for position in range(5):
            expected = plainly(logits, draw, position)
            assert int(choose_fast(logits, draw.sampling(), 4, position)) == expected


@pytest.mark.parametrize("form", FORMS)
def test_a_row_without_numbers_gives_its_argmax_and_leaves_the_others_alone(form) -> None:
    logits = np.random.default_rng(5).normal(size=(4, 700)).astype(np.float32)
    logits[0, 5], logits[1, 6], logits[2] = np.nan, np.inf, -np.inf
    for draw in (Draw(1, 0.8), Draw(1, 0.8, top_p=0.9), Draw(1, 0.0), Draw(1, 1.0, top_k=3)):
        chosen = FORMS[form]([draw] * 4).choose(torch.from_numpy(logits), [9] * 4)
        assert chosen.tolist() == [5, 6, 0, plainly(logits[3], draw, 9)]


def test_large_batches_are_worked_on_in_parts(monkeypatch) -> None:
    logits = torch.from_numpy(shaped_as_in_real_models(len(DRAWS), 900))
    whole = DeviceRows(DRAWS, "cpu").choose(logits, [7] * len(DRAWS))
    monkeypatch.setattr(torch_sampler, "ELEMENTS_AT_ONCE", 3 * 900)
    assert DeviceRows(DRAWS, "cpu").choose(logits, [7] * len(DRAWS)).tolist() == whole.tolist()


def test_the_logits_stay_as_they_are() -> None:
    logits = shaped_as_in_real_models(len(DRAWS), 900)
    for form in FORMS.values():
        form(DRAWS).choose(torch.from_numpy(logits), [0] * len(DRAWS))
    assert (logits == shaped_as_in_real_models(len(DRAWS), 900)).all()


def test_the_host_waits_for_nothing_that_the_device_computes() -> None:
    """On the device ``meta`` tensors have no values: whatever read one would fail."""
    for draws in (DRAWS, DRAWS[:1], DRAWS[5:13]):
        logits, positions = (
            torch.empty(len(draws), 900, device="meta"),
            torch.empty(len(draws), device="meta"),
        )
        chosen = DeviceRows(draws, "meta").choose(logits, positions.long())
        assert (chosen.shape, chosen.dtype) == ((len(draws),), torch.int64)


def test_the_cpu_is_served_by_compiled_code() -> None:
    assert isinstance(row_sampler(DRAWS, "cpu"), CompiledRows)
    assert isinstance(row_sampler(DRAWS, "meta"), DeviceRows)


def test_nothing_is_imported_that_an_engine_might_not_bring() -> None:
    program = """
import sys

ABSENT = {"bittensor", "prometheus_client", "starlette", "uvicorn", "pydantic_settings", "rich"}

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"no module named {name!r} here")

sys.meta_path.insert(0, Absent())
import targon.engines.torch_sampler
import targon.engines.vllm_plugin
import targon.engines.sglang_plugin
from targon.protocol import Sampling, choose
assert not ABSENT & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
