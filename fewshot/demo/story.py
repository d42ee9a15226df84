"""The story of the demonstration: what is trained, learned, measured and timed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import nn

from fewshot.backbones import create_backbone
from fewshot.data.digits import digits
from fewshot.data.distort import Distortion
from fewshot.data.glyphs import glyphs
from fewshot.data.images import LabeledImages
from fewshot.demo.incremental import add_a_class, look_up
from fewshot.embedder import embed
from fewshot.evaluation import EvalResult, evaluate
from fewshot.manifest import manifest
from fewshot.report.page import write_text
from fewshot.training.config import TrainConfig, TrainResult
from fewshot.training.trainer import MetaTrainer

#: The contestants, in the order in which they are shown.
TRAINED, UNTRAINED, PIXELS = "meta-trained", "untrained", "raw pixels"
#: Data set, ways and shots of each test; queries per class leave enough images for five shots.
TESTS: tuple[tuple[str, int, int], ...] = (
    *(("new characters", way, shot) for way in (5, 20) for shot in (1, 5)),
    *(("handwritten digits", 10, shot) for shot in (1, 5)),
)
N_QUERY = {"new characters": 3, "handwritten digits": 15}


@dataclass(frozen=True, eq=False)
class Contest:
    """One test: the same episodes answered by every contestant."""

    data: str
    n_way: int
    n_shot: int
    results: dict[str, EvalResult]

    @property
    def setting(self) -> str:
        """Return data, ways and shots, to read."""
        return f"{self.data}, {self.n_way}-way {self.n_shot}-shot"


@dataclass(frozen=True, eq=False)
class Outcome:
    """Everything that the demonstration found, for `results.json` and for the page."""

    results: dict[str, Any]
    contests: list[Contest]
    training: TrainResult
    test: dict[str, LabeledImages]
    embeddings: dict[str, dict[str, NDArray[np.float32]]]


def run_demo(
    out: str | Path = "demo",
    *,
    train_episodes: int = 500,
    test_episodes: int = 600,
    seed: int = 0,
    progress: bool = True,
    say: Callable[[str], object] = lambda line: None,
) -> Outcome:
    """Train, test, cross the domain, add a class, look up; write ``results.json`` and ``report.html``.

    Parameters
    ----------
    out : path, default="demo"
        Folder for the results, made if needed; also ``log.csv`` and ``best.safetensors``.
    train_episodes, test_episodes : int
        Length of meta-training and of each test.
    seed : int, default=0
        Of data, weights and episodes.
    progress : bool, default=True
        Whether to show a progress bar.
    say : callable, optional
        Is told each line of the story.

    Returns
    -------
    Outcome
        All that was found.
    """
    from fewshot.demo.page import write_page

    out, start = Path(out), time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    say("1. Drawing characters in the fonts at hand, split by character ...")
    data = {split: glyphs(split, seed=seed) for split in ("train", "val", "test")}
    for split, images in data.items():
        say(f"   {split:5s} {len(images.classes):4d} characters, {len(images):5d} images")
    say("2. Meta-training Conv4 on learning tasks made of the training characters ...")
    config = TrainConfig(n_episodes=train_episodes, n_way=40, n_query=5, val_n_query=3, seed=seed)
    trainer = MetaTrainer("conv4", "prototypical", config, augment=Distortion())
    training = trainer.fit(data["train"], data["val"], out=out, progress=progress)
    say(
        f"   {train_episodes} tasks in {training.records[-1]['seconds']:.0f} s; best on the validation characters "
        f"after {training.best_episode}: {100 * training.best_accuracy:.1f} %"
    )
    test = {"new characters": data["test"], "handwritten digits": digits()}
    networks = {TRAINED: trainer.backbone, UNTRAINED: create_backbone("conv4", seed=seed, in_chans=1)}
    embeddings = {name: _embeddings(images, networks) for name, images in test.items()}
    say("3. Learning classes never seen, from 1 and 5 images each, with no gradient step ...")
    contests = [
        _contest(test[name], embeddings[name], name, n_way, n_shot, test_episodes, seed)
        for name, n_way, n_shot in TESTS
    ]
    _say_table(contests, say)
    say("4. A new class arrives: nine digits are known, the tenth is added to the running classifier ...")
    added = add_a_class(networks[TRAINED], test["handwritten digits"], seed)
    say(
        f"   embedding its 5 images {added['embed_ms']:.1f} ms, learning them {added['learn_ms']:.2f} ms; then "
        f"{100 * added['accuracy_new_class']:.0f} % of its images are right, of the other digits "
        f"{100 * added['accuracy_other_classes']:.0f} % ({100 * added['accuracy_other_classes_before']:.0f} % before)"
    )
    say("5. Looking characters up through FAISS ...")
    found = look_up(embeddings["new characters"][TRAINED], test["new characters"].labels, seed)
    say(
        f"   {found['n_keys']} prototypes, one image each; the right character is first for "
        f"{100 * found['recall_at_1']:.0f} % and among five for {100 * found['recall_at_5']:.0f} % of "
        f"{found['n_queries']} queries; FAISS and exact search agree on {100 * found['agreement']:.0f} %"
    )
    results = _results(config, training, contests, added, found, test_episodes)
    results["manifest"]["wall_seconds"] = round(time.perf_counter() - start, 1)
    outcome = Outcome(results, contests, training, test, embeddings)
    write_text(out / "results.json", json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    write_page(out / "report.html", outcome)
    say(f"Done in {time.perf_counter() - start:.0f} s. Figures: {out / 'results.json'}")
    say(f"Pictures: {out / 'report.html'}")
    return outcome


def _embeddings(images: LabeledImages, networks: dict[str, nn.Module]) -> dict[str, NDArray[np.float32]]:
    pixels = (images.images.reshape(len(images), -1) / 255).astype(np.float32)
    return {**{name: embed(network, images.images) for name, network in networks.items()}, PIXELS: pixels}


def _contest(
    images: LabeledImages,
    embeddings: dict[str, NDArray[np.float32]],
    name: str,
    n_way: int,
    n_shot: int,
    n_episodes: int,
    seed: int,
) -> Contest:
    results = {
        method: evaluate(
            "prototypical",
            x,
            images.labels,
            n_way=n_way,
            n_shot=n_shot,
            n_query=N_QUERY[name],
            n_episodes=n_episodes,
            seed=seed,
        )
        for method, x in embeddings.items()
    }
    return Contest(name, n_way, n_shot, results)


def _say_table(contests: list[Contest], say: Callable[[str], object]) -> None:
    methods = [TRAINED, UNTRAINED, PIXELS]
    say(f"   {'accuracy, % (95 % interval)':36s}" + "".join(f"{m:>15s}" for m in methods) + f"{'gain':>15s}")
    for contest in contests:
        cells = [f"{100 * contest.results[m].mean:6.1f} ±{100 * contest.results[m].ci95:4.1f}" for m in methods]
        gain, ci95 = contest.results[TRAINED].difference(contest.results[PIXELS])
        cells.append(f"{100 * gain:+6.1f} ±{100 * ci95:4.1f}")
        say(f"   {contest.setting:36s}" + "".join(f"{cell:>15s}" for cell in cells))
    say("   (gain: meta-trained minus raw pixels, episode by episode)")


def accuracy_frame(contests: list[Contest]) -> pd.DataFrame:
    """Return one row a test and method: accuracy, interval, protocol, chance."""
    rows = [
        {
            "data": contest.data,
            "setting": contest.setting,
            "method": method,
            "accuracy": result.mean,
            "ci95": result.ci95,
            "chance": 1 / contest.n_way,
            **result.protocol,
        }
        for contest in contests
        for method, result in contest.results.items()
    ]
    return pd.DataFrame(rows)


def _results(
    config: TrainConfig,
    training: TrainResult,
    contests: list[Contest],
    added: dict[str, Any],
    found: dict[str, Any],
    test_episodes: int,
) -> dict[str, Any]:
    differences = []
    for contest in contests:
        for other in (UNTRAINED, PIXELS):
            mean, ci95 = contest.results[TRAINED].difference(contest.results[other])
            differences.append({"setting": contest.setting, "minus": other, "difference": mean, "ci95": ci95})
    command = f"fewshot demo --train-episodes {config.n_episodes} --episodes {test_episodes} --seed {config.seed}"
    return {
        "manifest": manifest(command, config.seed),
        "accuracy": accuracy_frame(contests).to_dict("records"),
        "paired_differences": differences,
        "add_a_class": added,
        "look_up": found,
        "training": {
            "config": asdict(config),
            "seconds": training.records[-1]["seconds"],
            "best_episode": training.best_episode,
            "best_val_accuracy": training.best_accuracy,
            "validation": [
                {key: record[key] for key in ("episode", "val_accuracy", "val_ci95")}
                for record in training.records
                if "val_accuracy" in record
            ],
        },
    }
