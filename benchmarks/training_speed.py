"""Milliseconds per training episode: the trainer, a bare loop, a plain Conv4, and the easyfsl package.

Each trains Conv4-64 on episodes of 60 classes, with 1 support and 5 query images of 28 x 28 per class. Images are
noise, since speed does not depend on the pixels. Each contestant runs in a separate process, and they take turns of a
few episodes, so a slowdown of the machine affects all of them. Figures are medians over the rounds, with quartiles.
Memory is the peak of the process minus its memory before training, on a GPU the peak of torch there. The extra
``peers`` installs easyfsl.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from importlib.util import find_spec
from statistics import median
from typing import Any

import numpy as np
import torch
from arguments import Parser
from protocol import facts, kibibytes, restore_sampler_init, write
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from fewshot import LabeledImages, MetaTrainer, TrainConfig, create_backbone
from fewshot.embedding.network import to_input
from fewshot.errors import pip_install
from fewshot.utils.malloc import keeping_memory

N_WAY, N_SHOT, N_QUERY, SIDE = 60, 1, 5, 28
N_IMAGES = N_SHOT + N_QUERY
LR = 1e-3
CONTESTANTS = (
    "MetaTrainer",
    "MetaTrainer, embed_chunk=60",
    "bare loop, the same network",
    "bare loop, the same network, memory kept between layers",
    "bare loop, plain Conv4",
    "easyfsl",
)
#: On a GPU, too.
COMPILED = "MetaTrainer, compiled"


class PlainConv4(nn.Module):
    """The usual Conv4: convolution, batch norm, ReLU, pool, in torch's default memory format."""

    def __init__(self) -> None:
        super().__init__()
        blocks = [
            nn.Sequential(nn.Conv2d(c, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2))
            for c in (1, 64, 64, 64)
        ]
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, 1, 28, 28) to (n, 64)."""
        return self.blocks(x).flatten(1)


def make_data(seed: int) -> LabeledImages:
    """Return 600 classes of noise."""
    images = np.random.default_rng(seed).integers(0, 256, (600 * 20, SIDE, SIDE), np.uint8)
    return LabeledImages(images, np.repeat(np.arange(600), 20))


def trainer_episode(data: LabeledImages, device: str, n: int, **settings: Any) -> float:
    """Return the seconds per episode of `MetaTrainer`, including its log and saved states."""
    config = TrainConfig(n_episodes=n + 1, n_way=N_WAY, n_shot=N_SHOT, n_query=N_QUERY, lr=LR, **settings)
    with tempfile.TemporaryDirectory() as folder:
        result = MetaTrainer("conv4", "prototypical", config, device=device).fit(data, out=folder, progress=False)
    seconds = [record["seconds"] for record in result.records]
    return (seconds[-1] - seconds[0]) / n


class BareLoop:
    """Forward, backward and a step of AdamW on a tensor in memory; one task per episode."""

    def __init__(self, network: nn.Module, data: LabeledImages, device: str, keep: bool = False) -> None:
        self.network, self.keep = network.train().to(device), keep
        self.optimizer = torch.optim.AdamW(network.parameters(), LR)
        rows = np.arange(N_WAY)[:, None] * 20 + np.arange(N_IMAGES)
        self.x = to_input(data.images[rows.ravel()], network)
        self.expected = torch.arange(N_WAY, device=device).repeat_interleave(N_QUERY)

    def step(self) -> Tensor:
        """Take one step."""
        z = self.network(self.x).unflatten(0, (N_WAY, N_IMAGES))
        prototypes, queries = z[:, :N_SHOT].mean(1), z[:, N_SHOT:].flatten(0, 1)
        loss = F.cross_entropy(-torch.cdist(queries, prototypes).square(), self.expected)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss

    def __call__(self, n: int) -> float:
        """Return the seconds per step."""
        with keeping_memory() if self.keep else nullcontext():
            start = time.perf_counter()
            for _ in range(n):
                self.step().item()
            return (time.perf_counter() - start) / n


class EasyFsl:
    """The training loop of easyfsl's notebook on episodic training, without loader processes."""

    def __init__(self, data: LabeledImages, device: str) -> None:
        from easyfsl.datasets import WrapFewShotDataset
        from easyfsl.methods import PrototypicalNetworks
        from easyfsl.samplers import TaskSampler

        restore_sampler_init()
        images = torch.from_numpy(np.array(data.images))[:, None].float() / 255
        wrapped = WrapFewShotDataset(list(zip(images, data.labels.tolist(), strict=True)))
        self.sampler = partial(TaskSampler, wrapped, N_WAY, N_SHOT, N_QUERY)
        self.data, self.device = wrapped, device
        self.model = PrototypicalNetworks(PlainConv4()).train().to(device)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-2, momentum=0.9, weight_decay=5e-4)

    def __call__(self, n: int) -> float:
        """Return the seconds per episode."""
        random.seed(0)
        sampler = self.sampler(n + 1)
        loader = DataLoader(self.data, batch_sampler=sampler, collate_fn=sampler.episodic_collate_fn)
        start = 0.0
        for batch in loader:
            support, support_labels, queries, query_labels = (part.to(self.device) for part in batch[:4])
            self.optimizer.zero_grad()
            self.model.process_support_set(support, support_labels)
            loss = F.cross_entropy(self.model(queries), query_labels)
            loss.backward()
            self.optimizer.step()
            loss.item()
            start = start or time.perf_counter()
        return (time.perf_counter() - start) / n


