"""``client.chat.completions`` and ``client.completions``: OpenAI's own, with the types of answers that have receipts.

They run the SDK's code. What is written here is for type checkers and readers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, overload

from openai import Omit, omit
from openai.resources import chat as chat_resources
from openai.resources import completions as text_resources

from targon.client.answers import (
    AsyncChatStream,
    AsyncTextStream,
    ChatAnswer,
    ChatStream,
    TextAnswer,
    TextStream,
)

Option = Any
"""What the SDK takes under that name; it checks it itself."""


class ChatCompletions(chat_resources.Completions):
    """``client.chat.completions``."""

    if TYPE_CHECKING:

        @overload
        def create(
            self,
            *,
            messages: Option,
            model: str,
            stream: Literal[False] | Omit | None = omit,
            **options: Option,
        ) -> ChatAnswer: ...
        @overload
        def create(
            self, *, messages: Option, model: str, stream: Literal[True], **options: Option
        ) -> ChatStream: ...
        @overload
        def create(
            self, *, messages: Option, model: str, stream: bool, **options: Option
        ) -> ChatAnswer | ChatStream: ...
        def create(self, **options: Option) -> Option: ...


class Chat(chat_resources.Chat):
    """``client.chat``."""

    @property
    def completions(self) -> ChatCompletions:
        return ChatCompletions(self._client)


class TextCompletions(text_resources.Completions):
    """``client.completions``."""

    if TYPE_CHECKING:

        @overload
        def create(
            self,
            *,
            model: str,
            prompt: Option,
            stream: Literal[False] | Omit | None = omit,
            **options: Option,
        ) -> TextAnswer: ...
        @overload
        def create(
            self, *, model: str, prompt: Option, stream: Literal[True], **options: Option
        ) -> TextStream: ...
        @overload
        def create(
            self, *, model: str, prompt: Option, stream: bool, **options: Option
        ) -> TextAnswer | TextStream: ...
        def create(self, **options: Option) -> Option: ...


class AsyncChatCompletions(chat_resources.AsyncCompletions):
    """``client.chat.completions``."""

    if TYPE_CHECKING:

        @overload
        async def create(
            self,
            *,
            messages: Option,
            model: str,
            stream: Literal[False] | Omit | None = omit,
            **options: Option,
        ) -> ChatAnswer: ...
        @overload
        async def create(
            self, *, messages: Option, model: str, stream: Literal[True], **options: Option
        ) -> AsyncChatStream: ...
        @overload
        async def create(
            self, *, messages: Option, model: str, stream: bool, **options: Option
        ) -> ChatAnswer | AsyncChatStream: ...
        async def create(self, **options: Option) -> Option: ...


class AsyncChat(chat_resources.AsyncChat):
    """``client.chat``."""

    @property
    def completions(self) -> AsyncChatCompletions:
        return AsyncChatCompletions(self._client)


class AsyncTextCompletions(text_resources.AsyncCompletions):
    """``client.completions``."""

    if TYPE_CHECKING:

        @overload
        async def create(
            self,
            *,
            model: str,
            prompt: Option,
            stream: Literal[False] | Omit | None = omit,
            **options: Option,
        ) -> TextAnswer: ...
        @overload
        async def create(
            self, *, model: str, prompt: Option, stream: Literal[True], **options: Option
        ) -> AsyncTextStream: ...
        @overload
        async def create(
            self, *, model: str, prompt: Option, stream: bool, **options: Option
        ) -> TextAnswer | AsyncTextStream: ...
        async def create(self, **options: Option) -> Option: ...
