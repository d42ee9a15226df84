"""Map land cover from the air: choose which pictures to label, label fifty, and let the model do the rest.

Needs EuroSAT (Helber et al. 2019), ten kinds of land cover in Sentinel-2 pictures of 64 x 64 pixels: download
EuroSAT_RGB.zip from its authors, https://github.com/phelber/EuroSAT, and give the file or its folder as --data.
"""

import re
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from gallery import LINE, RIGHT, SOFT, WRONG, Picture, options, said, taught_and_asked
from PIL import Image

from fewshot import Embedder, FewShotImageClassifier, LabeledImages

parser = options(__doc__, "land_cover")
parser.add_argument("--data", required=True, metavar="PATH", help="EuroSAT: its zip, or a folder that holds it")
parser.add_argument("--images", type=int, default=60, metavar="N", help="of each class (default: %(default)s)")
args = parser.parse_args()


def spoken(label):
    """Return HerbaceousVegetation as words."""
    return re.sub("(?<!^)(?=[A-Z])", " ", str(label)).lower()


with tempfile.TemporaryDirectory() as scratch:
    # 1. The data, in two halves: a pool of pictures without labels, and pictures to test on.
    source = Path(args.data)
    archives = [source] if source.is_file() else sorted(source.glob("*.zip"))
    if archives:
        source = Path(scratch)
        zipfile.ZipFile(archives[0]).extractall(source)
    classes = next(source.rglob("*.jpg")).parent.parent  # the folder of class folders
    everything, _ = taught_and_asked(LabeledImages.open(classes), args.images, args.seed)
    pool, asked = taught_and_asked(everything, args.images // 2, args.seed)
    print(f"{len(everything.classes)} kinds of land cover; {len(pool)} pictures to choose from, {len(asked)} to test")

    # 2. Label what the model suggests, ten at a time, or as many chosen by chance.
    embedder = Embedder(cache=f"{scratch}/cache", progress=False)
    chance = np.random.default_rng(args.seed).permutation(len(pool))
    chosen, results = [], {}
    model = FewShotImageClassifier(embedder)
    for n in (10, 20, 50):
        chosen += [found.row for found in model.suggest(pool.images, n - len(chosen))]
        for how, rows in (("suggested", chosen), ("by chance", chance[:n])):
            trial = FewShotImageClassifier(embedder).fit(pool.select(rows))
            results[n, how] = trial.predict(asked.images) == asked.labels
            print(f"{n} labels, {how}: {said(results[n, how])} of {len(asked)} right")
            model = trial if how == "suggested" else model

    # 3. What is still taken for what, and the map.
    result = model.test(asked)
    hardest = result.per_class.sort_values("accuracy").iloc[0]
    right = said(result.right[result.truth == hardest.name])
    print(f"hardest: {spoken(hardest.name)}, {right}, mostly taken for {spoken(hardest['taken_for'])}")
    rows = np.random.default_rng(args.seed).permutation(len(asked))[:32]
    answers = model.predict(asked.images[rows])
    tiles = [Image.open(path) for path in asked.images[rows]]

picture = Picture("Land cover from fifty labels", "Sentinel-2 pictures of EuroSAT, and what the model calls them; "
                  "wrong answers are framed")  # fmt: skip
shown = [(tile, spoken(answer), LINE if answer == truth else WRONG)
         for tile, answer, truth in zip(tiles, answers, asked.labels[rows], strict=True)]  # fmt: skip
picture.tiles(0.04, 0.185, 0.6, 8, shown, 0.198)
picture.text(0.68, 0.22, "pictures named right", size=11, weight="bold")
bars = [
    (f"{n} {how}", float(right.mean()), RIGHT if how == "suggested" else SOFT) for (n, how), right in results.items()
]
picture.bars(0.64, 0.28, 0.34, bars)
picture.note(0.68, 0.78, 38, "Suggested: the model chose which pictures to label. By chance: as many, drawn at random.")
picture.save(args.out)
