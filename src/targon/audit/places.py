"""Whether an oracle has places for everybody now: its newest commitment, held to the permits on chain.

Who had a permit earlier, a chain doesn't tell any more. So what is missing is named with the block from which on a
permit gives a right to a place; whoever has held one for longer was left out. That is theirs to say: it is no fault.
"""

from __future__ import annotations

import json
from typing import Final

import anyio
import anyio.to_thread

from targon.audit.oracles import OracleReport
from targon.audit.reveals import STATUS, read_small
from targon.chain import Chain
from targon.protocol.disclosures import OracleStatus
from targon.protocol.errors import ProtocolError
from targon.protocol.private_inputs import PLACE_AFTER_BLOCKS, Commitment, check_commitment

COMMITMENTS: Final = "/v1/commitments?from="
MAX_LIST_BYTES: Final = 4 << 20
SHOWN: Final = 20
"""Hotkeys that are named; more are counted."""


class _NotTold(Exception):
    """The oracle doesn't tell what it has committed to; its text says how."""


async def check_places(place: str, chain: Chain, report: OracleReport, notes: list[str]) -> None:
    """Compare an oracle's newest commitment with who has a validator permit now.

    Args:
        place: the oracle's address.

    Raises:
        ChainError: if the chain can't be asked.
    """
    info, metagraph = await chain.info(), await chain.metagraph()
    try:
        body = (await _newest(place)).body
    except _NotTold as error:
        notes.append(f"whether {place} has places for everybody could not be checked: {error}")
        return
    if (body.genesis, body.netuid) != (info.genesis, info.netuid):
        notes.append(f"{place} is an oracle of another network: it says nothing of this one's verifiers")
        return
    said = f"the newest commitment of {body.oracle}, for blocks {body.first} to {body.last},"
    if body.last < metagraph.block:
        notes.append(f"{said} is over in block {metagraph.block}: nobody has a place there")
        return
    permitted = {neuron.hotkey for neuron in metagraph.neurons if neuron.validator_permit}
    missing = sorted(permitted - set(body.verifiers))
    report.places.append(
        f"{said} has places for {len(permitted) - len(missing)} of the {len(permitted)} hotkeys with a permit in block "
        f"{metagraph.block}"
    )
    if missing:
        unlisted = f", and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        notes.append(
            f"{said} has no place for {', '.join(missing[:SHOWN])}{unlisted}: left out, unless they have their permit "
            f"since block {body.first - PLACE_AFTER_BLOCKS} or later"
        )


async def _newest(place: str) -> Commitment:
    """The newest commitment that an oracle tells of, as it signed it.

    Raises:
        _NotTold: if it tells of none.
    """
    status = await read_small(place + STATUS)
    if status is None:
        raise _NotTold("it doesn't answer")
    try:
        told = OracleStatus.from_bytes(status)
        number = max((period.number for period in told.periods), default=None)
        if number is None:
            raise _NotTold(f"it has committed to nothing from block {told.block} on")
        listed = json.loads(await read_small(f"{place}{COMMITMENTS}{number}", MAX_LIST_BYTES) or b"null")
        newest = Commitment.from_json(listed[-1])
        await anyio.to_thread.run_sync(check_commitment, newest)
    except (ProtocolError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise _NotTold(f"what it tells is no commitment of its own ({error})") from error
    if newest.body.oracle != told.hotkey or newest.body.number < number:
        raise _NotTold(
            f"got commitment {newest.body.number} of {newest.body.oracle}, expected {number} of {told.hotkey}"
        )
    return newest
