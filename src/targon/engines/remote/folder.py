"""The model that an engine is said to run, as it lies on this machine: tokenizer, chat template, identity.

An engine over HTTP has weights of its own. What is needed here is what turns a conversation into token ids and
token ids into text, the model's digest, and its card: a few answers by which the weights can be recognised.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from targon.engines.chat import ChatTokenizer
from targon.engines.default_model import DEFAULT_MODEL_NAME, ensure_default_model
from targon.engines.errors import EngineUnavailable
from targon.engines.model_card import ModelCard, find_card
from targon.engines.model_digest import model_digest
from targon.engines.remote.backend import Prompt
from targon.protocol.messages import ChatMessage
from targon.protocol.primitives import Digest, TokenId

DEFAULT_MODEL = "default"
"""Names the default model wherever a model folder is asked for."""


@dataclass(frozen=True)
class ModelFolder:
    """A model in the Hugging Face layout; its weights may be missing if ``targon-model.json`` has their digest."""

    path: Path
    name: str
    digest: Digest
    chat: ChatTokenizer
    vocab_size: int
    context_length: int
    eos_ids: tuple[TokenId, ...]

    @classmethod
    def open(cls, model: str | Path) -> ModelFolder:
        """Read a model's folder; seconds, and the first time of the default model a conversion. Blocks.

        Raises:
            EngineUnavailable: if there is no model there, or one that can't be used.
        """
        path = ensure_default_model() if model == DEFAULT_MODEL else Path(model).expanduser()
        digest = model_digest(path)
        config = _json(path / "config.json")
        config = {**config, **config.get("text_config", {})}
        chat = ChatTokenizer(path)
        try:
            vocab_size, context_length = int(config["vocab_size"]), int(config["max_position_embeddings"])
        except (KeyError, TypeError, ValueError) as error:
            raise EngineUnavailable(
                f"model folder {path}: got a config.json without {error}, expected vocab_size and "
                "max_position_embeddings; copy the model's own config.json there"
            ) from error
        return cls(
            path=path,
            name=DEFAULT_MODEL_NAME if model == DEFAULT_MODEL else path.resolve().name,
            digest=digest,
            chat=chat,
            vocab_size=vocab_size,
            context_length=context_length,
            eos_ids=chat.eos_ids(
                _json(path / "generation_config.json").get("eos_token_id", config.get("eos_token_id"))
            ),
        )

    def prompt(self, messages: Sequence[ChatMessage]) -> Prompt:
        """A conversation in each form that an engine may want. Raises ``TaskRefused`` if the template refuses it."""
        text = self.chat.render(messages)
        return Prompt(tuple(messages), text, self.chat.encode_text(text))

    @cached_property
    def card(self) -> ModelCard | None:
        """By which an engine's weights can be recognised; None if nobody made one."""
        return find_card(self.digest, self.path)


def _json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise EngineUnavailable(f"model folder: {file} cannot be read ({error}); copy it anew") from error
    return value if isinstance(value, dict) else {}
