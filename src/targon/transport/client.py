"""The client of a neuron: signed requests out, answers or typed errors back.

Whoever answers is not trusted: every wait has a deadline, every answer a largest size that follows from
what was asked, redirects are not followed, nothing is decompressed, and what a stream said must be what was
signed at its end.
"""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from types import TracebackType
from typing import Self, TypeVar

import aiohttp
import anyio
from yarl import URL

from targon import __version__
from targon.protocol.disclosures import ProverOwnStanding, VerifierStatus
from targon.protocol.errors import MalformedMessage
from targon.protocol.keys import Signer
from targon.protocol.messages import GenerateRequest, GenerateResponse, Message, ProverStatus, TokenEvent
from targon.protocol.primitives import Digest, Hotkey
from targon.protocol.records import LogLine
from targon.protocol.tls import peer_name
from targon.transport.answers import Answer, Deadlines, Timing
from targon.transport.auth import sign
from targon.transport.clock import Clock
from targon.transport.errors import BadResponse, Disconnected, Endpoint, Unreachable
from targon.transport.exchange import Exchange
from targon.transport.released import MAX_PAGE_BYTES, released_records
from targon.transport.replies import DONE, ERROR, EVENT_STREAM, JSON, JSON_LINES
from targon.transport.sse import Event, EventDecoder
from targon.transport.tls import Tls, pinning_context, speaks_tls

GENERATE = "/v1/generate"
STATUS = "/v1/status"
STANDING = "/v1/standing"

KEEP_ALIVE_S = 10.0
"""An idle connection is let go after this: well before a server would close it under a request."""
BASE_RESPONSE_BYTES = 65_536
BYTES_PER_TOKEN = 512
"""An answer may be this large per token that was asked for: an event, and an entry in the signed response."""
MAX_RESPONSE_BYTES = 32 << 20

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
        self._slots = anyio.Semaphore(max_connections)
        self._clock = clock or Clock()
        self._tls: Tls = tls
        self._last_nonce = 0
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,
                keepalive_timeout=KEEP_ALIVE_S,
                use_dns_cache=False,
                ssl=pinning_context(self._clock),
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            headers={"User-Agent": f"targon/{__version__}", "Accept-Encoding": "identity"},
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

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
        async with AsyncExitStack() as stack:
            exchange = await self._post(
                stack, axon, request, signer, deadlines or self._deadlines, EVENT_STREAM
            )
            reading = _StreamReading(axon, request, exchange)
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
        async with AsyncExitStack() as stack:
            exchange = await self._open(
                stack, axon, "GET", target, b"", receiver, signer, waits, max_bytes, whole=True
            )
            await exchange.accept(media_type)
            return await exchange.read()

    async def _whole(
        self, axon: Endpoint, request: GenerateRequest, signer: Signer, deadlines: Deadlines
    ) -> Answer:
        async with AsyncExitStack() as stack:
            exchange = await self._post(stack, axon, request, signer, deadlines, JSON)
            body = await exchange.read()
        response = _response(axon, body)
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
        stack: AsyncExitStack,
        axon: Endpoint,
        request: GenerateRequest,
        signer: Signer,
        deadlines: Deadlines,
        media_type: str,
    ) -> Exchange:
        limit = min(MAX_RESPONSE_BYTES, BASE_RESPONSE_BYTES + BYTES_PER_TOKEN * request.sampling.max_tokens)
        exchange = await self._open(
            stack,
            axon,
            "POST",
            GENERATE,
            request.to_bytes(),
            request.prover,
            signer,
            deadlines,
            limit,
            whole=not request.stream,
        )
        await exchange.accept(media_type)
        return exchange

    async def _open(
        self,
        stack: AsyncExitStack,
        axon: Endpoint,
        method: str,
        target: str,
        body: bytes,
        receiver: Hotkey,
        signer: Signer,
        deadlines: Deadlines,
        max_bytes: int,
        *,
        whole: bool,
    ) -> Exchange:
        if self._session is None:
            raise RuntimeError("the client is not open: use it in `async with`")
        url, peer = _url(axon, target, receiver, self._tls)
        await self._slots.acquire()
        stack.callback(self._slots.release)
        headers = sign(
            signer, method=method, target=target, body=body, receiver=receiver, nonce_ns=self._nonce()
        )
        if body:
            headers["Content-Type"] = JSON
        exchange = Exchange(axon, deadlines, max_bytes, self._clock.monotonic_s)
        stack.callback(exchange.close)
        await exchange.start(self._session, method, url, headers, body, peer=peer, whole=whole)
        return exchange

    def _nonce(self) -> int:
        """Now, and never the same twice."""
        self._last_nonce = max(self._clock.now_ns(), self._last_nonce + 1)
        return self._last_nonce


