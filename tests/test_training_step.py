from itertools import pairwise

import numpy as np
import pytest
import torch
import torch._inductor.config
from torch import nn

from fewshot import (
    EpisodeSampler,
    LabeledImages,
    MetaTrainer,
    PrototypicalLearner,
    TrainConfig,
    VariedEpisodeSampler,
    create_backbone,
)
from fewshot.episodes.episode import Episode
from fewshot.errors import TrainingError
from fewshot.training.step import Stepper, learning_rates, split_episode, split_tasks, task_rows
from fewshot.utils.isolation import seeded
from tests.training_data import SIZES, TRAIN

EPISODES = EpisodeSampler(TRAIN.labels, 5, 1, 3)
LABELS = np.repeat(np.arange(12), 30)


class LayerNet(nn.Module):
    """A small network without batch statistics."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(), nn.Linear(4 * 14 * 14, 6)
        )

    def forward(self, x):
        return self.layers(x)


def step(network, episodes=(EPISODES[0],), first=0, **settings):
    """Return the gradient of one step, and its result."""
    config = TrainConfig(**{"n_episodes": len(episodes), "meta_batch": len(episodes), **SIZES, **settings})
    learner, gradients = PrototypicalLearner(), []
    optimizer = torch.optim.SGD(network.parameters(), 1e-9)
    optimizer.register_step_pre_hook(
        lambda *_: gradients.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
    )
    stepper = Stepper(network, learner, optimizer, TRAIN.images, config, None, torch.device("cpu"))
    outcome = stepper(first, episodes)
    return (gradients or [None])[0], outcome


def layer_net(**changes):
    with seeded(0):
        network = LayerNet()
    if "dropout" in changes:
        network.layers[3] = nn.Dropout(changes["dropout"])
    return network


@pytest.mark.parametrize("chunk", [1, 7, 20, 99])
def test_an_episode_in_chunks_has_the_gradient_of_the_whole(chunk):
    whole, expected = step(layer_net(dropout=0.0))
    parts, outcome = step(layer_net(dropout=0.0), embed_chunk=chunk)
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-5 * whole.abs().max().item())
    assert outcome.loss == pytest.approx(expected.loss, rel=1e-6)


def test_noise_is_the_same_when_a_chunk_is_recomputed():
    class Once(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.masks = nn.Parameter(torch.ones(256)), []

        def forward(self, x):
            mask = (torch.rand(x.flatten(1).shape) > 0.5).float()
            self.masks.append(mask)
            return x.flatten(1) * mask * self.weight

    network = Once()
    step(network, embed_chunk=10)
    forward, again = network.masks[:2], network.masks[2:]
    assert len(again) == 2
    assert {m.sum().item() for m in again} == {m.sum().item() for m in forward}
    assert any(torch.equal(again[0], m) for m in forward)
    assert any(torch.equal(again[1], m) for m in forward)


def conv4():
    return create_backbone("conv4", in_chans=1, img_size=16)


def test_statistics_are_updated_once_per_step_also_in_chunks():
    network = conv4()
    step(network, embed_chunk=10)
    assert network.blocks[0].norm.num_batches_tracked == 2  # one for each chunk, none for the second computation


def test_frozen_statistics_stay_and_are_used():
    network = conv4()
    with torch.no_grad():
        network.blocks[0].norm.running_mean += 3
    before = [buffer.clone() for buffer in network.buffers()]
    frozen, _ = step(network, batch_norm="frozen")
    assert all(torch.equal(a, b) for a, b in zip(before, network.buffers(), strict=True))
    in_chunks, _ = step(network, batch_norm="frozen", embed_chunk=8)
    torch.testing.assert_close(in_chunks, frozen, rtol=0, atol=1e-5 * frozen.abs().max().item())
    trained, _ = step(conv4())
    assert not torch.allclose(frozen, trained)


def test_a_meta_batch_descends_the_mean_of_its_episodes():
    episodes = [EPISODES[i] for i in range(3)]
    together, outcome = step(conv4(), episodes)
    alone = [step(conv4(), [episode], first=i) for i, episode in enumerate(episodes)]
    expected = torch.stack([g for g, _ in alone]).mean(0)
    torch.testing.assert_close(together, expected, rtol=0, atol=1e-5 * expected.abs().max().item())
    assert outcome.loss == pytest.approx(np.mean([o.loss for _, o in alone]))


def test_the_statistics_of_a_meta_batch_are_the_mean_of_its_episodes():
    networks = [conv4() for _ in range(3)]
    step(networks[0], [EPISODES[0], EPISODES[1]])
    step(networks[1], [EPISODES[0]])
    step(networks[2], [EPISODES[1]], first=1)
    together, one, other = (list(network.buffers()) for network in networks)
    for mean, a, b in zip(together, one, other, strict=True):
        torch.testing.assert_close(mean.double(), (a.double() + b.double()) / 2)


def test_half_precision_is_close():
    full, expected = step(conv4())
    half, outcome = step(conv4(), precision="bf16")
    assert outcome.loss == pytest.approx(expected.loss, rel=0.1)
    assert torch.nn.functional.cosine_similarity(half, full, dim=0) > 0.9


def test_losses_are_scaled_for_fp16_until_gradients_fit(tmp_path):
    config = TrainConfig(n_episodes=40, precision="fp16", lr=1e-2, save_every=10, **SIZES)
    result = MetaTrainer(config=config).fit(TRAIN, out=tmp_path, progress=False)
    assert result.skipped == []
    assert np.mean([r["loss"] for r in result.records[-5:]]) < 0.5 * result.records[0]["loss"]
    again = MetaTrainer(config=config).fit(TRAIN, out=tmp_path, progress=False, resume=True)
    assert again.records == result.records


def test_episodes_of_varied_sizes_are_trained_on():
    config = TrainConfig(n_episodes=3, **SIZES)
    result = MetaTrainer(config=config).fit(TRAIN, sampler=VariedEpisodeSampler, progress=False)
    assert all(np.isfinite(r["loss"]) for r in result.records)


def test_row_77_out_of_memory_names_the_size_and_the_cure():
    class Hungry(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return torch.empty(1 << 60) + self.weight

    with pytest.raises(TrainingError, match=r"episode 0: 20 images of 5 classes; .*embed_chunk=5"):
        step(Hungry())
    with pytest.raises(RuntimeError, match="something else"):
        step(Broken())


class Broken(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x):
        raise RuntimeError("something else")


@pytest.mark.slow
def test_a_network_that_cannot_be_compiled_is_said_in_a_sentence():
    torch._dynamo.reset()
    with (
        torch._inductor.config.patch({"cpp.cxx": ("/no/compiler",)}),
        pytest.raises(
            TrainingError, match=r"^torch.compile cannot compile the network \(.*/no/compiler.*leave"
        ) as told,
    ):
        step(conv4(), compile=True)
    assert "\n" not in str(told.value)


def test_rates_fall_from_layer_to_layer():
    network = create_backbone("test_resnet")
    config = TrainConfig(lr=0.1, layer_decay=0.5)
    groups = learning_rates(network, PrototypicalLearner(learn_temperature=True), config)
    rates = sorted({group["lr"] for group in groups})
    assert rates[-1] == pytest.approx(0.1)
    assert len(rates) > 2
    assert all(b == pytest.approx(2 * a) for a, b in pairwise(rates))
    first = next(network.parameters())
    assert next(g["lr"] for g in groups if any(p is first for p in g["params"])) == pytest.approx(rates[0])
    count = sum(len(group["params"]) for group in groups)
    assert count == len(list(network.parameters())) + 1
    with pytest.raises(ValueError, match="Conv4 does not define its layers"):
        learning_rates(conv4(), PrototypicalLearner(), config)


def test_mapped_images_are_not_loaded(tmp_path):
    np.save(tmp_path / "images.npy", TRAIN.images)
    mapped = LabeledImages(np.load(tmp_path / "images.npy", mmap_mode="r"), TRAIN.labels)
    config = TrainConfig(n_episodes=2, **SIZES)
    one, other = (MetaTrainer(config=config) for _ in range(2))
    one.fit(mapped, progress=False)
    other.fit(TRAIN, progress=False)
    for a, b in zip(one.backbone.parameters(), other.backbone.parameters(), strict=True):
        assert torch.equal(a, b)


class Normalised(PrototypicalLearner):
    """A learner with batch statistics."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(64)

    def transform(self, x):
        return self.norm(x.flatten(0, -2)).view(x.shape)


