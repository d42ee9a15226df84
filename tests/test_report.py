"""Pages are complete, self-contained and escaped; figures draw their data."""

import re
from html.parser import HTMLParser

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from fewshot.persistence.files import write_text
from fewshot.report.figures import accuracy_dots, confusion, embedding_maps, learning_curve, shots_curve
from fewshot.report.page import Page
from fewshot.report.query import QueryAnswer

HOSTILE = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "a\x00b\nc", "x" * 300, "🦉", "שלום", "../x"]
IMAGE = np.arange(64, dtype=np.uint8).reshape(8, 8)


class Strict(HTMLParser):
    """Fail on unbalanced tags; collect pictures and links."""

    void = ("meta", "img", "br", "link")

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def parse(page):
    parser = Strict()
    parser.feed(page.to_html("the end"))
    assert not parser.open
    return parser


def accuracies():
    return pd.DataFrame(
        [
            {"setting": s, "method": m, "accuracy": a, "ci95": 0.01, "chance": 0.2}
            for s, m, a in [
                ("one, hard", "ours", 0.9),
                ("one, hard", "theirs", 0.5),
                ("two", "ours", 0.7),
                ("two", "theirs", 0.6),
            ]
        ]
    )


def full_page():
    page = Page("Title", "Lead")
    page.section("Section", "First.\n\nSecond.")
    page.cards([("99 %", "right")])
    page.table(pd.DataFrame({"a": [1.5, float("nan")]}, index=pd.Index(["x", "y"], name="row")), "A table")
    page.figure(accuracy_dots(accuracies()), "Dots")
    page.code("fewshot demo")
    page.task(
        {"a": [IMAGE], "b": [np.stack([IMAGE] * 3, -1)]},
        [QueryAnswer(IMAGE, "a", [("b", 0.7, -1.0), ("a", 0.3, -2.0)])],
    )
    return page


def test_a_page_is_balanced_and_fetches_nothing():
    parsed = parse(full_page())
    for tag, attributes in parsed.tags:
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith("data:")
        assert tag != "img" or attributes["alt"]
    assert not re.search(r"https?://", full_page().to_html())
    text = " ".join(parsed.text)
    for part in ("Title", "First.", "Second.", "99 %", "A table", "fewshot demo", "wrong, it is", "70%", "the end"):
        assert part in text
    assert "nan" not in parsed.text
    assert dict(parsed.tags)["html"]["lang"] == "en"


@pytest.mark.parametrize("label", HOSTILE)
def test_row_40_a_hostile_label_stays_text(label):
    page = Page(label, label)
    page.section(label, label)
    page.cards([(label, label)])
    page.table(pd.DataFrame({label: [label]}, index=pd.Index([label], name=label)), label)
    page.figure(confusion(pd.DataFrame([[1]], [label], [label])), label, label)
    page.code(label)
    page.task({label: [IMAGE]}, [QueryAnswer(IMAGE, label, [(label, 1.0, 0.0)])], label)
    parsed = parse(page)
    assert [tag for tag, _ in parsed.tags].count("script") == 1  # ours
    assert not any(name.startswith("on") for _, attributes in parsed.tags for name in attributes)
    shown = label.replace("\x00", "\\x00").replace("\n", "\\x0a").split("\\x0a")[0]
    assert sum(shown in text for text in parsed.text) >= 10
    assert "\x00" not in page.to_html()


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    full_page().write(path)
    before = path.read_text(encoding="utf-8")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_text(path, "new")
    assert path.read_text(encoding="utf-8") == before
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]


def test_dots_stand_at_the_accuracies_and_the_best_method_on_top():
    frame = accuracies()
    for ax, expected in zip(accuracy_dots(frame).axes, ([90, 50], [70, 60]), strict=True):
        x, y = ax.containers[0].lines[0].get_data()
        np.testing.assert_allclose(np.asarray(x, float), expected)
        assert y[0] > y[1]
        assert ax.lines[-1].get_xdata() == [20, 20]  # chance
    groups = accuracy_dots(frame.assign(group=["a", "b", "a", "b"]).drop(columns="chance"))
    assert [[len(c.lines[0].get_xdata()) for c in ax.containers] for ax in groups.axes] == [[1, 1], [1, 1]]


def test_a_missing_interval_is_drawn_without_whisker():
    figure = accuracy_dots(accuracies().assign(ci95=np.nan).drop(columns="chance"))
    figure.canvas.draw()
    assert len(figure.axes[0].containers[0].lines[0].get_xdata()) == 2


