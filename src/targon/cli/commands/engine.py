"""``targon engine``: run one, look at one that somebody else runs, and make a model's card."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import anyio
from pydantic import Field
from pydantic_settings import CliPositionalArg, CliSubCommand, get_subcommand
from rich.console import Console
from rich.table import Table
from rich.text import Text

from targon.cli.engine import API_KEY
from targon.cli.errors import CommandError
from targon.cli.logging import configure_logging
from targon.cli.options import Options, RemoteModelOptions
from targon.engines import start_engine_process
from targon.engines.model_card import FILE, make_card
from targon.engines.process import main as engine_process
from targon.engines.remote import LIST_LENGTH, Capabilities, RemoteEngine, open_remote_engine

FILE_WIDTH = 140
"""Columns of the table where no terminal says how many there are."""

_MARKS = {"good": ("yes", "green"), "note": ("note", "yellow"), "bad": ("WRONG", "bold red")}


class CheckEngine(RemoteModelOptions):
    """Try what an engine over HTTP can do, and whether it runs the model that it should.

    Ends with 0 if work can be done with it, with 1 if its answers would not be the model's.
    """

    url: CliPositionalArg[str]
    """Address: http://127.0.0.1:8000. A key, if it wants one, comes from the environment: TARGON_ENGINE_API_KEY."""
    as_json: bool = False
    """Print what was found as JSON."""
    timeout: float = Field(60.0, gt=0.0)
    """Seconds to wait for any one answer."""

    def run(self) -> int:
        configure_logging()
        return anyio.run(self._check)

    async def _check(self) -> int:
        async with open_remote_engine(
            self.url,
            model=self.model or None,
            name=self.name or None,
            kind=None if self.kind == "auto" else self.kind,
            api_key=os.environ.get(API_KEY),
            timeout_s=self.timeout,
            strict=False,
        ) as engine:
            found = engine.capabilities
            if self.as_json:
                sys.stdout.write(json.dumps(dataclasses.asdict(found), indent=1) + "\n")
            else:
                _show(engine)
        return 0 if found.right_model else 1


class MakeCard(Options):
    """Make a model's card: by which 'targon engine check' recognises its weights, whatever engine runs them.

    Runs the model in float32 on this machine.
    """

    model: CliPositionalArg[Path]
    """Folder of the model, in the Hugging Face layout."""
    out: Path | None = None
    """File to write; by default 'targon-card.json' in the model's folder."""
    threads: int = Field(0, ge=0)
    """Processor threads; 0: one per core."""

    def run(self) -> int:
        configure_logging()
        anyio.run(self._make)
        return 0

    async def _make(self) -> None:
        with TemporaryDirectory(prefix="targon-engine-") as folder:
            async with start_engine_process(
                Path(folder) / "engine.sock", model=self.model, threads=self.threads or None
            ) as engine:
                card = await make_card(engine)
        out = self.out or self.model / FILE
        out.write_bytes(card.to_bytes() + b"\n")
        sys.stdout.write(f"{out}: the card of {card.name}, model {card.model_digest}\n")


class EngineCommand(Options):
    """Run an engine in a process of its own, for provers and verifiers on this machine to share; or, with a
    command, look at one that somebody else runs."""

    check: CliSubCommand[CheckEngine]
    card: CliSubCommand[MakeCard]
    socket: Path | None = None
    """Unix socket to listen at."""
    model: str = "default"
    """A model folder in the Hugging Face layout, or 'default': SmolLM2-135M-Instruct."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format."""
    threads: int = Field(0, ge=0)
    """Processor threads; 0: one per core."""
    max_batch: int = Field(16, ge=1, le=256)
    """Requests that are decoded at once; more wait."""

    def run(self) -> int:
        command = get_subcommand(self, is_required=False)
        if command is not None:
            assert isinstance(command, CheckEngine | MakeCard)
            return command.run()
        if self.socket is None:
            raise CommandError(
                "--socket is missing: expected the path of a Unix socket to listen at, or a command: check URL or "
                "card MODEL"
            )
        flags = ["--socket", str(self.socket), "--model", self.model, "--dtype", self.dtype]
        flags += ["--max-batch", str(self.max_batch)]
        if self.threads:
            flags += ["--threads", str(self.threads)]
        return engine_process(flags)


def _show(engine: RemoteEngine) -> None:
    found, identity = engine.capabilities, engine.identity
    console = Console(width=None if sys.stdout.isatty() else FILE_WIDTH, highlight=False)
    table = Table(title=f"{found.served.engine} serving {found.served.model}", title_justify="left")
    for name in ("what", "", "found", "advice"):
        table.add_column(name, overflow="fold")
    for finding in found.findings:
        mark, colour = _MARKS[finding.judgement]
        table.add_row(finding.what, Text(mark, style=colour), finding.got, finding.advice)
    console.print(table)
    console.print(
        f"model    requests name it {identity.name}; digest {identity.model_digest}", soft_wrap=True
    )
    console.print(f"dialects {', '.join(found.dialects) or 'none'}")
    for sentence in conclusions(found):
        console.print(sentence, soft_wrap=True)


def conclusions(found: Capabilities) -> tuple[str, str]:
    """What a prover behind the engine is worth, and a verifier in front of it, in a sentence each."""
    if not found.right_model:
        wrong = "Its answers would not be the model's: put right what is marked WRONG first."
        return wrong, "No prover and no verifier starts with it as it is."
    best = found.dialects[0]
    prover = {
        "targon/1": "gets all work that there is; it counts towards tiers and weight",
        "greedy": "gets `greedy` work (temperature 0), which counts towards tiers and weight",
    }.get(best, "gets `native` work, which is served and shown, and earns nothing")
    reference = (
        f"can use it as its reference, by the {LIST_LENGTH} most likely tokens of each position"
        if found.prompt_logprobs >= LIST_LENGTH
        else "can't use it as its reference: it needs log-probabilities of given tokens"
    )
    return f"A prover in front of it {prover}.", f"A verifier {reference}."
