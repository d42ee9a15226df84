"""Take the pictures of the page that the documents show: python -m tests.screenshots docs."""

import io
import sys
import tempfile
from pathlib import Path

import matplotlib.cbook
import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from tests.browser import browsing, choose, see
from tests.serving import process

#: Longest side and quality of a picture, so that none is larger than 60 KB.
SIDE, QUALITY = 1120, 72


def write(folder, n_per_class=6, seed=3):
    """Write pieces of three photographs that installed packages bring, a folder for each."""
    rng, temple_and_flower = np.random.default_rng(seed), load_sample_images().images
    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
        portrait = np.asarray(Image.open(file).convert("RGB"))
    for name, photo in zip(("temple", "dahlia", "portrait"), (*temple_and_flower, portrait), strict=True):
        (folder / name).mkdir(parents=True)
        for i in range(n_per_class):
            side = int(rng.integers(260, 380))
            top, left = (int(rng.integers(0, length - side)) for length in photo.shape[:2])
            Image.fromarray(photo[top : top + side, left : left + side]).save(folder / name / f"{name} {i}.jpg")
    return folder


def take(page, path):
    page.wait_for_timeout(700)
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    image.thumbnail((SIDE, SIDE))
    image.save(path, quality=QUALITY, method=6)


def main(out):
    out = Path(out)
    with tempfile.TemporaryDirectory() as folder:
        known, new = write(Path(folder, "known")), write(Path(folder, "new"), 1, seed=8)
        with process(Path(folder, "pictures")) as server:
            with browsing(server.url) as page:
                choose(page, known, "Choose a folder")
                page.get_by_role("button", name="Teach 3 classes").click()
                page.locator(".class-card").nth(2).wait_for()
                see(page, "Try")
                page.get_by_role("button", name="Close").click()
                choose(page, next((new / "dahlia").iterdir()))
                page.locator(".nearest img").nth(5).wait_for()
                take(page, out / "page.webp")
            with browsing(f"{server.url}#classes", "phone") as page:
                page.locator(".class-card img").nth(8).wait_for()
                take(page, out / "page-phone.webp")


if __name__ == "__main__":
    main(*sys.argv[1:])
