import csv

import numpy as np
import pytest
import torch
from torch import nn

from fewshot import (
    Distortion,
    DN4Learner,
    Embedder,
    LabeledImages,
    Learner,
    MetaTrainer,
    PrototypicalLearner,
    TrainConfig,
    evaluate,
)
from fewshot.embedding.network import embed
from fewshot.errors import TrainingError
from tests.training_data import QUICK, SIZES, TRAIN, VAL, bars


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

    monkeypatch.setattr("fewshot.training.run.evaluate", pretend)
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


def test_the_progress_bar_shows_loss_accuracy_speed_and_time_left(monkeypatch, capsys):
    monkeypatch.setattr("fewshot.utils.progress.IN_LOG", 0)
    MetaTrainer("conv4", config=QUICK).fit(TRAIN, VAL, progress=True)
    shown = capsys.readouterr().err
    for part in ("loss=", "accuracy=", "episode", "best val=", "12/12"):
        assert part in shown


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


class Broken(PrototypicalLearner):
    """Its loss is NaN in some calls, counted from 0."""

    def __init__(self, *calls):
        super().__init__()
        self.calls, self.seen = calls, 0

    def arguments(self):
        return {}

    def loss(self, logits, labels):
        self.seen += 1
        return Learner.loss(self, logits, labels) * (torch.nan if self.seen - 1 in self.calls else 1.0)


def test_losses_that_are_never_finite_stop_with_the_episode():
    with (
        pytest.warns(UserWarning, match=r"the loss \(nan\) of episode 3 \(seed 0\) is not finite; the step is skipped"),
        pytest.raises(TrainingError, match=r"5 steps in a row .* the last: the loss \(nan\) of episode 4 .*; lower lr"),
    ):
        fit(Broken(*range(99)))


def test_row_76_a_loss_that_is_not_finite_is_skipped_counted_and_leaves_no_trace():
    with pytest.warns(UserWarning, match="of episode 2 "):
        trainer, result = fit(Broken(2, 5, 6), val=None)
    assert result.skipped == [2, 5, 6]
    assert [np.isnan(r["loss"]) for r in result.records] == [i in (2, 5, 6) for i in range(12)]
    assert all(torch.isfinite(value).all() for value in trainer.backbone.state_dict().values())
    # Nine episodes moved the running statistics, the skipped ones did not.
    assert trainer.backbone.blocks[0].norm.num_batches_tracked == 9


def test_poisoned_statistics_are_restored():
    def poison(images, rng):
        return images * (torch.nan if next(calls) == 1 else 1.0)

    calls = iter(range(99))
    with pytest.warns(UserWarning, match="of episode 1 "):
        trainer, result = fit(val=None, augment=poison)
    assert result.skipped == [1]
    assert all(torch.isfinite(value).all() for value in trainer.backbone.state_dict().values())


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
    named = LabeledImages(np.zeros((8, 28, 28, 3), np.uint8), np.repeat(["arc", "box"], 4))
    with pytest.raises(ValueError, match="share 2 classes, such as 'arc'; split by class"):
        MetaTrainer(config=QUICK).fit(named, named, progress=False)


@pytest.mark.parametrize("given", ["photos", (TRAIN.images, TRAIN.labels), None])
def test_what_is_not_labeled_images_is_told_in_a_sentence(given):
    with pytest.raises(TypeError, match=rf"train is a {type(given).__name__}; expected LabeledImages, such as"):
        MetaTrainer(config=QUICK).fit(given, VAL, progress=False)
    if given is not None:
        with pytest.raises(TypeError, match="val is a "):
            MetaTrainer(config=QUICK).fit(TRAIN, given, progress=False)


def test_too_few_validation_images_are_refused_before_training():
    trainer = MetaTrainer(config=QUICK)
    with pytest.raises(ValueError, match="found 4 classes with fewer than the 4 rows"):
        trainer.fit(TRAIN, bars(4, n=3, first=12), progress=False)
    with pytest.raises(AttributeError, match="created by fit"):
        _ = trainer.backbone


