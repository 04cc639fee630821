"""What an oracle's engine does for verifiers that have none (``POST /v1/reference``), under the oracle's signature.

An engine is dear, and those who ask share it: each hotkey may have so many tasks waiting and so many a minute, all
together so many, and none waits longer than it is worth. Who is turned away is told when to come again. Who hangs up
frees its place.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict, dataclass, field
from typing import Final

import anyio
from starlette.types import Receive, Send

from targon.engines import Engine, EngineBusy, EngineError, GenerateTask, ReplayTask, TaskRefused, Tokenized
from targon.protocol.canonical import digest_of
from targon.protocol.errors import MalformedMessage
from targon.protocol.keys import Signer
from targon.protocol.primitives import Block, Digest, Hotkey
from targon.protocol.references import (
    MAX_PROMPT_TOKENS,
    MAX_TOKENIZER_CHARS,
    GroundTruthResult,
    IdentityResult,
    PromptResult,
    ReferenceBody,
    ReferenceKind,
    ReferenceResult,
    ReferenceTask,
    ReplayResult,
    TextResult,
    TokenizerResult,
    replay_result,
    state,
)
from targon.transport import Allowance, Clock, Code, Refusal, Route, SignedRequest, send_json, while_connected
from targon.transport.limits import Limiter

PATH: Final = "/v1/reference"
RETRY_S: Final = 2.0


def _allowance() -> Allowance:
    """A verifier that challenges ten provers a block asks for thirty things in twelve seconds."""
    return Allowance(per_second=20.0, burst=200, concurrent=16)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceLimits:
    """Every bound of it."""

    per_hotkey: Allowance = field(default_factory=_allowance)
    """Beside the gate's own: of tasks alone."""
    max_waiting: int = 128
    """Tasks, of all together, that wait or are being worked on."""
    at_once: int = 8
    """Tasks that the engine works on."""
    max_wait_s: float = 20.0
    """How long a task may wait for its turn."""
    max_work_s: float = 60.0
    """How long the engine may take for one."""
    max_task_bytes: int = 512 * 1024
    max_generated: int = 1_024
    """Tokens of one ground truth."""


