"""What challenges look like: a table of shares, and draws from it. Pure: a draw decides each part, nothing else.

A prover that can tell a challenge from a user's request behaves for the one and cheats on the other. So a
challenge has the parameters that clients send, a conversation of the kinds that users hold, and a moment within
its block. The table is a declaration, not a secret: what is secret is which row a challenge gets.

Everything stays within what calibrations cover: T from 0 to 1.2, top-p from 0.8, top-k 0, 20, 40 or 50, prompts
of at most 1,024 tokens.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeVar

from targon.protocol.sampler import MIN_TEMPERATURE
from targon.verifier.wordings import ABOUT_TEXT, COMMON_WORDS, FOLLOW_UPS, QUESTIONS, WISHES

T = TypeVar("T")
Shares = tuple[tuple[T, int], ...]
"""Values, each with its share; the shares need no particular sum."""

Draw = Callable[[str], int]
"""The 64-bit draw that decides the part of that name."""

Form = Literal["question", "wish", "passage first", "passage last", "follow-up", "request"]
"""``question``: a query alone. ``wish``: something about three words of the passage. ``passage first``, ``passage
last``: a query or a task with its text. ``follow-up``: a second question, the passage being the first answer.
``request``: the private input is itself what a user could ask, and stands alone."""

Length = int | Literal["longest", "any"]
"""A value of ``max_tokens``, or how one comes about."""

ANY_LENGTH: Final[Shares[Length]] = (("any", 1),)
DRAW_BITS: Final = 64
MAX_TEMPERATURE: Final = 1.2
MIN_TOP_P: Final = 0.8
TOP_KS: Final = (0, 20, 40, 50)
"""What calibrations cover."""
TOPICS: Final = ("topic", "second topic", "third topic")
"""The draws of the words that a wish is about."""


@dataclass(frozen=True, slots=True)
class Habit:
    """Parameters that a client sends together; its authors chose them, and few users change them."""

    temperature: float
    top_p: float = 1.0
    top_k: int = 0

    def calibrated(self) -> bool:
        """Whether calibrations cover it."""
        return (
            (self.temperature == 0.0 or MIN_TEMPERATURE <= self.temperature <= MAX_TEMPERATURE)
            and self.top_p >= MIN_TOP_P
            and self.top_k in TOP_KS
        )


@dataclass(frozen=True, slots=True)
class Client:
    """All that an application sends with a request besides what its user said."""

    system: str | None
    habit: Habit
    stop: tuple[str, ...]
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Shapes:
    """How challenges are spread over their possible forms.

    Attributes:
        forms: kinds of conversation.
        systems: system messages; None for none.
        habits: temperature, top-p and top-k.
        stops: stop strings.
        lengths: values of ``max_tokens`` that clients send; those out of a verifier's bounds are left out.
            ``"longest"`` stands for clients that send none and get the longest answer there is, ``"any"`` for
            any length at all, short ones likelier (log-uniform).
        careless: percent of users' words that are written in lower case, without a closing mark.
        max_passage_bytes: longer passages are cut. No tokenizer makes more tokens than bytes.
        clients: clients as they were seen (:meth:`fitted`). Where there are any, they stand for ``systems``,
            ``habits``, ``stops`` and ``lengths``.
    """

    forms: Shares[Form]
    systems: Shares[str | None]
    habits: Shares[Habit]
    stops: Shares[tuple[str, ...]]
    lengths: Shares[Length]
    careless: int
    max_passage_bytes: int = 700
    clients: Shares[Client] = ()

    def client(self, draw: Draw, shortest: int, longest: int) -> Client:
        """System message and parameters; ``max_tokens`` from shortest to longest, both included."""
        if self.clients:
            seen = pick(self.clients, draw("client"))
            return replace(seen, max_tokens=max(shortest, min(longest, seen.max_tokens)))
        return Client(
            system=pick(self.systems, draw("system")),
            habit=pick(self.habits, draw("habit")),
            stop=pick(self.stops, draw("stop")),
            max_tokens=self._max_tokens(draw, shortest, longest),
        )

    def _max_tokens(self, draw: Draw, shortest: int, longest: int) -> int:
        fits = tuple(
            (value, share)
            for value, share in self.lengths
            if isinstance(value, str) or shortest <= value <= longest
        )
        match pick(fits or ANY_LENGTH, draw("length")):
            case "longest":
                return longest
            case "any":
                spread = (longest + 1) / shortest
                return min(longest, int(shortest * spread ** _unit(draw("any length"))))
            case value:
                return value

    def cut(self, passage: str) -> str:
        """As much of a passage as is asked about, whoever gave it: after a whole word, if there is one."""
        return _cut(passage, self.max_passage_bytes)

    def form(self, draw: Draw) -> Form:
        """The kind of conversation."""
        return pick(self.forms, draw("form"))

    def turns(self, draw: Draw, passage: str, query: str | None) -> tuple[str, ...]:
        """What the user said, what the assistant answered, what the user said next.

        Args:
            query: a question about the passage; not used by the forms that need none (:func:`needs_query`). None: there
                is none, and another form, or something else that is wanted of the passage, takes its place.
        """
        text = self.cut(passage)
        form = self.form(draw)
        match form:
            case "request":
                return (text,)
            case "question" if query is not None:
                turns = [query]
            case "question" | "wish":
                turns = [one_of(WISHES, draw("wording")).format(topics_of(text, draw))]
            case "passage first":
                turns = [f"{text}\n\n{self._task(draw, query)}"]
            case "passage last":
                task = self._task(draw, query)
                turns = [f"{task.rstrip('.?')}:\n\n{text}" if draw("colon") % 2 else f"{task}\n{text}"]
            case "follow-up":
                first = one_of(QUESTIONS, draw("wording")).format(topic_of(text, draw("topic")))
                asked = query if draw("task") % 2 else None
                second = asked or one_of(FOLLOW_UPS, draw("second wording"))
                turns = [self._as_typed(first, draw("careless first")), text, second]
        turns[-1] = self._as_typed(turns[-1], draw("careless"))
        return tuple(turns)

    def _task(self, draw: Draw, query: str | None) -> str:
        """What is wanted of a text that stands beside it."""
        return query if query is not None and draw("task") % 2 == 0 else one_of(ABOUT_TEXT, draw("wording"))

    def _as_typed(self, words: str, draw: int) -> str:
        """Words as somebody in a hurry types them, now and then."""
        if draw * 100 >> DRAW_BITS >= self.careless or "\n" in words:
            return words
        return (words[:1].lower() + words[1:]).rstrip(".?")

    def fitted(self, observed: Iterable[Client], at_least: int = 20) -> Shapes:
        """These shapes, with the system messages and parameters that a verifier's own users' clients send.

        What users say is not looked at. Clients that calibrations don't cover are left out, since their requests
        give no evidence.

        Args:
            observed: one entry for each request.
            at_least: what fewer requests have in common is left out: it would be somebody's, not a client's.

        Raises:
            ValueError: if nothing is left.
        """
        seen = Counter(client for client in observed if client.habit.calibrated())
        common = sorted(((client, share) for client, share in seen.items() if share >= at_least), key=repr)
        if not common:
            raise ValueError(f"got no {at_least} alike requests that calibrations cover, expected some")
        return replace(self, clients=tuple(common))


def needs_query(form: Form, draw: Draw) -> bool:
    """Whether a conversation of that form holds a query, which costs a run of the model."""
    match form:
        case "wish" | "request":
            return False
        case "question":
            return True
        case "follow-up":
            return draw("task") % 2 == 1
        case _:
            return draw("task") % 2 == 0


def pick(shares: Shares[T], draw: int) -> T:
    """The value that a 64-bit draw picks; each as often as its share says."""
    place = draw * sum(share for _, share in shares) >> DRAW_BITS
    for value, share in shares:
        place -= share
        if place < 0:
            return value
    raise ValueError(
        f"got the draw {draw} and shares {shares!r}, expected a 64-bit draw and a positive share"
    )


def one_of(values: Sequence[T], draw: int) -> T:
    """The value that a 64-bit draw picks, each as likely as another."""
    return values[draw * len(values) >> DRAW_BITS]


def topic_of(passage: str, draw: int) -> str:
    """A word of the passage to talk about: a long one that isn't in every text; "this" where there is none."""
    return one_of(telling_words(passage), draw)


