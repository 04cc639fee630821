"""Putting weights on chain: once an epoch, from the log alone, and never twice.

What is about to be sent is written to the log first, as a proposal with a number. Whatever then happens (a crash,
a chain that can't be reached, an answer that got lost), the chain is asked what stands there before anything is
sent again, and the proposal's fate is written to the log once:

    weights_proposed ── set outright ──────────────▶ read back ─▶ weights_set
                    └── committed to ─▶ revealed ──▶ read back ─▶ weights_set
                    └── refused, superseded or expired ─────────▶ weights_not_set
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import structlog

from targon.chain import (
    Chain,
    ChainError,
    ChainUnavailable,
    Metagraph,
    RateLimited,
    SubnetInfo,
    WeightsCommit,
)
from targon.ledger import Event, Proposal, WeightsNotSet, WeightsProposed, WeightsSet
from targon.protocol import draws
from targon.protocol.keys import Signer
from targon.protocol.primitives import Block, Hotkey, Uid
from targon.protocol.weights import NoWeights
from targon.verifier.journal import Journal

logger = structlog.get_logger(__name__)

DISABLED = "the verifier was told to set none (--neuron.disable_set_weights)"

RETRY_BLOCKS = 10
"""Blocks between two looks at what may change meanwhile: a chain that failed for no named reason, the epoch that a
reveal has to wait for."""

MAX_REASON = 2_000
"""Characters of a reason that the log takes."""


class WeightSetter:
    """Keeps a verifier's weights on chain. One at a time calls :meth:`step`.

    Args:
        secret_at: the secret of the interval that a block lies in.
        version_key: what this software's weights are set with.
        disabled: propose nothing.
    """

    def __init__(
        self,
        chain: Chain,
        journal: Journal,
        signer: Signer,
        version_key: int,
        secret_at: Callable[[Block], bytes],
        *,
        disabled: bool = False,
    ) -> None:
        self._chain = chain
        self._journal = journal
        self._signer = signer
        self._hotkey = Hotkey(signer.ss58_address)
        self._version_key = version_key
        self._secret_at = secret_at
        self._disabled = disabled
        self._tried_epoch = -1
        self._propose_anew = False
        self._not_before: dict[int, Block] = {}

    async def step(self, block: Block, info: SubnetInfo) -> None:
        """Do what is due in a block: propose, send, commit, reveal.

        Raises:
            ChainUnavailable: if the chain cannot be asked; the next step goes on where this one ended.
            LedgerError: if an outcome cannot be logged. What the chain refuses is logged, not raised.
        """
        unavailable: ChainUnavailable | None = None
        await self._propose_if_due(block, info)
        for number, proposal in list(self._journal.standings.proposals.items()):
            if number not in self._journal.standings.proposals or block < self._not_before.get(number, -1):
                continue
            try:
                if proposal.commit is None:
                    await self._set(number, proposal, block, info)
                else:
                    await self._commit_or_reveal(number, proposal, block, info)
            except ChainUnavailable as error:
                unavailable = error  # the others have their turn
            except RateLimited as error:
                self._not_before[number] = error.allowed_at
                logger.info("weights_rate_limited", proposal=number, allowed_at=error.allowed_at)
            except ChainError as error:
                if type(error) is ChainError:  # no refusal that has a name: it may pass
                    self._not_before[number] = Block(block + RETRY_BLOCKS)
                    logger.warning("weights_delayed", proposal=number, error=str(error))
                else:
                    await self._give_up(number, block, str(error))
        if unavailable is not None:
            raise unavailable

    # -- proposing ---------------------------------------------------------------------------------------

    async def _propose_if_due(self, block: Block, info: SubnetInfo) -> None:
        epoch = block // info.tempo
        proposed_epoch = self._journal.standings.proposed_block // info.tempo
        if not self._propose_anew and (self._tried_epoch == epoch or proposed_epoch >= epoch):
            return
        self._tried_epoch, self._propose_anew = epoch, False
        await self._journal.append_made(lambda number: self._proposal(number, block, info))

    def _proposal(self, number: int, block: Block, info: SubnetInfo) -> Sequence[Event]:
        if self._disabled:
            return [WeightsNotSet(block=block, reason=DISABLED)]
        weights = self._journal.standings.weights()
        if isinstance(weights, NoWeights):
            return [WeightsNotSet(block=block, reason=weights.reason)]
        commit = None
        if info.commit_reveal:
            commit = self._chain.commit_digest(
                self._hotkey, weights, self._version_key, self._salt(number, block)
            )
        return [
            WeightsProposed(
                block=block,
                version_key=self._version_key,
                weights=tuple(sorted(weights.items())),
                commit=commit,
            )
        ]

    # -- outright ----------------------------------------------------------------------------------------

    async def _set(self, number: int, proposal: Proposal, block: Block, info: SubnetInfo) -> None:
        metagraph = await self._chain.metagraph()
        stands_since = await self._stands_since(proposal, metagraph)
        if stands_since is not None:
            await self._succeed(number, proposal, stands_since)
        elif block // info.tempo > proposal.block // info.tempo:
            await self._give_up(number, block, "the epoch ended before the chain took them")
        elif not await self._is_outdated(number, proposal, metagraph, block):
            set_in = await self._chain.set_weights(self._signer, proposal.weights, proposal.version_key)
            await self._prove(number, proposal, set_in)

    # -- commit and reveal -------------------------------------------------------------------------------

    async def _commit_or_reveal(
        self, number: int, proposal: Proposal, block: Block, info: SubnetInfo
    ) -> None:
        salt = self._salt(number, proposal.block)
        arguments = (self._signer, proposal.weights, proposal.version_key, salt)
        waiting = await self._chain.weights_commits(self._hotkey)
        commit = next((each for each in waiting if each.digest == proposal.commit), None)
        if commit is not None and block >= commit.reveal_from:
            revealed_in = await self._chain.reveal_weights(*arguments)
            await self._supersede_before(number, block)
            await self._succeed(number, proposal, revealed_in)
            return
        if commit is not None:
            self._wait_for(number, commit, block)
            return
        # A commit moves our last update, and its reveal doesn't: so it shows that these were committed to, and are
        # not merely equal to older ones.
        metagraph = await self._chain.metagraph()
        if await self._stands_since(proposal, metagraph) is not None:
            await self._succeed(number, proposal, block)
        elif block // info.tempo > proposal.block // info.tempo:
            await self._give_up(number, block, "the commit to them expired, or never stood on chain")
        elif not await self._is_outdated(number, proposal, metagraph, block):
            commit = await self._chain.commit_weights(*arguments)
            self._wait_for(number, commit, block)
            logger.info(
                "weights_committed", proposal=number, block=commit.block, reveal_from=commit.reveal_from
            )

    def _wait_for(self, number: int, commit: WeightsCommit, block: Block) -> None:
        """The epoch to reveal in may come earlier than was told: the subnet's owner can move epochs."""
        self._not_before[number] = Block(min(commit.reveal_from, block + RETRY_BLOCKS))

    def _salt(self, number: int, block: Block) -> bytes:
        return draws.weights_salt(self._secret_at(block), number)

    async def _supersede_before(self, number: int, block: Block) -> None:
        """A reveal makes the chain forget the commits before it."""
        for earlier in [each for each in self._journal.standings.proposals if each < number]:
            await self._give_up(earlier, block, f"a later proposal, {number}, was revealed")

    # -- fates -------------------------------------------------------------------------------------------

    async def _prove(self, number: int, proposal: Proposal, block: Block) -> None:
        """Write that weights stand only after they were read back."""
        me = (await self._chain.metagraph()).by_hotkey(self._hotkey)
        standing = {} if me is None else await self._chain.weights_of(me.uid)
        if standing == proposal.weights:
            await self._succeed(number, proposal, block)
        else:
            await self._give_up(
                number,
                block,
                f"the chain took them in block {block}, but holds others: got {_first(standing)}, expected "
                f"{_first(proposal.weights)}",
            )

    async def _stands_since(self, proposal: Proposal, metagraph: Metagraph) -> Block | None:
        """The block of our last update, if that came of this proposal: its weights stand."""
        me = metagraph.by_hotkey(self._hotkey)
        if me is None or me.last_update is None or me.last_update < proposal.block:
            return None
        return me.last_update if await self._chain.weights_of(me.uid) == proposal.weights else None

    async def _is_outdated(self, number: int, proposal: Proposal, metagraph: Metagraph, block: Block) -> bool:
        """Whether a UID changed hands since: its new holder would get what the old one earned. Proposed anew then."""
        changed = [
            neuron.uid
            for neuron in metagraph.neurons
            if neuron.uid in proposal.weights and neuron.registered_at > proposal.block
        ]
        if not changed:
            return False
        self._propose_anew = True
        await self._give_up(number, block, f"UID {changed[0]} has another holder since they were proposed")
        return True

    async def _succeed(self, number: int, proposal: Proposal, block: Block) -> None:
        self._not_before.pop(number, None)
        pairs = tuple(sorted(proposal.weights.items()))
        await self._journal.append(
            WeightsSet(block=block, version_key=proposal.version_key, weights=pairs, proposal=number)
        )
        logger.info("weights_set", proposal=number, block=block, provers=len(pairs))

    async def _give_up(self, number: int, block: Block, reason: str) -> None:
        self._not_before.pop(number, None)
        logger.warning("weights_not_set", proposal=number, reason=reason)
        await self._journal.append(WeightsNotSet(block=block, reason=reason[:MAX_REASON], proposal=number))


def _first(weights: Mapping[Uid, int]) -> str:
    """The first few of a vector, for a sentence."""
    shown = ", ".join(f"{uid}: {weight}" for uid, weight in sorted(weights.items())[:5])
    return f"{len(weights)} weights" + (f" ({shown}{', …' if len(weights) > 5 else ''})" if weights else "")
