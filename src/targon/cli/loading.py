"""A role's options, from wherever they were given: a flag wins over the environment, that over a file, that over
the default.

    targon verifier --neuron.sample_size 10                                   a flag
    TARGON_VERIFIER__NEURON__SAMPLE_SIZE=10 targon verifier                   the environment
    targon verifier --config verifier.toml  ([neuron] sample_size = 10)       a file
"""

from __future__ import annotations

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError
from pydantic_settings import CliSettingsSource

from targon.cli.catalog import (
    ROLES,
    Option,
    RoleName,
    environment_name,
    nearest,
    options_of,
    value_of,
)
from targon.cli.config_file import others_can_read, place, read_options
from targon.cli.errors import WrongOptions
from targon.cli.options import ProcessOptions

_EPILOG = """\
Each option is also a variable of the environment ({variable}) and a line of the
file that --config names ([wallet], name = "default"). What holds, and by which of them, says
'targon config show {role}'."""


@dataclass(frozen=True, slots=True)
class Given:
    """A value that somebody gave."""

    value: object
    source: str
    """As it is shown: ``flag``, ``environment NAME`` or ``file PATH``."""
    place: str
    """As a complaint about it begins."""
    file: Path | None = None
    """The file that gave it, if one did."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A role's options, and where each came from."""

    options: Any
    """Of the role's own class."""
    given: Mapping[str, Given]
    """What won, by dotted name; whatever is not here is a default."""
    warnings: tuple[str, ...]
    """Sentences about what is permitted, and unwise."""

    def rows(self) -> Iterator[tuple[Option, object, str]]:
        """Each option with its value and the source of that."""
        for name, option in options_of(type(self.options)).items():
            given = self.given.get(name)
            yield option, value_of(self.options, name), "default" if given is None else given.source


class FlagParser(ArgumentParser):
    """The parser of a role's flags: what is wrong with them is raised, with the nearest flag that there is."""

    def __init__(self, role: RoleName) -> None:
        super().__init__(
            prog=f"targon {role}",
            description=ROLES[role].__doc__,
            epilog=_EPILOG.format(role=role, variable=environment_name(role, "wallet.name")),
            formatter_class=RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self._known = [f"--{name}" for name in (*options_of(ROLES[role]), *ROLES[role].ALIASES)]

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:  # noqa: ANN401 - argparse's own
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            # What follows an unknown flag may be a password: it is not repeated.
            names = [word.partition("=")[0] for word in unknown if word.startswith("-")] or unknown
            raise WrongOptions(
                f"unrecognized arguments: {name}{nearest(name, self._known)}" for name in names
            )
        return parsed

    def error(self, message: str) -> NoReturn:
        raise WrongOptions([message])


def load(role: RoleName, arguments: Sequence[str], environment: Mapping[str, str]) -> Loaded:
    """A role's options.

    Raises:
        WrongOptions: a sentence for each option that is unknown or cannot have the value that it was given.
    """
    model = ROLES[role]
    known = options_of(model)
    flags = _from_flags(role, model, arguments)
    given = _from_environment(role, model, environment, known) | flags
    if "config" in given:
        given = _from_file(Path(str(given["config"].value)).expanduser(), role, model, known) | given
    try:
        options = model.model_validate(_nested(given))
    except ValidationError as error:
        raise WrongOptions(_complaints(error, given, known)) from error
    return Loaded(options, given, tuple(_warnings(role, given, known)))


def _from_flags(role: RoleName, model: type[ProcessOptions], arguments: Sequence[str]) -> dict[str, Given]:
    source: CliSettingsSource[Any] = CliSettingsSource(
        model,  # type: ignore[arg-type]  # any model will do where the settings of its class aren't read
        root_parser=FlagParser(role),
        parse_args_method=FlagParser.parse_args,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
        cli_shortcuts={name: alias for alias, name in model.ALIASES.items()},
    )
    source(args=list(arguments))
    return {name: Given(value, "flag", f"--{name}") for name, value in source.env_vars.items()}


def _from_environment(
    role: RoleName, model: type[ProcessOptions], environment: Mapping[str, str], known: Mapping[str, Option]
) -> dict[str, Given]:
    names = {environment_name(role, name): name for name in known}
    aliases = {environment_name(role, alias): name for alias, name in model.ALIASES.items()}
    given: dict[str, Given] = {}
    wrong: list[str] = []
    for variable, value in sorted(environment.items(), key=lambda item: item[0].upper() in names):
        upper = variable.upper()
        if not upper.startswith(environment_name(role, "")):
            continue
        name = names.get(upper) or aliases.get(upper)
        if name is None:
            wrong.append(f"{variable}: there is no such option{nearest(upper, names)}")
        else:
            given[name] = Given(value, f"environment {variable}", variable)
    if wrong:
        raise WrongOptions(wrong)
    return given


def _from_file(
    path: Path, role: RoleName, model: type[ProcessOptions], known: Mapping[str, Option]
) -> dict[str, Given]:
    # A file names no other file.
    names = {name for name in known if name != "config"} | model.ALIASES.keys()
    entries = read_options(path, role, names)
    return {
        model.ALIASES.get(name, name): Given(entry.value, f"file {path}", place(path, entry.line, name), path)
        for name, entry in sorted(entries.items(), key=lambda item: item[0] in known)
    }


def _nested(given: Mapping[str, Given]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, one in given.items():
        *groups, last = name.split(".")
        branch = tree
        for group in groups:
            branch = branch.setdefault(group, {})
        branch[last] = one.value
    return tree


def _complaints(
    error: ValidationError, given: Mapping[str, Given], known: Mapping[str, Option]
) -> Iterator[str]:
    for problem in error.errors(include_url=False, include_context=False):
        steps = [str(step) for step in problem["loc"]]
        name = ".".join(steps)
        while name and name not in given:
            name = name.rpartition(".")[0]
        expected = expectation(problem["msg"])
        if not name:
            yield f"--{'.'.join(steps)}: {expected}"
        elif known[name].secret:
            yield f"{given[name].place}: got a value that is not shown, {expected}"
        else:
            yield f"{given[name].place}: got {problem['input']!r}, {expected}"


def expectation(message: str) -> str:
    """What pydantic expected, in our words."""
    for its, ours in (("Input should be ", "expected "), ("Value error, ", "")):
        if message.startswith(its):
            return ours + message.removeprefix(its)
    return message


def _warnings(role: RoleName, given: Mapping[str, Given], known: Mapping[str, Option]) -> Iterator[str]:
    for name, one in given.items():
        if not known[name].secret:
            continue
        if one.source == "flag":
            yield (
                f"{one.place} can be seen by everybody on this machine; give it as {environment_name(role, name)} "
                "or in the file that --config names"
            )
        elif one.file is not None and others_can_read(one.file):
            yield f"{one.place} can be read by others on this machine: chmod 600 {one.file}"
