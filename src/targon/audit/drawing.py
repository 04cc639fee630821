"""Every draw of a verifier, made again from the secrets that it revealed.

The secret of an interval stands in the log where the interval is closed, which is after all that was drawn from it. So
the segments are searched for it ahead. In the interval that is still open nothing can be checked: it is counted, and
said.

A draw that fell on somebody who wasn't asked is no fault: the prover may have been busy, at its limit, or not serving,
which no log can show. But each is counted, so that who is passed over more often than others is seen.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

from targon.audit.chances import Chance
from targon.audit.faults import Faults
from targon.audit.lean import LeanAttempt
from targon.audit.revealed import Hmac, Secrets
from targon.audit.tallies import Counts, Tally
from targon.ledger import Attempt, Standings
from targon.protocol import audits, draws, public_key
from targon.protocol.errors import MalformedMessage
from targon.protocol.primitives import Block, Hotkey, Interval, Uid
from targon.protocol.schedule import MAX_BLOCK_AGE, interval_of
from targon.protocol.tiers import TIERS
from targon.verification import EvidenceState

_TWO_64: Final = 18_446_744_073_709_551_616.0
OWN_EARLIEST_BLOCKS: Final = MAX_BLOCK_AGE
"""It names the newest block that the verifier has noted, which may be so many before the one that drew it."""


@dataclass(slots=True)
class _Table:
    uids: Sequence[Uid]
    ends: Sequence[int]
    draws: int = 0
    """First draws that were made from it."""
    first: Counter[Uid] = field(default_factory=Counter)
    """How many of them fell on whom."""

    def pick(self, draw: int) -> Uid:
        return self.uids[bisect_right(self.ends, draw * self.ends[-1] >> 64)]


@dataclass(slots=True)
class _Asked:
    """What is kept of a prover that was ever asked, together: nearly all of it is looked at with every attempt."""

    tally: Tally
    key: bytes | None = None
    sent: int = 0
    """Attempts in this interval."""
    audits: int = 0
    """Answers of this interval that were audited."""
    limit: int | None = None
    """What an audit's draw must be below; forgotten when its standing changes."""
    mean: float = 0.0
    variance: float = 0.0
    """Of one such draw."""
    chance: Chance = field(default_factory=Chance)


