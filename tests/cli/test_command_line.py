"""What a person at the keyboard meets: help, and sentences about what was wrong."""

from __future__ import annotations

import subprocess
import sys

import pytest

from targon import __version__
from targon.cli import main


def _run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    try:
        code = main(arguments)
    except SystemExit as leave:
        code = int(leave.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def test_the_version_is_printed(capsys):
    assert _run(capsys, "--version") == (0, f"targon {__version__}\n", "")


@pytest.mark.parametrize(
    "command",
    [
        (),
        ("localnet",),
        ("prover",),
        ("verifier",),
        ("engine",),
        ("config",),
        ("config", "show"),
        ("status",),
        ("why",),
        ("log",),
        ("log", "migrate"),
        ("standing",),
        ("doctor",),
        ("doctor", "prover"),
        ("doctor", "verifier"),
        ("doctor", "reach"),
        ("wallet",),
        ("wallet", "create"),
        ("chain",),
        ("chain", "create"),
        ("chain", "register"),
        ("chain", "show"),
        ("vectors",),
    ],
)
def test_every_command_has_help(capsys, command):
    code, out, _ = _run(capsys, *command, "--help")
    assert code == 0
    assert out.startswith("usage: targon")


@pytest.mark.parametrize(
    ("flags", "role"),
    [
        (("--blacklist.force_verifier_permit", "--blacklist.allow_non_registered"), "prover"),
        (
            (
                "--neuron.sample_size",
                "--neuron.disable_set_weights",
                "--neuron.moving_average_alpha",
                "--neuron.vpermit_tao_limit",
            ),
            "verifier",
        ),
    ],
)
def test_operators_find_the_flags_that_they_know(capsys, flags, role):
    _, out, _ = _run(capsys, role, "--help")
    assert all(flag in out for flag in flags)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("prover", "--axon.port", "70000"),
            "--axon.port: got '70000', expected less than or equal to 65535",
        ),
        (("prover", "--axon.tls", "maybe"), "--axon.tls: got 'maybe'"),
        (("verifier", "--neuron.tls", "maybe"), "--neuron.tls: got 'maybe'"),
        (("verifier", "--neuron.sample_size", "many"), "--neuron.sample_size: got 'many'"),
        (("prover", "--axon.prot", "8091"), "unrecognized arguments: --axon.prot; did you mean --axon.port?"),
        (("prover", "--netuid"), "argument --netuid: expected one argument"),
        (("status", "--path"), "argument --path: expected one argument"),
        (("why", "1", "--last", "none"), "--last: got 'none', expected a valid integer"),
    ],
)
def test_a_wrong_option_is_named_with_what_was_got(capsys, arguments, said):
    code, _, err = _run(capsys, *arguments)
    assert code == 2
    assert said in err


def test_a_missing_wallet_is_named_with_the_command_that_makes_it(capsys, tmp_path):
    code, _, err = _run(capsys, "prover", "--wallet.name", "nobody", "--wallet.path", str(tmp_path))
    assert code == 1
    assert "no wallet 'nobody'" in err
    assert "targon wallet create --wallet.name nobody" in err


def test_a_wallet_is_made_once_and_never_overwritten(capsys, tmp_path):
    flags = ("--wallet.name", "me", "--wallet.path", str(tmp_path))
    code, made, _ = _run(capsys, "wallet", "create", *flags)
    assert code == 0
    assert _run(capsys, "wallet", "show", *flags)[1] == made
    assert (tmp_path / "me" / "hotkeys" / "default").stat().st_mode & 0o077 == 0
    code, _, err = _run(capsys, "wallet", "create", *flags)
    assert code == 1
    assert "exists already" in err
    assert _run(capsys, "wallet", "show", *flags)[1] == made


def test_a_log_that_is_not_there_is_named_with_what_to_give(capsys, tmp_path):
    code, _, err = _run(capsys, "status", "--path", str(tmp_path))
    assert code == 1
    assert f"no log at {tmp_path}" in err


def test_a_chain_is_made_registered_on_and_shown(capsys, tmp_path):
    flags = ("--wallet.name", "me", "--wallet.path", str(tmp_path / "wallets"))
    chain = str(tmp_path / "chain.sqlite")
    _, hotkey, _ = _run(capsys, "wallet", "create", *flags)
    assert _run(capsys, "chain", "create", chain)[1] == f"sqlite://{chain}\n"
    code, out, _ = _run(capsys, "chain", "register", chain, "--stake", "100", *flags)
    assert (code, out) == (0, f"{hotkey.strip()} holds UID 0\n")
    code, out, _ = _run(capsys, "chain", "show", chain)
    assert code == 0
    assert "100" in out


@pytest.mark.parametrize("role", ["prover", "verifier"])
def test_a_role_whose_chain_cannot_be_reached_says_which_it_wanted(capsys, tmp_path, role):
    flags = ("--wallet.name", "me", "--wallet.path", str(tmp_path))
    _run(capsys, "wallet", "create", *flags)
    endpoint = "http://chain.invalid"
    code, _, err = _run(capsys, role, *flags, "--subtensor.chain_endpoint", endpoint)
    assert code == 1
    assert f"chain endpoint: got '{endpoint}', expected" in err


def test_only_the_command_that_is_asked_for_is_imported(tmp_path):
    script = (
        "import sys; from targon.cli import main\n"
        "try: main(['verifier', '--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'aiohttp', 'bittensor', 'numpy', 'torch', 'targon.redteam'} & sys.modules.keys()))"
    )
    made = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert made.stdout.splitlines()[-1] == "[]"
