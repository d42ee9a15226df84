"""Data to measure on: no duplicates, and no training or selection data."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fewshot import LabeledImages, MetaTrainer, TrainConfig
from fewshot.benchmark.backbones import is_external, refuse_unfit, train_backbone
from fewshot.benchmark.grid_file import Backbone, Dataset
from fewshot.benchmark.sources import measured
from fewshot.data.packed import write_packed
from fewshot.errors import ImageDecodeError, LeakError
from tests.photographs import write_photos

RNG = np.random.default_rng(0)


def prepared(folder, splits, images=None, n=6):
    """Write prepared data with `n` images per class; `splits` lists the classes of each split."""
    labels = [label for classes in splits.values() for label in classes for _ in range(n)]
    split = [name for name, classes in splits.items() for _ in classes for _ in range(n)]
    images = RNG.integers(0, 256, (len(labels), 16, 16), dtype=np.uint8) if images is None else images
    write_packed(folder, images, pd.DataFrame({"path": "made", "label": labels, "split": split}), {})
    return images


def test_duplicates_are_dropped_and_named(tmp_path):
    images = prepared(tmp_path, {"test": ["a", "b"]})
    images[3] = images[7] = images[0]
    prepared(tmp_path, {"test": ["a", "b"]}, images)
    found = measured(Dataset(str(tmp_path)), False)
    assert len(found.data) == 10
    assert found.dropped == ("image 3 (of a)", "image 7 (of b)")
    assert found.data.labels.tolist() == ["a"] * 5 + ["b"] * 5


def test_files_are_compared_by_content(tmp_path):
    write_photos(tmp_path, 3)
    found = measured(Dataset(str(tmp_path), split="none"), False)
    again = next((tmp_path / found.data.classes[0]).iterdir())
    (again.parent / "copy.png").write_bytes(again.read_bytes())
    twice = measured(Dataset(str(tmp_path)), False)
    assert len(twice.dropped) == 1
    assert twice.digest == found.digest


def test_a_class_of_another_split_refuses_the_run(tmp_path):
    prepared(tmp_path, {"train": ["a", "b"], "test": ["b", "c"]})
    with pytest.raises(LeakError, match=r"found 1 class of .* also in the split 'train' of .*, e.g. b; split by class"):
        measured(Dataset(str(tmp_path)), False)


def test_an_image_of_another_split_refuses_the_run(tmp_path):
    images = prepared(tmp_path, {"val": ["a"], "test": ["b", "c"]})
    images[8] = images[2]
    prepared(tmp_path, {"val": ["a"], "test": ["b", "c"]}, images)
    with pytest.raises(LeakError, match=r"found 1 image of .* also in the split 'val' of .*, e.g. image 2 \(of a\)"):
        measured(Dataset(str(tmp_path)), False)


def test_a_missing_base_split_is_an_error():
    with pytest.raises(ValueError, match=r"center = 'base' needs a split 'train' of digits, which has no splits"):
        measured(Dataset("digits"), True)
    assert len(measured(Dataset("glyphs", split="val", base="test"), True).base.classes) == 240


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint that was trained on the classes a..f and selected on g, h."""
    folder = tmp_path_factory.mktemp("run")
    train = LabeledImages(RNG.integers(0, 256, (36, 16, 16), dtype=np.uint8), np.repeat(list("abcdef"), 6))
    val = LabeledImages(RNG.integers(0, 256, (12, 16, 16), dtype=np.uint8), np.repeat(list("gh"), 6))
    config = TrainConfig(n_episodes=2, n_way=3, n_query=2, val_n_query=2, val_n_episodes=5, validate_every=1)
    MetaTrainer("conv4", "prototypical", config).fit(train, val, out=folder, progress=False)
    return folder / "best.safetensors"


@pytest.mark.parametrize("seen", ["a", "h"])
def test_measuring_on_training_or_selection_classes_of_a_checkpoint_is_refused(checkpoint, tmp_path, seen):
    prepared(tmp_path / "data", {"test": [seen, "x"]})
    one = measured(Dataset(str(tmp_path / "data")), False)
    with pytest.raises(LeakError, match=rf"was trained or selected on 1 class of data, e.g. {seen}"):
        refuse_unfit(Backbone(str(checkpoint)), [one])
    with pytest.raises(LeakError, match=rf"was trained or selected on 1 class of data, e.g. {seen}"):
        refuse_unfit(Backbone("conv4", weights=str(checkpoint)), [one])
    prepared(tmp_path / "data", {"test": ["x", "y"]})
    refuse_unfit(Backbone(str(checkpoint)), [measured(Dataset(str(tmp_path / "data")), False)])


