"""The script that makes a password for Redis."""

from __future__ import annotations

import math
import os
import re
import string
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from targon.ledger.redis import RedisAddress, RedisLog
from tests.ledger.redis_server import redis_server

SCRIPT = Path(__file__).parents[2] / "scripts" / "generate_redis_password.sh"
ALPHABET = string.ascii_letters + string.digits


def password(path: str | None = None) -> str:
    environment = {"PATH": os.environ["PATH"] if path is None else path}
    result = subprocess.run(
        ["/bin/sh", str(SCRIPT)], env=environment, capture_output=True, text=True, check=True
    )
    assert result.stderr == ""
    return result.stdout


def test_a_password_is_one_line_of_letters_and_digits_that_hold_256_bits() -> None:
    made = password()
    assert re.fullmatch(r"[A-Za-z0-9]{43}\n", made)
    assert 43 * math.log2(len(ALPHABET)) >= 256


def test_no_two_passwords_are_the_same_and_every_character_comes_up() -> None:
    made = [password() for _ in range(40)]
    assert len(set(made)) == 40
    assert set("".join(made)) == set(ALPHABET) | {"\n"}


def test_it_needs_nothing_but_what_every_system_has(tmp_path: Path) -> None:
    for name in ("head", "tr", "cut"):
        found = [Path(folder) / name for folder in os.environ["PATH"].split(":")]
        (tmp_path / name).symlink_to(next(file for file in found if file.exists()))
    assert len(password(str(tmp_path))) == 44


@pytest.mark.anyio
async def test_redis_takes_it_as_it_is(tmp_path: Path) -> None:
    with redis_server(tmp_path / "redis", password=password().strip()) as server:
        address = RedisAddress(host=server.address.host, port=server.address.port)
        async with RedisLog.open(replace(address, password=server.address.password)) as log:
            assert (await log.head()).seq == -1
