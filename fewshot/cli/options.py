"""The commands and their options."""

from __future__ import annotations

import argparse
import textwrap
from typing import Any

from fewshot._version import __version__
from fewshot.training.config import TrainConfig


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def _seed(text: str) -> int:
    value = int(text)
    if not 0 <= value < 2**32:
        raise ValueError
    return value


_positive.__name__, _seed.__name__ = "whole number above 0", "seed (a whole number from 0 to 4294967295)"

DATA_HELP = "a folder with a folder for each class, a table path,label,split (.csv), or what data_prep has written"


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; each command says which module of `fewshot.cli` runs it."""
    parser = argparse.ArgumentParser(
        prog="fewshot",
        description="Few-shot classification: learn new classes from one to five examples, with no gradient step.",
        epilog="Exit status: 0, 1 for a failure, 2 for a mistake in what was asked. Each command has --help.",
    )
    parser.add_argument("--version", action="version", version=f"fewshot {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for add in (_fit, _add, _remove, _rename, _merge, _predict, _show, _train, _evaluate, _demo):
        add(commands)
    return parser


def _command(commands: Any, name: str, module: str, help: str, description: str = "") -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=help, description=description or help)
    command.set_defaults(module=module)
    return command


def _fit(commands: Any) -> None:
    fit = _command(
        commands,
        "fit",
        "models",
        "learn the classes of a folder of images; writes a classifier",
        "Learn each class of FOLDER from its images, with no gradient step, and write the classifier to DIR. Without "
        "a backbone, tf_efficientnet_lite0 is used, whose weights the extra 'offline' installs: no download is made.",
    )
    fit.add_argument("folder", metavar="FOLDER", help=DATA_HELP)
    fit.add_argument("--out", required=True, metavar="DIR", help="folder for the classifier")
    fit.add_argument("--split", metavar="NAME", help="only this split of the data")
    _backbone(fit)
    fit.add_argument("--learner", metavar="NAME", help="method (default: the checkpoint's, else cosine prototypes)")
    fit.add_argument("--skip-unreadable", action="store_true", help="leave out images that cannot be read")
    fit.add_argument("--force", action="store_true", help="replace a classifier that is in DIR")
    _common(fit)


def _add(commands: Any) -> None:
    add = _command(commands, "add", "models", "add images of a class, known or new, to a classifier")
    add.add_argument("dir", metavar="DIR", help="a classifier")
    add.add_argument("label", metavar="LABEL", help="the class")
    add.add_argument("images", nargs="+", metavar="IMAGES", help="image files, or folders of them")
    _common(add)


def _remove(commands: Any) -> None:
    remove = _command(commands, "remove", "editing", "remove a class, or some of its images, from a classifier")
    remove.add_argument("dir", metavar="DIR", help="a classifier")
    remove.add_argument("label", metavar="LABEL", help="the class")
    remove.add_argument(
        "--images", nargs="+", metavar="IMAGES", help="only these: names as they were learned, or the files"
    )
    _common(remove)


def _rename(commands: Any) -> None:
    rename = _command(commands, "rename", "editing", "give a class of a classifier another label")
    rename.add_argument("dir", metavar="DIR", help="a classifier")
    rename.add_argument("label", metavar="LABEL", help="the class")
    rename.add_argument("new", metavar="NEW", help="its new label, which is not in use")
    _common(rename)


def _merge(commands: Any) -> None:
    merge = _command(
        commands,
        "merge",
        "editing",
        "join what several classifiers know",
        "Add to the classifier in DIR all that OTHERS have learned, as if their images had been shown to it. All must "
        "have the same network, preprocessing and learner.",
    )
    merge.add_argument("dir", metavar="DIR", help="a classifier")
    merge.add_argument("others", nargs="+", metavar="OTHERS", help="more classifiers; they stay as they are")
    merge.add_argument("--out", metavar="DIR", help="where the result goes (default: the first classifier)")
    merge.add_argument("--force", action="store_true", help="replace a classifier that is in --out")
    _common(merge)


def _predict(commands: Any) -> None:
    predict = _command(
        commands,
        "predict",
        "models",
        "classify images",
        "Classify images. One that cannot be read is told on standard error, the others are answered, and the exit "
        "status is 1.",
    )
    predict.add_argument("dir", metavar="DIR", help="a classifier")
    predict.add_argument("images", nargs="+", metavar="IMAGES", help="image files, or folders of them")
    predict.add_argument("--top", type=_positive, default=1, metavar="K", help="likeliest classes (default: 1)")
    predict.add_argument("--report", metavar="FILE", help="write a page with pictures (.html)")
    _tables(predict)
    _common(predict)


def _show(commands: Any) -> None:
    show = _command(commands, "show", "models", "show a classifier: classes, images, backbone, size")
    show.add_argument("dir", metavar="DIR", help="a classifier")
    show.add_argument("--report", metavar="FILE", help="write a page with pictures (.html)")
    _tables(show)
    _common(show)


def _train(commands: Any) -> None:
    train = _command(
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
    _backbone(train, "conv4", "that of the data")
    train.add_argument("--learner", metavar="NAME", help="method (default: that of --from, or prototypical)")
    train.add_argument("--metric", metavar="NAME", help="its similarity: sqeuclidean, cosine or dot")
    train.add_argument("--temperature", type=float, metavar="X", help="its temperature, learned from this on")
    train.add_argument("--grey", action="store_true", help="train on greys instead of colours")
    train.add_argument("--distort", action="store_true", help="turn, scale, shear and shift each image a little")
    train.add_argument("--photo", action="store_true", help="mirror images and change their light a little")
    train.add_argument("--varied", action="store_true", help="episodes of varied way and shots, as in the Meta-Dataset")
    train.add_argument(
        "--by-group", action="store_true", help="one group an episode: what stands before the first / of a label"
    )
    train.add_argument("--report", metavar="FILE", help="write a page with the learning curves (.html)")
    train.add_argument("--tensorboard", metavar="DIR", help="write learning curves for TensorBoard (extra)")
    train.add_argument("--force", action="store_true", help="begin anew where DIR holds a training")
    for name, field, kind in (
        ("episodes", "n_episodes", _positive),
        ("way", "n_way", _positive),
        ("shot", "n_shot", _positive),
        ("query", "n_query", _positive),
        ("lr", "lr", float),
        ("val-way", "val_n_way", _positive),
        ("val-every", "validate_every", _positive),
        ("seed", "seed", _seed),
    ):
        metavar = "X" if kind is float else "N"
        train.add_argument(f"--{name}", dest=field, type=kind, metavar=metavar, help=f"short for --set {field}=...")
    _common(train)


def _evaluate(commands: Any) -> None:
    evaluate = _command(
        commands,
        "evaluate",
        "learning",
        "measure accuracy on episodes over classes that were not trained on",
        "Embed the split 'test' of DATA once, then answer many small tasks drawn from its classes. "
        "The interval is 1.96 sigma / sqrt(episodes).",
    )
    evaluate.add_argument("data", metavar="DATA", help=DATA_HELP)
    evaluate.add_argument("--split", metavar="NAME", help="default: test, where the data have splits")
    _backbone(evaluate)
    evaluate.add_argument(
        "--learner", metavar="NAME", help="method (default: the checkpoint's, else cosine prototypes)"
    )
    for name, value, what in (
        ("way", 5, "classes an episode"),
        ("query", 15, "queries a class"),
        ("episodes", 1000, "episodes"),
    ):
        evaluate.add_argument(
            f"--{name}", type=_positive, default=value, metavar="N", help=f"{what} (default: {value})"
        )
    evaluate.add_argument(
        "--shot", type=_positive, nargs="+", default=[1, 5], metavar="N", help="support images a class (default: 1 5)"
    )
    evaluate.add_argument(
        "--small-classes",
        choices=("raise", "drop"),
        default="raise",
        help="what becomes of classes with fewer images than an episode takes (default: %(default)s)",
    )
    evaluate.add_argument("--seed", type=_seed, default=0, help="of the episodes (default: %(default)s)")
    _tables(evaluate)
    _common(evaluate)


def _demo(commands: Any) -> None:
    demo = _command(
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
        type=_positive,
        default=500,
        metavar="N",
        help="meta-training episodes (default: %(default)s)",
    )
    demo.add_argument(
        "--episodes", type=_positive, default=600, metavar="N", help="test episodes (default: %(default)s)"
    )
    demo.add_argument("--seed", type=_seed, default=0, help="of everything that is drawn (default: %(default)s)")
    demo.add_argument("--quiet", action="store_true", help="no progress bar")


def _backbone(
    command: argparse.ArgumentParser, default: str = "tf_efficientnet_lite0", size: str = "the network's own"
) -> None:
    one = command.add_mutually_exclusive_group()
    one.add_argument("--backbone", default=default, metavar="NAME", help="any timm name (default: %(default)s)")
    one.add_argument("--from", dest="checkpoint", metavar="CHECKPOINT", help="a network that fewshot train has written")
    command.add_argument(
        "--weights", metavar="FILE", help="weights of the backbone: a local file, 'offline' or 'random'"
    )
    command.add_argument("--pretrained", action="store_true", help="fetch the weights from timm's hub")
    command.add_argument("--size", type=_positive, metavar="PX", help=f"side of the images (default: {size})")


def _tables(command: argparse.ArgumentParser) -> None:
    command.add_argument("--csv", metavar="FILE", help="write the table as CSV; - for standard output")
    command.add_argument("--json", metavar="FILE", help="write it as JSON; - for standard output")


def _common(command: argparse.ArgumentParser) -> None:
    command.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: %(default)s)")
    command.add_argument("--quiet", action="store_true", help="no progress bar")
