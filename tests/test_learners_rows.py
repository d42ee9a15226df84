import torch

from fewshot.learners.rows import sum_by_class


def test_sums_are_by_class_in_every_episode():
    values = torch.arange(12.0).view(2, 3, 2)
    labels = torch.tensor([[0, 2, 0], [1, 1, 1]])
    expected = torch.tensor([[[4.0, 6.0], [0, 0], [2, 3]], [[0, 0], [24, 27], [0, 0]]])
    torch.testing.assert_close(sum_by_class(values, labels, 3), expected)
