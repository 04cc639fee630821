"""The calibrations that come with the software, and those that an operator made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from targon.engines import ModelIdentity
from targon.verification.calibration import Calibration, CalibrationError, load_calibration

SHIPPED = Path(__file__).parent / "calibrations"
"""One file for each model and reference that was measured; a file's name is its digest."""


def find_calibration(identity: ModelIdentity, places: Iterable[Path] = ()) -> Calibration:
    """The calibration for a reference engine: the first that is made for its model, engine and number format.

    Args:
        identity: of the reference.
        places: files, and folders of them, that go before what comes with the software.

    Raises:
        CalibrationError: if there is none, or one of the files named can't be used.
    """
    refusals = []
    for path in _files([*places, SHIPPED]):
        calibration = load_calibration(path)
        try:
            calibration.check_reference(identity.model_digest, engine_name(identity), identity.dtype)
        except CalibrationError as error:
            refusals.append(f"{path.name}: {error}")
            continue
        return calibration
    looked = "; ".join(refusals) or "there is none at all"
    raise CalibrationError(
        f"no calibration for model {identity.name} on {identity.engine} in {identity.dtype}: {looked}"
    )


def engine_name(identity: ModelIdentity) -> str:
    """The name that a calibration knows an engine by: without its version, which may change, but with what
    makes it another engine."""
    name, _, rest = identity.engine.partition(" ")
    _, _, variant = rest.partition(" ")
    return f"{name} {variant}".strip()


def _files(places: Iterable[Path]) -> Iterator[Path]:
    for place in places:
        if place.is_dir():
            yield from sorted(place.glob("*.json"))
        else:
            yield place
