"""The evidence about every prover, computed again from what was observed.

The log names the calibration by its digest. Which of its bands a completion was judged by hangs on the length of its
prompt, which no log tells; so each band is tried, and one must give the very state that the log has.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from targon.audit.faults import Faults
from targon.protocol.conviction import LOG_CONVICTION
from targon.protocol.errors import MalformedMessage
from targon.protocol.primitives import Digest, Hotkey
from targon.verification import (
    Bets,
    Calibration,
    EvidenceState,
    Gain,
    Observations,
    advance,
    advance_by,
    bets_of,
    gains_of,
    load_calibration,
)
from targon.verification.shipped import SHIPPED


def calibrations_at_hand(places: Iterable[Path] = ()) -> dict[Digest, Calibration]:
    """The calibrations that come with the software, and those in files or folders, by digest.

    Raises:
        CalibrationError: if one of them can't be used.
    """
    found = {}
    for place in [*places, SHIPPED]:
        for path in sorted(place.glob("*.json")) if place.is_dir() else [place]:
            calibration = load_calibration(path)
            found[calibration.digest()] = calibration
    return found


TOGETHER: Final = 128
TOGETHER_BYTES: Final = 1 << 20
"""So many events, or about so many bytes of them, are looked at together."""


@dataclass
class Proving:
    """Follows each prover's evidence through the log. It takes events as JSON: those that the fold takes as well."""

    calibrations: dict[Digest, Calibration]
    faults: Faults = field(default_factory=Faults)
    checked: int = 0
    unchecked: int = 0
    """Verdicts whose calibration is not at hand."""
    missing: set[Digest] = field(default_factory=set)
    """The calibrations that are not at hand."""
    _states: dict[Hotkey, EvidenceState] = field(default_factory=dict)
    _adopted: dict[str, Digest] = field(default_factory=dict)
    """By model, the calibration that its verdicts are judged by."""
    _bets: dict[Digest, list[Bets]] = field(default_factory=dict)
    _due: tuple[int, int, Hotkey] | None = None
    """Record, attempt and prover of a verdict after which a conviction must stand."""
    _taken: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    """Records that are to be looked at together."""
    _taken_bytes: int = 0

    def take(self, seq: int, event: dict[str, Any], size: int) -> None:
        """Take in a record's event: of any kind but those whose lines fill a log, which say nothing of evidence.

        What isn't of its kind's form is left to the fold.

        Args:
            size: bytes of the event.
        """
        self._taken.append((seq, event))
        self._taken_bytes += size
        if len(self._taken) >= TOGETHER or self._taken_bytes >= TOGETHER_BYTES:
            self.settle(seq + 1)

    def settle(self, seq: int) -> None:
        """Look at what was taken in.

        Args:
            seq: of the next record: all before it were looked at, whether they were taken in or not.
        """
        taken, self._taken, self._taken_bytes = self._taken, [], 0
        gains = self._gains([event for _, event in taken])
        for number, (place, event) in enumerate(taken):
            self._nothing_due(place)
            self._look(place, event, gains.get(number))
        self._nothing_due(seq)

    def _nothing_due(self, seq: int) -> None:
        """A conviction that was due stands right after its verdict, if it stands before this record at all."""
        if self._due is not None and self._due[0] + 1 < seq:
            self._other(self._due[0] + 1)

    def _gains(self, events: list[dict[str, Any]]) -> dict[int, Gain]:
        """What completions added to the bets, by place: of those for which it could be computed together with others',
        by the band that was right last."""
        places: dict[Digest, list[int]] = {}
        for place, event in enumerate(events):
            if event.get("kind") == "calibration_adopted":
                break  # what follows may be judged by that
            try:
                digest = self._adopted.get(event["receipt"]["body"]["model"])
            except (KeyError, TypeError):
                continue
            if digest in self.calibrations and isinstance(event.get("observed"), str):
                places.setdefault(digest, []).append(place)
        found: dict[int, Gain] = {}
        for digest, those in places.items():
            gains = gains_of([events[place]["observed"] for place in those], self._bets_of(digest)[0])
            found.update(zip(those, gains or (), strict=False))
        return found

    def _look(self, seq: int, event: dict[str, Any], gain: Gain | None) -> None:
        kind = event.get("kind")
        try:
            if kind == "prover_convicted":
                self._convicted(seq, event)
                return
            self._other(seq)
            if kind == "verdict":
                self._verdict(seq, event, gain)
            elif kind == "calibration_adopted":
                self._adopted[str(event["model"])] = Digest(event["calibration"])
        except (KeyError, TypeError, ValueError, MalformedMessage) as error:
            self.faults.add(
                "evidence", seq, f"{type(error).__name__}: {error}", "evidence of this software's form"
            )

    def _other(self, seq: int) -> None:
        """Any record but a conviction: none may be due."""
        due, self._due = self._due, None
        if due is not None:
            self.faults.add(
                "evidence",
                seq,
                f"no conviction of {due[2]}",
                f"one, as its evidence reached the bound with record {due[0]}",
            )

    def _verdict(self, seq: int, event: dict[str, Any], gain: Gain | None) -> None:
        said, observed = event.get("evidence_after"), event.get("observed")
        if said is None:
            if observed is not None:
                self.faults.add("evidence", seq, "observations without evidence", "what it became")
            return
        receipt = event["receipt"]
        if receipt is None:
            self.faults.add("evidence", seq, "evidence of an answer without a receipt", "its receipt")
            return
        prover = Hotkey(receipt["body"]["prover"])
        digest = self._adopted.get(receipt["body"]["model"])
        after = None
        if digest is None or digest not in self.calibrations or observed is None:
            self.unchecked += 1
            if digest is not None and digest not in self.calibrations:
                self.missing.add(digest)
        else:
            after = self._as_said(event, prover, gain)
            if after is None:
                after = self._after(seq, event, prover, digest)
            self.checked += 1
        if after is None:
            after = EvidenceState.from_json(said)
        self._states[prover] = after
        if after.convicted:
            self._due = seq, event["attempt"], prover

    def _bets_of(self, digest: Digest) -> list[Bets]:
        """A calibration's bets by band, first those of the one that was right last."""
        bets = self._bets.get(digest)
        if bets is None:
            bets = self._bets[digest] = [bets_of(band) for band in self.calibrations[digest].bands]
        return bets

    def _as_said(self, event: dict[str, Any], prover: Hotkey, gain: Gain | None) -> EvidenceState | None:
        """What the evidence has become, if all is as the log says by what was computed already; None: it is to be
        computed by itself, which says what is wrong."""
        if gain is None:
            return None
        least = 1.0 - gain.mismatches / max(1, gain.positions)
        if event["tokens"] != gain.positions or _too_low(event, gain.mismatches, least):
            return None
        after = advance_by(self._states.get(prover, EvidenceState()), gain)
        return after if after is not None and after.to_json() == event["evidence_after"] else None

    def _after(self, seq: int, event: dict[str, Any], prover: Hotkey, digest: Digest) -> EvidenceState | None:
        """What the evidence has become; None where that is not what the log says."""
        bets = self._bets_of(digest)
        observed, said = Observations.unpack(event["observed"]), event["evidence_after"]
        before = self._states.get(prover, EvidenceState())
        self._score(seq, event, observed)
        for place, each in enumerate(bets):
            after = advance(before, observed, each)
            if after.to_json() == said:
                if place:  # the next one will be of the same band, most likely
                    bets.insert(0, bets.pop(place))
                if event["tokens"] != observed.positions:
                    self.faults.add(
                        "evidence",
                        seq,
                        f"{event['tokens']} verified tokens",
                        f"{observed.positions}, as observed",
                    )
                return after
        self.faults.add(
            "evidence",
            seq,
            f"ln e = {EvidenceState.from_json(said).log_e!r}",
            f"{advance(before, observed, bets[0]).log_e!r}, from what was observed",
        )
        return None

    def _score(self, seq: int, event: dict[str, Any], observed: Observations) -> None:
        """A token that is as drawn can't count against an answer, by whatever margin it is judged."""
        mismatches = int(observed.mismatched.sum())
        least = 1.0 - mismatches / max(1, observed.positions)
        if _too_low(event, mismatches, least):
            self.faults.add(
                "evidence",
                seq,
                f"attempt {event['attempt']}: {event['outcome']} with similarity {event['score']:g}",
                f"at least {least:g}: {mismatches} of {observed.positions} tokens are not as drawn",
            )

    def _convicted(self, seq: int, event: dict[str, Any]) -> None:
        """A conviction must be due, and say what the evidence says."""
        prover = Hotkey(event["prover"])
        state = self._states.pop(prover, None)
        due, self._due = self._due, None
        if state is None or due is None or due[1:] != (event["attempt"], prover):
            self.faults.add(
                "evidence",
                seq,
                f"{prover} convicted",
                "evidence that reached its bound with the record before",
            )
            return
        said = (event["log_e"], event["tokens"], event["completions"])
        found = (max(state.log_peak, LOG_CONVICTION), state.convicted_at, state.completions)
        if said != found:
            self.faults.add("evidence", seq, f"convicted with ln e, tokens, completions {said}", str(found))


def _too_low(event: dict[str, Any], mismatches: int, least: float) -> bool:
    """Whether an answer is said to be worse than its tokens can make it."""
    return bool(event["score"] < least - 1e-9 or (event["outcome"] == "fail" and not mismatches))
