"""Pages in a real browser: they sort, filter and search, fit both screens, and are whole without their script."""

import io
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fewshot.report.figures import confusion, shots_curve
from fewshot.report.page import Page
from fewshot.report.query import QueryAnswer
from fewshot.report.related import About
from tests.browser import accessible, browsing

CLASSES = ["ant", "Bee", "img2", "img10"]


def photo(rng, side=112):
    """A JPEG with as much detail as a photograph."""
    file = io.BytesIO()
    small = Image.fromarray(rng.integers(0, 256, (14, 14, 3), np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    noise = rng.integers(-12, 13, (side, side, 3))
    Image.fromarray(np.clip(np.asarray(small) + noise, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=85)
    return file.getvalue()


def queries(n, seed=0):
    """Answers of three kinds in turn: sure, doubtful and unknown; the first is the least sure."""
    rng = np.random.default_rng(seed)
    near = [(CLASSES[i % 4], 0.9 - 0.01 * i, photo(rng)) for i in range(8)]
    photos, found = [photo(rng) for _ in range(min(n, 40))], []
    for i in range(n):
        share = 0.5 + 0.49 * i / n
        verdict, is_doubtful = ("unknown", False) if i % 3 == 2 else (None, i % 3 == 1)
        answers = [(CLASSES[i % 4], share, None), (CLASSES[(i + 1) % 4], 1 - share, None)]
        shown = [near[(i + j) % 8] for j in range(3)]
        found.append(QueryAnswer(photos[i % 40], None, answers, f"a/b/{i}.jpg", shown, verdict, "", is_doubtful))
    return found


def page_of(about=None, n=12):
    page = Page("Answers & more", "What a reader sees first.", about)
    page.cards([("12", "images"), ("4", "unknown")])
    rows = {"accuracy, %": [9.5, 10.0, 100.0, 0.5], "images": [1, 2, 3, 4], "answers": [1] * 4, "taken for": [""] * 4}
    page.table(pd.DataFrame(rows, index=pd.Index(CLASSES, name="class")), "Some figures")
    page.figure(confusion(pd.DataFrame(np.eye(4, dtype=int), CLASSES, CLASSES)), "What is taken for what", "In %.")
    curve = pd.DataFrame({"images": [1, 2], "accuracy": [0.5, 0.6], "ci95": [0.1, 0.1]})
    page.figure(shots_curve(curve, curve), "Accuracy against images")
    page.task({"ant": [photo(np.random.default_rng(1))] * 3}, queries(n), "A task")
    page.code("fewshot check model")
    return page


def names(page):
    """Names of the cards that are seen, in their order."""
    return page.locator(".query:visible .name").evaluate_all("all => all.map(one => one.title)")


@pytest.mark.parametrize("screen", ["phone", pytest.param("desktop", marks=pytest.mark.slow)])
def test_a_reader_sorts_filters_and_searches(tmp_path, screen):
    page_of().write(tmp_path / "page.html")
    with browsing((tmp_path / "page.html").as_uri(), screen) as page:
        accessible(page)
        assert names(page) == [f"a/b/{i}.jpg" for i in range(12)]
        page.get_by_label("Show").select_option("unknown")
        assert names(page) == [f"a/b/{i}.jpg" for i in (2, 5, 8, 11)]
        page.get_by_text("4 of 12 images").wait_for()
        page.get_by_label("Order").select_option("most")
        assert names(page) == [f"a/b/{i}.jpg" for i in (11, 8, 5, 2)]
        page.get_by_label("Show").select_option("")
        page.get_by_label("Search").fill("B/1")
        assert sorted(names(page)) == ["a/b/1.jpg", "a/b/10.jpg", "a/b/11.jpg"]
        page.get_by_label("Search").fill("")
        page.get_by_label("Order").select_option("name")
        assert names(page)[1:3] == ["a/b/1.jpg", "a/b/2.jpg"]  # not 10
        colours = page.evaluate(
            "['unknown', 'doubtful', 'told'].map(kind => { const style = getComputedStyle(document.querySelector("
            "`.query.${kind}`)); return [style.backgroundColor, style.borderLeftStyle]; })"
        )
        assert len({tuple(one) for one in colours}) == 3
        if screen == "desktop":
            page.get_by_role("button", name="accuracy, %").click()
            first = page.locator("tbody th").first
            assert first.inner_text() == "img2"  # 100 is more than 9.5
            page.get_by_role("button", name="class").click()
            assert page.locator("tbody th").all_inner_texts() == ["ant", "Bee", "img2", "img10"]
        assert not page.errors


@pytest.mark.slow
@pytest.mark.parametrize("screen", ["phone", pytest.param("desktop", marks=pytest.mark.slow)])
def test_kinds_of_one_genus_are_told_apart(tmp_path, screen):
    genus, image = ["Coccinella septempunctata", "Coccinella quinquepunctata"], photo(np.random.default_rng(0))
    answers, near = [(name, 0.5, None) for name in genus], [(name, 0.9, image) for name in genus]
    page = Page("Beetles", "Two kinds.", None)
    page.task({name: [image] for name in genus}, [QueryAnswer(image, None, answers, "1.jpg", near)], "A task")
    page.write(tmp_path / "page.html")
    with browsing((tmp_path / "page.html").as_uri(), screen) as seen:
        labels = seen.locator(".answer .label, .near .label, .class .label")
        assert sorted(set(labels.all_inner_texts())) == sorted(genus)
        cut = "all => all.filter(one => one.scrollWidth > one.clientWidth || one.scrollHeight > one.clientHeight + 1)"
        assert labels.evaluate_all(f"all => ({cut})(all).map(one => one.textContent)") == []
        accessible(seen)


def test_charts_take_the_fonts_and_colours_of_the_page(tmp_path):
    page_of().write(tmp_path / "page.html")
    seen = []
    for screen in ("desktop", "phone"):
        with browsing((tmp_path / "page.html").as_uri(), screen) as page:
            body, text = page.evaluate(
                "['body', '.chart text'].map(where => { const style = getComputedStyle(document.querySelector(where)); "
                "return [style.fontFamily, where === 'body' ? style.color : style.fill]; })"
            )
            assert body == text
            seen.append(text[1])
            assert page.evaluate("[...document.querySelectorAll('[id]')].map(one => one.id)") == list(
                dict.fromkeys(page.evaluate("[...document.querySelectorAll('[id]')].map(one => one.id)"))
            )
            assert page.get_by_role("img", name="What is taken for what").count() == 1
    assert seen[0] != seen[1]  # the phone is dark


def test_a_page_is_whole_without_its_script(tmp_path):
    page_of().write(tmp_path / "page.html")
    with browsing((tmp_path / "page.html").as_uri(), scripts=False) as page:
        assert page.locator(".query:visible").count() == 12
        assert page.locator("select, input, button").count() == 0  # nothing that would do nothing


def test_two_thousand_images_are_parts_that_a_browser_opens(tmp_path):
    page = Page("Many")
    page.cards([("2000", "images")])
    page.task({}, queries(2000))
    page.section("After them")
    page.write(tmp_path / "many.html")
    files = sorted(tmp_path.iterdir(), key=lambda path: (len(path.name), path.name))
    assert [path.name for path in files] == ["many.html", *(f"many-{n}.html" for n in range(2, len(files) + 1))]
    assert 1 < len(files) < 6
    assert all(path.stat().st_size < 5_000_000 for path in files)
    texts = [path.read_text(encoding="utf-8") for path in files]
    shown = [name for text in texts for name in re.findall(r'class="name" title="a/b/(\d+)\.jpg"', text)]
    assert shown == [str(i) for i in range(2000)]
    assert [text.count("After them") for text in texts] == [0] * (len(files) - 1) + [1]
    assert texts[1].count("{background-image:") == 8  # each neighbour once
    with browsing(files[0].as_uri()) as page:
        page.get_by_role("navigation", name="Parts").first.get_by_role("link", name="2").click()
        page.wait_for_url("**/many-2.html")
        assert page.locator(".near .tile").first.evaluate("one => getComputedStyle(one).backgroundImage") != "none"
        assert page.evaluate("performance.now()") < 10_000
        assert not page.errors


def test_a_search_covers_all_parts_without_a_server(tmp_path, monkeypatch):
    monkeypatch.setattr("fewshot.report.page.MOST_BYTES", 100_000)
    page = Page("Many")
    page.section("More <of> them")
    page.task({}, queries(40))
    page.write(tmp_path / "page.html")
    last = len(list(tmp_path.iterdir()))
    assert last > 2
    with browsing((tmp_path / "page.html").as_uri(), "phone") as page:
        page.get_by_text(re.compile("images in this part")).wait_for()
        page.get_by_label("Search").fill("a/b/39.jpg")
        assert names(page) == []
        link = page.get_by_role("status").get_by_role("link")
        assert link.all_inner_texts() == [f"1 in part {last}"]
        accessible(page)
        link.click()
        page.wait_for_url(f"**/page-{last}.html#*")
        assert names(page) == ["a/b/39.jpg"]
        assert page.get_by_label("Search").input_value() == "a/b/39.jpg"
        page.get_by_label("Search").fill("no such card")
        page.get_by_text(re.compile(r"None of the \d+ images in other parts fits")).wait_for()
        page.get_by_label("Search").fill("")
        page.get_by_label("Show").select_option("unknown")
        assert page.get_by_role("status").get_by_role("link").count() == last - 1
        assert not page.errors


def test_many_classes_are_parts_too(tmp_path):
    rng = np.random.default_rng(0)
    pictures = [photo(rng) for _ in range(12)]
    page = Page("Classes")
    page.task({f"class {i}": pictures for i in range(150)}, [])
    page.write(tmp_path / "page.html")
    texts = [path.read_text(encoding="utf-8") for path in tmp_path.iterdir()]
    assert len(texts) > 1
    assert all(text.count(">2</a>") == 2 for text in texts)  # above and below
    assert all(len(text) < 5_000_000 for text in texts)
    assert sum(text.count('<div class="class">') for text in texts) == 150


def test_pages_of_one_classifier_lead_to_each_other(tmp_path):
    (tmp_path / "note.html").write_text("<p>not ours</p>")
    for model, kind in (("a", "Test"), ("a", "Check"), ("b", "Test"), ("a", "Answers")):
        page_of(About.of(tmp_path / model, kind), 1).write(tmp_path / f"{model} & {kind}.html")
    page_of(None, 1).write(tmp_path / "alone.html")
    with browsing((tmp_path / "a & Test.html").as_uri()) as page:
        links = page.get_by_role("navigation", name="Pages of this classifier")
        assert links.get_by_role("link").all_inner_texts() == ["Answers", "Check", "Test"]
        assert links.locator("[aria-current]").inner_text() == "Test"
        links.get_by_role("link", name="Check").click()
        page.wait_for_url("**Check.html")
        assert links.locator("[aria-current]").inner_text() == "Check"
    later = "a_week_later_of_another_camera_in_the_greenhouse"
    page_of(About.of(tmp_path / "a", "Test"), 1).write(tmp_path / f"{later}.html")
    with browsing((tmp_path / f"{later}.html").as_uri(), "phone") as page:
        links = page.get_by_role("navigation", name="Pages of this classifier")
        named = ["Answers", "Check", "Test (a & Test)", f"Test ({later})"]
        assert links.get_by_role("link").all_inner_texts() == named
        accessible(page)
    for name in ("b & Test.html", "alone.html"):
        assert '<nav class="pages" hidden></nav>' in (tmp_path / name).read_text(encoding="utf-8")
    assert (tmp_path / "note.html").read_text() == "<p>not ours</p>"
    assert str(tmp_path) not in (tmp_path / "a & Test.html").read_text(encoding="utf-8")
