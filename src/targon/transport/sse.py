"""Server-sent events (WHATWG HTML living standard, section 9.2), as far as the wire uses them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
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
