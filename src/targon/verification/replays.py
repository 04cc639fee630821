"""What the reference engine says of kept answers, kept beside them: judged by all methods, replayed once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import anyio
import numpy as np
from numpy.typing import NDArray

from targon.engines import Engine, ModelIdentity, Replayed
from targon.protocol.replay import Replay
from targon.verification.transcripts import REPLAYED_TOGETHER, Transcript

SAVED_EVERY = 16
"""Calls to the reference between two savings: what a killed run loses, minutes at most."""

_OF_REPLAY = tuple(field.name for field in fields(Replay))
_PER_POSITION = (*_OF_REPLAY, "claimed_logprobs", "claimed_ranks")


def replays_path(transcripts: Path, reference: ModelIdentity) -> Path:
    """Where the replays of a file of transcripts on a reference lie."""
    named = f"{reference.model_digest} {reference.engine} {reference.dtype} {' '.join(_PER_POSITION)}"
    return transcripts.with_suffix(f".{hashlib.sha256(named.encode()).hexdigest()[:8]}.npz")


async def replay_all(
    path: Path,
    transcripts: Sequence[Transcript],
    reference: Engine,
    done: Callable[[int], None] = lambda _: None,
) -> list[Replayed]:
    """The replays of transcripts, in their order; those that a file lacks are made and added to it.

    Args:
        done: told how many more there are.

    Raises:
        EngineError: as the reference does; what was replayed until then is kept.
    """
    kept = await anyio.to_thread.run_sync(load_replays, path)
    missing = [transcript for transcript in transcripts if _key(transcript) not in kept]
    missing.sort(key=_length)  # what is replayed together is padded to the longest
    done(len(transcripts) - len(missing))
    try:
        for number, start in enumerate(range(0, len(missing), REPLAYED_TOGETHER), start=1):
            group = missing[start : start + REPLAYED_TOGETHER]
            results = await reference.replay([transcript.replay_task() for transcript in group])
            kept.update(zip(map(_key, group), results, strict=True))
            done(len(group))
            if number % SAVED_EVERY == 0:
                await anyio.to_thread.run_sync(save_replays, path, dict(kept))
    finally:
        if missing:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(save_replays, path, kept)
    return [kept[_key(transcript)] for transcript in transcripts]


Key = str
"""Which transcript, and with which tokens: an answer that was made again is another."""


def _key(transcript: Transcript) -> Key:
    return f"{transcript.number}-{transcript.digest()[:16]}"


def _length(transcript: Transcript) -> int:
    """Of prompt and answer, in tokens, roughly."""
    return sum(len(message.content) for message in transcript.messages) // 4 + len(transcript.token_ids)


def save_replays(path: Path, replays: Mapping[Key, Replayed]) -> None:
    """Write replays; the file is whole or as it was before."""
    parts: dict[str, NDArray[Any]] = {
        "keys": np.array(list(replays)),
        "lengths": np.array([replayed.claimed_ranks.size for replayed in replays.values()]),
        "prompt_tokens": np.array([replayed.prompt_tokens for replayed in replays.values()]),
        "top_k": np.array([replayed.top_k for replayed in replays.values()]),
    }
    for name in _PER_POSITION:
        columns = [
            getattr(replayed.replay if name in _OF_REPLAY else replayed, name)
            for replayed in replays.values()
        ]
        parts[name] = np.concatenate(columns) if columns else np.zeros(0)
    unfinished = path.with_suffix(f".{os.getpid()}.part")  # another run may write the same
    with unfinished.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **parts)
    unfinished.replace(path)


def load_replays(path: Path) -> dict[Key, Replayed]:
    """The replays of a file; none where there is no file, or one that can't be read."""
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            parts = {name: file[name] for name in file.files}
    except (OSError, ValueError, BadZipFile):
        return {}
    ends = np.cumsum(parts["lengths"])
    replays: dict[Key, Replayed] = {}
    for place, key in enumerate(parts["keys"].tolist()):
        span = slice(int(ends[place] - parts["lengths"][place]), int(ends[place]))
        replays[key] = Replayed(
            replay=Replay(**{name: parts[name][span] for name in _OF_REPLAY}),
            claimed_logprobs=parts["claimed_logprobs"][span],
            claimed_ranks=parts["claimed_ranks"][span],
            prompt_tokens=int(parts["prompt_tokens"][place]),
            top_k=int(parts["top_k"][place]),
        )
    return replays