def learner_step(learner, episodes, poison=False, **settings):
    network = create_backbone("conv4", seed=0, in_chans=1, img_size=16)
    config = TrainConfig(**{"n_episodes": len(episodes), "meta_batch": len(episodes), **SIZES, **settings})
    optimizer = torch.optim.SGD(learner.parameters(), 1e-9)
    spoil = (lambda x, rng: x * torch.nan) if poison else None
    return Stepper(network, learner, optimizer, TRAIN.images, config, spoil, torch.device("cpu"))(0, episodes)


def test_the_statistics_of_a_learner_are_guarded_frozen_and_averaged_too():
    learner = Normalised()
    before = [buffer.clone() for buffer in learner.buffers()]
    assert learner_step(learner, [EPISODES[0]], poison=True).fault
    assert all(torch.equal(a, b) for a, b in zip(learner.buffers(), before, strict=True))
    learner_step(learner, [EPISODES[0]], batch_norm="frozen")
    assert all(torch.equal(a, b) for a, b in zip(learner.buffers(), before, strict=True))
    learners = [Normalised() for _ in range(3)]
    for one, episodes in zip(learners, ([EPISODES[0], EPISODES[1]], [EPISODES[0]], [EPISODES[1]]), strict=True):
        learner_step(one, episodes)
    together, one, other = (list(part.buffers()) for part in learners)
    for mean, a, b in zip(together, one, other, strict=True):
        torch.testing.assert_close(mean.double(), (a.double() + b.double()) / 2, rtol=1e-5, atol=1e-5)


