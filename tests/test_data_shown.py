"""What a notebook shows of labelled images."""

import io
import re

import numpy as np
import pytest
from matplotlib import pyplot
from PIL import Image

from fewshot import LabeledImages, digits
from fewshot.data.shown import grid_of, thumbnail_of


def jpeg(size):
    buffer = io.BytesIO()
    Image.effect_mandelbrot(size, (-2, -1, 1, 1), 50).convert("RGB").save(buffer, "JPEG")
    return buffer.getvalue()


def test_a_cell_shows_each_class_with_its_first_images():
    shown = digits()[:200]._repr_html_()
    assert "200 images of 28 x 28, 10 classes" in shown
    assert shown.count("<img") == 8 * 6
    assert "and 2 more: 8, 9" in shown


def test_a_cell_survives_missing_and_damaged_files_and_labels_from_strangers(tmp_path):
    (tmp_path / "damaged.jpg").write_bytes(jpeg((300, 300))[:900])
    (tmp_path / "good.jpg").write_bytes(jpeg((4000, 3000)))
    paths = ["missing.png", tmp_path / "damaged.jpg", tmp_path / "good.jpg"]
    data = LabeledImages(paths, ["<script>alert(1)</script>", "b", "\u202eevil"])
    shown = data._repr_html_()
    assert shown.count("<img") == 1
    assert shown.count(">?</span>") == 2
    assert "<script" not in shown
    assert "&lt;script&gt;" in shown
    assert "\u202e" not in shown
    assert not re.search(r"(src|href)=\"(?!data:)", shown)
    assert repr(data) == "LabeledImages(3 images of any size, as files, 3 classes)"


def test_a_cell_stays_small_whatever_is_shown():
    n = 3000
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, 64, 64, 3), np.uint8)
    data = LabeledImages(images, [f"{i % 1500:05d} {'x' * 5000}" for i in range(n)])
    assert len(data._repr_html_()) < 500_000


def test_a_thumbnail_is_small_and_right_side_up():
    rotated = Image.new("RGB", (400, 200), "red")
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    rotated.save(buffer, "JPEG", exif=exif)
    assert Image.open(io.BytesIO(thumbnail_of(buffer.getvalue()))).size == (48, 96)
    for source in (np.zeros((5, 4), np.uint8), Image.new("L", (4, 5)), io.BytesIO(jpeg((40, 30)))):
        assert max(Image.open(io.BytesIO(thumbnail_of(source))).size) <= 96
    for bad in (b"no image", "data:image/png;base64,AAAA", None, np.zeros((2, 2, 9))):
        assert thumbnail_of(bad) is None


def test_images_are_drawn_with_a_row_for_each_class():
    data = digits()
    axes = data.show(4, 3)
    try:
        assert [label.get_text() for label in axes.get_yticklabels()] == ["0", "1", "2"]
        assert axes.images[0].get_array().shape == (300, 400, 4)
        axes.figure.canvas.draw()
    finally:
        pyplot.close(axes.figure)
    _, own = pyplot.subplots()
    assert LabeledImages(["missing.png"], ["$a_b$"]).show(ax=own) is own
    own.figure.canvas.draw()
    pyplot.close(own.figure)
    with pytest.raises(ValueError, match="n_images is 0; expected a whole number of at least 1"):
        data.show(0)


def test_the_grid_keeps_proportions_and_marks_what_is_missing():
    wide = thumbnail_of(np.full((10, 20, 3), 255, np.uint8))
    grid = grid_of({"a": [wide, None], "b": []}, side=20)
    assert grid.shape == (48, 48, 4)
    assert (grid[2:22, 2:22, 3] == 255).any(1).sum() == 10
    assert (grid[2:22, 26:46] == (128, 128, 128, 60)).all()
    assert not grid[24:, :, 3].any()
