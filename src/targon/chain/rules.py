"""What the embedded chain decides, without I/O: which weights it takes, how it keeps them, whom it replaces.

Source: opentensor/subtensor, ``pallets/subtensor/src/subnets/weights.rs`` (``internal_set_weights``) and
``registration.rs`` (``get_neuron_to_prune``), read at commit 14bc6f9f.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from targon.chain.errors import AxonRefused, WeightsRefused
from targon.protocol.primitives import Block, Uid

U16_MAX = 65_535
U64_MAX = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Candidate:
    """A neuron that a newcomer might replace."""

    uid: Uid
    emission: float
    """Its share of the last epoch's emission: the pruning score."""
    registered_at: Block


def well_formed(weights: Mapping[Uid, int], version_key: int) -> dict[Uid, int]:
    """The weights in UID order without zeros, if they could be anyone's on any chain.

    Raises:
        WeightsRefused: if they are empty, or not u16, or the version key is not u64.
    """
    for uid, weight in weights.items():
        if not _is_int_within(uid, U16_MAX):
            raise WeightsRefused(f"weights: got UID {uid!r}, expected an integer from 0 to {U16_MAX}")
        if not _is_int_within(weight, U16_MAX):
            raise WeightsRefused(
                f"weights: got {weight!r} for UID {uid}, expected an integer from 0 to {U16_MAX}; "
                "scale the scores so that the greatest becomes 65535"
            )
    if not _is_int_within(version_key, U64_MAX):
        raise WeightsRefused(f"version key: got {version_key!r}, expected an integer from 0 to 2**64 - 1")
    kept = {uid: weights[uid] for uid in sorted(weights) if weights[uid] > 0}
    if not kept:
        raise WeightsRefused(
            f"weights: got {len(weights)} entries and none above 0, expected at least one; "
            "set no weights while nobody has earned any"
        )
    return kept


def without_duplicates(pairs: Iterable[tuple[int, int]]) -> dict[Uid, int]:
    """(UID, weight) pairs as a mapping.

    Raises:
        WeightsRefused: if a UID comes twice.
    """
    weights: dict[Uid, int] = {}
    for uid, weight in pairs:
        if uid in weights:
            raise WeightsRefused(f"weights: got UID {uid} twice, expected each UID once")
        weights[Uid(uid)] = weight
    return weights


def check_axon(host: str, port: int) -> None:
    """Refuse an address that nobody could connect to. Loopback is fine: a network may live on one machine.

    Raises:
        AxonRefused: if the host is no IP address, or an unspecified one, or the port is out of range.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise AxonRefused(
            f"axon: got host {host[:80]!r}, expected an IP address; announce the one under which "
            "others reach this neuron"
        ) from None
    if address.is_unspecified:
        raise AxonRefused(
            f"axon: got host {host}, expected an address that others can connect to; "
            "listen on it, but announce the machine's own address"
        )
    if not 1 <= port <= U16_MAX:
        raise AxonRefused(f"axon: got port {port}, expected 1 to {U16_MAX}")


def check_length(weights: Mapping[Uid, int], neurons: int) -> None:
    """Refuse a vector with more entries than the subnet has neurons.

    Raises:
        WeightsRefused: if it has.
    """
    if len(weights) > neurons:
        raise WeightsRefused(
            f"weights: got {len(weights)} entries, expected at most {neurons}, one per neuron; "
            "read the metagraph again"
        )


def check_version_key(version_key: int, network_key: int) -> None:
    """Refuse weights of outdated software. A network key of 0 asks for nothing.

    Raises:
        WeightsRefused: if the version key is lower than the network's.
    """
    if network_key and version_key < network_key:
        raise WeightsRefused(
            f"version key: got {version_key}, expected {network_key} or higher; upgrade this verifier"
        )


def check_targets(weights: Mapping[Uid, int], neurons: int) -> None:
    """Refuse weights on UIDs that nobody holds. UIDs are handed out from 0 without gaps.

    Raises:
        WeightsRefused: naming them.
    """
    unknown = [uid for uid in weights if uid >= neurons]
    if unknown:
        listed = ", ".join(map(str, unknown[:5])) + (", …" if len(unknown) > 5 else "")
        raise WeightsRefused(
            f"weights: got unknown UIDs {listed}, expected UIDs from 0 to {neurons - 1}; "
            "read the metagraph again"
        )


def max_upscaled(weights: Mapping[Uid, int]) -> dict[Uid, int]:
    """Weights as the chain keeps them: the greatest 65535, the others in proportion, halves rounded up.

    Zeros that come of rounding are left out. Applying it twice is applying it once.
    """
    greatest = max(weights.values())
    upscaled = {uid: (2 * U16_MAX * weight + greatest) // (2 * greatest) for uid, weight in weights.items()}
    return {uid: weight for uid, weight in upscaled.items() if weight > 0}


def neuron_to_replace(candidates: Iterable[Candidate], block: Block, immunity_blocks: int) -> Uid:
    """Whose UID a newcomer gets on a full subnet.

    The one with the least emission; of equals the longest registered, then the lowest UID. Neurons within
    their immunity period come last: they are replaced only where everyone is immune. A validator permit
    does not protect; stake does, because it earns dividends.
    """

    def last_in_line(candidate: Candidate) -> tuple[bool, float, Block, Uid]:
        immune = block - candidate.registered_at < immunity_blocks
        return immune, candidate.emission, candidate.registered_at, candidate.uid

    return min(candidates, key=last_in_line).uid


def _is_int_within(value: object, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most
