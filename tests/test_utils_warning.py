import traceback
import warnings

import pytest

from fewshot import FewShotModel, LabeledImages, PrototypicalClassifier
from fewshot.utils.warning import ignored_warnings, lock_of_filters
from tests.photographs import quick_embedder, write_photos


@pytest.mark.parametrize("kind", ["embeddings", "model"])
def test_a_warning_points_at_the_users_line(kind, tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if kind == "embeddings":
            PrototypicalClassifier("cosine").fit([[0.0, 0.0], [1.0, 0.0]], ["a", "b"])
        else:
            (path, *_) = write_photos(tmp_path, 1)
            FewShotModel(quick_embedder()).fit([path, path], ["a", "a"]).partial_fit([path], ["a"])
    assert caught
    assert {warning.filename for warning in caught} == {__file__}


def test_a_warning_can_be_shown_and_written_whatever_it_names(tmp_path):
    path = write_photos(tmp_path, 1)[0]
    with pytest.warns(UserWarning, match="twice") as caught:
        FewShotModel(quick_embedder()).fit([path, path], ["caf\udce9", "\x1b[2J\n"])
    message = str(caught[0].message)
    assert message.isprintable()
    assert message.encode()
    assert "caf\\xe9" in message


def test_ignored_warnings_of_one_category_leave_the_filters_as_they_were():
    before = list(warnings.filters)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with ignored_warnings(UserWarning):
            warnings.warn("ignored", UserWarning, stacklevel=1)
            warnings.warn("shown", FutureWarning, stacklevel=1)
        warnings.warn("shown again", UserWarning, stacklevel=1)
    assert [str(warning.message) for warning in caught] == ["shown", "shown again"]
    assert warnings.filters == before


def test_filters_are_set_under_the_lock_in_all_that_a_service_calls(tmp_path, monkeypatch):
    """Otherwise one of two threads that meet restores the filters of the other, as pandas and scikit-learn do."""
    enter, outside = warnings.catch_warnings.__enter__, []

    def entered(self):
        if not lock_of_filters()._is_owned():
            outside.append("".join(traceback.format_stack(limit=12)))
        return enter(self)

    paths = write_photos(tmp_path, 4)
    labels, other = ["a", "b"] * 4, LabeledImages(paths, ["x", "y"] * 4)

    def served():
        model = FewShotModel(quick_embedder()).fit(paths, labels)
        checked, tested = model.check(), model.test(LabeledImages(paths, labels))
        tables = (model.audit(), checked.gains, checked.confused, checked.suspects)
        model.partial_fit(paths[:1], ["c"]).remove_class("c").rename_class("b", "d")
        model.predict_set(paths, coverage=0.5), model.explain(paths[0]), model.suggest(paths, 2)
        model.calibrate(other, n_episodes=2, n_shot=1)
        return *tables, tested.per_class, tested.confusion, model.predict(paths)

    with ignored_warnings():
        served()  # packages that are imported at first use set filters of their own
    monkeypatch.setattr(warnings.catch_warnings, "__enter__", entered)
    with ignored_warnings():
        pass
    assert outside == []
    served()
    assert outside == [], outside[0]
