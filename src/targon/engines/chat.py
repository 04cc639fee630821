"""A model's own tokenizer and chat template: conversations to token ids, and token ids to text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from targon.engines.errors import EngineUnavailable, TaskRefused
from targon.protocol.messages import ChatMessage
from targon.protocol.primitives import TokenId


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

    @property
    def eos_id(self) -> int | None:
        """The tokenizer's own end-of-sequence token."""
        value = self._tokenizer.eos_token_id
        return value if isinstance(value, int) else None

    def encode(self, messages: Sequence[ChatMessage]) -> tuple[TokenId, ...]:
        """The conversation as the model sees it, ready for its answer.

        Raises:
            TaskRefused: if the template cannot render this conversation.
        """
        from jinja2 import TemplateError

        if not messages:
            raise TaskRefused("messages: got none, expected at least one")
        turns = [{"role": message.role, "content": message.content} for message in messages]
        try:
            text = self._tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        except TemplateError as error:
            raise TaskRefused(f"messages: the model's chat template refuses them: {error}") from error
        return tuple(map(TokenId, self._backend.encode(text, add_special_tokens=False).ids))

    def decode(self, token_ids: Sequence[TokenId]) -> str:
        """Text of token ids, special tokens left out."""
        return str(self._backend.decode(list(token_ids), skip_special_tokens=True))
