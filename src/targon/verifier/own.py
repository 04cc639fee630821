"""Inferences that the verifier sends itself, so that every prover has some that are audited, however few users ask.

They are made as challenges are, from draws and a private input of their own, and sent like anybody's, at a moment that
is drawn as well. Which block brings one to which prover is a draw too (:mod:`targon.protocol.audits`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import anyio
import structlog
from anyio.abc import TaskGroup

from targon.chain import SubnetInfo
from targon.engines import EngineError
from targon.protocol import draws
from targon.protocol.audits import own_inference_due
from targon.protocol.keys import Signer, public_key
from targon.protocol.primitives import Block, Hotkey, Interval
from targon.protocol.profile import Profile
from targon.protocol.schedule import interval_of
from targon.transport import NeuronClient, TransportError
from targon.transport.errands import DeskError
from targon.verification.querying import QueryWriter
from targon.verifier.challenges import challenge_delay_s, make_challenge
from targon.verifier.desk import Desk
from targon.verifier.journal import Journal
from targon.verifier.ports import PrivateInputs, PrivateInputUnavailable
from targon.verifier.routes import Routes
from targon.verifier.settings import VerifierSettings

logger = structlog.get_logger(__name__)


class OwnInferences:
    """Sends them."""

    def __init__(
        self,
        *,
        desk: Desk,
        journal: Journal,
        routes: Routes,
        client: NeuronClient,
        signer: Signer,
        inputs: PrivateInputs,
        queries: QueryWriter,
        settings: VerifierSettings,
        profile: Profile,
        secret_of: Callable[[Interval], bytes],
    ) -> None:
        self._desk = desk
        self._journal = journal
        self._routes = routes
        self._client = client
        self._signer = signer
        self._inputs = inputs
        self._queries = queries
        self._settings = settings
        self._profile = profile
        self._secret_of = secret_of

    async def step(self, group: TaskGroup, block: Block, info: SubnetInfo) -> None:
        """Send those of a block, in the background."""
        interval = interval_of(block, self._profile.interval_blocks)
        if self._journal.standings.interval != interval:
            return  # the step has not turned it yet
        secret = self._secret_of(interval)
        for prover in self._due(secret, block, list(self._routes.axons)):
            group.start_soon(self._send, prover, secret, block, info.block_seconds)

    def _due(self, secret: bytes, block: Block, provers: Iterable[Hotkey]) -> list[Hotkey]:
        found: list[Hotkey] = []
        for prover in provers:
            standing = self._journal.standings.prover(prover)
            if standing is None or standing.uid is None:
                continue
            draw = draws.own_inference_draw(secret, block, public_key(prover))
            length = self._profile.interval_blocks
            if own_inference_due(draw, audits=standing.audits, interval_blocks=length):
                found.append(prover)
        return found

    async def _send(self, prover: Hotkey, secret: bytes, block: Block, span_s: float) -> None:
        try:
            challenge = await make_challenge(
                secret,
                block,
                prover,
                inputs=self._inputs,
                queries=self._queries,
                settings=self._settings,
                part="own ",
            )
            await anyio.sleep(challenge_delay_s(secret, block, prover, span_s, part="own "))
            errand = await self._desk.take_own(challenge, prover, block)
            try:
                answer = await self._client.generate(errand.axon, errand.request, self._signer)
            except TransportError as error:
                await self._desk.failed(errand, error)
            else:
                await self._desk.answered(errand, answer)
        except (EngineError, PrivateInputUnavailable, DeskError) as error:
            logger.info("own_inference_ended", prover=prover, kind=type(error).__name__, error=str(error))