def topics_of(passage: str, draw: Draw) -> str:
    """Three words of the passage to talk about: "boats, rocks and ships"; fewer where it has fewer.

    A wish holds nothing else of its passage. One word of an unseen passage is known from others, nine times in ten; the
    same three hardly ever stood together.
    """
    left = list(dict.fromkeys(telling_words(passage)))
    topics = [left.pop(draw(part) * len(left) >> DRAW_BITS) for part in TOPICS[: len(left)]]
    *others, last = topics
    return f"{', '.join(others)} and {last}" if others else last


def telling_words(passage: str) -> list[str]:
    """The words of a passage that it can be known by, as often as they stand there; never none."""
    words = [word.lower() for word in re.findall(r"[^\W\d_]{5,}", passage)]
    return [word for word in words if word not in COMMON_WORDS] or ["this"]


def delay_s(draw: Draw, span_s: float) -> float:
    """How long after its block's beginning a challenge is sent, in seconds: anywhere in [0, span_s).

    Requests that come independently of one another (a Poisson stream) lie uniformly within any span, and the
    pauses between them are exponential: so do those of challenges that are delayed so.
    """
    return span_s * _unit(draw("delay"))


def _unit(draw: int) -> float:
    """A 64-bit draw as a number in [0, 1): its top 53 bits."""
    return (draw >> (DRAW_BITS - 53)) * 2.0**-53


