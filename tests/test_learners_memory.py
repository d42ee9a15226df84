import numpy as np
import pytest
import torch

from fewshot.learners.memory import Memory, Statistics, read, sum_by_class


def test_absent_keys_lie_at_the_mean_of_the_present_and_count_nothing():
    keys = torch.tensor([[1.0], [torch.nan], [3.0]])
    memory = Memory.of_keys(keys, torch.arange(3), torch.tensor([1.0, 0.0, 2.0]), 3)
    assert memory.keys.tolist() == [[1.0], [2.0], [3.0]]
    assert memory.log_weight.tolist() == [0.0, -torch.inf, pytest.approx(np.log(2))]
    assert memory.present().labels.tolist() == [0, 2]


def slow_read(scores, labels, weight, n_way):
    logits = np.full((len(scores), n_way), -np.inf)
    for i, row in enumerate(scores):
        for c in range(n_way):
            terms = [w * np.exp(s) for s, y, w in zip(row, labels, weight, strict=True) if y == c and w > 0]
            if terms:
                logits[i, c] = np.log(sum(terms))
    return logits


@pytest.mark.parametrize("weight", [[1, 1, 1, 1, 1], [1, 0.5, 0, 2, 0]])
def test_read_is_a_log_sum_exp_over_the_keys_of_each_class(weight):
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(6, 5)) * 3, np.array([0, 2, 2, 0, 3])
    memory = Memory.of_keys(torch.zeros(5, 2).double(), torch.from_numpy(labels), torch.tensor(weight).double(), 4)
    got = read(torch.from_numpy(scores), memory)
    np.testing.assert_allclose(got.numpy(), slow_read(scores, labels, weight, 4))


def test_read_of_candidates_is_read_of_those_keys_alone():
    rng = np.random.default_rng(0)
    scores, labels = torch.from_numpy(rng.normal(size=(2, 5))), torch.tensor([0, 1, 1, 2, 0])
    memory = Memory.of_keys(torch.zeros(5, 2).double(), labels, torch.ones(5).double(), 3)
    candidates = torch.tensor([[4, 1, -1], [2, 1, 3]])
    got = read(scores.gather(1, candidates.clamp(min=0)), memory, candidates)
    for i, ids in enumerate(([4, 1], [2, 1, 3])):
        weight = np.isin(np.arange(5), ids).astype(float)
        np.testing.assert_allclose(got[i : i + 1], slow_read(scores[i : i + 1].numpy(), labels, weight, 3))


def test_one_key_a_class_reads_as_the_general_way():
    scores = torch.randn(4, 3, generator=torch.Generator())
    parts = torch.zeros(3, 2), torch.arange(3), torch.tensor([1.0, 0.0, 1.0]), 3
    torch.testing.assert_close(read(scores, Memory.of_keys(*parts, True)), read(scores, Memory.of_keys(*parts)))


@pytest.mark.parametrize("shift", [-1e4, 1e4])
def test_large_scores_neither_overflow_nor_vanish(shift):
    memory = Memory.of_keys(torch.zeros(2, 1), torch.tensor([0, 0]), torch.ones(2), 1)
    got = read(torch.full((1, 2), shift), memory)
    assert got.item() == pytest.approx(shift + np.log(2))


def test_a_memory_of_prototypes_has_one_key_a_class_and_none_for_an_absent_one():
    memory = Memory.of_prototypes(torch.tensor([[1.0], [0.0], [3.0]]), torch.tensor([2.0, 0.0, 0.5]))
    assert memory.one_key_per_class
    assert memory.labels.tolist() == [0, 1, 2]
    assert memory.log_weight.tolist() == [0.0, -torch.inf, 0.0]


def statistics():
    return Statistics(
        2,
        torch.tensor([1.0, 2.0]),
        {"x": torch.tensor([[1.0], [2.0]])},
        {"n": torch.tensor(3.0)},
        {"x": torch.tensor([[1.0], [2.0]]), "labels": torch.tensor([0, 1]), "weight": torch.tensor([1.0, 2.0])},
    )


def test_statistics_sum_what_sums_and_concatenate_the_support():
    both = statistics() + statistics()
    assert both.count.tolist() == [2.0, 4.0]
    assert both.sums["x"].tolist() == [[2.0], [4.0]]
    assert both.totals["n"] == 6.0
    assert both.support["labels"].tolist() == [0, 1, 0, 1]
    assert both.support["x"].shape == (4, 1)


