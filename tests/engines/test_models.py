"""Models in folders: the default one and its digest, other number formats, and less than the promised model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from targon.engines import EngineUnavailable
from targon.engines.default_model import ensure_default_model
from targon.engines.model_digest import MANIFEST, model_digest
from targon.engines.model_runner import ModelRunner, ScoreRow
from targon.engines.transformers_engine import TransformersEngine, open_transformers_engine
from targon.engines.variants import fp8_round_trip, int4_round_trip, int8_round_trip
from targon.protocol.primitives import TokenId

from .tasks import agreement, answer, claim, ids_of, replayed, task

DEFAULT_DIGEST = "0cc634db8d9472d6cc6ffc393b41e0eb219ae4f617f9ea672469b08d300f00ba"


def test_of_several_processes_one_converts_the_default_model_the_same_way_everywhere(tmp_path: Path) -> None:
    program = "from targon.engines.default_model import ensure_default_model\nprint('folder', ensure_default_model())"
    environment = {**os.environ, "TARGON_CACHE": str(tmp_path)}
    killed = tmp_path / "models" / ".SmolLM2-135M-Instruct-bf16-v1-killed"
    killed.mkdir(parents=True)
    processes = [
        subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=600)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert "".join(said).count("converting the default model") == 1
    (folder,) = {
        line.partition(" ")[2] for text in said for line in text.splitlines() if line.startswith("folder")
    }
    assert model_digest(Path(folder)) == DEFAULT_DIGEST
    assert [entry.name for entry in Path(folder).parent.iterdir() if entry.name.startswith(".")] == []


def test_the_digest_changes_with_each_part_and_with_nothing_else(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(tiny_model, folder)
    digests = [model_digest(folder)]
    (folder / MANIFEST).unlink()
    assert model_digest(folder) == digests[0]

    settings = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(
        json.dumps({**settings, "transformers_version": "0"}, indent=7)
    )
    assert model_digest(folder) == digests[0]
    (folder / "generation_config.json").write_text(json.dumps({**settings, "temperature": 0.5}))
    digests.append(model_digest(folder))
    for name in ("model.safetensors", "tokenizer.json", "chat_template.jinja"):
        data = bytearray((folder / name).read_bytes())
        data[-1] ^= 1
        (folder / name).write_bytes(data)
        digests.append(model_digest(folder))
    assert len(set(digests)) == 5


def test_a_folder_without_a_model_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match=r"expected a folder with \*\.safetensors"):
        model_digest(tmp_path)


@pytest.mark.anyio
async def test_honest_bf16_answers_nearly_agree_with_an_fp32_reference(
    fp32_engine: TransformersEngine, bf16_engine: TransformersEngine
) -> None:
    asked = task(max_tokens=64)
    steps = await answer(bf16_engine, asked)
    (scores,) = await fp32_engine.score([claim(asked, steps)])
    assert agreement(ids_of(steps), replayed(asked, scores)) >= 0.9
    assert bf16_engine.identity.dtype == "bfloat16"
    assert bf16_engine.identity.model_digest == fp32_engine.identity.model_digest == DEFAULT_DIGEST


@pytest.mark.anyio
async def test_int4_answers_are_far_from_an_fp32_reference(fp32_engine: TransformersEngine) -> None:
    asked = task(max_tokens=32)
    async with open_transformers_engine(variant="int4") as engine:
        steps = await answer(engine, asked)
        assert engine.identity.engine.endswith("(int4)")
    (scores,) = await fp32_engine.score([claim(asked, steps)])
    assert agreement(ids_of(steps), replayed(asked, scores)) < 0.9


@pytest.mark.parametrize(
    ("round_trip", "least", "most"),
    [(int8_round_trip, 1e-4, 0.02), (fp8_round_trip, 1e-3, 0.1), (int4_round_trip, 0.02, 0.3)],
)
def test_a_round_trip_loses_about_what_its_format_cannot_hold(round_trip, least: float, most: float) -> None:  # type: ignore[no-untyped-def]
    weight = torch.randn(128, 256, generator=torch.Generator().manual_seed(1))
    error = float((round_trip(weight) - weight).norm() / weight.norm())
    assert least < error < most
    assert torch.allclose(round_trip(round_trip(weight)), round_trip(weight), atol=1e-5)


def scores_of(folder: Path, variant: str | None) -> np.ndarray:
    runner = ModelRunner(folder, dtype="float32", variant=variant)
    (scores,) = runner.score([ScoreRow(tuple(map(TokenId, range(100, 120))), 10, 0)])
    return scores.top_logprobs


def test_each_variant_is_a_model_of_its_own(tiny_model: Path) -> None:
    found = [scores_of(tiny_model, variant) for variant in (None, "int4", "int8", "fp8", "layers:2")]
    for place, one in enumerate(found):
        assert np.isfinite(one).all()
        assert all(not np.array_equal(one, other) for other in found[:place])


@pytest.mark.parametrize(
    "variant",
    [
        "int1",
        "int4:7",
        "kv8:8",
        "layers",
        "layers:0",
        "layers:4",
        "layers:x",
        "skip:0",
        "skip:3",
        "second",
        "second:0",
        "second:x",
    ],
)
def test_a_variant_that_does_not_exist_is_refused_by_name(tiny_model: Path, variant: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        ModelRunner(tiny_model, dtype="float32", variant=variant)


def test_a_number_format_that_does_not_exist_is_refused_by_name(tiny_model: Path) -> None:
    with pytest.raises(ValueError, match="got 'float16', expected one of float32, bfloat16"):
        ModelRunner(tiny_model, dtype="float16", variant=None)


def test_a_model_with_a_sliding_window_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sliding"
    shutil.copytree(tiny_model, folder)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "sliding_window": 16}))
    with pytest.raises(EngineUnavailable, match="sliding window"):
        ModelRunner(folder, dtype="float32", variant=None)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_that_does_more_than_its_body_and_its_head_is_refused(tmp_path: Path, dtype: str) -> None:
    """Granite divides its logits after the head; a model that divides by 1 can be run here."""
    from transformers import GraniteConfig, GraniteForCausalLM

    def made(name: str, divisor: float) -> Path:
        torch.manual_seed(1)
        size = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 512}
        heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "initializer_range": 0.3}
        model = GraniteForCausalLM(GraniteConfig(**size, **heads, logits_scaling=divisor))
        model.save_pretrained(tmp_path / name)
        return tmp_path / name

    ModelRunner(made("plain", 1.0), dtype=dtype, variant=None)
    with pytest.raises(EngineUnavailable, match=r"run in parts, differ .* use another engine"):
        ModelRunner(made("divided", 2.0), dtype=dtype, variant=None)


def test_a_chat_template_that_reads_the_clock_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    from targon.engines.chat import ChatTokenizer

    folder = tmp_path / "clock"
    shutil.copytree(tiny_model, folder)
    (folder / "chat_template.jinja").write_text("{{ strftime_now('%Y') }}")
    with pytest.raises(EngineUnavailable, match="reads the clock"):
        ChatTokenizer(folder)


def test_the_default_model_is_found_at_once_the_second_time() -> None:
    assert ensure_default_model() == ensure_default_model()
