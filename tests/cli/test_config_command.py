"""``targon config show`` shows what the role would run with."""

from __future__ import annotations

import json

import pytest

from targon.cli import main
from targon.cli.catalog import ROLES, options_of


def _shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(("config", "show", *arguments)) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("role", ROLES)
def test_every_option_is_shown_with_its_value_and_source(capsys, role):
    lines = _shown(capsys, role).splitlines()
    assert [line.split(" = ")[0] for line in lines] == list(options_of(ROLES[role]))
    assert all(line.endswith("  default") for line in lines)


def test_each_source_is_named(capsys, tmp_path, monkeypatch):
    file = tmp_path / "options.toml"
    file.write_text('[wallet]\nhotkey = "from-file"\n')
    monkeypatch.setenv("TARGON_PROVER__NETUID", "7")
    shown = _shown(capsys, "prover", "--config", str(file), "--wallet.name", "from-flag")
    lines = {line.split(" = ")[0]: " ".join(line.split()) for line in shown.splitlines()}
    assert lines["wallet.name"] == 'wallet.name = "from-flag" flag'
    assert lines["wallet.hotkey"] == f'wallet.hotkey = "from-file" file {file}'
    assert lines["netuid"] == "netuid = 7 environment TARGON_PROVER__NETUID"
    assert lines["axon.port"] == "axon.port = 8091 default"


def test_what_each_is_for_is_told_to_those_who_ask(capsys):
    brief, verbose = _shown(capsys, "verifier"), _shown(capsys, "verifier", "--verbose")
    assert "How many provers are challenged in a block." not in brief
    assert "How many provers are challenged in a block." in verbose


def test_programs_get_json(capsys):
    rows = {row["name"]: row for row in json.loads(_shown(capsys, "verifier", "--json", "--netuid", "9"))}
    assert rows["netuid"]["value"] == 9
    assert rows["netuid"]["source"] == "flag"
    assert rows["neuron.vpermit_tao_limit"]["default"] == 4096
    assert rows["engine.socket"]["value"] is None


@pytest.mark.parametrize("form", [(), ("--json",), ("--verbose",)])
def test_a_password_is_never_shown(capsys, monkeypatch, form):
    monkeypatch.setenv("TARGON_VERIFIER__DATABASE__PASSWORD", "hunter2")
    shown = _shown(capsys, "verifier", *form)
    assert "hunter2" not in shown
    assert '"********"' in shown


def test_what_keeps_the_role_from_starting_is_said_here_too(capsys):
    assert main(("config", "show", "verifier", "--neuron.sample_size", "many")) == 2
    here = capsys.readouterr().err
    assert main(("verifier", "--neuron.sample_size", "many")) == 2
    assert capsys.readouterr().err == here


def test_warnings_are_said_beside_what_is_shown(capsys):
    assert main(("config", "show", "verifier", "--database.password", "hunter2")) == 0
    out, err = capsys.readouterr()
    assert "targon: warning: --database.password" in err
    assert "hunter2" not in out + err


def test_a_role_that_is_none_is_named(capsys):
    assert main(("config", "show", "verifer")) == 2
    assert "got 'verifer', expected 'prover', 'verifier', 'gateway' or 'oracle'" in capsys.readouterr().err
