"""Conformance vectors: each rule of the protocol as a JSON file that any implementation can be checked with.

``python -m targon.protocol.vectors --write DIR`` computes them, ``--check DIR`` compares a folder with what this
implementation computes. The functions here read and write nothing; :mod:`targon.protocol.vectors.__main__`
does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from targon.protocol.errors import VectorMismatch
from targon.protocol.vectors import (
    audits,
    disclosures,
    economy,
    filing,
    messages,
    oracle,
    reference,
    sampling,
    text,
    tls,
)
from targon.protocol.vectors.rule import Rule, compare, render

_FILES = (messages, filing, disclosures, tls, sampling, text, economy, audits, oracle, reference)

RULES: Mapping[str, Rule] = {rule.name: rule for rules in _FILES for rule in rules.RULES}
"""Every rule by name; its file is ``NAME.json``."""


def files() -> dict[str, str]:
    """Every file of vectors, by name, as this implementation computes it."""
    return {f"{name}.json": render(rule.document()) + "\n" for name, rule in RULES.items()}


def check_files(contents: Mapping[str, str]) -> dict[str, int]:
    """Check files of vectors, by name; returns how many cases each rule has.

    Raises:
        VectorMismatch: if a file is missing, unknown or not JSON, or a case comes out otherwise.
    """
    expected = {f"{name}.json" for name in RULES}
    if contents.keys() != expected:
        missing, unknown = sorted(expected - contents.keys()), sorted(contents.keys() - expected)
        raise VectorMismatch(f"files: missing {missing}, unknown {unknown}, expected {sorted(expected)}")
    return {name: rule.check(_parsed(f"{name}.json", contents)) for name, rule in RULES.items()}


def _parsed(name: str, contents: Mapping[str, str]) -> dict[str, object]:
    try:
        document = json.loads(contents[name])
    except ValueError as error:
        raise VectorMismatch(f"{name}: not JSON: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("cases"), list):
        raise VectorMismatch(f"{name}: expected an object with a list of cases")
    return document


__all__ = ["RULES", "Rule", "check_files", "compare", "files", "render"]