def make_networks() -> tuple[nn.Module, nn.Module]:
    """Return our Conv4 and the plain one, with the same weights."""
    ours, plain = create_backbone("conv4", in_chans=1, img_size=SIDE), PlainConv4()
    plain.load_state_dict(
        {k.replace(".conv.", ".0.").replace(".norm.", ".1."): v for k, v in ours.state_dict().items()}
    )
    return ours, plain


def make_contestant(name: str, data: LabeledImages, device: str) -> Callable[[int], float]:
    """Return a function from a number of episodes to the seconds per episode."""
    ours, plain = make_networks()
    if name.startswith("MetaTrainer"):
        chunk = name.partition("embed_chunk=")[2]
        is_compiled = name.endswith("compiled")
        return partial(trainer_episode, data, device, embed_chunk=int(chunk or 0), compile=is_compiled)
    if name == "easyfsl":
        return EasyFsl(data, device)
    return BareLoop(plain if "plain" in name else ours, data, device, keep="kept" in name)


class Worker:
    """A contestant in a separate process, so that its heap neither helps nor hinders others."""

    def __init__(self, name: str, seed: int, device: str) -> None:
        command = [sys.executable, __file__, "--worker", name, "--seed", str(seed), "--device", device]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, n: int) -> dict[str, float]:
        """Return the seconds per episode, and the MiB by which training has raised the peak memory."""
        if self.process.stdin is None or self.process.stdout is None:
            raise RuntimeError("the worker was started without pipes")
        self.process.stdin.write(f"{n}\n")
        self.process.stdin.flush()
        answer: dict[str, float] = json.loads(self.process.stdout.readline())
        return answer

    def close(self) -> None:
        """Close the pipes, which ends the process."""
        self.process.communicate()


def work(name: str, seed: int, device: str) -> None:
    """Run as a worker: for each number on standard input, train that many episodes and print the figures."""
    contestant = make_contestant(name, make_data(seed), device)
    before, on_gpu = kibibytes("VmRSS"), device.startswith("cuda")
    for line in sys.stdin:
        seconds = contestant(int(line))
        peak = torch.cuda.max_memory_allocated(device) / 1024 if on_gpu else kibibytes("VmHWM") - before
        print(json.dumps({"seconds": seconds, "MiB": peak / 1024}), flush=True)


