"""Stand-ins for users: requests as a verifier's gateway would pass them on, for trying whether challenges stand out.

What is real where files are given: the conversations, and the moments at which requests arrive. What is always
made up here: which parameters clients send. It is modelled on clients' defaults, one set for each application,
a few applications sending most of the traffic. Nothing of this is taken from the verifier's own tables.
"""

from __future__ import annotations

import csv
import gzip
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Final

from targon.protocol.messages import ChatMessage
from targon.protocol.prompt import conversation

APPLICATIONS: Final = 300
FORMS: Final = (
    "how do i {verb} {thing}", "What's the best way to {verb} {thing}?", "Write a python script to {verb} {thing}.",
    "Can you help me {verb} {thing}?", "is it legal to {verb} {thing}", "Compare two ways to {verb} {thing}.",
    "My boss wants me to {verb} {thing} by friday. Draft a reply.", "why does it hurt when I {verb} {thing}?",
    "Act as a coach. I want to {verb} {thing}.", "{thing}?", "List 10 reasons to {verb} {thing}",
    "In which year did people start to {verb} {thing}?", "Translate to German: I would like to {verb} {thing}.",
    "Rewrite more politely: you must {verb} {thing} now", "write a haiku, the subject is {thing}",
    "Give me a SQL query to find everyone who can {verb} {thing}.", "I can't {verb} {thing}, any ideas? thanks",
)  # fmt: skip
VERBS: Final = (
    "repair", "buy", "sell", "clean", "draw", "cook", "move", "paint", "learn", "build", "ship", "store", "measure",
    "photograph", "return", "register", "insure", "decorate", "borrow", "improve", "cancel", "test", "print",
)  # fmt: skip
THINGS: Final = (
    "a used car", "my sourdough", "old photos", "a wedding cake", "the kitchen sink", "tomatoes", "a mortgage",
    "guitar chords", "a resume", "docker images", "an online shop", "my cat", "a marathon", "the French subjunctive",
    "a tax return", "leather boots", "a spreadsheet", "houseplants", "my landlord's letter", "a board game",
    "the stock market", "a bicycle chain", "calculus", "an iPhone", "winter tyres", "a birthday party", "my knee",
)  # fmt: skip
REPLIES: Final = ("Sure! Here is what I would do.", "That depends. Could you tell me more?", "Happy to help.")
AGAIN: Final = (
    "ok thanks, and for beginners?",
    "shorter please",
    "that didn't work",
    "yes",
    "cheaper?",
    "in French",
)
SYSTEMS: Final = (
    "You are {name}, the support agent of {name}. Only answer questions about our products.",
    "You are a helpful AI assistant named {name}.", "You are a tutor. Never give the full solution.",
    "Respond in JSON.", "You are an expert copywriter with 20 years of experience.",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class UsersClient:
    """An application: what it sends with every request."""

    system: str | None
    temperature: float
    top_p: float
    top_k: int
    stop: tuple[str, ...]
    max_tokens: int | None
    """None where it sends none."""


def draw_clients(rng: random.Random, many: int = APPLICATIONS) -> tuple[UsersClient, ...]:
    """So many applications, the busiest first."""
    return tuple(_client(rng) for _ in range(many))


def _client(rng: random.Random) -> UsersClient:
    named = rng.choice(SYSTEMS).format(name=rng.choice(("Nova", "Acme", "Milo", "Orbit", "Zest")))
    defaults = rng.random() < 0.45
    return UsersClient(
        system=rng.choice((None, None, "You are a helpful assistant.", named)),
        temperature=1.0 if defaults else rng.choice((0.0, 0.1, 0.2, 0.3, 0.5, 0.6, 0.7, 0.7, 0.7, 0.8, 0.8, 0.9, 1.1)),
        top_p=1.0 if defaults else rng.choice((1.0, 1.0, 1.0, 0.95, 0.95, 0.9, 0.8)),
        top_k=0 if defaults else rng.choice((0, 0, 0, 0, 0, 40, 40, 50, 20)),
        stop=rng.choice(((), ()) if rng.random() < 0.93 else (("\n",), ("\n\n",), ("User:",), ("END",), ("```",))),
        max_tokens=rng.choice((None, None, 100, 128, 150, 200, 256, 256, 300, 500, 512, 1000, 1024, 2048, 4096)),
    )  # fmt: skip


def invented(rng: random.Random) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Conversations without end, each with a number for its subject: turns of user and assistant, the user's last."""
    for number in count():
        thing = rng.choice(THINGS)
        turns = [rng.choice(FORMS).format(verb=rng.choice(VERBS), thing=thing)]
        while rng.random() < 0.35:
            turns += [rng.choice(REPLIES), rng.choice(AGAIN)]
        yield str(number), tuple(turns)


def read_conversations(path: Path) -> list[tuple[str, tuple[str, ...]]]:
    """People's conversations from a file of JSON lines, gzipped or not.

    Each line holds ``messages`` (as of OpenAI's API), or ``chosen`` (``\\n\\nHuman: … \\n\\nAssistant: …``). A
    conversation gives one request for each of the user's turns, as chat clients send it again with every turn.

    Raises:
        ValueError: if a line holds neither.
    """
    found: list[tuple[str, tuple[str, ...]]] = []
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            turns = _turns(json.loads(line), f"{path}, line {number}")
            found.extend((str(number), tuple(turns[:end])) for end in range(1, len(turns) + 1, 2))
    return found


def _turns(entry: dict[str, object], where: str) -> list[str]:
    match entry:
        case {"messages": list(messages)}:
            return [str(one["content"]) for one in messages if one["role"] in ("user", "assistant")]
        case {"chosen": str(text)}:
            parts = text.replace("\n\nAssistant:", "\n\nHuman:").split("\n\nHuman:")[1:]
            return [part.strip() for part in parts]
        case _:
            raise ValueError(f"{where}: got the fields {sorted(entry)}, expected 'messages' or 'chosen'")


def read_arrivals(path: Path) -> list[float]:
    """Moments at which requests arrived, in seconds, ordered: the column TIMESTAMP of a CSV file."""
    with path.open(encoding="utf-8") as lines:
        moments = [datetime.fromisoformat(row["TIMESTAMP"][:26]).timestamp() for row in csv.DictReader(lines)]
    return sorted(moment - min(moments) for moment in moments)


def invented_arrivals(rng: random.Random, seconds: float, rate: float) -> list[float]:
    """Moments of a stream whose rate changes every minute, ordered."""
    found, now = [], 0.0
    while now < seconds:
        end, busy = now + 60.0, rate * rng.gammavariate(2.0, 0.5)
        while (now := now + rng.expovariate(busy)) < end:
            found.append(now)
        now = end
    return found


def request(turns: Sequence[str], client: UsersClient) -> tuple[ChatMessage, ...]:
    """A conversation as an application sends it."""
    return conversation(client.system, *turns)
