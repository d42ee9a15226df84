import io
import json
import subprocess
import sys
import threading

import numpy as np
import pytest
import timm
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_sample_images
from timm.data import create_transform, resolve_model_data_config

from fewshot.data.preprocess import (
    CROP_MODES,
    INTERPOLATIONS,
    THUMBNAIL,
    Preprocessing,
    make_thumbnail,
    prepared_chunks,
)

MODELS = ("tf_efficientnet_lite0", "resnet18", "vit_tiny_patch16_224", "mobilenetv3_small_050")
PHOTOGRAPH = Image.fromarray(load_sample_images().images[0])
OLD = tuple(map(int, timm.__version__.split(".")[:3])) < (1, 0, 31)
SIZES = [(640, 427), (427, 640), (224, 224), (100, 80), (17, 19), (50, 400), (333, 77), (1000, 301)]


def timms_pixels(config, image):
    """What timm's own evaluation transform makes of an image, before it subtracts the mean."""
    used = ("input_size", "interpolation", "mean", "std", "crop_pct", "crop_mode")
    transform = create_transform(**{name: config[name] for name in used}, is_training=False, normalize=False)
    return transform(image).numpy().transpose(1, 2, 0)


def check_against_timm(config, size, tolerance=0, noise=False):
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    image = Image.fromarray(pixels) if noise else PHOTOGRAPH.resize(size)
    if OLD and config["crop_mode"] == "center" and len(set(config["input_size"][1:])) == 2:
        config = {**config, "interpolation": "bilinear"}  # timm took no other there
    ours, theirs = Preprocessing.of(config)(image), timms_pixels(config, image)
    assert ours.shape == theirs.shape
    assert (ours.dtype, theirs.dtype) == (np.uint8, np.uint8)
    assert np.abs(ours.astype(int) - theirs).max() <= tolerance


@pytest.fixture(scope="module")
def configs():
    return {name: resolve_model_data_config(timm.create_model(name, num_classes=2)) for name in MODELS}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", MODELS)
def test_the_pixels_are_those_of_timms_own_transform(configs, name, size):
    check_against_timm(configs[name], size)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("crop_pct", [0.5, 0.875, 1.0, 1.15])
@pytest.mark.parametrize("crop_mode", CROP_MODES)
def test_so_are_those_of_every_crop_mode(configs, crop_mode, crop_pct, size):
    changes = {"crop_mode": crop_mode, "crop_pct": crop_pct, "input_size": (3, 96, 96), "interpolation": "bilinear"}
    check_against_timm({**configs["resnet18"], **changes}, size)


@pytest.mark.parametrize("size", [(640, 427), (641, 427), (200, 400), (300, 90), (20, 500)])
@pytest.mark.parametrize("crop_pct", [0.9, 1.0, 1.1])
@pytest.mark.parametrize("crop_mode", CROP_MODES)
def test_so_are_those_of_a_network_that_is_not_square(configs, crop_mode, crop_pct, size):
    changes = {"crop_mode": crop_mode, "crop_pct": crop_pct, "input_size": (3, 64, 128)}
    check_against_timm({**configs["resnet18"], **changes}, size)


@given(
    st.sampled_from(["bilinear", "bicubic", "lanczos"]),
    st.sampled_from(CROP_MODES),
    st.sampled_from([0.5, 0.875, 0.9, 0.95, 1.0, 1.15]),
    st.sampled_from([(96, 96), (64, 128), (40, 24)]),
    st.tuples(st.integers(24, 400), st.integers(24, 400)),
)
@example("bilinear", "border", 0.875, (96, 96), (952, 476))
def test_so_are_those_of_any_size_and_crop(configs, interpolation, crop_mode, crop_pct, size, image):
    changes = {"interpolation": interpolation, "crop_mode": crop_mode, "crop_pct": crop_pct, "input_size": (3, *size)}
    check_against_timm({**configs["resnet18"], **changes}, image, noise=True)


