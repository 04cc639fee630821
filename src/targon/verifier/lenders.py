"""Oracles that lend their engine: each is asked under its name, and its answer held against its signature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import anyio
from prometheus_client import CollectorRegistry, Counter

from targon.engines import EngineUnavailable, ModelIdentity, TaskRefused
from targon.protocol.errors import InvalidSignature, MalformedMessage, ReferenceMismatch
from targon.protocol.keys import Signer
from targon.protocol.primitives import Hotkey
from targon.protocol.references import (
    MAX_PROMPT_TOKENS,
    MAX_TOKENIZER_CHARS,
    ReferenceAnswer,
    ReferenceBody,
    ReferenceKind,
    ReferenceTask,
    check_reference,
)
from targon.transport import BadResponse, Code, Deadlines, NeuronClient, Refused, TransportError
from targon.transport.client import BASE_RESPONSE_BYTES, BYTES_PER_TOKEN
from targon.transport.errors import Endpoint
from targon.verifier.addresses import address_of

REFERENCE: Final = "/v1/reference"
TIMEOUT_S: Final = 60.0
"""For one answer. Whoever needs it sooner waits no longer."""
TRUTH_S: Final = 20.0
"""For a ground truth: oracles are asked for it one after the other, and a block's challenges wait for their queries."""
LONGEST_PAUSE_S: Final = 5.0
"""An oracle that says when to come again is asked again if that is sooner, once."""
AWAY_S: Final = 20.0
"""An oracle that was silent isn't waited for so long, where enough others are left; each time for twice as long."""
LONGEST_AWAY_S: Final = 640.0
COLUMN_BYTES: Final = 128
"""Of an answer, at most, for each token that is replayed."""

Ended = Literal["agreed", "outvoted", "refused", "away", "faulty"]
"""How asking an oracle ended. ``faulty``: what it gave is no answer, or isn't signed by it. ``outvoted``: enough others
agree on something else."""


class Faulty(EngineUnavailable):
    """What an oracle gave is no answer to what was asked, or isn't signed by it."""


@dataclass(frozen=True, slots=True)
class Lender:
    """An oracle that lends its engine."""

    hotkey: Hotkey
    axon: Endpoint
    client: NeuronClient
    """Speaks to it as its address says."""


