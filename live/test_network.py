"""Verifiers and provers as processes, on different engines: honest pairs pass, cheats are found out."""

from __future__ import annotations

from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

import pytest

from targon.ledger import Attempt, Event, ProverConvicted, Verdict
from tests.neuron_processes import Network, free_port

pytestmark = pytest.mark.anyio

ENOUGH = 4
"""Verdicts of each honest prover that are waited for."""
FAILED = 3
"""Failed verdicts of the cheat that are waited for."""
WITHIN_S = 600.0


def verdicts(events: list[Event]) -> dict[str, list[tuple[Attempt, Verdict]]]:
    """Of each prover, in order."""
    found: dict[str, list[tuple[Attempt, Verdict]]] = defaultdict(list)
    for event in events:
        if isinstance(event, Verdict):
            attempt = events[event.attempt]
            assert isinstance(attempt, Attempt)
            found[attempt.prover].append((attempt, event))
    return found


async def look(
    network: Network, verifier: list[str], provers: dict[str, list[str]]
) -> tuple[dict[str, list[tuple[Attempt, Verdict]]], list[Event], dict[str, str]]:
    """Run a verifier and provers, each on an engine of its own, until every honest prover has verdicts enough, and the
    cheat has failed often enough."""
    network.enrol("verifier", stake=10_000.0)
    names: dict[str, str] = {}
    with ExitStack() as processes:
        for name, engine in provers.items():
            names[network.enrol(name)] = name
            processes.enter_context(network.prover(name, free_port(), engine=engine))
        processes.enter_context(network.verifier(engine=verifier))

        def enough(events: list[Event]) -> bool:
            found = verdicts(events)
            return all(
                _failures(found[hotkey]) >= FAILED if name == "int4" else len(found[hotkey]) >= ENOUGH
                for hotkey, name in names.items()
            )

        what = f"{ENOUGH} verdicts of each honest prover and {FAILED} failures of the cheat"
        events = await network.wait_for(enough, what, within_s=WITHIN_S)
    return verdicts(events), events, names


def _failures(found: list[tuple[Attempt, Verdict]]) -> int:
    return sum(verdict.outcome == "fail" for _, verdict in found)


def check(
    found: dict[str, list[tuple[Attempt, Verdict]]], events: list[Event], names: dict[str, str]
) -> None:
    """Honest provers pass, and are judged by replaying them; nobody but the cheat is convicted."""
    for hotkey, name in names.items():
        if name != "int4":
            said = [f"{verdict.outcome}: {verdict.reason}" for _, verdict in found[hotkey]]
            assert all(verdict.outcome == "pass" for _, verdict in found[hotkey]), (name, said)
            assert {verdict.method for _, verdict in found[hotkey]} == {"divergence"}
    assert {names[event.prover] for event in events if isinstance(event, ProverConvicted)} <= {"int4"}


async def test_a_verifier_on_vllm_checks_provers_on_transformers_llama_cpp_and_vllm(
    tmp_path: Path, vllm_url: str, vllm_bf16_url: str, llama_url: str, bf16_socket: Path, int4_socket: Path
) -> None:
    network = Network(tmp_path, [])
    found, events, names = await look(
        network,
        ["--engine.url", vllm_url],
        {
            "transformers": ["--engine.socket", str(bf16_socket)],
            "llama.cpp": ["--engine.url", llama_url],
            "vllm": ["--engine.url", vllm_bf16_url],
            "int4": ["--engine.socket", str(int4_socket)],
        },
    )
    check(found, events, names)
    dialects = {names[hotkey]: {attempt.dialect for attempt, _ in pairs} for hotkey, pairs in found.items()}
    assert dialects["llama.cpp"] == {"greedy"}
    # a challenge in twenty is at T = 0, and goes as greedy to whoever offers it
    for name in ("vllm", "transformers"):
        assert {"targon/1"} <= dialects[name] <= {"targon/1", "greedy"}, name


async def test_a_verifier_on_transformers_checks_provers_on_vllm_and_llama_cpp(
    tmp_path: Path, reference_socket: Path, vllm_bf16_url: str, llama_url: str, int4_socket: Path
) -> None:
    network = Network(tmp_path, [])
    found, events, names = await look(
        network,
        ["--engine.socket", str(reference_socket)],
        {
            "vllm": ["--engine.url", vllm_bf16_url],
            "llama.cpp": ["--engine.url", llama_url],
            "int4": ["--engine.socket", str(int4_socket)],
        },
    )
    check(found, events, names)


async def test_an_engine_that_cannot_score_is_refused_as_a_reference(tmp_path: Path, llama_url: str) -> None:
    network = Network(tmp_path, [])
    network.enrol("verifier", stake=10_000.0)
    with network.verifier(engine=["--engine.url", llama_url]) as process:
        assert process.wait(timeout=120) == 1
    said = (tmp_path / "verifier.out").read_text()
    assert "can be no reference" in said
    assert "use vLLM or SGLang" in said
