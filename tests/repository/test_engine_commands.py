"""The commands that start engines: the same in the README and on the page about engines."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "program", ["vllm serve", "python -m sglang.launch_server", "llama-server", "text-generation-launcher"]
)
def test_an_engine_is_started_in_the_readme_as_on_its_page(program: str) -> None:
    readme, page = ((ROOT / name).read_text("utf-8") for name in ("README.md", "docs/engines.md"))
    (shown,) = re.findall(rf"`({re.escape(program)}[^`]*)`", readme)
    (whole,) = [line for line in page.replace("\\\n", " ").splitlines() if line.startswith(program)]
    assert shown.split() == whole.split()


def test_the_processors_that_engines_are_to_load_exist() -> None:
    page = (ROOT / "docs" / "engines.md").read_text("utf-8")
    named = re.findall(r"--logits-processors (targon[.\w]+):(\w+)", page)
    assert named == [("targon.engines.vllm_plugin", "TargonSampler")]
    source = (ROOT / "src" / Path(*named[0][0].split("."))).with_suffix(".py").read_text("utf-8")
    assert f"class {named[0][1]}(" in source
