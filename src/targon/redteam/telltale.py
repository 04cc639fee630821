"""Can a prover tell a challenge from a user's request? A classifier that tries, and how far it gets.

It sees what a prover sees: the conversation, the sampling parameters, when a request comes, and the block and the
attempt's number that it names. Words go through
a logistic regression over hashed n-grams; its score and all numbers go through boosted trees. How far they get
is the area under the ROC curve (AUC) on requests that the classifier was not trained on: 0.5 is guessing, 1.0 is
knowing. Requests that share a subject (a passage, a user's conversation) are never split between training and
trying, so that nothing is learned by heart.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from targon.protocol.messages import ChatMessage

Group = Literal["content", "parameters", "timing", "all"]
GROUPS: Final[tuple[Group, ...]] = ("content", "parameters", "timing", "all")
"""What a classifier may look at."""

WORD_BUCKETS: Final = 1 << 14
"""N-grams are hashed into so many."""
FOLDS: Final = 5
RESAMPLES: Final = 300
TRIGRAM: Final = 3

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sighting:
    """One request, as the prover that received it saw it.

    Attributes:
        offset_s: seconds from its block's beginning to its arrival.
        pause_s: seconds since the last request of any kind.
        subject: requests with equal subjects are not independent.
        block_age: blocks between the one that it names and the newest when it came.
        behind: by how much its attempt's number is lower than the highest that came before; 0: it is the highest.
        choice: its index among the answers that were asked for together.
    """

    messages: tuple[ChatMessage, ...]
    temperature: float
    top_p: float
    top_k: int
    stop: tuple[str, ...]
    max_tokens: int
    offset_s: float
    pause_s: float
    subject: str
    block_age: int = 0
    behind: int = 0
    choice: int = 0


@dataclass(frozen=True, slots=True)
class Telltale:
    """How well a classifier does that looks at one group of features: its AUC, and a 95% interval of it."""

    group: Group
    auc: float
    low: float
    high: float


NUMBERS: Final[dict[str, tuple[Group, Callable[[Sighting], float]]]] = {
    "messages": ("content", lambda seen: len(seen.messages)),
    "has a system message": ("content", lambda seen: seen.messages[0].role == "system"),
    "characters of the last message": ("content", lambda seen: len(_last(seen))),
    "characters of the whole": ("content", lambda seen: sum(len(one.content) for one in seen.messages)),
    "lines of the last message": ("content", lambda seen: _last(seen).count("\n")),
    "begins in lower case": ("content", lambda seen: _last(seen)[:1].islower()),
    "ends with a question mark": ("content", lambda seen: _last(seen).endswith("?")),
    "ends with a full stop": ("content", lambda seen: _last(seen).endswith(".")),
    "share of capitals": ("content", lambda seen: _share(_last(seen), str.isupper)),
    "share of digits": ("content", lambda seen: _share(_last(seen), str.isdigit)),
    "length of words": ("content", lambda seen: len(_last(seen)) / (1 + len(_last(seen).split()))),
    "temperature": ("parameters", lambda seen: seen.temperature),
    "top-p": ("parameters", lambda seen: seen.top_p),
    "top-k": ("parameters", lambda seen: seen.top_k),
    "max_tokens": ("parameters", lambda seen: seen.max_tokens),
    "max_tokens modulo 10": ("parameters", lambda seen: seen.max_tokens % 10),
    "stop strings": ("parameters", lambda seen: len(seen.stop)),
    "characters of the stop strings": ("parameters", lambda seen: sum(map(len, seen.stop))),
    "choice": ("parameters", lambda seen: seen.choice),
    "age of the block": ("timing", lambda seen: seen.block_age),
    "attempt number behind the highest": ("timing", lambda seen: seen.behind),
    "offset within the block": ("timing", lambda seen: seen.offset_s),
    "pause before": ("timing", lambda seen: seen.pause_s),
}
"""By name: the group that a number belongs to, and the number."""


def telltales(
    organic: Sequence[Sighting],
    challenges: Sequence[Sighting],
    groups: Sequence[Group] = GROUPS,
    seed: int = 0,
) -> tuple[Telltale, ...]:
    """How well each group of features tells challenges from organic requests.

    Args:
        seed: of the folds and of the interval's resampling.

    Raises:
        ValueError: if either side has fewer requests, or fewer subjects, than there are folds.
    """
    for name, side in (("organic", organic), ("challenges", challenges)):
        if len({seen.subject for seen in side}) < FOLDS:
            raise ValueError(f"{name}: got fewer than {FOLDS} subjects, expected at least one for each fold")
    sightings = [*organic, *challenges]
    truth = np.repeat([0.0, 1.0], [len(organic), len(challenges)])
    rng = np.random.default_rng(seed)
    folds = _folds(sightings, truth, rng)
    words = _words_scores(sightings, truth, folds) if {"content", "all"} & set(groups) else []
    found = []
    for group in groups:
        scores = _tree_scores(sightings, truth, folds, words, group)
        low, high = _interval(truth, scores, folds, rng)
        found.append(Telltale(group, _auc_within(truth, scores, folds), low, high))
    return tuple(found)


def auc_alone(organic: Sequence[Sighting], challenges: Sequence[Sighting]) -> list[tuple[str, float]]:
    """The numbers by name, each with its own AUC (0.5 and more), the most telling first."""
    truth = np.repeat([0.0, 1.0], [len(organic), len(challenges)])
    found = []
    for name, (_, number) in NUMBERS.items():
        alone = auc(truth, np.array([float(number(seen)) for seen in (*organic, *challenges)]))
        found.append((name, max(alone, 1.0 - alone)))
    return sorted(found, key=lambda one: -one[1])


def telling_words(
    organic: Sequence[Sighting], challenges: Sequence[Sighting], count: int
) -> tuple[list[str], list[str]]:
    """The n-grams that speak most for a user's request, and those that speak most for a challenge."""
    sightings = [*organic, *challenges]
    truth = np.repeat([0.0, 1.0], [len(organic), len(challenges)])
    weights = _Words(sightings).fit(np.arange(len(sightings)), truth)
    seen: Counter[str] = Counter()
    for sighting in sightings:
        seen.update(set(_ngrams(sighting)))
    named: dict[int, str] = {}
    for gram, _ in seen.most_common():
        named.setdefault(_bucket(gram), gram)
    order = [place for place in np.argsort(weights[:-1]) if place in named]
    return [named[place] for place in order[:count]], [named[place] for place in order[::-1][:count]]


