"""Teach a device: learn two surfaces at the desk, a third on the device, where there is no torch.

The surfaces are photographs that scikit-image ships; what is taught comes from their left half, what is asked from the
right one. The device is played by a process of its own: this script again, with --device.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from gallery import LINE, PHOTOGRAPHS, TAUGHT, WRONG, Picture, options, said
from PIL import Image

parser = options(__doc__, "device")
parser.add_argument("--device", metavar="DIR", help="play the device, whose classifier is in this folder")
args = parser.parse_args()
SURFACES, SIDE = ("brick", "grass", "gravel"), 56


def pieces(names, n, *, left, seed):
    """Return n blurred pieces of one half of each photograph, as a moving camera sees them, and their names."""
    rng, cut = np.random.default_rng(seed), []
    for name in names:
        photo = Image.open(PHOTOGRAPHS / f"{name}.png").convert("L")
        for _ in range(n):
            x, y = rng.integers(0, 256 - SIDE + 1) + (0 if left else 256), rng.integers(0, 512 - SIDE + 1)
            cut.append(photo.crop((x, y, x + SIDE, y + SIDE)).resize((24, 24)).convert("RGB"))
    return cut, np.repeat(names, n)


def device(folder):
    """Answer, learn one more surface, be switched off and on again: with numpy, Pillow and onnxruntime alone."""
    from fewshot.runtime import load

    model = load(folder)
    images, truth = pieces(SURFACES, 40, left=False, seed=args.seed)
    before = model.predict(images)
    start, known = time.perf_counter(), truth != "gravel"
    model.partial_fit(*pieces(["gravel"], 3, left=True, seed=args.seed))
    took = time.perf_counter() - start
    model.save(folder)
    after = load(folder).predict(images)
    print(f"device: torch is loaded: {'torch' in sys.modules}")
    print(f"device: two surfaces, {said(before[known] == truth[known])} of {known.sum()} right")
    print(f"device: gravel learned from three pictures in {1e3 * took:.0f} ms, and saved")
    print(f"device: switched on again, three surfaces, {said(after == truth)} of {len(truth)} right")
    Path(folder, "answers.json").write_text(json.dumps(after.tolist()))


def desk(folder):
    """Learn two surfaces, write them for the device, and start it."""
    from fewshot import FewShotImageClassifier, export

    model = FewShotImageClassifier().fit(*pieces(SURFACES[:2], 3, left=True, seed=args.seed))
    export(model, folder)
    size = sum(path.stat().st_size for path in Path(folder).rglob("*")) / 1e6
    print(f"desk: brick and grass learned from three pictures each; the device's folder has {size:.1f} MB", flush=True)
    subprocess.run([sys.executable, __file__, "--device", folder, "--seed", str(args.seed)], check=True)


if args.device:
    device(args.device)
    sys.exit()
with tempfile.TemporaryDirectory() as scratch:
    desk(f"{scratch}/classifier")
    answers = json.loads(Path(scratch, "classifier", "answers.json").read_text())
images, truth = pieces(SURFACES, 40, left=False, seed=args.seed)
picture = Picture("Taught on the device", "Brick and grass were learned at the desk, gravel where it lies")
picture.text(0.04, 0.2, "taught", weight="bold", color=TAUGHT)
taught = zip(*pieces(SURFACES, 3, left=True, seed=args.seed), strict=True)
picture.tiles(0.04, 0.222, 0.69, 9, [(image, str(name), TAUGHT) for image, name in taught])
picture.text(0.04, 0.465, "answers of the device; wrong ones are framed", weight="bold")
some = np.random.default_rng(args.seed).permutation(len(images))[:24]
picture.tiles(0.04, 0.487, 0.92, 12, [(images[i], answers[i], LINE if answers[i] == truth[i] else WRONG) for i in some])
right = np.sum(np.array(answers) == truth)
picture.text(0.04, 0.93, f"{right} of {len(truth)} other pictures are named right, without torch", weight="bold")
picture.save(args.out)
