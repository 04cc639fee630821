"""``targon audit http://…`` against what a running verifier's gateway publishes; all of it is real but the model."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from targon.chain import ChainSettings
from targon.cli import main
from targon.gateway.keys import FILE_NAME, KeyFile
from targon.ledger import WeightsSet
from targon.protocol.segments import segment_file
from tests.end_to_end.test_gateway_faults import calibration, provers
from tests.neuron_processes import Network, free_port

READY_S = 240.0
ANSWERS = 5
OFTEN = ChainSettings(block_seconds=1.0, tempo=5, weights_rate_limit=1)
"""Weights are set in each epoch, so that each interval is released soon."""


@dataclass
class Publisher:
    """A running verifier."""

    network: Network
    address: str
    key: str
    calibration: Path

    def ask(self) -> dict[str, Any] | None:
        """An answer; None: nobody serves yet."""
        body = {"model": "tiny", "messages": [{"role": "user", "content": "Go on."}], "max_tokens": 8}
        try:
            reply = httpx.post(
                f"{self.address}/v1/chat/completions", json=body, headers=self.headers, timeout=60
            )
        except httpx.TransportError:
            return None
        return reply.json() if reply.status_code == 200 else None

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}

    def published(self) -> int:
        """Records of the log that are published."""
        reply = httpx.get(f"{self.address}/v1/segments/index.json")
        return int(reply.json()["records"]) if reply.status_code == 200 else 0

    def first_weights(self) -> float:
        """The record of the log that first has weights; infinite before there is one."""
        events = anyio.run(self.network.events)
        return next((at for at, event in enumerate(events) if isinstance(event, WeightsSet)), math.inf)

    def audit(self, *more: str) -> int:
        """The exit code of an audit over HTTP."""
        return main(["audit", self.address, "--calibration", str(self.calibration), *more])


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Publisher]:
    folder = tmp_path_factory.mktemp("net")
    socket = folder / "engine" / "s"
    network = Network(folder, ["--engine.socket", str(socket)], OFTEN)
    network.enrol("verifier", stake=10_000.0)
    seats = {name: free_port() for name in ("first", "second", "third")}
    for name in seats:
        network.enrol(name)
    (folder / "verifier").mkdir()
    keys = KeyFile(folder / "verifier" / FILE_NAME)
    _, key = keys.create("tester", now=int(time.time()))
    keys.close()
    port, calibrated = free_port(), calibration(folder)
    flags = ("--gateway.port", str(port), "--calibration.path", str(calibrated))
    with provers(network, seats, "--socket", str(socket)), network.verifier(*flags):
        yield Publisher(network, f"http://127.0.0.1:{port}", key, calibrated)


def until(holds: Callable[[], bool], complaint: str) -> None:
    deadline = time.monotonic() + READY_S
    while not holds():
        assert time.monotonic() < deadline, complaint
        time.sleep(0.3)


@pytest.fixture(scope="module")
def receipt(publisher: Publisher) -> dict[str, Any]:
    """What the gateway tells of an answer's receipt, once its record is published, and weights are."""
    answers: list[dict[str, Any]] = []

    def enough() -> bool:
        if (answer := publisher.ask()) is not None:
            answers.append(answer)
        return len(answers) >= ANSWERS

    until(enough, "nobody was answered")
    receipt_id = answers[-1]["choices"][0]["targon"]["receipt_id"]
    told = httpx.get(f"{publisher.address}/v1/receipts/{receipt_id}", headers=publisher.headers)
    told.raise_for_status()
    record = told.json()["countersignature"]["body"]["record"]
    until(lambda: publisher.published() > max(record, publisher.first_weights()), "it isn't published")
    return {"content": told.content, "record": record}


def test_all_that_a_gateway_publishes_is_exact_down_to_chain_and_receipt(
    publisher: Publisher, receipt: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "receipt.json"
    file.write_bytes(receipt["content"])
    chain = ("--subtensor.chain_endpoint", f"sqlite://{publisher.network.chain}")
    capsys.readouterr()
    code = publisher.audit(*chain, "--receipt", str(file), "--signatures", "100000", "--json")
    report = json.loads(capsys.readouterr().out)
    assert (code, report["faults"]) == (0, [])
    assert report["records"] > receipt["record"]
    assert report["receipts_checked"] == 1
    assert report["draws"]["routes"] >= ANSWERS
    assert report["weights_checked"] > 0
    assert report["signatures_checked"] >= ANSWERS
    assert (report["evidence"]["checked"] > 0, report["evidence"]["unchecked"]) == (True, 0)


def test_a_copy_that_was_changed_on_its_way_is_named(
    publisher: Publisher, receipt: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert receipt["record"] < publisher.published()
    copy = tmp_path / "copy"
    assert publisher.audit("--keep", str(copy)) == 0
    first = copy / segment_file(0)
    first.write_bytes(first.read_bytes().replace(b'"netuid":4', b'"netuid":5', 1))
    capsys.readouterr()
    assert main(["audit", str(copy), "--json"]) == 1
    assert {fault["kind"] for fault in json.loads(capsys.readouterr().out)["faults"]} >= {"tampered"}


def test_a_receipt_that_nobody_signed_so_is_no_receipt(
    publisher: Publisher, receipt: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "receipt.json"
    record = b'"record":%d' % receipt["record"]
    assert record in receipt["content"]
    file.write_bytes(receipt["content"].replace(record, b'"record":%d' % (receipt["record"] - 1)))
    assert publisher.audit("--receipt", str(file)) == 1
