"""The OpenAPI document against a running gateway: whatever it allows or forbids, no 5xx comes back, and what comes is
what the document says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from tests.gateway.front_world import MODEL, a_front

pytestmark = pytest.mark.anyio

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,negative_data_rejection,missing_required_header,ignored_auth"
)
"""Left out: ``positive_data_acceptance``, because a schema can't say that two parameters belong together;
``unsupported_method``, because methods that HTTP's parser doesn't know never come to us."""

SETTINGS = """
[checks.negative_data_rejection]
expected-statuses = ["400", "401", "403", "404", "405", "413", "415"]

[parameters]
model = "{model}"
"""


@pytest.mark.parametrize("seed", [1, 2])
async def test_the_document_holds_under_fuzzing(tmp_path: Path, seed: int) -> None:
    (tmp_path / "settings.toml").write_text(SETTINGS.format(model=MODEL))
    async with a_front(tmp_path) as world:
        done = await anyio.run_process(
            [
                str(Path(sys.executable).with_name("st")),
                *("--config-file", str(tmp_path / "settings.toml")),
                *("run", f"http://127.0.0.1:{world.port}/openapi.json"),
                *("--url", f"http://127.0.0.1:{world.port}"),
                *("--header", f"Authorization: Bearer {world.key}"),
                *("--checks", CHECKS, "--max-examples", "60", "--seed", str(seed), "--no-color"),
            ],
            check=False,
            stderr=subprocess.STDOUT,
            cwd=tmp_path,
        )
        served = sum(
            sample.value
            for metric in world.registry.collect()
            for sample in metric.samples
            if sample.name == "targon_gateway_requests_total"
        )
        failed = sum(
            sample.value
            for metric in world.registry.collect()
            for sample in metric.samples
            if sample.name == "targon_gateway_requests_total" and sample.labels["status"].startswith("5")
        )
    assert done.returncode == 0, done.stdout.decode()[-6000:]
    assert served > 300
    assert failed == 0