def auc(truth: Floats, scores: Floats) -> float:
    """The chance that a challenge has the higher score of a challenge and an organic request; ties count half.

    Args:
        truth: 1.0 for a challenge, 0.0 for an organic request.
    """
    values, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks = (ends - (counts - 1) / 2)[place]
    ones = truth.sum()
    assert values.size  # both sides have sightings
    return float((ranks[truth == 1.0].sum() - ones * (ones + 1) / 2) / (ones * (truth.size - ones)))


def _auc_within(truth: Floats, scores: Floats, folds: NDArray[np.int64]) -> float:
    """The AUC over pairs of one fold. Scores of two folds come from two classifiers, and don't compare."""
    parts = [(truth[folds == fold], scores[folds == fold]) for fold in range(FOLDS)]
    pairs = np.array([labels.sum() * (labels.size - labels.sum()) for labels, _ in parts])
    aucs = [auc(*part) if count else 0.0 for part, count in zip(parts, pairs, strict=True)]
    return float(np.average(aucs, weights=pairs))


def _interval(
    truth: Floats, scores: Floats, folds: NDArray[np.int64], rng: np.random.Generator
) -> tuple[float, float]:
    """A 95% bootstrap interval of the AUC; each side is resampled by itself."""
    zeros, ones = np.flatnonzero(truth == 0.0), np.flatnonzero(truth == 1.0)
    found = []
    for _ in range(RESAMPLES):
        chosen = np.concatenate([rng.choice(zeros, zeros.size), rng.choice(ones, ones.size)])
        found.append(_auc_within(truth[chosen], scores[chosen], folds[chosen]))
    low, high = np.quantile(found, (0.025, 0.975))
    return float(low), float(high)


