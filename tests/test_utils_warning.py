import warnings

import pytest

from fewshot import FewShotModel, PrototypicalClassifier
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
