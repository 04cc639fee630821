"""Kept honest answers of any engine, replayed on the in-process engine in float32: how they fare under the
calibration that comes with the software, and how many of their positions lists of the most likely tokens would
leave undecided.

python -m benchmarks.honest FILE.jsonl …     transcripts, as `targon calibrate --engines` keeps them
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio

from targon.engines import Engine, replay_by_score, start_engine_process
from targon.engines.remote import LIST_LENGTH
from targon.protocol import Sampling
from targon.verification import find_calibration
from targon.verification.calibrating import Measured, try_out
from targon.verification.replays import replay_all, replays_path
from targon.verification.transcripts import REPLAYED_TOGETHER, Transcript, read_transcripts

LISTED = 160
"""Answers of each file that are replayed from lists, too."""


async def measure(files: list[Path]) -> None:
    with TemporaryDirectory(prefix="targon-bench-") as folder:
        async with start_engine_process(Path(folder) / "engine.sock", timeout_s=600.0) as engine:
            for file in files:
                transcripts = list(read_transcripts(file))
                replays = await replay_all(replays_path(file, engine.identity), transcripts, engine)
                tried = try_out(
                    find_calibration(engine.identity),
                    [Measured.of(*pair) for pair in zip(transcripts, replays, strict=True)],
                )
                largest = math.exp(min(tried.largest_log_e, 700.0))
                print(f"{file.stem}: {tried}; largest e {largest:.3g}")
                for kind, (positions, unsure) in (await _undecided(engine, transcripts[:LISTED])).items():
                    print(
                        f"  lists of {LIST_LENGTH}, {kind}: {unsure / positions:.1%} of {positions:,} undecided"
                    )


async def _undecided(engine: Engine, transcripts: list[Transcript]) -> dict[str, tuple[int, int]]:
    """Per kind of sampling: positions, and how many a list leaves undecided."""
    positions: Counter[str] = Counter()
    unsure: Counter[str] = Counter()
    for start in range(0, len(transcripts), REPLAYED_TOGETHER):
        group = transcripts[start : start + REPLAYED_TOGETHER]
        replayed = await replay_by_score(engine, [one.replay_task() for one in group], top_k=LIST_LENGTH)
        for one, found in zip(group, replayed, strict=True):
            kind = _kind(one.sampling)
            positions[kind] += found.replay.unsure.size
            unsure[kind] += int(found.replay.unsure.sum())
    return {kind: (positions[kind], unsure[kind]) for kind in sorted(positions)}


def _kind(sampling: Sampling) -> str:
    if sampling.temperature == 0.0:
        return "T = 0"
    warm = "T > 0.6" if sampling.temperature > 0.6 else "T up to 0.6"
    return f"{warm}, top-p {'below' if sampling.top_p < 1.0 else 'at'} 1, top-k {'on' if sampling.top_k else 'off'}"


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.honest", description=__doc__, formatter_class=raw
    )
    parser.add_argument("files", nargs="+", type=Path, help="transcripts of honest engines")
    anyio.run(measure, parser.parse_args().files)


if __name__ == "__main__":
    main()
