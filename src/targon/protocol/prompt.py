"""How texts become a conversation. The engine's own chat template does the rest.

Nothing of the clock, the locale or the machine enters a prompt.
"""

from __future__ import annotations

from targon.protocol.messages import ChatMessage

ANSWER_SYSTEM = "Answer the question."
QUERY_SYSTEM = "You read a text and ask one short question about it. You never answer."
QUERY_EXAMPLES = (
    (
        "The lighthouse at the northern cape was built in 1871 from local granite. Its lamp burned rape oil until a "
        "generator was brought across by boat.",
        "lighthouse",
        "When was the lighthouse at the northern cape built?",
    ),
    (
        "A sourdough starter is fed with flour and water once a day. If it is kept in the cold, feeding it once a "
        "week is enough.",
        "starter",
        "How often should a sourdough starter be fed if it is kept in the cold?",
    ),
    (
        "The treaty obliges both states to inform each other before they divert the river. Disputes go to a commission "
        "of five engineers.",
        "disputes",
        "Who decides disputes about the river under the treaty?",
    ),
)
"""Texts, a word of each, and what to ask about it; none of them is a private input."""


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


def query_messages(private_input: str, topic: str) -> tuple[ChatMessage, ...]:
    """The conversation that makes a query-generation model ask about a passage.

    It begins with examples: a small model that is told what to do explains the text, one that was shown asks.

    Args:
        topic: a word of the passage that the question is to be about.
    """
    turns = [turn for text, about, query in QUERY_EXAMPLES for turn in (_ask(text, about), query)]
    return conversation(QUERY_SYSTEM, *turns, _ask(private_input, topic))


def _ask(text: str, topic: str) -> str:
    return f'Text: {text}\n\nAsk one short question about "{topic}" that this text answers.'