@pytest.mark.parametrize("size", [(3000, 20), (20, 3000)])
@pytest.mark.parametrize("crop_mode", CROP_MODES)
def test_those_of_a_thread_of_pixels_are_nearly_timms(configs, crop_mode, size):
    config = {**configs["tf_efficientnet_lite0"], "crop_mode": crop_mode}
    exact = crop_mode != "center"
    check_against_timm(config, size, tolerance=0 if exact else 3)
    check_against_timm(config, size, tolerance=0 if exact else 30, noise=True)


def test_a_fitting_image_is_not_touched():
    pixels = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    for crop_mode in CROP_MODES:
        np.testing.assert_array_equal(Preprocessing(3, 32, 48, crop_mode=crop_mode)(pixels), pixels)


@pytest.mark.parametrize("crop_mode", CROP_MODES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (7, 5), (32, 48)])
def test_every_image_gets_the_shape_of_the_network(size, channels, crop_mode):
    for crop_pct in (0.01, 0.875, 1.15, 300):
        pixels = Preprocessing(channels, 32, 48, crop_mode=crop_mode, crop_pct=crop_pct)(Image.new("RGB", size))
        assert pixels.shape == ((32, 48) if channels == 1 else (32, 48, 3))


@given(
    st.builds(
        Preprocessing,
        st.sampled_from([1, 3]),
        st.integers(1, 600),
        st.integers(1, 600),
        st.tuples(*[st.floats(0, 1)] * 3),
        st.tuples(*[st.floats(0.01, 1)] * 3),
        st.sampled_from(sorted(INTERPOLATIONS)),
        st.floats(0.1, 1.5),
        st.sampled_from(CROP_MODES),
        st.tuples(*[st.integers(0, 255)] * 3),
        st.integers(1, 1 << 40).filter(lambda n: n != 89_478_485),  # which stands for no limit
    )
)
def test_it_survives_json(preprocessing):
    text = json.dumps(preprocessing.to_dict(), allow_nan=False)
    assert Preprocessing.from_dict(json.loads(text)) == preprocessing


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("channels", 2, "1 or 3"),
        ("height", 0, "a whole number from 1"),
        ("height", "224", "a whole number from 1"),
        ("width", 32.5, "a whole number from 1"),
        ("mean", (), "a tuple of numbers"),
        ("mean", ("a",), "a tuple of numbers"),
        ("mean", (float("nan"),), "a tuple of numbers"),
        ("std", (0.5, 0.0, 0.5), "a tuple of numbers above 0"),
        ("interpolation", "cubic", "bilinear"),
        ("interpolation", ["bilinear"], "bilinear"),
        ("crop_pct", 0, "a number above 0"),
        ("crop_pct", float("nan"), "a number above 0"),
        ("crop_pct", None, "a number above 0"),
        ("crop_mode", "middle", "center, squash, border"),
        ("background", (255, 255), "red, green and blue"),
        ("max_pixels", 0, "a whole number from 1"),
    ],
)
def test_bad_values_are_told_in_a_sentence(name, value, expected):
    good = Preprocessing(3, 32, 32).to_dict()
    with pytest.raises(ValueError, match=f"^{name} is .*; expected .*{expected}"):
        Preprocessing.from_dict({**good, name: value})


def test_missing_and_unknown_values_are_refused():
    good = Preprocessing(3, 32, 32).to_dict()
    with pytest.raises(ValueError, match="expected .*'height'"):
        Preprocessing.from_dict({name: value for name, value in good.items() if name != "height"})
    with pytest.raises(ValueError, match="preprocessing has .*'zoom'"):
        Preprocessing.from_dict({**good, "zoom": 2})


def test_of_takes_another_size_and_what_timm_leaves_open():
    preprocessing = Preprocessing.of({"input_size": (3, 224, 224), "interpolation": "random"}, 64)
    assert (preprocessing.height, preprocessing.width) == (64, 64)
    assert (preprocessing.interpolation, preprocessing.crop_pct, preprocessing.crop_mode) == (
        "bilinear",
        0.875,
        "center",
    )


