"""Signed calls: nobody writes to the embedded chain for somebody else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from bittensor.keyfiles import Keypair

from targon.chain import (
    Axon,
    AxonRefused,
    CallRefused,
    ChainSettings,
    EmbeddedChain,
    StaleNonce,
    WeightsRefused,
)
from targon.chain.calls import ServeAxon, SetWeights, SignedCall, sign_call
from targon.protocol.primitives import Hotkey, Uid, u64_hex

pytestmark = pytest.mark.anyio

KEYS = [Keypair.create_from_uri(f"//{number}") for number in range(2)]


async def _signed(chain: EmbeddedChain, signer: Keypair, nonce: int, *, netuid: int = 4) -> SignedCall:
    action = SetWeights(weights=((1, 5),), version_key=u64_hex(0))
    return sign_call(signer, action, genesis=(await chain.info()).genesis, netuid=netuid, nonce=nonce)


@pytest.fixture
def voting(tmp_path: Path) -> Iterator[EmbeddedChain]:
    """A chain whose UID 0 may set weights."""
    chain = EmbeddedChain.create(tmp_path / "chain.sqlite", ChainSettings(weights_rate_limit=0))
    for signer in KEYS:
        chain.register(signer)
    chain.add_stake(KEYS[0], 1)
    yield chain
    chain.close()


async def test_a_call_signed_elsewhere_is_taken_once(voting: EmbeddedChain) -> None:
    hotkey = Hotkey(KEYS[0].ss58_address)
    signed = await _signed(voting, KEYS[0], await voting.nonce(hotkey))
    await voting.submit(signed)
    assert await voting.weights_of(Uid(0)) == {1: 65_535}
    assert await voting.nonce(hotkey) == 1
    with pytest.raises(StaleNonce, match="got nonce 0, expected 1"):
        await voting.submit(signed)


async def test_a_call_for_somebody_else_is_refused(voting: EmbeddedChain) -> None:
    mine = await _signed(voting, KEYS[1], 0)
    forged = mine.model_copy(
        update={"call": mine.call.model_copy(update={"hotkey": Hotkey(KEYS[0].ss58_address)})}
    )
    with pytest.raises(CallRefused, match="expected the sr25519 signature"):
        await voting.submit(forged)
    assert await voting.weights_of(Uid(0)) == {}


async def test_a_call_that_was_changed_is_refused(voting: EmbeddedChain) -> None:
    signed = await _signed(voting, KEYS[0], 0)
    other = SetWeights(weights=((0, 5),), version_key=u64_hex(0))
    changed = signed.model_copy(update={"call": signed.call.model_copy(update={"action": other})})
    with pytest.raises(CallRefused):
        await voting.submit(changed)


async def test_a_call_for_another_chain_or_subnet_is_refused(voting: EmbeddedChain, tmp_path: Path) -> None:
    elsewhere = EmbeddedChain.create(tmp_path / "other.sqlite")
    with pytest.raises(CallRefused, match="sign it for this chain"):
        await voting.submit(await _signed(elsewhere, KEYS[0], 0))
    elsewhere.close()
    with pytest.raises(CallRefused, match="netuid 5"):
        await voting.submit(await _signed(voting, KEYS[0], 0, netuid=5))


async def test_a_refused_call_costs_no_nonce(voting: EmbeddedChain) -> None:
    with pytest.raises(WeightsRefused):
        await voting.set_weights(KEYS[0], {Uid(1): 1, Uid(9): 1}, 0)
    assert await voting.nonce(Hotkey(KEYS[0].ss58_address)) == 0


async def test_what_the_port_refuses_is_refused_in_a_signed_call_too(voting: EmbeddedChain) -> None:
    genesis = (await voting.info()).genesis
    twice = SetWeights(weights=((1, 5), (1, 6)), version_key=u64_hex(0))
    with pytest.raises(WeightsRefused, match="UID 1 twice"):
        await voting.submit(sign_call(KEYS[0], twice, genesis=genesis, netuid=4, nonce=0))
    nowhere = ServeAxon(host="nowhere", port=1)
    with pytest.raises(AxonRefused, match="expected an IP address"):
        await voting.submit(sign_call(KEYS[0], nowhere, genesis=genesis, netuid=4, nonce=0))


async def test_two_tasks_with_one_hotkey_both_get_through(voting: EmbeddedChain) -> None:
    other = EmbeddedChain.open(voting.path)
    async with anyio.create_task_group() as group:
        for first, chain in ((1, voting), (6, other)):
            for port in range(first, first + 5):
                group.start_soon(chain.serve_axon, KEYS[0], Axon("127.0.0.1", port))
    assert await voting.nonce(Hotkey(KEYS[0].ss58_address)) == 10
    other.close()


async def test_a_signer_that_signs_with_another_key_is_refused(voting: EmbeddedChain) -> None:
    class Impostor:
        """Names one hotkey and signs with another."""

        ss58_address = KEYS[0].ss58_address
        public_key = KEYS[0].public_key
        crypto_type = KEYS[0].crypto_type

        def sign(self, payload: bytes, /) -> bytes:
            return bytes(KEYS[1].sign(payload))

    with pytest.raises(CallRefused, match="expected the sr25519 signature"):
        await voting.set_weights(Impostor(), {Uid(1): 1}, 0)
    assert await voting.weights_of(Uid(0)) == {}
