"""How a query and its private input become a conversation. The engine's own chat template does the rest.

Nothing of the clock, the locale or the machine enters a prompt. Each conversation has a system message of its
own, so that no template adds one that differs from model to model.
"""

from __future__ import annotations

from targon.protocol.messages import ChatMessage

ANSWER_SYSTEM = "Answer the question."
QUERY_SYSTEM = "Ask a question."


def challenge_messages(query: str, private_input: str) -> tuple[ChatMessage, ...]:
    """The conversation of a challenge: the passage, then the question about it."""
    return (
        ChatMessage(role="system", content=ANSWER_SYSTEM),
        ChatMessage(role="user", content=f"{private_input}\n\n{query}"),
    )


def query_messages(private_input: str) -> tuple[ChatMessage, ...]:
    """The conversation that makes a query-generation model ask about a passage."""
    return (
        ChatMessage(role="system", content=QUERY_SYSTEM),
        ChatMessage(
            role="user",
            content=f"{private_input}\n\nWrite one short question about the text above.",
        ),
    )
