"""Can provers tell challenges from users' requests? The AUC of a classifier that tries, by what it looks at.

Users' conversations and the moments of their requests are made up unless files of real ones are named:
TARGON_CONVERSATIONS (JSON lines with ``messages``, or with ``chosen`` as in hh-rlhf) and TARGON_ARRIVALS (CSV
with TIMESTAMP, as in AzureLLMInferenceTrace_conv.csv). The parameters of users' requests are always made up.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, islice, pairwise
from pathlib import Path

import anyio
from bittensor.keyfiles import Keypair

from benchmarks.row import Row
from targon.engines import start_engine_process
from targon.engines.default_model import cache_folder
from targon.oracle import StandardLibraryText
from targon.protocol import (
    Block,
    ChatMessage,
    Hotkey,
    challenge_draw,
    challenge_messages,
    conversation,
    public_key,
)
from targon.redteam.telltale import (
    GROUPS,
    Group,
    Sighting,
    auc_alone,
    telling_words,
    telltales,
)
from targon.redteam.users import (
    UsersClient,
    draw_clients,
    invented,
    invented_arrivals,
    read_arrivals,
    read_conversations,
    request,
)
from targon.verification.querying import NoQuery, QueryWriter
from targon.verifier import VerifierSettings
from targon.verifier.challenger import SENDING_SPAN
from targon.verifier.shapes import REQUESTS, USUAL, Client, Draw, Habit, Shapes, delay_s

SECRET = bytes(range(32))
PROVER = Hotkey(Keypair.create_from_uri("//Telltale").ss58_address)
BLOCK_S = 12.0
MAKING_S = 0.5
"""What it takes to make challenges, before any is sent."""
CHALLENGED = 0.5
"""Share of blocks in which a prover is challenged."""
REQUESTS_PER_S = 0.2
"""Users' requests that one prover gets."""
CEILING = 512
"""The longest answer that users get; what asks for more, or names no length, gets this."""
SETTINGS = VerifierSettings(min_tokens=32, max_tokens=CEILING)
PASSAGES = 600
SEEN = 50_000
"""Requests, other than those that are told apart, that shapes are fitted to."""

Conversation = tuple[str, tuple[str, ...]]
"""Its subject and its turns."""


@dataclass(frozen=True, slots=True)
class Moment:
    """When a request reaches the prover, and the block of a challenge (None for a user's request)."""

    offset_s: float
    pause_s: float
    block: Block | None
    block_age: int = 0
    behind: int = 0


def run(quick: bool) -> list[Row]:
    size = 1000 if quick else 5000
    rng = random.Random(7)
    conversations, kind = _conversations(size, rng)
    arrivals, times = _arrivals(size, rng)
    passages = anyio.run(_queried, 100 if quick else PASSAGES)
    note = f"{size} of each; conversations: {kind}; moments: {times}"
    spread = _timeline(arrivals, lambda draw: delay_s(draw, BLOCK_S), rng)
    at_once = _timeline(arrivals, lambda draw: MAKING_S + 0.2 * (draw("jitter") * 2.0**-64), rng)
    clients = draw_clients(rng)
    users = partial(_users, clients, size, rng)
    rows = []

    old = [_old(passages, moment) for moment in _challenged(at_once, size)]
    rows += _rows("of one form at the block's beginning", users(conversations, at_once), old, ("all",), note)

    organic = users(conversations, spread)
    new = [_new(USUAL, passages, SETTINGS, moment) for moment in _challenged(spread, size)]
    rows += _rows("drawn", organic, new, GROUPS, note)
    _tell(organic, new)

    soon = _timeline(
        arrivals, lambda draw: MAKING_S + delay_s(draw, SENDING_SPAN * BLOCK_S), random.Random(8)
    )
    sent = [_new(USUAL, passages, SETTINGS, moment) for moment in _challenged(soon, size)]
    about = f"drawn, sent over {SENDING_SPAN:g} of a block"
    hurried = _users(clients, size, random.Random(9), conversations, soon)
    rows += _rows(about, hurried, sent, ("timing",), note)

    together = _timeline(
        arrivals,
        lambda draw: MAKING_S + delay_s(draw, SENDING_SPAN * BLOCK_S),
        random.Random(8),
        together=True,
    )
    sent = [_new(USUAL, passages, SETTINGS, moment) for moment in _challenged(together, size)]
    numbered = _users(clients, size, random.Random(9), conversations, together)
    rows += _rows("logged together, before they are sent", numbered, sent, ("timing",), note)

    short = VerifierSettings()
    brief = [_new(USUAL, passages, short, moment) for moment in _challenged(spread, size)]
    about = f"drawn, {short.min_tokens} to {short.max_tokens} tokens where users get {CEILING}"
    rows += _rows(about, organic, brief, ("parameters",), note)

    fitted = USUAL.fitted(map(_as_seen, rng.choices(clients, _busy(clients), k=SEEN)))
    likewise = [_new(fitted, passages, SETTINGS, moment) for moment in _challenged(spread, size)]
    rows += _rows("drawn, fitted to clients", organic, likewise, GROUPS, note)

    mine, theirs = _halves([one for one in conversations if len(one[1]) == 1], rng)
    both = min(len(mine), len(theirs), size)
    asked = [(turns[0], turns[0]) for _, turns in theirs]
    requests = replace(REQUESTS, clients=fitted.clients)
    alike = [_new(requests, asked, SETTINGS, moment) for moment in _challenged(spread, both)]
    about = f"{both} of each, first requests alone; conversations: {kind}; moments: {times}"
    rows += _rows("drawn, fitted, private inputs requests", users(mine, spread)[:both], alike, GROUPS, about)
    return rows


