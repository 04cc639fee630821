"""The text of a growing answer: its pieces, taken together, are the answer's text."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from targon.engines.text_stream import ByteText, TextStream, WholeText
from targon.protocol.primitives import TokenId
from targon.protocol.text import answer_text

EOS = TokenId(256)


def decode(token_ids: Sequence[TokenId]) -> str:
    """A tokenizer with one token per byte."""
    return bytes(id_ for id_ in token_ids if id_ < 256).decode("utf-8", errors="replace")


def ids(text: str) -> list[TokenId]:
    return [TokenId(byte) for byte in text.encode()]


def stream(token_ids: Sequence[TokenId], stop: Sequence[str]) -> tuple[list[str], str | None, int]:
    """The pieces, the reason for the end, and how many tokens it took."""
    text = TextStream(WholeText(decode), eos_ids=(EOS,), stop=stop)
    pieces = []
    for count, token_id in enumerate(token_ids, start=1):
        piece, reason = text.push(token_id, last=count == len(token_ids))
        pieces.append(piece)
        if reason is not None:
            return pieces, reason, count
    raise AssertionError("an answer ends with its last token at the latest")


texts = st.text(st.sampled_from("ab😀漢é\ufffd\n"), min_size=1, max_size=30)
stops = st.lists(st.text(st.sampled_from("ab😀漢"), min_size=1, max_size=4), max_size=3)


@given(st.binary(max_size=40))
def test_text_that_grows_by_bytes_is_what_decoding_all_of_them_gives(data: bytes) -> None:
    text = ByteText([bytes([byte]) for byte in range(256)])
    for count in range(1, len(data) + 1):
        grown = text(TokenId(data[count - 1]))
        assert grown.rstrip("\ufffd") == decode([TokenId(byte) for byte in data[:count]]).rstrip("\ufffd")


@given(texts, stops)
def test_the_pieces_together_are_the_text_of_the_token_ids(text: str, stop: list[str]) -> None:
    pieces, _, count = stream(ids(text), stop)
    assert "".join(pieces) == answer_text(ids(text)[:count], decode, eos_ids=(EOS,), stop=stop)


@given(texts, stops)
def test_an_answer_ends_with_the_first_token_that_completes_a_stop_string(text: str, stop: list[str]) -> None:
    _, reason, count = stream(ids(text), stop)
    held = [any(string in decode(ids(text)[:n]) for string in stop) for n in range(1, len(ids(text)) + 1)]
    assert reason == ("stop_string" if any(held) else "length")
    assert count == (held.index(True) + 1 if any(held) else len(held))


@given(st.binary(min_size=1, max_size=20), stops)
def test_bytes_that_are_no_text_never_break_the_stream(data: bytes, stop: list[str]) -> None:
    token_ids = [TokenId(byte) for byte in data]
    pieces, _, count = stream(token_ids, stop)
    assert "".join(pieces) == answer_text(token_ids[:count], decode, eos_ids=(EOS,), stop=stop)


def test_half_a_character_waits_for_its_other_half() -> None:
    pieces, _, _ = stream(ids("a😀b"), ())
    assert pieces == ["a", "", "", "", "😀", "b"]


def test_what_may_become_a_stop_string_waits_until_it_cannot() -> None:
    pieces, reason, _ = stream(ids("xENx"), ("END",))
    assert (pieces, reason) == (["x", "", "", "ENx"], "length")


def test_a_stop_string_across_tokens_is_cut_off_with_what_follows_it() -> None:
    pieces, reason, count = stream(ids("x END y"), ("END",))
    assert ("".join(pieces), reason, count) == ("x ", "stop_string", 5)


def test_the_end_of_sequence_token_ends_an_answer_and_adds_no_text() -> None:
    pieces, reason, _ = stream([*ids("hi"), EOS, *ids("never")], ("zzz",))
    assert ("".join(pieces), reason) == ("hi", "stop")


def test_the_last_piece_brings_what_was_held_back() -> None:
    pieces, reason, _ = stream([*ids("E"), EOS], ("END",))
    assert (pieces, reason) == (["", "E"], "stop")
