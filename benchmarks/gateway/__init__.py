"""The gateway beside LiteLLM's proxy and SGLang's router, on the same machine, in front of the same instant engine.

Each has the machine for itself while it is measured; load, gateway and engine share it. Throughput: wrk, 64 connections
that each ask again once it is answered, sixteen tokens, whole and streamed. Latency: requests at fixed times, at a
fifth of what was just measured, tokens at a steady pace, against asking the engine directly at the same times. Then
10,000 streams that are open at once, and clients that don't read.

TARGON is measured as it is used: user → verifier with its gateway → prover → engine, each a process, with keys, signed
messages, receipts, audits and the log on; the log is asked afterwards whether it holds every answer that was counted.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import anyio
import uvloop

from benchmarks.gateway import holding, others, wrk
from benchmarks.gateway.answer import TOKENS
from benchmarks.gateway.others import NotInstalled, Place
from benchmarks.gateway.ours import Network, engine, network, settled
from benchmarks.gateway.processes import allow_open_files, free_port, get, running, wait_for_http
from benchmarks.gateway.streams import Timed, open_loop
from benchmarks.row import Row

TIMES_LITELLM = 15.0
SHARE_OF_ROUTER = 6.0
PACE_S = 0.02
"""Between two tokens while latency is measured: a model's usual speed."""
LOAD = 0.2
"""Share of the measured throughput at which latency is measured."""

Rates = dict[tuple[str, bool], float]
"""Requests a second by (who, streamed)."""


def run(quick: bool) -> list[Row]:
    """Measure everything.

    Raises:
        SystemExit: if something that is needed isn't installed, saying how to.
    """
    try:
        wrk.check_installed()
        others.check_installed()
    except NotInstalled as error:
        raise SystemExit(f"error: {error}") from None
    allow_open_files()
    seconds = 5 if quick else 15
    rates: Rates = {}
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="targon-bench-") as made:
        folder = Path(made)
        with _engine(folder) as port:
            rows += _throughput(Place("engine alone", port), seconds, folder, rates)
            starts: tuple[Callable[[int, Path], AbstractContextManager[Place]], ...] = (
                others.litellm,
                others.sglang_router,
            )
            for start in starts:
                with start(port, folder) as place:
                    rows += _throughput(place, seconds, folder, rates)
            with network(folder, port) as ours:
                rows += _throughput(ours.gateway, seconds, folder, rates)
                rows.append(_logged(ours))
                rows += _ratios(rates)
                rows += _latency(ours, rates["TARGON", True] * LOAD, seconds)
                rows += holding.run(ours, quick=quick)
    return rows


@contextmanager
def _engine(folder: Path) -> Iterator[int]:
    port = free_port()
    with running("engine", engine(folder, port), folder) as process:
        wait_for_http(port, "/v1/models", process, folder / "engine.out")
        yield port


def _throughput(place: Place, seconds: int, folder: Path, rates: Rates) -> list[Row]:
    rows = []
    for stream in (False, True):
        wrk.load(place, stream=stream, seconds=2, folder=folder)
        seen = wrk.load(place, stream=stream, seconds=seconds, folder=folder)
        rates[place.name, stream] = seen.per_second
        note = f"{wrk.CONNECTIONS} connections, {TOKENS} tokens; {seen.refused} refused, {seen.broken} broken"
        rows.append(Row(f"{place.name}, {form(stream)}", seen.per_second, "requests/s", note=note))
    return rows


def form(stream: bool) -> str:
    return "streamed" if stream else "whole"


def _ratios(rates: Rates) -> list[Row]:
    rows = []
    for stream in (False, True):
        ours = rates["TARGON", stream]
        rows.append(
            Row(
                f"TARGON against LiteLLM, {form(stream)}",
                ours / rates["LiteLLM", stream],
                "times",
                f">= {TIMES_LITELLM:g} times",
            )
        )
        rows.append(
            Row(
                f"TARGON against sglang-router, {form(stream)}",
                ours / rates["sglang-router", stream],
                "times",
                f">= 1/{SHARE_OF_ROUTER:g}",
            )
        )
    return rows


def _logged(ours: Network) -> Row:
    answered, delivered = anyio.run(settled, ours)
    return Row(
        "inferences in the log",
        answered,
        "answered",
        note=f"of {delivered} attempts, those under way when wrk stopped included",
    )


def _latency(ours: Network, per_second: float, seconds: int) -> list[Row]:
    direct = Place("engine", ours.engine_port)
    get(ours.engine_port, f"/pace?first={PACE_S}&each={PACE_S}")
    try:
        own = [_timed(direct, per_second, seconds), _timed(ours.gateway, per_second, seconds)]
    finally:
        get(ours.engine_port, "/pace?")
    straight, through = own
    note = f"{per_second:.0f} requests/s at fixed times, a token each {PACE_S * 1e3:g} ms; {through.failed} failed"
    rows = []
    for name, of in (("median", 0.5), ("p95", 0.95), ("p99", 0.99)):
        added = (quantile(through.first, of) - quantile(straight.first, of)) * 1e3
        target = "<= 2 ms" if of == 0.5 else ""
        rows.append(Row(f"added to the first token, {name}", added, "ms", target, note))
    later = (statistics.median(through.last) - statistics.median(straight.last)) / (TOKENS - 1) * 1e6
    rows.append(Row("added to each later token, median", later, "µs", "<= 50 µs", note))
    for name, of in (("p95", 0.95), ("p99", 0.99)):
        late = (quantile(through.gaps, of) - quantile(straight.gaps, of)) * 1e6
        rows.append(Row(f"added to a pause between tokens, {name}", late, "µs", note="jitter: it evens out"))
    return rows


def _timed(place: Place, per_second: float, seconds: int) -> Timed:
    uvloop.run(open_loop(place, per_second=per_second, seconds=2))
    return uvloop.run(open_loop(place, per_second=per_second, seconds=seconds))


def quantile(values: list[float], of: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * of))]
