import csv

import numpy as np
import pytest
import torch
from torch import nn

from fewshot import Distortion, LabeledImages, Learner, MetaTrainer, PrototypicalLearner, TrainConfig, evaluate
from fewshot.embedding.network import embed
from fewshot.errors import TrainingError
from fewshot.training.trainer import split_tasks


def bars(n_classes=12, n=8, first=0, seed=0):
    """Images 16 x 16 of one bright row each, the class being which, under noise."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(first, first + n_classes), n)
    images = rng.integers(0, 160, (len(labels), 16, 16)).astype(np.uint8)
    images[np.arange(len(labels)), labels % 16] = 255
    return LabeledImages(images, labels)


TRAIN, VAL = bars(), bars(4, first=12, seed=1)
QUICK = TrainConfig(n_episodes=12, n_way=5, n_query=3, validate_every=4, val_n_episodes=20, val_n_query=3, val_n_way=4)


def fit(learner="prototypical", config=QUICK, val=VAL, **parameters):
    trainer = MetaTrainer("conv4", learner, config, **parameters)
    return trainer, trainer.fit(TRAIN, val, progress=False)


def weights(trainer):
    return torch.cat([p.detach().flatten() for p in trainer.backbone.parameters()])


def test_training_improves_the_embedding_on_unseen_classes():
    config = TrainConfig(
        n_episodes=40, n_way=8, n_query=3, lr=1e-2, validate_every=20, val_n_query=3, val_n_episodes=100
    )
    trainer, result = fit(config=config)
    untrained, _ = fit(config=TrainConfig(n_episodes=1, n_way=5, n_query=3, lr=1e-9, val_n_query=3), val=None)
    sizes = {"n_way": 4, "n_query": 3, "n_episodes": 200}
    after, before = (
        evaluate("prototypical", embed(t.backbone, VAL.images), VAL.labels, **sizes) for t in (trainer, untrained)
    )
    mean, ci95 = after.difference(before)
    assert mean - ci95 > 0.05
    assert result.records[-1]["loss"] < result.records[0]["loss"]


@pytest.mark.parametrize("learner", ["matching", "prototypical"])
def test_the_same_seed_gives_the_same_weights_and_another_others(learner):
    augment = Distortion()
    one, other = (weights(fit(learner, augment=augment)[0]) for _ in range(2))
    assert torch.equal(one, other)
    third = weights(fit(learner, TrainConfig(**{**vars(QUICK), "seed": 1}), augment=augment)[0])
    assert not torch.allclose(one, third)


def test_a_learner_from_outside_is_found_and_its_parameters_are_trained():
    from tests.test_contract import OutsiderLearner  # registers itself

    trainer, _ = fit("outsider")
    assert isinstance(trainer.learner, OutsiderLearner)
    assert trainer.learner.shift.item() != pytest.approx(0.1, abs=1e-6)
    assert trainer.learner.temperature.item() != pytest.approx(0.2, abs=1e-6)


def test_the_best_weights_on_the_validation_classes_are_kept(monkeypatch):
    accuracies, seen = iter([0.5, 0.9, 0.7]), []

    class Measured:
        ci95 = 0.0

        def __init__(self):
            self.mean = next(accuracies)

    def pretend(*_, **__):
        seen.append(weights(trainer))
        return Measured()

    monkeypatch.setattr("fewshot.training.keeping.evaluate", pretend)
    trainer = MetaTrainer("conv4", config=QUICK)
    result = trainer.fit(TRAIN, VAL, progress=False)
    assert (result.best_episode, result.best_accuracy) == (8, 0.9)
    assert torch.equal(weights(trainer), seen[1])
    assert not torch.equal(weights(trainer), seen[2])
    assert not trainer.backbone.training


def test_without_validation_classes_the_last_weights_are_kept():
    _, result = fit(val=None)
    assert result.best_episode == 12
    assert np.isnan(result.best_accuracy)


def test_log_and_weights_are_written(tmp_path):
    trainer = MetaTrainer("conv4", config=QUICK)
    result = trainer.fit(TRAIN, VAL, out=tmp_path / "run", progress=False)
    with (tmp_path / "run" / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["episode"]) for row in rows] == list(range(1, 13))
    assert [bool(row["val_accuracy"]) for row in rows] == [i % 4 == 0 for i in range(1, 13)]
    assert float(rows[5]["loss"]) == result.to_frame()["loss"][5]
    assert (tmp_path / "run" / "best.safetensors").stat().st_size > 100_000


def test_the_progress_bar_shows_loss_accuracy_speed_and_time_left(capsys):
    MetaTrainer("conv4", config=QUICK).fit(TRAIN, VAL, progress=True)
    shown = capsys.readouterr().err
    for part in ("loss=", "accuracy=", "episode", "best val=", "12/12"):
        assert part in shown


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


def test_the_step_descends_the_mean_query_loss_over_the_rotated_tasks():
    """The loss in the record is that of one task after another, answered alone."""
    config = TrainConfig(n_episodes=1, n_way=5, n_query=3, lr=1e-9)
    _, result = fit(config=config, val=None)
    from fewshot import EpisodeSampler, create_backbone
    from fewshot.embedding.network import to_input

    backbone = create_backbone("conv4", seed=0, in_chans=1, img_size=16).train()
    episode = EpisodeSampler(TRAIN.labels, 5, 1, 3, seed=0)[0]
    rows = np.concatenate([episode.support.reshape(5, 1), episode.query.reshape(5, 3)], 1)
    z = backbone(to_input(TRAIN.images[rows.ravel()], backbone)).view(5, 4, -1)
    losses = []
    for shot in range(4):
        prototypes, queries = z[:, shot], torch.cat([z[:, :shot], z[:, shot + 1 :]], 1)
        distances = torch.cdist(queries.flatten(0, 1), prototypes) ** 2
        losses.append(nn.functional.cross_entropy(-distances, torch.arange(5).repeat_interleave(3)))
    assert result.records[0]["loss"] == pytest.approx(torch.stack(losses).mean().item(), rel=1e-4)


def test_a_loss_that_is_not_finite_stops_with_its_episode():
    class Broken(PrototypicalLearner):
        def loss(self, logits, labels):
            return Learner.loss(self, logits, labels) * torch.nan

    with pytest.raises(TrainingError, match=r"the loss of episode 0 \(seed 0\) is nan; lower lr"):
        fit(Broken())


def test_a_timm_network_trains_too():
    images = np.repeat(TRAIN.images[..., None], 3, -1).repeat(2, 1).repeat(2, 2)
    trainer = MetaTrainer("test_resnet", config=TrainConfig(n_episodes=2, n_way=3, n_query=2))
    trainer.fit(LabeledImages(images, TRAIN.labels), progress=False)
    assert embed(trainer.backbone, images[:3]).shape[0] == 3


@pytest.mark.parametrize(
    ("name", "value"), [("n_way", 0), ("lr", 0.0), ("lr", float("nan")), ("seed", -1), ("n_episodes", 0)]
)
def test_a_number_out_of_range_is_named(name, value):
    with pytest.raises(ValueError, match=f"{name} is .*; expected"):
        TrainConfig(**{name: value})


def test_classes_shared_by_train_and_val_are_refused():
    with pytest.raises(ValueError, match=r"share 3 classes, such as .*0.*; split by class"):
        MetaTrainer(config=QUICK).fit(TRAIN, bars(3), progress=False)


def test_too_few_validation_images_are_refused_before_training():
    trainer = MetaTrainer(config=QUICK)
    with pytest.raises(ValueError, match="4 classes have fewer than the 4 rows"):
        trainer.fit(TRAIN, bars(4, n=3, first=12), progress=False)
    with pytest.raises(AttributeError, match="created by fit"):
        _ = trainer.backbone


def test_the_gradient_is_the_same_each_time_also_on_several_threads():
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


def test_a_gradient_that_is_not_finite_stops_before_it_spoils_the_weights():
    class Spoiling(PrototypicalLearner):
        def loss(self, logits, labels):
            # The value is 0, its gradient infinite.
            return super().loss(logits, labels) + (logits.sum() * 0).abs().sqrt()

    trainer = MetaTrainer("conv4", Spoiling(), QUICK)
    with pytest.raises(TrainingError, match="the gradient of episode 0 .* is not finite; lower lr"):
        trainer.fit(TRAIN, VAL, progress=False)
    assert torch.isfinite(weights(trainer)).all()
    assert not trainer.backbone.training


def test_after_a_failure_the_best_weights_are_in_place(monkeypatch):
    seen = []

    class LateFailure(PrototypicalLearner):
        def loss(self, logits, labels):
            if logits.requires_grad:
                seen.append(weights(trainer))
            return super().loss(logits, labels) * (torch.nan if len(seen) == 7 else 1.0)

    trainer = MetaTrainer("conv4", LateFailure(), QUICK)
    with pytest.raises(TrainingError, match="the loss of episode 6"):
        trainer.fit(TRAIN, VAL, progress=False)
    assert torch.equal(weights(trainer), seen[4])  # validated after episode 4, the fifth to be seen
