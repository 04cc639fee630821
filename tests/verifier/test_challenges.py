"""Challenges: drawn from the secret alone, within what calibrations cover, spread as declared."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import AsyncGenerator
from dataclasses import fields, replace

import pytest
from bittensor.keyfiles import Keypair
from hypothesis import given, settings
from hypothesis import strategies as st

from targon.engines import GenerateTask, Step, TaskRefused
from targon.oracle import Passage
from targon.protocol import draws
from targon.protocol.keys import public_key
from targon.protocol.messages import (
    MAX_STOP_CHARS,
    MAX_STOP_STRINGS,
    ChatMessage,
    GenerateRequest,
    Sampling,
)
from targon.protocol.primitives import Block, Hotkey, u64_hex
from targon.protocol.sampler import check_sampling
from targon.verification.querying import QueryWriter
from targon.verifier import VerifierSettings
from targon.verifier.challenges import Challenge, challenge_delay_s, make_challenge
from targon.verifier.shapes import (
    REQUESTS,
    USUAL,
    Client,
    Habit,
    needs_query,
    pick,
    telling_words,
    topic_of,
    topics_of,
)
from targon.verifier.wordings import ABOUT_TEXT, FOLLOW_UPS, WISHES
from tests.tiny_engine import SayingEngine, TinyEngine

SECRET = bytes(range(32))
PROVERS = [Hotkey(Keypair.create_from_uri(f"//Prover{number}").ss58_address) for number in range(2)]
SETTINGS = VerifierSettings(min_tokens=32, max_tokens=512, query_tokens=4)
QUERY = "How many boats does the keeper count"
TEXT = "A lighthouse warns ships of rocks and shallows. Its lamp turns slowly, and keepers count the boats."
U64 = st.integers(0, 2**64 - 1)


class OneText:
    """A source that always has the same text."""

    def __init__(self, text: str = TEXT) -> None:
        self.text = text

    async def private_input(self, block: Block, draw: int) -> Passage:
        return Passage(self.text, "test:1", 0)


def drawn(key: bytes):
    """A draw by the name of the part, as a challenge's draws are."""

    def draw(part: str) -> int:
        return int.from_bytes(hashlib.sha256(key + part.encode()).digest()[:8], "big")

    return draw


def writer(engine: TinyEngine) -> QueryWriter:
    return QueryWriter(engine, SETTINGS.query_tokens)


async def challenge(secret: bytes = SECRET, block: int = 7, prover: Hotkey = PROVERS[0]) -> Challenge:
    return await make_challenge(
        secret, Block(block), prover, inputs=OneText(), queries=writer(TinyEngine()), settings=SETTINGS
    )


@pytest.mark.anyio
async def test_the_same_secret_block_and_prover_give_the_same_challenge():
    for block in range(20):
        assert await challenge(block=block) == await challenge(block=block)


@pytest.mark.anyio
async def test_another_secret_block_or_prover_gives_other_challenges():
    usual = [await challenge(block=block) for block in range(30)]
    others = {
        "secret": [await challenge(bytes(32), block) for block in range(30)],
        "block": [await challenge(block=block) for block in range(100, 130)],
        "prover": [await challenge(block=block, prover=PROVERS[1]) for block in range(30)],
    }
    for name, other in others.items():
        same = sum(one == two for one, two in zip(usual, other, strict=True))
        assert same <= 1, f"with another {name}, {same} of 30 challenges were the same"


@pytest.mark.anyio
async def test_the_model_is_asked_for_a_query_only_where_the_conversation_holds_one():
    for block in range(60):
        engine = SayingEngine(QUERY)
        made = await make_challenge(
            SECRET, Block(block), PROVERS[0], inputs=OneText(), queries=writer(engine), settings=SETTINGS
        )

        def draw(part: str, block: int = block) -> int:
            return draws.challenge_draw(SECRET, Block(block), public_key(PROVERS[0]), part)

        assert len(engine.asked) == needs_query(USUAL.form(draw), draw)
        if engine.asked:
            assert QUERY.casefold() in made.messages[-1].content.casefold()


