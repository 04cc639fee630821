"""The log in a Redis database: for verifiers whose log other processes follow."""

from targon.ledger.redis.address import RedisAddress
from targon.ledger.redis.facts import RedisFacts, look_at
from targon.ledger.redis.follow import follow
from targon.ledger.redis.log import RedisLog

__all__ = ["RedisAddress", "RedisFacts", "RedisLog", "follow", "look_at"]
