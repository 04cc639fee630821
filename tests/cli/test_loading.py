"""Options from flags, environment, files and defaults, and what is said of those that are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from targon.cli.catalog import ROLES, options_of, value_of
from targon.cli.errors import WrongOptions
from targon.cli.loading import Loaded, load
from targon.cli.verifier_options import VerifierOptions

VARIABLE = "TARGON_VERIFIER__NEURON__SAMPLE_SIZE"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "verifier.toml"
    path.touch(0o600)
    return path


def sample_size(loaded: Loaded) -> tuple[object, str]:
    """Its value, and the source of it."""
    return next(
        (value, source) for option, value, source in loaded.rows() if option.name == "neuron.sample_size"
    )


def complaints(role, *arguments, environment=None) -> list[str]:
    with pytest.raises(WrongOptions) as caught:
        load(role, arguments, environment or {})
    return list(caught.value.sentences)


# -- which one wins ----------------------------------------------------------------------------------------


def test_a_flag_wins_over_the_environment_that_over_a_file_that_over_the_default(file):
    file.write_text("[neuron]\nsample_size = 1\n")
    flags, environment = ("--neuron.sample_size", "3"), {VARIABLE: "2"}
    config = ("--config", str(file))
    assert sample_size(load("verifier", (), {})) == (10, "default")
    assert sample_size(load("verifier", config, {})) == (1, f"file {file}")
    assert sample_size(load("verifier", config, environment)) == (2, f"environment {VARIABLE}")
    assert sample_size(load("verifier", (*config, *flags), environment)) == (3, "flag")


def test_sources_are_merged_option_by_option(file):
    file.write_text('[wallet]\nname = "from-file"\nhotkey = "from-file"\n')
    environment = {"TARGON_PROVER__CONFIG": str(file), "TARGON_PROVER__WALLET__HOTKEY": "from-environment"}
    wallet = load("prover", ("--wallet.path", "/from/flag"), environment).options.wallet
    assert (wallet.name, wallet.hotkey, wallet.path) == ("from-file", "from-environment", Path("/from/flag"))


def test_a_flag_that_says_no_wins_over_a_file_that_says_yes(file):
    file.write_text("[neuron]\ndisable_set_weights = true\n")
    loaded = load("verifier", ("--config", str(file), "--no-neuron.disable_set_weights"), {})
    assert value_of(loaded.options, "neuron.disable_set_weights") is False


ORACLE = {
    "oracle.url": "https://203.0.113.7:8093",
    "oracle.hotkey": "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty",
    "oracle.agreeing": "1",
    "oracle.pardon": "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty",
}
BESIDE = {
    "oracle.url": ("oracle.hotkey",),
    "oracle.hotkey": ("oracle.url",),
    "oracle.agreeing": ("oracle.url", "oracle.hotkey"),
}
"""Options that mean nothing without others."""


@pytest.mark.parametrize("role", ROLES)
def test_every_option_can_be_given_by_flag_environment_and_file(role, file):
    for name, option in options_of(ROLES[role]).items():
        if name == "config":
            continue
        text = {bool: "true", int: "61", float: "61"}.get(type(option.default), "given")
        text = {"neuron.moving_average_alpha": "0.5", "neuron.max_tokens": "129", **ORACLE}.get(name, text)
        text = next(iter(option.choices), text)
        flag = (f"--{name}",) if text == "true" else (f"--{name}", text)
        group, _, key = name.rpartition(".")
        written = text if text in ("true", "61", "0.5", "129", "1") else f'"{text}"'
        file.write_text(f"[{group}]\n{key} = {written}\n" if group else f"{key} = {written}\n")
        beside = [word for other in BESIDE.get(name, ()) for word in (f"--{other}", ORACLE[other])]
        by_flag = load(role, (*flag, *beside), {})
        by_environment = load(role, beside, {option.environment_name(role): text})
        by_file = load(role, ("--config", str(file), *beside), {})
        values = [value_of(loaded.options, name) for loaded in (by_flag, by_environment, by_file)]
        assert values[0] == values[1] == values[2], name
        assert [loaded.given[name].source for loaded in (by_flag, by_environment, by_file)] == [
            "flag",
            f"environment {option.environment_name(role)}",
            f"file {file}",
        ]


def test_the_alias_that_operators_know_stands_for_its_option(file):
    file.write_text("axon_off = true\n")
    for arguments, environment in (
        (("--axon_off",), {}),
        ((), {"TARGON_VERIFIER__AXON_OFF": "true"}),
        (("--config", str(file)), {}),
    ):
        loaded = load("verifier", arguments, environment)
        assert value_of(loaded.options, "neuron.axon_off") is True


# -- files -------------------------------------------------------------------------------------------------


def test_one_file_serves_both_roles(file):
    file.write_text('[prover]\nwallet = { name = "p" }\n[verifier.wallet]\nname = "v"\n')
    config = ("--config", str(file))
    assert load("prover", config, {}).options.wallet.name == "p"
    assert load("verifier", config, {}).options.wallet.name == "v"


def test_one_file_serves_a_verifier_and_its_gateway(file):
    file.write_text("[verifier.gateway]\noff = true\n[gateway.gateway]\nport = 9999\n")
    config = ("--config", str(file))
    assert load("verifier", config, {}).options.gateway.off is True
    assert load("gateway", config, {}).options.gateway.port == 9999


@pytest.mark.parametrize("role", ["verifier", "gateway"])
def test_a_table_of_the_gateway_s_options_is_no_role_s(file, role):
    file.write_text("[gateway]\nport = 9999\n")
    assert load(role, ("--config", str(file)), {}).options.gateway.port == 9999


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("netuid = 4\n[neuron]\n\nsample_size = 'many'\n", ", line 4: neuron.sample_size: got 'many', expected a"),
        ("[verifier.neuron]\nsample_size = 0\n", ", line 2: neuron.sample_size: got 0, expected greater than"),
        ("neuron.sample_size = 0\n", ", line 1: neuron.sample_size: got 0"),
        ("neuron = { sample_size = 0 }\n", ", line 1: neuron.sample_size: got 0"),
        (
            "[neuron]\nsamplesize = 3\n",
            ", line 2: neuron.samplesize: there is no such option; did you mean neuron.sample_size?",
        ),
        ("sample_size = 3\n", ", line 1: sample_size: there is no such option; did you mean neuron.sample_size?"),
        ("[walet]\nname = 'x'\n", ", line 2: walet.name: there is no such option; did you mean wallet.name?"),
        ("[blacklist]\n", ", line 1: blacklist: there is no such option"),
        ("neuron = 3\n", ", line 1: neuron: got a value, expected a table, [neuron]"),
        ("config = 'other.toml'\n", ", line 1: config: there is no such option"),
        ("[prover]\nnetuid = 4\n", ": got options of the prover only, expected a table [verifier]"),
        ("verifier = 3\n", ", line 1: verifier: got a value, expected a table"),
        (
            "netuid = 4\n[verifier]\n",
            ", line 1: netuid: got it beside a role's table, expected it in one: verifier.netuid",
        ),
        ("[neuron\n", ": expected TOML: Expected ']'"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_file_is_named_with_its_line(file, text, said):
    file.write_text(text)
    (sentence,) = complaints("verifier", "--config", str(file))
    assert sentence.startswith(f"{file}{said}")


def test_each_wrong_option_of_a_file_gets_a_sentence(file):
    file.write_text("[neuron]\nsample_size = 0\nmin_tokens = 1\n")
    assert len(complaints("verifier", "--config", str(file))) == 2


def test_a_file_that_is_not_there_is_named(tmp_path):
    (sentence,) = complaints("prover", "--config", str(tmp_path / "none.toml"))
    assert f"the file {tmp_path / 'none.toml'} cannot be read (No such file" in sentence


def test_a_file_of_bytes_is_no_toml(file):
    file.write_bytes(b"\xff\xfe")
    assert complaints("prover", "--config", str(file)) == [
        f"{file}: got bytes that are no UTF-8 at offset 0, expected TOML"
    ]


# -- flags and environment ---------------------------------------------------------------------------------


def test_an_unknown_variable_is_named_with_the_nearest(monkeypatch):
    assert complaints("prover", environment={"TARGON_PROVER__WALET__NAME": "x"}) == [
        "TARGON_PROVER__WALET__NAME: there is no such option; did you mean TARGON_PROVER__WALLET__NAME?"
    ]


def test_variables_of_the_other_role_and_of_other_programs_are_left_alone():
    environment = {"TARGON_VERIFIER__NO__SUCH": "x", "TARGON_ENGINE_API_KEY": "x", "PATH": "/bin"}
    assert load("prover", (), environment).given == {}


def test_a_wrong_value_is_blamed_on_the_source_that_won(file):
    file.write_text("[neuron]\nsample_size = 'wrong'\n")
    config = ("--config", str(file))
    assert complaints("verifier", *config, environment={VARIABLE: "worse"})[0].startswith(
        f"{VARIABLE}: got 'worse'"
    )
    assert sample_size(load("verifier", (*config, "--neuron.sample_size", "3"), {VARIABLE: "worse"})) == (
        3,
        "flag",
    )


def test_what_follows_an_unknown_flag_is_not_repeated():
    (sentence,) = complaints("verifier", "--database.pasword=hunter2")
    assert sentence == "unrecognized arguments: --database.pasword; did you mean --database.password?"
    assert "hunter2" not in " ".join(complaints("verifier", "--database.pasword", "hunter2"))


def test_a_challenge_cannot_be_shorter_than_the_shortest():
    (sentence,) = complaints("verifier", "--neuron.min_tokens", "64", "--neuron.max_tokens", "40")
    assert sentence == "--neuron.max_tokens: got '40', expected at least --neuron.min_tokens, 64"


# -- secrets -----------------------------------------------------------------------------------------------


def test_a_password_in_a_file_that_others_can_read_is_warned_of(file):
    file.write_text("[database]\npassword = 'hunter2'\n")
    config = ("--config", str(file))
    assert load("verifier", config, {}).warnings == ()
    file.chmod(0o644)
    (warning,) = load("verifier", config, {}).warnings
    assert f"chmod 600 {file}" in warning
    assert "hunter2" not in warning


def test_a_file_without_a_password_may_be_read_by_anyone(file):
    file.write_text("[database]\nhost = '127.0.0.1'\n")
    file.chmod(0o644)
    assert load("verifier", ("--config", str(file)), {}).warnings == ()


def test_a_password_on_the_command_line_works_and_is_warned_of():
    loaded = load("verifier", ("--database.password", "hunter2"), {})
    assert isinstance(loaded.options, VerifierOptions)
    assert loaded.options.database.password.get_secret_value() == "hunter2"
    (warning,) = loaded.warnings
    assert "everybody on this machine" in warning
    assert "hunter2" not in warning + repr(loaded.options)


def test_a_password_in_the_environment_is_as_it_should_be():
    loaded = load("verifier", (), {"TARGON_VERIFIER__DATABASE__PASSWORD": "hunter2"})
    assert loaded.warnings == ()
    assert "hunter2" not in repr(loaded.options)


def test_a_password_of_the_wrong_type_is_not_repeated(file):
    file.write_text("[database]\npassword = 271828\n")
    (sentence,) = complaints("verifier", "--config", str(file))
    assert "got a value that is not shown" in sentence
    assert "271828" not in sentence


# -- what is meant by having been given ---------------------------------------------------------------------


def test_the_database_is_given_by_any_of_its_options_from_any_source(file):
    def given(arguments=(), environment=None) -> bool:
        options = load("verifier", arguments, environment or {}).options
        assert isinstance(options, VerifierOptions)
        return options.database.given

    assert not given()
    assert given(("--database.host", "127.0.0.1"))
    assert given((), {"TARGON_VERIFIER__DATABASE__INDEX": "1"})
    file.write_text("[database]\ntls = false\n")
    assert given(("--config", str(file)))


@pytest.mark.parametrize("role", ["prover", "verifier"])
def test_a_tgi_is_used_only_where_its_address_is_given(role):
    default = load(role, (), {}).options
    address = str(value_of(default, "neuron.tgi_endpoint"))
    given = load(role, ("--neuron.tgi_endpoint", address), {}).options
    assert value_of(default, "neuron.given_tgi_endpoint") == ""
    assert value_of(given, "neuron.given_tgi_endpoint") == address
