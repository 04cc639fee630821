"""What a light verifier was told, with the signatures: so that it can show it to whoever doubts a verdict."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from targon.protocol.canonical import canonical_bytes
from targon.protocol.references import ReferenceAnswer, ReferenceTask

FILE: Final = "told.jsonl"
MAX_BYTES: Final = 128 << 20
"""Of the file; then it becomes ``told.1.jsonl``, and what that held is gone."""


class Told:
    """Keeps tasks with what oracles answered, a line each, the newest of them.

    It is no log: nothing hangs on it, and it is not waited for.

    Args:
        folder: that of the verifier's log.
    """

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        self._path = folder / FILE
        self._max_bytes = max_bytes
        self._lock = threading.Lock()

    def keep(self, task: ReferenceTask, answers: Sequence[ReferenceAnswer]) -> None:
        """Write a task and its answers down. Blocks; to be called in a thread.

        Raises:
            OSError: if it can't be written.
        """
        line = canonical_bytes({"answers": [answer.to_json() for answer in answers], "task": task.to_json()})
        with self._lock:
            if self._path.exists() and self._path.stat().st_size > self._max_bytes:
                self._path.replace(self._path.with_suffix(".1.jsonl"))
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # prompts of users may be in it
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "ab") as file:
                file.write(line + b"\n")
