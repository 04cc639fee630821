"""`targon engine check` against real engines, and against a TGI that replays recorded answers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from targon.cli import main
from targon.engines.default_model import ensure_default_model


def found(capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[int, Mapping[str, Any], dict[str, str]]:
    """Exit code, all that was found, and the judgement of each line."""
    capsys.readouterr()
    code = main(["engine", "check", *flags, "--as_json"])
    said = json.loads(capsys.readouterr().out)
    return code, said, {finding["what"]: finding["judgement"] for finding in said["findings"]}


def test_vllm_can_do_everything(vllm_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, said, judged = found(capsys, vllm_url)
    assert code == 0
    assert said["kind"] == "vllm"
    assert said["dialects"] == ["targon/1", "greedy", "native"]
    assert said["prompt_logprobs"] == 20
    assert (said["token_ids"], said["logprobs"], said["seeds"]) == (True, True, True)
    assert said["difference"] < 1e-4
    assert set(judged.values()) == {"good"}


def test_llama_cpp_can_serve_a_prover_but_be_no_reference(
    llama_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said, judged = found(capsys, llama_url)
    assert code == 0
    assert (said["kind"], said["dialects"], said["prompt_logprobs"]) == ("llama.cpp", ["greedy", "native"], 0)
    assert judged["tokenizer"] == judged["chat template"] == judged["weights"] == "good"
    assert judged["protocol sampler"] == judged["scores given tokens"] == "note"


def test_tgi_can_serve_greedy_work(tgi_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, said, judged = found(capsys, tgi_url)
    # recorded answers are another model's: that is found, and everything else about its API
    assert code == 1
    assert judged["weights"] == "bad"
    assert (said["kind"], said["dialects"], said["prompt_logprobs"]) == ("tgi", ["greedy", "native"], 0)
    assert said["token_ids"]
    assert said["logprobs"]


def test_a_person_gets_a_table_with_advice(llama_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["engine", "check", llama_url]) == 0
    said = capsys.readouterr().out
    assert "protocol sampler" in said
    assert "gets `greedy` work (temperature 0), which counts towards tiers and weight" in said
    assert "can't use it as its reference" in said


def test_another_template_is_diagnosed_as_such(
    vllm_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _copy(tmp_path)
    template = folder / "chat_template.jinja"
    template.write_text(
        template.read_text().replace("You are a helpful AI assistant", "You are an assistant")
    )
    code, said, judged = found(capsys, vllm_url, "--model", str(folder))
    assert code == 1
    assert (judged["tokenizer"], judged["chat template"]) == ("good", "bad")
    (line,) = [finding for finding in said["findings"] if finding["what"] == "chat template"]
    assert "helpful AI assistant" in line["got"]
    assert "--chat-template" in line["advice"]


def test_another_tokenizer_is_diagnosed_as_such(
    llama_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _copy(tmp_path)
    settings = json.loads((folder / "tokenizer.json").read_text())
    settings["model"]["merges"] = settings["model"]["merges"][:2_000]
    (folder / "tokenizer.json").write_text(json.dumps(settings))
    code, _, judged = found(capsys, llama_url, "--model", str(folder))
    assert code == 1
    assert judged["tokenizer"] == "bad"


def _copy(folder: Path) -> Path:
    """The default model's folder without its weights, as it lies beside an engine on another machine."""
    copy = folder / "model"
    shutil.copytree(ensure_default_model(), copy, ignore=shutil.ignore_patterns("*.safetensors"))
    return copy