def test_the_curve_shows_every_validation():
    frame = pd.DataFrame(
        {"episode": range(1, 11), "loss": 1.0, "accuracy": 0.5, "val_accuracy": np.nan, "val_ci95": 0.1}
    )
    frame.loc[[4, 9], "val_accuracy"] = [0.6, 0.7]
    points = learning_curve(frame).axes[1].containers[0].lines[0].get_ydata()
    np.testing.assert_allclose(np.asarray(points, float), [60, 70])
    assert learning_curve(frame.drop(columns=["val_accuracy", "val_ci95"])).axes


@pytest.mark.parametrize("n", [1, 2, 12, 100])
def test_a_confusion_is_shown_as_shares_of_each_class(n):
    labels = [chr(0x4E00 + i) for i in range(n)]  # characters that the font lacks must not warn
    figure = confusion(pd.DataFrame(np.eye(n, dtype=int) * 5, labels, labels))
    figure.canvas.draw()
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), 100 * np.eye(n))


def test_maps_draw_every_point_and_name_every_class():
    labels = np.array(["a", "b", "$x^", "a"])
    figure = embedding_maps([("before", np.zeros((4, 2)), labels), ("after", np.ones((4, 2)), labels)])
    figure.canvas.draw()
    for ax in figure.axes:
        assert sum(len(c.get_offsets()) for c in ax.collections) == 4
        assert len(ax.texts) == 3


def test_measured_and_expected_accuracy_share_an_axis_of_images():
    measured = pd.DataFrame({"images": [1, 2, 9.7], "accuracy": [0.5, 0.6, 0.8], "ci95": [0.1, 0.1, 0.05]})
    figure = shots_curve(measured, pd.DataFrame({"images": [9.7, 19.4], "accuracy": [0.8, 0.85]}))
    assert figure.axes[0].get_xscale() == "log"
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["1", "2", "10", "19"]
    with pytest.raises(ValueError, match="lacks"):
        shots_curve(measured[["images"]], measured)


@pytest.mark.parametrize(
    ("draw", "match"),
    [
        (lambda: accuracy_dots(pd.DataFrame({"setting": ["a"]})), "lacks .*method.*; expected rows with columns"),
        (lambda: learning_curve(pd.DataFrame({"episode": []})), "lacks .*loss"),
        (lambda: confusion(pd.DataFrame([[1, 2]])), r"shape \(1, 2\); expected the same classes"),
        (lambda: confusion(pd.DataFrame([[1, 2], [3, 4]], ["a", "b"], ["b", "a"])), "expected the same classes"),
        (lambda: accuracy_dots(accuracies().assign(accuracy=93)), "outside 0..1; divide percentages by 100"),
        (lambda: QueryAnswer(IMAGE, "a", []), "the query of 'a' has no answers"),
        (lambda: embedding_maps([]), "no points to draw"),
        (lambda: embedding_maps([("m", np.zeros((3, 3)), np.arange(3))]), r"points of shape \(3, 3\)"),
    ],
)
def test_bad_input_is_one_sentence(draw, match):
    with pytest.raises(ValueError, match=match):
        draw()


def test_matplotlib_settings_are_unchanged():
    before = dict(mpl.rcParams)
    full_page().to_html()
    assert dict(mpl.rcParams) == before


def test_listings_keep_their_lines_and_joined_emoji_their_joiners():
    page = Page("t")
    page.code("one\n  two")
    page.section("👩\u200d🔬", "a\nline")
    html = page.to_html()
    assert ">one\n  two</pre>" in html
    assert "👩\u200d🔬" in html
    assert "<p>a line</p>" in html
    page.section("\u202egnp.exe")
    assert "\u202e" not in page.to_html()


def test_a_float_picture_is_refused():
    with pytest.raises(TypeError, match="the image of 'a' has dtype float64; expected uint8"):
        Page("t").task({"a": [IMAGE / 255]}, [])


def test_labels_with_math_or_missing_glyphs_are_drawn():
    frame = accuracies().replace({"ours": "a$b_$", "theirs": "\u4f60", "two": "x^2$"})
    accuracy_dots(frame).canvas.draw()
    embedding_maps([("\u4f60", np.zeros((2, 2)), np.array(["a", 1], dtype=object))]).canvas.draw()
