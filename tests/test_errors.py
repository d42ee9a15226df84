import pickle
from pathlib import Path

import numpy as np
import pytest

from fewshot import Embedder, FewShotImageClassifier, LabeledImages, OwnEmbedder
from fewshot.cli import main
from fewshot.data.scan import list_images
from fewshot.errors import FewshotError, UnknownNameError, brief


def test_near_names_are_proposed():
    error = UnknownNameError("metric", "cosin", ["cosine", "dot"])
    assert str(error) == "no metric is called 'cosin'; did you mean 'cosine'?"
    assert isinstance(error, ValueError)
    assert isinstance(error, FewshotError)


def test_without_a_near_name_the_known_ones_are_listed():
    assert str(UnknownNameError("metric", "x", ["dot", "cosine"])).endswith("known are 'cosine', 'dot'")
    assert str(UnknownNameError("model", "x", map(str, range(1000, 1100)))).endswith("'1019', ...")


def test_it_survives_pickling_between_processes():
    error = UnknownNameError("metric", "cosin", ["cosine", "dot"])
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


LONG = "x" * 100_000


def long_names():
    """Calls that are given a name of a hundred thousand characters, by what is wrong with it."""
    images = np.zeros((4, 9, 9), np.uint8)
    embedder = Embedder("conv4", weights="random", img_size=28, progress=False)
    model = FewShotImageClassifier(embedder, progress=False).fit(np.stack([images[0], images[0] + 99]), ["a", "b"])
    return {
        "data": lambda: LabeledImages.open(LONG),
        "split": lambda: LabeledImages.open(".", LONG),
        "folder": lambda: list_images(LONG),
        "backbone": lambda: FewShotImageClassifier(LONG).fit(images, [0, 0, 1, 1]),
        "weights": lambda: Embedder("conv4", weights=LONG).transform(images),
        "learner": lambda: FewShotImageClassifier(embedder, LONG).fit(images, [0, 0, 1, 1]),
        "image": lambda: model.predict([LONG]),
        "class": lambda: model.remove_class(LONG),
        "classes": lambda: LabeledImages(images, list("aabb")).with_classes([LONG]),
        "support": lambda: model.remove_support([LONG]),
        "ids": lambda: model.partial_fit(images[:2], ["a", "b"], ids=[LONG, LONG]),
        "bits": lambda: Embedder("conv4", weights="random", bits=LONG).fit(),
        "img_size": lambda: Embedder("conv4", weights="random", img_size=LONG).fit(),
        "name": lambda: OwnEmbedder(lambda items: [1.0], LONG).transform(["a"]),
    }


@pytest.mark.parametrize("name", long_names())
def test_no_message_repeats_a_long_name(name):
    with pytest.raises((ValueError, TypeError)) as caught:
        long_names()[name]()
    assert len(str(caught.value)) < 1500


def test_nor_does_the_command_line(capsys):
    assert main(["show", LONG]) != 0
    assert len(capsys.readouterr().err) < 6000


def test_a_short_value_is_repeated_as_it_is():
    assert brief("x" * 400) == "x" * 400
    assert brief(Path("a/b.png")) == "a/b.png"
    shortened = brief("b" + LONG + "e")
    assert shortened.startswith("bx")
    assert shortened.endswith("xe")
    assert "(100002 characters)" in shortened
