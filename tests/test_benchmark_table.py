"""Tables of a benchmark: pairs, pools, ranks, marks."""

import numpy as np
import pytest

from fewshot.benchmark.grid_file import Backbone, LearnerSpec
from fewshot.benchmark.table import Row, list_failures, mean_ranks, pooled, tidy, to_markdown
from fewshot.benchmark.tasks import Unit
from fewshot.episodes.evaluate import mean_and_ci95

RNG = np.random.default_rng(0)


def row(learner, accuracies=None, dataset="data", shot=1, seed=0, backbone="pixels", error=""):
    unit = Unit(dataset, Backbone(backbone), LearnerSpec(learner), "key", 5, shot, seed, 15, 4, {"learner": learner})
    found = {"accuracies": accuracies, "transductive": learner == "pt-map", "ms_per_episode": 2.0} if not error else {}
    return Row(unit, found, error, backbone != "pixels")


def some(n=4):
    return RNG.uniform(size=n).tolist()


def test_a_change_is_paired_with_the_baseline_on_the_same_episodes():
    rows = [row(name, some(), seed=seed) for seed in (0, 1) for name in ("prototypical", "pt-map")]
    frame = tidy(rows, "prototypical")
    for i in (1, 3):
        expected = mean_and_ci95(rows[i].accuracies - rows[i - 1].accuracies)
        assert (frame["change"][i], frame["change_ci95"][i]) == pytest.approx(expected)
    assert frame["transductive"].tolist() == [False, True] * 2
    assert frame["key"].nunique() == 4


def test_the_episodes_of_all_seeds_are_pooled():
    rows = [row("prototypical", some(), seed=seed) for seed in range(3)]
    (line,) = pooled(rows, "prototypical").to_dict("records")
    every = np.concatenate([one.accuracies for one in rows])
    assert (line["accuracy"], line["ci95"]) == pytest.approx(mean_and_ci95(every))
    assert line["change"] == 0


def test_a_failed_unit_has_its_error_and_no_numbers():
    rows = [row("prototypical", error="ValueError: no"), row("matching", some())]
    frame = tidy(rows, "prototypical")
    assert frame["error"].tolist() == ["ValueError: no", ""]
    assert frame["accuracy"].isna().tolist() == [True, False]
    assert frame["change"].isna().all()
    assert pooled(rows, "prototypical")["learner"].tolist() == ["matching"]


def test_ranks_are_means_over_episodes_that_all_learners_answered():
    rows = [row("a", [0.9, 0.9]), row("b", [0.5, 0.5]), row("a", [0.2, 0.2], "two"), row("b", [0.6, 0.6], "two")]
    rows += [row("a", [1.0, 1.0], "three"), row("b", error="no", dataset="three")]
    assert mean_ranks(pooled(rows, "a"))["pixels"].to_dict() == {"a": 1.5, "b": 1.5}
    assert mean_ranks(pooled([row("a", error="no"), row("b", some())], "a")).loc["b", "pixels"] == 1.0
    apart = [row("a", some()), row("b", error="no"), row("a", error="no", shot=5), row("b", some(), shot=5)]
    assert mean_ranks(pooled(apart, "a")).empty
    rows[0] = row("a", [0.1, 0.1])
    assert mean_ranks(pooled(rows, "a"))["pixels"].to_dict() == {"b": 1.0, "a": 2.0}


def test_markdown_has_a_column_per_setting_and_marks():
    rows = [row(name, some(), shot=shot, backbone="net") for name in ("matching", "pt-map") for shot in (1, 5)]
    text = to_markdown(pooled(rows, "matching"), "matching")
    assert "| data, 5-way 1-shot | data, 5-way 5-shot |" in text
    assert "| net ‡ | pt-map † | " in text
    assert "† transductive" in text
    assert "§" not in text
    assert f"{100 * rows[0].accuracies.mean():.1f} ± " in text
    assert to_markdown(pooled([row("a", error="no")], "a"), "a") == "no unit has a result\n"


def test_a_change_that_rounds_to_zero_has_no_sign():
    frame = pooled([row("prototypical", [0.5, 0.5, 0.5]), row("matching", [0.4999, 0.5, 0.4998])], "prototypical")
    text = to_markdown(frame, "prototypical")
    assert "| 0.0 ± 0.0 |" in text
    assert "-0.0" not in text


def test_failures_are_listed():
    frame = tidy([row("prototypical", some()), row("matching", error="ValueError: no")], "prototypical")
    assert list_failures(frame) == "\nfailed: matching on data by pixels, 5-way 1-shot, seed 0: ValueError: no  \n"
    assert not list_failures(frame[:1])