def _folds(sightings: Sequence[Sighting], truth: Floats, rng: np.random.Generator) -> NDArray[np.int64]:
    """The fold of each sighting; equal subjects are in one fold, and the subjects of a side are spread evenly."""
    dealt: dict[str, int] = {}
    for side in (truth == 0.0, truth == 1.0):
        subjects = sorted(
            {seen.subject for seen, here in zip(sightings, side, strict=True) if here} - dealt.keys()
        )
        dealt |= zip(subjects, (rng.permutation(len(subjects)) % FOLDS).tolist(), strict=True)
    return np.array([dealt[seen.subject] for seen in sightings])


# -- words: logistic regression over hashed n-grams -----------------------------------------------------


def _last(seen: Sighting) -> str:
    return seen.messages[-1].content


def _share(text: str, kind: Callable[[str], bool]) -> float:
    return sum(map(kind, text)) / (1 + len(text))


def _ngrams(seen: Sighting) -> Iterator[str]:
    """Words and pairs of words of each message, under its role; runs of three characters of the last one."""
    for message in seen.messages:
        role = message.role[0]
        words = re.findall(r"\w+|[^\w\s]", message.content.lower())
        yield from (f"{role}:{word}" for word in words)
        yield from (f"{role}:{one} {two}" for one, two in pairwise(words))
    text = _last(seen)
    yield from (f"…{text[place : place + TRIGRAM]}" for place in range(len(text) - TRIGRAM + 1))


def _bucket(gram: str) -> int:
    return crc32(gram.encode()) % WORD_BUCKETS


class _Words:
    """Hashed n-grams of many sightings as rows of a sparse matrix, each of length 1."""

    def __init__(self, sightings: Sequence[Sighting]) -> None:
        rows = [np.unique([_bucket(gram) for gram in _ngrams(seen)] or [0]) for seen in sightings]
        self._sizes = np.array([row.size for row in rows])
        self._starts = np.concatenate([[0], np.cumsum(self._sizes)[:-1]])
        self._columns = np.concatenate(rows)
        self._values = np.repeat(self._sizes**-0.5, self._sizes)

    def scores(self, weights: Floats) -> Floats:
        """The score of each row; the last weight is added to all."""
        parts: Floats = np.add.reduceat(self._values * weights[self._columns], self._starts) + weights[-1]
        return parts

    def fit(self, rows: NDArray[np.int64], truth: Floats, rounds: int = 80, decay: float = 3e-5) -> Floats:
        """Weights that tell the rows apart: logistic loss, squared penalty, Nesterov's descent."""
        chosen = np.zeros(self._sizes.size)
        chosen[rows] = 1.0 / rows.size
        weights = np.zeros(WORD_BUCKETS + 1)
        ahead = weights
        for turn in range(rounds):
            residual = chosen * (_sigmoid(self.scores(ahead)) - truth)
            slope = np.bincount(
                self._columns, self._values * np.repeat(residual, self._sizes), minlength=WORD_BUCKETS + 1
            )
            slope[-1] = residual.sum()
            new = ahead - 2.0 * (slope + decay * ahead)
            ahead = new + turn / (turn + 3) * (new - weights)
            weights = new
        return weights


