"""The one answer that the instant engine gives to everybody, and the model folder that it is said to come from.

Sixteen tokens of the default model's tokenizer. The folder has that tokenizer and template, and weights that nobody
has: a prover and a verifier take the engine for an engine of that model, and of no other.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from targon.engines.default_model import ensure_default_model
from targon.engines.remote.folder import ModelFolder

TOKENS = 16
NAME = "instant"
TEXT = " The sky is blue because air scatters short waves of light more than long ones do."


def make_folder(folder: Path) -> ModelFolder:
    """The model's folder, made where it isn't there yet. Takes seconds the first time."""
    if not folder.exists():
        folder.mkdir(parents=True)
        default = ensure_default_model()
        for name in (
            "tokenizer.json",
            "tokenizer_config.json",
            "chat_template.jinja",
            "config.json",
            "generation_config.json",
        ):
            shutil.copy(default / name, folder / name)
        manifest = {"parts": {"weights": "1" * 64}}
        (folder / "targon-model.json").write_text(json.dumps(manifest), "utf-8")
    return ModelFolder.open(folder)


def tokens_of(model: ModelFolder) -> list[tuple[int, str]]:
    """(token id, its text) of the whole answer."""
    ids = model.chat.encode_text(TEXT)[:TOKENS]
    assert len(ids) == TOKENS
    return [(token_id, model.chat.decode((token_id,))) for token_id in ids]
