"""Vectors of prompts, answer texts and the block schedule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from targon.protocol.primitives import Block, Interval, TokenId
from targon.protocol.prompt import challenge_messages, conversation, query_messages
from targon.protocol.schedule import first_block, interval_of, is_fresh
from targon.protocol.text import answer_text
from targon.protocol.vectors.rule import Json, Rule


def _prompt(given: Json) -> Json:
    if "turns" in given:
        messages = conversation(given["system"], *given["turns"])
    elif "query" in given:
        messages = challenge_messages(given["query"], given["private_input"])
    else:
        messages = query_messages(given["private_input"], given["topic"])
    return [message.to_json() for message in messages]


PROMPT = Rule(
    name="prompt",
    about="The plainest conversation of a challenge (a query about a private input), the one that makes a query, and "
    "conversations of several turns: the user's and the assistant's by turns, with and without a system message.",
    inputs={
        "challenge": {"query": "What is a set?", "private_input": "A set is an unordered collection."},
        "nothing is trimmed": {"query": " Why? ", "private_input": "First.\n\nSecond. 🎈\n"},
        "query generation": {"private_input": "A set is an unordered collection.", "topic": "collection"},
        "one turn, no system message": {"system": None, "turns": ["What is a set?"]},
        "three turns": {
            "system": "Be brief.",
            "turns": ["What is a set?", "A collection.", "Is it ordered?"],
        },
    },
    evaluate=_prompt,
)

_VOCABULARY = {
    "1": b"Hello",
    "2": b"",
    "3": b" world",
    "4": b"\xf0\x9f",
    "5": b"\x8e\x88",
    "6": b"wor",
    "7": b"ld!",
}


def _text(given: Json) -> Json:
    vocabulary = {int(token): bytes.fromhex(piece) for token, piece in given["vocabulary"].items()}

    def decode(token_ids: Sequence[TokenId]) -> str:
        return b"".join(vocabulary[token] for token in token_ids).decode("utf-8", errors="replace")

    eos_ids = [TokenId(token) for token in given["eos_ids"]]
    return answer_text(given["token_ids"], decode, eos_ids=eos_ids, stop=given["stop"])


def _answer(token_ids: list[int], stop: Sequence[str] = (), **changes: Any) -> dict[str, Json]:  # noqa: ANN401
    vocabulary = {token: piece.hex() for token, piece in _VOCABULARY.items()}
    base = {"vocabulary": vocabulary, "eos_ids": [2], "token_ids": token_ids, "stop": list(stop)}
    return base | changes


TEXT = Rule(
    name="text",
    about="The text of an answer, from its token ids, over a toy tokenizer: each token is some bytes (in hex), and "
    "decoding joins them and reads UTF-8, U+FFFD standing for what is none.",
    inputs={
        "plain": _answer([1, 3]),
        "a closing end-of-sequence token is no text": _answer([1, 3, 2]),
        "an end-of-sequence token inside is decoded": _answer([1, 2, 3]),
        "empty": _answer([]),
        "only the end": _answer([2]),
        "several end-of-sequence tokens": _answer([1, 3], eos_ids=[2, 3]),
        "a character in two tokens": _answer([1, 4, 5]),
        "an unfinished character is left out": _answer([1, 4]),
        "a broken character inside stays": _answer([4, 1]),
        "stop string": _answer([1, 3, 7], [" w"]),
        "stop string across tokens": _answer([1, 6, 7], ["rld"]),
        "the first of several stop strings": _answer([1, 3], ["world", "lo"]),
        "a stop string that isn't there": _answer([1, 3], ["moon"]),
        "stop string at the start": _answer([1, 3], ["H"]),
    },
    evaluate=_text,
)


def _schedule(given: Json) -> Json:
    length = given["interval_blocks"]
    interval = interval_of(Block(given["block"]), length)
    return {
        "interval": interval,
        "first_block": first_block(interval, length),
        "fresh_from": min(
            block
            for block in range(given["block"] - 20, given["block"] + 1)
            if is_fresh(Block(block), Block(given["block"]))
        ),
        "next_is_fresh": is_fresh(Block(given["block"] + 1), Block(given["block"])),
        "next_interval_first_block": first_block(Interval(interval + 1), length),
    }


SCHEDULE = Rule(
    name="schedule",
    about="The interval a block lies in, its first block and the next interval's; the oldest block that a request "
    "may name while this one is current, and whether it may name the next one.",
    inputs={
        f"block {block} of intervals of {length}": {"block": block, "interval_blocks": length}
        for block, length in (
            (20, 360),
            (359, 360),
            (360, 360),
            (361, 360),
            (5_000_000, 360),
            (29, 10),
            (30, 10),
        )
    },
    evaluate=_schedule,
)

RULES = (PROMPT, TEXT, SCHEDULE)
