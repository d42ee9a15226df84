"""From how many keys the graph is the default."""

import json
from pathlib import Path

import numpy as np
import pytest

from fewshot import PrototypeIndex
from fewshot.search.limits import LIMITS, exact_limit
from fewshot.search.snapshot import EXACT_LIMIT, choose_kind

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "index_limits.json"


def test_the_limits_are_those_that_were_measured():
    measured = json.loads(RESULTS.read_text())["limits"]
    assert {m: {int(d): n for d, n in sizes.items()} for m, sizes in measured.items()} == LIMITS


@pytest.mark.parametrize("metric", LIMITS)
@pytest.mark.parametrize("d", [1, 64, 100, 256, 512, 4096])
def test_auto_changes_at_the_limit(metric, d):
    limit = min(EXACT_LIMIT, exact_limit(metric, d))
    assert choose_kind("auto", metric, limit, d) == "exact"
    assert choose_kind("auto", metric, limit + 1, d) == ("ivf" if metric == "dot" else "hnsw")
    assert choose_kind("auto", metric, limit + 1, d, recall=1) == "exact"
    assert choose_kind("exact", metric, 10 * limit, d) == "exact"


def test_an_index_takes_the_limit_of_its_metric(monkeypatch):
    monkeypatch.setitem(LIMITS, "cosine", {16: 300})
    keys = np.random.default_rng(0).normal(size=(400, 16)).astype(np.float32)
    kinds = [PrototypeIndex(metric).add(keys).build().kind for metric in ("cosine", "sqeuclidean")]
    assert kinds == ["hnsw", "exact"]
