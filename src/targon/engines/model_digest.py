"""The digest of a model: which weights, tokenizer, chat template and sampling defaults stand in a folder.

It is the SHA-256 over the RFC 8785 form of ``{"weights": …, "tokenizer": …, "chat_template": …,
"sampling_defaults": …}``, each part itself a SHA-256: of the weight files (a JSON object of file name and
SHA-256), of the bytes of ``tokenizer.json``, of the chat template's UTF-8, and of
``generation_config.json`` in canonical form without the version of the library that wrote it.

Reading hundreds of megabytes at every start would be felt, so the result is kept beside the files in
``targon-model.json`` with their sizes and times of change, and computed anew when one of these differs. Where the
weights lie on another machine, as those of an engine over HTTP may, that file says what they are: copy it with the
others.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from targon.engines.errors import EngineUnavailable
from targon.protocol.canonical import digest
from targon.protocol.primitives import Digest

MANIFEST = "targon-model.json"


def model_digest(folder: Path) -> Digest:
    """The digest of the model in a folder (safetensors weights, ``tokenizer.json``, configuration).

    Raises:
        EngineUnavailable: if the folder holds no such model.
    """
    files = sorted(folder.glob("*.safetensors"))
    tokenizer = folder / "tokenizer.json"
    manifest = _read_manifest(folder / MANIFEST)
    copied = manifest.get("parts", {}).get("weights") if not files else None
    if not (files or copied) or not tokenizer.is_file():
        raise EngineUnavailable(
            f"model folder: got {str(folder)!r}, expected a folder with *.safetensors (or the {MANIFEST} of one) and "
            "tokenizer.json; give the path of a model in the Hugging Face layout"
        )
    stamps = {file.name: _stamp(file) for file in _files_that_count(folder)}
    if manifest.get("files") == stamps:
        return Digest(str(manifest["digest"]))
    parts: dict[str, str] = {
        "weights": copied or digest({file.name: _sha256(file) for file in files}),
        "tokenizer": _sha256(tokenizer),
        "chat_template": hashlib.sha256(chat_template(folder).encode()).hexdigest(),
        "sampling_defaults": digest(_sampling_defaults(folder)),
    }
    whole = digest(parts)
    _write_manifest(folder / MANIFEST, {"digest": whole, "parts": parts, "files": stamps})
    return whole


def chat_template(folder: Path) -> str:
    """The chat template of the model in a folder, or the empty string."""
    alone = folder / "chat_template.jinja"
    if alone.is_file():
        return alone.read_text(encoding="utf-8")
    settings = folder / "tokenizer_config.json"
    if settings.is_file():
        template = json.loads(settings.read_text(encoding="utf-8")).get("chat_template")
        return template if isinstance(template, str) else ""
    return ""


def _sampling_defaults(folder: Path) -> dict[str, Any]:
    file = folder / "generation_config.json"
    if not file.is_file():
        return {}
    values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    values.pop("transformers_version", None)
    return values


def _files_that_count(folder: Path) -> list[Path]:
    names = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")
    return [
        *sorted(folder.glob("*.safetensors")),
        *(folder / name for name in names if (folder / name).is_file()),
    ]


def _stamp(file: Path) -> list[int]:
    status = file.stat()
    return [status.st_size, status.st_mtime_ns]


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _read_manifest(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _write_manifest(file: Path, value: dict[str, Any]) -> None:
    temporary = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(value, indent=1, sort_keys=True), encoding="utf-8")
        temporary.replace(file)
    except OSError:
        return  # a folder that is not ours to write in: the digest is computed at every start instead
