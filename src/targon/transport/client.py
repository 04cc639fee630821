"""The client of a neuron: signed requests out, answers or typed errors back.

Whoever answers is not trusted: every wait has a deadline, every answer a largest size that follows from
what was asked, redirects are not followed, nothing is decompressed, and what a stream said must be what was
signed at its end.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from functools import lru_cache
from types import TracebackType
from typing import Self, TypeVar

import anyio

from targon import __version__
from targon.http import Key, Pool
from targon.protocol.disclosures import ProverOwnStanding, VerifierStatus
from targon.protocol.errors import MalformedMessage
from targon.protocol.keys import Signer
from targon.protocol.messages import GenerateRequest, Message, ProverStatus, TokenEvent
from targon.protocol.primitives import Digest, Hotkey
from targon.protocol.records import LogLine
from targon.protocol.tls import peer_name
from targon.transport.answers import Answer, Deadlines, Timing
from targon.transport.auth import sign
from targon.transport.clock import Clock
from targon.transport.errors import BadResponse, Disconnected, Endpoint, Refused, Unreachable
from targon.transport.exchange import Exchange, Stale
from targon.transport.reading import StreamReading, parse_response
from targon.transport.refusals import Code
from targon.transport.released import MAX_PAGE_BYTES, released_records
from targon.transport.replies import EVENT_STREAM, JSON, JSON_LINES
from targon.transport.sse import EventDecoder
from targon.transport.tls import Tls, pinning_context, speaks_tls

GENERATE = "/v1/generate"
STATUS = "/v1/status"
STANDING = "/v1/standing"

BASE_RESPONSE_BYTES = 65_536
BYTES_PER_TOKEN = 512
"""An answer may be this large per token that was asked for: an event, and an entry in the signed response."""
MAX_RESPONSE_BYTES = 32 << 20
AGAIN_S = (0.1, 0.4, 1.5)
"""How long a prover has to see that the connection is gone on which it was asked first, before each new try."""

_ALWAYS = f"User-Agent: targon/{__version__}\r\nAccept: */*\r\nAccept-Encoding: identity"

requests = logging.getLogger("targon.requests")
"""As the gate's: a line for each request, which only somebody who traces the process sees."""

M = TypeVar("M", bound=Message)


