"""The commands and their options."""

from __future__ import annotations

import argparse
import textwrap
from contextlib import suppress
from typing import Any, NoReturn

from fewshot._version import __version__
from fewshot.cli.arguments import (
    DATA_HELP,
    backbone,
    cache,
    command,
    common,
    count,
    episodes,
    file_of,
    rate,
    say_ranges,
    seed,
    skip_unreadable,
    steps,
    tables,
    temperature,
)
from fewshot.cli.bench import bench_options
from fewshot.cli.model_options import MODEL_COMMANDS
from fewshot.cli.retrieval_options import RETRIEVAL_COMMANDS
from fewshot.training.config import TrainConfig
from fewshot.utils.text import printable, shortened

#: What options are called whose values have another name.
_NAMES = {"checkpoint": "from"}
STATUS = """exit status:
  0    done
  1    a failure; or an image had no answer (predict, annotate, search), or a unit of a grid failed (bench)
  2    a mistake in what was asked: nothing was changed
  130  interrupted (Ctrl-C)
  143  ended by the system (SIGTERM), with the state of the training saved (train)

Each command has --help.
"""


class Parser(argparse.ArgumentParser):
    """A parser whose messages go to any terminal, whatever was typed."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Return the options; none is empty, as a variable of a shell that is not set would make it."""
        options = super().parse_args(args, namespace)
        for name, value in vars(options).items():
            if value == "" or (isinstance(value, list) and "" in value):
                self.error(f"{_NAMES.get(name, name)} is empty; give a value, or leave it out")
        return options

    def error(self, message: str) -> NoReturn:
        """Print the usage and a sentence, and end with status 2."""
        super().error(shortened(printable(message)))

    def _print_message(self, message: str, file: Any = None) -> None:
        with suppress(ValueError):  # a closed stream; argparse expects only that it is missing or full
            super()._print_message(message, file)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; each command says which module of `fewshot.cli` runs it."""
    parser = Parser(
        prog="fewshot",
        description="Few-shot classification: learn new classes from one to five examples, with no gradient step.",
        epilog=STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,  # for the list of exit statuses
    )
    parser.add_argument("--version", action="version", version=f"fewshot {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for add in (*MODEL_COMMANDS, *RETRIEVAL_COMMANDS, _train, _evaluate, bench_options, _demo):
        add(commands)
    for one in commands.choices.values():
        say_ranges(one)
    return parser


def _train(commands: Any) -> None:
    train = command(
        commands,
        "train",
        "training",
        "meta-train a network on many small learning tasks; writes a checkpoint",
        "Meta-train a network on the split 'train' of DATA, choosing the best weights on 'val': from the start, or "
        "from the weights that --weights, --pretrained or --from name. Writes "
        "best.safetensors, which fit and evaluate take with --from, log.csv, manifest.json, and state.safetensors, "
        "from which --resume goes on. Ctrl-C finishes the episode and saves the state. Several processes train "
        "together: torchrun --nproc_per_node 2 -m fewshot train ...",
    )
    train.formatter_class = argparse.RawDescriptionHelpFormatter  # for the list of fields
    train.description = textwrap.fill(str(train.description), 80)
    fields = "\n".join(f"  {name:16s} {text}" for name, text in TrainConfig.describe(n_way=20).items())
    train.epilog = f"fields, for --config FILE.toml and --set KEY=VALUE:\n{fields}"
    train.add_argument("data", metavar="DATA", help=DATA_HELP)
    train.add_argument("--out", required=True, metavar="DIR", help="folder for the checkpoint")
    train.add_argument("--resume", action="store_true", help="go on from the state in DIR, exactly where it stopped")
    train.add_argument("--config", metavar="FILE", help="settings, a TOML file of the fields below")
    train.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="one of the fields below; may be repeated"
    )
    backbone(train, "conv4", "that of the data")
    train.add_argument("--learner", metavar="NAME", help="method (default: that of --from, or prototypical)")
    train.add_argument("--metric", metavar="NAME", help="its similarity: sqeuclidean, cosine or dot")
    train.add_argument("--temperature", type=temperature, metavar="X", help="its temperature, learned from this on")
    train.add_argument("--grey", action="store_true", help="train on greys instead of colours")
    train.add_argument("--distort", action="store_true", help="turn, scale, shear and shift each image a little")
    train.add_argument("--photo", action="store_true", help="mirror images and change their light a little")
    train.add_argument(
        "--varied",
        action="store_true",
        help="episodes of varied way, shots and queries, as in the Meta-Dataset; n_way, n_shot, n_query do not count",
    )
    train.add_argument(
        "--small-classes", choices=("raise", "drop", "use"), default="raise",
        help="what becomes of classes with fewer images than an episode takes (default: %(default)s)",
    )  # fmt: skip
    train.add_argument(
        "--by-group", action="store_true", help="one group an episode: what stands before the first / of a label"
    )
    train.add_argument(
        "--report", type=file_of("HTML"), metavar="FILE", help="write a page with the learning curves (.html)"
    )
    train.add_argument("--tensorboard", metavar="DIR", help="write learning curves for TensorBoard (extra)")
    skip_unreadable(train)
    train.add_argument("--force", action="store_true", help="begin again where DIR holds a training")
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
    common(train)


def _evaluate(commands: Any) -> None:
    evaluate = command(
        commands,
        "evaluate",
        "learning",
        "measure accuracy on episodes over classes that were not trained on",
        "Embed the split 'test' of DATA once, then answer many small tasks drawn from its classes. "
        "The interval is 1.96 sigma / sqrt(episodes).",
    )
    evaluate.add_argument("data", metavar="DATA", help=DATA_HELP)
    evaluate.add_argument("--split", metavar="NAME", help="default: test, where the data have splits")
    skip_unreadable(evaluate)
    backbone(evaluate)
    cache(evaluate)
    evaluate.add_argument(
        "--learner", metavar="NAME", help="method (default: the checkpoint's, else cosine prototypes)"
    )
    for name, value, what in (
        ("way", 5, "classes an episode"),
        ("query", 15, "queries a class"),
        ("episodes", 1000, "episodes"),
    ):
        kind = episodes if name == "episodes" else count
        evaluate.add_argument(f"--{name}", type=kind, default=value, metavar="N", help=f"{what} (default: {value})")
    evaluate.add_argument(
        "--shot", type=count, nargs="+", default=[1, 5], metavar="N", help="support images a class (default: 1 5)"
    )
    evaluate.add_argument(
        "--small-classes",
        choices=("raise", "drop"),
        default="raise",
        help="what becomes of classes with fewer images than an episode takes (default: %(default)s)",
    )
    evaluate.add_argument("--seed", type=seed, default=0, help="of the episodes (default: %(default)s)")
    tables(evaluate)
    common(evaluate)


def _demo(commands: Any) -> None:
    demo = command(
        commands,
        "demo",
        "demonstration",
        "train, learn new classes, look them up; writes a report with pictures",
        "Meta-train a small network on characters, then learn classes it has never seen (held-out "
        "characters, real handwritten digits) from 1 and 5 images each. Needs no download and about two minutes "
        "on two cores. Prints a table and writes results.json and report.html.",
    )
    demo.add_argument("--out", default="demo", metavar="DIR", help="folder for the results (default: %(default)s)")
    demo.add_argument(
        "--train-episodes",
        type=episodes,
        default=500,
        metavar="N",
        help="meta-training episodes (default: %(default)s)",
    )
    demo.add_argument(
        "--episodes", type=episodes, default=600, metavar="N", help="test episodes (default: %(default)s)"
    )
    demo.add_argument("--seed", type=seed, default=0, help="of everything that is drawn (default: %(default)s)")
    demo.add_argument("--quiet", action="store_true", help="no progress bar")
