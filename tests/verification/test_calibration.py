"""Where what honest runs say may be used, and the files that it is kept in."""

from __future__ import annotations

import pytest

from targon.protocol.messages import Sampling
from targon.verification.calibration import (
    Band,
    Calibration,
    CalibrationError,
    NoBand,
    Range,
    load_calibration,
    save_calibration,
)
from tests.verification.completions import (
    SCOPE,
    band_with,
    measured,
)

CALIBRATION = Calibration(
    model_digest="ab" * 32, engine="transformers", dtype="float32", bands=(band_with(),)
)


def sampling(**changes) -> Sampling:
    return Sampling(
        **(
            {"dialect": "targon/1", "seed": "00" * 8, "temperature": 0.8, "top_p": 0.95, "max_tokens": 64}
            | changes
        )
    )


# where it may be used


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dialect": "greedy", "temperature": 0.0, "top_p": 1.0}, "dialect greedy"),
        ({"temperature": 1.21}, "temperature 1.21 (calibrated: 0.05 to 1.2)"),
        ({"top_p": 0.5}, "top_p 0.5 (calibrated: 0.9 to 1)"),
        ({"top_k": 20}, "top_k 20 (calibrated: 0, 50)"),
        ({"max_tokens": 257}, "max_tokens 257 (calibrated: up to 256)"),
    ],
)
def test_parameters_outside_every_band_have_no_evidence_and_a_reason(changes, said):
    found = CALIBRATION.band_for(sampling(**changes), prompt_tokens=10)
    assert isinstance(found, NoBand)
    assert said in found.reason


def test_a_prompt_longer_than_any_that_was_measured_has_no_evidence():
    found = CALIBRATION.band_for(sampling(), prompt_tokens=513)
    assert found == NoBand("outside of what was calibrated: a prompt of 513 tokens (calibrated: up to 512)")


def test_a_replay_from_a_list_is_not_judged_by_bounds_of_whole_replays():
    found = CALIBRATION.band_for(sampling(), prompt_tokens=10, replay="list")
    assert found == NoBand("outside of what was calibrated: a replay from the list (calibrated: whole)")


@pytest.mark.parametrize(
    "changes", [{"temperature": 0.05}, {"temperature": 1.2}, {"top_k": 50}, {"max_tokens": 256}]
)
def test_the_ends_of_a_band_belong_to_it(changes):
    assert isinstance(CALIBRATION.band_for(sampling(**changes), prompt_tokens=512), Band)


def test_the_band_that_covers_a_request_is_found_among_several():
    warm = SCOPE.model_copy(update={"temperature": Range(low=1.2, high=2.0)})
    other = band_with().model_copy(update={"scope": warm})
    both = CALIBRATION.model_copy(update={"bands": (*CALIBRATION.bands, other)})
    assert both.band_for(sampling(temperature=1.5), prompt_tokens=10) == other


@pytest.mark.parametrize(
    "changed",
    [{"model_digest": "cd" * 32}, {"engine": "vllm"}, {"dtype": "bfloat16"}],
)
def test_another_reference_is_refused(changed):
    given_ = {"model_digest": "ab" * 32, "engine": "transformers", "dtype": "float32"}
    CALIBRATION.check_reference(**given_)
    with pytest.raises(CalibrationError, match="another reference"):
        CALIBRATION.check_reference(**(given_ | changed))


# the file


def test_a_saved_calibration_is_named_after_its_digest_and_comes_back_whole(tmp_path):
    made = Calibration(model_digest="ab" * 32, engine="e", dtype="float32", bands=(measured(50),))
    path = save_calibration(made, tmp_path)
    assert path.name == f"{made.digest()}.json"
    assert load_calibration(path) == made
    assert load_calibration(path, made.digest()) == made


def test_a_changed_file_is_refused(tmp_path):
    path = save_calibration(CALIBRATION, tmp_path)
    path.write_bytes(path.read_bytes().replace(b'"bound":0.85', b'"bound":0.95'))
    with pytest.raises(CalibrationError, match="the file was changed or renamed"):
        load_calibration(path)


def test_another_calibration_than_the_one_asked_for_is_refused(tmp_path):
    path = save_calibration(CALIBRATION, tmp_path)
    with pytest.raises(CalibrationError, match="expected 0000"):
        load_calibration(path, "0" * 64)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": 2}', b"\xff"])
def test_a_file_that_is_no_calibration_is_refused(tmp_path, content):
    path = tmp_path / "c.json"
    path.write_bytes(content)
    with pytest.raises(CalibrationError, match="not a calibration"):
        load_calibration(path)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(CalibrationError, match="could not be read"):
        load_calibration(tmp_path / "none.json")


def test_a_range_the_wrong_way_round_is_refused():
    with pytest.raises(ValueError, match="expected low <= high"):
        Range(low=1.0, high=0.5)
