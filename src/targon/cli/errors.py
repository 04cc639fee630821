"""The errors of the command line: sentences for the person at the keyboard.

CommandError            it could not be done (exit code 1)
├── WrongOptions        it was asked for wrongly (exit code 2)
└── NoStanding          a verifier tells a prover no standing
    ├── ServesNothing   it is no neuron of the subnet, or announces no address
    ├── DoesNotKnowUs   it has no prover by our hotkey
    ├── Refuses         it doesn't serve us, and says why
    └── DoesNotAnswer   nobody answers there, or somebody else does
"""

from __future__ import annotations

from collections.abc import Iterable


class CommandError(Exception):
    """What was wrong, what was expected, and what to do."""


class WrongOptions(CommandError):
    """Options that cannot be what was meant; a sentence for each of them."""

    def __init__(self, sentences: Iterable[str]) -> None:
        self.sentences = tuple(sentences)
        super().__init__("\n".join(self.sentences))


class NoStanding(CommandError):
    """A verifier that tells us no standing."""


class ServesNothing(NoStanding):
    """A verifier that is nowhere to be asked."""


class DoesNotKnowUs(NoStanding):
    """A verifier in whose log our hotkey is no prover."""


class Refuses(NoStanding):
    """A verifier that answers with a refusal."""


class DoesNotAnswer(NoStanding):
    """A verifier that brings no answer, or none that is its own."""
