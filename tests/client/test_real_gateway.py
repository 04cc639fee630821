"""The client, the examples and the pages' scripts, against a gateway's own front with honest answers behind it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import openai
import pytest

from targon.client import AsyncClient, Client
from tests.client.gateway import PROVER, VERIFIER
from tests.client.honest import AUDITED, MODEL, HonestOrders
from tests.gateway.front_world import World, a_front

pytestmark = pytest.mark.anyio

PARTS = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
ROOT = Path(__file__).resolve().parents[2]
ASK: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Why?"}], "max_tokens": 12}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with a_front(tmp_path, HonestOrders()) as one:
        yield one


def environment(world: World) -> dict[str, str]:
    return {
        "PYTHONPATH": str(ROOT / "src"),
        "TARGON_BASE_URL": world.url,
        "TARGON_API_KEY": world.key,
        "TARGON_VERIFIER_HOTKEY": VERIFIER.ss58_address,
    }


async def run(world: World, *command: str, folder: Path) -> subprocess.CompletedProcess[bytes]:
    with anyio.fail_after(60):
        return await anyio.run_process(
            [sys.executable, *command], env=environment(world), cwd=folder, check=False
        )


def scripts(page: str) -> list[str]:
    """A page's blocks of Python."""
    text = (ROOT / "docs" / page).read_text("utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0},
        {"n": 3, "temperature": 0.5, "top_p": 0.9},
        {"stop": ["e", "a"], "seed": 7},
        {"logprobs": True},
        {"messages": [{"role": "developer", "content": PARTS}]},
        {"max_tokens": openai.omit, "max_completion_tokens": 3},
        {"max_tokens": openai.omit},
    ],
)  # fmt: skip
async def test_answers_of_a_real_gateway_verify_whole_and_streamed(
    world: World, options: dict[str, Any]
) -> None:
    async with AsyncClient(api_key=world.key, base_url=world.url, max_retries=0) as client:
        whole = await client.chat.completions.create(**ASK | options)
        whole.verify(verifier=VERIFIER.ss58_address, prover=PROVER.ss58_address)
        usage = {"include_usage": True}
        stream = await client.chat.completions.create(**ASK | options, stream=True, stream_options=usage)
        assert [chunk async for chunk in stream]
        stream.verify()


async def test_completions_of_a_real_gateway_verify_whole_and_streamed(world: World) -> None:
    async with AsyncClient(api_key=world.key, base_url=world.url, max_retries=0) as client:
        whole = await client.completions.create(model=MODEL, prompt=["one", "two"], n=2, logprobs=0)
        whole.verify()
        stream = await client.completions.create(model=MODEL, prompt="one", stream=True)
        assert [chunk async for chunk in stream]
        stream.verify()


async def test_what_a_real_gateway_has_on_file_is_checked(world: World) -> None:
    async with AsyncClient(api_key=world.key, base_url=world.url, max_retries=0) as client:
        answer = await client.chat.completions.create(**ASK)
        told = await client.receipt(answer.receipt)
        assert told.audit is not None
        assert (told.audit.outcome, told.audit.record) == ("pass", AUDITED.record)
        with pytest.raises(openai.NotFoundError):
            await client.receipt("99" * 32)


async def test_a_wrong_key_is_openai_s_error(world: World) -> None:
    async with AsyncClient(api_key="sk-wrong", base_url=world.url, max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError):
            await client.chat.completions.create(**ASK)


async def test_what_a_gateway_tells_is_a_file_that_targon_verify_takes(world: World, tmp_path: Path) -> None:
    def fetch() -> str:
        with Client(api_key=world.key, base_url=world.url) as client:
            answer = client.chat.completions.create(**ASK)
            return client.get(f"/receipts/{answer.receipt.id}", cast_to=str)

    (tmp_path / "receipt.json").write_text(await anyio.to_thread.run_sync(fetch))
    done = await run(world, "-m", "targon.cli", "verify", "receipt.json", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["statements"][0]["signed"] is True


SAYS = {
    "chat.py": rf"answered by {PROVER.ss58_address}, receipt [0-9a-f]{{64}}\n$",
    "stream.py": rf"\nverified: {PROVER.ss58_address} signed all of it\n$",
    "async_many.py": r"(?:\w+: \w{8} said '[a-z]*'\n){8}$",
    "verify_answer.py": rf"verifier  {VERIFIER.ss58_address}: record \d+ of its log\naudit     pass\n",
    "plain_openai.py": r"\nreceipt [0-9a-f]{64}\n[a-z]*\n$",
}


def test_every_example_is_run_and_is_short() -> None:
    files = {path.name: path.read_text("utf-8") for path in (ROOT / "examples").glob("*.py")}
    assert set(files) == set(SAYS)
    assert all(len(text.splitlines()) <= 40 for text in files.values())
    page = (ROOT / "docs" / "client.md").read_text("utf-8")
    assert [name for name in files if f"`{name}`" not in page] == []


@pytest.mark.parametrize("name", SAYS)
async def test_an_example_does_what_it_says(world: World, tmp_path: Path, name: str) -> None:
    done = await run(world, str(ROOT / "examples" / name), folder=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    assert re.search(SAYS[name], done.stdout.decode()), done.stdout


async def test_what_an_example_saved_is_right_by_targon_verify_and_by_the_page_s_own_script(
    world: World, tmp_path: Path
) -> None:
    await run(world, str(ROOT / "examples" / "verify_answer.py"), folder=tmp_path)
    command = ("-m", "targon.cli", "verify", "answers.jsonl", "--engine", "none", "--json")
    checked = await run(world, *command, folder=tmp_path)
    (one,) = json.loads(checked.stdout)["answers"]
    assert (checked.returncode, one["signed"], one["filed"]["signed"]) == (3, True, True)

    (by_hand,) = scripts("receipts.md")
    done = await run(world, "-c", by_hand, "answers.jsonl", folder=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.startswith(PROVER.ss58_address.encode() + b" answered ")
    saved = tmp_path / "answers.jsonl"
    saved.write_bytes(saved.read_bytes().replace(b"What is a prime?", b"What is a crime?"))
    assert (await run(world, "-c", by_hand, "answers.jsonl", folder=tmp_path)).returncode == 1


@pytest.mark.parametrize("place", range(3))
async def test_a_script_of_the_client_s_page_runs(world: World, tmp_path: Path, place: int) -> None:
    pages = scripts("client.md")
    assert len(pages) == 3
    done = await run(world, "-c", pages[place], folder=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    said = [f"answered by {PROVER.ss58_address}", "", "not verified: receipt's model_digest"][place]
    assert said in done.stdout.decode()
