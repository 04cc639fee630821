"""The oracles of a verifier, as its options name them."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path

import anyio
import pytest
from prometheus_client import CollectorRegistry

from targon.cli import main
from targon.cli.commands import verifier as verifier_command
from targon.cli.errors import CommandError, WrongOptions
from targon.cli.loading import load
from targon.cli.verifier_oracle_options import MAX_ORACLES, OracleAddress, VerifierOracleOptions
from targon.ledger import SqliteLog, relying
from targon.ledger.port import EMPTY
from tests.ledger.history import ALICE, History
from tests.ledger.test_relying import HOTKEY, committed, faulted, relies_on

ONE = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
TWO = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"


def oracle_options(*flags: str) -> VerifierOracleOptions:
    found = load("verifier", flags, {}).options.oracle
    assert isinstance(found, VerifierOracleOptions)
    return found


def test_without_any_there_is_none():
    assert oracle_options().named == []


def test_each_address_goes_with_the_hotkey_at_its_place():
    options = oracle_options(
        "--oracle.url", "https://oracle.example:8094, http://[::1]", "--oracle.hotkey", f"{ONE},{TWO}"
    )
    assert options.named == [
        (ONE, OracleAddress("oracle.example", 8094, tls=True)),
        (TWO, OracleAddress("::1", 80, tls=False)),
    ]


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (("--oracle.url", "oracle.example:8094"), "expected https://HOST:PORT"),
        (
            ("--oracle.url", "https://oracle.example/path", "--oracle.hotkey", ONE),
            "expected https://HOST:PORT",
        ),
        (("--oracle.url", "https://h:99999", "--oracle.hotkey", ONE), "expected https://HOST:PORT"),
        (("--oracle.url", "https://oracle.example"), "expected 1 of them, one for each address"),
        (("--oracle.hotkey", ONE), "expected 0 of them, one for each address"),
        (("--oracle.url", "https://oracle.example", "--oracle.hotkey", "Alice"), "expected an ss58 address"),
        (("--oracle.url", "https://a,https://b", "--oracle.hotkey", f"{ONE},{ONE}"), "each hotkey once"),
        (("--oracle.url", "https://a,http://a:443", "--oracle.hotkey", f"{ONE},{TWO}"), "each address once"),
        (("--oracle.url", "https://örakel.example", "--oracle.hotkey", ONE), "ASCII letters"),
        (("--oracle.pardon", "Alice"), "--oracle.pardon: "),
    ],
)
def test_what_is_wrong_is_said_with_what_was_expected(flags: tuple[str, ...], problem: str):
    with pytest.raises(WrongOptions) as caught:
        load("verifier", flags, {})
    assert problem in str(caught.value)


def test_as_many_can_be_given_as_a_log_can_name():
    assert MAX_ORACLES == relying.MAX_ORACLES


def _shown(path: Path, history: History, capsys: pytest.CaptureFixture[str]) -> str:
    async def write() -> None:
        async with aclosing(await SqliteLog.open(path)) as log:
            await log.append(history.events, expected=EMPTY)

    anyio.run(write)
    assert main(("status", "--path", str(path))) == 0
    return capsys.readouterr().out


def test_status_says_where_private_inputs_come_from_and_who_was_caught(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    history = History.begun(ALICE).add(committed(), relies_on(HOTKEY), faulted())
    shown = _shown(tmp_path / "log.sqlite", history, capsys)
    assert f"Private inputs: from {HOTKEY}, since block 6" in shown
    assert f"Oracle {HOTKEY} was caught in block 7: misdealt" in shown


def test_status_says_nothing_of_oracles_where_there_was_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert "rivate inputs" not in _shown(tmp_path / "log.sqlite", History.begun(ALICE), capsys)


def test_more_than_half_of_the_oracles_have_to_agree_unless_it_is_said_how_many():
    three = ("--oracle.url", "http://a:1,http://b:1,http://c:1", "--oracle.hotkey", f"{ONE},{TWO},{HOTKEY}")
    assert oracle_options(*three[:1], "http://a:1", *three[2:3], ONE).needed == 1
    assert oracle_options(*three).needed == 2
    assert oracle_options(*three, "--oracle.agreeing", "3").needed == 3
    with pytest.raises(WrongOptions, match="at most 3"):
        oracle_options(*three, "--oracle.agreeing", "4")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ((), "got no --oracle.url"),
        (("--engine.model", "default"), "got an engine as well"),
    ],
)
async def test_a_light_verifier_has_oracles_and_no_engine(flags: tuple[str, ...], problem: str):
    options = load("verifier", ("--neuron.light", *flags), {}).options
    with pytest.raises(CommandError, match=problem):
        async with verifier_command.opened_reference(options, None, None, CollectorRegistry()):  # type: ignore[arg-type]
            pass
