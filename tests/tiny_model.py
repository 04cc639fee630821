"""A model of random weights: real, and quick to load."""

from __future__ import annotations

import shutil
from pathlib import Path


def make_tiny_model(folder: Path) -> Path:
    """Save a small Llama of random weights, always the same, with the default model's tokenizer; returns its folder."""
    # imported late: torch reads the environment once, and some of those who come here set it first
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from targon.engines.default_model import ensure_default_model

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49_152,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=8_192,
        bos_token_id=1,
        eos_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(ensure_default_model() / name, folder / name)
    return folder
