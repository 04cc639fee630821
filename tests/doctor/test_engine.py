"""Engines: at an address, at a socket, and one that would be started."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from targon.doctor import EnginePlace
from targon.doctor import engine as room
from targon.doctor.engine import check_calibration, check_engine, judge_remote
from targon.doctor.machine import GIB
from targon.engines import serve_engine
from targon.engines.remote.folder import ModelFolder
from tests.doctor.looks import look, only
from tests.engines.remote.fake_vllm import engine_at, healthy_vllm, model_folder
from tests.engines.remote.scripted_server import serving
from tests.neuron_processes import free_port
from tests.tiny_engine import TinyEngine

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def opened_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading the model's folder takes most of a second."""
    model_folder()
    monkeypatch.setattr(ModelFolder, "open", lambda _: model_folder())


async def test_an_engine_at_an_address_that_has_all_is_good_for_either_role() -> None:
    async with serving(healthy_vllm()) as server:
        result = await check_engine(EnginePlace(url=server.url), reference=True)
        prover = await look(check_engine(EnginePlace(url=server.url), reference=False))
    assert (only(result).outcome, prover.outcome) == ("good", "good")
    assert result.value.model_digest == model_folder().digest


async def test_an_engine_that_does_not_answer_is_bad_and_the_command_that_tells_more_is_named() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    result = await check_engine(EnginePlace(url=url), reference=False)
    assert (only(result).outcome, result.value) == ("bad", None)
    assert f"targon engine check {url}" in only(result).advice


async def test_an_engine_with_another_model_is_bad() -> None:
    async with serving(healthy_vllm(template=lambda ids: ids[1:])) as server:
        result = await check_engine(EnginePlace(url=server.url), reference=False)
    assert ("bad" in {one.outcome for one in result.findings}, result.value) == (True, None)


async def test_an_engine_without_the_sampler_serves_a_prover_with_a_note() -> None:
    async with serving(healthy_vllm(sampler=False)) as server:
        result = await check_engine(EnginePlace(url=server.url), reference=False)
    assert [one.outcome for one in result.findings] == ["good", "note"]
    assert "--logits-processors" in result.findings[1].advice


async def test_an_engine_that_scores_nothing_is_bad_as_a_reference_and_no_matter_to_a_prover() -> None:
    async with engine_at("http://127.0.0.1:9") as engine:
        engine.capabilities = replace(engine.capabilities, prompt_logprobs=0)
        place = EnginePlace(url="http://127.0.0.1:9")
        reference = only(judge_remote(engine, place, reference=True))
        prover = only(judge_remote(engine, place, reference=False))
    assert (reference.outcome, "it can be no reference" in reference.found) == ("bad", True)
    assert prover.outcome == "good"


async def test_an_engine_with_text_alone_is_told_to_earn_nothing() -> None:
    async with engine_at("http://127.0.0.1:9", dialects=("native",)) as engine:
        engine.capabilities = replace(engine.capabilities, dialects=("native",))
        result = judge_remote(engine, EnginePlace(url="http://127.0.0.1:9"), reference=False)
    assert [one.outcome for one in result.findings] == ["good", "note"]
    assert "earns nothing" in result.findings[1].found


async def test_an_engine_that_computes_otherwise_than_promised_is_bad() -> None:
    async with engine_at("http://127.0.0.1:9") as engine:
        engine.capabilities = replace(engine.capabilities, difference=0.03)
        place = EnginePlace(url="http://127.0.0.1:9", dtype="float32")
        finding = only(judge_remote(engine, place, reference=True))
    assert (finding.outcome, "0.03 nats off" in finding.found) == ("bad", True)


async def test_a_password_in_an_address_is_not_repeated() -> None:
    finding = await look(check_engine(EnginePlace(url="http://me:sk-secret@127.0.0.1:9"), reference=False))
    assert (finding.outcome, "sk-secret" in finding.found + finding.advice) == ("bad", False)


