"""One exchange of a client: a request, and an answer that is read under deadlines and a size limit."""

from __future__ import annotations

import contextlib
import errno
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from pydantic import ValidationError

from targon.http import Broken, Connection, Key, Malformed, Pool
from targon.transport.answers import Deadlines
from targon.transport.errors import (
    BadResponse,
    Disconnected,
    Endpoint,
    LocalFault,
    NotTheProver,
    Phase,
    Refused,
    TimedOut,
    TransportError,
    Unreachable,
)
from targon.transport.refusals import ErrorBody, quoted
from targon.transport.tls import NotPinned

MAX_RETRY_AFTER_S = 60.0
"""Longest wait that an error answer is believed."""
MAX_ERROR_BYTES = 16_384
"""An error answer is read this far."""
FINISH_S = 0.25
"""How long the end of a stream may take after its last event; a connection that is not at its end by then is
closed instead of used again."""

_OURS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL}


class Stale(Disconnected):
    """A kept connection ended before anything came back: the server may have let it go just then."""


class Exchange:
    """One request and its answer: ``start``, ``accept``, then ``read`` or ``chunks``; ``close`` always."""

    def __init__(
        self, axon: Endpoint, deadlines: Deadlines, max_bytes: int, monotonic_s: Callable[[], float]
    ) -> None:
        self._axon = axon
        self._deadlines = deadlines
        self._max_bytes = max_bytes
        self._monotonic_s = monotonic_s
        self._pool: Pool | None = None
        self._key: Key = ("", 0, None)
        self._connection: Connection | None = None
        self._sent_s = 0.0
        self._end_s = 0.0
        self.received = 0
        """Bytes of the answer's body that came so far."""
        self.elapsed_s = 0.0
        """Seconds from the request to the newest piece of its answer."""

    async def start(self, pool: Pool, key: Key, request: bytes, *, whole: bool, again: bool = False) -> None:
        """Send the request and wait for the answer's headers.

        Args:
            key: whom to call. Over TLS it names who must answer there; connections are kept and used again by it.
            again: it was sent before: now on a new connection, and time has run since then.
        """
        waits = self._deadlines
        self.close()
        self._pool, self._key = pool, key
        if not again:
            self._sent_s = self._monotonic_s()
            self._end_s = self._sent_s + waits.total_s
        wait_s = waits.total_s if whole else min(waits.first_byte_s, waits.total_s)
        phase: Phase = "total" if wait_s == waits.total_s else "first byte"
        left_s = max(0.0, wait_s - (self._monotonic_s() - self._sent_s))
        try:
            connection = await pool.take(key, min(waits.connect_s, left_s), fresh=again)
        except OSError as error:
            if isinstance(error, TimeoutError) and error.errno is None and left_s < waits.connect_s:
                raise TimedOut(self._axon, phase, wait_s) from error
            raise self._unconnected(error) from error
        self._connection = connection
        connection.send(request)
        try:
            await connection.head(wait_s - (self._monotonic_s() - self._sent_s))
        except TimeoutError as error:
            raise TimedOut(self._axon, phase, wait_s) from error
        except (Malformed, Broken) as error:
            raise self._translate(error) from error
        self.elapsed_s = self._monotonic_s() - self._sent_s

    @property
    def status(self) -> int:
        """Of the answer."""
        return self._answer().status

    async def accept(self, media_type: str) -> None:
        """Check the answer's status and headers.

        Raises:
            Refused: for an error answer.
            BadResponse: for anything that is no answer of this kind.
        """
        response = self._answer()
        status, headers = response.status, response.headers
        if 300 <= status < 400:
            where = quoted(headers.get("location", "nowhere"))
            raise BadResponse(self._axon, "redirect", f"got HTTP {status} to {where}, expected an answer")
        if status >= 400:
            raise self.refused(status, await self._error_body(), headers.get("retry-after"))
        if status != 200:
            raise BadResponse(self._axon, "status", f"got HTTP {status}, expected 200")
        encoding = headers.get("content-encoding", "identity")
        if encoding.lower() != "identity":
            raise BadResponse(self._axon, "encoding", f"got {quoted(encoding)}, expected no Content-Encoding")
        got = headers.get("content-type", "no Content-Type")
        if got.partition(";")[0].strip().lower() != media_type:
            raise BadResponse(self._axon, "content_type", f"got {quoted(got)}, expected {media_type}")
        length = int(headers.get("content-length", "0"))  # the parser let only digits through
        if length > self._max_bytes:
            raise self._too_large(length)

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The answer's body as it comes."""
        while True:
            chunk = await self._next()
            if not chunk:
                return
            self.received += len(chunk)
            if self.received > self._max_bytes:
                raise self._too_large(self.received)
            yield chunk

    async def read(self) -> bytes:
        """The answer's whole body."""
        body = bytearray()
        async with aclosing(self.chunks()) as chunks:
            async for chunk in chunks:
                body += chunk
        return bytes(body)

    async def finish(self) -> None:
        """See a stream to its end, so that its connection can be used again."""
        with contextlib.suppress(TimeoutError, Malformed, Broken):
            await self._answer().piece(FINISH_S)

    def close(self) -> None:
        """Let the connection go: back to the pool if the answer was read to its end, else closed."""
        if self._connection is not None and self._pool is not None:
            self._pool.give(self._key, self._connection)
            self._connection = None

    def refused(self, status: int, body: bytes, retry_after: str | None) -> Refused:
        """An error answer as an exception."""
        wait_s = None
        if retry_after and retry_after.isascii() and retry_after.isdecimal():
            # a server's word alone: nobody is to wait for ever by it. Nor is a number of any length worth reading
            wait_s = min(float(retry_after[:9]), MAX_RETRY_AFTER_S)
        try:
            problem = ErrorBody.model_validate_json(body).error
        except ValidationError:
            text = body[:300].decode("utf-8", "replace")
            return Refused(self._axon, status, "unknown", text, retry_after_s=wait_s)
        return Refused(
            self._axon,
            status,
            problem.code,
            problem.message,
            got=problem.got,
            expected=problem.expected,
            retry_after_s=wait_s,
        )

    async def _error_body(self) -> bytes:
        """As much of an error answer as we care to read; one that broke off is no less of an error."""
        body = bytearray()
        while len(body) < MAX_ERROR_BYTES:
            try:
                chunk = await self._next()
            except (TimedOut, Disconnected):
                break
            if not chunk:
                break
            body += chunk
        return bytes(body[:MAX_ERROR_BYTES])

    async def _next(self) -> bytes:
        response = self._answer()
        left_s = self._end_s - self._monotonic_s()
        wait_s = self._deadlines.between_bytes_s
        phase: Phase = "between bytes"
        if left_s < wait_s:
            wait_s, phase = max(0.0, left_s), "total"
        try:
            chunk = await response.piece(wait_s)
        except TimeoutError as error:
            after_s = self._deadlines.total_s if phase == "total" else wait_s
            raise TimedOut(self._axon, phase, after_s) from error
        except (Malformed, Broken) as error:
            raise self._translate(error) from error
        self.elapsed_s = self._monotonic_s() - self._sent_s
        return chunk

    def _answer(self) -> Connection:
        if self._connection is None:
            raise RuntimeError("the exchange was not started, or is closed")
        return self._connection

    def _too_large(self, got: int) -> BadResponse:
        return BadResponse(
            self._axon, "too_large", f"got {got} bytes or more, expected at most {self._max_bytes}"
        )

    def _unconnected(self, error: OSError) -> TransportError:
        """Why there is no connection."""
        over_tls = self._key[2] is not None
        what = quoted(str(error) or type(error).__name__, 200)
        if error.errno in _OURS:
            return LocalFault(self._axon, f"this machine cannot open a connection: {what}")
        if isinstance(error, TimeoutError) and error.errno is None:
            made = "no connection with its TLS handshake" if over_tls else "no connection"
            return Unreachable(self._axon, f"{made} within {self._deadlines.connect_s:g} s")
        if isinstance(error, ssl.SSLError):
            return _no_tls(self._axon, error)
        if over_tls and error.errno is None:
            return _no_tls(self._axon, "it hung up")
        return Unreachable(self._axon, f"no connection: {what}")

    def _translate(self, error: Malformed | Broken) -> TransportError:
        """Why there is no answer on a connection."""
        what = quoted(str(error), 200)
        if isinstance(error, Malformed):
            return BadResponse(self._axon, "malformed", f"not HTTP: {what}")
        if self._key[2] is None and self._connection is not None and not self._connection.status:
            what = f"{what}; if that neuron serves TLS, --neuron.tls on calls it so"
        kind = Stale if self._connection is not None and self._connection.stale else Disconnected
        return kind(self._axon, f"the connection broke before the answer was whole: {what}")


def _no_tls(axon: Endpoint, error: BaseException | str | None) -> TransportError:
    """A handshake that failed."""
    if isinstance(error, NotPinned):
        return NotTheProver(axon, f"not the hotkey that was called: {quoted(error.args[0], 300)}")
    reason = getattr(error, "reason", None) or error
    return Unreachable(
        axon,
        f"no TLS with whoever answers there ({quoted(reason)}). If that neuron serves plain HTTP: --axon.tls on "
        "makes it serve TLS, and --neuron.tls off calls it without",
    )
