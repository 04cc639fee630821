"""``targon oracle`` as a process of its own, killed with ``kill -9``: what it has shown, it shows again."""

from __future__ import annotations

import json
import signal
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from bittensor.keyfiles import Keypair

from targon.cli.keys import open_hotkey
from targon.cli.options import WalletOptions
from targon.protocol.primitives import Hotkey
from targon.protocol.private_inputs import (
    Commitment,
    CommitmentBody,
    PrivateInput,
    check_commitment,
    check_input,
    contradict,
)
from targon.transport.auth import sign
from tests.neuron_processes import Network, free_port

WAIT_S = 150.0
KILLS = 3


class Asked:
    """An oracle in a process of its own, as one verifier sees it."""

    def __init__(self, folder: Path) -> None:
        self.network = Network(folder, [])
        self.network.enrol("verifier", stake=10_000.0)
        self.network.enrol("other", stake=10_000.0)
        self.oracle = Hotkey(self.network.enrol("oracle"))
        self.verifier: Keypair = open_hotkey(WalletOptions(name="verifier", path=folder / "wallets"))
        self.port = free_port()
        self.data = folder / "oracle"

    def running(self, *flags: str) -> Any:
        return self.network.running(
            "oracle",
            "oracle",
            *("--axon.port", str(self.port), "--data.path", str(self.data)),
            *("--oracle.places", "2", "--oracle.period", "12", *flags),
        )

    def get(self, path: str, *, signed: bool = False) -> bytes | None:
        """The answer; None where there is none, or a refusal."""
        headers = {}
        if signed:
            headers = sign(
                self.verifier,
                method="GET",
                target=path,
                body=b"",
                receiver=self.oracle,
                nonce_ns=time.time_ns(),
            )
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as reply:
                return bytes(reply.read())
        except (urllib.error.URLError, ConnectionError):
            return None

    def given(self) -> PrivateInput:
        """A private input, as soon as there is one."""
        deadline = time.monotonic() + WAIT_S
        while (answer := self.get("/v1/private-input?place=1", signed=True)) is None:
            assert time.monotonic() < deadline, (self.network.folder / "oracle.out").read_text()[-3000:]
            time.sleep(0.02)
        return PrivateInput.from_bytes(answer)

    def commitments(self) -> dict[int, CommitmentBody]:
        found = [
            Commitment.from_bytes(json.dumps(one))
            for one in json.loads(self.get("/v1/commitments?from=0") or b"[]")
        ]
        for before, after in zip([None, *found], found, strict=False):
            check_commitment(after, before.body if before else None)
        return {one.body.number: one.body for one in found}


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Asked:
    return Asked(tmp_path_factory.mktemp("oracle"))


def test_killed_at_any_moment_it_shows_again_what_it_has_shown(asked: Asked) -> None:
    shown: dict[int, CommitmentBody] = {}
    given: dict[int, PrivateInput] = {}
    again = 0
    for kill in range(KILLS):
        with asked.running() as process:
            asked.given()
            until_s = time.monotonic() + 0.7 + 0.37 * kill
            while time.monotonic() < until_s:
                answer = asked.given()
                known = given.setdefault(answer.body.block, answer)
                assert known.body == answer.body
                again += known is not answer
                commitments = asked.commitments()
                for number, body in commitments.items():
                    assert shown.setdefault(number, body) == body
                body = next(one for one in commitments.values() if one.digest() == answer.body.commitment)
                check_input(answer, body, verifier=Hotkey(asked.verifier.ss58_address))
            process.send_signal(signal.SIGKILL)
            process.wait()
    assert again
    assert len(given) > 2
    bodies = [shown[number] for number in sorted(shown)]
    assert sorted(shown) == list(range(len(shown)))
    assert not any(contradict(one, other) for one in bodies for other in bodies)
    texts = [one.body.text for one in given.values()]
    assert len(set(texts)) == len(texts)


def test_a_second_one_is_refused_and_the_first_ends_when_it_is_asked_to(asked: Asked) -> None:
    with asked.running() as process:
        asked.given()
        asked.port, port = free_port(), asked.port
        with asked.running() as second:
            assert second.wait(timeout=WAIT_S) == 1
        asked.port = port
        assert "expected no other" in (asked.network.folder / "oracle.out").read_text()
        asked.given()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=WAIT_S) == 0


def test_a_folder_of_another_network_is_refused(asked: Asked, tmp_path: Path) -> None:
    other = Asked(tmp_path)
    other.data = asked.data
    with other.running() as process:
        assert process.wait(timeout=WAIT_S) == 1
    said = (tmp_path / "oracle.out").read_text()
    assert "has a folder of its own" in said
    assert "Traceback" not in said