class NeuronClient:
    """Asks other neurons. One instance per role: it holds the pool of connections. An async context manager.

    Args:
        max_connections: requests under way at once; more wait, and that wait is not held against anyone.
        tls: whether to call over TLS; ``auto``: whoever isn't on this machine's loopback.
    """

    def __init__(
        self,
        *,
        deadlines: Deadlines | None = None,
        max_connections: int = 256,
        clock: Clock | None = None,
        tls: Tls = "auto",
    ) -> None:
        self._deadlines = deadlines or Deadlines()
        self._slots = anyio.Semaphore(max_connections, fast_acquire=True)
        self._clock = clock or Clock()
        self._tls: Tls = tls
        self._last_nonce = 0
        self._pool: Pool | None = None

    async def __aenter__(self) -> Self:
        self._pool = Pool(pinning_context(self._clock))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.aclose()

    async def generate(
        self, axon: Endpoint, request: GenerateRequest, signer: Signer, *, deadlines: Deadlines | None = None
    ) -> Answer:
        """Ask for a completion and wait for all of it; streamed on the wire where the request says so.

        Raises:
            TransportError: one of its kinds; see :mod:`targon.transport.errors`.
        """
        if not request.stream:
            return await self._whole(axon, request, signer, deadlines or self._deadlines)
        async with aclosing(self.stream(axon, request, signer, deadlines=deadlines)) as parts:
            async for part in parts:
                if isinstance(part, Answer):
                    return part
        raise Disconnected(axon, "the stream ended without its answer")

    async def stream(
        self, axon: Endpoint, request: GenerateRequest, signer: Signer, *, deadlines: Deadlines | None = None
    ) -> AsyncGenerator[TokenEvent | Answer, None]:
        """Ask for a completion as a stream: token events as they come, and last of all the signed answer.

        Close the generator to hang up; the prover stops its work then.

        Raises:
            TransportError: one of its kinds. Tokens that came before it are covered by no receipt.
            ValueError: if the request does not ask for a stream.
        """
        if not request.stream:
            raise ValueError("the request says stream=false, expected true: use generate()")
        exchange = await self._post(axon, request, signer, deadlines or self._deadlines, EVENT_STREAM)
        try:
            reading = StreamReading(axon, request, exchange)
            decoder = EventDecoder()
            async for chunk in exchange.chunks():
                try:
                    events = decoder.feed(chunk)
                except ValueError as error:
                    raise BadResponse(axon, "malformed", f"no server-sent events: {error}") from error
                for event in events:
                    part = reading.take(event)
                    if isinstance(part, Answer):
                        await exchange.finish()
                        yield part
                        return
                    yield part
            raise Disconnected(axon, "the stream ended before its signed answer")
        finally:
            self._end(exchange)

    async def status(
        self, axon: Endpoint, prover: Hotkey, signer: Signer, *, deadlines: Deadlines | None = None
    ) -> ProverStatus:
        """Ask a prover what it serves and how busy it is. Signed, like everything else.

        Raises:
            TransportError: one of its kinds.
        """
        return await self._message(ProverStatus, axon, STATUS, prover, signer, deadlines)

    async def verifier_status(
        self, axon: Endpoint, verifier: Hotkey, signer: Signer, *, deadlines: Deadlines | None = None
    ) -> VerifierStatus:
        """Ask a verifier what it verifies, and how far its log is.

        Raises:
            TransportError: one of its kinds.
        """
        return await self._message(VerifierStatus, axon, STATUS, verifier, signer, deadlines)

    async def standing(
        self, axon: Endpoint, verifier: Hotkey, signer: Signer, *, deadlines: Deadlines | None = None
    ) -> ProverOwnStanding:
        """Ask a verifier how the signer stands with it, and why.

        Raises:
            TransportError: one of its kinds; ``Refused`` with ``not_a_prover`` where it knows no such prover.
        """
        return await self._message(ProverOwnStanding, axon, STANDING, verifier, signer, deadlines)

    async def released_records(
        self,
        axon: Endpoint,
        verifier: Hotkey,
        signer: Signer,
        start: int = 0,
        *,
        after: Digest | None = None,
        deadlines: Deadlines | None = None,
    ) -> AsyncGenerator[LogLine, None]:
        """What a verifier has released of its log, from a record on, up to what it had released by the last piece.

        Each record is checked against its hash and its predecessor.

        Args:
            start: the first record.
            after: hash of the record before it; None: not checked, but for record 0, whose predecessor is known.

        Raises:
            TransportError: one of its kinds; ``Refused`` with ``not_released`` if ``start`` lies beyond it all.
        """

        async def fetch(target: str) -> bytes:
            return await self._get(
                axon, target, verifier, signer, deadlines, media_type=JSON_LINES, max_bytes=MAX_PAGE_BYTES
            )

        async with aclosing(released_records(axon, fetch, start, after)) as records:
            async for record in records:
                yield record

    async def post(
        self,
        axon: Endpoint,
        target: str,
        body: bytes,
        receiver: Hotkey,
        signer: Signer,
        *,
        max_bytes: int,
        deadlines: Deadlines | None = None,
    ) -> bytes:
        """Send a JSON body, and read the whole of a JSON answer of at most so many bytes.

        Raises:
            TransportError: one of its kinds.
        """
        waits = deadlines or self._deadlines
        exchange = await self._open(
            axon, "POST", target, body, receiver, signer, waits, max_bytes, JSON, whole=True
        )
        try:
            return await exchange.read()
        finally:
            self._end(exchange)

    async def _message(
        self,
        kind: type[M],
        axon: Endpoint,
        target: str,
        receiver: Hotkey,
        signer: Signer,
        deadlines: Deadlines | None,
    ) -> M:
        body = await self._get(axon, target, receiver, signer, deadlines)
        try:
            return kind.from_bytes(body)
        except MalformedMessage as error:
            raise BadResponse(axon, "malformed", str(error)) from error

    async def _get(
        self,
        axon: Endpoint,
        target: str,
        receiver: Hotkey,
        signer: Signer,
        deadlines: Deadlines | None,
        *,
        media_type: str = JSON,
        max_bytes: int = BASE_RESPONSE_BYTES,
    ) -> bytes:
        waits = deadlines or self._deadlines
        exchange = await self._open(
            axon, "GET", target, b"", receiver, signer, waits, max_bytes, media_type, whole=True
        )
        try:
            return await exchange.read()
        finally:
            self._end(exchange)

    async def _whole(
        self, axon: Endpoint, request: GenerateRequest, signer: Signer, deadlines: Deadlines
    ) -> Answer:
        exchange = await self._post(axon, request, signer, deadlines, JSON)
        try:
            body = await exchange.read()
        finally:
            self._end(exchange)
        response = parse_response(axon, body)
        timing = Timing(
            first_token_s=None,
            last_token_s=None,
            total_s=exchange.elapsed_s,
            first_tokens=0,
            tokens=len(response.completion.token_ids),
            bytes=exchange.received,
        )
        return Answer(response, timing)

    async def _post(
        self,
        axon: Endpoint,
        request: GenerateRequest,
        signer: Signer,
        deadlines: Deadlines,
        media_type: str,
    ) -> Exchange:
        limit = min(MAX_RESPONSE_BYTES, BASE_RESPONSE_BYTES + BYTES_PER_TOKEN * request.sampling.max_tokens)
        return await self._open(
            axon,
            "POST",
            GENERATE,
            request.to_bytes(),
            request.prover,
            signer,
            deadlines,
            limit,
            media_type,
            whole=not request.stream,
        )

    async def _open(
        self,
        axon: Endpoint,
        method: str,
        target: str,
        body: bytes,
        receiver: Hotkey,
        signer: Signer,
        deadlines: Deadlines,
        max_bytes: int,
        media_type: str,
        *,
        whole: bool,
    ) -> Exchange:
        """Send a request, and see that its answer is one.

        A kept connection may end just as we send: the server let it go, and read nothing. Nobody is to blame for
        that, so the request is sent once more, on a new connection, signed anew; what comes of that counts. It gives
        no more time, so nobody wins by hanging up. If the first copy did arrive, the other side may still be about
        to see that its caller is gone, and refuse the second till then: it is asked again for a while. Whoever says
        to the end that it has answered has read the request and given nothing for it, as anyone who hangs up.

        Whoever calls this ends the exchange that it returns (:meth:`_end`).
        """
        if self._pool is None:
            raise RuntimeError("the client is not open: use it in `async with`")
        key = _key(axon, receiver, self._tls)
        await self._slots.acquire()
        exchange = Exchange(axon, deadlines, max_bytes, self._clock.monotonic_s)
        lost: Stale | None = None
        pauses_s = iter(AGAIN_S)
        try:
            while True:
                headers = sign(
                    signer, method=method, target=target, body=body, receiver=receiver, nonce_ns=self._nonce()
                )
                sent = _request(key, method, target, headers, body)
                try:
                    await exchange.start(self._pool, key, sent, whole=whole, again=lost is not None)
                    await exchange.accept(media_type)
                    break
                except Stale as error:
                    lost = error
                except Refused as error:
                    pause_s = next(pauses_s, None)
                    if lost is None or error.code != Code.ALREADY_ANSWERED:
                        raise
                    if pause_s is None:
                        raise lost from error
                    await anyio.sleep(pause_s)
        except BaseException:
            self._end(exchange)
            raise
        if requests.isEnabledFor(logging.DEBUG):
            url = f"{'http' if key[2] is None else 'https'}://{_host(key)}{target}"
            requests.debug("asked %s %s: %d in %.3f s", method, url, exchange.status, exchange.elapsed_s)
        return exchange

    def _end(self, exchange: Exchange) -> None:
        exchange.close()
        self._slots.release()

    def _nonce(self) -> int:
        """Now, and never the same twice."""
        self._last_nonce = max(self._clock.now_ns(), self._last_nonce + 1)
        return self._last_nonce


def _key(axon: Endpoint, receiver: Hotkey, tls: Tls) -> Key:
    """Whom to call, with the peer's name in TLS if that is spoken.

    Only addresses are called, never names: what a name means is not the chain's to say.
    """
    try:
        peer = _peer(axon.host, receiver, tls)
    except ValueError as error:
        raise Unreachable(axon, f"not an address to call: {error}") from error
    except MalformedMessage as error:
        raise Unreachable(axon, f"nobody to call there: {error}") from error
    return axon.host, axon.port, peer


@lru_cache(maxsize=4096)  # the same few are called over and over
def _peer(host: str, receiver: Hotkey, tls: Tls) -> str | None:
    ipaddress.ip_address(host)
    return peer_name(receiver) if speaks_tls(tls, host) else None


def _request(key: Key, method: str, target: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """A request as it stands on the wire. The target is sent as it was signed."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {_host(key)}", _ALWAYS]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body:
        lines.append(f"Content-Type: {JSON}\r\nContent-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


def _host(key: Key) -> str:
    host, port, _ = key
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
