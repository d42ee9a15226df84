"""The options of ``fewshot train`` and ``evaluate``."""

from __future__ import annotations

import argparse

from fewshot.cli.options import (
    EMBEDDING,
    TABLES,
    backbone,
    count,
    episodes,
    rate,
    report,
    seed,
    shared,
    steps,
    temperature,
)
from fewshot.episodes.query_draws import BALANCED, DIRICHLET, SINGLE
from fewshot.training.config import TrainConfig
from fewshot.utils.text import wrapped


def query_classes(text: str) -> str | int:
    """Read how queries are spread over the classes of an episode."""
    if text in (BALANCED, DIRICHLET, SINGLE):
        return text
    try:
        return count(text)
    except argparse.ArgumentTypeError as error:
        told = str(error).replace(", not", f", {BALANCED}, {DIRICHLET} or {SINGLE}, not", 1)
        raise argparse.ArgumentTypeError(told) from None


class _Lines(argparse.HelpFormatter):
    """Keep the list of fields, each of which begins a line."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(wrapped(line, width) for line in text.splitlines())


def train_options(train: argparse.ArgumentParser) -> None:
    """Define ``fewshot train``."""
    train.formatter_class = _Lines
    train.description = (
        "Meta-train a network on the split 'train' of DATA, and select the best weights on 'val'. Training starts from "
        "scratch, or from the weights given by --weights, --pretrained or --from. Writes best.safetensors, which fit "
        "and evaluate take with --from, log.csv, manifest.json, and state.safetensors, from which --resume continues. "
        "Ctrl-C finishes the episode and saves the state. Several processes train together: "
        "torchrun --nproc_per_node 2 -m fewshot train ..."
    )
    fields = "\n".join(f"  {name:16s} {text}" for name, text in TrainConfig.describe(n_way=20).items())
    train.epilog = f"fields, for --config FILE.toml and --set KEY=VALUE:\n{fields}"
    shared(train, "data")
    train.add_argument("--out", required=True, metavar="DIR", help="folder for the checkpoint")
    train.add_argument("--resume", action="store_true", help="continue from the state in DIR, exactly where it stopped")
    shared(train, "--force")
    train.add_argument("--config", metavar="FILE", help="a TOML file of the fields below")
    train.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="set one of the fields below; may be repeated"
    )
    _add_network(train)
    _add_episodes(train)
    report(train, "the learning curves")
    train.add_argument("--tensorboard", metavar="DIR", help="write learning curves for TensorBoard (extra)")
    shared(train, "--json", *EMBEDDING)


def _add_network(train: argparse.ArgumentParser) -> None:
    backbone(train, "conv4", "that of the data", crop="center")
    train.add_argument("--learner", metavar="NAME", help="method (default: that of --from, or prototypical)")
    train.add_argument("--metric", metavar="NAME", help="similarity of the learner: sqeuclidean, cosine or dot")
    train.add_argument("--temperature", type=temperature, metavar="X", help="initial temperature; training adapts it")
    train.add_argument("--grey", action="store_true", help="convert images to grey for training")
    train.add_argument("--distort", action="store_true", help="slightly rotate, scale, shear and shift each image")
    train.add_argument("--photo", action="store_true", help="mirror images and slightly change their light")
    shared(train, "--skip-unreadable")


def _add_episodes(train: argparse.ArgumentParser) -> None:
    train.add_argument(
        "--varied", action="store_true",
        help="vary ways, shots and queries as in the Meta-Dataset; n_way, n_shot and n_query are ignored",
    )  # fmt: skip
    _small_classes(train, "raise", "drop", "use")
    train.add_argument(
        "--by-group", action="store_true", help="draw each episode from one group: the part of labels before the /"
    )
    for name, field, kind in (
        ("episodes", "n_episodes", steps),
        ("way", "n_way", count),
        ("shot", "n_shot", count),
        ("query", "n_query", count),
        ("lr", "lr", rate),
        ("val-way", "val_n_way", count),
        ("val-every", "validate_every", steps),
        ("seed", "seed", seed),
    ):
        metavar = "X" if kind is rate else "N"
        train.add_argument(f"--{name}", dest=field, type=kind, metavar=metavar, help=f"short for --set {field}=...")


def evaluate_options(evaluate: argparse.ArgumentParser) -> None:
    """Define ``fewshot evaluate``."""
    evaluate.description = (
        "Embed the split 'test' of DATA once, then answer many small tasks drawn from its classes. "
        "DATA may also be embeddings with labels, as np.savez('DATA.npz', embeddings=X, labels=y) writes them. "
        "The interval is 1.96 sigma / sqrt(episodes)."
    )
    shared(evaluate, "data")
    evaluate.add_argument("--split", metavar="NAME", help="split to measure on (default: test, if there are splits)")
    shared(evaluate, "--skip-unreadable")
    backbone(evaluate)
    shared(evaluate, "--domain")
    shared(evaluate, "--cache", "--learner")
    for name, kind, value, what in (
        ("way", count, 5, "classes per episode"),
        ("query", count, 15, "queries per class"),
        ("episodes", episodes, 1000, "number of episodes"),
    ):
        evaluate.add_argument(f"--{name}", type=kind, default=value, metavar="N", help=f"{what} (default: {value})")
    evaluate.add_argument(
        "--query-classes", type=query_classes, default=BALANCED, metavar="HOW",
        help="how queries are spread over the classes: balanced, dirichlet (uneven), single (one in all), or over N of "
        "them (default: %(default)s)",
    )  # fmt: skip
    evaluate.add_argument(
        "--shot", type=count, nargs="+", default=[1, 5], metavar="N", help="support images per class (default: 1 5)"
    )
    _small_classes(evaluate, "raise", "drop")
    shared(evaluate, "--seed", *TABLES, *EMBEDDING)


def _small_classes(command: argparse.ArgumentParser, *choices: str) -> None:
    command.add_argument(
        "--small-classes", choices=choices, default="raise",
        help="what to do with classes that have too few images for an episode (default: %(default)s)",
    )  # fmt: skip