def test_row_59_a_thread_of_pixels_costs_no_more_memory_than_another_image():
    script = """
import resource, sys
from PIL import Image
from fewshot.data.preprocess import Preprocessing
steps = [Preprocessing(3, 224, 224, crop_mode=mode, crop_pct=0.875) for mode in ("center", "squash", "border")]
images = [Image.new("RGB", size) for size in ((1, 20000), (20000, 1))]
steps[0](Image.new("RGB", (300, 200)))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for step in steps:
    for image in images:
        assert step(image).shape == (224, 224, 3)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(result.stdout) * unit < 64 << 20  # scaled as a whole, it has 1.1 thousand million pixels


def test_what_is_written_down_is_read_by_older_versions_and_theirs_is_read(tmp_path):
    plain = Preprocessing(3, 32, 32)
    assert plain.to_dict()["max_pixels"] == 89_478_485  # what they require, and once was the limit
    assert "bits" not in plain.to_dict()
    assert Preprocessing.from_dict(plain.to_dict()) == plain
    own = plain.changed(bits=12, max_pixels=1000)
    assert Preprocessing.from_dict(json.loads(json.dumps(own.to_dict()))) == own
    assert own.changed(bits=None, max_pixels=None) == own
    assert plain.changed(bits=None, max_pixels=1000).identity() == plain.identity() == plain.to_dict()
    assert own.identity() != plain.identity()
    with pytest.raises(ValueError, match="bits is 99; expected a whole number from 8 to 16, or None"):
        Preprocessing.from_dict({**plain.to_dict(), "bits": 99})
    with pytest.raises(ValueError, match="preprocessing has"):
        Preprocessing.from_dict({**plain.to_dict(), "depth": 12})


SEEN = Preprocessing(1, 4, 4)


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 40])
@pytest.mark.parametrize("ahead", [0, 2])
@pytest.mark.parametrize("n_jobs", [1, 3])
def test_chunks_come_whole_and_in_order(n, ahead, n_jobs):
    items = [np.full((4, 4), i, np.uint8) for i in range(n)]
    chunks = list(prepared_chunks(items, SEEN, 8, n_jobs=n_jobs, ahead=ahead))
    assert [len(chunk) for chunk in chunks] == [8] * (n // 8) + [n % 8] * (n % 8 > 0)
    assert [pixels[0, 0] for chunk in chunks for pixels, _, _ in chunk] == list(range(n))


def test_an_error_has_its_place_and_the_others_are_there():
    items = [np.zeros((4, 4), np.uint8), b"no image", np.zeros((4, 4), np.uint8)]
    ((good, bad, last),) = prepared_chunks(items, SEEN, 8, n_jobs=2, thumbnails=True)
    assert (bad[0], bad[2].index) == (None, 1)
    assert good[1] is not None
    assert last[2] is None


def test_giving_up_early_leaves_no_thread():
    chunks = prepared_chunks([np.zeros((4, 4), np.uint8)] * 100, SEEN, 8, n_jobs=4, ahead=2)
    next(chunks)
    chunks.close()
    workers = [thread for thread in threading.enumerate() if thread.name.startswith("fewshot-decode")]
    for thread in workers:
        thread.join(5)
    assert not [thread for thread in workers if thread.is_alive()]


@pytest.mark.parametrize(("side", "format"), [(28, "PNG"), (THUMBNAIL, "PNG"), (224, "JPEG")])
def test_a_thumbnail_is_small(side, format):
    picture = Image.open(io.BytesIO(make_thumbnail(np.full((side, side, 3), 90, np.uint8))))
    assert picture.format == format
    assert picture.size == (min(side, THUMBNAIL),) * 2
    assert abs(int(np.asarray(picture).mean()) - 90) < 3
