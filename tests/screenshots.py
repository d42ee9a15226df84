"""Take the pictures of the page that the documents show: python -m tests.screenshots docs."""

import io
import sys
import tempfile
from pathlib import Path

import matplotlib.cbook
import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from fewshot import FewShotImageClassifier
from tests.browser import browsing, choose, see
from tests.serving import process

#: Longest side and quality of a picture, so that none is larger than 60 KB; and of the animated one, 150 KB.
SIDE, QUALITY = 1120, 72
MOVING_SIDE, MOVING_QUALITY = 800, 55
#: Pixels of a scene and of the object in it.
SCENE, OBJECT = 320, 144
#: Milliseconds that each state of the animated picture is shown.
SHOWN = 2200


def photographs():
    """Three photographs that installed packages bring, by name."""
    temple, dahlia = load_sample_images().images
    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
        return {"temple": temple, "dahlia": dahlia, "portrait": np.asarray(Image.open(file).convert("RGB"))}


def write(folder, n_per_class=6, seed=3):
    """Write pieces of three photographs, a folder for each."""
    rng = np.random.default_rng(seed)
    for name, photo in photographs().items():
        (folder / name).mkdir(parents=True)
        for i in range(n_per_class):
            side = int(rng.integers(260, 380))
            top, left = (int(rng.integers(0, length - side)) for length in photo.shape[:2])
            Image.fromarray(photo[top : top + side, left : left + side]).save(folder / name / f"{name} {i}.jpg")
    return folder


def scenes(n_per_class, seed):
    """Pieces of a landscape with a small dahlia or portrait in each, anywhere, and their labels."""
    rng, photos, images, labels = np.random.default_rng(seed), photographs(), [], []
    for _ in range(n_per_class):
        top, left = (int(rng.integers(0, length - SCENE)) for length in photos["temple"].shape[:2])
        for label, box in (("dahlia", (40, 150, 420, 500)), ("portrait", (100, 0, 400, 400))):
            image = Image.fromarray(photos["temple"][top : top + SCENE, left : left + SCENE])
            small = Image.fromarray(photos[label]).crop(box).resize((OBJECT, OBJECT))
            image.paste(small, tuple(map(int, rng.integers(0, SCENE - OBJECT, 2))))
            images.append(image)
            labels.append(label)
    return images, labels


def places(folder):
    """Show where a scene matches others, on the page of a classifier that compares places."""
    model = FewShotImageClassifier(learner="dn4", progress=False)
    model.fit(*scenes(8, 1)).save(folder / "scenes")
    scenes(1, 9)[0][1].save(folder / "scene.jpg")
    with process(folder / "scenes") as server, browsing(f"{server.url}#try") as page:
        choose(page, folder / "scene.jpg")
        page.get_by_role("button", name="Show where it matches").click()
        page.locator(".places img").nth(3).wait_for()
        page.wait_for_timeout(700)
        return Image.open(io.BytesIO(page.locator(".answer-body").screenshot())).convert("RGB")


def taken(page, side=SIDE):
    page.wait_for_timeout(700)
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    image.thumbnail((side, side))
    return image


def story(page, known, new):
    """Yield the page while two classes are taught, a picture is tried, corrected as a new class, and another tried."""
    for name in ("temple", "dahlia"):
        choose(page, sorted((known / name).iterdir()))
        page.get_by_label("Name of the class").fill(name)
        yield taken(page, MOVING_SIDE)
        page.get_by_role("button", name="Teach 6").click()
        page.get_by_text(f"{name} is known").wait_for()
        yield taken(page, MOVING_SIDE)
    see(page, "Try")
    choose(page, next((new / "temple").iterdir()))
    page.locator(".nearest img").nth(5).wait_for()
    yield taken(page, MOVING_SIDE)
    choose(page, next((new / "portrait").iterdir()))
    page.get_by_label("No, this is").fill("portrait")
    yield taken(page, MOVING_SIDE)
    page.get_by_role("button", name="Teach as new").click()
    page.locator(".answer-label", has_text="portrait").wait_for()
    yield taken(page, MOVING_SIDE)
    page.get_by_role("button", name="Close").click()
    choose(page, sorted((known / "portrait").iterdir())[0])
    page.wait_for_timeout(1500)  # the label stays the same
    yield taken(page, MOVING_SIDE)


def main(out):
    out = Path(out)
    with tempfile.TemporaryDirectory() as folder:
        known, new = write(Path(folder, "known")), write(Path(folder, "new"), 1, seed=8)
        with process(Path(folder, "moving")) as server, browsing(server.url) as page:
            first, *rest = story(page, known, new)
            options = {"duration": SHOWN, "loop": 0, "quality": MOVING_QUALITY, "method": 6}
            first.save(out / "page-moving.webp", save_all=True, append_images=rest, **options)
        with process(Path(folder, "pictures")) as server:
            with browsing(server.url) as page:
                choose(page, known, "Choose a folder")
                page.get_by_role("button", name="Teach 3 classes").click()
                page.locator(".class-card").nth(2).wait_for()
                see(page, "Try")
                page.get_by_role("button", name="Close").click()
                choose(page, next((new / "dahlia").iterdir()))
                page.locator(".nearest img").nth(5).wait_for()
                taken(page).save(out / "page.webp", quality=QUALITY, method=6)
            with browsing(f"{server.url}#classes", "phone") as page:
                page.locator(".class-card img").nth(8).wait_for()
                taken(page).save(out / "page-phone.webp", quality=QUALITY, method=6)
        places(Path(folder)).save(out / "page-places.webp", quality=QUALITY, method=6)


if __name__ == "__main__":
    main(*sys.argv[1:])
