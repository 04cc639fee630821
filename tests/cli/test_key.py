"""``targon key``: made, listed and revoked, and shown once."""

from __future__ import annotations

import re

import pytest

from targon.cli import main
from targon.gateway.keys import KeyFile, looks_like_a_key


@pytest.fixture
def run(tmp_path, capsys):
    def command(*words: str) -> tuple[int, str, str]:
        code = main(("key", *words, "--data.path", str(tmp_path)))
        said = capsys.readouterr()
        return code, said.out, said.err

    return command


def test_a_key_is_printed_once_and_alone(run):
    code, out, err = run("create", "--name", "joe")
    assert code == 0
    assert looks_like_a_key(out.strip())
    assert "it is not shown again" in err
    _, listed, _ = run("list")
    assert "joe" in listed
    assert out.strip() not in listed + err


def test_its_limits_are_kept(run, tmp_path):
    run(
        *(
            "create",
            "--name",
            "joe",
            "--scope",
            "inference",
            "--models",
            "a, b",
            "--requests_per_minute",
            "5",
        ),
        *("--tokens_per_minute", "6", "--concurrent", "7", "--daily_tokens", "8", "--total_tokens", "9"),
        *("--expires_days", "0.5"),
    )
    file = KeyFile(tmp_path / "keys.sqlite")
    (key,) = file.keys().values()
    file.close()
    allowed = key.allowed
    assert (sorted(key.scopes), sorted(key.models)) == (["inference"], ["a", "b"])
    assert (allowed.requests_per_minute, allowed.tokens_per_minute, allowed.concurrent) == (5, 6, 7)
    assert (allowed.daily_tokens, allowed.total_tokens) == (8, 9)
    assert key.expires_at == key.created_at + 43_200


def test_a_key_is_revoked_by_its_id(run):
    run("create", "--name", "joe")
    _, listed, _ = run("list")
    (key_id,) = re.findall(r"key_[0-9a-f]+", listed)
    code, out, _ = run("revoke", key_id)
    assert (code, out) == (0, f"{key_id} (joe) is revoked\n")
    assert "revoked" in run("list")[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("create",), "--name is missing"),
        (("revoke", "nobody"), "no keys at"),
        (("list",), "'targon key create' makes the first"),
    ],
)
def test_what_can_t_be_done_is_said(run, words, said):
    code, _, err = run(*words)
    assert code == 1
    assert said in err


def test_no_key_of_that_name_is_said(run):
    run("create", "--name", "joe")
    code, _, err = run("revoke", "nobody")
    assert code == 1
    assert "expected the id or name of one key" in err


def test_a_file_that_is_no_key_file_is_named(run, tmp_path):
    (tmp_path / "keys.sqlite").write_bytes(b"x" * 5000)
    code, _, err = run("list")
    assert code == 1
    assert "keys.sqlite can't be used" in err
