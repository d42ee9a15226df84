"""Small photographs for tests: pieces of the two that scikit-learn brings, and an embedder that is quick."""

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from fewshot import Embedder

LABELS = ("temple", "flower")


def photos(n_per_class, seed=0, side=90):
    """Return `n_per_class` pieces of each photograph, and their labels."""
    rng, images, labels = np.random.default_rng(seed), [], []
    for label, photo in zip(LABELS, load_sample_images().images, strict=True):
        for _ in range(n_per_class):
            top, left = (int(rng.integers(0, length - side)) for length in photo.shape[:2])
            images.append(Image.fromarray(photo[top : top + side, left : left + side]))
            labels.append(label)
    return images, labels


def blends(n, seed=0):
    """Return `n` pictures that are half temple and half flower."""
    images, _ = photos(n, seed)
    return [Image.blend(temple, flower, 0.5) for temple, flower in zip(images[:n], images[n:], strict=True)]


def write_photos(folder, n_per_class, seed=0):
    """Write a folder for each class and return all paths, class by class."""
    paths = []
    for i, (image, label) in enumerate(zip(*photos(n_per_class, seed), strict=True)):
        (folder / label).mkdir(parents=True, exist_ok=True)
        paths.append(str(folder / label / f"{i:02d}.png"))
        image.save(paths[-1])
    return paths


GREY, RED = (128, 128, 128), (200, 30, 30)


def write_scene(path):
    """Write a grey picture of 400 x 240 pixels with a small red square near its right border, at 330,80."""
    image = Image.new("RGB", (400, 240), GREY)
    image.paste(RED, (330, 80, 370, 120))
    image.save(path)
    return path


def quick_embedder(**params):
    """Return an embedder without trained weights."""
    return Embedder("conv4", weights="random", img_size=32, progress=False, **params)
