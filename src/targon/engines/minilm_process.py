"""Sentence embeddings in a process of their own: ``python -m targon.engines.minilm_process``, on its stdin and stdout.

A question is a line, ``{"texts": [...]}``. The answer is a line, ``{"rows": n}``, and then the ``(n, 384)`` float32
numbers, little-endian; or ``{"failure": "why"}``, after which the process ends. It also ends with its stdin.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import BinaryIO

from targon.engines.errors import EngineError
from targon.engines.model_thread import share_the_cores

MAX_LINE: int = 64 * 1024 * 1024
"""Bytes of a question."""


def main() -> int:
    """Answer until stdin ends; returns the exit code."""
    logging.disable(logging.WARNING)  # what libraries say there is no operator's business
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints is no answer
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")
    # imported late: torch reads the environment once
    share_the_cores()
    import torch

    from targon.engines.minilm import MiniLM

    torch.set_num_threads(1)  # a text takes milliseconds; the cores are the engines'
    try:
        model = MiniLM()
    except EngineError as error:
        _tell(answers, {"failure": str(error)})
        return 1
    while line := sys.stdin.buffer.readline(MAX_LINE):
        vectors = model.embed(json.loads(line)["texts"])
        _tell(answers, {"rows": len(vectors)}, vectors.astype("<f4").tobytes())
    return 0


def _tell(answers: BinaryIO, head: dict[str, object], data: bytes = b"") -> None:
    answers.write(json.dumps(head).encode() + b"\n" + data)
    answers.flush()


if __name__ == "__main__":
    sys.exit(main())
