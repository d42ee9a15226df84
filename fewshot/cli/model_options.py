"""The options of the commands that make, change and use a classifier in a folder."""

from __future__ import annotations

import argparse
from typing import Any

from fewshot.cli.arguments import (
    DATA_HELP,
    backbone,
    cache,
    command,
    common,
    count,
    episodes,
    file_of,
    jobs,
    percent,
    report,
    seed,
    skip_unreadable,
    tables,
    unknown_label,
)


def _fit(commands: Any) -> None:
    fit = command(
        commands,
        "fit",
        "models",
        "learn the classes of a folder of images; writes a classifier",
        "Learn each class of FOLDER from its images, with no gradient step, and write the classifier to DIR. The "
        "default backbone is tf_efficientnet_lite0, whose weights come with the extra 'offline': nothing is "
        "downloaded.",
    )
    fit.add_argument("folder", metavar="FOLDER", help=DATA_HELP)
    fit.add_argument("--out", required=True, metavar="DIR", help="folder for the classifier")
    fit.add_argument("--split", metavar="NAME", help="learn only this split of the data, such as train")
    backbone(fit)
    cache(fit)
    fit.add_argument("--learner", metavar="NAME", help="method (default: the checkpoint's, or cosine prototypes)")
    fit.add_argument(
        "--reference", action="store_true", help="store only the name and hash of pretrained weights, not the weights"
    )
    skip_unreadable(fit)
    fit.add_argument("--force", action="store_true", help="replace a classifier in DIR")
    unknown_label(fit)
    common(fit)


def _add(commands: Any) -> None:
    add = _on_classifier(commands, "add", "editing", "add images of a class, known or new, to a classifier")
    add.add_argument("label", metavar="LABEL", help="the class")
    _images(add)
    unknown_label(add)
    skip_unreadable(add)
    common(add)


def _remove(commands: Any) -> None:
    remove = _on_classifier(commands, "remove", "editing", "remove a class, or some of its images, from a classifier")
    remove.add_argument("label", metavar="LABEL", help="the class")
    remove.add_argument(
        "--images", nargs="+", metavar="IMAGES", help="remove only these images: their names when learned, or files"
    )
    common(remove)


def _rename(commands: Any) -> None:
    rename = _on_classifier(commands, "rename", "editing", "give a class of a classifier another label")
    rename.add_argument("label", metavar="LABEL", help="the class")
    rename.add_argument("new", metavar="NEW", help="the new label; must not be in use")
    unknown_label(rename)
    common(rename)


def _merge(commands: Any) -> None:
    merge = _on_classifier(
        commands,
        "merge",
        "editing",
        "merge several classifiers into one",
        "Add to the classifier in DIR everything that OTHERS have learned, as if it had seen their images. All must "
        "have the same network, preprocessing and learner.",
    )
    merge.add_argument("others", nargs="+", metavar="OTHERS", help="more classifiers, which are not changed")
    merge.add_argument("--out", metavar="DIR", help="folder for the result (default: the first classifier)")
    merge.add_argument("--force", action="store_true", help="replace a classifier in --out")
    unknown_label(merge)
    common(merge)


def _predict(commands: Any) -> None:
    predict = _on_classifier(
        commands,
        "predict",
        "models",
        "classify images",
        "Classify images. An image that cannot be read is reported on standard error, the others are answered, and the "
        "exit status is 1.",
    )
    _images(predict)
    predict.add_argument("--top", type=count, default=1, metavar="K", help="number of likeliest classes (default: 1)")
    report(predict, "pictures")
    tables(predict)
    common(predict)


def _show(commands: Any) -> None:
    show = _on_classifier(commands, "show", "models", "show a classifier: classes, images, backbone, size")
    report(show, "pictures")
    tables(show)
    common(show)


