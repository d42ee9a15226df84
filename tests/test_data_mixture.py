import numpy as np
import pytest

from fewshot import LabeledImages, MetaTrainer, TrainConfig, mix
from fewshot.episodes.grouped_sampler import GroupedEpisodeSampler
from tests.training_data import SIZES, TRAIN, VAL


def test_every_image_keeps_its_label_under_the_name_of_its_source():
    data, groups = mix({"a": TRAIN, "b": VAL})
    np.testing.assert_array_equal(data.images[len(TRAIN) :], VAL.images)
    assert data.labels[0] == f"a/{TRAIN.labels[0]}"
    assert data.labels[-1] == f"b/{VAL.labels[-1]}"
    assert len(data.classes) == len(TRAIN.classes) + len(VAL.classes)
    assert all(label.startswith(f"{group}/") for label, group in zip(data.labels, groups, strict=True))


def test_it_is_trained_on_one_source_an_episode():
    from functools import partial

    from fewshot import EpisodeSampler

    data, groups = mix({"a": TRAIN, "b": LabeledImages(255 - TRAIN.images, TRAIN.labels)})
    inner = partial(EpisodeSampler, n_way=5, n_query=3)

    def sampler(labels, seed):
        return GroupedEpisodeSampler(labels, groups, inner, seed=seed, weight={"b": 2})

    result = MetaTrainer(config=TrainConfig(n_episodes=3, **SIZES)).fit(data, sampler=sampler, progress=False)
    assert len(result.records) == 3


def test_sources_that_do_not_fit_are_told():
    with pytest.raises(ValueError, match="there are no sources"):
        mix({})
    small = LabeledImages(TRAIN.images[:, :8, :8], TRAIN.labels)
    with pytest.raises(ValueError, match=r"images of 'a' are 16 x 16 and those of 'b' 8 x 8; decode all to one size"):
        mix({"a": TRAIN, "b": small})
    with pytest.raises(ValueError, match="of 'b' files"):
        mix({"a": TRAIN, "b": LabeledImages(["x.png"], ["c"])})