def test_images_that_a_checkpoint_was_trained_on_are_known_under_other_names_and_numbers(tmp_path):
    images = prepared(tmp_path / "data", {"test": ["1", "2", "3"]}, n=10)
    seen = LabeledImages(images[:20], np.repeat([7, 8], 10))
    config = TrainConfig(n_episodes=1, n_way=2, n_query=2, val_n_episodes=5)
    MetaTrainer("conv4", "prototypical", config).fit(seen, None, out=tmp_path / "run", progress=False)
    one = measured(Dataset(str(tmp_path / "data")), False)
    with pytest.raises(LeakError, match=r"was trained or selected on 2 classes of data, e.g. 1, 2; measure"):
        refuse_unfit(Backbone(str(tmp_path / "run" / "best.safetensors")), [one])


def test_words_name_the_same_class_in_other_data_and_numbers_do_not(tmp_path):
    prepared(tmp_path / "one", {"train": ["wolf", "1"], "val": ["c", "2"], "test": ["d", "e"]})
    prepared(tmp_path / "two", {"test": ["wolf", "y"]})
    prepared(tmp_path / "three", {"test": ["1", "2"]})
    trained = Backbone("conv4", train_on=str(tmp_path / "one"))
    with pytest.raises(LeakError, match=r"found 1 class of two also in the split 'train' of .*, e.g. wolf"):
        refuse_unfit(trained, [measured(Dataset(str(tmp_path / "two")), False)])
    refuse_unfit(trained, [measured(Dataset(str(tmp_path / "three")), False)])


def test_a_base_is_known_by_its_content(tmp_path):
    images = prepared(tmp_path, {"train": ["a"], "test": ["b", "c"]})
    before = measured(Dataset(str(tmp_path)), True)
    images[0] ^= 255
    prepared(tmp_path, {"train": ["a"], "test": ["b", "c"]}, images)
    after = measured(Dataset(str(tmp_path)), True)
    assert before.digest == after.digest
    assert before.base_digest != after.base_digest


def test_a_missing_image_is_named(tmp_path):
    write_photos(tmp_path, 3)
    table = pd.DataFrame({"path": [*sorted(tmp_path.glob("*/*"))[:4], tmp_path / "gone.png"], "label": list("aabbb")})
    table.to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(ImageDecodeError, match=r"gone.png: No such file or directory; restore the file, or remove it"):
        measured(Dataset(str(tmp_path / "t.csv")), False)


def test_external_pretraining_is_marked(checkpoint):
    found = [Backbone("pixels"), Backbone("conv4", weights="random"), Backbone(str(checkpoint)), Backbone()]
    assert [is_external(one) for one in found] == [False, False, False, True]


def test_images_that_a_backbone_of_the_grid_is_trained_on_refuse_the_run(tmp_path):
    images = prepared(tmp_path / "one", {"train": ["a", "b"], "val": ["c"], "test": ["d", "e"]})
    trained = Backbone("conv4", train_on=str(tmp_path / "one"))
    refuse_unfit(trained, [measured(Dataset(str(tmp_path / "one")), False)])
    prepared(tmp_path / "two", {"test": ["x", "y"]}, images[6:18])
    with pytest.raises(LeakError, match=r"found 6 images of two also in the split 'train' of .*, on which conv4"):
        refuse_unfit(trained, [measured(Dataset(str(tmp_path / "two")), False)])


def test_a_backbone_is_trained_once_and_again_when_its_settings_change(tmp_path, monkeypatch):
    prepared(tmp_path / "data", {"train": list("abcd"), "val": list("ef"), "test": ["x", "y"]})
    settings = {"n_episodes": 2, "n_way": 3, "n_query": 2, "val_n_query": 2, "val_n_episodes": 5}
    one = Backbone("conv4", train_on=str(tmp_path / "data"), train=settings)
    path = train_backbone(one, tmp_path / "out", False).backbone
    weights = Path(path).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(MetaTrainer, "fit", None)  # which would be an error
        assert train_backbone(one, tmp_path / "out", False).backbone == path
    assert Path(path).read_bytes() == weights
    other = Backbone("conv4", train_on=str(tmp_path / "data"), train={**settings, "lr": 0.001})
    assert train_backbone(other, tmp_path / "out", False).backbone != path
    with pytest.raises(ValueError, match="digits has no split 'train', which training 'conv4 trained on digits' needs"):
        refuse_unfit(Backbone("conv4", train_on="digits"), [])
