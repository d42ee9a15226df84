import numpy as np
import torch

from fewshot import EpisodeSampler, PrototypicalLearner, VariedEpisodeSampler
from fewshot.training.tasks import Tasks, split_tasks

LABELS = np.repeat(np.arange(12), 30)


def test_an_episode_of_uneven_classes_is_one_task():
    episode = next(e for e in VariedEpisodeSampler(LABELS, seed=1) if len(set(np.bincount(e.support_labels))) > 1)
    tasks = Tasks.of(episode)
    np.testing.assert_array_equal(tasks.rows, np.concatenate([episode.support, episode.query]))
    z = torch.from_numpy(tasks.rows)[:, None].float()
    support, labels, queries, expected = tasks.split(z, rotate=True)
    assert support[0, :, 0].tolist() == episode.support.tolist()
    assert labels[0].tolist() == episode.support_labels.tolist()
    assert queries[0, :, 0].tolist() == episode.query.tolist()
    assert expected[0].tolist() == episode.query_labels.tolist()


def test_an_episode_of_even_classes_is_one_task_per_image_of_a_class():
    episode = EpisodeSampler(LABELS, 4, 2, 3, seed=1)[0]
    tasks = Tasks.of(episode)
    z = torch.from_numpy(tasks.rows)[:, None].float()
    support, labels, queries, expected = tasks.split(z, rotate=True)
    assert support.shape == (5, 8, 1)
    assert labels.shape == (5, 8)
    for t in range(5):
        for rows, codes in ((support[t], labels[t]), (queries[t], expected[t])):
            assert LABELS[rows[:, 0].long().numpy()].tolist() == episode.classes[codes.numpy()].tolist()
        assert not set(support[t].flatten().tolist()) & set(queries[t].flatten().tolist())
    assert set(support[0].flatten().tolist()) == set(episode.support.tolist())
    once, *_ = tasks.split(z, rotate=False)
    torch.testing.assert_close(once, support[:1])
    assert PrototypicalLearner()(support, labels, queries, 4).shape == (5, 12, 4)


def test_each_image_of_a_class_is_support_in_turn():
    embeddings = torch.arange(2 * 5).view(2, 5, 1).float()
    support, queries = split_tasks(embeddings, n_shot=2, rotate=True)
    assert support.shape == (5, 4, 1)
    assert queries.shape == (5, 6, 1)
    for task in range(5):
        chosen = [task % 5, (task + 1) % 5]
        assert support[task, :2, 0].tolist() == chosen
        assert support[task, 2:, 0].tolist() == [5 + c for c in chosen]
        assert set(queries[task, :3, 0].tolist()) == set(range(5)) - set(chosen)
    once_support, once_queries = split_tasks(embeddings, n_shot=2, rotate=False)
    torch.testing.assert_close(once_support, support[:1])
    torch.testing.assert_close(once_queries, queries[:1])


def test_the_gradient_is_deterministic_on_several_threads():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(40, 6, 64, generator=generator, requires_grad=True)
    weight = torch.randn(6, 200, 64, generator=generator)
    torch.set_num_threads(4)
    try:
        gradients = []
        for _ in range(20):
            support, queries = split_tasks(z, n_shot=1, rotate=True)
            (gradient,) = torch.autograd.grad((queries * weight).sum() + support.square().sum(), z)
            gradients.append(gradient)
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(gradient, gradients[0]) for gradient in gradients)
