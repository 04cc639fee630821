"""``targon engine``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from targon.cli.options import Options
from targon.engines.process import main as engine_process


class EngineCommand(Options):
    """Run an engine in a process of its own, for provers and verifiers on this machine to share."""

    socket: Path
    """Unix socket to listen at."""
    model: str = "default"
    """A model folder in the Hugging Face layout, or 'default': SmolLM2-135M-Instruct."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format."""
    threads: int = Field(0, ge=0)
    """Processor threads; 0: one per core."""
    max_batch: int = Field(16, ge=1, le=256)
    """Requests that are decoded at once; more wait."""

    def run(self) -> int:
        flags = ["--socket", str(self.socket), "--model", self.model, "--dtype", self.dtype]
        flags += ["--max-batch", str(self.max_batch)]
        if self.threads:
            flags += ["--threads", str(self.threads)]
        return engine_process(flags)
