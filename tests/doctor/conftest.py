"""What the doctor's tests share with the ledger's: a real Redis."""

from __future__ import annotations

from tests.ledger.conftest import empty_redis, own_redis, shared_redis

__all__ = ["empty_redis", "own_redis", "shared_redis"]
