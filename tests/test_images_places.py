"""Where a match is: the places of both images, on pages and in notebooks."""

import io

import numpy as np
import pytest
from PIL import Image

from fewshot import DN4Learner, FewShotImageClassifier
from fewshot.images.answer import comparing_places
from fewshot.images.pages import write_answers
from fewshot.images.places import highlight, match_places

CORNERS = [(0, 0), (0, 64), (64, 0), (64, 64)]


def scene(kind, corner, seed):
    """Grey noise of 128 pixels with stripes of one direction or the other in one of its corners."""
    rng = np.random.default_rng(seed)
    image = rng.integers(100, 140, (128, 128, 3)).astype(np.uint8)
    stripes = np.where(np.arange(64) // 8 % 2, 255, 0).astype(np.uint8)
    patch = np.tile(stripes, (64, 1))
    top, left = corner
    image[top : top + 64, left : left + 64, :] = (patch if kind == "lines" else patch.T)[..., None]
    return image


@pytest.fixture(scope="module")
def model():
    kinds = ["lines", "bars"] * 4
    images = [scene(kind, CORNERS[i // 2], i) for i, kind in enumerate(kinds)]
    model = FewShotImageClassifier(learner=DN4Learner(salience=4), img_size=128, progress=False)
    return model.fit(images, kinds, ids=list(map(str, range(8))))


@pytest.mark.parametrize("kind", ["lines", "bars"])
def test_the_match_is_where_the_object_is_in_both_images(model, kind):
    for corner in CORNERS[1:3]:
        answer = model.explain(scene(kind, corner, 50))
        assert answer.label == answer.match.label == kind
        own = CORNERS[int(answer.match.id) // 2]
        for heat, (top, left) in ((answer.match.query, corner), (answer.match.support, own)):
            assert heat.shape == (4, 4)
            assert (heat.min(), heat.max()) >= (0, 1)
            inside = heat[top // 32 :, left // 32 :][:2, :2]
            assert inside.mean() > 2 * (heat.sum() - inside.sum()) / 12


def test_several_support_images_come_in_the_order_in_which_they_match(model):
    image = scene("lines", CORNERS[1], 50)
    now = model.snapshot()
    learner, support, shape = comparing_places(now)
    embedded = now.embed([image], thumbnails=True)
    asked = embedded.embeddings[0], ["lines", "bars"], embedded.thumbnails[0]
    found = match_places(learner, support, shape, *asked, 9)
    assert {one.id for one in found} == {"0", "2", "4", "6"}, "all of the class"
    assert [one.id for one in match_places(learner, support, shape, *asked, 2)] == [one.id for one in found[:2]]
    heat = found[0].query.ravel()
    query = embedded.embeddings[0].reshape(-1, shape[2])
    own = {one: x.reshape(-1, shape[2]) for one, x in zip(support.ids, support.embeddings, strict=True)}

    def cosines(keys):
        return (query / np.linalg.norm(query, axis=1)[:, None]) @ (keys / np.linalg.norm(keys, axis=1)[:, None]).T

    totals = [float(cosines(own[one.id]).max(1) @ heat) for one in found]
    assert totals == sorted(totals, reverse=True)
    for one in found:
        there = np.bincount(cosines(own[one.id]).argmax(1), heat, len(heat))
        np.testing.assert_allclose(one.support.ravel(), there / there.max(), atol=1e-4)
        assert Image.open(io.BytesIO(one.support_picture)).size == (192, 192)
    assert model.explain(image).match.id == found[0].id


def test_pages_and_notebooks_show_both_images(model, tmp_path):
    answers = model.answer([scene("lines", CORNERS[1], 60)])
    write_answers(tmp_path / "page.html", model, answers)
    page = (tmp_path / "page.html").read_text()
    assert page.count('class="near match"') == 2
    assert "bright where it matches lines" in page
    assert "where it matches lines" in answers[0]._repr_html_()


def test_without_support_or_maps_there_is_no_match(model):
    images = [scene(kind, CORNERS[0], 0) for kind in ("lines", "bars")]
    bare = FewShotImageClassifier(learner="dn4", img_size=64, keep_support=False, progress=False)
    assert bare.fit(images, ["lines", "bars"]).explain(images[0]).match is None
    assert FewShotImageClassifier(img_size=64, progress=False).fit(images, ["a", "b"]).explain(images[0]).match is None


def test_bright_places_are_those_of_the_heat():
    held = io.BytesIO()
    Image.new("RGB", (90, 90), (120, 120, 120)).save(held, "PNG")
    heat = np.zeros((3, 3))
    heat[0, 2] = 1
    made = np.asarray(Image.open(io.BytesIO(highlight(held.getvalue(), heat)))).astype(float).mean(-1)
    assert made[:40, -40:].mean() > 1.5 * made[-40:, :40].mean()
    assert highlight(b"", heat) == b""
