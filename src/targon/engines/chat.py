"""A model's own tokenizer and chat template: conversations to token ids, and token ids to text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Final

from targon.engines.errors import EngineUnavailable, TaskRefused
from targon.engines.text_stream import ByteText, Grow, WholeText
from targon.protocol.messages import ChatMessage
from targon.protocol.primitives import TokenId

_PLAIN: Final = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
"""The bytes that stand for themselves in byte-level vocabularies; the others are shifted to U+0100 and on."""
_BYTES: Final = {chr(byte): byte for byte in _PLAIN} | {
    chr(0x100 + place): byte for place, byte in enumerate(sorted(set(range(256)) - set(_PLAIN)))
}


def turns(messages: Sequence[ChatMessage]) -> list[dict[str, str]]:
    """A conversation in the form that templates and engines take."""
    return [{"role": message.role, "content": message.content} for message in messages]


class ChatTokenizer:
    """Renders conversations as the model was taught to read them."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        template = self._tokenizer.chat_template
        if not isinstance(template, str) or "strftime_now" in template:
            raise EngineUnavailable(
                f"chat template of {folder}: got one that is missing or reads the clock, expected one that "
                "gives the same prompt everywhere; put a chat_template.jinja without strftime_now there"
            )
        self._backend = self._tokenizer.backend_tokenizer

    def eos_ids(self, configured: object) -> tuple[TokenId, ...]:
        """All end-of-sequence tokens: those of a generation configuration (an id, a list of them, or None), and the
        tokenizer's own."""
        ids = {*(configured if isinstance(configured, list) else [configured]), self._tokenizer.eos_token_id}
        return tuple(sorted(TokenId(id_) for id_ in ids if isinstance(id_, int)))

    @property
    def vocab_size(self) -> int:
        """How many token ids the tokenizer knows; a model may have more."""
        return int(self._backend.get_vocab_size(with_added_tokens=True))

    def encode(self, messages: Sequence[ChatMessage]) -> tuple[TokenId, ...]:
        """The conversation as the model sees it, ready for its answer; raises as :meth:`render` does."""
        return self.encode_text(self.render(messages))

    def encode_text(self, text: str) -> tuple[TokenId, ...]:
        """The tokens of a text, in which special tokens count as such; none are added."""
        return tuple(self._backend.encode(text, add_special_tokens=False).ids)

    def render(self, messages: Sequence[ChatMessage]) -> str:
        """The conversation as text, by the model's chat template.

        Raises:
            TaskRefused: if the template cannot render this conversation.
        """
        from jinja2 import TemplateError

        if not messages:
            raise TaskRefused("messages: got none, expected at least one")
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    turns(messages), add_generation_prompt=True, tokenize=False
                )
            )
        except TemplateError as error:
            raise TaskRefused(f"messages: the model's chat template refuses them: {error}") from error

    def decode(self, token_ids: Sequence[TokenId]) -> str:
        """Text of token ids, special tokens left out."""
        return str(self._backend.decode(list(token_ids), skip_special_tokens=True))

    def as_json(self) -> str:
        """The tokenizer in the form of a ``tokenizer.json``, from which another process can make the same one."""
        return str(self._backend.to_str())

    def growing_text(self) -> Grow:
        """The text of an answer to come, token by token."""
        return WholeText(self.decode) if self._token_bytes is None else ByteText(self._token_bytes)

    @cached_property
    def _token_bytes(self) -> tuple[bytes, ...] | None:
        """The bytes of each token, nothing for special ones; None if the tokenizer's aren't mere bytes."""
        settings = json.loads(self._backend.to_str())
        if (settings.get("decoder") or {}).get("type") != "ByteLevel":
            return None
        special = {token["id"] for token in settings.get("added_tokens", ()) if token["special"]}
        vocabulary = self._backend.get_vocab(with_added_tokens=True)
        found = [b""] * (max(vocabulary.values()) + 1)
        for token, id_ in vocabulary.items():
            if id_ not in special:
                known = all(letter in _BYTES for letter in token)
                found[id_] = bytes(map(_BYTES.__getitem__, token)) if known else token.encode()
        return tuple(found)
