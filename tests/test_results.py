"""What public methods find can be had as plain values: `to_dict`."""

import dataclasses
import inspect

import numpy as np
import pytest

import fewshot
from fewshot import FewShotModel, OwnEmbedder, annotate, evaluate, retrieve
from fewshot.images.checked import CheckResult
from fewshot.images.tested import TestResult
from fewshot.retrieval.stores.faiss import FaissStore
from fewshot.training.result import TrainResult
from tests.test_utils_plain import is_plain

#: Public classes of data that are no results: what they hold is put in, or is tensors and functions.
NO_RESULTS = {"Episode", "LabeledImages", "Memory", "Statistics", "Record", "Domain", "Grid", "TrainConfig"}
NO_RESULTS |= {"Chain", "Distortion", "Light", "Mirror", "RemoteModel"}
RNG = np.random.default_rng(0)
LABELS = np.repeat([7, 30, 31], 4)
ITEMS = [row.astype(np.float32) for row in RNG.random((12, 8)) + np.eye(8)[LABELS % 8]]


@pytest.fixture(scope="module")
def model():
    return FewShotModel(OwnEmbedder(np.stack, "vectors")).fit(ITEMS, LABELS.tolist())


def results(model):
    """Return a result of each kind."""
    store = FaissStore("cosine", model.embedder_.fingerprint, 8)
    annotations = list(annotate(model, ITEMS))
    store.add(one.record({"price": 12.5}) for one in annotations)
    empty = FewShotModel(OwnEmbedder(np.stack, "vectors"))
    return [
        model.test(ITEMS[:5], [7, 7, 7, 30, 30]),
        model.check(),
        model.rejection("20%"),
        *model.suggest([row + 1 for row in ITEMS], 2),
        *empty.suggest(ITEMS, 2),
        *model.answer(ITEMS[:2]),
        annotations[0],
        retrieve(model, store, ITEMS[:1])[0][0],
        store.search(np.stack(ITEMS[:1]))[0][0],
        evaluate("prototypical", np.stack(ITEMS), LABELS, n_way=2, n_query=2, n_episodes=3),
        TrainResult([{"episode": 1, "seconds": np.float64(2)}]),
    ]


@pytest.mark.filterwarnings("ignore:learned before")
def test_every_result_is_a_dictionary_of_plain_values(model):
    found = results(model)
    for one in found:
        assert is_plain(one.to_dict()), type(one)
    kinds = {type(one) for one in found}
    assert {name for name in fewshot.__all__ if getattr(fewshot, name) in kinds} == (
        {"TestResult", "CheckResult", "Rejection", "Suggestion", "EvalResult"}
    )


def test_a_public_class_of_facts_can_be_a_dictionary():
    """A new result without `to_dict` must not be forgotten."""
    for name in set(fewshot.__all__) - NO_RESULTS - {"__version__"}:
        kind = getattr(fewshot, name)
        is_facts = inspect.isclass(kind) and dataclasses.is_dataclass(kind) and kind.__dataclass_params__.frozen
        assert not is_facts or hasattr(kind, "to_dict"), name


@pytest.mark.filterwarnings("ignore:learned before")
def test_figures_are_those_of_the_result_and_what_cannot_be_told_is_none(model):
    tested = model.test(ITEMS[:5], [7, 7, 30, 30, 30])
    found = tested.to_dict()
    assert (found["images"], found["accuracy"], found["sure"]) == (5, tested.accuracy, tested.mean_probability)
    assert sum(row["images"] for row in found["confusion"]) == sum(row["images"] for row in found["classes"]) == 5
    assert {row["class"]: row["taken for"] for row in found["classes"]} == {7: None, 30: 7}
    unknown = TestResult(np.array([1]), np.array([2]), np.array([1]), np.array([0.5]), 3).to_dict()
    assert (unknown["images"], unknown["accuracy"], unknown["interval"], unknown["unknown_accepted"]) == (
        (0, None, [None, None], 1.0)
    )
    assert unknown["unreadable"] == 3
    suggested = FewShotModel(OwnEmbedder(np.stack, "vectors")).suggest(ITEMS, 1)[0].to_dict()
    assert (suggested["answer"], suggested["likeliest"], suggested["probability"]) == (None, None, 0.0)


@pytest.mark.filterwarnings("ignore:learned already")
def test_a_check_names_images_and_needs_its_classifier(model):
    checked = model.check()
    found = checked.to_dict()
    assert found["with_twice_the_images"] == checked.expected(2)
    assert {row["class"] for row in found["classes"]} == {row["class"] for row in found["gains"]} == {7, 30, 31}
    assert found["classes"][0]["gain with twice"] == checked.gains.loc[7, "gain"]
    doubled = FewShotModel(OwnEmbedder(np.stack, "vectors")).fit([*ITEMS, ITEMS[0] * (1 + 1e-6)], [*LABELS.tolist(), 7])
    (pair,) = doubled.check().to_dict()["near_duplicates"]
    assert pair == [doubled.support_.ids[i] for i in doubled.check().near_duplicates[0]]
    with pytest.raises(ValueError, match="holds no classifier"):
        CheckResult(model.test([row + 1 for row in ITEMS], LABELS.tolist()), np.ones(12, int), []).to_dict()


def test_an_evaluation_tells_its_protocol_and_every_episode():
    result = evaluate("prototypical", np.stack(ITEMS), LABELS, n_way=2, n_query=2, n_episodes=3)
    found = result.to_dict()
    assert (found["accuracy"], found["ci95"]) == (result.mean, result.ci95)
    assert found["accuracies"] == result.accuracies.tolist()
    assert found["protocol"] == result.protocol
    assert sum(row["queries"] for row in found["classes"]) == sum(row["queries"] for row in found["confusion"]) == 12
    one = evaluate("prototypical", np.stack(ITEMS), LABELS, n_way=2, n_query=2, n_episodes=1).to_dict()
    assert one["ci95"] is None
