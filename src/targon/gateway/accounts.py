"""What each key may still do: requests and tokens a minute, requests at once, tokens a day and ever.

Tokens are reserved when a request is let in, by the longest answer that it allows, and corrected by what was really
used when it ends: many requests at once can't exceed a limit together, and nobody pays for what wasn't said. Where
nobody said how long an answer may be, it may be as long as quotas leave.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from targon.gateway.keys import DAY_S, Key, Usage
from targon.gateway.refusals import ApiError, invalid

MINUTE_S = 60.0
BYTES_PER_TOKEN = 4
"""By which a prompt's tokens are estimated before the model's tokenizer has counted them."""


@dataclass(frozen=True, slots=True)
class Need:
    """Tokens that prompts, or they and their answers, may use."""

    likely: int
    """By the estimate of its prompts, which does for a limit per minute: what it lacks is made up for in the next."""
    most: int
    """More than it can use, whatever the model's tokenizer makes of its prompts. Quotas are held by it."""

    def and_answers(self, tokens: int) -> Need:
        """The same, with answers of so many tokens."""
        return Need(self.likely + tokens, self.most + tokens)


class Bucket:
    """So much a minute, and at most a minute's worth at once."""

    def __init__(self, per_minute: int, monotonic_s: Callable[[], float]) -> None:
        self.per_minute = per_minute
        self._monotonic_s = monotonic_s
        self._left = float(per_minute)
        self._at_s = monotonic_s()

    @property
    def left(self) -> float:
        """What can be taken now; below 0 after a correction upwards."""
        now = self._monotonic_s()
        earned = (now - self._at_s) * self.per_minute / MINUTE_S
        self._left = min(float(self.per_minute), self._left + max(0.0, earned))
        self._at_s = now
        return self._left

    def take(self, amount: float) -> None:
        """Take it, or (below 0) give it back."""
        self._left = min(float(self.per_minute), self.left - amount)

    def seconds_until(self, amount: float) -> float:
        """Until so much can be taken."""
        return max(0.0, (amount - self.left) * MINUTE_S / self.per_minute)


