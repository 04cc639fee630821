"""When a connection is encrypted."""

from __future__ import annotations

import pytest

from targon.cli.options import uses_tls


@pytest.mark.parametrize(
    ("mode", "address", "encrypted"),
    [
        ("auto", "127.0.0.1", False),
        ("auto", "127.0.0.2", False),
        ("auto", "::1", False),
        ("auto", "203.0.113.7", True),
        ("auto", "prover.example", True),
        ("on", "127.0.0.1", True),
        ("off", "203.0.113.7", False),
    ],
)
def test_what_leaves_the_machine_is_encrypted_unless_somebody_says_otherwise(mode, address, encrypted):
    assert uses_tls(mode, address) is encrypted