class ReferenceDesk:
    """Has an engine do tasks, and signs what came of them.

    Args:
        newest: the newest block that we know.
        limits: who may ask for how much.
    """

    def __init__(
        self,
        engine: Engine,
        signer: Signer,
        *,
        genesis: str,
        netuid: int,
        newest: Callable[[], Block],
        limits: ReferenceLimits | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._engine = engine
        self._signer = signer
        self._hotkey = Hotkey(signer.ss58_address)
        self._genesis = genesis
        self._netuid = netuid
        self._newest = newest
        self._limits = limits or ReferenceLimits()
        self._hotkeys = Limiter(self._limits.per_hotkey, "hotkey", (clock or Clock()).monotonic_s)
        self._turns = anyio.Semaphore(self._limits.at_once)
        self._waiting = 0
        self._tokenizer: tuple[bytes, Digest] | None = None

    @property
    def routes(self) -> Mapping[str, Route]:
        """What a gate serves for it."""
        return {PATH: Route("POST", self.answer, takes_body=True)}

    @property
    def model(self) -> str:
        """The name of the model that it answers for."""
        return self._engine.identity.name

    async def answer(self, signed: SignedRequest, receive: Receive, send: Send) -> None:
        """``POST /v1/reference``.

        Raises:
            Refusal: if it can't be done, or not now.
        """
        task = self._task(signed.body)
        made: list[bytes] = []

        async def work() -> None:
            made.append(await self._made(task, signed.caller))

        with self._hotkeys.slot(signed.caller):
            await while_connected(receive, work)
        await send_json(send, 200, made[0])

    def _task(self, body: bytes) -> ReferenceTask:
        if len(body) > self._limits.max_task_bytes:
            raise Refusal(
                Code.BODY_TOO_LARGE,
                "the task is too large",
                got=len(body),
                expected=f"at most {self._limits.max_task_bytes} bytes",
            )
        try:
            task = ReferenceTask.from_bytes(body)
        except MalformedMessage as error:
            raise Refusal(Code.MALFORMED_REQUEST, f"no task: {str(error)[:300]}") from error
        if task.kind == "ground_truth" and task.sampling is not None:
            longest = self._limits.max_generated
            if task.sampling.max_tokens > longest:
                raise Refusal(
                    Code.TASK_REFUSED,
                    "no ground truth is that long here",
                    got=task.sampling.max_tokens,
                    expected=f"at most {longest} tokens",
                )
        return task

    async def _made(self, task: ReferenceTask, caller: Hotkey) -> bytes:
        """The answer to a task, in its canonical form."""
        try:
            async with self._turn():
                result, digest = await self._done(task)
        except TaskRefused as error:
            raise Refusal(Code.TASK_REFUSED, str(error)[:300]) from error
        except EngineBusy as error:
            raise Refusal(Code.QUEUE_FULL, "the engine is busy", retry_after_s=RETRY_S) from error
        except EngineError as error:
            raise Refusal(
                Code.ENGINE_UNAVAILABLE, "our engine does not answer now", retry_after_s=5 * RETRY_S
            ) from error
        identity = self._engine.identity
        statement = state(
            ReferenceBody(
                genesis=self._genesis,
                netuid=self._netuid,
                oracle=self._hotkey,
                verifier=caller,
                block=self._newest(),
                task=task.digest(),
                model_digest=identity.model_digest,
                engine=identity.engine,
                dtype=identity.dtype,
                result=digest,
            ),
            self._signer,
        )
        return b'{"result":' + result + b',"statement":' + statement.to_bytes() + b"}"

    @asynccontextmanager
    async def _turn(self) -> AsyncGenerator[None, None]:
        """A place at the engine, waited for no longer than it is worth, and held no longer than is right."""
        limits = self._limits
        if self._waiting >= limits.max_waiting:
            raise Refusal(
                Code.QUEUE_FULL,
                "too many tasks wait for the engine already",
                got=self._waiting + 1,
                expected=f"at most {limits.max_waiting}",
                retry_after_s=RETRY_S,
            )
        self._waiting += 1
        try:
            try:
                with anyio.fail_after(limits.max_wait_s):
                    await self._turns.acquire()
            except TimeoutError as error:
                raise Refusal(
                    Code.WAITED_TOO_LONG, "the engine did not come to the task in time", retry_after_s=RETRY_S
                ) from error
            try:
                with anyio.fail_after(limits.max_work_s):
                    yield
            except TimeoutError as error:
                raise Refusal(
                    Code.ENGINE_UNAVAILABLE,
                    "our engine took too long",
                    expected=f"at most {limits.max_work_s:g} s",
                    retry_after_s=RETRY_S,
                ) from error
            finally:
                self._turns.release()
        finally:
            self._waiting -= 1

    async def _done(self, task: ReferenceTask) -> tuple[bytes, Digest]:
        """A result in its canonical form, and its digest."""
        if task.kind == "tokenizer":
            if self._tokenizer is None:  # always the same, and megabytes
                self._tokenizer = _with_digest(await self._tokenizer_result())
            return self._tokenizer
        return _with_digest(await _WORK[task.kind](self._engine, task))

    async def _tokenizer_result(self) -> TokenizerResult:
        engine = self._engine
        if not isinstance(engine, Tokenized):
            raise TaskRefused("this oracle's engine hands out no tokenizer: ask it for the text")
        tokenizer = await engine.tokenizer_json()
        if len(tokenizer) > MAX_TOKENIZER_CHARS:
            raise TaskRefused("the model's tokenizer is too large to be handed out: ask for the text")
        return TokenizerResult(tokenizer=tokenizer)


def _with_digest(result: ReferenceResult) -> tuple[bytes, Digest]:
    form = result.to_bytes()
    return form, digest_of(form)


async def _identity(engine: Engine, _task: ReferenceTask) -> IdentityResult:
    await engine.check()
    return IdentityResult(**asdict(engine.identity))


async def _prompt(engine: Engine, task: ReferenceTask) -> PromptResult:
    token_ids = await engine.prompt_token_ids(task.messages)
    if len(token_ids) > MAX_PROMPT_TOKENS:
        raise TaskRefused(f"prompt: got {len(token_ids)} tokens, expected at most {MAX_PROMPT_TOKENS}")
    return PromptResult(token_ids=token_ids)


async def _text(engine: Engine, task: ReferenceTask) -> TextResult:
    return TextResult(text=await engine.text(task.token_ids, ()))


async def _replay(engine: Engine, task: ReferenceTask) -> ReplayResult:
    assert task.sampling is not None  # as its kind has it
    assert task.run_key is not None  # this, too
    asked = ReplayTask(task.messages, task.token_ids, task.sampling, int(task.run_key, 16))
    (replayed,) = await engine.replay([asked])
    return replay_result(
        replayed.replay,
        replayed.claimed_logprobs,
        replayed.claimed_ranks,
        prompt_tokens=replayed.prompt_tokens,
        top_k=replayed.top_k,
    )


async def _ground_truth(engine: Engine, task: ReferenceTask) -> GroundTruthResult:
    assert task.sampling is not None  # as its kind has it
    assert task.run_key is not None  # this, too
    asked = GenerateTask(task.messages, task.sampling, int(task.run_key, 16))
    async with aclosing(engine.generate(asked)) as generated:
        steps = [step async for step in generated]
    return GroundTruthResult(
        token_ids=tuple(step.token_id for step in steps),
        texts=tuple(step.text for step in steps),
        logprobs=tuple(step.logprob for step in steps),
        finish_reason=steps[-1].finish_reason or "length",
    )


_WORK: Final[dict[ReferenceKind, Callable[[Engine, ReferenceTask], Awaitable[ReferenceResult]]]] = {
    "identity": _identity,
    "prompt": _prompt,
    "text": _text,
    "replay": _replay,
    "ground_truth": _ground_truth,
}
