"""``targon``: finds the command, runs it, and turns what went wrong into a sentence."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

from pydantic import ValidationError
from pydantic_settings import (
    BaseSettings,
    CliApp,
    CliSubCommand,
    SettingsConfigDict,
    SettingsError,
    get_subcommand,
)

from targon import __version__
from targon.chain import ChainError
from targon.cli.commands.calibrate import CalibrateCommand
from targon.cli.commands.chain import ChainCommand
from targon.cli.commands.engine import EngineCommand
from targon.cli.commands.localnet import LocalnetCommand
from targon.cli.commands.log import StatusCommand, WhyCommand
from targon.cli.commands.prover import ProverCommand
from targon.cli.commands.redteam import RedteamCommand
from targon.cli.commands.vectors import VectorsCommand
from targon.cli.commands.verifier import VerifierCommand
from targon.cli.commands.verify import VerifyCommand
from targon.cli.commands.wallet import WalletCommand
from targon.cli.errors import CommandError
from targon.engines import EngineError
from targon.ledger import LedgerError
from targon.localnet import FolderInUse, LocalnetFailed, ProcessDied
from targon.oracle import OracleError
from targon.protocol.errors import ProtocolError
from targon.prover import ProverError
from targon.transport import PortInUse
from targon.verification import CalibrationError
from targon.verifier import LogOfAnother

EXPECTED = (
    CalibrationError,
    ChainError,
    CommandError,
    EngineError,
    FolderInUse,
    LedgerError,
    LocalnetFailed,
    LogOfAnother,
    OracleError,
    PortInUse,
    ProcessDied,
    ProtocolError,
    ProverError,
)
"""Errors whose text is meant for the person at the keyboard. Anything else is a bug and shows its traceback."""


@runtime_checkable
class Command(Protocol):
    """What every command is: options that can be run."""

    def run(self) -> int:
        """Do it; returns the exit code."""
        ...


class Targon(BaseSettings):
    """TARGON: a redundant, deterministic verification network for LLM inference."""

    model_config = SettingsConfigDict(
        cli_prog_name="targon",
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
        env_prefix="TARGON_",
        env_nested_delimiter="__",
        use_attribute_docstrings=True,
        nested_model_default_partial_update=True,
    )

    localnet: CliSubCommand[LocalnetCommand]
    prover: CliSubCommand[ProverCommand]
    verifier: CliSubCommand[VerifierCommand]
    engine: CliSubCommand[EngineCommand]
    status: CliSubCommand[StatusCommand]
    why: CliSubCommand[WhyCommand]
    verify: CliSubCommand[VerifyCommand]
    wallet: CliSubCommand[WalletCommand]
    chain: CliSubCommand[ChainCommand]
    calibrate: CliSubCommand[CalibrateCommand]
    redteam: CliSubCommand[RedteamCommand]
    vectors: CliSubCommand[VectorsCommand]
    version: bool = False
    """Print the version and exit."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code: 0 done, 1 it failed, 2 it was asked for wrongly."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        options = CliApp.run(Targon, cli_args=given)
    except ValidationError as error:
        return _complain(*_wrong_options(error), code=2)
    except SettingsError as error:
        return _complain(str(error), code=2)
    if options.version:
        sys.stdout.write(f"targon {__version__}\n")
        return 0
    command = get_subcommand(options, is_required=False)
    if command is None:
        return main(["--help"])
    assert isinstance(command, Command)
    try:
        return command.run()
    except KeyboardInterrupt:
        return 130
    except EXPECTED as error:
        return _complain(str(error), code=1)
    except BaseExceptionGroup as group:
        known, unknown = group.split(EXPECTED)
        if known is None or unknown is not None:
            raise
        return _complain(*dict.fromkeys(str(error) for error in _leaves(known)), code=1)


def _complain(*sentences: str, code: int) -> int:
    for sentence in sentences:
        sys.stderr.write(f"targon: {sentence}\n")
    return code


def _wrong_options(error: ValidationError) -> list[str]:
    """A sentence per option that is wrong."""
    sentences = []
    for problem in error.errors(include_url=False, include_context=False):
        # The first step names the command, not the option.
        name = ".".join(str(step) for step in problem["loc"][1:]) or str(problem["loc"][0])
        if problem["type"] == "missing":
            sentences.append(f"{name} is missing; see --help")
        else:
            sentences.append(f"--{name}: got {problem['input']!r}: {problem['msg']}")
    return sentences


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
