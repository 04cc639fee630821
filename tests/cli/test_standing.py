"""``targon standing``: a prover's operator asks a real verifier's axon, as a process of its own would."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from bittensor.keyfiles import Keypair

from targon.chain import Axon, EmbeddedChain
from targon.cli import main
from targon.cli.commands.standing import rows
from targon.cli.errors import DoesNotAnswer, DoesNotKnowUs, Refuses, ServesNothing
from targon.cli.keys import open_hotkey
from targon.cli.loading import load
from targon.cli.options import WalletOptions
from targon.cli.commands import standing as command
from targon.protocol.primitives import Hotkey, Uid
from targon.protocol.conviction import LOG_CONVICTION
from tests.doctor.looks import a_web_server
from tests.ledger.history import joined, weights_set
from tests.ledger.test_conviction import convicted
from tests.verifier.shop import ME, OTHER, Shop, a_chain, a_shop, key

pytestmark = pytest.mark.anyio


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with a_chain(tmp_path) as chain, a_shop(tmp_path, chain) as shop:
        with anyio.fail_after(10):
            while (await neuron(chain, ME)).axon != shop.axon:
                await anyio.sleep(0.05)
        yield shop


async def neuron(chain: EmbeddedChain, hotkey: Hotkey):
    found = (await chain.metagraph()).by_hotkey(hotkey)
    assert found is not None
    return found
