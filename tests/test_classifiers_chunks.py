import time

import numpy as np
import pytest

from fewshot import FewShotClassifier, PrototypicalClassifier
from fewshot.classifiers import chunks, summary

X = np.random.default_rng(0).normal(size=(30, 4))
Y = np.arange(30) % 7


def parts(size=4):
    return ((X[i : i + size], Y[i : i + size]) for i in range(0, len(X), size))


@pytest.mark.parametrize("learner", ["prototypical", "discriminant", "matching"])
def test_chunks_teach_what_all_rows_teach(learner):
    whole = FewShotClassifier(learner).fit(X, Y)
    model = FewShotClassifier(learner).partial_fit(parts())
    np.testing.assert_allclose(model.predict_proba(X), whole.predict_proba(X), rtol=1e-9)
    assert model.n_support_.tolist() == whole.n_support_.tolist()
    more = FewShotClassifier(learner).fit(X[:9], Y[:9])
    more.partial_fit(iter([(X[9:], Y[9:], np.ones(21))]))
    np.testing.assert_allclose(more.predict_proba(X), whole.predict_proba(X), rtol=1e-9)


def test_classes_are_those_of_the_first_call():
    model = PrototypicalClassifier(closed_set=True).partial_fit(parts(), classes=np.arange(7))
    with pytest.raises(ValueError, match="new classes"):
        model.partial_fit(iter([(X[:1], [0]), (X[:1], [9])]))
    assert model.n_support_.sum() == 30  # nor was the first chunk learned


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (iter([]), "there are no chunks; give at least one"),
        (iter([(X, Y), X[0]]), "chunk 1 is .*; give .X, y. or .X, y, sample_weight., or rows as X and y"),
        (iter([(X, Y), (X, Y[:3])]), "inconsistent|labels|samples"),
    ],
)
def test_a_bad_chunk_changes_nothing(given, why):
    model = PrototypicalClassifier().fit(X[:7], Y[:7])
    with pytest.raises(ValueError, match=why):
        model.partial_fit(given)
    assert model.n_support_.sum() == 7


def slow(n):
    for part in parts(30 // n):
        time.sleep(0.05)
        yield part


def test_who_waits_before_a_screen_sees_how_far_it_is(capsys, monkeypatch):
    model = PrototypicalClassifier().partial_fit(slow(3))
    assert capsys.readouterr().err == ""  # no screen
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    model.partial_fit(slow(3))
    assert capsys.readouterr().err == ""  # it does not take long
    monkeypatch.setattr(chunks, "BAR_AFTER", 0.01)
    model.partial_fit(slow(3))
    assert "learning" in capsys.readouterr().err
    monkeypatch.setattr(chunks, "BAR_AFTER", 0)
    monkeypatch.setattr(summary, "LONG", 10)
    model.partial_fit(X, Y)
    assert "0/30" in capsys.readouterr().err
