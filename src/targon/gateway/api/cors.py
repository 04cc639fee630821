"""Which pages in a browser may call the gateway: none, unless origins are named."""

from __future__ import annotations

import re
from collections.abc import Collection

from targon.gateway.api.exchange import Headers

_EXPOSED = (
    b"x-request-id, targon-receipt-id, retry-after, x-should-retry, openai-processing-ms, "
    b"x-ratelimit-limit-requests, x-ratelimit-remaining-requests, x-ratelimit-reset-requests, "
    b"x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens"
)
_NAMES = re.compile(rb"[A-Za-z0-9-]{1,64}(?:, *[A-Za-z0-9-]{1,64}){0,63}")
_REMEMBERED_S = b"600"


class Cors:
    """The origins that were named; ``*`` stands for all of them."""

    def __init__(self, origins: Collection[str]) -> None:
        self._all = "*" in origins
        self._origins = frozenset(origin.encode() for origin in origins)

    def headers(self, origin: bytes) -> Headers:
        """What every reply to a page of this origin says."""
        if self._all:
            return [(b"access-control-allow-origin", b"*"), (b"access-control-expose-headers", _EXPOSED)]
        if origin in self._origins:
            return [
                (b"access-control-allow-origin", origin),
                (b"access-control-expose-headers", _EXPOSED),
                (b"vary", b"origin"),
            ]
        return [(b"vary", b"origin")] if self._origins else []

    def preflight(self, origin: bytes, wanted: bytes) -> Headers | None:
        """What a browser is told that asks first; None: it may not.

        Args:
            wanted: the headers that the page will send, as the browser lists them.
        """
        if not self._all and origin not in self._origins:
            return None
        allowed: Headers = [
            (b"access-control-allow-methods", b"GET, POST"),
            (b"access-control-max-age", _REMEMBERED_S),
        ]
        if _NAMES.fullmatch(wanted):
            allowed.append((b"access-control-allow-headers", wanted))
        return allowed
