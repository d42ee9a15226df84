"""The story of the demonstration: what it trains, learns, measures and times."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from fewshot.cli.demo import measures
from fewshot.cli.demo.measures import CHARACTERS, DIGITS, PIXELS, TRAINED, UNTRAINED, Contest, DemoResult
from fewshot.cli.demo.page import write_page
from fewshot.data.augment import Distortion
from fewshot.data.digits import digits
from fewshot.data.glyphs import glyphs
from fewshot.data.images import LabeledImages
from fewshot.embedding.backbones import create_backbone
from fewshot.embedding.network import embed
from fewshot.episodes.evaluate import evaluate
from fewshot.persistence.files import refuse_other_files, write_text
from fewshot.persistence.provenance import manifest
from fewshot.training.config import TrainConfig
from fewshot.training.result import TrainResult
from fewshot.training.trainer import MetaTrainer
from fewshot.utils.text import signed

#: Receives each line of output.
Say = Callable[[str], object]
#: By data set and method.
Embeddings = dict[str, dict[str, NDArray[np.float32]]]
RESULTS = "results.json"
#: Data set, ways and shots of each test. N_QUERY leaves enough images for five shots.
TESTS: tuple[tuple[str, int, int], ...] = (
    *((CHARACTERS, way, shot) for way in (5, 20) for shot in (1, 5)),
    *((DIGITS, 10, shot) for shot in (1, 5)),
)
N_QUERY = {CHARACTERS: 3, DIGITS: 15}


def run_demo(
    out: str | Path = "demo",
    *,
    train_episodes: int = 500,
    test_episodes: int = 600,
    seed: int = 0,
    progress: bool = True,
    say: Say = lambda line: None,
) -> DemoResult:
    """Train, test, cross the domain, add a class, look up; write ``results.json`` and ``report.html``.

    Parameters
    ----------
    out : path, default="demo"
        Folder for the results, including ``log.csv`` and ``best.safetensors``.
    train_episodes, test_episodes : int
        Number of episodes of meta-training and of each test.
    seed : int, default=0
        Seed of data, weights and episodes.
    progress : bool, default=True
        Whether to show a progress bar.
    say : callable, optional
        Receives each line of output.

    Returns
    -------
    DemoResult
        All results.
    """
    out, start = Path(out), time.perf_counter()
    _refuse_others(out)
    out.mkdir(parents=True, exist_ok=True)
    command = f"fewshot demo --train-episodes {train_episodes} --episodes {test_episodes} --seed {seed}"
    results: dict[str, Any] = {"manifest": manifest(command, seed)}
    _write(out, results)  # first, so that an interrupted demonstration can be recognised and repeated
    config = TrainConfig(n_episodes=train_episodes, n_way=40, n_query=5, val_n_query=3, seed=seed)
    trainer = MetaTrainer("conv4", "prototypical", config, augment=Distortion())
    characters = {split: glyphs(split, seed=seed) for split in ("train", "val", "test")}
    training = _train(trainer, characters, out, progress, say)
    test = {CHARACTERS: characters["test"], DIGITS: digits()}
    networks = {TRAINED: trainer.backbone, UNTRAINED: create_backbone("conv4", seed=seed, in_chans=1)}
    embeddings = {name: _embeddings(images, networks) for name, images in test.items()}
    contests = _compare(test, embeddings, say, n_episodes=test_episodes, seed=seed)
    results |= {
        "accuracy": measures.accuracies(contests),
        "paired_differences": measures.paired_differences(contests),
        "add_a_class": measures.add_a_class(trainer.backbone, test[DIGITS], seed),
        "look_up": measures.look_up(embeddings[CHARACTERS][TRAINED], test[CHARACTERS].labels, seed),
        "training": _training_facts(config, training),
    }
    _say_serving(results["add_a_class"], results["look_up"], say)
    results["manifest"]["wall_seconds"] = round(time.perf_counter() - start, 1)
    result = DemoResult(results, contests, training, test, embeddings)
    _write(out, results)
    write_page(out / "report.html", result)
    say(f"Done in {time.perf_counter() - start:.0f} s. Numbers: {out}/results.json, pictures: {out}/report.html")
    return result


def _write(out: Path, results: dict[str, Any]) -> None:
    write_text(out / RESULTS, json.dumps(results, indent=1, ensure_ascii=False) + "\n")


def _train(trainer: MetaTrainer, data: dict[str, LabeledImages], out: Path, progress: bool, say: Say) -> TrainResult:
    say("1. Characters in the installed fonts, split by character")
    for split, images in data.items():
        say(f"   {split:5s} {len(images.classes):4d} characters, {len(images):5d} images")
    config = trainer.config
    say(f"2. Meta-training Conv4 on {config.n_episodes} learning tasks of {config.n_way} training characters each")
    found = trainer.fit(data["train"], data["val"], out=out, progress=progress)
    best = f"best validation accuracy after episode {found.best_episode}: {100 * found.best_accuracy:.1f} %"
    say(f"   {found.records[-1]['seconds']:.0f} s; {best}")
    return found


def _embeddings(images: LabeledImages, networks: dict[str, nn.Module]) -> dict[str, NDArray[np.float32]]:
    pixels = (images.images.reshape(len(images), -1) / 255).astype(np.float32)
    return {**{name: embed(network, images.images) for name, network in networks.items()}, PIXELS: pixels}


def _compare(test: dict[str, LabeledImages], embeddings: Embeddings, say: Say, **options: int) -> list[Contest]:
    """Answer the same episodes with every method."""
    say("3. Unseen classes, learned from 1 and 5 images each, with no gradient step")
    columns = [*next(iter(embeddings.values())), "gain"]
    say(f"   {'accuracy, % (95 % interval)':36s}" + "".join(f"{column:>15s}" for column in columns))
    contests = []
    for name, n_way, n_shot in TESTS:
        sizes: dict[str, Any] = {"n_way": n_way, "n_shot": n_shot, "n_query": N_QUERY[name], **options}
        found = {m: evaluate("prototypical", x, test[name].labels, **sizes) for m, x in embeddings[name].items()}
        contest = Contest(name, n_way, n_shot, found)
        cells = [f"{100 * result.mean:6.1f} ±{100 * result.ci95:4.1f}" for result in found.values()]
        gain, ci95 = contest.gain()
        cells.append(f"{signed(100 * gain):>6} ±{100 * ci95:4.1f}")
        say(f"   {contest.setting:36s}" + "".join(f"{cell:>15s}" for cell in cells))
        contests.append(contest)
    say("   (gain: meta-trained minus raw pixels, episode by episode)")
    return contests


def _say_serving(added: dict[str, Any], found: dict[str, Any], say: Say) -> None:
    say(f"4. One more class: a running classifier knows {added['n_classes_before']} digits and learns the last one")
    say(f"   embedding {added['n_shot']} images took {added['embed_ms']:.1f} ms, learning {added['learn_ms']:.2f} ms")
    say(
        f"   accuracy: {100 * added['accuracy_new_class']:.0f} % on the new digit, "
        f"{100 * added['accuracy_other_classes']:.0f} % on the others "
        f"({100 * added['accuracy_other_classes_before']:.0f} % before)"
    )
    say(f"5. Looking up {found['n_queries']} images among {found['n_keys']} one-image prototypes, with FAISS")
    say(
        f"   the right character comes first for {100 * found['recall_at_1']:.0f} %, among five for "
        f"{100 * found['recall_at_5']:.0f} %; FAISS and exact search agree on {100 * found['agreement']:.2f} %"
    )


def _refuse_others(out: Path) -> None:
    """Raise if the folder holds other files, which would be replaced; hidden files do not count.

    Raises
    ------
    ValueError
        The message names a file.
    """
    with suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
        if json.loads((out / RESULTS).read_text(encoding="utf-8"))["manifest"]["command"].startswith("fewshot demo"):
            return
    refuse_other_files(out)


def _training_facts(config: TrainConfig, training: TrainResult) -> dict[str, Any]:
    return {
        "config": asdict(config),
        "seconds": training.records[-1]["seconds"],
        "best_episode": training.best_episode,
        "best_val_accuracy": training.best_accuracy,
        "validation": [
            {key: record[key] for key in ("episode", "val_accuracy", "val_ci95")}
            for record in training.records
            if "val_accuracy" in record
        ],
    }
