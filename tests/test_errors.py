import pickle

from fewshot.errors import FewshotError, UnknownNameError


def test_near_names_are_proposed():
    error = UnknownNameError("metric", "cosin", ["cosine", "dot"])
    assert str(error) == "no metric is called 'cosin'; did you mean 'cosine'?"
    assert isinstance(error, ValueError)
    assert isinstance(error, FewshotError)


def test_without_a_near_name_the_known_ones_are_listed():
    assert str(UnknownNameError("metric", "x", ["dot", "cosine"])).endswith("known are 'cosine', 'dot'")
    assert str(UnknownNameError("model", "x", map(str, range(1000, 1100)))).endswith("'1019', ...")


def test_it_survives_pickling_between_processes():
    error = UnknownNameError("metric", "cosin", ["cosine", "dot"])
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