def _as_seen(client: UsersClient) -> Client:
    """A client as the verifier's gateway sees it."""
    habit = Habit(client.temperature, client.top_p, client.top_k)
    return Client(client.system, habit, client.stop, min(client.max_tokens or CEILING, CEILING))


def _rows(
    what: str, users: Sequence[Sighting], challenges: Sequence[Sighting], groups: Sequence[Group], note: str
) -> list[Row]:
    return [
        Row(
            f"challenges {what}: AUC by {found.group}",
            found.auc,
            "",
            "<= 0.6" if what.startswith("drawn") else "",
            f"95%: {found.low:.3f} to {found.high:.3f}; {note}",
        )
        for found in telltales(users, challenges, groups)
    ]


def _tell(users: Sequence[Sighting], challenges: Sequence[Sighting]) -> None:
    """Print what tells most."""
    for name, alone in auc_alone(users, challenges)[:8]:
        print(f"  alone, {name}: AUC {alone:.3f}")
    of_users, of_challenges = telling_words(users, challenges, 20)
    print(f"  words of users: {of_users}\n  words of challenges: {of_challenges}")


# -- users ----------------------------------------------------------------------------------------------


def _conversations(size: int, rng: random.Random) -> tuple[list[Conversation], str]:
    if file := os.environ.get("TARGON_CONVERSATIONS"):
        found = read_conversations(Path(file))
        rng.shuffle(found)
        return found, "real"
    return list(islice(invented(rng), size)), "made up"


def _arrivals(size: int, rng: random.Random) -> tuple[list[float], str]:
    """Moments of one prover's requests over the time that so many challenges take."""
    seconds = size / CHALLENGED * BLOCK_S * 1.2
    file = os.environ.get("TARGON_ARRIVALS")
    if not file:
        return invented_arrivals(rng, seconds, REQUESTS_PER_S), "made up"
    trace = read_arrivals(Path(file))
    kept = REQUESTS_PER_S * trace[-1] / len(trace)  # the share of the whole stream that goes to one prover
    starts = (turn * trace[-1] for turn in range(1 + int(seconds / trace[-1])))
    return [start + moment for start in starts for moment in trace if rng.random() < kept], "real"


def _users(
    clients: Sequence[UsersClient],
    size: int,
    rng: random.Random,
    conversations: Sequence[Conversation],
    moments: Sequence[Moment],
) -> list[Sighting]:
    found, busy = [], _busy(clients)
    own = (moment for moment in moments if moment.block is None)
    for (subject, turns), moment in zip(islice(_again(conversations), size), own, strict=False):
        client = rng.choices(clients, busy)[0]
        found.append(
            Sighting(
                messages=request(turns, client),
                temperature=client.temperature,
                top_p=client.top_p,
                top_k=client.top_k,
                stop=client.stop,
                max_tokens=min(client.max_tokens or CEILING, CEILING),
                offset_s=moment.offset_s,
                pause_s=moment.pause_s,
                subject=f"user {subject}",
                block_age=moment.block_age,
                behind=moment.behind,
            )
        )
    return found


def _busy(clients: Sequence[UsersClient]) -> list[float]:
    """How much of the traffic each client sends."""
    return [1 / (place + 5) for place in range(len(clients))]


def _again(conversations: Sequence[Conversation]) -> Iterator[Conversation]:
    """The conversations, from the beginning again where they end."""
    return (conversations[place % len(conversations)] for place in count())


