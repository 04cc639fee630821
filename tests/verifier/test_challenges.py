"""Challenges: drawn from the secret alone, within what calibrations cover, spread as declared."""

from __future__ import annotations

import hashlib
from collections import Counter

import pytest
from bittensor.keyfiles import Keypair
from hypothesis import given, settings
from hypothesis import strategies as st

from targon.oracle import Passage
from targon.protocol import draws
from targon.protocol.keys import public_key
from targon.protocol.messages import MAX_STOP_CHARS, MAX_STOP_STRINGS, Sampling
from targon.protocol.primitives import Block, Hotkey, u64_hex
from targon.protocol.sampler import check_sampling
from targon.verifier import VerifierSettings
from targon.verifier.challenges import Challenge, challenge_delay_s, make_challenge
from targon.verifier.shapes import USUAL, Habit, needs_query, pick, topic_of
from targon.verifier.wordings import ABOUT_TEXT, FOLLOW_UPS
from tests.tiny_engine import TinyEngine

SECRET = bytes(range(32))
PROVERS = [Hotkey(Keypair.create_from_uri(f"//Prover{number}").ss58_address) for number in range(2)]
SETTINGS = VerifierSettings(min_tokens=32, max_tokens=512, query_tokens=4)
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


async def challenge(secret: bytes = SECRET, block: int = 7, prover: Hotkey = PROVERS[0]) -> Challenge:
    return await make_challenge(
        secret, Block(block), prover, inputs=OneText(), engine=TinyEngine(), settings=SETTINGS
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
        engine = TinyEngine()
        made = await make_challenge(
            SECRET, Block(block), PROVERS[0], inputs=OneText(), engine=engine, settings=SETTINGS
        )

        def draw(part: str, block: int = block) -> int:
            return draws.challenge_draw(SECRET, Block(block), public_key(PROVERS[0]), part)

        assert len(engine.asked) == needs_query(USUAL.form(draw), draw)
        if engine.asked:
            query = made.messages[-1].content.casefold()
            assert not any(words.casefold().rstrip(".?") in query for words in (*ABOUT_TEXT, *FOLLOW_UPS))


@settings(max_examples=300)
@given(st.binary(min_size=8, max_size=8), st.text(max_size=3000), st.integers(32, 512), st.integers(0, 400))
def test_everything_stays_within_what_calibrations_cover(key: bytes, text: str, shortest: int, more: int):
    draw, longest = drawn(key), min(512, shortest + more)
    habit = USUAL.habit(draw)
    stop = USUAL.stop(draw)
    length = USUAL.max_tokens(draw, shortest, longest)
    check_sampling(
        Sampling(
            seed=u64_hex(0),
            temperature=habit.temperature,
            top_p=habit.top_p,
            top_k=habit.top_k,
            max_tokens=length,
            stop=stop,
        )
    )
    assert habit.calibrated()
    assert shortest <= length <= longest
    assert len(stop) <= MAX_STOP_STRINGS
    assert all(0 < len(one) <= MAX_STOP_CHARS for one in stop)
    messages = USUAL.messages(draw, text, "What is it about?")
    # No tokenizer makes more tokens than bytes; a template adds a few for each message.
    assert sum(len(message.content.encode()) + 16 for message in messages) <= 1024


@given(st.binary(min_size=8, max_size=8))
def test_a_conversation_ends_with_the_user_and_turns_alternate(key: bytes):
    messages = USUAL.messages(drawn(key), TEXT, "What is it about?")
    roles = [message.role for message in messages]
    assert roles in (["user"], ["system", "user"], ["user", "assistant", "user"],
                     ["system", "user", "assistant", "user"])  # fmt: skip
    assert all(message.content for message in messages)


def test_parameters_are_spread_as_declared():
    count = 20_000
    habits = Counter(USUAL.habit(drawn(number.to_bytes(4, "big"))) for number in range(count))
    declared = dict(USUAL.habits)
    for habit, share in declared.items():
        expected = count * share / sum(declared.values())
        assert abs(habits[habit] - expected) < 5 * expected**0.5, habit


def test_lengths_out_of_the_bounds_are_left_out_and_the_rest_is_spread_as_declared():
    count = 20_000
    lengths = Counter(USUAL.max_tokens(drawn(n.to_bytes(4, "big")), 64, 128) for n in range(count))
    inside = {value: share for value, share in USUAL.lengths if isinstance(value, str) or 64 <= value <= 128}
    total = sum(inside.values())
    assert set(lengths) == set(range(64, 129))
    expected = count * (inside["longest"] + inside[128]) / total
    assert lengths[128] == pytest.approx(expected, rel=0.05)
    assert lengths[100] == pytest.approx(count * inside[100] / total, rel=0.2)
    assert lengths[65] > lengths[127]  # of any length, short ones are likelier


@given(st.binary(min_size=8, max_size=8), st.integers(32, 100))
def test_one_length_is_possible(key: bytes, length: int):
    assert USUAL.max_tokens(drawn(key), length, length) == length


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


def test_shapes_are_fitted_to_what_users_send():
    def sent(temperature: float, max_tokens: int, **more: object) -> Sampling:
        return Sampling(seed=u64_hex(0), temperature=temperature, max_tokens=max_tokens, **more)

    shapes = USUAL.fitted(
        [sent(0.7, 100), sent(0.7, 100), sent(1.0, 50, top_p=0.9, stop=("###",)), sent(1.9, 70)]
    )
    assert dict(shapes.habits) == {Habit(0.7): 2, Habit(1.0, 0.9): 1}
    assert dict(shapes.lengths) == {100: 2, 50: 1}
    assert dict(shapes.stops) == {(): 2, ("###",): 1}
    assert shapes.forms == USUAL.forms
    with pytest.raises(ValueError, match="within the calibrated range"):
        USUAL.fitted([sent(1.9, 70)])
