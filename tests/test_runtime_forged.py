"""What no writer of this library has written is refused in one sentence, however its hashes were made to fit."""

import hashlib
import io
import json
import os

import numpy as np
import pytest

from fewshot import Embedder, FewShotImageClassifier, SimpleShotLearner, digits, export
from fewshot.errors import ArtifactError
from fewshot.runtime import load
from fewshot.runtime.method import DeviceMethod
from tests import forging

DATA = digits()
KINDS = ("prototypical", "matching", "k-nearest", "simpleshot")


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """Export one of each kind of memory, and one of the same network for other pixels."""
    folder = tmp_path_factory.mktemp("exports")
    learners = {"prototypical": "prototypical", "matching": "matching", "k-nearest": "k-nearest"}
    learners["simpleshot"] = SimpleShotLearner("CL2N", center=[0.0] * 64)
    for name, learner in learners.items():
        embedder = Embedder("conv4", weights="random", img_size=28, progress=False)
        model = FewShotImageClassifier(embedder, learner, progress=False).fit(DATA.images[:40], DATA.labels[:40])
        export(model, folder / name)
    return folder


def refused(folder, match, exact=True):
    with pytest.raises(ArtifactError, match=match) as caught:
        load(folder)
    text = str(caught.value)
    assert "\n" not in text
    assert not exact or text.count("cannot be used: ") == 1
    assert text.endswith(("; export it again", "; save again"))
    return text


def sealed(folder, manifest):
    """Write a manifest with a digest that fits."""
    body = json.dumps({name: value for name, value in manifest.items() if name != "digest"})[:-1].encode()
    (folder / "manifest.json").write_bytes(body + f', "digest": "{hashlib.sha256(body).hexdigest()}"}}\n'.encode())


