import itertools
import unicodedata

import numpy as np
import pytest

from fewshot.data import glyphs as module
from fewshot.data.glyphs import MAX_DRAWINGS, MIN_DRAWINGS, NEAR, SAME, glyphs


@pytest.fixture(scope="module")
def drawings():
    return module._drawings()


@pytest.fixture(scope="module")
def unit(drawings):
    """Undistorted drawings as they are compared, as rows of length 1."""
    pixels = drawings.shapes.reshape(len(drawings.shapes), -1).astype(np.float32)
    return pixels / np.linalg.norm(pixels, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def rows():
    """Some rows, to compare with all others by brute force."""
    return np.random.default_rng(0).choice(len(module._drawings().labels), 1500, replace=False)


def test_there_are_enough_classes_and_images():
    data = glyphs()
    assert 800 < len(data.classes) < 2000
    assert data.counts.min() >= MIN_DRAWINGS
    assert data.counts.max() <= MAX_DRAWINGS
    assert data.images.shape[1:] == (28, 28)
    assert data.labels.dtype.kind == "U"


@pytest.mark.parametrize("seed", [0, 1])
def test_no_class_is_in_two_splits_and_the_splits_are_all(seed):
    parts = {name: glyphs(name, seed=seed) for name in ("train", "val", "test")}
    for a, b in itertools.combinations(parts.values(), 2):
        assert not set(a.classes) & set(b.classes)
    whole = glyphs(seed=seed)
    assert sum(map(len, parts.values())) == len(whole)
    share = {name: len(part.classes) / len(whole.classes) for name, part in parts.items()}
    assert share == pytest.approx({"train": 0.7, "val": 0.1, "test": 0.2}, abs=0.02)
    for part in parts.values():
        np.testing.assert_array_equal(whole.with_classes(part.classes).images, part.images)


def test_no_two_drawings_coincide(unit, rows):
    # Within a class this keeps support images out of the queries; between classes, twins out of two classes.
    similarity = unit[rows] @ unit.T
    similarity[np.arange(len(rows)), rows] = -1
    assert similarity.max() < SAME + 1e-5


@pytest.mark.parametrize("seed", [0, 1])
def test_drawings_of_different_splits_are_not_near(drawings, unit, rows, seed):
    split = module._splits(drawings, seed)
    similarity = unit[rows] @ unit.T
    assert similarity[split[rows][:, None] != split].max() < NEAR + 1e-5
    # The bound means something: pairs in the same split, of different classes, do come nearer.
    assert similarity[drawings.labels[rows][:, None] != drawings.labels].max() > NEAR


def test_letters_that_share_a_drawing_are_one_class():
    # Here without the test's own knowledge of the algorithm: A and O and the like exist thrice in Unicode.
    classes = set(glyphs().classes)
    assert "A" in classes
    assert not classes & {"Α", "А", "В", "Β", "Е", "Ε"}  # the Greek and Cyrillic ones


def test_nothing_like_a_digit_is_left(unit):
    assert not [c for c in glyphs().classes if unicodedata.numeric(c, None) is not None]
    assert not set(glyphs().classes) & set("0123456789OoIlЗ")
    crops, characters = module._render()
    of_digits = [i for i, c in enumerate(characters) if c in "0123456789"]
    assert len(of_digits) == 160  # ten in each of 16 faces
    shapes = np.stack([module._place(crops[i], 32, 32) for i in of_digits]).reshape(160, -1).astype(np.float32)
    assert (unit @ (shapes / np.linalg.norm(shapes, axis=1, keepdims=True)).T).max() < NEAR + 1e-5


def test_no_drawing_is_blank_or_touches_the_border(drawings):
    assert (drawings.canvases.max(axis=(1, 2)) > 100).all()
    frame = np.ones((56, 56), bool)
    frame[4:-4, 4:-4] = False
    assert drawings.canvases[:, frame].max() == 0
    data = glyphs()
    assert data.images.max(axis=(1, 2)).min() > 60
    assert (data.images[:, [0, -1]] > 128).mean() < 0.005


def test_no_drawing_is_the_box_for_missing_glyphs(unit):
    from PIL import Image, ImageDraw, ImageFont

    for path in module._characters():
        page = Image.new("L", (192, 192))
        font = ImageFont.truetype(path, 64, layout_engine=ImageFont.Layout.BASIC)
        ImageDraw.Draw(page).text((64, 64), "\U000e1234", fill=255, font=font)  # no font has this one
        if page.getbbox() is None:  # this face has a blank one
            continue
        box = module._place(page.crop(page.getbbox()), 32, 32).astype(np.float32).ravel()
        assert (unit @ box).max() < SAME * np.linalg.norm(box)


def test_a_seed_is_a_data_set():
    # conftest.py looks after the global generators, hence the empty cache: all that is random runs again here.
    first, other = glyphs(), glyphs(seed=1)
    module._distorted.cache_clear()
    again = glyphs()
    np.testing.assert_array_equal(first.images, again.images)
    np.testing.assert_array_equal(first.labels, again.labels)
    assert not np.array_equal(first.images, other.images)
    assert set(glyphs("test").classes) != set(glyphs("test", seed=1).classes)


def test_the_cached_arrays_are_not_handed_out():
    glyphs("val").images[:] = 0
    glyphs().images[:] = 0
    glyphs().labels[:] = "?"
    assert glyphs().images.max() == 255
    assert "?" not in glyphs().classes


@pytest.mark.parametrize("size", [8, 64])
def test_size(size):
    data = glyphs("val", size=size)
    assert data.images.shape[1:] == (size, size)
    if size > 28:
        ratio = data.images.mean() / glyphs("val").images.mean()
        assert ratio == pytest.approx(1, abs=0.05)  # the same picture, larger


def test_pairs_are_those_of_brute_force():
    rng = np.random.default_rng(0)
    base = rng.integers(0, 256, (300, 100), dtype=np.uint8)
    noisy = np.clip(base + rng.normal(0, 60, base.shape) * rng.random((300, 1)), 0, 255).astype(np.uint8)
    pixels = np.concatenate([base, noisy])
    first, second, cosine = module._near_pairs(pixels)
    unit = pixels / np.linalg.norm(pixels.astype(float), axis=1, keepdims=True)
    expected = {(i, j) for i, j in np.argwhere(unit @ unit.T >= NEAR).tolist() if i < j}
    assert expected
    assert set(zip(first.tolist(), second.tolist(), strict=True)) == expected
    np.testing.assert_allclose(cosine, (unit @ unit.T)[first, second], atol=1e-12)


def test_components_and_distinct_rows_on_a_chain():
    first, second = np.array([0, 1, 4]), np.array([1, 2, 5])
    assert module._components(6, first, second).tolist() == [0, 0, 0, 3, 4, 4]
    # 2 stays: the only row it equals is 1, which is gone.
    assert module._distinct(6, first, second).tolist() == [True, False, True, True, True, False]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"split": "dev"}, "split is 'dev'; expected 'train', 'val', 'test'"),
        ({"seed": -1}, "seed is -1; expected a whole number of at least 0"),
        ({"seed": "0"}, "seed is '0'; expected a whole number of at least 0"),
        ({"size": 4}, "size is 4; expected at least 8"),
    ],
)
def test_bad_input_is_told_in_a_sentence(options, match):
    with pytest.raises(ValueError, match=match):
        glyphs(**options)
