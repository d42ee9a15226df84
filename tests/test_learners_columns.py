"""A column that decides alone is told; embeddings of networks never have one."""

import warnings

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fewshot import (
    DiscriminantClassifier,
    Embedder,
    FewShotModel,
    MahalanobisClassifier,
    OwnEmbedder,
    PrototypicalClassifier,
    digits,
    evaluate,
)

X, Y = load_wine(return_X_y=True)
TOLD = r"^column 12 makes up over 90 % of the squared {}, so it decides nearly alone; scale the columns first"


def unwarned(fit):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit()


@pytest.mark.parametrize(
    ("model", "what"),
    [
        (DiscriminantClassifier(), "length of the embeddings"),
        (PrototypicalClassifier("cosine"), "length of the embeddings"),
        (PrototypicalClassifier(), "distances between the embeddings"),
        (FewShotModel(OwnEmbedder(np.asarray, "rows")), "length of the embeddings"),
    ],
    ids=["discriminant", "cosine", "distance", "model"],
)
def test_a_column_that_decides_alone_is_told_once_a_fit(model, what):
    with pytest.warns(UserWarning, match=TOLD.format(what)) as record:
        model.fit(X, Y)
    assert len(record) == 1
    unwarned(lambda: model.partial_fit(X[:3] + 1, Y[:3]))
    unwarned(lambda: model.fit(StandardScaler().fit_transform(X), Y))


def test_columns_of_any_size_are_nothing_to_a_learner_that_scales_them():
    unwarned(lambda: MahalanobisClassifier().fit(X, Y))
    unwarned(
        lambda: make_pipeline(StandardScaler(), DiscriminantClassifier()).fit(*load_breast_cancer(return_X_y=True))
    )


def test_a_large_constant_is_no_distance():
    rows = np.random.default_rng(0).normal(100 * np.eye(4)[3], size=(20, 4))
    labels = np.arange(20) % 2
    unwarned(lambda: PrototypicalClassifier().fit(rows, labels))
    with pytest.warns(UserWarning, match="column 3 makes up over 90 %"):
        PrototypicalClassifier("cosine").fit(rows, labels)


@pytest.mark.parametrize(
    ("rows", "labels"),
    [
        ([[9, 1], [9, 2]], [0, 1]),  # two columns
        ([[9, 0, 0], [9, 1, 0]], [0, 1]),  # of three, one says nothing
        ([[9, 1, 1], [9, 1, 2]], [0, 0]),  # one class is decided by nothing
        (np.eye(4), [0, 1, 0, 1]),
    ],
)
def test_what_is_too_little_to_tell_is_not_told(rows, labels):
    unwarned(lambda: PrototypicalClassifier("cosine").fit(rows, labels))


def test_equal_rows_differ_by_rounding_alone():
    unwarned(lambda: PrototypicalClassifier().fit(np.full((12, 4), 0.1) * [1, 2, 3, 7], np.arange(12) % 3))


def test_one_long_row_does_not_make_a_column_that_decides_alone():
    rows = np.vstack([np.random.default_rng(0).normal(size=(20, 4)), [[0, 0, 1e6, 0]]])
    unwarned(lambda: PrototypicalClassifier("cosine").fit(rows, np.arange(21) % 2))


def test_many_rows_are_told_by_some():
    rows = np.random.default_rng(0).normal(size=(5000, 4)) * [1, 1, 1, 30]
    with pytest.warns(UserWarning, match="column 3 makes up over 9"):
        PrototypicalClassifier("cosine").fit(rows, np.arange(5000) % 2)


def test_a_network_computes_no_such_column():
    data = digits()
    model = FewShotModel(Embedder("conv4", weights="random", img_size=28, progress=False))
    unwarned(lambda: model.fit(data.images[:50], data.labels[:50]))


def test_episodes_tell_it_too():
    sizes = {"n_way": 3, "n_query": 5, "n_episodes": 2}
    with pytest.warns(UserWarning, match=TOLD.format("length of the embeddings")):
        evaluate("discriminant", X, Y, **sizes)
    unwarned(lambda: evaluate("discriminant", StandardScaler().fit_transform(X), Y, **sizes))
