"""What the plugin costs a running vLLM: tokens per second of 8 streams, drawn by vLLM itself and by ``targon/1``.

Ways of drawing take turns, so that a machine that slows down slows all of them, and the medians are compared with
vLLM's own greedy decoding. Before that, keys are checked: the same key has the same tokens, another key has others,
and refused requests are refused.

python -m benchmarks.vllm_plugin http://127.0.0.1:8000     a vLLM with the plugin, see targon.engines.vllm_plugin
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

import aiohttp
import anyio

from targon.engines.sampler_arguments import sampler_arguments
from targon.protocol import Sampling

STREAMS = 8
TOKENS = 64
ROUNDS = 5
PROMPT = "Write a long story about a lighthouse keeper who found a map in a bottle."

Parameters = dict[str, Any]


def targon(run_key: int, **fields: float) -> Parameters:
    """The parameters of a request whose tokens ``targon/1`` draws."""
    sampling = Sampling.from_json({"seed": "0" * 16, "max_tokens": 1} | fields)
    return {"temperature": 0, "vllm_xargs": sampler_arguments(sampling, run_key)}


def ways(number: int) -> dict[str, Parameters]:
    """Ways of drawing, for one stream of one round."""
    return {
        "vLLM, greedy": {"temperature": 0},
        "vLLM, T = 0.8": {"temperature": 0.8},
        "vLLM, T = 0.8, top-p 0.95": {"temperature": 0.8, "top_p": 0.95},
        "targon/1, T = 0": targon(number, temperature=0),
        "targon/1, T = 0.8": targon(number, temperature=0.8),
        "targon/1, T = 0.8, top-p 0.95": targon(number, temperature=0.8, top_p=0.95),
    }


async def complete(http: aiohttp.ClientSession, model: str, parameters: Parameters) -> list[int]:
    """The tokens of one answer."""
    body = {
        "model": model,
        "prompt": PROMPT,
        "max_tokens": TOKENS,
        "ignore_eos": True,
        "return_token_ids": True,
    }
    async with http.post("/v1/completions", json=body | parameters) as response:
        answer = await response.json()
        if response.status != 200:
            raise RuntimeError(f"HTTP {response.status}: {answer}")
        tokens: list[int] = answer["choices"][0]["token_ids"]
        return tokens


async def together(
    http: aiohttp.ClientSession, model: str, all_parameters: Sequence[Parameters]
) -> tuple[list[list[int]], float]:
    """The answers of several streams at once, and their tokens per second."""
    answers: list[list[int]] = [[] for _ in all_parameters]

    async def one(place: int, parameters: Parameters) -> None:
        answers[place] = await complete(http, model, parameters)

    began = time.perf_counter()
    async with anyio.create_task_group() as group:
        for place, parameters in enumerate(all_parameters):
            group.start_soon(one, place, parameters)
    return answers, sum(map(len, answers)) / (time.perf_counter() - began)


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two answers begin with alike."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(one))


async def check_keys(http: aiohttp.ClientSession, model: str) -> None:
    """Check that draws hang on the key, whatever else is in the batch, and that the plugin is there at all."""
    drawn = [targon(key, temperature=0.8, top_p=0.95) for key in (1, 2, 1, 2, 3)]
    mixed = [*drawn, {"temperature": 0}, {"temperature": 0.8}]
    (one, two, *again, other, _greedy, _random), _ = await together(http, model, mixed)
    alone = await complete(http, model, drawn[0])
    # in half precision what else is in the batch turns a near-tie now and then, and all that follows
    alike = min(_shared(again[0], one), _shared(again[1], two))
    unlike = max(_shared(one, two), _shared(one, other), _shared(two, other))
    if alike <= 2 * unlike:
        raise RuntimeError(
            "equal keys gave different tokens, or different keys equal ones: is the plugin loaded?"
        )
    sys.stdout.write(
        f"one key, alone and among others: {_shared(alone, one)} of {len(one)} tokens before the first difference\n"
    )
    for wrong in ({"presence_penalty": 0.5}, {"vllm_xargs": {"targon_run_key": "1"}}):
        body = {"model": model, "prompt": PROMPT, "max_tokens": 1} | drawn[0] | wrong
        async with http.post("/v1/completions", json=body) as response:
            if response.status != 400:
                raise RuntimeError(f"{wrong}: got HTTP {response.status}, expected 400")
            sys.stdout.write(f"{wrong}: HTTP 400, {(await response.json())['error']['message'][:100]}\n")


async def measure(url: str) -> None:
    timeout = aiohttp.ClientTimeout(total=600)
    async with aiohttp.ClientSession(url, timeout=timeout) as http:
        async with http.get("/v1/models") as response:
            model = (await response.json())["data"][0]["id"]
        await check_keys(http, model)
        speeds: dict[str, list[float]] = {name: [] for name in ways(0)}
        for turn in range(ROUNDS + 1):
            for name, found in speeds.items():
                streams = [ways(turn * STREAMS + stream)[name] for stream in range(STREAMS)]
                _, speed = await together(http, model, streams)
                if turn:  # the first warms up
                    found.append(speed)
        greedy = statistics.median(speeds["vLLM, greedy"])
        for name, found in speeds.items():
            middle = statistics.median(found)
            sys.stdout.write(
                f"{name:<32} {middle:7.1f} tokens/s ({min(found):.1f} to {max(found):.1f}), "
                f"{middle / greedy - 1:+.1%} against vLLM's greedy\n"
            )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.vllm_plugin", description=__doc__)
    parser.add_argument("url")
    anyio.run(measure, parser.parse_args(arguments).url)
    return 0


if __name__ == "__main__":
    sys.exit(main())
