"""What a notebook shows of models, answers and results."""

import io

import numpy as np
import pytest
import sklearn
from PIL import Image
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from fewshot import FewShotImageClassifier, FewShotModel, OwnEmbedder, digits
from tests.photographs import quick_embedder

DATA = digits()[:200]
SUPPORT, QUERIES = DATA.split(4)


@pytest.fixture(scope="module")
def model():
    known = SUPPORT.with_classes(range(9))
    return FewShotImageClassifier(quick_embedder(), on_error="unknown").fit(known)


def html(shown):
    return shown._repr_mimebundle_()["text/html"] if hasattr(shown, "_repr_mimebundle_") else shown._repr_html_()


def test_a_fitted_model_shows_its_classes_and_an_unfitted_one_its_parameters(model):
    shown = html(model)
    assert "9 classes from 36 items; conv4, discriminant" in shown
    assert shown.count("<img") == 8 * 4
    assert "and 1 more: 8" in shown
    assert model._repr_html_() == shown
    assert model._repr_mimebundle_()["text/plain"] == repr(model)
    unfitted = html(FewShotImageClassifier("resnet18"))
    assert "sk-container-id" in unfitted
    assert "resnet18" in unfitted
    with sklearn.config_context(display="text"):
        assert "text/html" not in model._repr_mimebundle_()
    assert "FewShotImageClassifier" in html(make_pipeline(FunctionTransformer(), model))


def test_models_of_many_classes_without_support_and_of_text_are_shown():
    def embed(texts):
        return np.array([[len(text), hash(text) % 97, 1.0] for text in texts])

    labels = [f"<b>{i}" for i in range(300)]
    model = FewShotModel(OwnEmbedder(embed, "hash <1>"), keep_support=False).fit(labels, labels)
    shown = html(model)
    assert "300 classes from 300 items; hash &lt;1&gt;, discriminant" in shown
    assert "<b>0" not in shown
    assert len(shown) < 20_000
    kept = FewShotModel(OwnEmbedder(embed, "hash <1>")).fit(labels, labels)
    assert "Support" in html(kept.support_)
    assert repr(kept.support_) == "Support(300 items of 300 classes)"


def test_results_are_short_at_the_prompt():
    model = FewShotImageClassifier(quick_embedder(), on_error="unknown", reject="20%").fit(
        SUPPORT.with_classes(range(8))
    )
    answers, tested, checked = model.answer([*QUERIES.images[:20], "missing.png"]), model.test(QUERIES), model.check()
    for result, said in (
        (answers, f"21 images, {sum(one.rejected for one in answers)} unknown, 1 unread"),
        (tested, f"{100 * tested.refused:.0f} % answered unknown"),
        (
            tested,
            f"least right: {tested.per_class['accuracy'].idxmin()}: {100 * tested.per_class['accuracy'].min():.0f} %",
        ),
        (checked, str(checked)),
        (answers[-1], "Answer(missing.png: not read, no such file or directory)"),
    ):
        assert said in repr(result)
        assert repr(result).count("\n") < 11
        assert max(map(len, repr(result).splitlines())) < 120
    for answer in answers[:-1]:
        assert f": {answer.label} ({answer.likeliest}: {answer.probability:.2f}, " in repr(answer)


def test_answers_show_pictures_probabilities_and_neighbours(model):
    answers = model.answer([*QUERIES.images[:20], "missing.png"], n_neighbours=2)
    assert isinstance(answers, list)
    assert len(answers) == 21
    shown = html(answers)
    assert "21 images, 1 unread" in shown
    assert "and 13 more" in shown
    assert shown.count("<img") == 8 * 3
    last = html(answers[-1])
    assert "not read" in last
    assert "missing.png" in last
    one = html(answers[0])
    assert one.count("<img") == 3
    assert f"{100 * answers[0].probability:.0f} %" in one
    promised = html(model.set_params(reject="20%").answer(QUERIES.images))
    model.set_params(reject=None)
    assert " unknown" in promised


def test_results_show_figures_and_the_worst_mistakes(model):
    result = model.set_params(reject="20%").test(QUERIES)
    model.set_params(reject=None)
    assert f"{100 * result.accuracy:.1f} % of {result.n} items right" in str(result)
    shown = html(result)
    assert str(result) in shown
    assert "of unknown classes taken for a class" in shown
    assert "mistakes" in shown
    assert shown.count("<img") <= 6 * 4
    check = model.check()
    shown = html(check)
    assert f"{100 * check.accuracy:.0f} %" in shown
    assert "36 items of the support" in shown
    unknown = model.set_params(reject=0.5).test(QUERIES.with_classes([9]))
    model.set_params(reject=None)
    assert " of unknown classes (" in str(unknown)
    assert "taken for a class" in html(unknown)


def test_labels_of_strangers_are_escaped_everywhere():
    names = np.array(["<script>a", "<script>b"])[DATA.labels % 2]
    model = FewShotImageClassifier(quick_embedder()).fit(DATA.images[:40], names[:40])
    held_out = DATA.images[40:80], [f"<script>{i % 3}" for i in range(40)]
    calibration = model.calibrate(*held_out, n_episodes=5).calibration_
    results = model.test(DATA.images[80:], names[80:]), model.check(), model.answer(DATA.images[:2])
    cost = model.rejection("balanced")
    assert f"{100 * cost.false_accept_rate:.0f} %" in html(cost)
    for shown in (model, model.support_, calibration, cost, *results):
        assert "<script" not in html(shown)
        assert len(html(shown)) < 300_000


def test_a_support_of_pictures_too_large_for_a_cell(model):
    buffer = io.BytesIO()
    Image.effect_noise((300, 300), 100).save(buffer, "PNG")
    support = model.support_
    large = type(support)(support.ids, support.labels, support.embeddings, [buffer.getvalue()] * len(support))
    assert "<img" not in html(large)


def test_a_model_of_text_shows_no_boxes_for_pictures():
    embedder = OwnEmbedder(lambda texts: [[t.count("a") + 1, t.count("i")] for t in texts], "letters")
    model = FewShotModel(embedder).fit(["banana", "lama", "kiwi", "pippi"], ["a", "a", "i", "i"])
    for shown in (model, model.check(), model.explain("currant"), model.support_):
        found = shown._repr_html_()
        assert ">?<" not in found
        assert "<img" not in found
