"""What the chain says of our hotkey: its UID, its permit, and whether its weights would be taken."""

from __future__ import annotations

from targon.chain import Metagraph, Neuron, NotRegistered
from targon.doctor.chain import Link
from targon.doctor.findings import Finding, Result, bad, good, note
from targon.protocol.keys import Signer
from targon.protocol.primitives import Hotkey

VERIFIERS_LIMIT_TAO = 4096.0
"""With a permit and more stake than this, verifiers by default take nobody for a prover."""


async def check_uid(link: Link, signer: Signer) -> Result:
    """Hands on the metagraph."""
    hotkey = Hotkey(signer.ss58_address)
    try:
        uid = await link.chain.require_uid(hotkey)
    except NotRegistered as error:
        before, _, how = str(error).partition("; register it with: ")
        return bad(before, how)
    metagraph = await link.chain.metagraph()
    neuron = metagraph.by_uid(uid)
    if neuron is None or neuron.hotkey != hotkey:
        return bad(
            f"the chain gave UID {uid}, and a metagraph without it: it was lost just now", "run this again"
        )
    age = metagraph.block - neuron.registered_at
    return good(
        f"UID {uid} of {len(metagraph.neurons)}, registered {age} blocks ago, {neuron.stake:g} TAO of stake. "
        "On a full subnet, those that earn least lose their UID once they are no longer new",
        value=metagraph,
    )


async def check_permit(metagraph: Metagraph, signer: Signer) -> Result:
    """A verifier's: without a permit its weights aren't taken."""
    neuron = _own(metagraph, signer)
    if neuron.validator_permit:
        return good(f"a validator permit, at {neuron.stake:g} TAO of stake")
    holders = [other.stake for other in metagraph.neurons if other.validator_permit]
    least = f"; the least stake with one is {min(holders):g} TAO" if holders else "; nobody has one"
    return bad(
        f"no validator permit at {neuron.stake:g} TAO of stake{least}: its weights would not be taken",
        "stake more on this hotkey from the machine that has the coldkey (embedded chain: targon chain register FILE "
        "--stake TAO)",
    )


async def check_weights(
    link: Link, metagraph: Metagraph, signer: Signer, version_key: int, *, off: bool
) -> Result:
    """Whether weights that this software sets would be taken, and when.

    Args:
        version_key: what they would be set with.
        off: whether the verifier is told to set none.
    """
    info, neuron = link.info, _own(metagraph, signer)
    if info.weights_version_key > version_key:
        return bad(
            f"this software's version key is {version_key}, expected {info.weights_version_key} or higher: the "
            "subnet's owner asks for newer software",
            "upgrade targon",
        )
    how = (
        f"committed to, and revealed {info.reveal_epochs} epoch(s) later"
        if info.commit_reveal
        else "set outright"
    )
    since = "never set yet"
    if neuron.last_update is not None:
        next_at = neuron.last_update + info.weights_rate_limit
        since = f"last set in block {neuron.last_update}, to be set again from block {next_at} on"
    found = f"version key {version_key} (at least {info.weights_version_key} is asked for); {how}; {since}"
    if off:
        return note(f"{found}; none will be set", "leave --neuron.disable_set_weights away")
    return good(found)


async def check_taken_for_prover(metagraph: Metagraph, signer: Signer) -> Result:
    """Verifiers challenge provers, not one another."""
    neuron = _own(metagraph, signer)
    if neuron.validator_permit and neuron.stake > VERIFIERS_LIMIT_TAO:
        return Result(
            (
                Finding(
                    "note",
                    f"a permit and {neuron.stake:g} TAO of stake: verifiers take a neuron with more than "
                    f"{VERIFIERS_LIMIT_TAO:g} for a verifier, and send it no work",
                    "serve with a hotkey that has less stake",
                ),
            )
        )
    return good("verifiers take this hotkey for a prover")


def _own(metagraph: Metagraph, signer: Signer) -> Neuron:
    neuron = metagraph.by_hotkey(Hotkey(signer.ss58_address))
    assert neuron is not None, "check_uid hands on no metagraph without us"
    return neuron
