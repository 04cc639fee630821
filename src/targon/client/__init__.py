"""OpenAI's Python client, with answers that can be verified: each carries the receipt that its prover signed.

``Client`` and ``AsyncClient`` are ``openai.OpenAI`` and ``openai.AsyncOpenAI``; all that those do, these do. Answers of
chat completions and completions, whole and streamed, have ``receipt`` and ``verify()`` besides. This room must never
believe the gateway: what it verifies follows from what the caller sent, what the caller was given, and signatures. It
asks nobody while it verifies, keeps nothing on disk that it was not told to, and loads no model.
"""

try:
    import openai
except ModuleNotFoundError as error:
    if error.name != "openai":
        raise
    raise ImportError(
        "targon.client builds on the package 'openai', which is not installed: "
        "install it with: pip install 'targon[client]'"
    ) from error

from targon.client.answers import (
    AsyncChatStream,
    AsyncTextStream,
    ChatAnswer,
    ChatStream,
    TextAnswer,
    TextStream,
)
from targon.client.clients import AsyncClient, Client
from targon.client.errors import NotVerified
from targon.client.receipts import AnswerReceipt, Expected

__all__ = [
    "AnswerReceipt",
    "AsyncChatStream",
    "AsyncClient",
    "AsyncTextStream",
    "ChatAnswer",
    "ChatStream",
    "Client",
    "Expected",
    "NotVerified",
    "TextAnswer",
    "TextStream",
]

del openai
