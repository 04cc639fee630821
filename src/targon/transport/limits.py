"""Limits: every bound of a server in one place, and the counters that hold callers to them."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

from bittensor import http_auth

from targon.transport.refusals import Code, Refusal


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one caller may do."""

    per_second: float
    """Requests a second, in the long run."""
    burst: int
    """Requests at once, after a quiet time."""
    concurrent: int
    """Requests being worked on at the same time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Every bound of a server."""

    max_body_bytes: int = 1 << 20
    body_timeout_s: float = 15.0
    """A body must be here within this, whatever its size."""
    body_grace_s: float = 2.0
    """How long a body may take before its rate counts."""
    min_body_bytes_per_s: int = 4096
    """After the grace, a body that comes slower than this is cut off."""
    max_age_s: float = http_auth.DEFAULT_MAX_AGE
    """A nonce may be this much older than our clock: the window of btauth/1."""
    allowed_skew_s: float = http_auth.DEFAULT_ALLOWED_SKEW
    """A nonce may be this much ahead of our clock."""
    max_nonces: int = 100_000
    """Nonces remembered at once; about 25 MB. Over it, requests are refused rather than replays let in."""
    per_hotkey: Allowance = field(
        default_factory=lambda: Allowance(per_second=50.0, burst=200, concurrent=64)
    )
    per_address: Allowance = field(
        default_factory=lambda: Allowance(per_second=200.0, burst=800, concurrent=128)
    )
    """Several neurons share an address behind one router, so this is wider than a hotkey's."""
    per_open_address: Allowance = field(
        default_factory=lambda: Allowance(per_second=100.0, burst=1_000, concurrent=64)
    )
    """Of what needs no signature, beside the address's own: nobody vouches for whoever asks for it."""
    max_concurrent: int = 256
    """Signed requests being worked on at the same time, by whomever."""
    max_connections: int = 1024
    max_connections_per_address: int = 256
    max_header_bytes: int = 16_384
    header_timeout_s: float = 10.0
    """A request's headers must be here within this."""
    idle_timeout_s: int = 30
    """An idle connection is kept this long. Clients must let go earlier (ours does after 10 s)."""
    write_stall_s: float = 30.0
    """A client that does not take what it asked for is cut off after this."""
    send_buffer_bytes: int | None = None
    """What the kernel is asked to hold for a client that reads slowly; None: what it likes, some megabytes."""

    @property
    def nonce_retention_s(self) -> float:
        """How long a nonce must be remembered: until no clock could take it for fresh any more."""
        return self.max_age_s + self.allowed_skew_s + self.body_timeout_s


@dataclass(slots=True)
class _Account:
    tokens: float
    at_s: float
    running: int = 0


class Slot:
    """A request that counts as running until the block ends."""

    __slots__ = ("_account",)

    def __init__(self, account: _Account) -> None:
        self._account = account

    def __enter__(self) -> None:
        return

    def __exit__(self, *_: object) -> None:
        self._account.running -= 1


class Limiter:
    """Token buckets and concurrency per key (a hotkey, an address), for a bounded number of keys."""

    def __init__(
        self, allowance: Allowance, what: str, monotonic_s: Callable[[], float], max_keys: int = 10_000
    ) -> None:
        self._allowance = allowance
        self._what = what
        self._monotonic_s = monotonic_s
        self._max_keys = max_keys
        self._accounts: OrderedDict[str, _Account] = OrderedDict()

    def __len__(self) -> int:
        return len(self._accounts)

    def check(self, key: str) -> None:
        """Whether a request of this key's would be let in, at no charge.

        Raises:
            Refusal: ``too_many_requests`` or ``too_many_concurrent``.
        """
        account = self._accounts.get(key)
        if account is not None:
            self._refill(account)
            self._judge(account)

    def slot(self, key: str) -> Slot:
        """Charge a request to this key, and count it as running until the block that is entered with this ends.

        Raises:
            Refusal: as :meth:`check`.
        """
        account = self._accounts.get(key)
        if account is None:
            self._make_room()
            account = self._accounts[key] = _Account(float(self._allowance.burst), self._monotonic_s())
        else:
            self._accounts.move_to_end(key)
            self._refill(account)
        self._judge(account)
        account.tokens -= 1.0
        account.running += 1
        return Slot(account)

    def _refill(self, account: _Account) -> None:
        now = self._monotonic_s()
        earned = max(0.0, now - account.at_s) * self._allowance.per_second
        account.tokens = min(float(self._allowance.burst), account.tokens + earned)
        account.at_s = now

    def _judge(self, account: _Account) -> None:
        allowance = self._allowance
        if account.running >= allowance.concurrent:
            raise Refusal(
                Code.TOO_MANY_CONCURRENT,
                f"this {self._what} has {account.running} requests running; wait for one to end",
                got=account.running + 1,
                expected=f"at most {allowance.concurrent} at once",
                retry_after_s=1.0,
            )
        if account.tokens < 1.0:
            raise Refusal(
                Code.TOO_MANY_REQUESTS,
                f"this {self._what} asks too often; slow down",
                expected=f"at most {allowance.per_second:g} a second",
                retry_after_s=(1.0 - account.tokens) / allowance.per_second,
            )

    def _make_room(self) -> None:
        """Forget whoever was idle longest. What is lost is at most that key's debt."""
        if len(self._accounts) < self._max_keys:
            return
        for key, account in self._accounts.items():
            if account.running == 0:
                del self._accounts[key]
                return


@lru_cache(maxsize=4096)
def address_key(host: str) -> str:
    """What of a client's address counts as one client: an IPv4 address, or an IPv6 /64."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address.packed[:8] + bytes(8), 64)))
    return str(address)