class Lenders:
    """Asks oracles, in the order of preference.

    Args:
        signer: our hotkey; it needs a validator permit.
        registry: where metrics go.
    """

    def __init__(
        self,
        lenders: Sequence[Lender],
        signer: Signer,
        *,
        genesis: str,
        netuid: int,
        registry: CollectorRegistry,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self.lenders = tuple(lenders)
        self.expected: ModelIdentity | None = None
        """What all answers have to come from, once it is known."""
        self._signer = signer
        self._hotkey = Hotkey(signer.ss58_address)
        self._genesis = genesis
        self._netuid = netuid
        self._deadlines = _deadlines(timeout_s)
        self._for_truth = _deadlines(min(timeout_s, TRUTH_S))
        # by kind: who answers one thing at once may still hold up another
        self._silent: dict[tuple[Hotkey, ReferenceKind], tuple[float, float]] = {}
        """Until when, and for how long."""
        self._answers = Counter(
            "targon_verifier_borrowed_answers",
            "Oracles asked for what their engine says, by how that ended: agreed, outvoted, refused, away, faulty.",
            ["oracle", "ended"],
            registry=registry,
        )

    @property
    def hotkeys(self) -> tuple[Hotkey, ...]:
        return tuple(lender.hotkey for lender in self.lenders)

    def count(self, hotkey: Hotkey, ended: Ended) -> None:
        """Count how asking an oracle ended."""
        self._answers.labels(hotkey, ended).inc()

    def counted(self) -> Mapping[tuple[str, str], float]:
        """How often asking ended how, by hotkey and ending."""
        return {
            (sample.labels["oracle"], sample.labels["ended"]): sample.value
            for metric in self._answers.collect()
            for sample in metric.samples
            if sample.name.endswith("_total")
        }

    def awake(self, needed: int, kind: ReferenceKind) -> tuple[Lender, ...]:
        """Those that weren't silent just now when asked for this; all of them, where those are too few."""
        now = anyio.current_time()
        found = tuple(
            lender for lender in self.lenders if self._silent.get((lender.hotkey, kind), (now, 0))[0] <= now
        )
        return found if len(found) >= needed else self.lenders

    def silent(self, lender: Lender, kind: ReferenceKind) -> None:
        """Note that an oracle gave no answer."""
        self.count(lender.hotkey, "away")
        now = anyio.current_time()
        until, length = self._silent.get((lender.hotkey, kind), (now, 0.0))
        if until > now:
            return  # it is one of many that were asked at once
        length = min(2 * length or AWAY_S, LONGEST_AWAY_S)
        self._silent[lender.hotkey, kind] = now + length, length

    async def ask(self, lender: Lender, task: ReferenceTask) -> ReferenceAnswer:
        """One oracle's answer, which is to the point and signed by it.

        Raises:
            TaskRefused: if its engine can't do the task.
            Faulty: if what it gave is no answer, or another's.
            EngineUnavailable: if it gave none.
        """
        try:
            answer = await self._asked(lender, task)
        except TaskRefused:
            self.count(lender.hotkey, "refused")
            raise
        except Faulty:
            self.count(lender.hotkey, "faulty")
            raise
        except EngineUnavailable:
            self.silent(lender, task.kind)
            raise
        self._silent.pop((lender.hotkey, task.kind), None)
        return answer

    async def _asked(self, lender: Lender, task: ReferenceTask) -> ReferenceAnswer:
        try:
            answer = ReferenceAnswer.from_bytes(await self._sent(lender, task))
            check_reference(
                answer,
                task,
                genesis=self._genesis,
                netuid=self._netuid,
                oracle=lender.hotkey,
                verifier=self._hotkey,
            )
            self._check_engine(answer.statement.body)
        except BadResponse as error:
            raise Faulty(f"oracle {lender.hotkey}: {error}") from error
        except (MalformedMessage, ReferenceMismatch, InvalidSignature) as error:
            raise Faulty(f"oracle {lender.hotkey}: {str(error)[:300]}") from error
        except Refused as error:
            if error.code == Code.TASK_REFUSED:
                raise TaskRefused(f"oracle {lender.hotkey}: {error.message}") from error
            raise EngineUnavailable(f"oracle {lender.hotkey}: {error}") from error
        except TransportError as error:
            raise EngineUnavailable(f"oracle {lender.hotkey}: {error}") from error
        except OSError as error:
            raise EngineUnavailable(f"oracle {lender.hotkey}: its address can't be found: {error}") from error
        return answer

    def _check_engine(self, body: ReferenceBody) -> None:
        """Check that an answer comes from the engine that all have to have: a calibration is for one."""
        if self.expected is None:
            return
        for field in ("model_digest", "engine", "dtype"):
            got, expected = getattr(body, field), getattr(self.expected, field)
            if got != expected:
                raise ReferenceMismatch(field, got, expected)

    async def _sent(self, lender: Lender, task: ReferenceTask) -> bytes:
        try:
            return await self._post(lender, task)
        except Refused as error:
            if error.retry_after_s is None or error.retry_after_s > LONGEST_PAUSE_S:
                raise
            await anyio.sleep(error.retry_after_s)
            return await self._post(lender, task)

    async def _post(self, lender: Lender, task: ReferenceTask) -> bytes:
        return await lender.client.post(
            await address_of(lender.axon.host, lender.axon.port),
            REFERENCE,
            task.to_bytes(),
            lender.hotkey,
            self._signer,
            max_bytes=BASE_RESPONSE_BYTES + _most_bytes(task),
            deadlines=self._for_truth if task.kind == "ground_truth" else self._deadlines,
        )


def _deadlines(total_s: float) -> Deadlines:
    return Deadlines(
        connect_s=min(5.0, total_s), first_byte_s=total_s, between_bytes_s=total_s, total_s=total_s
    )


def _most_bytes(task: ReferenceTask) -> int:
    """How large an answer may be, beside what every answer has."""
    if task.kind == "tokenizer":
        return 2 * MAX_TOKENIZER_CHARS  # quotes are escaped, and letters take bytes
    if task.kind == "prompt":
        return 8 * MAX_PROMPT_TOKENS
    tokens = (
        len(task.token_ids) if task.sampling is None or task.kind == "replay" else task.sampling.max_tokens
    )
    return tokens * (COLUMN_BYTES if task.kind == "replay" else BYTES_PER_TOKEN)