class _StreamReading:
    """One stream's events, checked against what was asked and against what is signed at the end."""

    def __init__(self, axon: Endpoint, request: GenerateRequest, exchange: Exchange) -> None:
        self._axon = axon
        self._most = request.sampling.max_tokens
        self._exchange = exchange
        self._tokens: list[int] = []
        self._first: tuple[float, int] | None = None
        self._last_s: float | None = None

    def take(self, event: Event) -> TokenEvent | Answer:
        if event.name == "message":
            return self._token(event.data)
        if event.name == DONE:
            return self._answer(event.data)
        if event.name == ERROR:
            raise self._exchange.refused(200, event.data, None)
        raise BadResponse(
            self._axon, "malformed", f"got an event {event.name[:40]!r}, expected {DONE} or {ERROR}"
        )

    def _token(self, data: bytes) -> TokenEvent:
        try:
            event = TokenEvent.from_bytes(data)
        except MalformedMessage as error:
            raise BadResponse(self._axon, "malformed", str(error)) from error
        if event.token_ids:
            self._last_s = self._exchange.elapsed_s
            if self._first is None:
                self._first = (self._last_s, len(event.token_ids))
            self._tokens.extend(event.token_ids)
        if len(self._tokens) > self._most:
            raise BadResponse(
                self._axon, "too_large", f"got {len(self._tokens)} tokens, expected at most {self._most}"
            )
        return event

    def _answer(self, data: bytes) -> Answer:
        response = _response(self._axon, data)
        signed = response.completion.token_ids
        if tuple(self._tokens) != signed:
            raise BadResponse(
                self._axon,
                "inconsistent",
                f"streamed {len(self._tokens)} tokens that are not the {len(signed)} that were signed",
            )
        first_s, first_tokens = self._first or (None, 0)
        timing = Timing(
            first_token_s=first_s,
            last_token_s=self._last_s,
            total_s=self._exchange.elapsed_s,
            first_tokens=first_tokens,
            tokens=len(signed),
            bytes=self._exchange.received,
        )
        return Answer(response, timing)


def _response(axon: Endpoint, body: bytes) -> GenerateResponse:
    try:
        return GenerateResponse.from_bytes(body)
    except MalformedMessage as error:
        raise BadResponse(axon, "malformed", str(error)) from error


def _url(axon: Endpoint, target: str, receiver: Hotkey, tls: Tls) -> tuple[URL, str | None]:
    """What is called, and the peer's name in TLS if that is spoken.

    Only addresses are called, never names: what a name means is not the chain's to say.
    """
    try:
        ipaddress.ip_address(axon.host)
        peer = peer_name(receiver) if speaks_tls(tls, axon.host) else None
        path, _, query = target.partition("?")
        url = URL.build(scheme="http" if peer is None else "https", host=axon.host, port=axon.port).with_path(
            path
        )
        return (url.with_query(query) if query else url), peer
    except ValueError as error:
        raise Unreachable(axon, f"not an address to call: {error}") from error
    except MalformedMessage as error:
        raise Unreachable(axon, f"nobody to call there: {error}") from error
