"""How few tokens could convict: what the mismatches of each attack tell, per token, against the tolerance.

Bets that knew an attack's own mismatch rates beforehand would gain, per token, the relative entropy between
those rates and 1.5 times the honest ones, per stratum of the gap (Kelly 1956). ln 10,000 divided by that is
the fewest tokens, on average, that any bets on mismatches need. Strata are finer here than the evidence's own.

python -m benchmarks.limits ATTACKS HONEST     folders in which ``targon redteam`` and ``targon calibrate`` keep
                                               answers and their replays
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from targon.protocol.conviction import LOG_CONVICTION
from targon.verification.calibration import TOLERANCE
from targon.verification.observations import Observations
from targon.verification.replays import load_replays
from targon.verification.transcripts import read_transcripts

EDGES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 2.0, 4.0)

Array = NDArray[np.float64]


def rates(answers: Iterable[Observations]) -> tuple[Array, Array]:
    """Per stratum the share of sure positions, and of mismatches among them."""
    pairs = [(one.gaps[~one.unsure], one.mismatched[~one.unsure]) for one in answers]
    strata = np.searchsorted(EDGES, np.concatenate([gaps for gaps, _ in pairs]), side="right")
    mismatched = np.concatenate([flags for _, flags in pairs])
    count = np.bincount(strata, minlength=len(EDGES) + 1)
    hits = np.bincount(strata[mismatched], minlength=len(EDGES) + 1)
    return count / count.sum(), (hits + 0.5) / (count + 1.0)


def nats_per_token(shares: Array, attack: Array, honest: Array) -> float:
    """The most that bets on mismatches gain per token."""
    bound = np.minimum(0.99, TOLERANCE * honest)
    gain = attack * np.log(attack / bound) + (1.0 - attack) * np.log((1.0 - attack) / (1.0 - bound))
    return float((shares * np.where(attack > bound, gain, 0.0)).sum())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.limits", description=__doc__)
    parser.add_argument("attacks", type=Path)
    parser.add_argument("honest", type=Path)
    options = parser.parse_args(arguments)
    _, honest = rates(_all(sorted(options.honest.glob("*.jsonl"))))
    for path in sorted(options.attacks.glob("*.jsonl")):
        found = list(_all([path]))
        if found:
            gain = nats_per_token(*rates(found), honest)
            fewest = f"{LOG_CONVICTION / gain:,.0f} tokens" if gain > 0.0 else "never"
            sys.stdout.write(f"{path.stem:<20} {gain:.4f} nats a token: {fewest}\n")
    return 0


def _all(files: Iterable[Path]) -> Iterable[Observations]:
    """What was observed in files of answers whose replays lie beside them, at usual parameters."""
    for path in files:
        for beside in sorted(path.parent.glob(f"{path.stem}.*.npz"))[-1:]:
            kept = load_replays(beside)
            for one in read_transcripts(path):
                replayed = kept.get(f"{one.number}-{one.digest()[:16]}")
                usual = (
                    one.sampling.temperature >= 0.3 and one.sampling.top_p >= 0.9 and not one.sampling.top_k
                )
                if replayed is not None and usual:
                    yield Observations.of(replayed.replay, one.sampling.temperature)


if __name__ == "__main__":
    sys.exit(main())
