"""The client of an oracle. What it brings is of the right form, and otherwise unchecked."""

from __future__ import annotations

import json
from typing import Final

from targon.protocol.disclosures import OracleStatus
from targon.protocol.errors import MalformedMessage
from targon.protocol.keys import Signer
from targon.protocol.primitives import Block, Hotkey
from targon.protocol.private_inputs import Commitment, PrivateInput
from targon.transport.client import STATUS, NeuronClient
from targon.transport.errors import BadResponse, Endpoint

PRIVATE_INPUT: Final = "/v1/private-input"
COMMITMENTS: Final = "/v1/commitments"
MAX_COMMITMENT_BYTES: Final = 4 << 20
"""Of one answer: some hundreds for a subnet's 64 verifiers, or some of the largest there can be."""


class OracleClient(NeuronClient):
    """As :class:`NeuronClient`, for what an oracle serves as well."""

    async def private_input(
        self, oracle: Endpoint, hotkey: Hotkey, signer: Signer, place: int, block: Block
    ) -> PrivateInput:
        """The signer's private input at a place of a block.

        Raises:
            TransportError: one of its kinds; ``Refused`` with ``block_gone``, ``block_not_yet`` or ``no_place``.
        """
        target = f"{PRIVATE_INPUT}?place={place}&block={block}"
        return await self._message(PrivateInput, oracle, target, hotkey, signer, None)

    async def oracle_status(self, oracle: Endpoint, hotkey: Hotkey, signer: Signer) -> OracleStatus:
        """What the oracle says of itself.

        Raises:
            TransportError: one of its kinds.
        """
        return await self._message(OracleStatus, oracle, STATUS, hotkey, signer, None)

    async def commitments(
        self, oracle: Endpoint, hotkey: Hotkey, signer: Signer, start: int
    ) -> tuple[Commitment, ...]:
        """What the oracle has committed to, from a number on; as many as it gives at once.

        Raises:
            TransportError: one of its kinds.
        """
        target = f"{COMMITMENTS}?from={start}"
        body = await self._get(oracle, target, hotkey, signer, None, max_bytes=MAX_COMMITMENT_BYTES)
        try:
            listed = json.loads(body)
            if not isinstance(listed, list):
                raise MalformedMessage(f"got no list, but {type(listed).__name__}")
            return tuple(Commitment.from_bytes(json.dumps(each).encode()) for each in listed)
        except (ValueError, RecursionError, MalformedMessage) as error:
            raise BadResponse(oracle, "malformed", f"no list of commitments: {error}") from error
