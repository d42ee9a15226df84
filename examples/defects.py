"""Inspect parts: learn what good, scratched, stained and chipped ones look like from six of each.

The parts are the 24 coins of a real photograph that scikit-image ships. The defects are drawn into the pictures. What
is asked are other coins than those that were taught.
"""

import numpy as np
from gallery import LINE, TAUGHT, WRONG, Picture, options, said
from PIL import Image, ImageDraw, ImageFilter
from scipy.ndimage import binary_fill_holes
from skimage import data, filters, measure, morphology

from fewshot import FewShotImageClassifier

SIDE = 160
parser = options(__doc__, "defects")
parser.add_argument("--parts", type=int, default=6, metavar="N", help="how many are taught (default: %(default)s)")
args = parser.parse_args()
rng = np.random.default_rng(args.seed)

# 1. Cut the parts out of the photograph.
photo = np.pad(data.coins(), 8, mode="edge")
bright = morphology.closing(photo > filters.threshold_local(photo, 151, offset=-8), morphology.disk(3))
found = measure.label(morphology.opening(binary_fill_holes(bright), morphology.disk(6)))
parts = []
for region in measure.regionprops(found):
    (top, left, bottom, right), half = region.bbox, max(np.ptp(region.coords, axis=0)) // 2 + 4
    row, column = max((top + bottom) // 2, half), max((left + right) // 2, half)
    if 1000 < region.area < 5000:
        piece = photo[row - half : row + half, column - half : column + half]
        parts.append(Image.fromarray(piece).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
parts = [parts[i] for i in rng.permutation(len(parts))]


# 2. Draw the defects.
def spoiled(part, kind):
    """Return the part with a defect at a place, and of a size, drawn by chance."""
    mask, pen = Image.new("L", part.size), rng.uniform
    angle = pen(0, 2 * np.pi)
    way = np.array([np.cos(angle), np.sin(angle)])
    middle = SIDE / 2 + (way * (SIDE / 2 - 12) if kind == "chip" else pen(-20, 20, 2))
    if kind == "scratch":
        ImageDraw.Draw(mask).line([tuple(middle - way * pen(38, 58)), tuple(middle + way * pen(38, 58))], 255, 3)
    elif kind == "stain":
        ImageDraw.Draw(mask).ellipse([*(middle - pen(16, 24)), *(middle + pen(16, 24))], 215)
    else:
        corners = np.sort(pen(0, 2 * np.pi, 9))
        ImageDraw.Draw(mask).polygon([tuple(middle + pen(18, 28) * np.array([np.cos(a), np.sin(a)])) for a in corners],
                                     255)  # fmt: skip
    shade, blur = {"scratch": (245, 0.8), "stain": (28, 5), "chip": (38, 1)}[kind]
    return Image.composite(Image.new("L", part.size, shade), part, mask.filter(ImageFilter.GaussianBlur(blur)))


kinds = ("good", "scratch", "stain", "chip")
looks = [(part if kind == "good" else spoiled(part, kind), kind) for part in parts for kind in kinds]
taught, asked = looks[: 4 * args.parts], looks[4 * args.parts :]
print(f"{len(parts)} parts, each good and with three defects; {args.parts} parts taught, the others asked")

# 3. Learn, ask the model how good it will be, then measure.
model = FewShotImageClassifier().fit([look for look, _ in taught], [kind for _, kind in taught])
expected = model.check()
result = model.test([look for look, _ in asked], [kind for _, kind in asked])
low, high = expected.interval
print(f"expected from what was taught: {100 * expected.accuracy:.1f} % ({100 * low:.1f} to {100 * high:.1f})")
print(f"measured: {said(result.right)} of {result.n} right")
is_good, called_good = result.truth == "good", result.predicted == "good"
print(f"defects that are found, whatever they are called: {said(~called_good[~is_good])} of {(~is_good).sum()}")
print(f"good parts that pass: {said(called_good[is_good])} of {is_good.sum()}")

# 4. The picture: what was taught above, what was answered below.
picture = Picture("Defects from six parts", "24 coins stand in for parts; scratches, stains and chips are drawn. "
                  "Wrong answers are framed")  # fmt: skip
picture.text(0.04, 0.2, "taught", weight="bold", color=TAUGHT)
picture.tiles(0.04, 0.225, 0.92, 12, [(look, kind, TAUGHT) for look, kind in taught[:12]])
picture.text(0.04, 0.47, "other parts, and the answers", weight="bold")
shown = [(look, str(answer), LINE if answer == kind else WRONG)
         for (look, kind), answer in list(zip(asked, result.predicted, strict=True))[:24]]  # fmt: skip
picture.tiles(0.04, 0.495, 0.92, 12, shown)
picture.text(0.04, 0.93, f"{result.right.sum()} of {result.n} pictures of other parts are named right, and "
             f"{(~called_good[~is_good]).sum()} of {(~is_good).sum()} defects found", weight="bold")  # fmt: skip
picture.save(args.out)
