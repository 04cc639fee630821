"""Whom and what a prover refuses, in which words."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from bittensor.keyfiles import Keypair

from targon.protocol.messages import GenerateRequest, Sampling
from targon.transport import Clock, Limits, Refused
from tests.prover.world import (
    MINNOW,
    NETUID,
    PROVER,
    STRANGER,
    VERIFIER,
    WHALE,
    MemoryChain,
    World,
    a_neuron,
    a_prover,
    hash_of,
)
from tests.transport.world import post, signed_headers

pytestmark = pytest.mark.anyio


async def refusal(world: World, request: GenerateRequest, signer: Keypair = VERIFIER) -> Refused:
    with pytest.raises(Refused) as refused:
        await world.client.generate(world.axon, request, signer)
    return refused.value


async def test_an_unregistered_caller_is_refused() -> None:
    async with a_prover() as world:
        error = await refusal(world, world.request(verifier=STRANGER), STRANGER)

        assert (error.status, error.code) == (403, "not_registered")
        assert f"subnet {NETUID}" in error.message
        assert error.got == STRANGER.ss58_address
        assert world.metric("targon_refusals_total", code="not_registered") == 1


async def test_an_unregistered_caller_is_served_where_the_operator_allows_it() -> None:
    async with a_prover(allow_non_registered=True) as world:
        assert await world.client.generate(world.axon, world.request(verifier=STRANGER), STRANGER)


async def test_a_caller_without_a_permit_is_refused_where_the_operator_forces_it() -> None:
    async with a_prover(force_verifier_permit=True) as world:
        error = await refusal(world, world.request(verifier=MINNOW), MINNOW)

        assert (error.status, error.code) == (403, "no_validator_permit")
        assert await world.client.generate(world.axon, world.request(), VERIFIER)


async def test_a_forced_permit_outweighs_allowing_the_unregistered() -> None:
    async with a_prover(force_verifier_permit=True, allow_non_registered=True) as world:
        assert (
            await refusal(world, world.request(verifier=STRANGER), STRANGER)
        ).code == "no_validator_permit"


async def test_a_caller_without_a_permit_is_served_by_default() -> None:
    async with a_prover() as world:
        assert await world.client.generate(world.axon, world.request(verifier=MINNOW), MINNOW)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"model": 3}', b"\xff\xfe", b"[" * 5000])
async def test_malformed_json_is_refused_naming_what_is_wrong(body: bytes) -> None:
    async with a_prover() as world:
        headers = signed_headers(body, signer=VERIFIER, receiver=PROVER.ss58_address)

        reply = await post(world.axon.port, body, headers)

        assert (reply.status, reply.code) == (400, "malformed_request")
        assert "GenerateRequest" in reply.error["message"]


async def test_a_field_that_is_wrong_is_named() -> None:
    async with a_prover() as world:
        value = world.request().to_json() | {"block": -1, "surprise": True}
        body = str(value).replace("'", '"').replace("True", "true").replace("False", "false").encode()

        reply = await post(world.axon.port, body, signed_headers(body))

        assert reply.code == "malformed_request"
        assert "block" in reply.error["message"]
        assert "surprise" in reply.error["message"]


WRONG: dict[str, tuple[Callable[[World], dict[str, Any]], int, str]] = {
    "another prover": (lambda _: {"prover": WHALE.ss58_address}, 400, "wrong_prover"),
    "another verifier": (lambda _: {"verifier": WHALE}, 403, "wrong_verifier"),
    "another subnet": (lambda _: {"netuid": 99}, 400, "wrong_network"),
    "another chain": (lambda _: {"genesis": "ff" * 32}, 400, "wrong_network"),
    "an unknown model": (lambda _: {"model": "gigantic"}, 404, "unknown_model"),
    "a block too old": (lambda world: {"block": world.chain.head - 6}, 409, "stale_block"),
    "a block to come": (lambda world: {"block": world.chain.head + 1}, 409, "stale_block"),
    "another block's hash": (
        lambda world: {"block_hash": hash_of(world.chain.head - 1)},
        409,
        "wrong_block_hash",
    ),
}


@pytest.mark.parametrize("what", WRONG)
async def test_a_request_for_something_else_is_refused_naming_it(what: str) -> None:
    change, status, code = WRONG[what]
    async with a_prover() as world:
        request = world.request(**change(world))
        # The envelope is addressed to us whatever the letter says.
        body = request.to_bytes()

        reply = await post(world.axon.port, body, signed_headers(body))

        assert (reply.status, reply.code) == (status, code)
        assert reply.error["got"] is not None
        assert reply.error["expected"] is not None
        assert world.engine.tasks == []


async def test_an_unknown_model_is_told_what_is_served() -> None:
    async with a_prover() as world:
        error = await refusal(world, world.request(model="gigantic"))

        assert (error.got, error.expected) == ("gigantic", ["tiny"])


@pytest.mark.parametrize(
    ("parameter", "sampling"),
    [
        ("temperature", {"temperature": 0.01}),
        ("temperature", {"temperature": 0.8, "dialect": "greedy"}),
        ("dialect", {"temperature": 0.8, "dialect": "vllm"}),
        ("max_tokens", {"temperature": 0.8, "max_tokens": 512}),
    ],
)
async def test_impossible_sampling_is_refused_by_the_parameters_name(
    parameter: str, sampling: dict[str, Any]
) -> None:
    async with a_prover() as world:
        values: dict[str, Any] = {"seed": "0000000000000007", "max_tokens": 4} | sampling

        error = await refusal(world, world.request(sampling=Sampling(**values)))

        assert (error.status, error.code) == (422, "unsupported_sampling")
        assert str(error.expected).startswith(parameter)
        assert error.got == values[parameter]


async def test_the_oldest_block_that_is_fresh_is_served() -> None:
    async with a_prover() as world:
        assert await world.client.generate(world.axon, world.request(block=world.chain.head - 5), VERIFIER)


async def test_a_block_that_the_chain_has_and_we_have_not_seen_is_looked_up() -> None:
    async with a_prover(chain=MemoryChain(block_seconds=60.0)) as world:
        await anyio.sleep(0.6)
        world.chain.head += 3

        assert await world.client.generate(world.axon, world.request(), VERIFIER)


async def test_blocks_that_do_not_exist_do_not_make_us_hammer_the_chain() -> None:
    async with a_prover(chain=MemoryChain(block_seconds=60.0)) as world:
        before = world.chain.calls
        codes: list[str] = []

        async def ask() -> None:
            codes.append((await refusal(world, world.request(block=world.chain.head + 1))).code)

        async with anyio.create_task_group() as tasks:
            for _ in range(30):
                tasks.start_soon(ask)

        assert codes == ["stale_block"] * 30
        # A few reads of a few calls each, however many ask.
        assert world.chain.calls - before <= 3 * 8


async def test_an_attempt_is_answered_once() -> None:
    async with a_prover() as world:
        request = world.request()
        await world.client.generate(world.axon, request, VERIFIER)

        error = await refusal(world, request)

        assert (error.status, error.code) == (409, "already_answered")
        assert error.got == request.attempt
        assert len(world.engine.tasks) == 1


async def test_an_attempt_is_answered_once_even_for_another_block_of_the_same_age() -> None:
    async with a_prover() as world:
        request = world.request()
        await world.client.generate(world.axon, request, VERIFIER)

        again = world.request(attempt=request.attempt, block=world.chain.head - 1)

        assert (await refusal(world, again)).code == "already_answered"


async def test_attempt_numbers_of_different_verifiers_do_not_collide() -> None:
    async with a_prover() as world:
        first = world.request()
        await world.client.generate(world.axon, first, VERIFIER)

        assert await world.client.generate(
            world.axon, world.request(verifier=WHALE, attempt=first.attempt), WHALE
        )


async def test_answered_attempts_are_forgotten_once_their_block_is_too_old() -> None:
    async with a_prover() as world:
        request = world.request()
        await world.client.generate(world.axon, request, VERIFIER)
        world.chain.head += 6
        await anyio.sleep(0.2)

        # The same letter is stale now; the number alone is no longer remembered.
        assert (await refusal(world, request)).code == "stale_block"
        assert await world.client.generate(world.axon, world.request(attempt=request.attempt), VERIFIER)


async def test_a_caller_that_registers_is_admitted_within_a_few_blocks() -> None:
    async with a_prover() as world:
        world.chain.neurons.append(a_neuron(9, STRANGER, 5.0))
        world.chain.head += 5
        await anyio.sleep(0.3)

        assert await world.client.generate(world.axon, world.request(verifier=STRANGER), STRANGER)


async def test_admission_does_not_wait_for_a_chain_that_is_down() -> None:
    async with a_prover() as world:
        world.chain.down = True
        await anyio.sleep(0.2)

        started = time.monotonic()
        assert await world.client.generate(world.axon, world.request(), VERIFIER)
        assert time.monotonic() - started < 0.5


async def test_a_chain_that_is_down_is_named_where_a_newer_block_cannot_be_looked_up() -> None:
    async with a_prover() as world:
        world.chain.down = True

        error = await refusal(world, world.request(block=world.chain.head + 1))

        assert (error.status, error.code) == (503, "chain_unavailable")
        assert error.retry_after_s is not None


async def test_a_copy_of_the_chain_that_is_too_old_admits_nobody() -> None:
    lag = 0.0
    clock = Clock(monotonic_s=lambda: time.monotonic() + lag)
    async with a_prover(clock=clock, max_chain_age_s=60.0) as world:
        world.chain.down = True
        await anyio.sleep(0.1)
        lag = 61.0

        error = await refusal(world, world.request())

        assert (error.status, error.code) == (503, "chain_unavailable")


async def test_an_oversized_request_is_refused_before_it_is_read() -> None:
    async with a_prover(limits=Limits(max_body_bytes=500)) as world:
        error = await refusal(world, world.request())

        assert (error.status, error.code) == (413, "body_too_large")