def _cut(text: str, limit: int) -> str:
    """The text, cut after a whole word if its UTF-8 form is longer than that."""
    raw = text.encode()
    if len(raw) <= limit:
        return text
    words = raw[:limit].decode(errors="ignore").rsplit(maxsplit=1)
    return words[0] if words else ""


USUAL: Final = Shapes(
    forms=(("question", 34), ("wish", 26), ("passage first", 10), ("passage last", 10), ("follow-up", 20)),
    systems=(
        (None, 55),
        ("You are a helpful assistant.", 30),
        ("You are a helpful, respectful and honest assistant.", 4),
        ("You are a friendly assistant. Keep your answers short.", 4),
        ("Answer briefly and to the point.", 4),
        ("You are an expert. Explain your reasoning step by step.", 3),
    ),
    habits=(
        (Habit(1.0), 30),  # OpenAI's default, and so that of most who forward its API
        (Habit(0.7), 22),  # the examples and frameworks that came first
        (Habit(0.8, 0.95, 40), 9),  # llama.cpp
        (Habit(0.8, 0.9, 40), 6),  # Ollama
        (Habit(0.7, 0.95), 5),
        (Habit(0.6, 0.95, 20), 4),  # as authors of recent models recommend
        (Habit(0.7, 0.8, 20), 3),
        (Habit(0.6, 0.9), 3),
        (Habit(0.9, 0.95), 3),
        (Habit(1.0, 1.0, 50), 3),  # transformers' generate
        (Habit(0.0), 5),  # who wants the same answer twice
        (Habit(0.3), 3),
        (Habit(0.5), 2),
        (Habit(1.2, 0.95), 2),
    ),
    stops=(
        ((), 94),
        (("\n\n",), 2),
        (("###",), 1),
        (("\nUser:",), 1),
        (("\nHuman:", "\nAI:"), 1),
        (("</s>",), 1),
    ),
    lengths=(
        ("longest", 34),
        ("any", 18),
        (50, 3), (64, 4), (100, 6), (128, 6), (150, 3), (200, 5), (256, 9), (300, 3), (400, 1), (500, 4), (512, 4),
    ),
    careless=25,
)  # fmt: skip
"""What clients send as far as is known from their defaults; fit your own with :meth:`Shapes.fitted`."""

REQUESTS: Final = replace(USUAL, forms=(("request", 1),), max_passage_bytes=900)
"""For sources whose private inputs are requests, such as users wrote: nothing is added to them."""
