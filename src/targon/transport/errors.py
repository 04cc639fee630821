"""What can go wrong for someone who asks a neuron.

    TransportError        carries ``axon``, whom it was asked of
    ├── LocalFault        our own machine: out of file descriptors, ports or memory. Nobody's fault but ours
    ├── Unreachable       no connection: refused, no route, no answer to the handshake, no address, no TLS
    ├── NotTheProver      who answers there over TLS can't show the hotkey that was called; nothing was sent
    ├── TimedOut          connected, and then a deadline passed; ``phase`` says which
    ├── Disconnected      the connection broke before the answer was whole: theirs or the network's
    ├── Refused           an error answer: ``status``, ``code``, ``message``
    └── BadResponse       an answer that breaks the rules of the wire; ``reason`` says how. Theirs

``Refused`` and ``BadResponse`` mean that the prover spoke. The other five mean silence, and whether that
is the prover's or the network's doing cannot be told from one request.
"""

from __future__ import annotations

from typing import Literal, Protocol

from targon.transport.refusals import Quoted, quoted

Phase = Literal["first byte", "between bytes", "total"]

Reason = Literal["status", "redirect", "content_type", "encoding", "too_large", "malformed", "inconsistent"]


class Endpoint(Protocol):
    """Where a neuron serves. ``targon.chain.Axon`` is one."""

    @property
    def host(self) -> str: ...

    @property
    def port(self) -> int: ...


class TransportError(Exception):
    """A request that brought no answer.

    Attributes:
        axon: whom it was asked of.
    """

    def __init__(self, axon: Endpoint, message: str) -> None:
        self.axon = axon
        super().__init__(f"{axon}: {message}")


class LocalFault(TransportError):
    """Our own machine could not even try."""


class Unreachable(TransportError):
    """No connection could be made."""


class NotTheProver(TransportError):
    """Whoever answers there can't show by its certificate that it is the hotkey that was called.

    It was sent nothing. The prover may have moved, or may not speak to us at all: somebody stands in between.
    """


class TimedOut(TransportError):
    """Connected, and then a deadline passed.

    Attributes:
        phase: what was waited for.
        after_s: how long.
    """

    def __init__(self, axon: Endpoint, phase: Phase, after_s: float) -> None:
        self.phase: Phase = phase
        self.after_s = after_s
        super().__init__(axon, f"no answer in time: got nothing for {after_s:g} s (deadline: {phase})")


class Disconnected(TransportError):
    """The connection broke before the answer was whole."""


class Refused(TransportError):
    """An error answer.

    Attributes:
        status: the HTTP status; 200 where a stream had already begun.
        code: the word of :class:`targon.transport.refusals.Code`, or ``"unknown"`` where the answer
            had none (a proxy's error page, say).
        message: the reason in words, as the other side put it; cut to a line.
        got, expected: the values behind it, where there were any.
        retry_after_s: after how many seconds the other side says to try again.
    """

    def __init__(
        self,
        axon: Endpoint,
        status: int,
        code: str,
        message: str,
        *,
        got: Quoted = None,
        expected: Quoted = None,
        retry_after_s: float | None = None,
    ) -> None:
        self.status = status
        self.code = quoted(code)
        self.message = quoted(message, 300)
        self.got = quoted(got) if isinstance(got, str) else got
        self.expected = quoted(expected) if isinstance(expected, str) else expected
        self.retry_after_s = retry_after_s
        super().__init__(axon, f"refused with HTTP {status} {self.code}: {self.message}")


class BadResponse(TransportError):
    """An answer that breaks the rules of the wire.

    Attributes:
        reason: which rule.
    """

    def __init__(self, axon: Endpoint, reason: Reason, message: str) -> None:
        self.reason: Reason = reason
        super().__init__(axon, f"bad response ({reason}): {message}")


class PortInUse(Exception):
    """The port that a role should listen on is taken, or not ours to take."""
