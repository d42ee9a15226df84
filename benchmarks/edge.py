"""A classifier on a device: size, memory and time of an export, and the cost of 8 bits in accuracy.

A classifier of ``tf_efficientnet_lite0`` at 224 x 224 with cosine prototypes learns five classes of five images and is
exported in float32 and in int8. Each export is loaded in a separate process, which imports only numpy, Pillow and
onnxruntime of the library's dependencies. The process answers images one at a time, learns a class from five more, and
reports its peak memory. The accuracy of both encoders is measured on the same episodes; the int8 encoder is calibrated
with images of other classes. The data are the validation classes of ``fewshot data cifar-fs``: one half to calibrate
and learn from, the other half to measure on. One thread.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from arguments import Parser, prepared
from numpy.typing import NDArray
from PIL import Image
from protocol import facts, write

from fewshot import FewShotImageClassifier, LabeledImages, export
from fewshot.errors import ArtifactError
from fewshot.persistence.artifact import size_of
from fewshot.runtime import load

WAY, SHOTS = 5, 5
#: Images per class to calibrate with, and to measure on.
N_CALIBRATION, N_GATE = 10, 40
#: Timed answers and learned classes; the first of each is not timed.
N_TIMED = 30

#: Peak memory comes from /proc, because `resource` reports the parent's if that is larger.
DEVICE = """
import json, sys, time
from pathlib import Path
start = time.perf_counter()
from fewshot.runtime import load
model = load(sys.argv[1])
took = {"load": [time.perf_counter() - start], "answer": [], "learn": []}
images = sorted(Path(sys.argv[2]).iterdir())
for i in range(int(sys.argv[3]) + 1):
    few = [images[(5 * i + j) % len(images)] for j in range(5)]
    begin = time.perf_counter()
    model.predict(few[:1])
    answered = time.perf_counter()
    model.partial_fit(few, [f"new {i}"] * 5)
    if i:
        took["answer"].append(answered - begin)
        took["learn"].append(time.perf_counter() - answered)
assert "torch" not in sys.modules
(peak,) = (line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(json.dumps({"peak": 1024 * int(peak), "took": took}))
"""


def rows_of(data: LabeledImages, classes: NDArray[Any], first: int, n: int) -> LabeledImages:
    """Return `n` images of each class, starting at its image `first`."""
    return data.select(np.concatenate([np.flatnonzero(data.labels == label)[first : first + n] for label in classes]))


def parts_of(data: LabeledImages) -> tuple[LabeledImages, LabeledImages, LabeledImages]:
    """Return the support, images to calibrate with, and images of other classes to measure on."""
    half = len(data.classes) // 2
    learned, others = data.classes[:half], data.classes[half:]
    few = rows_of(data, learned[:WAY], 0, SHOTS)
    return few, rows_of(data, learned, SHOTS, N_CALIBRATION), rows_of(data, others, 0, N_GATE)


def on_device(folder: Path, images: Path) -> dict[str, Any]:
    """Return the peak memory in bytes and the times in seconds of a separate process."""
    command = [sys.executable, "-c", DEVICE, str(folder), str(images), str(N_TIMED)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if run.returncode:
        raise SystemExit(run.stderr)
    found: dict[str, Any] = json.loads(run.stdout)
    return found


def measure(data: LabeledImages, max_loss: float) -> dict[str, Any]:
    """Export both encoders and return all figures."""
    support, calibration, gate = parts_of(data)
    model = FewShotImageClassifier(progress=False).fit(support.images, support.labels.astype(str))
    eight: dict[str, Any] = {
        "support": (support.images, support.labels.astype(str)),
        "calibration": calibration.images,
        "gate": (gate.images, gate.labels),
        "max_loss": max_loss,
    }
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as work:
        images = Path(work) / "images"
        images.mkdir()
        for i, pixels in enumerate(gate.images[:: max(1, len(gate) // 100)]):
            Image.fromarray(pixels).resize((224, 224)).save(images / f"{i:03d}.png")
        for name, how in {"float32": {}, "int8": {"quantize": "int8", **eight}}.items():
            folder = Path(work) / name
            export(model, folder, **how)
            found = on_device(folder, images)
            (encoder,) = folder.glob("*.onnx")
            rows.append(
                {
                    "encoder": name,
                    "bytes of the encoder": encoder.stat().st_size,
                    "bytes in all": size_of(folder),
                    "peak memory, bytes": found["peak"],
                    **{f"{what}, ms": quartiles(took) for what, took in found["took"].items()},
                }
            )
            device = load(folder)
        accuracy = device.facts["gate"]
        return {"rows": rows, "difference to torch": device.facts["difference"], "accuracy": accuracy}


def quartiles(seconds: list[float]) -> list[float]:
    """Return the lower quartile, the median and the upper quartile, in ms."""
    return [round(float(value), 2) for value in 1000 * np.quantile(seconds, [0.25, 0.5, 0.75])]


def table(results: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    lines = [
        "| encoder | encoder, MB | all files, MB | peak memory, MB | answer one image, ms | learn a class from 5, ms |",
        "|---|---|---|---|---|---|",
    ]
    for row in results["rows"]:
        sizes = (row[name] / 1e6 for name in ("bytes of the encoder", "bytes in all", "peak memory, bytes"))
        times = (f"{row[name][1]:.1f}" for name in ("answer, ms", "learn, ms"))
        lines.append(f"| {row['encoder']} | " + " | ".join([*(f"{size:.2f}" for size in sizes), *times]) + " |")
    lines += ["", "| accuracy, % | float32 | int8 | paired loss |", "|---|---|---|---|"]
    for row in results["accuracy"]:
        pairs = (f"{100 * mean:z.2f} ± {100 * ci95:.2f}" for mean, ci95 in (row[n] for n in ("float", "int8", "loss")))
        lines.append(f"| {row['way']}-way {row['shot']}-shot | " + " | ".join(pairs) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print a table and write the results."""
    parser = Parser("edge.py", __doc__)
    parser.add_argument(
        "--data", type=prepared("cifar-fs"), default="data/cifar_fs", metavar="DIR", help="default: %(default)s"
    )
    parser.add_argument("--split", default="val", help="default: %(default)s")
    parser.add_argument(
        "--max-loss", type=float, default=0.01, metavar="L", help="largest accuracy loss of int8 (default: %(default)s)"
    )
    parser.add_out("benchmarks/results/edge")
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        found = measure(LabeledImages.open(options.data, options.split), options.max_loss)
    except ArtifactError as error:
        raise SystemExit(str(error)) from None
    about = facts("edge.py", 0, packages=("onnx", "onnxruntime"))
    results = {**about, "data": f"{Path(options.data).name}, {options.split}", **found}
    write(options.out, results, table(results))


if __name__ == "__main__":
    main()
