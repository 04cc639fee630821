"""How texts become a conversation. The engine's own chat template does the rest.

Nothing of the clock, the locale or the machine enters a prompt.
"""

from __future__ import annotations

from targon.protocol.messages import ChatMessage

ANSWER_SYSTEM = "Answer the question."
QUERY_SYSTEM = "Ask a question."


def conversation(system: str | None, *turns: str) -> tuple[ChatMessage, ...]:
    """A conversation: what the user said first, what the assistant answered, what the user said next …

    Args:
        system: the system message; None for a conversation without one.

    Raises:
        ValueError: if the last word is not the user's.
    """
    if len(turns) % 2 == 0:
        raise ValueError(
            f"got {len(turns)} turns, expected an odd number: the user begins and has the last word"
        )
    spoken = tuple(
        ChatMessage(role="assistant" if place % 2 else "user", content=text)
        for place, text in enumerate(turns)
    )
    return spoken if system is None else (ChatMessage(role="system", content=system), *spoken)


def challenge_messages(query: str, private_input: str) -> tuple[ChatMessage, ...]:
    """The plainest conversation of a challenge: the passage, then the question about it."""
    return conversation(ANSWER_SYSTEM, f"{private_input}\n\n{query}")


def query_messages(private_input: str) -> tuple[ChatMessage, ...]:
    """The conversation that makes a query-generation model ask about a passage."""
    return conversation(QUERY_SYSTEM, f"{private_input}\n\nWrite one short question about the text above.")