async def test_two_engines_are_one_too_many() -> None:
    place = EnginePlace(url="http://127.0.0.1:9", socket=Path("engine.sock"))
    assert (await look(check_engine(place, reference=False))).outcome == "bad"


async def test_an_engine_at_a_socket_is_good_while_it_works(tmp_path: Path) -> None:
    path, tiny = tmp_path / "run" / "engine.sock", TinyEngine()
    async with serve_engine(tiny, path):
        result = await check_engine(EnginePlace(socket=path), reference=True)
        tiny.down = True
        down = await look(check_engine(EnginePlace(socket=path), reference=True))
    gone = await look(check_engine(EnginePlace(socket=path), reference=True))
    assert (only(result).outcome, down.outcome, gone.outcome) == ("good", "bad", "bad")
    assert result.value == tiny.identity
    assert gone.advice == f"targon engine --socket {path}"


async def test_the_engine_that_would_be_started_is_known_and_calibrated() -> None:
    result = await check_engine(EnginePlace(), reference=True)
    assert (only(result).outcome, result.value.model_digest) == ("good", model_folder().digest)
    calibration = only(check_calibration(result.value, None))
    assert (calibration.outcome, "for this model on transformers in float32" in calibration.found) == (
        "good",
        True,
    )


async def test_an_engine_without_a_calibration_is_bad_for_a_verifier() -> None:
    result = await check_engine(EnginePlace(dtype="bfloat16"), reference=True)
    finding = only(check_calibration(result.value, None))
    assert (finding.outcome, "targon calibrate" in finding.advice) == ("bad", True)


def test_a_calibration_that_was_named_and_is_not_there_is_bad(tmp_path: Path) -> None:
    finding = only(check_calibration(TinyEngine().identity, tmp_path / "gone.json"))
    assert (finding.outcome, "could not be read" in finding.found) == ("bad", True)


async def test_packages_that_an_engine_needs_and_that_are_missing_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room, "PACKAGES", (*room.PACKAGES, "nosuchpackage"))
    finding = await look(check_engine(EnginePlace(), reference=False))
    assert (finding.outcome, finding.found.endswith("are missing: nosuchpackage")) == ("bad", True)
    assert "targon[engine]" in finding.advice


async def test_a_folder_without_a_model_is_bad(tmp_path: Path) -> None:
    finding = await look(check_engine(EnginePlace(model=str(tmp_path)), reference=False))
    assert (finding.outcome, "expected a folder with *.safetensors" in finding.found) == ("bad", True)


async def test_a_model_without_its_settings_is_bad(tmp_path: Path) -> None:
    real = EnginePlace().folder
    for file in real.iterdir():
        if file.name != "config.json":
            (tmp_path / file.name).symlink_to(file)
    finding = await look(check_engine(EnginePlace(model=str(tmp_path)), reference=False))
    assert (finding.outcome, "config.json" in finding.advice) == ("bad", True)


async def test_a_default_model_that_is_still_to_be_converted_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TARGON_CACHE", str(tmp_path))
    result = await check_engine(EnginePlace(), reference=False)
    assert (only(result).outcome, "converted first" in only(result).found, result.value) == (
        "note",
        True,
        None,
    )
    assert 1 * GIB < EnginePlace().memory < 4 * GIB


def test_memory_is_counted_for_an_engine_that_is_started_alone() -> None:
    started, half = EnginePlace(), EnginePlace(dtype="bfloat16")
    weights = sum(file.stat().st_size for file in started.folder.glob("*.safetensors"))
    assert started.memory - half.memory == weights
    assert EnginePlace(url="http://127.0.0.1:9").memory == 0


async def test_what_is_said_of_an_engine_before_it_starts_is_what_it_says_when_it_runs(
    engine_socket: Path,
) -> None:
    before = (await check_engine(EnginePlace(), reference=True)).value
    running = (await check_engine(EnginePlace(socket=engine_socket), reference=True)).value
    for name in ("model_digest", "engine", "dtype", "name", "vocab_size", "context_length", "dialects"):
        assert getattr(before, name) == getattr(running, name), name
