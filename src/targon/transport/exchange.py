"""One exchange of a client: a request, and an answer that is read under deadlines and a size limit."""

from __future__ import annotations

import errno
import io
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing

import aiohttp
import anyio
from pydantic import ValidationError
from yarl import URL

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

requests = logging.getLogger("targon.requests")
"""As the gate's: a line for each request, which only somebody who traces the process sees."""

MAX_ERROR_BYTES = 16_384
"""An error answer is read this far."""
FINISH_S = 0.25
"""How long the end of a stream may take after its last event; a connection that is not at its end by then is
closed instead of used again."""
LARGE_BYTES = 1 << 16

_OURS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL}


class Exchange:
    """One request and its answer: ``start``, ``accept``, then ``read`` or ``chunks``; ``close`` always."""

    def __init__(
        self, axon: Endpoint, deadlines: Deadlines, max_bytes: int, monotonic_s: Callable[[], float]
    ) -> None:
        self._axon = axon
        self._deadlines = deadlines
        self._max_bytes = max_bytes
        self._monotonic_s = monotonic_s
        self._response: aiohttp.ClientResponse | None = None
        self._over_tls = False
        self._sent_s = 0.0
        self._end_s = 0.0
        self.received = 0
        """Bytes of the answer's body that came so far."""
        self.elapsed_s = 0.0
        """Seconds from the request to the newest piece of its answer."""

    async def start(
        self,
        session: aiohttp.ClientSession,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        body: bytes,
        *,
        peer: str | None,
        whole: bool,
    ) -> None:
        """Send the request and wait for the answer's headers.

        Args:
            peer: the name in TLS of who must answer there. Connections are kept and used again by it.
        """
        waits = self._deadlines
        self._over_tls = peer is not None
        self._sent_s = self._monotonic_s()
        self._end_s = self._sent_s + waits.total_s
        wait_s = waits.total_s if whole else min(waits.first_byte_s, waits.total_s)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=waits.connect_s, sock_read=None)
        with anyio.move_on_after(wait_s):
            try:
                self._response = await session.request(
                    method,
                    url,
                    data=_payload(body),
                    headers=headers,
                    timeout=timeout,
                    allow_redirects=False,
                    server_hostname=peer,
                )
            except (aiohttp.ClientError, OSError) as error:
                raise self._translate(error) from error
        if self._response is None:
            raise TimedOut(self._axon, "total" if wait_s == waits.total_s else "first byte", wait_s)
        self.elapsed_s = self._monotonic_s() - self._sent_s
        requests.debug("asked %s %s: %d in %.3f s", method, url, self._response.status, self.elapsed_s)

    async def accept(self, media_type: str) -> None:
        """Check the answer's status and headers.

        Raises:
            Refused: for an error answer.
            BadResponse: for anything that is no answer of this kind.
        """
        response = self._answer()
        status = response.status
        if 300 <= status < 400:
            where = quoted(response.headers.get("Location", "nowhere"))
            raise BadResponse(self._axon, "redirect", f"got HTTP {status} to {where}, expected an answer")
        if status >= 400:
            raise self.refused(status, await self._error_body(), response.headers.get("Retry-After"))
        if status != 200:
            raise BadResponse(self._axon, "status", f"got HTTP {status}, expected 200")
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding.lower() != "identity":
            raise BadResponse(self._axon, "encoding", f"got {quoted(encoding)}, expected no Content-Encoding")
        got = response.headers.get("Content-Type", "no Content-Type")
        if got.partition(";")[0].strip().lower() != media_type:
            raise BadResponse(self._axon, "content_type", f"got {quoted(got)}, expected {media_type}")
        if response.content_length is not None and response.content_length > self._max_bytes:
            raise self._too_large(response.content_length)

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
        response = self._answer()
        with anyio.move_on_after(FINISH_S):
            try:
                if not await response.content.readany():
                    response.release()
            except aiohttp.ClientError:
                response.close()

    def close(self) -> None:
        """Let the connection go: back to the pool if the answer was read to its end, else closed."""
        if self._response is not None and not self._response.closed:
            self._response.close()

    def refused(self, status: int, body: bytes, retry_after: str | None) -> Refused:
        """An error answer as an exception."""
        wait_s = float(retry_after) if retry_after and retry_after.isdecimal() else None
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
        with anyio.move_on_after(wait_s) as scope:
            try:
                chunk = await response.content.readany()
            except (aiohttp.ClientError, OSError) as error:
                raise self._translate(error) from error
        if scope.cancelled_caught:
            after_s = self._deadlines.total_s if phase == "total" else wait_s
            raise TimedOut(self._axon, phase, after_s)
        self.elapsed_s = self._monotonic_s() - self._sent_s
        return chunk

    def _answer(self) -> aiohttp.ClientResponse:
        if self._response is None:
            raise RuntimeError("the exchange was not started")
        return self._response

    def _too_large(self, got: int) -> BadResponse:
        return BadResponse(
            self._axon, "too_large", f"got {got} bytes or more, expected at most {self._max_bytes}"
        )

    def _translate(self, error: Exception) -> TransportError:
        what = quoted(str(error) or type(error).__name__, 200)
        if isinstance(error, OSError) and error.errno in _OURS:
            return LocalFault(self._axon, f"this machine cannot open a connection: {what}")
        if isinstance(error, (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError)):
            return _no_tls(self._axon, error.__cause__)
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            made = "no connection with its TLS handshake" if self._over_tls else "no connection"
            return Unreachable(self._axon, f"{made} within {self._deadlines.connect_s:g} s")
        if isinstance(error, aiohttp.ClientConnectorError):
            if self._over_tls and error.os_error.errno is None:
                return _no_tls(self._axon, "it hung up")
            return Unreachable(self._axon, f"no connection: {what}")
        if isinstance(error, aiohttp.ClientResponseError):
            return BadResponse(self._axon, "malformed", f"not HTTP: {what}")
        if isinstance(error, aiohttp.ClientPayloadError) and not _broke_off(error):
            return BadResponse(self._axon, "malformed", f"not HTTP: {what}")
        if self._response is None and not self._over_tls:
            what = f"{what}; if that neuron serves TLS, --neuron.tls on calls it so"
        return Disconnected(self._axon, f"the connection broke before the answer was whole: {what}")


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


def _payload(body: bytes) -> bytes | io.BytesIO | None:
    """A large body goes out in pieces, so that nobody else waits for it."""
    return io.BytesIO(body) if len(body) > LARGE_BYTES else body or None


def _broke_off(error: aiohttp.ClientPayloadError) -> bool:
    """Whether a body ended early, rather than being framed wrongly."""
    cause = error.__cause__
    return cause is None or not isinstance(cause, aiohttp.http_exceptions.TransferEncodingError)