@pytest.mark.anyio
async def test_where_the_model_writes_no_query_something_else_is_wanted_of_the_passage():
    """Its letters mean nothing."""
    made = [
        await make_challenge(
            SECRET,
            Block(block),
            PROVERS[0],
            inputs=OneText(),
            queries=writer(TinyEngine()),
            settings=SETTINGS,
        )
        for block in range(60)
    ]
    stand_ins = [
        words.partition("{}")[0].casefold().rstrip(".?") for words in (*ABOUT_TEXT, *FOLLOW_UPS, *WISHES)
    ]
    for one in made:
        assert any(words in one.messages[-1].content.casefold() for words in stand_ins)


def test_a_challenge_is_sent_in_the_fields_that_every_request_has():
    """Nothing on the wire says why a verifier asks."""
    assert {field.name for field in fields(Challenge)} <= {"messages", *Sampling.model_fields}
    telling = {"purpose", "challenge", "inference", "audit", "organic", "user"}
    assert not telling & {*GenerateRequest.model_fields, *Sampling.model_fields, *ChatMessage.model_fields}


@settings(max_examples=300)
@given(st.binary(min_size=8, max_size=8), st.text(max_size=3000), st.integers(32, 512), st.integers(0, 400))
def test_everything_stays_within_what_calibrations_cover(key: bytes, text: str, shortest: int, more: int):
    longest = min(512, shortest + more)
    for shapes in (USUAL, REQUESTS):
        client = shapes.client(drawn(key), shortest, longest)
        check_sampling(
            Sampling(
                seed=u64_hex(0),
                temperature=client.habit.temperature,
                top_p=client.habit.top_p,
                top_k=client.habit.top_k,
                max_tokens=client.max_tokens,
                stop=client.stop,
            )
        )
        assert client.habit.calibrated()
        assert shortest <= client.max_tokens <= longest
        assert len(client.stop) <= MAX_STOP_STRINGS
        assert all(0 < len(one) <= MAX_STOP_CHARS for one in client.stop)
        said = [client.system or "", *shapes.turns(drawn(key), text, "What is it about?")]
        # No tokenizer makes more tokens than bytes; a template adds a few for each message.
        assert sum(len(one.encode()) + 16 for one in said) <= 1024


@pytest.mark.parametrize(
    ("habit", "covered"),
    [
        (Habit(0.0), True),
        (Habit(0.01), False),
        (Habit(0.05), True),
        (Habit(1.2, 0.8, 50), True),
        (Habit(1.21), False),
        (Habit(1.0, 0.79), False),
        (Habit(1.0, 1.0, 30), False),
    ],
)
def test_calibrations_cover_a_range_of_habits(habit: Habit, covered: bool):
    assert habit.calibrated() == covered


@given(st.binary(min_size=8, max_size=8))
def test_the_user_begins_and_has_the_last_word(key: bytes):
    turns = USUAL.turns(drawn(key), TEXT, "What is it about?")
    assert len(turns) in (1, 3)
    assert all(turns)


def test_a_request_stands_as_it_was_written():
    assert REQUESTS.turns(drawn(b"any"), "wHat is tHis??", "unused") == ("wHat is tHis??",)


def test_parameters_are_spread_as_declared():
    count = 20_000
    habits = Counter(USUAL.client(drawn(number.to_bytes(4, "big")), 32, 512).habit for number in range(count))
    declared = dict(USUAL.habits)
    for habit, share in declared.items():
        expected = count * share / sum(declared.values())
        assert abs(habits[habit] - expected) < 5 * expected**0.5, habit


def test_lengths_out_of_the_bounds_are_left_out_and_the_rest_is_spread_as_declared():
    count = 20_000
    lengths = Counter(USUAL.client(drawn(n.to_bytes(4, "big")), 64, 128).max_tokens for n in range(count))
    inside = {value: share for value, share in USUAL.lengths if isinstance(value, str) or 64 <= value <= 128}
    total = sum(inside.values())
    assert set(lengths) == set(range(64, 129))
    expected = count * (inside["longest"] + inside[128]) / total
    assert lengths[128] == pytest.approx(expected, rel=0.05)
    assert lengths[100] == pytest.approx(count * inside[100] / total, rel=0.2)
    assert lengths[65] > lengths[127]  # of any length, short ones are likelier


