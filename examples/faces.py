"""Recognise the few people who agreed to it, call everybody else unknown, and forget a person without a trace.

Give a folder with a subfolder of photographs for each person as --data. Without it, the script shows the steps on faces
that scikit-image ships, one picture of each person; "another" one is the same, turned, moved and lit otherwise.
"""

import tempfile
from pathlib import Path

import numpy as np
from gallery import LINE, PHOTOGRAPHS, TAUGHT, UNKNOWN, WRONG, Picture, averaged, options
from PIL import Image, ImageEnhance

from fewshot import FewShotImageClassifier, LabeledImages

parser = options(__doc__, "faces")
parser.add_argument("--data", metavar="DIR", help="a folder of photographs for each person")
parser.add_argument("--people", type=int, default=10, metavar="N", help="how many are taught; the others are strangers")
args = parser.parse_args()
rng = np.random.default_rng(args.seed)


def again(face):
    """Return a picture of the same face, turned, moved and lit otherwise."""
    large, move = Image.fromarray(face).resize((128, 128)), tuple(rng.integers(-8, 9, 2).tolist())
    turned = large.rotate(rng.uniform(-10, 10), Image.Resampling.BICUBIC, translate=move)
    lit = ImageEnhance.Brightness(turned).enhance(rng.uniform(0.6, 1.4))
    return ImageEnhance.Contrast(lit).enhance(rng.uniform(0.6, 1.4))


def veiled(photo):
    """Return a face that nobody can recognise, since pictures travel."""
    image = photo if isinstance(photo, Image.Image) else Image.open(photo)
    return image.convert("L").resize((7, 7), Image.Resampling.BOX).resize((84, 84), Image.Resampling.NEAREST)


def files_with(name, folder):
    """Return how many files of a folder hold a name."""
    return sum(name.encode() in path.read_bytes() for path in Path(folder).rglob("*") if path.is_file())


# 1. The people, the photographs that are taught, and those that are asked.
if args.data:
    data = LabeledImages.open(args.data)
    photographs = {str(name): list(data.images[data.labels == name]) for name in data.classes}
else:
    crops = (255 * np.load(PHOTOGRAPHS / "lfw_subset.npy")[:100]).astype("u1")  # the first half are faces
    photographs = {f"person {i + 1:02}": [again(face) for _ in range(6)] for i, face in enumerate(crops)}
print(f"{len(photographs)} people; {args.people} of them taught by three pictures each, the others are strangers")

# 2. Five times: draw people, learn them, and ask. A folder would keep thumbnails of faces; this one keeps none.
wrong, lost, let_in = [], [], []
for _ in range(5):
    known = rng.permutation(list(photographs))[: args.people].tolist()
    strangers = [pictures[0] for name, pictures in photographs.items() if name not in known]
    taught = [(photo, name) for name in known for photo in photographs[name][:3]]
    asked = [(photo, name) for name in known for photo in photographs[name][3:6]]
    photos, names = [photo for photo, _ in asked], np.array([name for _, name in asked])
    model = FewShotImageClassifier(reject="5%", keep_support=False)
    model.fit([photo for photo, _ in taught], [name for _, name in taught])
    answers, others = model.predict(photos), model.predict(strangers)
    wrong.append(np.mean((answers != names) & (answers != "unknown")))
    lost.append(np.mean(answers == "unknown"))
    let_in.append(np.mean(others != "unknown"))
cost = model.rejection("5%")
low, high = (100 * share for share in cost.false_accept_interval)
print(f"expected of strangers to be taken for somebody: {100 * cost.false_accept_rate:.1f} % ({low:.1f} to {high:.1f})")
print(f"measured, mean of five draws: {averaged(let_in)}")
print(f"people told that they are unknown: {averaged(lost)}")
print(f"people taken for somebody else: {averaged(wrong)}")

# 3. Somebody withdraws consent.
with tempfile.TemporaryDirectory() as folder:
    model.save(folder)
    before = files_with(known[0], folder)
    model.remove_class(known[0]).save(folder)
    FewShotImageClassifier.clear_history(folder)
    print(f"{known[0]} withdraws: files with the name: {before} before, {files_with(known[0], folder)} after")
    later = FewShotImageClassifier.load(folder).predict(photos[:3])
print(f"and is now unknown in {(later == 'unknown').sum()} of {len(later)} pictures")


picture = Picture("A few people, everybody else unknown", "Faces are veiled. Orange: a wrong name; violet: unknown")
picture.text(0.04, 0.2, "taught", weight="bold", color=TAUGHT)
picture.tiles(0.04, 0.222, 0.92, 12, [(veiled(photo), name, TAUGHT) for photo, name in taught[::3][:12]])
some = list(zip(photos, names, answers, strict=True))[::3][:12]
rows = {"other pictures of them": some, "strangers": [*zip(strangers, [""] * 12, others, strict=False)]}
for y, (title, row) in zip((0.465, 0.73), rows.items(), strict=True):
    picture.text(0.04, y, title, weight="bold")
    frames = [UNKNOWN if answer == "unknown" else LINE if answer == name else WRONG for _, name, answer in row]
    shown = [(veiled(photo), str(answer), frame) for (photo, _, answer), frame in zip(row, frames, strict=True)]
    picture.tiles(0.04, y + 0.022, 0.92, 12, shown)
picture.save(args.out)
