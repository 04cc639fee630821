"""Verdicts, held to what they follow from: a receipt of who was asked, observations, and the similarity of its tier.

The fold takes a verdict at its word. What it was judged by is looked at here, as far as the log tells: margins are not
in it, so that a similarity is known only to be no lower than the share of the tokens that are as drawn.
"""

from __future__ import annotations

from typing import Final

from targon.audit.faults import Faults
from targon.audit.lean import LeanAttempt, LeanBody
from targon.ledger import Attempt, Standings, Verdict
from targon.protocol.messages import ReceiptBody
from targon.protocol.primitives import Hotkey, u64_hex
from targon.protocol.rewards import COUNTED_DIALECTS
from targon.protocol.tiers import TIERS, Tier

METHOD: Final = "divergence"
"""The only method that lets counted work pass."""


class Judging:
    """Looks at each verdict just before it is folded in.

    Attributes:
        network: genesis, netuid and verifier, as the log was opened for them.
        models: what each model's digest is by the log, since it was opened, or since its newest calibration.
        unknown: receipts of work that earns nothing, which name a model that the log doesn't tell of.
    """

    def __init__(self, standings: Standings, faults: Faults) -> None:
        self.network: tuple[str, str, str] | None = None
        self.models: dict[str, str] = {}
        self.unknown = 0
        self._standings = standings
        self._faults = faults
        self._thresholds: dict[Hotkey, float] = {}
        """By prover, of its tier; forgotten when tiers settle."""
        self._least: dict[int, tuple[Hotkey, float]] = {}
        """By attempt without an outcome: its prover, and the lowest threshold that it had since."""

    def attempt(self, number: int, prover: Hotkey) -> None:
        self._least[number] = prover, self._thresholds.get(prover) or self._threshold(prover)

    def ended(self, number: int) -> None:
        """An attempt has its outcome, and nothing is judged any more."""
        self._least.pop(number, None)

    def tiers_settled(self) -> None:
        """An interval was closed: what is judged from here on may be judged by another tier."""
        self._thresholds.clear()
        for number, (prover, least) in self._least.items():
            self._least[number] = prover, min(least, self._threshold(prover))

    def convicted(self, convict: Hotkey) -> None:
        least = self._thresholds[convict] = TIERS[Tier.BRONZE].similarity_threshold
        for number, (prover, _) in self._least.items():
            if prover == convict:
                self._least[number] = prover, least

    def _threshold(self, prover: Hotkey) -> float:
        found = self._thresholds.get(prover)
        if found is None:
            standing = self._standings.prover(prover)
            tier = Tier.BRONZE if standing is None else standing.tier
            found = self._thresholds[prover] = TIERS[tier].similarity_threshold
        return found

    # -- what is looked at -----------------------------------------------------------------------------

    def receipt(
        self,
        seq: int,
        number: int,
        attempt: Attempt | LeanAttempt,
        body: ReceiptBody | LeanBody,
        *,
        earns: bool = True,
    ) -> None:
        """A receipt must name this verifier on its network, the attempt, who was asked, and for what; where the answer
        earns something, also the model as the log tells of it."""
        got = (body.genesis, str(body.netuid), body.verifier)
        if got != self.network:
            self._faults.add(
                "receipt",
                seq,
                f"a receipt for {body.verifier} on subnet {body.netuid} of {body.genesis[:12]}…",
                "one for this verifier, on its network",
            )
        said = (body.attempt, body.prover, body.request_digest, body.model)
        if said != (u64_hex(number), attempt.prover, attempt.request_digest, attempt.model):
            self._faults.add(
                "receipt",
                seq,
                f"a receipt of {body.prover} for attempt {int(body.attempt, 16)}, model {body.model}",
                f"one of {attempt.prover} for attempt {number}, model {attempt.model}, with the digest of its request",
            )

        if body.model_digest != self.models.get(attempt.model):
            self._model(seq, attempt, body, earns=earns)

    def _model(
        self, seq: int, attempt: Attempt | LeanAttempt, body: ReceiptBody | LeanBody, *, earns: bool
    ) -> None:
        """A verifier without a calibration tells of no new model; but nothing earns anything with it."""
        if not earns or not attempt.counted or attempt.dialect not in COUNTED_DIALECTS:
            self.unknown += 1
            return
        known = self.models.get(attempt.model)
        self._faults.add(
            "receipt",
            seq,
            f"a receipt for model {attempt.model} with digest {body.model_digest[:12]}…",
            "one for a model that the log tells of" if known is None else f"{known[:12]}…, as the log tells",
        )

    def verdict(self, seq: int, event: Verdict, attempt: Attempt | LeanAttempt) -> None:
        """What a verdict says must follow from something."""
        number = event.attempt
        _, least = self._least.pop(number, (None, 0.0))
        if event.receipt is not None:
            self.receipt(seq, number, attempt, event.receipt.body, earns=event.outcome == "pass")
        if not attempt.counted or attempt.dialect not in COUNTED_DIALECTS:
            return
        proven = event.receipt is not None and event.observed is not None and event.evidence_after is not None
        if event.tokens and not proven:
            self._wrong(
                seq, f"{event.tokens} verified tokens of attempt {number}", "none without observations"
            )
        if event.outcome != "pass":
            return
        if not proven or event.method != METHOD:
            self._wrong(
                seq,
                f"attempt {number} passed by {event.method!r}, without receipt, observations and evidence"
                if not proven
                else f"attempt {number} passed by {event.method!r}",
                f"all three, and {METHOD!r}: nothing else lets work that counts pass",
            )
        if event.score < least:
            self._wrong(
                seq,
                f"attempt {number} passed with similarity {event.score:g}",
                f"at least {least:g}, as its prover's tier wants",
            )
        if attempt.purpose == "inference" and number not in self._standings.under_audit:
            self._faults.add(
                "audit",
                seq,
                f"inference {number} passed without an answer",
                "its answer in the log first, audited if it was drawn",
            )

    def _wrong(self, seq: int, got: str, expected: str) -> None:
        self._faults.add("evidence", seq, got, expected)
