"""What can go wrong with private inputs.

OracleError
├── NoText               a source holds too little text to draw from
└── PassagesExhausted    every passage of a source was used
"""

from __future__ import annotations


class OracleError(Exception):
    """No private input can be had. It is the asker's trouble, never a prover's."""


class NoText(OracleError):
    """A source holds too little text to draw from."""

    def __init__(self, place: str, found: int, expected: int) -> None:
        self.place = place
        self.found = found
        self.expected = expected
        super().__init__(
            f"{place}: got {found} passages of prose, expected at least {expected}; this Python seems to be "
            "installed without its library's .py files: use one that has them"
        )


class PassagesExhausted(OracleError):
    """Every passage of a source was used."""

    def __init__(self, passages: int) -> None:
        self.passages = passages
        super().__init__(
            f"all {passages} passages were used; forget them to begin a new round, or use another source"
        )
