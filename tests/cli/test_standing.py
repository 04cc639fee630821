"""``targon standing``: a prover's operator asks a real verifier's axon."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from bittensor.keyfiles import Keypair

from targon.chain import Axon, EmbeddedChain, Neuron
from targon.cli import main
from targon.cli.commands.standing import ask_standing, rows
from targon.cli.errors import CommandError, DoesNotAnswer, DoesNotKnowUs, Refuses, ServesNothing
from targon.cli.keys import open_hotkey
from targon.cli.loading import load
from targon.cli.options import WalletOptions
from targon.protocol.disclosures import ProverOwnStanding
from targon.protocol.primitives import Hotkey, Uid
from tests.doctor.looks import a_web_server
from tests.ledger.history import attempt, joined, step_closed, weights_set
from tests.ledger.test_conviction import convicted, with_evidence
from tests.neuron_processes import free_port
from tests.prover.world import a_prover
from tests.verifier.shop import ME, OTHER, PROVER, STRANGER, VERIFIER, Shop, a_chain, a_shop, key

pytestmark = pytest.mark.anyio

REASON = "3 of 64 tokens differ [bold]by more[/] than noise"


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    """A verifier that serves, and stands on chain."""
    async with a_chain(tmp_path) as chain, a_shop(tmp_path, chain) as shop:
        with anyio.fail_after(60):
            while (await neuron(chain)).axon != shop.axon:
                await anyio.sleep(0.05)
        yield shop


async def neuron(chain: EmbeddedChain, hotkey: Hotkey = ME) -> Neuron:
    found = (await chain.metagraph()).by_hotkey(hotkey)
    assert found is not None
    return found


def flags(chain: EmbeddedChain) -> list[str]:
    return ["--subtensor.chain_endpoint", f"sqlite://{chain.path}"]


async def told(chain: EmbeddedChain, signer: Keypair = PROVER, whom: Uid | Hotkey = ME) -> ProverOwnStanding:
    return await ask_standing(whom, load("prover", flags(chain), {}).options, signer, "auto")


async def test_an_operator_is_shown_how_their_prover_stands_and_why(
    shop: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wallet = ["--wallet.name", "mine", "--wallet.path", str(tmp_path / "wallets")]
    assert main(["wallet", "create", *wallet]) == 0
    mine = open_hotkey(WalletOptions(name="mine", path=tmp_path / "wallets"))
    uid = await anyio.to_thread.run_sync(shop.chain.register, mine)
    await shop.journal.append(joined(key(mine), uid))
    await shop.step(1, mine)
    await shop.step(2, mine, outcome="fail", reason=REASON)
    await shop.journal.append(weights_set({uid: 65_535}, 3))
    verifier = str((await neuron(shop.chain)).uid)
    capsys.readouterr()

    async def run(*words: str) -> str:
        with anyio.fail_after(60):
            while await anyio.to_thread.run_sync(main, ["standing", *words]) != 0:
                assert "has no UID" in (said := capsys.readouterr().err) or "let in within" in said
                await anyio.sleep(0.2)
        return capsys.readouterr().out

    shown = await run(verifier, *wallet, *flags(shop.chain))
    lines = {line.split("  ")[0]: " ".join(line.split()) for line in shown.splitlines()}
    assert lines["tier"] == "tier Bronze"
    assert lines["passed"] == "passed 1 of 2, 50.0%"
    assert lines["weight"] == "weight 65535 of 65535, set in block 3"
    assert f"fail: {REASON}" in " ".join(shown.split())
    as_json = json.loads(await run(ME, "--json", *wallet, *flags(shop.chain)))
    assert (as_json["prover"], as_json["verifier"], as_json["successes"]) == (mine.ss58_address, ME, 1)


async def test_a_verifier_is_named_by_uid_or_by_hotkey(shop: Shop) -> None:
    uid = (await neuron(shop.chain)).uid
    assert await told(shop.chain, whom=uid) == await told(shop.chain, whom=ME)


async def test_a_conviction_is_shown_with_its_block(shop: Shop) -> None:
    number = shop.journal.head.seq + 1
    await shop.journal.append(attempt(key(PROVER), 9), with_evidence(number), convicted(key(PROVER), number))
    await shop.journal.append(step_closed(9))
    shown = dict(rows(await told(shop.chain)))
    assert shown["convictions"] == f"1, last in block 9 (record {number + 2})"
    assert shown["weight"] == "none were set yet"
    assert shown["verified tokens"] == "0; on probation until 64"


async def test_before_any_verdict_that_is_said(shop: Shop) -> None:
    shown = dict(rows(await told(shop.chain, OTHER)))
    assert (shown["passed"], shown["last verdict"]) == ("0 of 0", "none yet")


async def refusal(kind: type[CommandError], chain: EmbeddedChain, *about: object) -> str:
    with pytest.raises(kind) as caught:
        await told(chain, *about)  # type: ignore[arg-type]
    return str(caught.value)


async def test_a_verifier_that_does_not_know_us_says_so(shop: Shop) -> None:
    assert "has no prover" in await refusal(DoesNotKnowUs, shop.chain, STRANGER)
    nobody = Keypair.create_from_uri("//Somebody")
    assert "register it" in await refusal(DoesNotKnowUs, shop.chain, nobody)


async def test_a_verifier_that_refuses_says_why_and_for_how_long(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("targon.verifier.watch.MAX_AGE_S", -1.0)
    said = await refusal(Refuses, shop.chain)
    assert "(chain_unavailable); try again in" in said


async def test_a_neuron_that_serves_nothing_is_named(tmp_path: Path) -> None:
    async with a_chain(tmp_path) as chain:
        assert "serves nothing" in await refusal(ServesNothing, chain)
        assert "there is no UID 77 on subnet 4" in await refusal(ServesNothing, chain, PROVER, Uid(77))
        nobody = Hotkey(Keypair.create_from_uri("//Somebody").ss58_address)
        assert f"there is no hotkey {nobody}" in await refusal(ServesNothing, chain, PROVER, nobody)


async def test_a_verifier_that_does_not_answer_is_named(tmp_path: Path) -> None:
    async with a_chain(tmp_path) as chain:
        await chain.serve_axon(VERIFIER, Axon("127.0.0.1", free_port()))
        assert "doesn't answer" in await refusal(DoesNotAnswer, chain)


async def test_what_answers_and_is_no_verifier_is_told_from_one(tmp_path: Path) -> None:
    async with a_chain(tmp_path) as chain, a_web_server() as port:
        await chain.serve_axon(VERIFIER, Axon("127.0.0.1", port))
        assert "is not the verifier with UID 0" in await refusal(DoesNotAnswer, chain)


async def test_a_prover_is_no_verifier(tmp_path: Path) -> None:
    async with a_chain(tmp_path) as chain, a_prover() as world:
        await chain.serve_axon(VERIFIER, world.axon)
        assert "is not the verifier with UID 0" in await refusal(DoesNotAnswer, chain)


@pytest.mark.parametrize("word", ["mine", "5Nobody"])
async def test_a_word_that_names_no_neuron_is_refused(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["standing", word, "--wallet.name", "mine"]) == 2
    assert f"VERIFIER: got {word!r}, expected a UID or a hotkey" in capsys.readouterr().err