def _words_scores(sightings: Sequence[Sighting], truth: Floats, folds: NDArray[np.int64]) -> list[Floats]:
    """For each fold, every sighting's score by words, as the classifier that tries that fold may know it.

    A sighting of the fold is scored by what was learned of the others; one of the others by what was learned
    of the others without its own fold, so that the trees learn how far the score is to be trusted.
    """
    words = _Words(sightings)

    def learned_without(*left_out: int) -> Floats:
        return words.scores(words.fit(np.flatnonzero(~np.isin(folds, left_out)), truth))

    found = []
    for fold in range(FOLDS):
        scores = learned_without(fold)
        inner = (folds + 1) // 2 % 2  # the other folds in two halves
        for half in (0, 1):
            mine = (folds != fold) & (inner == half)
            scores = np.where(mine, learned_without(fold, *{int(one) for one in folds[mine]}), scores)
        found.append(scores)
    return found


# -- numbers: boosted trees -----------------------------------------------------------------------------


def _tree_scores(
    sightings: Sequence[Sighting],
    truth: Floats,
    folds: NDArray[np.int64],
    words: Sequence[Floats],
    group: Group,
) -> Floats:
    """Every sighting's score by trees that were grown without its fold."""
    numbers = [
        np.array([float(number(seen)) for seen in sightings])
        for kind, number in NUMBERS.values()
        if group in (kind, "all")
    ]
    scores = np.zeros(truth.size)
    for fold in range(FOLDS):
        columns = [*numbers, words[fold]] if group in ("content", "all") else numbers
        known = folds != fold
        scores[~known] = _boosted(np.column_stack(columns), truth, known)[~known]
    return scores


def _boosted(
    columns: Floats, truth: Floats, known: NDArray[np.bool_], rounds: int = 60, depth: int = 3
) -> Floats:
    """Scores of all rows by gradient-boosted trees that are grown on the known ones."""
    bins = np.column_stack([_binned(column, column[known]) for column in columns.T])
    scores = np.full(truth.size, 0.0)
    for _ in range(rounds):
        chance = _sigmoid(scores)
        scores += 0.15 * _tree(bins, truth - chance, chance * (1 - chance), known, depth)
    return scores


BINS: Final = 32


def _binned(column: Floats, known: Floats) -> NDArray[np.int64]:
    edges = np.unique(np.quantile(known, np.linspace(0, 1, BINS + 1)[1:-1]))
    return np.searchsorted(edges, column, side="left")


def _tree(
    bins: NDArray[np.int64], slope: Floats, bend: Floats, known: NDArray[np.bool_], depth: int
) -> Floats:
    """One tree, level by level: each leaf is split where that lessens the loss most. Returns its values."""
    leaf = np.zeros(slope.size, dtype=np.int64)
    slopes, bends = np.where(known, slope, 0.0), np.where(known, bend, 0.0)
    for level in range(depth):
        leaves = 1 << level
        best, gain = np.zeros((leaves, 2), dtype=np.int64), np.full(leaves, 0.0)
        for feature in range(bins.shape[1]):
            cell = leaf * BINS + bins[:, feature]
            left = np.bincount(cell, slopes, leaves * BINS).reshape(leaves, BINS).cumsum(1)
            below = np.bincount(cell, bends, leaves * BINS).reshape(leaves, BINS).cumsum(1)
            gains = _gain(left, below) + _gain(left[:, -1:] - left, below[:, -1:] - below)
            gains -= _gain(left[:, -1:], below[:, -1:])
            cut = gains.argmax(1)
            better = gains[np.arange(leaves), cut] > gain
            gain = np.where(better, gains[np.arange(leaves), cut], gain)
            best[better] = np.column_stack([np.full(leaves, feature), cut])[better]
        right = bins[np.arange(leaf.size), best[leaf, 0]] > best[leaf, 1]
        leaf = 2 * leaf + (right & (gain[leaf] > 0.0))
    leaves = 1 << depth
    values: Floats = np.bincount(leaf, slopes, leaves) / (np.bincount(leaf, bends, leaves) + 10.0)
    return values[leaf]


def _gain(slope: Floats, bend: Floats) -> Floats:
    found: Floats = slope**2 / (bend + 10.0)
    return found


def _sigmoid(values: Floats) -> Floats:
    found: Floats = 1.0 / (1.0 + np.exp(-np.clip(values, -30.0, 30.0)))
    return found
