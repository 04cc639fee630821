"""What a verifier needs that no lower room has."""

from __future__ import annotations

from typing import Protocol

from targon.protocol.primitives import Block


class Passage(Protocol):
    """A private input."""

    @property
    def text(self) -> str: ...

    @property
    def source(self) -> str:
        """Where the text was taken from."""
        ...


class PrivateInputs(Protocol):
    """Hands out private inputs: an embedded source, or an oracle."""

    async def private_input(self, block: Block, draw: int) -> Passage:
        """The passage that a 64-bit draw picks in a block.

        Raises:
            PrivateInputUnavailable: if there is none to be had now.
        """
        ...


class PrivateInputUnavailable(Exception):
    """No private input can be had: the verifier's trouble, never a prover's."""
