"""What the command line's tests share with the ledger's: a real Redis."""

from __future__ import annotations

from tests.ledger.conftest import empty_redis, shared_redis

__all__ = ["empty_redis", "shared_redis"]