def _halves(
    conversations: Sequence[Conversation], rng: random.Random
) -> tuple[list[Conversation], list[Conversation]]:
    """Two halves that share no conversation."""
    subjects = sorted({subject for subject, _ in conversations})
    first = set(rng.sample(subjects, len(subjects) // 2))
    return (
        [one for one in conversations if one[0] in first],
        [one for one in conversations if one[0] not in first],
    )


# -- challenges -----------------------------------------------------------------------------------------


async def _queried(size: int) -> list[tuple[str, str | None]]:
    """Passages with the query that the model writes for each; kept in the cache, since that takes minutes."""
    library = StandardLibraryText()
    texts = [library.passage(place * (1 << 64) // size).text for place in range(size)]
    file = cache_folder() / f"telltale-queries-{library.digest()[:16]}.json"
    known: dict[str, str] = json.loads(file.read_text("utf-8")) if file.exists() else {}
    missing = [text for text in texts if text not in known]
    if missing:
        with tempfile.TemporaryDirectory(prefix="targon-bench-") as folder:
            socket = Path(folder) / "engine.sock"
            async with start_engine_process(socket, dtype="bfloat16", threads=1) as engine:
                limit = anyio.CapacityLimiter(8)
                writer = QueryWriter(engine, SETTINGS.query_tokens)

                async def write(seed: int, text: str) -> None:
                    async with limit:
                        with contextlib.suppress(NoQuery):
                            known[text] = await writer.write(text, (seed, seed + len(missing)))

                async with anyio.create_task_group() as group:
                    for seed, text in enumerate(missing):
                        group.start_soon(write, seed, text)
        file.write_text(json.dumps(known), "utf-8")
    return [(text, known.get(text)) for text in texts]


def _draw(block: Block) -> Draw:
    return partial(challenge_draw, SECRET, block, public_key(PROVER))


def _challenged(moments: Sequence[Moment], size: int) -> Iterator[Moment]:
    return islice((moment for moment in moments if moment.block is not None), size)


def _timeline(
    arrivals: Sequence[float],
    delay: Callable[[Draw], float],
    rng: random.Random,
    *,
    together: bool = False,
) -> list[Moment]:
    """Users' requests and challenges in the order in which they reach the prover.

    Args:
        together: whether challenges are logged when their block begins, and not when they are sent.
    """
    blocks = int(arrivals[-1] / BLOCK_S)
    chosen = [Block(block) for block in range(blocks) if rng.random() < CHALLENGED]
    stream: list[tuple[float, float, Block | None]] = [(moment, moment, None) for moment in arrivals]
    for challenged in chosen:
        sent_s = challenged * BLOCK_S + delay(_draw(challenged))
        stream.append((sent_s, challenged * BLOCK_S + MAKING_S if together else sent_s, challenged))
    stream.sort(key=lambda one: one[0])
    numbers = {logged: number for number, logged in enumerate(sorted(logged for _, logged, _ in stream))}
    found, highest = [], 0
    for (before, _, _), (now, logged, block) in pairwise(stream):
        age = int(now // BLOCK_S) - int(logged // BLOCK_S)
        behind = max(0, highest - numbers[logged])
        highest = max(highest, numbers[logged])
        found.append(Moment(now % BLOCK_S, now - before, block, age, behind))
    return found


def _new(
    shapes: Shapes, passages: Sequence[tuple[str, str | None]], settings: VerifierSettings, moment: Moment
) -> Sighting:
    """A challenge as the verifier draws it."""
    assert moment.block is not None
    draw = _draw(moment.block)
    passage, query = passages[draw("passage of the benchmark") % len(passages)]
    client = shapes.client(draw, settings.min_tokens, settings.max_tokens)
    return Sighting(
        messages=conversation(client.system, *shapes.turns(draw, passage, query)),
        temperature=client.habit.temperature,
        top_p=client.habit.top_p,
        top_k=client.habit.top_k,
        stop=client.stop,
        max_tokens=client.max_tokens,
        offset_s=moment.offset_s,
        pause_s=moment.pause_s,
        subject=passage,
        block_age=moment.block_age,
        behind=moment.behind,
    )


def _old(passages: Sequence[tuple[str, str | None]], moment: Moment) -> Sighting:
    """A challenge of one form, sent when its block begins."""
    assert moment.block is not None
    draw = _draw(moment.block)
    passage, query = passages[draw("passage of the benchmark") % len(passages)]
    messages: tuple[ChatMessage, ...] = challenge_messages(query or "What does the text above say?", passage)
    length = 32 + draw("length") % 97
    return Sighting(messages, 0.8, 1.0, 0, (), length, moment.offset_s, moment.pause_s, passage)