def test_a_step_skipped_by_half_precision_changes_no_statistics():
    network = conv4()
    before = [buffer.clone() for buffer in network.buffers()]
    config = TrainConfig(n_episodes=1, precision="fp16", **SIZES)
    optimizer = torch.optim.SGD(network.parameters(), 1e-3)
    stepper = Stepper(network, PrototypicalLearner(), optimizer, TRAIN.images, config, None, torch.device("cpu"))
    stepper.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**120)
    outcome = stepper(0, [EPISODES[0]])
    assert not outcome.fault
    assert all(torch.equal(a, b) for a, b in zip(network.buffers(), before, strict=True))


def test_support_and_queries_change_sizes_in_every_second_episode():
    three, swapped = EpisodeSampler(TRAIN.labels, 5, 3, 1)[0], {"n_shot": 1, "n_query": 3, "swap_shots": True}
    one = Episode(three.classes, *sides(three, 1))
    for first, other in ((0, one), (1, three), (2, one)):
        network, wanted = layer_net(dropout=0.0), layer_net(dropout=0.0)
        found, outcome = step(network, (one,), first, **swapped)
        expected, result = step(wanted, (other,), first)
        torch.testing.assert_close(found, expected)
        assert outcome.loss == pytest.approx(result.loss)


def sides(episode, n_shot):
    """Support, its labels, queries and theirs of the same images with other shots."""
    rows = task_rows(episode)[0].reshape(episode.n_way, -1)
    codes = np.broadcast_to(np.arange(episode.n_way)[:, None], rows.shape)
    return rows[:, :n_shot].ravel(), codes[:, :n_shot].ravel(), rows[:, n_shot:].ravel(), codes[:, n_shot:].ravel()


def test_an_episode_of_uneven_classes_is_one_task():
    episode = next(e for e in VariedEpisodeSampler(LABELS, seed=1) if len(set(np.bincount(e.support_labels))) > 1)
    rows, n_shot = task_rows(episode)
    np.testing.assert_array_equal(rows, np.concatenate([episode.support, episode.query]))
    z = torch.from_numpy(rows)[:, None].float()
    support, labels, queries, expected = split_episode(z, episode, n_shot, rotate=True)
    assert support[0, :, 0].tolist() == episode.support.tolist()
    assert labels[0].tolist() == episode.support_labels.tolist()
    assert queries[0, :, 0].tolist() == episode.query.tolist()
    assert expected[0].tolist() == episode.query_labels.tolist()


def test_an_episode_of_even_classes_is_one_task_per_image_of_a_class():
    episode = EpisodeSampler(LABELS, 4, 2, 3, seed=1)[0]
    rows, n_shot = task_rows(episode)
    z = torch.from_numpy(rows)[:, None].float()
    support, labels, queries, expected = split_episode(z, episode, n_shot, rotate=True)
    assert support.shape == (5, 8, 1)
    assert labels.shape == (5, 8)
    for t in range(5):
        for images, codes in ((support[t], labels[t]), (queries[t], expected[t])):
            assert LABELS[images[:, 0].long().numpy()].tolist() == episode.classes[codes.numpy()].tolist()
        assert not set(support[t].flatten().tolist()) & set(queries[t].flatten().tolist())
    assert set(support[0].flatten().tolist()) == set(episode.support.tolist())
    once, *_ = split_episode(z, episode, n_shot, rotate=False)
    torch.testing.assert_close(once, support[:1])
    tasks = split_episode(z, episode, 4, rotate=True)
    for images, codes in zip(tasks[::2], tasks[1::2], strict=True):
        assert images.shape[:2] == codes.shape
        for rows, own in zip(images[..., 0].long().numpy(), codes.numpy(), strict=True):
            assert LABELS[rows].tolist() == episode.classes[own].tolist()
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
