"""A rule as conformance vectors: named inputs, and the function that says what must come of each."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from targon.protocol.errors import ProtocolError, VectorMismatch
from targon.protocol.primitives import SPEC_VERSION

Json = Any
"""Any JSON value."""

RELATIVE_TOLERANCE = 1e-12
"""Floats agree within this: two libraries' ``exp`` and ``ln`` may differ in the last bit."""

_LINE = 100


@dataclass(frozen=True, slots=True)
class Rule:
    """One file of vectors.

    Attributes:
        name: the file is ``NAME.json``.
        about: the rule in a sentence or two.
        inputs: JSON values by the name of their case.
        evaluate: what must come of an input, as a JSON value. A ``ProtocolError`` is a result too.
    """

    name: str
    about: str
    inputs: Mapping[str, Json]
    evaluate: Callable[[Json], Json]

    def document(self) -> dict[str, Json]:
        """The file's content, computed by this implementation."""
        cases = [
            {"name": name, "in": given, "out": self.result(given)} for name, given in self.inputs.items()
        ]
        return {"rule": self.name, "spec_version": SPEC_VERSION, "about": self.about, "cases": cases}

    def result(self, given: Json) -> Json:
        """What must come of one input; ``{"error": …}`` where the rule refuses it."""
        try:
            return self.evaluate(given)
        except ProtocolError as error:
            named = {key: getattr(error, key) for key in ("parameter", "field") if hasattr(error, key)}
            return {"error": type(error).__name__} | named

    def check(self, document: Mapping[str, Json]) -> int:
        """Evaluate every case of a document, and compare it with what this implementation would write.

        Returns:
            The number of cases.

        Raises:
            VectorMismatch: naming the case and the place, what was got and what was expected.
        """
        for case in document["cases"]:
            compare(self.result(case["in"]), case["out"], f"{self.name}: case {case['name']!r}: out")
        compare(self.document(), document, self.name)
        return len(document["cases"])


def compare(got: Json, expected: Json, where: str) -> None:
    """Compare two JSON values: floats within the tolerance, all else exactly.

    Raises:
        VectorMismatch: naming the place, what was got and what was expected.
    """
    if isinstance(got, dict) and isinstance(expected, dict) and got.keys() == expected.keys():
        for key in expected:
            compare(got[key], expected[key], f"{where}.{key}")
    elif isinstance(got, list) and isinstance(expected, list) and len(got) == len(expected):
        for index, (left, right) in enumerate(zip(got, expected, strict=True)):
            compare(left, right, f"{where}[{index}]")
    elif not _same(got, expected):
        raise VectorMismatch(f"{where}: got {_short(got)}, expected {_short(expected)}")


def _same(got: Json, expected: Json) -> bool:
    if isinstance(got, float) and isinstance(expected, float):
        return math.isclose(got, expected, rel_tol=RELATIVE_TOLERANCE, abs_tol=RELATIVE_TOLERANCE)
    return type(got) is type(expected) and bool(got == expected)


def _short(value: Json) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else text[:197] + "..."


def render(value: Json, indent: int = 0) -> str:
    """JSON for people: whatever fits on a line stands on one. Floats as their shortest exact decimal."""
    flat = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if len(flat) + indent <= _LINE or not isinstance(value, (dict, list)) or not value:
        return flat
    inner = " " * (indent + 1)
    if isinstance(value, dict):
        parts = [f"{inner}{json.dumps(key)}: {render(item, indent + 1)}" for key, item in value.items()]
        return "{\n" + ",\n".join(parts) + "\n" + " " * indent + "}"
    return "[\n" + ",\n".join(inner + part for part in _items(value, indent + 1)) + "\n" + " " * indent + "]"


def _items(values: Sequence[Json], indent: int) -> list[str]:
    """The items of a list, numbers and short strings several to a line."""
    if any(isinstance(value, (dict, list)) for value in values):
        return [render(value, indent) for value in values]
    lines: list[str] = []
    for item in (json.dumps(value, ensure_ascii=False, allow_nan=False) for value in values):
        if lines and len(lines[-1]) + len(item) + 2 + indent <= _LINE:
            lines[-1] += f", {item}"
        else:
            lines.append(item)
    return lines
