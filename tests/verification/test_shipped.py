"""Which calibration a reference engine is judged with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from targon.engines import ModelIdentity
from targon.verification import Calibration, CalibrationError, find_calibration, save_calibration
from targon.verification.calibration import load_calibration
from targon.verification.shipped import SHIPPED, engine_name
from tests.tiny_engine import TinyEngine
from tests.verification.completions import band_with

TINY = TinyEngine().identity


def calibration(bound: float = 0.5, digit: str = "d", dtype: str = "float32") -> Calibration:
    return Calibration(model_digest=digit * 64, engine="tiny", dtype=dtype, bands=(band_with((bound,) * 9),))


def of_what_is_shipped() -> ModelIdentity:
    """A reference for which a calibration comes with the software."""
    shipped = load_calibration(min(SHIPPED.glob("*.json")))
    return replace(
        TINY,
        model_digest=shipped.model_digest,
        engine=f"{shipped.engine} 9.9.9",
        dtype=shipped.dtype,
    )


def test_a_named_file_is_taken(tmp_path: Path) -> None:
    assert find_calibration(TINY, [save_calibration(calibration(), tmp_path)]) == calibration()


def test_of_a_named_folder_the_one_that_fits_is_taken(tmp_path: Path) -> None:
    for one in (calibration(digit="a"), calibration(dtype="bfloat16"), calibration(), calibration(digit="f")):
        save_calibration(one, tmp_path)
    (tmp_path / "notes.txt").write_text("no calibration")
    assert find_calibration(TINY, [tmp_path]) == calibration()


def test_places_are_looked_at_in_the_order_of_their_naming(tmp_path: Path) -> None:
    folders = []
    for bound in (0.5, 0.6):
        folders.append(tmp_path / f"{bound}")
        folders[-1].mkdir()
        save_calibration(calibration(bound), folders[-1])
    assert find_calibration(TINY, folders) == calibration(0.5)
    assert find_calibration(TINY, folders[::-1]) == calibration(0.6)


def test_what_comes_with_the_software_can_be_used_and_is_named_after_its_digest() -> None:
    files = sorted(SHIPPED.iterdir())
    assert files
    for path in files:
        assert path.suffix == ".json"
        assert load_calibration(path).digest() == path.stem
    assert find_calibration(of_what_is_shipped()) == load_calibration(min(SHIPPED.glob("*.json")))


def test_what_an_operator_made_goes_before_what_comes_with_the_software(tmp_path: Path) -> None:
    identity = of_what_is_shipped()
    own = find_calibration(identity).model_copy(update={"bands": (band_with((0.5,) * 9),)})
    save_calibration(own, tmp_path)
    assert find_calibration(identity, [tmp_path]) == own


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_digest": "e" * 64}, "model digest"),
        ({"dtype": "bfloat16"}, "dtype float32, expected bfloat16"),
        ({"engine": "vllm 1"}, "engine tiny, expected vllm"),
        ({"engine": "tiny 1 (int8)"}, r"engine tiny, expected tiny \(int8\)"),
    ],
)
def test_another_reference_is_refused_with_what_is_other_about_it(
    tmp_path: Path, changes: dict[str, str], said: str
) -> None:
    path = save_calibration(calibration(), tmp_path)
    with pytest.raises(CalibrationError, match=said) as refused:
        find_calibration(replace(TINY, **changes), [path])  # type: ignore[arg-type]
    assert path.name in str(refused.value)
    assert "for model tiny on" in str(refused.value)


@pytest.mark.parametrize("changes", [{"model_digest": "e" * 64}, {"dtype": "bfloat16"}])
def test_what_comes_with_the_software_is_for_its_own_reference_alone(changes: dict[str, str]) -> None:
    with pytest.raises(CalibrationError, match="no calibration for model tiny"):
        find_calibration(replace(of_what_is_shipped(), **changes))  # type: ignore[arg-type]


def test_a_changed_file_is_refused_even_if_another_would_fit(tmp_path: Path) -> None:
    save_calibration(calibration(), tmp_path)
    changed = tmp_path / f"{'0' * 64}.json"
    changed.write_bytes(calibration(0.9).to_bytes())
    with pytest.raises(CalibrationError, match="the file was changed or renamed"):
        find_calibration(TINY, [tmp_path])


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="could not be read"):
        find_calibration(of_what_is_shipped(), [tmp_path / "none.json"])


@pytest.mark.parametrize(
    ("engine", "name"),
    [
        ("transformers 5.19.0", "transformers"),
        ("transformers 5.20.1", "transformers"),
        ("transformers 5.19.0 (int8)", "transformers (int8)"),
        ("vllm", "vllm"),
    ],
)
def test_a_version_makes_no_other_engine_but_a_variant_does(engine: str, name: str) -> None:
    assert engine_name(replace(TINY, engine=engine)) == name
