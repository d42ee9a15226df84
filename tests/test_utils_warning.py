import warnings

import pytest

from fewshot import FewShotModel, PrototypicalClassifier
from fewshot.utils.warning import ignored_warnings
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
