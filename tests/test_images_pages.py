import re

import pytest

from fewshot import FewShotImageClassifier
from fewshot.images.pages import write_answers, write_classes
from tests.photographs import photos, quick_embedder


@pytest.fixture
def model():
    images, _ = photos(3)
    return FewShotImageClassifier(quick_embedder(), on_error="unknown").fit(images, ["<b>one", "<b>one", "two"] * 2)


def test_each_query_stands_beside_its_answer_and_its_neighbours(model, tmp_path):
    queries, _ = photos(2, seed=1)
    write_answers(tmp_path / "new" / "page.html", model, model.answer([*queries, b"<no image>"]))
    page = (tmp_path / "new" / "page.html").read_text(encoding="utf-8")
    assert page.count("<img ") == 4
    assert page.count('class="near"') == 4 * 3  # three neighbours of each
    assert page.count("data:image/") == 4 + len(set(re.findall(r"p-[0-9a-f]{16}", page)))  # each neighbour once
    assert "&lt;b&gt;one" in page
    assert "<b>one" not in page
    assert "Not read" in page
    assert "http" not in page.replace("http://www.w3.org", "")


def test_the_classes_are_shown_with_their_images(model, tmp_path):
    write_classes(tmp_path / "page.html", model, {"backbone": "conv4 <32>"})
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("data:image/") == 6
    assert "conv4 &lt;32&gt;" in page
    assert "&lt;b&gt;one (4)" in page


def test_without_support_the_classes_are_a_table(tmp_path):
    images, _ = photos(1)
    model = FewShotImageClassifier(quick_embedder(), keep_support=False).fit(images, ["a", "b"])
    write_classes(tmp_path / "page.html", model, {})
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "were not kept" in page
    assert "data:image/" not in page
