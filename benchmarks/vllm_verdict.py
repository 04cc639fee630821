"""What a verdict costs where a running vLLM is the reference, against generating the same tokens on that vLLM.

The verdict is timed as in :mod:`benchmarks.divergence`: from the request to the outcome, through the adapter, with
the most likely tokens of every position of the prompt and the answer as JSON, which vLLM has no way to limit.

python -m benchmarks.vllm_verdict http://127.0.0.1:8000     a vLLM with the plugin, see targon.engines.vllm_plugin
"""

from __future__ import annotations

import argparse
import time

import anyio
from rich.console import Console

from benchmarks.__main__ import describe_machine, table
from benchmarks.divergence import BATCH, SHAPES, answer, rows_of, verify_all
from benchmarks.row import Row
from targon.engines import ReplayTask, ScoreTask
from targon.engines.remote import LIST_LENGTH, open_remote_engine
from targon.protocol import request_run_key

TARGET = 25
"""How many times dearer generating has to be, one at a time."""


async def measure(url: str, quick: bool) -> list[Row]:
    async with open_remote_engine(url) as engine:
        await verify_all(engine, [await answer(engine, 32, 8, 0)])
        rows = []
        for prompt, tokens in SHAPES[: 1 if quick else None]:
            rows += await rows_of(engine, f"{engine.identity.engine} {engine.identity.dtype}", prompt, tokens)
        request, completion = await answer(engine, *SHAPES[0], 0)
        task = ReplayTask(request.messages, completion.token_ids, request.sampling, request_run_key(request))
        prompt_ids = await engine.prompt_token_ids(request.messages)
        began = time.perf_counter()
        (scores,) = await engine.score([ScoreTask(task.messages, task.token_ids, LIST_LENGTH)])
        scoring = time.perf_counter() - began
        began = time.perf_counter()
        await engine.replay([task])
        replaying = time.perf_counter() - began
        shape = f"{len(prompt_ids)} + {scores.claimed_ranks.size} tokens"
        note = f"lists of {LIST_LENGTH}, {shape}"
        rows.append(
            Row("of a verdict alone: vLLM's answer, read and checked", scoring * 1000, "ms", "", note)
        )
        rows.append(Row("of a verdict alone: with the sampler replayed", replaying * 1000, "ms", "", note))
        return rows


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.vllm_verdict", description=__doc__, formatter_class=raw
    )
    parser.add_argument("url", help="address of the vLLM")
    parser.add_argument("--quick", action="store_true", help="one shape only")
    arguments = parser.parse_args()
    rows = anyio.run(measure, arguments.url, arguments.quick)
    console = Console(width=150)
    console.print(table([("vllm", row) for row in rows]))
    console.print(f"target: {TARGET} times alone; {BATCH} at once is stated")
    for label, value in describe_machine():
        console.print(f"{label}: {value}", highlight=False)


if __name__ == "__main__":
    main()