def difference(data: LabeledImages) -> float:
    """Return the largest difference between our network and the plain one in training mode, relative to their scale."""
    ours, plain = make_networks()
    x = to_input(data.images[:360], ours)
    with torch.no_grad():
        a, b = ours.train()(x), plain.train()(x)
    return float((a - b).abs().max() / b.abs().max())


def peak_of_products(device: str) -> float:
    """Return the GFLOP/s of a large matrix product, the best of ten."""
    a, best = torch.rand(2048, 2048, device=device), 0.0
    for _ in range(10):
        start = time.perf_counter()
        (a @ a)[0, 0].item()  # on a GPU, waits for the product
        best = max(best, 2 * 2048**3 / (time.perf_counter() - start) / 1e9)
    return best


def flops_of_an_episode(data: LabeledImages) -> int:
    """Return the floating-point operations of one bare step, forward and backward."""
    loop = BareLoop(create_backbone("conv4", in_chans=1, img_size=SIDE), data, "cpu")
    with FlopCounterMode(display=False) as counter:
        loop.step()
    return int(counter.get_total_flops())


def measure(n: int, rounds: int, seed: int, device: str) -> dict[str, Any]:
    """Return the figures of every contestant."""
    names = [name for name in CONTESTANTS if name != "easyfsl" or find_spec("easyfsl")]
    names += [COMPILED] if device.startswith("cuda") else []
    if "easyfsl" not in names:
        print(f"easyfsl is not installed and is left out; run: {pip_install('peers')}", file=sys.stderr)
    workers = {name: Worker(name, seed, device) for name in names}
    answers = {name: worker(3) for name, worker in workers.items()}  # the first steps are slower
    took: dict[str, list[float]] = {name: [] for name in names}
    peaks = []
    for _ in range(rounds):
        for name, worker in workers.items():
            answers[name] = worker(n)
            took[name].append(answers[name]["seconds"])
        peaks.append(peak_of_products(device))
    for worker in workers.values():
        worker.close()
    data = make_data(seed)
    flops, trainer = flops_of_an_episode(data), np.array(took[names[0]])
    rows = []
    for name, seconds in took.items():
        ratios = np.quantile(np.array(seconds) / trainer, [0.25, 0.5, 0.75])
        rows.append(
            {
                "what": name,
                "ms an episode": round(1000 * median(seconds), 1),
                "GFLOP/s": round(flops / median(seconds) / 1e9, 1),
                "time relative to the trainer's": [round(float(r), 3) for r in ratios],
                "MiB": round(answers[name]["MiB"]),
            }
        )
    return {
        "episodes a turn": n,
        "rounds": rounds,
        "largest difference of the networks": difference(data),
        "GFLOP of an episode": round(flops / 1e9, 2),
        "GFLOP/s of matrix products": round(median(peaks), 1),
        "rows": rows,
    }


def table(results: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    lines = [
        "| | ms an episode | GFLOP/s | time relative to the trainer's (quartiles) | MiB |",
        "|---|---|---|---|---|",
    ]
    for row in results["rows"]:
        low, middle, high = row["time relative to the trainer's"]
        lines.append(
            f"| {row['what']} | {row['ms an episode']} | {row['GFLOP/s']} | {middle:.2f} ({low:.2f} to {high:.2f}) "
            f"| {row['MiB']} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print a table and write the results."""
    parser = Parser("training_speed.py", __doc__)
    parser.add_argument("--episodes", type=int, default=10, metavar="N", help="per turn (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=11, metavar="N", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="seed of the noise (default: %(default)s)")
    parser.add_out("benchmarks/results/training_speed")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--worker", metavar="CONTESTANT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker, options.seed, options.device)
        return
    results = measure(options.episodes, options.rounds, options.seed, options.device)
    write(options.out, {**facts("training_speed.py", options.seed, options.device), **results}, table(results))
    print({k: v for k, v in results.items() if k != "rows"})


if __name__ == "__main__":
    main()