def forged(exports, tmp_path, kind, part=None, content=b"", **facts):
    """Return a copy of an export with other facts, and with other content of one data file, all hashes made to fit."""
    folder = tmp_path / "forged"
    folder.mkdir()
    for path in (exports / kind).iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    manifest = {**json.loads((folder / "manifest.json").read_text()), **facts}
    if part is not None:
        name = manifest["files"][part]["name"]
        (folder / name).write_bytes(content)
        manifest["files"][part] |= {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    sealed(folder, manifest)
    return folder


def arrays_of(exports, kind):
    (path,) = (exports / kind).glob("memory-*.npz")
    with np.load(path) as arrays:
        return dict(arrays)


def packed(arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def test_what_was_copied_as_it_is_is_loaded(exports, tmp_path):
    folder = forged(exports, tmp_path, "simpleshot", "memory.npz", packed(arrays_of(exports, "simpleshot")))
    assert load(folder).predict(DATA.images[:3]).shape == (3,)


@pytest.mark.parametrize(
    ("kind", "name", "change", "match"),
    [
        ("prototypical", "counts", lambda a: -a, "one weight from 0"),
        ("prototypical", "counts", lambda a: a * np.nan, "finite float64"),
        ("prototypical", "sums", lambda a: a * np.nan, "finite float64"),
        ("prototypical", "sums", lambda a: a.astype(np.int8), "int8"),
        ("prototypical", "sums", lambda a: a.astype(complex), "complex128"),
        ("prototypical", "sums", lambda a: a[:-1], "label and one weight"),
        ("prototypical", "sums", lambda a: a[0], "2 dimensions"),
        ("prototypical", "sums", lambda a: a[:, :-1], "embeddings of 64 numbers, and its memory holds 63"),
        ("prototypical", "sums", lambda a: a.astype(object), "pickle|Object"),
        ("prototypical", "counts", None, "its arrays are"),
        ("matching", "labels", lambda a: a - 1, "positions among 10 classes"),
        ("matching", "labels", lambda a: a + 1, "positions among 10 classes"),
        ("matching", "labels", lambda a: a.astype(float), "one label"),
        ("matching", "labels", lambda a: a[::-1].copy() * 0, "support of each class is not"),
        ("matching", "weights", lambda a: a[:-1], "one weight"),
        ("matching", "support", lambda a: a[:0], "one weight"),
    ],
)
def test_a_memory_that_none_can_have(exports, tmp_path, kind, name, change, match):
    arrays = arrays_of(exports, kind)
    given = arrays.pop(name)
    if change is not None:
        arrays[name] = change(given)
    text = refused(forged(exports, tmp_path, kind, "memory.npz", packed(arrays)), match, "63" not in match)
    assert ("encoder-" if "63" in match else "memory-") in text


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\3\4junk", b"\x93NUMPY\1\0junk", packed({"x": 1})[:-30]])
@pytest.mark.parametrize("part", ["memory.npz", "preprocess.json", "encoder.onnx"])
def test_junk(exports, tmp_path, part, content):
    stem = part.partition(".")[0]
    refused(forged(exports, tmp_path, "prototypical", part, content), rf"{stem}-\w+\.\w+ cannot be used")


def test_a_single_array_is_no_memory(exports, tmp_path):
    file = io.BytesIO()
    np.save(file, np.zeros((10, 64)))
    refused(forged(exports, tmp_path, "prototypical", "memory.npz", file.getvalue()), "memory-.* it holds no arrays")


@pytest.mark.parametrize("change", [{"height": 14}, {"width": 0}, {"channels": 1}, {"more": 1}, {"mean": "grey"}])
def test_a_preprocessing_that_is_not_of_the_network(exports, tmp_path, change):
    (path,) = (exports / "prototypical").glob("preprocess-*.json")
    content = json.dumps({**json.loads(path.read_text()), **change}).encode()
    refused(forged(exports, tmp_path, "prototypical", "preprocess.json", content), "(preprocess|encoder)-")


@pytest.mark.parametrize(
    ("facts", "match"),
    [
        ({"temperature": 0}, "temperature is 0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"threshold": float("nan")}, "threshold is nan"),
        ({"on_error": "ignore"}, "no on_error is called 'ignore'"),
        ({"fingerprint": None}, "fingerprint is None"),
        ({"unknown_label": ["a"]}, "unknown_label is"),
        ({"method": {}}, "'center' is missing"),
        ({"method": {"center": None}}, "missing"),
        (
            {"classes": {"dtype": "<f8", "values": [float(i) for i in range(10)]}},
            "text, integers or ",
        ),
        ({"classes": {"dtype": "<i8", "values": [i + 0.5 for i in range(10)]}}, "declared type, int64"),
        ({"classes": {"dtype": "<i8", "values": [0, *range(9)]}}, "sorted and distinct"),
        ({"classes": {"dtype": "<i8", "values": [*range(9, -1, -1)]}}, "sorted and distinct"),
        ({"classes": {"dtype": "<U1", "values": [f"{i} long" for i in range(10)]}}, "declared type, <U1"),
        ({"classes": {"dtype": "|O", "values": [[i] for i in range(10)]}}, "text, integers or "),
        ({"classes": {"dtype": "<u8", "values": [*range(10)]}}, "text, integers or "),
        ({"classes": {"dtype": "<i8", "values": []}}, "text, integers or "),
        ({"n_support": [-1] * 10}, "n_support"),
        ({"n_support": [1.5] * 10}, "n_support"),
        ({"n_support": [4] * 9}, "n_support"),
        ({"forgotten": [[3, -1]]}, "forgotten"),
        ({"forgotten": [[[3], 1]]}, "unhashable"),
        ({"files": {}}, "'encoder.onnx' is missing"),
    ],
)
def test_a_manifest_that_none_can_have(exports, tmp_path, facts, match):
    refused(forged(exports, tmp_path, "prototypical", **facts), match)


@pytest.mark.parametrize(
    "name", ["fingerprint", "encoder", "method", "temperature", "threshold", "on_error", "classes"]
)
def test_a_manifest_that_leaves_something_out(exports, tmp_path, name):
    folder = forged(exports, tmp_path, "prototypical")
    manifest = json.loads((folder / "manifest.json").read_text())
    sealed(folder, {key: value for key, value in manifest.items() if key != name})
    refused(folder, f"manifest.json cannot be used: '{name}' is missing")


@pytest.mark.parametrize(
    ("kind", "changes", "match"),
    [
        ("prototypical", {"name": "relation"}, "no learner is called 'relation'"),
        ("prototypical", {"name": "matching"}, "matching does not keep sums"),
        ("matching", {"name": "prototypical"}, "prototypical does not keep support"),
        ("prototypical", {"metric": "euclid"}, "did you mean 'sqeuclidean'"),
        ("prototypical", {"normalization": "L3N"}, "no normalization is called"),
        ("prototypical", {"temperature": 0}, "temperature is 0"),
        ("prototypical", {"temperature": float("nan")}, "temperature is nan"),
        ("prototypical", {"n_neighbors": 3}, "n_neighbors is unexpected"),
        ("k-nearest", {"n_neighbors": None}, "n_neighbors is missing"),
        ("k-nearest", {"n_neighbors": 0}, "n_neighbors is 0"),
        ("simpleshot", {"center": None}, "center is missing"),
        ("simpleshot", {"center": [float("inf")] * 64}, "center is not finite"),
        ("simpleshot", {"center": [0.0] * 63}, "64 numbers and the center 63"),
        ("prototypical", {"more": 1}, "more"),
    ],
)
def test_a_method_that_there_is_not(exports, tmp_path, kind, changes, match):
    method = json.loads((exports / kind / "manifest.json").read_text())["method"]
    assert DeviceMethod.from_dict(method).to_dict() | {"center": method["center"]} == method
    refused(forged(exports, tmp_path, kind, method={**method, **changes}), match)


@pytest.mark.parametrize("absolute", [True, False])
def test_a_file_outside_the_folder_is_not_read(exports, tmp_path, absolute):
    folder = forged(exports, tmp_path, "prototypical")
    manifest = json.loads((folder / "manifest.json").read_text())
    name = manifest["files"]["memory.npz"]["name"]
    (tmp_path / "elsewhere").mkdir()
    (folder / name).rename(tmp_path / "elsewhere" / name)
    manifest["files"]["memory.npz"]["name"] = str(tmp_path / "elsewhere" / name) if absolute else f"../elsewhere/{name}"
    sealed(folder, manifest)
    refused(folder, "which is not the name of a data file", exact=False)


def wrong_arrays(arrays):
    """Yield arrays of which one is wrong."""
    for name, value in arrays.items():
        made = [
            None,
            value[:0],
            value[:, None],
            value.astype(complex),
            -value - 1,
            value.astype(object),
            value.ravel()[0],
        ]
        made += [np.full_like(value, 1e300 if value.dtype.kind == "f" else 2**60), np.concatenate([value, value])]
        made += [value * np.nan, value + np.inf] if value.dtype.kind == "f" else []
        for wrong in made:
            rest = {key: v for key, v in arrays.items() if key != name}
            yield rest if wrong is None else {**rest, name: wrong}


def refused_or_right(folder, tmp_path):
    """Return whether it was refused; else it answers."""
    with forging.confined(tmp_path) as reached:
        try:
            device = load(folder)
            proba = device.predict_proba(DATA.images[:3])
            assert np.isfinite(proba).all()
            np.testing.assert_allclose(proba.sum(1), 1)
            device.predict(DATA.images[:3])
            refusal = ""
        except ArtifactError as error:
            refusal = str(error)
    assert reached == []
    assert refusal.isprintable()
    return bool(refusal)


@pytest.mark.parametrize(
    ("kind", "step"), [("prototypical", 12), *(pytest.param(k, 1, marks=pytest.mark.slow) for k in KINDS)]
)
@pytest.mark.filterwarnings("ignore")
def test_whatever_one_thing_is_wrong_it_is_refused_or_answers(kind, step, exports, tmp_path):
    def forgeries():
        source, folder = exports / kind, tmp_path / "forged"
        manifest = forging.manifest_of(source)
        for way in forging.places({name: value for name, value in manifest.items() if name != "digest"}):
            for value in (forging.MISSING, *forging.VALUES):
                forging.seal(forging.copied(source, folder), forging.changed(manifest, way, value))
                yield folder
        for wrong in wrong_arrays(arrays_of(exports, kind)):
            forging.put(forging.copied(source, folder), "memory.npz", packed(wrong))
            yield folder
        (path,) = source.glob("preprocess-*.json")
        says = json.loads(path.read_text())
        for way in forging.places(says):
            for value in (forging.MISSING, *forging.VALUES):
                if way != ("max_pixels",):  # which an image can be above
                    content = json.dumps(forging.changed(says, way, value)).encode()
                    forging.put(forging.copied(source, folder), "preprocess.json", content)
                    yield folder

    refused = [refused_or_right(folder, tmp_path) for i, folder in enumerate(forgeries()) if i % step == 0]
    assert len(refused) > 700 / step
    assert sum(refused) > 0.7 * len(refused)


def test_arrays_that_would_grow_when_they_are_read_are_refused(exports, tmp_path):
    file = io.BytesIO()
    np.savez_compressed(file, sums=np.zeros((10, 10**6)), counts=np.full(10, 4.0))
    refused(forged(exports, tmp_path, "prototypical", "memory.npz", file.getvalue()), "arrays are compressed")


@pytest.mark.parametrize("how", ["pipe", "endless", "elsewhere"])
@pytest.mark.parametrize("part", ["encoder.onnx", "memory.npz", "preprocess.json"])
def test_only_whole_regular_files_of_the_folder_are_read(part, how, exports, tmp_path):
    folder = forged(exports, tmp_path, "prototypical")
    path = folder / json.loads((folder / "manifest.json").read_text())["files"][part]["name"]
    path.rename(tmp_path / "elsewhere")
    if how == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero" if how == "endless" else tmp_path / "elsewhere")
    with pytest.raises(ArtifactError, match=f"{path.name} cannot be read: it is"):
        load(folder)


def test_files_can_be_cut_off_while_it_answers(exports, tmp_path):
    folder = forged(exports, tmp_path, "matching")
    device = load(folder)
    expected = device.predict(DATA.images[:3])
    for path in folder.iterdir():
        os.truncate(path, 0)
    assert (device.predict(DATA.images[:3]) == expected).all()
