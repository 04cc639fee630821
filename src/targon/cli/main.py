"""``targon``: finds the command, runs it, and turns what went wrong into a sentence.

Only the command that is asked for is imported: a role has started before all of them would be.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from typing import Any, Protocol, runtime_checkable

from pydantic import ValidationError, create_model
from pydantic_settings import (
    BaseSettings,
    CliApp,
    CliSubCommand,
    SettingsConfigDict,
    SettingsError,
    get_subcommand,
)

from targon import __version__
from targon.cli.catalog import ROLES, RoleName
from targon.cli.errors import WrongOptions
from targon.cli.loading import expectation, load

COMMANDS = {
    "localnet": "localnet:LocalnetCommand",
    "prover": "",
    "verifier": "",
    "gateway": "",
    "oracle": "",
    "key": "key:KeyCommand",
    "config": "config:ConfigCommand",
    "doctor": "doctor:DoctorCommand",
    "engine": "engine:EngineCommand",
    "status": "log:StatusCommand",
    "why": "log:WhyCommand",
    "log": "migrate:LogCommand",
    "standing": "standing:StandingCommand",
    "audit": "audit:AuditCommand",
    "verify": "verify:VerifyCommand",
    "wallet": "wallet:WalletCommand",
    "chain": "chain:ChainCommand",
    "calibrate": "calibrate:CalibrateCommand",
    "redteam": "redteam:RedteamCommand",
    "vectors": "vectors:VectorsCommand",
}
"""Each command with its module in ``targon.cli.commands`` and its class there. Roles, which have neither, are loaded
from files as well (:mod:`targon.cli.loading`) and run by the function ``run`` of the module of their name."""


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

    version: bool = False
    """Print the version and exit."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code: 0 done, 1 it failed, 2 it was asked for wrongly."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _run(given)
    except WrongOptions as error:
        return _complain(*error.sentences, code=2)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        known, unknown = BaseExceptionGroup("", [error]).split(expected_errors())
        if known is None or unknown is not None:
            raise
        return _complain(*dict.fromkeys(str(leaf) for leaf in _leaves(known)), code=1)


def _run(given: list[str]) -> int:
    first = given[0] if given else ""
    if first in ROLES:
        return _run_role(first, given[1:])
    try:
        options = CliApp.run(_root([first] if first in COMMANDS else COMMANDS), cli_args=given)
    except ValidationError as error:
        raise WrongOptions(_wrong_options(error)) from error
    except SettingsError as error:
        raise WrongOptions([str(error)]) from error
    if options.version:
        sys.stdout.write(f"targon {__version__}\n")
        return 0
    command = get_subcommand(options, is_required=False)
    if command is None:
        return _run(["--help"])
    assert isinstance(command, Command)
    return command.run()


def _run_role(role: RoleName, arguments: Sequence[str]) -> int:
    loaded = load(role, arguments, os.environ)
    for warning in loaded.warnings:
        sys.stderr.write(f"targon: warning: {warning}\n")
    code: int = import_module(f"targon.cli.commands.{role}").run(loaded.options, arguments)
    return code


def _root(names: Iterable[str]) -> type[Targon]:
    """``targon`` with some of its commands."""
    fields: dict[str, Any] = {name: (CliSubCommand[_model(name)], ...) for name in names}  # type: ignore[misc]
    return create_model("Targon", __base__=Targon, __doc__=Targon.__doc__, **fields)


def _model(name: str) -> type[Any]:
    if name in ROLES:
        return ROLES[name]
    module, _, model = COMMANDS[name].partition(":")
    found: type[Any] = getattr(import_module(f"targon.cli.commands.{module}"), model)
    return found


def expected_errors() -> tuple[type[Exception], ...]:
    """Errors whose text is meant for the person at the keyboard. Anything else is a bug and shows its traceback."""
    from targon.audit import AuditError
    from targon.chain import ChainError
    from targon.cli.errors import CommandError
    from targon.engines import EngineError
    from targon.gateway.errors import GatewayError
    from targon.gateway.line import LineTaken
    from targon.ledger import LedgerError
    from targon.localnet import FolderInUse, LocalnetFailed, ProcessDied
    from targon.oracle import OracleError
    from targon.protocol.errors import ProtocolError
    from targon.prover import ProverError
    from targon.transport import PortInUse
    from targon.updates import UpdateError
    from targon.verification import CalibrationError
    from targon.verifier import LogOfAnother

    return (
        AuditError,
        CalibrationError,
        ChainError,
        CommandError,
        EngineError,
        FolderInUse,
        GatewayError,
        LedgerError,
        LineTaken,
        LocalnetFailed,
        LogOfAnother,
        OracleError,
        PortInUse,
        ProcessDied,
        ProtocolError,
        ProverError,
        UpdateError,
    )


def _complain(*sentences: str, code: int) -> int:
    for sentence in sentences:
        sys.stderr.write(f"targon: {sentence}\n")
    return code


def _wrong_options(error: ValidationError) -> Iterator[str]:
    """A sentence per option that is wrong."""
    for problem in error.errors(include_url=False, include_context=False):
        # The first step names the command, not the option.
        name = ".".join(str(step) for step in problem["loc"][1:]) or str(problem["loc"][0])
        if problem["type"] == "missing":
            yield f"{name} is missing; see --help"
        else:
            yield f"--{name}: got {problem['input']!r}, {expectation(problem['msg'])}"


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
