"""Images per second of `Embedder` compared with a bare loop of timm's network over the same, already decoded images.

`Embedder` runs with its defaults, with batch norm folded into the convolutions; the bare loop gets the batch size and
memory layout that are fastest on this machine. Contestants take turns, so a slowdown of the machine affects all of
them. A figure is the median over the rounds, with quartiles.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from arguments import Parser
from numpy.typing import NDArray
from PIL import Image
from protocol import facts
from sklearn.datasets import load_sample_images
from torch import Tensor, nn

from fewshot import Embedder, PrototypicalLearner, create_backbone
from fewshot.data.preprocess import Preprocessing
from fewshot.embedding.checkpoint import save_weights
from fewshot.persistence.files import write_text

#: Choices of the bare loop.
BATCHES = (2, 4, 8, 16, 64, 256)
LAYOUTS = {"channels last": torch.channels_last, "channels first": torch.contiguous_format}


def make_photos(folder: Path, n: int, seed: int) -> list[str]:
    """Write `n` JPEG files: crops of scikit-learn's two sample photographs, 300 to 427 pixels a side."""
    rng, photos, paths = np.random.default_rng(seed), load_sample_images().images, []
    for i in range(n):
        photo = photos[i % len(photos)]
        height, width = rng.integers(300, 428, 2)
        top, left = rng.integers(0, photo.shape[0] - height + 1), rng.integers(0, photo.shape[1] - width + 1)
        paths.append(str(folder / f"{i:04d}.jpg"))
        Image.fromarray(photo[top : top + height, left : left + width]).save(paths[-1], quality=90)
    return paths


class BareLoop:
    """The network alone: scale batches of uint8 images and pass them through."""

    def __init__(self, network: nn.Module, images: NDArray[np.uint8], seen: Preprocessing, device: str) -> None:
        self.network, self.device = network.to(device), device
        self.images = torch.from_numpy(images).permute(0, 3, 1, 2)
        self.mean, self.std = (torch.tensor(v, device=device).view(1, -1, 1, 1) for v in (seen.mean, seen.std))
        self.batch, self.layout = BATCHES[0], "channels last"

    def choose(self) -> None:
        """Choose the fastest batch size and layout on this machine."""
        took: dict[tuple[str, int], list[float]] = {}
        for _ in range(3):
            for layout, batch in product(LAYOUTS, BATCHES):
                self.layout, self.batch = layout, batch
                took.setdefault((layout, batch), []).append(seconds(self))
        self.layout, self.batch = min(took, key=lambda key: median(took[key]))

    @torch.inference_mode()
    def __call__(self) -> NDArray[np.float32]:
        """Return the embeddings (n, d)."""
        layout = LAYOUTS[self.layout]
        self.network.to(memory_format=layout)
        parts: list[Tensor] = []
        for start in range(0, len(self.images), self.batch):
            x = self.images[start : start + self.batch].to(self.device).float().div_(255).sub_(self.mean).div_(self.std)
            parts.append(self.network(x.contiguous(memory_format=layout)))
        return torch.cat(parts).cpu().numpy()


def seconds(function: Callable[[], Any]) -> float:
    """Return the duration of a call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def measure(backbone: str, n: int, rounds: int, seed: int, device: str) -> dict[str, Any]:
    """Return the images per second of each contestant, and its speed as a share of the bare loop's."""
    with tempfile.TemporaryDirectory() as folder:
        paths = make_photos(Path(folder), n, seed)
        usual = Embedder(backbone, device=device, progress=False)
        # The same network without a crop margin, so that decoded images of its size pass unchanged.
        network: Any = create_backbone(backbone)
        network.pretrained_cfg = {**network.pretrained_cfg, "crop_pct": 1.0}
        network.load_state_dict(usual.network.state_dict())
        save_weights(Path(folder) / "whole.safetensors", network, PrototypicalLearner())
        embedder = Embedder(Path(folder) / "whole.safetensors", device=device, progress=False)
        prepare = embedder.preprocessing
        decoded = np.stack([prepare(path) for path in paths])
        bare = BareLoop(network.eval(), decoded, prepare, device)
        bare.choose()
        contestants: dict[str, Callable[[], Any]] = {
            "bare loop": bare,
            "Embedder, decoded images": lambda: embedder.transform(decoded),
            "Embedder, JPEG files": lambda: usual.transform(paths),
        }
        expected = bare()
        answers = [embedder.transform(given) for given in (decoded, paths)]
        difference = max(float(np.abs(answer - expected).max() / np.abs(expected).max()) for answer in answers)
        took = np.array([[seconds(contestant) for contestant in contestants.values()] for _ in range(rounds)])
    rows = [
        {
            "what": what,
            "images a second": round(n / float(np.median(took[:, i])), 1),
            "share of the bare loop": quartiles(took[:, 0] / took[:, i]),
        }
        for i, what in enumerate(contestants)
    ]
    side = f"{prepare.height} x {prepare.width}"
    return {
        "backbone": backbone,
        "images": n,
        "pixels": side,
        "rounds": rounds,
        "bare loop": f"batches of {bare.batch}, {bare.layout}",
        "largest difference": difference,
        "rows": rows,
    }


def quartiles(values: NDArray[np.float64]) -> list[float]:
    """Return lower quartile, median and upper quartile."""
    return [round(float(q), 3) for q in np.quantile(values, [0.25, 0.5, 0.75])]


def main() -> None:
    """Measure, print a table and write the results."""
    parser = Parser("embedding.py", __doc__)
    parser.add_argument("--backbone", default="tf_efficientnet_lite0", metavar="NAME", help="default: %(default)s")
    parser.add_argument("--images", type=int, default=96, metavar="N", help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=31, metavar="N", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="seed of the crops (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="torch threads (default: torch's default)")
    parser.add_out("benchmarks/results/embedding.json")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    results = measure(options.backbone, options.images, options.rounds, options.seed, options.device)
    told = {**facts("embedding.py", options.seed, options.device), **results}
    write_text(options.out, json.dumps(told, indent=1) + "\n")
    print(f"{results['backbone']} on {results['images']} images of {results['pixels']}; {results['bare loop']}")
    print(f"{'':28s}{'images/s':>10s}{'share':>8s}   quartiles")
    for row in results["rows"]:
        low, median, high = row["share of the bare loop"]
        print(f"{row['what']:28s}{row['images a second']:10.1f}{median:8.3f}   {low:.3f} to {high:.3f}")
    print(f"largest difference of an embedding: {results['largest difference']:.1e} of their scale")


if __name__ == "__main__":
    main()
