"""Server-sent events, taken apart: however their bytes come, and whatever they are."""

from __future__ import annotations

import json
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from targon.transport.sse import Event, EventDecoder

EVENTS = [
    Event("message", json.dumps({"token_ids": [1], "text": "a\nb"}).encode()),
    Event("done", b"{}"),
    Event("message", b"two\nlines"),
]
ENCODED = (
    b": comment\n\n"
    b'data: {"token_ids": [1], "text": "a\\nb"}\n\n'
    b"event: done\r\ndata: {}\r\nid: 7\r\n\r\n"
    b"event: forgotten\n\n"
    b"data:two\ndata: lines\n\n"
)


@given(cuts=st.lists(st.integers(0, len(ENCODED)), max_size=12))
def test_events_are_the_same_however_their_bytes_are_cut(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(ENCODED)]
    decoder = EventDecoder()

    events = [event for start, end in pairwise(edges) for event in decoder.feed(ENCODED[start:end])]

    assert events == EVENTS


LINES = st.sampled_from(
    [b"data: a", b"data:b", b"data:  c", b"event: done", b": x", b"", b"data", b"id: 7", b"data: d\r"]
)


@given(st.lists(LINES, max_size=12))
def test_what_is_cut_where_events_end_is_read_as_what_is_not(lines: list[bytes]) -> None:
    data = b"\n".join(lines) + b"\n\n"

    def read(pieces: list[bytes]) -> list[Event] | None:
        decoder = EventDecoder()
        try:
            return [event for piece in pieces for event in decoder.feed(piece)]
        except ValueError:
            return None

    assert read([data]) == read([bytes([byte]) for byte in data])


@given(st.binary(max_size=300))
def test_any_bytes_are_events_or_a_value_error(data: bytes) -> None:
    try:
        events = EventDecoder().feed(data)
    except ValueError:
        return
    assert all(isinstance(event, Event) for event in events)
