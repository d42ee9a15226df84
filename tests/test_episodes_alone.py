import numpy as np
import pytest

from fewshot import PrototypicalLearner, TransductiveClassifier, evaluate

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(80, 6)) + 3 * np.repeat(np.eye(4, 6), 20, 0), np.repeat(list("abcd"), 20)


class Honest(PrototypicalLearner):
    """A learner that is not of the package."""


class Centred(PrototypicalLearner):
    """Subtracts the mean of the queries, and does not say so."""

    def score(self, memory, queries):
        return super().score(memory, queries - queries.mean(-2, keepdim=True))

    indexable = False


class Declared(Centred):
    transductive = True


@pytest.mark.parametrize("sizes", [{}, {"n_query": 2}, {"n_query": 3, "query_classes": "dirichlet"}])
def test_a_learner_that_hides_its_transduction_is_refused(sizes):
    with pytest.raises(ValueError, match="^Centred answers a query otherwise among .* set transductive = True in the"):
        evaluate(Centred(), X, Y, n_way=4, n_episodes=3, **sizes)
    assert evaluate(Declared(), X, Y, n_way=4, n_episodes=3, **sizes).protocol["transductive"]
    assert not evaluate(Honest(), X, Y, n_way=4, n_episodes=3, **sizes).protocol["transductive"]


def test_a_learner_that_says_so_is_answered_by_the_other_estimator():
    assert TransductiveClassifier(Declared()).fit(X, Y).predict(X).shape == Y.shape
