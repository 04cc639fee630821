"""A prover over TLS: announced at another address than its caller knows for safe, and asked as ever."""

from __future__ import annotations

import pytest
import structlog

from targon.protocol import receipts
from targon.protocol.messages import TokenEvent
from targon.prover import ProverSettings
from targon.transport import Answer, NeuronClient, NotTheProver, Refused
from tests.prover.world import PROVER, STRANGER, VERIFIER, a_prover

pytestmark = pytest.mark.anyio


async def test_a_signed_request_over_tls_is_answered_as_a_stream_with_a_receipt() -> None:
    with structlog.testing.capture_logs() as logged:
        async with a_prover(host="127.0.0.2", tls="on") as world, NeuronClient(tls="on") as client:
            assert world.axon.host == "127.0.0.2"
            request = world.request(stream=True)

            *tokens, answer = [part async for part in client.stream(world.axon, request, VERIFIER)]

    assert [part.token_ids for part in tokens if isinstance(part, TokenEvent)] == [(1,), (2,), (3,), (4,)]
    assert isinstance(answer, Answer)
    receipts.check(answer.response.receipt, request, answer.response.completion)
    assert [line["tls"] for line in logged if line["event"] == "prover serves"] == [True]


async def test_a_prover_over_tls_is_no_other_hotkeys() -> None:
    async with a_prover(host="127.0.0.2", tls="on") as world, NeuronClient(tls="on") as client:
        request = world.request(prover=STRANGER.ss58_address)

        with pytest.raises(
            NotTheProver, match=f"got {PROVER.ss58_address}, expected {STRANGER.ss58_address}"
        ):
            await client.generate(world.axon, request, VERIFIER)

    assert world.engine.tasks == []


async def test_a_prover_on_loopback_serves_plain_http_unless_it_is_told_otherwise() -> None:
    with structlog.testing.capture_logs() as logged:
        async with a_prover(host="127.0.0.2") as world, NeuronClient() as client:
            await client.generate(world.axon, world.request(), VERIFIER)

    assert [line["tls"] for line in logged if line["event"] == "prover serves"] == [False]


async def test_a_prover_whose_caller_expects_plain_http_says_what_to_set() -> None:
    async with a_prover(host="127.0.0.2", tls="on") as world, NeuronClient() as client:
        with pytest.raises(Refused, match=r"--neuron\.tls"):
            await client.generate(world.axon, world.request(), VERIFIER)


@pytest.mark.parametrize(
    ("settings", "over_tls"),
    [
        (ProverSettings(), False),
        (ProverSettings(external_host="192.0.2.7"), True),
        (ProverSettings(host="192.0.2.7", external_host="127.0.0.1"), False),
        (ProverSettings(host="0.0.0.0", external_host="192.0.2.7", tls="off"), False),
        (ProverSettings(tls="on"), True),
    ],
)
def test_the_announced_address_decides_whether_tls_is_served(
    settings: ProverSettings, over_tls: bool
) -> None:
    assert settings.serves_tls() is over_tls