def _calibrate(commands: Any) -> None:
    calibrate = _on_classifier(
        commands,
        "calibrate",
        "trust",
        "calibrate probabilities, and recognise unknown images",
        "On classes that the network was not trained on, find the temperature at which probabilities match how often "
        "answers are right, and the similarity below which an image belongs to no known class. DATA needs two classes "
        "of two images or more; they may differ from those of the classifier.",
    )
    calibrate.add_argument("data", metavar="DATA", help=DATA_HELP)
    calibrate.add_argument("--split", metavar="NAME", help="use only this split of the data")
    skip_unreadable(calibrate)
    calibrate.add_argument(
        "--false-accepts", type=percent, default=5.0, metavar="PERCENT",
        help="percentage of unknown images that may be accepted as known (default: 5)",
    )  # fmt: skip
    calibrate.add_argument("--keep-answering", action="store_true", help="calibrate probabilities, but reject nothing")
    calibrate.add_argument("--episodes", type=episodes, default=200, metavar="N", help="episodes to use (default: 200)")
    calibrate.add_argument("--seed", type=seed, default=0, help="seed of the episodes (default: %(default)s)")
    report(calibrate, "figures")
    unknown_label(calibrate)
    common(calibrate)


def _audit(commands: Any) -> None:
    help = "list support images that may do harm: outliers, duplicates, wrong classes"
    audit = _on_classifier(commands, "audit", "trust", help)
    report(audit, "pictures")
    tables(audit)
    common(audit)


def _annotate(commands: Any) -> None:
    annotate = command(
        commands,
        "annotate",
        "retrieval",
        "write vectors and labels of a folder of images, of any size, as Parquet",
        "Write id, label, vector, probability, unknown, nearest, similarity, error and embedder of every image below "
        "FOLDER. If interrupted or killed, run the same command to resume. An image that cannot be read gets an error "
        "and a vector of zeros, and the exit status is 1. Needs the extra 'parquet'.",
    )
    annotate.add_argument("folder", metavar="FOLDER", help="images, in folders of any depth")
    annotate.add_argument("--model", required=True, metavar="DIR", help="a classifier")
    annotate.add_argument("--out", type=file_of("Parquet"), required=True, metavar="FILE", help="the table (.parquet)")
    annotate.add_argument(
        "--executor", choices=("serial", "joblib", "ray"), default="serial",
        help="this process, several processes, or a Ray cluster (extra; RAY_ADDRESS names it) (default: %(default)s)",
    )  # fmt: skip
    annotate.add_argument("--jobs", type=jobs, metavar="N", help="number of processes (default: one per core)")
    annotate.add_argument("--shard", type=count, default=1024, metavar="N", help="images per write (default: 1024)")
    annotate.add_argument("--force", action="store_true", help="replace an existing table")
    common(annotate)


def _search(commands: Any) -> None:
    search = command(commands, "search", "retrieval", "find similar images in a table of fewshot annotate")
    search.add_argument("table", metavar="TABLE", help="a table of fewshot annotate")
    _images(search)
    search.add_argument("--model", required=True, metavar="DIR", help="the classifier that made the table")
    search.add_argument("-k", type=count, default=5, metavar="K", help="images per query (default: %(default)s)")
    search.add_argument(
        "--where", action="append", default=[], metavar="NAME=VALUE",
        help="find only images whose row has this value; repeat a NAME to allow several values",
    )  # fmt: skip
    search.add_argument("--by-label", action="store_true", help="find only images of the predicted class of the query")
    search.add_argument(
        "--metric", choices=("sqeuclidean", "cosine", "dot"), help="similarity (default: the classifier's)"
    )
    tables(search)
    common(search)


#: In the order of ``--help``.
MODEL_COMMANDS = (_fit, _add, _remove, _rename, _merge, _predict, _show, _calibrate, _audit, _annotate, _search)


def _on_classifier(commands: Any, name: str, module: str, help: str, description: str = "") -> argparse.ArgumentParser:
    added = command(commands, name, module, help, description)
    added.add_argument("dir", metavar="DIR", help="a classifier")
    return added


def _images(command: argparse.ArgumentParser) -> None:
    command.add_argument("images", nargs="+", metavar="IMAGES", help="image files, or folders of them")
