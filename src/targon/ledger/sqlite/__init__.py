"""The log in one SQLite file: the embedded adapter."""

from targon.ledger.sqlite.log import SqliteLog

__all__ = ["SqliteLog"]