@given(st.binary(min_size=8, max_size=8), st.integers(32, 100))
def test_one_length_is_possible(key: bytes, length: int):
    assert USUAL.client(drawn(key), length, length).max_tokens == length


@given(U64)
def test_a_pick_follows_the_shares(draw: int):
    picked = pick((("a", 1), ("never", 0), ("b", 3)), draw)
    assert picked == ("a" if draw < 1 << 62 else "b")


def test_moments_lie_uniformly_in_the_span():
    delays = [challenge_delay_s(SECRET, Block(block), PROVERS[0], 8.0) for block in range(4000)]
    assert all(0.0 <= delay < 8.0 for delay in delays)
    quarters = Counter(int(delay // 2.0) for delay in delays)
    assert all(abs(quarters[quarter] - 1000) < 150 for quarter in range(4))


def test_a_topic_is_a_telling_word_of_the_passage():
    words = {topic_of(TEXT, draw << 58) for draw in range(64)}
    assert words <= {
        "lighthouse",
        "warns",
        "ships",
        "rocks",
        "shallows",
        "turns",
        "slowly",
        "keepers",
        "count",
        "boats",
    }
    assert len(words) > 5
    assert topic_of("It is so.", 0) == "this"


@given(st.binary(min_size=8, max_size=8))
def test_a_wish_is_about_three_words_of_the_passage_each_once(key: bytes):
    first, *others = topics_of(TEXT, drawn(key)).replace(" and ", ", ").split(", ")
    assert len({first, *others}) == 3
    assert {first, *others} <= set(telling_words(TEXT))


def test_a_wish_is_about_as_many_words_as_there_are():
    assert topics_of("Boats and rocks.", lambda _: 0) == "boats and rocks"
    assert topics_of("Boats and boats.", lambda _: 0) == "boats"
    assert topics_of("It is so.", lambda _: 0) == "this"


def test_shapes_are_fitted_to_what_clients_send():
    tutor = Client("You are a tutor.", Habit(0.7), ("###",), 300)
    plain = Client(None, Habit(1.0), (), 100)
    seen = [tutor] * 30 + [plain] * 90 + [Client("My name is Ada.", Habit(1.0), (), 100)]
    shapes = USUAL.fitted(seen)
    assert dict(shapes.clients) == {tutor: 30, plain: 90}
    drawn_clients = Counter(shapes.client(drawn(n.to_bytes(4, "big")), 32, 128) for n in range(4000))
    assert set(drawn_clients) == {replace(tutor, max_tokens=128), plain}  # lengths stay within the bounds
    assert drawn_clients[plain] == pytest.approx(3000, rel=0.05)


def test_clients_that_calibrations_do_not_cover_are_not_imitated():
    hot = Client(None, Habit(1.9), (), 100)
    usual = replace(hot, habit=Habit(1.0))
    assert dict(USUAL.fitted([hot] * 50 + [usual] * 50).clients) == {usual: 50}
    with pytest.raises(ValueError, match="calibrations cover"):
        USUAL.fitted([hot] * 50)


@pytest.mark.anyio
async def test_of_a_text_of_any_length_no_more_is_asked_about_than_a_model_can_read():
    class Picky(TinyEngine):
        """As an engine whose context is full."""

        async def generate(self, task: GenerateTask) -> AsyncGenerator[Step, None]:
            if len(task.messages[-1].content.encode()) > 1_500:
                raise TaskRefused("the prompt is longer than the context")
            async for step in super().generate(task):
                yield step

    for text in ("ﷺ" * 4_000, f"{TEXT} {'ﷺ ' * 1_900}"):
        for block in range(10):
            made = await make_challenge(
                SECRET,
                Block(block),
                PROVERS[0],
                inputs=OneText(text),
                queries=writer(Picky()),
                settings=SETTINGS,
            )
            assert all(len(message.content.encode()) < 1_500 for message in made.messages)