class Account:
    """A key's limits over time. Everybody who needs no key shares one, without limits."""

    def __init__(
        self,
        key: Key | None,
        *,
        monotonic_s: Callable[[], float],
        today: int,
        used: tuple[Usage, Usage] = (Usage(), Usage()),
    ) -> None:
        """Begin with what the file says was used: that day, and in all."""
        self.key = key
        self._monotonic_s = monotonic_s
        self.running = 0
        self._reserved = 0
        self._day = today
        self._today, self._ever = (usage.tokens for usage in used)
        self._requests: Bucket | None = None
        self._looks: Bucket | None = None
        self._looks_running = 0
        self._tokens: Bucket | None = None
        if key is not None:
            self._set_limits(key)

    @property
    def name(self) -> str:
        """As it is logged."""
        return "none" if self.key is None else self.key.name

    def renew(self, key: Key, *, today: int, used: tuple[Usage, Usage]) -> None:
        """Take over what the file says now."""
        self.key = key
        self._set_limits(key)
        self._day = today
        self._today, self._ever = (usage.tokens for usage in used)

    def admit(self) -> None:
        """Charge one request, which runs until :meth:`leave`.

        Raises:
            ApiError: 429, with what limit it is and when to come back.
        """
        if self.key is not None:
            concurrent = self.key.allowed.concurrent
            if concurrent and self.running >= concurrent:
                raise _limited(
                    f"{self.running} requests of this key are running, expected at most {concurrent}", 1.0
                )
            if self._requests is not None:
                if self._requests.left < 1.0:
                    raise _limited(
                        f"this key may send {self._requests.per_minute} requests a minute",
                        self._requests.seconds_until(1.0),
                    )
                self._requests.take(1.0)
        self.running += 1

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Let in a look at what there is (a receipt, say), for the block. Looks have limits of their own, as high as
        those of requests: who asks for the receipt of each answer is not to have half the answers.

        Raises:
            ApiError: 429, as :meth:`admit`.
        """
        if self.key is not None:
            concurrent = self.key.allowed.concurrent
            if concurrent and self._looks_running >= concurrent:
                raise _limited(
                    f"{self._looks_running} looks of this key are running, expected at most {concurrent}", 1.0
                )
            if self._looks is not None:
                if self._looks.left < 1.0:
                    raise _limited(
                        f"this key may look {self._looks.per_minute} times a minute",
                        self._looks.seconds_until(1.0),
                    )
                self._looks.take(1.0)
        self._looks_running += 1
        try:
            yield
        finally:
            self._looks_running -= 1

    def leave(self) -> None:
        """A request that was admitted has ended."""
        self.running -= 1

    def room(self, prompts: Need, *, now_s: float) -> float:
        """Tokens that the answers to such prompts may have together; ``inf`` for a key without limits on tokens.

        Args:
            now_s: seconds since 1970-01-01 UTC.
        """
        if self.key is None:
            return math.inf
        self._turn_day(now_s)
        allowed = self.key.allowed
        rooms = [math.inf if self._tokens is None else self._tokens.per_minute - prompts.likely]
        if allowed.total_tokens:
            rooms.append(allowed.total_tokens - self._ever - self._reserved - prompts.most)
        if allowed.daily_tokens:
            rooms.append(allowed.daily_tokens - self._today - self._reserved - prompts.most)
        return min(rooms)

    def reserve(self, need: Need, *, now_s: float) -> None:
        """Set tokens aside for a request.

        Args:
            now_s: seconds since 1970-01-01 UTC.

        Raises:
            ApiError: 429 as :meth:`admit`, or 400 if no waiting would help.
        """
        tokens = need.likely
        if self.key is not None:
            self._check_quotas(need.most, now_s)
            if self._tokens is not None:
                if tokens > self._tokens.per_minute:
                    raise invalid(
                        "max_tokens",
                        "tokens_above_limit",
                        f"max_tokens: the request may take {tokens} tokens with its prompt, expected at most "
                        f"{self._tokens.per_minute}, which is what this key may use in a minute",
                    )
                if self._tokens.left < tokens:
                    raise _limited(
                        f"this key may use {self._tokens.per_minute} tokens a minute, and {tokens} were asked for",
                        self._tokens.seconds_until(tokens),
                        kind="tokens",
                    )
                self._tokens.take(tokens)
        self._reserved += need.most

    def settle(self, need: Need, used: int) -> None:
        """Put what was used in the place of what was reserved."""
        self._reserved -= need.most
        self._today += used
        self._ever += used
        if self._tokens is not None:
            self._tokens.take(used - need.likely)

    def headers(self) -> list[tuple[bytes, bytes]]:
        """The limits, and what is left of them, as OpenAI's clients know them."""
        headers = []
        for what, bucket in ((b"requests", self._requests), (b"tokens", self._tokens)):
            if bucket is None:
                continue
            left = bucket.left
            reset_s = (bucket.per_minute - left) * MINUTE_S / bucket.per_minute
            headers += [
                (b"x-ratelimit-limit-" + what, b"%d" % bucket.per_minute),
                (b"x-ratelimit-remaining-" + what, b"%d" % max(0, math.floor(left))),
                (b"x-ratelimit-reset-" + what, b"%.3fs" % reset_s),
            ]
        return headers

    def _check_quotas(self, tokens: int, now_s: float) -> None:
        assert self.key is not None
        self._turn_day(now_s)
        allowed = self.key.allowed
        if allowed.total_tokens and self._ever + self._reserved + tokens > allowed.total_tokens:
            raise _exhausted(f"{allowed.total_tokens} tokens in all", self._ever, tokens, None)
        if allowed.daily_tokens and self._today + self._reserved + tokens > allowed.daily_tokens:
            tomorrow = (self._day + 1) * DAY_S - now_s
            raise _exhausted(f"{allowed.daily_tokens} tokens a day (UTC)", self._today, tokens, tomorrow)

    def _turn_day(self, now_s: float) -> None:
        today = int(now_s) // DAY_S
        if today != self._day:
            self._day, self._today = today, 0

    def _set_limits(self, key: Key) -> None:
        self._requests = self._kept(self._requests, key.allowed.requests_per_minute)
        self._looks = self._kept(self._looks, key.allowed.requests_per_minute)
        self._tokens = self._kept(self._tokens, key.allowed.tokens_per_minute)

    def _kept(self, bucket: Bucket | None, per_minute: int) -> Bucket | None:
        """The bucket that there is, if its limit is still the same."""
        if bucket is not None and bucket.per_minute == per_minute:
            return bucket
        return Bucket(per_minute, self._monotonic_s) if per_minute else None


def estimated_prompt(prompt_bytes: int, prompts: int) -> int:
    """Tokens of prompts that nobody has counted."""
    return prompt_bytes // BYTES_PER_TOKEN + prompts


def _limited(why: str, retry_after_s: float, *, kind: str = "requests") -> ApiError:
    message = f"rate limit: {why}; try again in {max(1, math.ceil(retry_after_s))} s"
    return ApiError(429, "rate_limit_exceeded", message, kind=kind, retry_after_s=retry_after_s)


def _exhausted(allowance: str, used: int, tokens: int, retry_after_s: float | None) -> ApiError:
    return ApiError(
        429,
        "insufficient_quota",
        f"this key may use {allowance}: {used} were used, and this request may take {tokens}",
        kind="insufficient_quota",
        retry_after_s=retry_after_s,
        hopeless=True,
    )
