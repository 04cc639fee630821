"""The classifier that tries to tell challenges from users' requests: it finds what is there, and nothing else."""

from __future__ import annotations

import gzip
import json
import random
from dataclasses import replace
from hashlib import sha256
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from targon.protocol import ChatMessage
from targon.redteam.telltale import GROUPS, Group, Sighting, auc, auc_alone, telling_words, telltales
from targon.redteam.users import (
    draw_clients,
    invented,
    invented_arrivals,
    read_arrivals,
    read_conversations,
    request,
)

WORDS = (
    "harbour", "lamp", "boat", "keeper", "storm", "island", "rope",
    "anchor", "gull", "tide", "cargo", "sailor", "compass", "deck",
)  # fmt: skip


def sightings(seed: int, count: int = 400, side: str = "any") -> list[Sighting]:
    """Requests that are all of one kind."""
    rng = random.Random(seed)
    return [
        Sighting(
            messages=(ChatMessage(role="user", content=" ".join(rng.choices(WORDS, k=12))),),
            temperature=rng.choice((0.7, 1.0)),
            top_p=rng.choice((0.9, 1.0)),
            top_k=0,
            stop=(),
            max_tokens=rng.choice((64, 128, 256)),
            offset_s=rng.uniform(0, 12),
            pause_s=rng.expovariate(0.2),
            subject=f"{side} {place // 2}",
        )
        for place in range(count)
    ]


def found(
    organic: list[Sighting], challenges: list[Sighting], groups: tuple[Group, ...] = GROUPS
) -> dict[str, float]:
    return {one.group: one.auc for one in telltales(organic, challenges, groups)}


def test_an_auc_is_the_chance_to_order_a_pair_rightly():
    truth = np.array([0.0, 1.0, 0.0, 1.0])
    assert auc(truth, np.array([0.1, 0.9, 0.2, 0.8])) == 1.0
    assert auc(truth, np.array([0.9, 0.1, 0.8, 0.2])) == 0.0
    assert auc(truth, np.array([0.5, 0.5, 0.5, 0.5])) == 0.5
    assert auc(truth, np.array([0.1, 0.3, 0.3, 0.4])) == 0.875


def test_requests_of_one_kind_are_not_told_apart():
    for one in telltales(sightings(1), sightings(2, side="other")):
        assert abs(one.auc - 0.5) < 0.08, one
        assert one.low < one.auc < one.high


@pytest.mark.parametrize(
    ("group", "change"),
    [
        (
            "content",
            lambda one: replace(one, messages=(ChatMessage(role="system", content="Hi"), *one.messages)),
        ),
        ("content", lambda one: replace(one, messages=(_said(one, " answer the question"),))),
        ("parameters", lambda one: replace(one, temperature=0.8)),
        ("timing", lambda one: replace(one, offset_s=0.4)),
    ],
)
def test_what_gives_challenges_away_is_found_in_its_group_alone(group, change):
    told = found(sightings(1), [change(one) for one in sightings(2, side="other")])
    others = {"content", "parameters", "timing"} - {group}
    assert told[group] > 0.95
    assert told["all"] > 0.95
    assert all(abs(told[other] - 0.5) < 0.08 for other in others)


def _said(one: Sighting, more: str) -> ChatMessage:
    return ChatMessage(role="user", content=one.messages[0].content + more)


def test_parameters_that_tell_only_together_are_found():
    """Either alone is spread equally on both sides: a pair of them is what clients would not send."""
    alike = [replace(one, top_p=1.0 if one.temperature == 1.0 else 0.9) for one in sightings(1)]
    crossed = [
        replace(one, top_p=0.9 if one.temperature == 1.0 else 1.0) for one in sightings(2, side="other")
    ]
    assert found(alike, crossed, ("parameters",))["parameters"] > 0.95
    assert all(score < 0.6 for name, score in auc_alone(alike, crossed) if name in ("temperature", "top-p"))


def test_nothing_is_learned_by_heart():
    """Every subject has words of its own; those of other subjects say nothing of it."""

    def own(seed: int, side: str) -> list[Sighting]:
        return [
            replace(one, messages=(_said(one, f" {sha256(one.subject.encode()).hexdigest()}"),))
            for one in sightings(seed, side=side)
        ]

    assert abs(found(own(1, "x"), own(2, "y"), ("content",))["content"] - 0.5) < 0.12


def test_subjects_of_very_different_sizes_are_not_mistaken_for_a_sign():
    """Folds then hold very different shares of challenges; only requests of one fold are compared."""
    uneven = [replace(one, subject=f"x {int(place**0.25)}") for place, one in enumerate(sightings(1, 1200))]
    told = found(uneven, sightings(2, 1200, side="other"), ("parameters", "timing"))
    assert all(abs(one - 0.5) < 0.08 for one in told.values())


def test_telling_words_are_named():
    challenges = [replace(one, messages=(_said(one, " xylophone"),)) for one in sightings(2, side="other")]
    users, given_away = telling_words(sightings(1), challenges, 5)
    assert any("xyl" in gram for gram in given_away)
    assert not any("xyl" in gram for gram in users)


def test_too_few_subjects_are_refused():
    with pytest.raises(ValueError, match="subjects"):
        telltales(sightings(1), sightings(2, count=6))


def test_conversations_are_read_in_both_forms(tmp_path: Path):
    entries = [
        {"chosen": "\n\nHuman: Hello?\n\nAssistant: Yes?\n\nHuman: What is rope?\n\nAssistant: A cord."},
        {"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": "Hi"}]},
    ]
    file = tmp_path / "conversations.jsonl.gz"
    file.write_bytes(gzip.compress("\n".join(map(json.dumps, entries)).encode()))
    assert read_conversations(file) == [
        ("1", ("Hello?",)),
        ("1", ("Hello?", "Yes?", "What is rope?")),
        ("2", ("Hi",)),
    ]
    file.write_bytes(gzip.compress(b'{"text": "Hi"}'))
    with pytest.raises(ValueError, match="line 1: got the fields"):
        read_conversations(file)


def test_arrivals_are_read_in_seconds(tmp_path: Path):
    file = tmp_path / "arrivals.csv"
    file.write_text("TIMESTAMP,Tokens\n2023-11-16 18:15:50.9951690,3\n2023-11-16 18:15:46.4951690,1\n")
    assert read_arrivals(file) == pytest.approx([0.0, 4.5])


def test_made_up_users_are_drawn_from_their_generator_alone():
    def everything(seed: int) -> tuple[object, ...]:
        rng = random.Random(seed)
        clients, said = draw_clients(rng, 20), list(islice(invented(rng), 20))
        return clients, said, invented_arrivals(rng, 600.0, 0.2), request(said[0][1], clients[0])

    assert everything(1) == everything(1)
    assert everything(1) != everything(2)
    arrivals = invented_arrivals(random.Random(3), 100_000.0, 0.2)
    assert arrivals == sorted(arrivals)
    assert len(arrivals) == pytest.approx(20_000, rel=0.1)
