"""The look at every line, in a process of its own where there are many lines."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from targon.audit.errors import AuditError
from targon.audit.hashing import Hashed, Task, hash_segment, result_of
from targon.audit.proving import Proving, calibrations_at_hand
from targon.protocol.primitives import Digest

BESIDE_FROM: Final = 20_000
"""Records from which on hashing in a process of its own is worth its start."""


class Hashing:
    """The look at every line, in a process of its own where there are many."""

    def __init__(self, tasks: list[Task], calibrations: Sequence[Path]) -> None:
        self._tasks = tasks
        self._calibrations = calibrations
        self.counted: tuple[int, int, tuple[Digest, ...]] = (0, 0, ())
        """Verdicts whose evidence was computed again; others; and the calibrations that they would have needed."""
        self._process: subprocess.Popen[bytes] | None = None
        self._found: list[Hashed] = []
        if tasks and tasks[-1].last >= BESIDE_FROM:
            self._process = subprocess.Popen(
                [sys.executable, "-c", "from targon.audit import hashing; hashing.serve()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            self._threads = [threading.Thread(target=work, daemon=True) for work in (self._tell, self._hear)]
            for thread in self._threads:
                thread.start()

    def _tell(self) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            with self._process.stdin as stdin:
                stdin.write(json.dumps([str(place) for place in self._calibrations]).encode() + b"\n")
                for task in self._tasks:
                    told = {name: getattr(task, name) for name in Task.__slots__}
                    stdin.write(json.dumps(told).encode() + b"\n")
        except BrokenPipeError:
            pass  # it ended; the results say so

    def _hear(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if len(self._found) < len(self._tasks):
                self._found.append(result_of(line))
            else:
                checked, unchecked, missing = json.loads(line)
                self.counted = checked, unchecked, tuple(missing)

    def results(self) -> list[Hashed]:
        if self._process is None:
            proving = Proving(calibrations_at_hand(self._calibrations))
            found = [hash_segment(task, proving) for task in self._tasks]
            self.counted = proving.checked, proving.unchecked, tuple(sorted(proving.missing))
            return found
        for thread in self._threads:
            thread.join()
        if len(self._found) != len(self._tasks):
            raise AuditError(
                f"the process that hashes ended after {len(self._found)} of {len(self._tasks)} segments, with code "
                f"{self._process.wait()}: is there too little memory?"
            )
        return self._found

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for thread in self._threads:
                thread.join()
            assert self._process.stdout is not None
            self._process.stdout.close()