@dataclass
class Drawing:
    """Makes the draws again, as the log is read.

    What is called for a record is called before it is folded in: ``standings`` is as of just before it.
    """

    standings: Standings
    secrets: Secrets
    faults: Faults
    counts: Counts = field(default_factory=Counts)
    tallies: dict[Hotkey, Tally] = field(default_factory=dict)
    _hmac: Hmac | None = None
    _asked: dict[Hotkey, _Asked] = field(default_factory=dict)
    _keys: dict[Hotkey, bytes] = field(default_factory=dict)
    _uids: dict[Hotkey, Uid] = field(default_factory=dict)
    _holders: dict[Uid, Hotkey] = field(default_factory=dict)
    _tables: dict[str, _Table] = field(default_factory=dict)
    _drawn: dict[int, bool] = field(default_factory=dict)
    """Whether an open inference was drawn for an audit."""
    _challenged: dict[Block, list[Hotkey]] = field(default_factory=dict)
    _owned: set[tuple[Block, Hotkey]] = field(default_factory=set)
    """Blocks whose draw for a prover brought it an inference of the verifier's own."""
    _due: dict[Hotkey, list[Block]] = field(default_factory=dict)
    """Blocks in which one was due, and didn't come yet."""
    _recent: dict[int, Hmac | None] = field(default_factory=dict)
    """The intervals from whose blocks an inference of the verifier's own may still come, the open one included."""
    audit_chances: dict[Hotkey, Chance] = field(default_factory=dict)
    """By prover, how many of the users' inferences were drawn for an audit."""
    route_chances: dict[Hotkey, Chance] = field(default_factory=dict)
    """By prover, on how many of the users' requests the first draw fell."""

    # -- who is there, and what is drawn from ----------------------------------------------------------

    def joined(self, hotkey: Hotkey, uid: Uid) -> None:
        self._uids[hotkey] = uid
        self._holders[uid] = hotkey

    def left(self, hotkey: Hotkey, uid: Uid) -> None:
        self._uids.pop(hotkey, None)
        self._holders.pop(uid, None)

    def interval_opened(self, seq: int, interval: Interval, block: Block, commitment: str) -> None:
        secret = self.secrets.of(interval)
        if secret is not None and draws.commitment(secret) != commitment:
            self.faults.add(
                "commitment",
                seq,
                f"the commitment {commitment[:12]}…",
                f"{draws.commitment(secret)[:12]}…, that of the secret that interval {interval} revealed",
            )
            secret = None
        self._hmac = None if secret is None else Hmac(secret)
        length = self.standings.profile.interval_blocks
        oldest = interval_of(Block(max(0, block - audits.OWN_LATEST_BLOCKS - OWN_EARLIEST_BLOCKS)), length)
        self._recent = {each: hmac for each, hmac in self._recent.items() if each >= oldest}
        self._recent[interval] = self._hmac
        self._owned = {(each, prover) for each, prover in self._owned if each >= oldest * length}

    def interval_closed(self) -> None:
        self._hmac = None
        for asked in self._asked.values():
            asked.limit, asked.audits, asked.sent = None, 0, 0
        for prover, blocks in self._due.items():
            self.tally(prover).own_missed += len(blocks)
        self._due.clear()

    def routes_set(self, model: str, shares: Sequence[tuple[Uid, int]]) -> None:
        self._add_up(model)
        self._tables[model] = _Table(
            [uid for uid, _ in shares], list(accumulate(share for _, share in shares))
        )

    def _add_up(self, model: str) -> None:
        """What was drawn from a table since it was set, or added up last."""
        table = self._tables.get(model)
        if table is None or not table.draws:
            return
        below = 0
        for uid, end in zip(table.uids, table.ends, strict=True):
            if (holder := self._holders.get(uid)) is not None:
                chance = self.route_chances.setdefault(holder, Chance())
                chance.add(table.first[uid], (end - below) / table.ends[-1], table.draws)
            below = end
        table.draws = 0
        table.first.clear()

    def add_up(self) -> None:
        """What was drawn so far."""
        for model in self._tables:
            self._add_up(model)

    def moved(self, prover: Hotkey) -> None:
        """A prover's standing changed in a way that its rate may hang on."""
        if (asked := self._asked.get(prover)) is not None:
            asked.limit = None

    def tally(self, prover: Hotkey) -> Tally:
        found = self.tallies.get(prover)
        if found is None:
            found = self.tallies[prover] = Tally()
        return found

    # -- attempts --------------------------------------------------------------------------------------

    def attempt(self, seq: int, event: Attempt | LeanAttempt) -> None:
        prover = event.prover
        asked = self._asked.get(prover)
        if asked is None:
            asked = self._asked[prover] = _Asked(self.tally(prover))
        asked.tally.attempts += 1
        asked.sent += 1
        if event.purpose == "challenge":
            self._challenged.setdefault(Block(event.block), []).append(prover)
            return
        hmac = self._hmac
        if hmac is None:
            self.counts.unchecked += 1
            return
        key = asked.key
        if key is None:
            key = asked.key = self._key(prover)
        route = event.route
        if route is None:
            self._own(seq, event, key)
            self._drawn[seq] = True
            return
        number = seq.to_bytes(8, "big")
        self._route(seq, number, event.model, prover, route.turn, route.instead_of, hmac)
        limit = asked.limit
        if limit is None:
            limit = self._look_up_limit(prover, asked)
        drawn = self._drawn[seq] = hmac.draw(b"audit" + number + key) < limit
        chance = asked.chance  # as Chance.add does
        chance.drawn += drawn
        chance.mean += asked.mean
        chance.variance += asked.variance

    def answered(self, seq: int, prover: Hotkey, number: int, audited: bool) -> None:
        asked = self._asked[prover]
        asked.tally.answered += 1
        if audited:
            asked.tally.audited += 1
            asked.audits += 1
        drawn = self._drawn.pop(number, None)
        if drawn is None:
            return
        self.counts.audits += 1
        if drawn is not audited:
            self.faults.add(
                "audit",
                seq,
                f"attempt {number} {'audited' if audited else 'not audited'}",
                f"{'an audit' if drawn else 'none'}, by the draw",
            )

    def ended(self, number: int) -> None:
        """An attempt ended without an answer."""
        self._drawn.pop(number, None)

    def _key(self, prover: Hotkey) -> bytes:
        key = self._keys.get(prover)
        if key is None:
            try:
                key = public_key(prover)
            except MalformedMessage as error:
                self.faults.add("malformed", f"prover {prover}", str(error), "a hotkey")
                key = bytes(32)
            self._keys[prover] = key
        return key

    def _look_up_limit(self, prover: Hotkey, asked: _Asked) -> int:
        """What an audit's draw must be below."""
        below = self._rate(prover) * _TWO_64
        asked.mean = below / _TWO_64
        asked.variance = asked.mean * (1.0 - asked.mean)
        asked.chance = self.audit_chances.setdefault(prover, asked.chance)
        asked.limit = math.ceil(below)  # a draw is an integer
        return asked.limit

    def _rate(self, prover: Hotkey) -> float:
        standing = self.standings.prover(prover)
        if standing is None:
            return 1.0
        said, log_e = standing.evidence, 0.0
        if said is not None:  # made of what the log says, which whoever hashes computes again
            try:
                log_e = EvidenceState.model_construct(**said).log_e
            except (AttributeError, TypeError, ValueError) as error:
                self.faults.add(
                    "evidence", f"prover {prover}", str(error), "evidence of this software's form"
                )
        return audits.audit_rate(standing.tier, on_probation=standing.on_probation, log_e=log_e)

    def _route(
        self,
        seq: int,
        number: bytes,
        model: str,
        prover: Hotkey,
        turn: int,
        instead_of: int | None,
        hmac: Hmac,
    ) -> None:
        table = self._tables.get(model)
        uid = self._uids.get(prover)
        if table is None or not table.uids:
            return  # the fold says that it has no share
        self.counts.routes += 1
        place = b"route" + number
        drawn = table.pick(hmac.draw(place + turn.to_bytes(4, "big")))
        first = drawn if not turn else table.pick(hmac.draw(place + bytes(4)))
        table.draws += 1
        table.first[first] += 1
        if drawn != uid:
            self.faults.add(
                "draw", seq, f"UID {uid} asked at turn {turn}", f"UID {drawn}, on whom that turn's draw falls"
            )
        if instead_of is not None and instead_of >= seq:
            self.faults.add("draw", seq, f"instead of attempt {instead_of}", "an attempt before it")
        if turn:
            before = {table.pick(hmac.draw(place + each.to_bytes(4, "big"))) for each in range(turn)}
            if uid in before:
                self.faults.add(
                    "draw",
                    seq,
                    f"UID {uid} asked at turn {turn}",
                    "it asked at the first turn that falls on it",
                )
            for passed in before:
                holder = self._holders.get(passed)
                if holder is not None:
                    self.tally(holder).passed_over += 1

    def _own(self, seq: int, event: Attempt | LeanAttempt, key: bytes) -> None:
        """One of the verifier's own must have been due, in its block or in one shortly before: it takes its time to be
        made, and is sent at a moment that is drawn.

        Of several that may have brought it, it is taken for that of the oldest: what comes later may still be of a
        newer one, but not of that.
        """
        prover, block = event.prover, event.block
        due = self._due.get(prover)
        if due:
            due.pop(0)
        length = self.standings.profile.interval_blocks
        oldest = max(0, block - audits.OWN_LATEST_BLOCKS + 1)
        for each in range(oldest, block + OWN_EARLIEST_BLOCKS + 1):
            interval = interval_of(Block(each), length)
            if (each, prover) in self._owned or interval not in self._recent:
                continue
            hmac = self._recent[interval]
            if hmac is None:
                self.counts.unchecked += 1  # it may have been due then
                return
            if self._own_due(hmac, Block(each), key, audited=0):
                self._owned.add((Block(each), prover))
                self.counts.own += 1
                return
        self.faults.add(
            "draw",
            seq,
            f"an inference of the verifier's own for {prover} in block {block}",
            f"none: none was due in the last {audits.OWN_LATEST_BLOCKS} blocks",
        )

    def _own_due(self, hmac: Hmac, block: Block, key: bytes, *, audited: int) -> bool:
        return audits.own_inference_due(
            hmac.draw(b"own" + block.to_bytes(8, "big") + key),
            audits=audited,
            interval_blocks=self.standings.profile.interval_blocks,
        )

    # -- steps -----------------------------------------------------------------------------------------

    def step_closed(self, seq: int, block: Block) -> None:
        """A block's challenges are all judged: who was drawn, and who was passed over?"""
        asked = self._challenged.pop(block, [])
        hmac = self._hmac
        if hmac is None:
            self.counts.unchecked += len(asked)
        else:
            if asked:
                self._ranks(seq, block, asked, hmac)
            for prover in self._uids:
                audited = 0 if (one := self._asked.get(prover)) is None else one.audits
                if audited < audits.OWN_PER_INTERVAL and self._own_due(
                    hmac, block, self._key(prover), audited=audited
                ):
                    self._due.setdefault(prover, []).append(block)

    def _ranks(self, seq: int, block: Block, asked: list[Hotkey], hmac: Hmac) -> None:
        self.counts.challenges += len(asked)
        prefix = b"select" + block.to_bytes(8, "big")
        chosen = set(asked)
        if len(chosen) < len(asked):
            self.faults.add(
                "draw",
                seq,
                f"{len(asked)} challenges of block {block}",
                f"{len(chosen)}, one for each prover drawn",
            )
        last = max(hmac.draw(prefix + self._key(prover)) for prover in asked)
        for prover in self._uids:
            if prover in chosen or hmac.draw(prefix + self._key(prover)) > last:
                continue
            standing, one = self.standings.prover(prover), self._asked.get(prover)
            if standing is not None and (0 if one is None else one.sent) < TIERS[standing.tier].request_limit:
                self.tally(prover).not_challenged += 1
