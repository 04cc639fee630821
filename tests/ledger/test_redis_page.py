"""The block of redis.conf that the page on Redis shows is one that a server starts with, as it stands."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import redis

from tests.ledger.redis_server import START_S, RedisServer, executable

PAGE = Path(__file__).resolve().parents[2] / "docs" / "redis.md"


def block() -> str:
    """The page's block of redis.conf."""
    blocks = re.findall(r"^```\w*\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    [found] = [text for text in blocks if "requirepass" in text]
    return str(found)


class DocumentedServer(RedisServer):
    """A server with the page's block, and of its own a port, a folder and a file for what it says."""

    def configure(self, *lines: str) -> None:
        assert self.address.password
        documented = block().replace("PASSWORD", self.address.password)
        places = f"port {self.address.port}\ndir {self.folder}\nlogfile {self.folder / 'redis.log'}\n"
        self._configuration.write_text(places + documented, "utf-8")


def test_redis_starts_with_the_block_and_keeps_to_it(tmp_path: Path) -> None:
    server = DocumentedServer(tmp_path / "redis")
    try:
        server.start()
        assert server.command("PING") is True
        promised = {
            "appendonly": b"yes",
            "appendfsync": b"everysec",
            "maxmemory-policy": b"noeviction",
            "bind": b"127.0.0.1",
        }
        assert {name: server.command("CONFIG", "GET", name)[1] for name in promised} == promised
        stranger = redis.Redis(host=server.address.host, port=server.address.port, protocol=2)
        with stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
    finally:
        server.stop()


def test_redis_refuses_a_comment_behind_a_setting_as_the_page_says(tmp_path: Path) -> None:
    file = tmp_path / "redis.conf"
    file.write_text(block().replace("appendonly yes", "appendonly yes  # it lasts"), "utf-8")
    command = [executable(), str(file)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=START_S, check=False)
    assert result.returncode != 0
    assert "appendonly" in result.stdout + result.stderr
