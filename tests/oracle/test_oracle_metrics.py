"""What an oracle shows of its source's and its supply's counts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from random import Random

from prometheus_client import CollectorRegistry

from targon.oracle.errors import StoreUnavailable
from targon.oracle.metrics import OracleMetrics
from targon.oracle.refining import Taken
from targon.oracle.supply import RefinedSupply
from tests.oracle.refining.texts import Texts


def test_counts_of_supply_and_source_are_shown_by_name(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    supply = RefinedSupply(Texts("no prose", draws=7), Taken(tmp_path / "taken.sqlite"), Random(1))
    assert supply.take(1) == []

    def refused() -> Mapping[str, int]:
        return {reason.value: count for reason, count in supply.counts.refused.items()}

    OracleMetrics(registry, refused, lambda: supply.source_counts)
    counted = {
        sample.labels["reason"]: sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == "targon_oracle_refused_draws_total"
    }
    assert sum(counted.values()) == 7
    assert registry.get_sample_value("targon_oracle_source_total", {"what": "corrupt"}) == 2
    supply.close()


def test_counts_that_cannot_be_read_leave_the_others_alone() -> None:
    def unreadable() -> Mapping[str, int]:
        raise StoreUnavailable("the crawl's state is gone")

    registry = CollectorRegistry()
    metrics = OracleMetrics(registry, dict, unreadable)
    metrics.taken(3)
    assert registry.get_sample_value("targon_oracle_passages_total") == 3
    assert registry.get_sample_value("targon_oracle_source_total", {"what": "taken"}) is None
