"""Which models are written as one file, whatever changes."""

from fewshot import MatchingLearner
from fewshot.images import segments
from fewshot.images.kept_rows import APPENDED
from tests.forging import manifest_of
from tests.test_images_kept_rows import load, make, rows, small, state  # noqa: F401 - a fixture


def test_what_is_small_or_has_weights_or_a_bounded_memory_is_written_whole(tmp_path, monkeypatch):
    for learner in (MatchingLearner(max_support=6), "lifelong", "matching"):
        model = make(learner)
        model.save(tmp_path / "m", overwrite=True)
        model.partial_fit(rows(77), ["class 1"], ids=["77"])
        model.save(tmp_path / "m")
        assert state(load(tmp_path / "m")) == state(model)
    monkeypatch.setattr(segments, "LARGE", 2**30)
    make().save(tmp_path / "small")
    assert APPENDED not in manifest_of(tmp_path / "small")
    assert manifest_of(tmp_path / "small")["format"] == 2
