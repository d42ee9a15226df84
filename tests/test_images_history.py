import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from fewshot import FewShotImageClassifier, FewShotModel, OwnEmbedder, export
from fewshot.errors import ArtifactError
from fewshot.persistence.artifact import restore_artifact
from tests.photographs import photos, quick_embedder
from tests.test_persistence_versions import changed

QUERIES, _ = photos(3, seed=1)


@pytest.fixture
def model():
    return FewShotImageClassifier(quick_embedder(), progress=False).fit(*photos(4))


def answers(folder):
    return FewShotImageClassifier.load(folder).predict_proba(QUERIES)


def test_answers_before_a_change_come_back_and_go_again(model, tmp_path):
    folder = tmp_path / "model"
    model.save(folder)
    before, weights = answers(folder), os.stat(next(folder.glob("weights-*")))
    model.partial_fit(QUERIES[:2], ["heron", "heron"]).save(folder, note="add heron")
    after = answers(folder)
    assert FewShotModel.undo(folder).n_support == 8
    np.testing.assert_array_equal(answers(folder), before)
    found = FewShotModel.undo(folder, to=2)
    assert (found.note, found.n_classes, found.n_support, found.is_current) == ("add heron", 3, 10, True)
    np.testing.assert_array_equal(answers(folder), after)
    now = os.stat(next(folder.glob("weights-*")))
    assert (now.st_ino, now.st_mtime_ns) == (weights.st_ino, weights.st_mtime_ns)  # neither copied nor written again
    assert [one.note for one in FewShotModel.history(folder)] == ["save", "add heron"]
    assert model.is_saved_in(folder)


def test_a_model_loaded_before_does_not_replace_what_was_restored(model, tmp_path):
    model.save(tmp_path / "m")
    model.remove_class("temple").save(tmp_path / "m")
    FewShotModel.undo(tmp_path / "m")
    with pytest.raises(ArtifactError, match="has changed since this classifier was loaded"):
        model.rename_class("flower", "rose").save(tmp_path / "m")
    assert FewShotImageClassifier.load(tmp_path / "m").classes_.tolist() == ["flower", "temple"]


def test_each_way_to_save_and_an_embedder_of_ones_own(tmp_path):
    embedder = OwnEmbedder(lambda texts: [[len(text), text.count("a")] for text in texts], "lengths")
    model = FewShotModel(embedder).fit(["a", "bbbb"], ["x", "y"])
    model.save(tmp_path / "m")
    model.partial_fit(["aaaaaaa"], ["z"]).save(tmp_path / "m")
    FewShotModel.undo(tmp_path / "m")
    assert FewShotModel.load(tmp_path / "m", embedder=embedder).classes_.tolist() == ["x", "y"]
    FewShotModel.clear_history(tmp_path / "m")
    assert [one.n_classes for one in FewShotModel.history(tmp_path / "m")] == [2]


def test_weights_that_were_kept_only_for_an_earlier_version_serve_again(tmp_path):
    model = FewShotImageClassifier("tf_efficientnet_lite0", img_size=32, progress=False).fit(*photos(2))
    for weights in ("embed", "reference", "embed"):
        model.save(tmp_path / "m", weights=weights, note=weights)
    assert len(list((tmp_path / "m").glob("weights-*"))) == 1
    assert [FewShotModel.undo(tmp_path / "m").note for _ in range(2)] == ["reference", "embed"]
    assert len(FewShotImageClassifier.load(tmp_path / "m").classes_) == 2


@pytest.mark.parametrize("name", ["format_1", "format_2/classifier"])
def test_a_folder_of_an_older_version_gets_a_history(tmp_path, name):
    shutil.copytree(Path(__file__).parent / "artifacts" / name, tmp_path / "m")
    before = sorted(path.name for path in (tmp_path / "m").iterdir())
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
    model = FewShotImageClassifier.load(tmp_path / "m")
    expected, n_classes = model.predict_proba(images), len(model.classes_)
    model.rename_class(model.classes_.tolist()[0], "new name").save(tmp_path / "m")
    assert [(one.number, one.n_classes) for one in FewShotModel.history(tmp_path / "m")] == [
        (0, n_classes),
        (1, n_classes),
    ]
    FewShotModel.undo(tmp_path / "m")
    np.testing.assert_array_equal(FewShotImageClassifier.load(tmp_path / "m").predict_proba(images), expected)
    FewShotModel.clear_history(tmp_path / "m")
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == before


@pytest.mark.parametrize("content", [{"classes": 3, "n_support": [1, -1]}, {"classes": {"values": "ab"}}])
def test_what_a_strangers_manifest_says_is_shown_only_if_it_can_be(model, tmp_path, content):
    model.save(tmp_path / "m")
    model.remove_class("temple").save(tmp_path / "m")
    changed(tmp_path / "m", **content)
    forged = FewShotModel.history(tmp_path / "m")[0]
    assert (forged.n_classes, forged.n_support) == (0, 0 if "n_support" in content else 8)
    restore_artifact(tmp_path / "m", "classifier", forged.number)
    with pytest.raises(ArtifactError, match="cannot be used"):
        FewShotImageClassifier.load(tmp_path / "m")
    FewShotModel.undo(tmp_path / "m", to=2)
    assert FewShotImageClassifier.load(tmp_path / "m").classes_.tolist() == ["flower"]


def test_other_folders_have_none(model, tmp_path):
    export(model, tmp_path / "device")
    assert not list((tmp_path / "device").glob("history-*"))
    assert "saved" not in json.loads((tmp_path / "device" / "manifest.json").read_text())
    for folder, reason in ((tmp_path / "device", "it holds a saved export"), (tmp_path / "gone", "no such folder")):
        for act in (FewShotModel.history, FewShotModel.undo, FewShotModel.clear_history):
            with pytest.raises(ArtifactError, match=reason):
                act(folder)