def test_statistics_of_different_classes_do_not_add():
    with pytest.raises(ValueError, match="cannot combine statistics of 2 and 3 classes; relabel both"):
        statistics() + statistics().relabel(torch.tensor([0, 1]), 3)


def test_relabelling_moves_every_part():
    moved = statistics().relabel(torch.tensor([2, 0]), 3)
    assert moved.count.tolist() == [2.0, 0.0, 1.0]
    assert moved.sums["x"].tolist() == [[2.0], [0.0], [1.0]]
    assert moved.support["labels"].tolist() == [2, 0]


def test_a_difference_takes_away_what_was_added():
    left = statistics() + statistics() - statistics()
    assert left.count.tolist() == [1.0, 2.0]
    assert left.sums["x"].tolist() == [[1.0], [2.0]]
    assert left.totals["n"] == 3.0
    assert {name: value.tolist() for name, value in left.support.items()} == {
        name: value.tolist() for name, value in statistics().support.items()
    }
    with pytest.raises(ValueError, match="cannot combine statistics of 2 and 3 classes"):
        statistics() - statistics().relabel(torch.tensor([0, 1]), 3)
    with pytest.raises(ValueError, match="row 0 is not in the memory"):
        statistics() - statistics().relabel(torch.tensor([1, 0]), 2)


def test_what_rounding_left_of_a_class_is_emptied():
    emptied = statistics().emptied(torch.tensor([False, True]))
    assert emptied.count.tolist() == [1.0, 0.0]
    assert emptied.sums["x"].tolist() == [[1.0], [0.0]]


def test_some_rows_have_their_own_counts():
    taken = (statistics() + statistics()).take(torch.tensor([1, 3, 0]))
    assert taken.count.tolist() == [1.0, 4.0]
    assert taken.support["x"].flatten().tolist() == [2.0, 2.0, 1.0]


def test_classes_are_parted_from_a_total_only_without_support():
    with pytest.raises(TypeError, match="totals over all classes cannot be split by class"):
        statistics().keep(torch.tensor([0]))
    wide = statistics().relabel(torch.tensor([0, 2]), 3)
    assert wide.keep(torch.tensor([0, 2])).totals["n"] == 3.0


def test_joining_is_relabelling_both_and_adding():
    generator = torch.Generator().manual_seed(0)

    def some(n_way, n):
        x = torch.randn(n, 3, generator=generator, dtype=torch.float64)
        labels = torch.randint(n_way, (n,), generator=generator)
        return Statistics(
            n_way,
            torch.randn(n_way, generator=generator, dtype=torch.float64),
            {"x": torch.randn(n_way, 3, generator=generator, dtype=torch.float64)},
            {"xx": x.T @ x},
            {"x": x, "labels": labels, "weight": torch.ones(n, dtype=torch.float64)},
        )

    one, other = some(4, 9), some(2, 3)
    places, others = torch.tensor([0, 2, 3, 5]), torch.tensor([5, 1])
    found, expected = one.joined(places, other, others, 6), one.relabel(places, 6) + other.relabel(others, 6)
    assert torch.equal(found.count, expected.count)
    for part in ("sums", "totals", "support"):
        mine, theirs = getattr(found, part), getattr(expected, part)
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_sums_and_kept_support_have_the_same_counts_and_means():
    x, labels = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), torch.tensor([2, 0, 2])
    weight = torch.tensor([1.0, 2.0, 3.0])
    for statistics in (Statistics.of_sums(x, labels, 3, weight), Statistics.of_support(x, labels, 3, weight)):
        assert statistics.count.tolist() == [2.0, 0.0, 4.0]
        assert statistics.means.tolist() == [[3.0, 4.0], [0.0, 0.0], [4.0, 5.0]]


def test_sums_are_by_class_in_every_episode():
    values = torch.arange(12.0).view(2, 3, 2)
    labels = torch.tensor([[0, 2, 0], [1, 1, 1]])
    expected = torch.tensor([[[4.0, 6.0], [0, 0], [2, 3]], [[0, 0], [24, 27], [0, 0]]])
    torch.testing.assert_close(sum_by_class(values, labels, 3), expected)
