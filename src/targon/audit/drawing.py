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

from targon.audit.faults import Faults
from targon.audit.lean import LeanAttempt
from targon.ledger import Attempt, IntervalClosed, Standings, UnknownEvent, parse_event
from targon.protocol import audits, draws, public_key
from targon.protocol.errors import MalformedMessage
from targon.protocol.primitives import Block, Hotkey, Interval, Uid
from targon.protocol.tiers import TIERS
from targon.verification import EvidenceState

_IPAD: Final = bytes(byte ^ 0x36 for byte in range(256))
_OPAD: Final = bytes(byte ^ 0x5C for byte in range(256))
_TWO_64: Final = 18_446_744_073_709_551_616.0
OWN_LATEST_BLOCKS: Final = 30
"""An inference of the verifier's own is sent at most so many blocks after the one that drew it."""
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
class Tally:
    """What became of one prover's attempts, and how often the draw fell on it without one."""

    attempts: int = 0
    answered: int = 0
    audited: int = 0
    passed: int = 0
    failed: int = 0
    inconclusive: int = 0
    user_left: int = 0
    outrun: int = 0
    busy: int = 0
    passed_over: int = 0
    """Users' requests whose draw fell on it before it fell on who was asked."""
    not_challenged: int = 0
    """Blocks in which others were challenged whose rank was behind its own."""
    own_missed: int = 0
    """Blocks in which an inference of the verifier's own was due for it, and none was sent."""


@dataclass(slots=True)
class _Table:
    uids: Sequence[Uid]
    ends: Sequence[int]

    def pick(self, draw: int) -> Uid:
        return self.uids[bisect_right(self.ends, draw * self.ends[-1] >> 64)]


@dataclass(slots=True)
class Counts:
    """How many draws were made again, and how many could not be."""

    routes: int = 0
    audits: int = 0
    challenges: int = 0
    own: int = 0
    unchecked: int = 0
    """Attempts whose interval's secret is not revealed."""


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
    _since: int = 0
    """The block in which the interval was opened."""

    # -- who is there, and what is drawn from ----------------------------------------------------------

    def joined(self, hotkey: Hotkey, uid: Uid) -> None:
        self._uids[hotkey] = uid
        self._holders[uid] = hotkey

    def left(self, hotkey: Hotkey, uid: Uid) -> None:
        self._uids.pop(hotkey, None)
        self._holders.pop(uid, None)

    def interval_opened(self, seq: int, interval: Interval, block: Block, commitment: str) -> None:
        self._since = block
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

    def interval_closed(self) -> None:
        self._hmac = None
        self._limits.clear()
        self._audits.clear()
        self._sent.clear()
        for prover, blocks in self._due.items():
            self.tally(prover).own_missed += len(blocks)
        self._due.clear()
        self._owned.clear()

    def routes_set(self, model: str, shares: Sequence[tuple[Uid, int]]) -> None:
        self._tables[model] = _Table(
            [uid for uid, _ in shares], list(accumulate(share for _, share in shares))
        )

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
            self._own(seq, event, hmac, key)
            self._drawn[seq] = True
            return
        self._route(seq, event.model, prover, route.turn, route.instead_of, hmac)
        limit = self._limits.get(prover)
        if limit is None:
            limit = self._limits[prover] = self._rate(prover) * _TWO_64
        self._drawn[seq] = hmac.draw(b"audit" + number + key) < limit

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

    def _own(self, seq: int, event: Attempt | LeanAttempt, hmac: Hmac, key: bytes) -> None:
        """One of the verifier's own must have been due, in its block or in one shortly before: it takes its time to be
        made, and is sent at a moment that is drawn."""
        prover, block = event.prover, event.block
        due = self._due.get(prover)
        if due:
            due.pop(0)
        for each in range(block, max(self._since - 1, block - OWN_LATEST_BLOCKS), -1):
            if (each, prover) not in self._owned and self._own_due(hmac, Block(each), key, audited=0):
                self._owned.add((Block(each), prover))
                self.counts.own += 1
                return
        if block - self._since < OWN_LATEST_BLOCKS:
            return  # it may have been due in the interval before
        self.faults.add(
            "draw",
            seq,
            f"an inference of the verifier's own for {prover} in block {block}",
            f"none: none was due in the last {OWN_LATEST_BLOCKS} blocks",
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
