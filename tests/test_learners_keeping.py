import torch

from fewshot.learners.keeping import SumLearner, SupportLearner

X, LABELS = torch.tensor([[1.0], [3.0], [8.0]]), torch.tensor([0, 0, 1])


def test_a_sum_learner_keeps_sums_and_answers_from_means():
    learner = SumLearner()
    statistics = learner.learn(X, LABELS, 3)
    assert statistics.sums["x"].tolist() == [[4.0], [8.0], [0.0]]
    assert not statistics.support
    memory = learner.memorize(statistics)
    assert memory.one_key_per_class
    assert memory.keys[:2].tolist() == [[2.0], [8.0]]
    assert memory.log_weight.tolist() == [0.0, 0.0, float("-inf")]


def test_a_support_learner_keeps_the_support_and_answers_from_it():
    learner = SupportLearner()
    statistics = learner.learn(X, LABELS, 3, torch.tensor([1.0, 0.0, 1.0]))
    assert not statistics.sums
    memory = learner.memorize(statistics)
    assert memory.labels.tolist() == LABELS.tolist()
    assert memory.keys[[0, 2]].tolist() == [[1.0], [8.0]]
    assert memory.log_weight.tolist() == [0.0, float("-inf"), 0.0]
