"""The page about configuration, the help, the examples and the defaults say one thing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from targon.cli import main, reference
from targon.cli.catalog import ROLES, options_of
from targon.cli.loading import load

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = DOCS / "configuration.md"

KNOWN = {
    "prover": {
        "--netuid": "`4`",
        "--wallet.name": "`default`",
        "--wallet.hotkey": "`default`",
        "--wallet.path": "`~/.bittensor/wallets`",
        "--subtensor.network": "`finney`",
        "--subtensor.chain_endpoint": "none",
        "--logging.debug": "`false`",
        "--logging.trace": "`false`",
        "--neuron.name": "`prover`",
        "--neuron.tgi_endpoint": "`http://127.0.0.1:8080`",
        "--blacklist.force_verifier_permit": "`false`",
        "--blacklist.allow_non_registered": "`false`",
        "--axon.port": "`8091`",
        "--axon.tls": "`auto`",
        "--metrics.port": "`0`",
        "--autoupdate.enabled": "`false`",
        "--autoupdate.remote": "`origin`",
        "--autoupdate.channel": "`stable`",
        "--autoupdate.interval": "`3600`",
    },
    "verifier": {
        "--netuid": "`4`",
        "--wallet.name": "`default`",
        "--wallet.hotkey": "`default`",
        "--subtensor.network": "`finney`",
        "--subtensor.chain_endpoint": "none",
        "--neuron.sample_size": "`10`",
        "--neuron.disable_set_weights": "`false`",
        "--neuron.moving_average_alpha": "`0.05`",
        "--neuron.axon_off": "`false`",
        "--neuron.vpermit_tao_limit": "`4096`",
        "--neuron.tgi_endpoint": "`http://127.0.0.1:8080`",
        "--neuron.compute_stats_interval": "`360`",
        "--neuron.tls": "`auto`",
        "--axon.port": "`8092`",
        "--metrics.port": "`0`",
        "--database.host": "`127.0.0.1`",
        "--database.port": "`6379`",
        "--database.index": "`1`",
        "--database.password": "none",
        "--database.tls": "`false`",
        "--database.ca_file": "none",
        "--logging.debug": "`false`",
        "--logging.trace": "`false`",
        "--autoupdate.enabled": "`false`",
        "--autoupdate.remote": "`origin`",
        "--autoupdate.channel": "`stable`",
        "--autoupdate.interval": "`3600`",
        "--gateway.off": "`false`",
        "--gateway.ip": "`127.0.0.1`",
        "--gateway.port": "`8888`",
        "--gateway.socket": "none",
    },
    "gateway": {
        "--gateway.ip": "`127.0.0.1`",
        "--gateway.port": "`8888`",
        "--gateway.tls_cert": "none",
        "--gateway.open": "`false`",
        "--gateway.drain": "`20`",
        "--gateway.socket": "`~/.targon/verifier/gateway.sock`",
        "--data.path": "`~/.targon/gateway`",
        "--metrics.port": "`0`",
    },
    "oracle": {
        "--netuid": "`4`",
        "--wallet.name": "`default`",
        "--subtensor.network": "`finney`",
        "--axon.ip": "`127.0.0.1`",
        "--axon.port": "`8093`",
        "--axon.tls": "`auto`",
        "--data.path": "`~/.targon/oracle`",
        "--oracle.source": "`embedded`",
        "--oracle.places": "`16`",
        "--oracle.period": "`36`",
        "--oracle.keep": "`50400`",
        "--metrics.port": "`0`",
    },
}
"""What operators rely on, as it stands on the page."""


def rows(role: str) -> dict[str, list[str]]:
    """The page's table of a role: the cells after each option's flag."""
    (table,) = re.findall(
        rf"<!-- options of targon {role} -->\n(.*?)<!-- end -->", PAGE.read_text(), re.DOTALL
    )
    cells = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table.splitlines()[2:]]
    return {re.match(r"`([^`]+)`", row[0])[1]: row for row in cells}  # type: ignore[index]


def test_the_page_is_what_the_options_are():
    assert reference.main(["--check", str(PAGE)]) == 0


def test_a_page_that_is_old_is_found_and_written_again(tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text(PAGE.read_text().replace("`TARGON_PROVER__NETUID`", "`NETUID`"))
    assert reference.main(["--check", str(page)]) == 1
    assert "--write" in capsys.readouterr().err
    assert reference.main(["--write", str(page)]) == 0
    assert page.read_text() == PAGE.read_text()


@pytest.mark.parametrize("role", ROLES)
def test_the_page_has_every_option_with_its_variable(role):
    assert {name: row[2] for name, row in rows(role).items()} == {
        option.flag: f"`{option.environment_name(role)}`" for option in options_of(ROLES[role]).values()
    }


@pytest.mark.parametrize("role", ROLES)
def test_the_defaults_that_operators_rely_on_are_these(role):
    assert {name: row[1] for name, row in rows(role).items() if name in KNOWN[role]} == KNOWN[role]


@pytest.mark.parametrize("role", ROLES)
def test_the_help_shows_every_option(role, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as leave:
        main([role, "--help"])
    assert leave.value.code == 0
    shown = re.findall(r"^  (--[\w.]+)", capsys.readouterr().out, flags=re.MULTILINE)
    assert sorted(shown) == sorted(rows(role))


def test_the_help_shows_the_alias_that_operators_know(capsys):
    with pytest.raises(SystemExit):
        main(["verifier", "--help"])
    assert " --axon_off" in capsys.readouterr().out


@pytest.mark.parametrize("role", ROLES)
def test_every_option_says_what_it_is_for(role):
    assert [name for name, option in options_of(ROLES[role]).items() if len(option.meaning) < 10] == []


@pytest.mark.parametrize("role", ROLES)
def test_the_example_file_is_one_that_the_role_takes(role):
    loaded = load(role, ("--config", str(DOCS / "examples" / f"{role}.toml")), {})
    assert loaded.warnings == ()
    assert role == "gateway" or loaded.options.wallet.name == role
    assert len(loaded.given) > 8


def test_the_page_shows_how_one_file_serves_both(tmp_path):
    (block,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    path = tmp_path / "both.toml"
    path.write_text(block)
    for role in ("prover", "verifier"):
        assert load(role, ("--config", str(path)), {}).options.wallet.name == role
