"""Server-sent events (WHATWG HTML living standard, section 9.2), as far as the wire uses them."""

from __future__ import annotations

from typing import NamedTuple


class Event(NamedTuple):
    """One event: its name (``message`` where none was given) and its data."""

    name: str
    data: bytes


class EventDecoder:
    """Bytes in, events out. Lines end in LF or CR LF; comments and unknown fields are passed over.

    What it holds back is bounded by whoever feeds it: at most one unfinished event.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._scanned = 0
        self._name = "message"
        self._data: list[bytes] = []

    @property
    def pending(self) -> bool:
        """Whether part of an event is here, and the rest is not."""
        return bool(self._buffer or self._data)

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that this chunk completes.

        Raises:
            ValueError: if a line is no field of the format.
        """
        if not self._buffer and not self._data and chunk.endswith(b"\n\n") and b"\r" not in chunk:
            return self._whole_events(chunk)
        self._buffer += chunk
        events = []
        start = 0
        while (end := self._buffer.find(b"\n", max(start, self._scanned))) >= 0:
            line = bytes(self._buffer[start:end]).removesuffix(b"\r")
            start = end + 1
            event = self._line(line)
            if event is not None:
                events.append(event)
        del self._buffer[:start]
        self._scanned = len(self._buffer)
        return events

    def _whole_events(self, chunk: bytes) -> list[Event]:
        """As :meth:`feed`, for what is cut where events end: the way in which they are sent."""
        events = []
        for block in chunk[:-2].split(b"\n\n"):
            if self._name == "message" and block.startswith(b"data: ") and b"\n" not in block:
                events.append(Event("message", block[6:]))
                continue
            for line in (*block.split(b"\n"), b""):
                event = self._line(line)
                if event is not None:
                    events.append(event)
        return events

    def _line(self, line: bytes) -> Event | None:
        if not line:
            if not self._data:
                self._name = "message"
                return None
            event = Event(self._name, b"\n".join(self._data))
            self._name, self._data = "message", []
            return event
        field, colon, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
        elif field == b"event":
            self._name = value.decode("ascii", "replace")
        elif field and not colon:
            raise ValueError("a line without a colon")
        return None
