"""The keys of a running gateway: looked up in memory, and kept up with their file.

What the command ``targon key`` changes holds here within :data:`LOOK_S`. What is used is written in batches: a gateway
that is killed forgets at most so much of it.
"""

from __future__ import annotations

import time

import anyio
import anyio.to_thread
import structlog

from targon.gateway.accounts import Account
from targon.gateway.errors import KeyFileBroken
from targon.gateway.keys import DAY_S, Key, KeyFile, Scope, Usage, digest_of, looks_like_a_key
from targon.gateway.refusals import ApiError
from targon.transport import Clock

LOOK_S = 1.0
"""Seconds between two looks at the file."""

logger = structlog.get_logger(__name__)


class KeyRing:
    """Who may use a gateway, and how much."""

    def __init__(
        self,
        file: KeyFile | None,
        *,
        open_to_all: bool = False,
        clock: Clock | None = None,
        look_s: float = LOOK_S,
    ) -> None:
        """Read the keys.

        Args:
            file: None: there are no keys.
            open_to_all: serve requests without a key, too, and without limits.

        Raises:
            KeyFileBroken: if they can't be read.
        """
        self._file = file
        self._clock = clock or Clock(now_ns=time.time_ns)
        self._look_s = look_s
        self._everybody = self._account(None) if open_to_all else None
        self._accounts: dict[bytes, Account] = {}
        self._unwritten: dict[tuple[str, int], Usage] = {}
        self._version = -1
        self._broken = False
        if file is not None:
            self._take_over(*_read(file, self._today()))

    def now_s(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        return self._clock.now_ns() / 1e9

    def account(self, authorization: str | None) -> Account:
        """Whose a request is.

        Args:
            authorization: the header of that name.

        Raises:
            ApiError: 401, saying what is wrong with the key.
        """
        word = (authorization or "").strip()
        scheme, _, secret = word.partition(" ")
        secret = secret.strip() if scheme.lower() == "bearer" else ""
        account = self._accounts.get(digest_of(secret)) if looks_like_a_key(secret) else None
        if account is None or account.key is None:
            if self._everybody is not None:
                return self._everybody
            raise self._stranger(word, secret)
        key = account.key
        if key.revoked_at is not None:
            raise _unauthorized("revoked_api_key", "this API key was revoked; ask for another")
        if key.expires_at is not None and self.now_s() >= key.expires_at:
            raise _unauthorized("expired_api_key", "this API key has expired; ask for another")
        return account

    def count(self, account: Account, usage: Usage) -> None:
        """Remember what was used; it is written with the next batch."""
        if account.key is not None and self._file is not None:
            place = (account.key.id, self._today())
            self._unwritten[place] = self._unwritten.get(place, Usage()) + usage

    async def run(self) -> None:
        """Keep up with the file until cancelled."""
        while True:
            await anyio.sleep(self._look_s)
            with anyio.CancelScope(shield=True):
                await self.keep_up()

    async def keep_up(self) -> None:
        """Write what was used, and read what was changed. Keys stay as they are while the file can't be used."""
        file = self._file
        if file is None:
            return
        batch, self._unwritten = self._unwritten, {}
        today = self._today()
        try:
            if batch:
                await anyio.to_thread.run_sync(file.add, batch)
                batch = {}
            version = await anyio.to_thread.run_sync(file.version)
            if version != self._version:
                found = await anyio.to_thread.run_sync(_read, file, today)
                self._take_over(*found)
        except KeyFileBroken as error:
            if not self._broken:
                logger.error("key_file_broken", reason=str(error))
            self._broken = True
        else:
            self._broken = False
        for place, usage in batch.items():
            self._unwritten[place] = self._unwritten.get(place, Usage()) + usage

    async def aclose(self) -> None:
        """Write what is still to be written, and close the file."""
        if self._file is not None:
            await self.keep_up()
            await anyio.to_thread.run_sync(self._file.close)

    def _take_over(self, version: int, keys: dict[bytes, Key], used: dict[str, tuple[Usage, Usage]]) -> None:
        self._version = version
        today = self._today()
        accounts = {}
        for digest, key in keys.items():
            usage = used.get(key.id, (Usage(), Usage()))
            since = self._unwritten.get((key.id, today), Usage())
            usage = (usage[0] + since, usage[1] + since)
            account = self._accounts.get(digest)
            if account is None:
                account = self._account(key, usage)
            else:
                account.renew(key, today=today, used=usage)
            accounts[digest] = account
        self._accounts = accounts

    def _account(self, key: Key | None, used: tuple[Usage, Usage] = (Usage(), Usage())) -> Account:
        return Account(key, monotonic_s=self._clock.monotonic_s, today=self._today(), used=used)

    def _today(self) -> int:
        return int(self.now_s()) // DAY_S

    def _stranger(self, word: str, secret: str) -> ApiError:
        if not word:
            return _unauthorized(
                "missing_api_key", "no API key came; send it as the header 'Authorization: Bearer tg-...'"
            )
        if not secret:
            return _unauthorized(
                "invalid_api_key", "the header Authorization has another form; expected 'Bearer tg-...'"
            )
        if not looks_like_a_key(secret):
            return _unauthorized(
                "invalid_api_key", "this is no API key of this gateway; expected 'tg-' and 43 characters"
            )
        return _unauthorized("invalid_api_key", "this API key is not known here; is it another gateway's?")


def require(account: Account, scope: Scope, model: str | None = None) -> None:
    """Whether a key reaches so far.

    Raises:
        ApiError: 403.
    """
    key = account.key
    if key is None:
        return
    if scope not in key.scopes:
        raise _forbidden(
            f"this API key is not for {scope}; it is for {', '.join(sorted(key.scopes)) or 'nothing'}"
        )
    if model is not None and key.models and model not in key.models:
        raise _forbidden(f"this API key is not for the model {model!a}", "model")


def _read(file: KeyFile, today: int) -> tuple[int, dict[bytes, Key], dict[str, tuple[Usage, Usage]]]:
    # The version first: what is written meanwhile is then read again, never missed.
    version = file.version()
    return version, file.keys(), file.used(today)


def _unauthorized(code: str, message: str) -> ApiError:
    return ApiError(401, code, message)


def _forbidden(message: str, param: str | None = None) -> ApiError:
    return ApiError(403, "permission_denied", message, kind="permission_error", param=param)
