"""Every draw of a verifier, made again from the secrets that it revealed.

The secret of an interval stands in the log where the interval is closed, which is after all that was drawn from it. So
the segments are searched for it ahead. In the interval that is still open nothing can be checked: it is counted, and
said.

A draw that fell on somebody who wasn't asked is no fault: the prover may have been busy, at its limit, or not serving,
which no log can show. But each is counted, so that who is passed over more often than others is seen.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

from targon.audit.chances import Chance
from targon.audit.faults import Faults
from targon.audit.lean import LeanAttempt
from targon.audit.tallies import Counts, Tally
from targon.ledger import Attempt, IntervalClosed, Standings, UnknownEvent, parse_event
from targon.protocol import audits, draws, public_key
from targon.protocol.errors import MalformedMessage
from targon.protocol.primitives import Block, Hotkey, Interval, Uid
from targon.protocol.schedule import MAX_BLOCK_AGE, interval_of
from targon.protocol.tiers import TIERS
from targon.verification import EvidenceState

_IPAD: Final = bytes(byte ^ 0x36 for byte in range(256))
_OPAD: Final = bytes(byte ^ 0x5C for byte in range(256))
_TWO_64: Final = 18_446_744_073_709_551_616.0
OWN_EARLIEST_BLOCKS: Final = MAX_BLOCK_AGE
"""It names the newest block that the verifier has noted, which may be so many before the one that drew it."""
_CLOSED: Final = b'"kind":"interval_closed","'


class Hmac:
    """HMAC-SHA256 under one key, for many short messages: the key is hashed once (RFC 2104)."""

    def __init__(self, key: bytes) -> None:
        block = (key if len(key) <= 64 else hashlib.sha256(key).digest()).ljust(64, b"\0")
        self._inner = hashlib.sha256(block.translate(_IPAD))
        self._outer = hashlib.sha256(block.translate(_OPAD))

    def draw(self, message: bytes) -> int:
        """The first 64 bits, as every draw takes them."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(message)
        outer.update(inner.digest())
        return int.from_bytes(outer.digest()[:8], "big")


class Secrets:
    """The secrets that the log reveals, found ahead of where they are needed.

    Args:
        contents: the segments' contents from the first on, each read when it is asked for.
    """

    def __init__(self, contents: Iterator[bytes]) -> None:
        self._contents = contents
        self._known: dict[int, bytes] = {}

    def of(self, interval: int) -> bytes | None:
        """An interval's secret; None: the log doesn't reveal it (yet)."""
        while interval not in self._known:
            content = next(self._contents, None)
            if content is None:
                return None
            for closed in _closings(content):
                self._known.setdefault(closed.interval, bytes.fromhex(closed.secret))
        return self._known[interval]


def _closings(content: bytes) -> Iterator[IntervalClosed]:
    at = content.find(_CLOSED)
    while at >= 0:
        start, end = content.rfind(b"\n", 0, at) + 1, content.find(b',"hash":"', at)
        try:
            event = parse_event(content[start + 9 : end])
        except UnknownEvent:
            event = None
        if isinstance(event, IntervalClosed):
            yield event
        at = content.find(_CLOSED, at + 1)


@dataclass(slots=True)
class _Table:
    uids: Sequence[Uid]
    ends: Sequence[int]
    draws: int = 0
    """First draws that were made from it."""
    first: dict[Uid, int] = field(default_factory=dict)
    """How many of them fell on whom."""

    def pick(self, draw: int) -> Uid:
        return self.uids[bisect_right(self.ends, draw * self.ends[-1] >> 64)]


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
    _keys: dict[Hotkey, bytes] = field(default_factory=dict)
    _uids: dict[Hotkey, Uid] = field(default_factory=dict)
    _holders: dict[Uid, Hotkey] = field(default_factory=dict)
    _tables: dict[str, _Table] = field(default_factory=dict)
    _limits: dict[Hotkey, float] = field(default_factory=dict)
    """What an audit's draw must be below, by prover; forgotten when its standing changes."""
    _drawn: dict[int, bool] = field(default_factory=dict)
    """Whether an open inference was drawn for an audit."""
    _challenged: dict[Block, list[Hotkey]] = field(default_factory=dict)
    _audits: dict[Hotkey, int] = field(default_factory=dict)
    _sent: dict[Hotkey, int] = field(default_factory=dict)
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
        self._limits.clear()
        self._audits.clear()
        self._sent.clear()
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
                chance.add(table.first.get(uid, 0), (end - below) / table.ends[-1], table.draws)
            below = end
        table.draws = 0
        table.first.clear()

    def add_up(self) -> None:
        """What was drawn so far."""
        for model in self._tables:
            self._add_up(model)

    def moved(self, prover: Hotkey) -> None:
        """A prover's standing changed in a way that its rate may hang on."""
        self._limits.pop(prover, None)

    def tally(self, prover: Hotkey) -> Tally:
        found = self.tallies.get(prover)
        if found is None:
            found = self.tallies[prover] = Tally()
        return found

    # -- attempts --------------------------------------------------------------------------------------

    def attempt(self, seq: int, event: Attempt | LeanAttempt) -> None:
        prover = event.prover
        tally = self.tally(prover)
        tally.attempts += 1
        self._sent[prover] = self._sent.get(prover, 0) + 1
        if event.purpose == "challenge":
            self._challenged.setdefault(Block(event.block), []).append(prover)
            return
        hmac = self._hmac
        if hmac is None:
            self.counts.unchecked += 1
            return
        key = self._key(prover)
        number = seq.to_bytes(8, "big")
        route = event.route
        if route is None:
            self._own(seq, event, key)
            self._drawn[seq] = True
            return
        self._route(seq, event.model, prover, route.turn, route.instead_of, hmac)
        limit = self._limits.get(prover)
        if limit is None:
            limit = self._limits[prover] = self._rate(prover) * _TWO_64
        drawn = self._drawn[seq] = hmac.draw(b"audit" + number + key) < limit
        chance = self.audit_chances.get(prover)
        if chance is None:
            chance = self.audit_chances[prover] = Chance()
        chance.add(drawn, limit / _TWO_64)

    def answered(self, seq: int, prover: Hotkey | None, number: int, audited: bool) -> None:
        if prover is None:
            return  # the fold says what is wrong
        tally = self.tally(prover)
        tally.answered += 1
        if audited:
            tally.audited += 1
            self._audits[prover] = self._audits.get(prover, 0) + 1
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
        self, seq: int, model: str, prover: Hotkey, turn: int, instead_of: int | None, hmac: Hmac
    ) -> None:
        table = self._tables.get(model)
        uid = self._uids.get(prover)
        if table is None or not table.uids:
            return  # the fold says that it has no share
        self.counts.routes += 1
        place = b"route" + seq.to_bytes(8, "big")
        drawn = table.pick(hmac.draw(place + turn.to_bytes(4, "big")))
        first = drawn if not turn else table.pick(hmac.draw(place + bytes(4)))
        table.draws += 1
        table.first[first] = table.first.get(first, 0) + 1
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
        made, and is sent at a moment that is drawn."""
        prover, block = event.prover, event.block
        due = self._due.get(prover)
        if due:
            due.pop(0)
        length = self.standings.profile.interval_blocks
        for each in range(block + OWN_EARLIEST_BLOCKS, max(-1, block - audits.OWN_LATEST_BLOCKS), -1):
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
                audited = self._audits.get(prover, 0)
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
            standing = self.standings.prover(prover)
            if standing is not None and self._sent.get(prover, 0) < TIERS[standing.tier].request_limit:
                self.tally(prover).not_challenged += 1