def test_a_gradient_that_is_not_finite_stops_before_it_spoils_the_weights():
    class Spoiling(PrototypicalLearner):
        def loss(self, logits, labels):
            # The value is 0, its gradient infinite.
            return super().loss(logits, labels) + (logits.sum() * 0).abs().sqrt()

    trainer = MetaTrainer("conv4", Spoiling(), QUICK)
    with (
        pytest.warns(UserWarning, match="the gradient of episode 0 .* is not finite; the step is skipped"),
        pytest.raises(TrainingError, match="5 steps in a row were not finite, the last: the gradient of episode 4"),
    ):
        trainer.fit(TRAIN, VAL, progress=False)
    assert torch.isfinite(weights(trainer)).all()
    assert not trainer.backbone.training


def test_after_a_failure_the_best_weights_are_restored():
    seen = []

    class LateFailure(PrototypicalLearner):
        def loss(self, logits, labels):
            seen.append(weights(trainer))
            return super().loss(logits, labels) * (torch.nan if len(seen) >= 7 else 1.0)

    trainer = MetaTrainer("conv4", LateFailure(), QUICK)
    with pytest.warns(UserWarning, match="of episode 6 "), pytest.raises(TrainingError, match="of episode 10 "):
        trainer.fit(TRAIN, VAL, progress=False)
    assert torch.equal(weights(trainer), seen[-1])  # those of episode 6: later steps were skipped, val after 4 and 8


def test_an_embedder_lends_a_copy_of_its_network_and_preprocessing():
    embedder = Embedder("resnet12", weights="random", img_size=16)
    before = embedder.fingerprint
    colour = [LabeledImages(np.repeat(d.images[..., None], 3, -1), d.labels) for d in (TRAIN, VAL)]
    trainer = MetaTrainer(embedder, "prototypical", TrainConfig(n_episodes=1, batch_norm="frozen", **SIZES))
    assert trainer.backbone is not embedder.network
    trainer.fit(*colour, progress=False)
    assert embedder.fingerprint == before
    assert not torch.equal(next(trainer.backbone.parameters()), next(embedder.network.parameters()))
    with pytest.raises(ValueError, match=r"the images have 1 channel and the network takes 3; repeat them"):
        trainer.fit(TRAIN, VAL, progress=False)


def test_a_learner_of_places_is_trained_on_maps(tmp_path):
    train, val = (LabeledImages(d.images.repeat(2, 1).repeat(2, 2), d.labels) for d in (TRAIN, VAL))
    seen = set()

    class Watched(DN4Learner):
        def match(self, similarity, weight):
            seen.add(similarity.shape[-2])
            return super().match(similarity, weight)

    MetaTrainer("conv4", Watched(), TrainConfig(n_episodes=1, **SIZES)).fit(train, progress=False)
    assert seen == {4}  # two rows of two places
    trainer = MetaTrainer("conv4", "dn4", QUICK)
    result = trainer.fit(train, val, out=tmp_path, progress=False)
    sizes = {"n_way": 4, "n_query": 3, "n_episodes": 20}
    measured = evaluate("dn4", val.images, val.labels, backbone=trainer.backbone, **sizes)
    assert measured.mean == pytest.approx(result.best_accuracy)
    maps = Embedder(tmp_path / "best.safetensors", pool=None, progress=False).transform(list(val.images))
    assert maps.shape[1:] == (4, 64)
    assert evaluate(trainer.learner, maps, val.labels, **sizes).mean == pytest.approx(result.best_accuracy)


def test_a_network_without_maps_is_refused_for_a_learner_of_places():
    network = nn.Sequential(nn.Flatten())
    with pytest.raises(ValueError, match="Sequential has no map of features"):
        MetaTrainer(network, "mutual-nearest", QUICK).fit(TRAIN, progress=False)
