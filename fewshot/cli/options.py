"""The options of the commands on a classifier, those that several commands share, and the types of their values.

``NAME_options`` defines the options of the command NAME. Importing this module is quick: it loads no heavy package.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, TypeVar

from fewshot.data.crop import AUTO, CROPS, TRAINING
from fewshot.persistence.suffixes import check_suffix

N = TypeVar("N", int, float)
#: Characters of a value that an error repeats.
_SHOWN = 60
#: The default of --backbone, but for training.
BACKBONE = "tf_efficientnet_lite0"


# ---- types of values ------------------------------------------------------------------------------------------------


def whole(least: int, most: int) -> Callable[[str], int]:
    """Return an option type: whole numbers in a range."""
    return _reader(int, least, most, "a whole number", f"{least} to {most}")


def number(least: float, most: float) -> Callable[[str], float]:
    """Return an option type: finite numbers in a range."""
    return _reader(float, least, most, "a number", f"{least:g} to {most:g}")


def _reader(kind: Callable[[str], N], least: float, most: float, what: str, span: str) -> Callable[[str], N]:
    def read(text: str) -> N:
        try:
            value = kind(text)
        except ValueError:  # also for more digits than Python converts
            value = None
        if value is None or not least <= value <= most:
            shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
            cure = ""
            if "," in text:
                cure = "; separate numbers by blanks" if kind is int else "; write a point in place of the comma"
            raise argparse.ArgumentTypeError(f"expected {what} from {span}, not {shown!r}{cure}")
        return value

    read.span = span  # type: ignore[attr-defined]  # for --help
    return read


def file_of(kind: str, or_else: str | None = None) -> Callable[[str], str]:
    """Return an option type: a file of a format, such as "CSV", or of another one if its name ends like that."""

    def named(text: str) -> str:
        try:
            is_other = or_else is not None and text.lower().endswith(f".{or_else.lower()}")
            check_suffix(text, str(or_else) if is_other else kind, "the file", None if is_other else or_else)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return text

    return named


count, episodes, steps = whole(1, 10**6), whole(1, 10**7), whole(1, 10**9)
jobs, seed = whole(1, 1024), whole(0, 2**32 - 1)
rate, temperature = number(1e-12, 1e3), number(1e-6, 1e6)

# ---- shared options -------------------------------------------------------------------------------------------------

_DATA = (
    "a folder with a subfolder per class or a .zip of it, a table path,label,split (.csv), or output of fewshot data"
)
_ON = {"action": "store_true"}
SHARED: dict[str, dict[str, Any]] = {
    "data": {"metavar": "DATA", "help": _DATA},
    "dir": {"metavar": "DIR", "help": "a classifier"},
    "folder": {"metavar": "FOLDER", "help": _DATA},
    "images": {"nargs": "+", "metavar": "IMAGES", "help": "image files, or folders of them, also as .zip"},
    "label": {"metavar": "LABEL", "help": "the class"},
    "--cache": {"metavar": "DIR", "help": "store embeddings there, so that no image is embedded twice"},
    "--csv": {"type": file_of("CSV"), "metavar": "FILE", "help": "write the table as CSV; - for standard output"},
    "--device": {"default": "auto", "help": "auto, cpu, cuda or mps (default: %(default)s)"},
    "--domain": {"metavar": "FILE", "help": "a domain from fewshot adapt, which maps the embeddings"},
    "--executor": {
        "choices": ("serial", "joblib", "ray"),
        "default": "serial",
        "help": "this process, several processes, or a Ray cluster (extra; RAY_ADDRESS names it) "
        "(default: %(default)s)",
    },
    "--force": {**_ON, "help": "replace what is there already"},
    "--jobs": {"type": jobs, "metavar": "N", "help": "number of processes (default: one per core)"},
    "--json": {
        "type": file_of("JSON"),
        "metavar": "FILE",
        "help": "write it as JSON; - for standard output, and messages go to standard error",
    },
    "--learner": {"metavar": "NAME", "help": "method (default: the checkpoint's, or discriminant)"},
    "--max-pixels": {
        "type": whole(1, 10**12),
        "metavar": "N",
        "help": "refuse images with more pixels (default: $FEWSHOT_MAX_PIXELS, or 268435456)",
    },
    "--path-column": {"metavar": "NAME", "help": "column of a table with the paths (default: path, image or file)"},
    "--root": {
        "metavar": "DIR",
        "help": "folder that the paths of a table may not lead out of, and where relative ones start; / for any path "
        "(default: that of the table)",
    },
    "--label-column": {"metavar": "NAME", "help": "column of a table with the labels (default: label)"},
    "--quiet": {**_ON, "help": "no progress bar"},
    "--seed": {"type": seed, "default": 0, "help": "seed of what is drawn at random (default: %(default)s)"},
    "--skip-unreadable": {**_ON, "help": "skip images that cannot be read"},
    "--split": {"metavar": "NAME", "help": "use only this split of the data, such as train"},
    "--spreadsheet": {
        **_ON,
        "help": "CSV for Excel and others: with a byte order mark, so that they show every letter, and ' before text "
        "that begins with = + - @, tab or return, so that they do not run it as a formula: labels and file names may "
        "come from strangers",
    },
    "--decimal-comma": {
        **_ON,
        "help": "--spreadsheet where numbers have a comma, as in most of Europe: fields are separated by ;",
    },
    "--unknown-label": {
        "metavar": "LABEL",
        "help": "the answer for unknown images; must not be a class (default: unknown, or -1 if classes are numbers)",
    },
}
_SHORT = {"--quiet": ("-q",)}
#: Options of every command that embeds, and of those that write tables.
COLUMNS = ("--path-column", "--label-column")
EMBEDDING, SPREADSHEET = ("--device", "--max-pixels", "--quiet"), ("--spreadsheet", "--decimal-comma")
TABLES = ("--csv", "--json", *SPREADSHEET)


def shared(command: argparse.ArgumentParser, *names: str) -> None:
    """Add shared options to a command."""
    for name in names:
        command.add_argument(*_SHORT.get(name, ()), name, **SHARED[name])


def backbone(
    command: argparse.ArgumentParser,
    default: str = BACKBONE,
    default_size: str = "the network's own",
    crop: str = AUTO,
) -> None:
    """Add the options that choose the network."""
    one = command.add_mutually_exclusive_group()
    known = "any timm name, hf-hub:OWNER/NAME, local-dir:PATH, or clip-base, siglip2-base, dinov2-small, dinov3-small"
    known += " and others, whose weights come from the hub (default: %(default)s)"
    one.add_argument("--backbone", default=default, metavar="NAME", help=known)
    one.add_argument("--from", dest="checkpoint", metavar="CHECKPOINT", help="a checkpoint from fewshot train")
    command.add_argument("--weights", metavar="FILE", help="backbone weights: a local file, 'offline' or 'random'")
    command.add_argument("--pretrained", action="store_true", help="download the weights from the hub")
    command.add_argument(
        "--bits", type=whole(8, 16), metavar="N", help="bit depth of 16-bit images, if files do not tell"
    )
    seen = "what of long images is seen: the center, or all, with borders (pad) or out of proportion (squash)"
    if crop == AUTO:
        seen += (
            ", or all and overlapping tiles, at several times the time; adaptive: tiles if over twice as long as wide, "
            "else pad (auto: that of training, or adaptive)"
        )
    crops = TRAINING if crop in TRAINING else (AUTO, *CROPS)
    if crop == AUTO:
        looks = "average several looks at each image: mirror or scales, twice the time, or shifts, five times"
        command.add_argument("--views", metavar="NAMES", help=f"{looks}; '+' joins them, as in mirror+scales")
    command.add_argument("--crop", choices=crops, default=crop, help=f"{seen} (default: %(default)s)")
    side = f"side of the images (default: {default_size})"
    command.add_argument("--size", type=whole(1, 4096), metavar="PX", help=side)


def report(command: argparse.ArgumentParser, what: str) -> None:
    """Add the option that writes a page."""
    command.add_argument("--report", type=file_of("HTML"), metavar="FILE", help=f"write a page with {what} (.html)")


# ---- commands -------------------------------------------------------------------------------------------------------


def fit_options(fit: argparse.ArgumentParser) -> None:
    """Define ``fewshot fit``."""
    fit.description = (
        "Learn each class of FOLDER from its images, with no gradient step, and write the classifier to DIR. The "
        "default backbone is tf_efficientnet_lite0, whose weights come with the extra 'offline': nothing is "
        "downloaded."
    )
    shared(fit, "folder")
    fit.add_argument("--out", required=True, metavar="DIR", help="folder for the classifier")
    shared(fit, "--split", *COLUMNS, "--root")
    backbone(fit)
    shared(fit, "--domain", "--cache", "--learner")
    fit.add_argument(
        "--reference", action="store_true", help="store only the name and hash of pretrained weights, not the weights"
    )
    unknown(fit)
    shared(fit, "--skip-unreadable", "--force", "--unknown-label", "--json", *EMBEDDING)


def adapt_options(adapt: argparse.ArgumentParser) -> None:
    """Define ``fewshot adapt``."""
    adapt.description = (
        "Learn from other classes of a domain, five or more, which differences between images do not matter there: "
        "those within the classes. This takes seconds and no gradient step. Then fewshot fit --domain FILE tells new "
        "classes apart better."
    )
    shared(adapt, "data")
    adapt.add_argument("--out", required=True, metavar="FILE", help="file for the domain, such as domain.safetensors")
    shared(adapt, "--split", "--root")
    adapt.add_argument("--unlabelled", action="store_true", help="DATA is a folder of images of unknown classes")
    adapt.add_argument(
        "--shrinkage", type=number(0.001, 1), metavar="S", help="(default: chosen by leaving classes out)"
    )
    backbone(adapt)
    shared(adapt, "--cache", "--skip-unreadable", "--force", "--json", *EMBEDDING)


def add_options(add: argparse.ArgumentParser) -> None:
    """Define ``fewshot add``."""
    shared(add, "dir", "label", "images", "--unknown-label", "--skip-unreadable", "--json", *EMBEDDING)


def remove_options(remove: argparse.ArgumentParser) -> None:
    """Define ``fewshot remove``."""
    shared(remove, "dir", "label")
    remove.add_argument(
        "--images", nargs="+", metavar="IMAGES", help="remove only these images: their names when learned, or files"
    )
    shared(remove, "--json", *EMBEDDING)


def rename_options(rename: argparse.ArgumentParser) -> None:
    """Define ``fewshot rename``."""
    shared(rename, "dir", "label")
    rename.add_argument("new", metavar="NEW", help="the new label; must not be in use, except with --merge")
    rename.add_argument("--merge", action="store_true", help="give the images to the class NEW, if there is one")
    shared(rename, "--unknown-label", "--json", *EMBEDDING)


def merge_options(merge: argparse.ArgumentParser) -> None:
    """Define ``fewshot merge``."""
    merge.description = (
        "Add to the classifier in DIR everything that OTHERS have learned, as if it had seen their images. All must "
        "have the same network, preprocessing and learner."
    )
    shared(merge, "dir")
    merge.add_argument("others", nargs="+", metavar="OTHERS", help="more classifiers, which are not changed")
    merge.add_argument("--out", metavar="DIR", help="folder for the result (default: the first classifier)")
    shared(merge, "--force", "--unknown-label", "--json", *EMBEDDING)


def predict_options(predict: argparse.ArgumentParser) -> None:
    """Define ``fewshot predict``."""
    predict.description = (
        "Classify images. An image that cannot be read is reported on standard error, the others are answered, and the "
        "exit status is 1."
    )
    shared(predict, "dir", "images")
    predict.add_argument("--top", type=count, default=1, metavar="K", help="number of likeliest classes (default: 1)")
    predict.add_argument(
        "--coverage", type=number(0.01, 0.999), metavar="SHARE",
        help="answer also with a set of classes, which holds the right one for this share of images like the learned "
        "ones; none fits an unknown image; two images of a class are needed, and for 0.9 nine in all",
    )  # fmt: skip
    predict.add_argument(
        "--by-class", action="store_true", help="promise it for each class, from nine images on for 0.9"
    )
    predict.add_argument("--held-out", metavar="DATA", help="labelled images to base it on, instead of those learned")
    shared(predict, "--split", "--root")
    predict.add_argument(
        "--tiles",
        type=whole(8, 2**16),
        metavar="PX",
        help="answer overlapping squares of this side instead of whole pictures, each named after its place: "
        "picture#x,y,w,h",
    )
    report(predict, "pictures")
    shared(predict, *TABLES, *EMBEDDING)


def test_options(test: argparse.ArgumentParser) -> None:
    """Define ``fewshot test``."""
    test.description = (
        "Measure how good a classifier is on labelled images that it has not learned: accuracy with its 95 % interval, "
        "each class, and with --report the mistakes. Images of classes that it does not know are counted apart."
    )
    shared(test, "dir", "folder")
    shared(test, "--split", *COLUMNS, "--root", "--skip-unreadable")
    report(test, "pictures of the mistakes")
    shared(test, *TABLES, *EMBEDDING)


def show_options(show: argparse.ArgumentParser) -> None:
    """Define ``fewshot show``, and ``check`` and ``audit``, which have the same options."""
    shared(show, "dir")
    report(show, "pictures")
    shared(show, *TABLES, *EMBEDDING)


audit_options = check_options = show_options


def history_options(history: argparse.ArgumentParser) -> None:
    """Define ``fewshot history``."""
    history.description = (
        "List the last versions of a classifier: when each was made, by what, its classes and images. A folder keeps "
        "the hundred before the current one, up to 100 MB; each picture that is labelled on the page of fewshot serve "
        "is one."
    )
    shared(history, "dir")
    history.add_argument(
        "--clear", action="store_true", help="delete all but the current one, and with them what was removed from it"
    )
    shared(history, *TABLES)


def undo_options(undo: argparse.ArgumentParser) -> None:
    """Define ``fewshot undo``."""
    undo.description = (
        "Go back to the version from which the current one was made, or to any other. The current one is kept, too."
    )
    shared(undo, "dir")
    undo.add_argument("--to", type=whole(0, 10**9), metavar="N", help="a version of fewshot history")
    shared(undo, "--json")


def calibrate_options(calibrate: argparse.ArgumentParser) -> None:
    """Define ``fewshot calibrate``."""
    calibrate.description = (
        "On classes that are none of the classifier's, refine its probabilities, if that helps, and learn what is "
        "unknown. DATA holds six or more such classes, which the network was not trained on. --reject says which "
        "images are answered unknown from then on, and its cost is printed; --dry-run prints that alone. The default "
        "learner needs no DATA for --reject: each of its own classes in turn plays an unknown one."
    )
    shared(calibrate, "dir")
    calibrate.add_argument("data", metavar="DATA", nargs="?", help=_DATA)
    shared(calibrate, "--split", *COLUMNS, "--root", "--skip-unreadable")
    calibrate.add_argument(
        "--false-accepts", type=number(0, 99.9), metavar="PERCENT",
        help="percentage of unknown images that --reject auto accepts as known (default: that of the last calibration, "
        "or else 5)",
    )  # fmt: skip
    calibrate.add_argument(
        "--keep-answering", action="store_true", help="answer every image with a class, as if never told to --reject"
    )
    unknown(calibrate)
    calibrate.add_argument("--out", metavar="DIR", help="write the classifier there, and leave DIR as it is")
    calibrate.add_argument(
        "--dry-run", action="store_true", help="only print what it would cost and change; write no classifier"
    )
    calibrate.add_argument(
        "--clear", action="store_true", help="forget what calibrating has taught, and reject nothing"
    )
    calibrate.add_argument("--episodes", type=episodes, default=200, metavar="N", help="episodes to use (default: 200)")
    shared(calibrate, "--seed", "--force")
    report(calibrate, "figures")
    shared(calibrate, "--unknown-label", "--json", *EMBEDDING)


def unknown(command: argparse.ArgumentParser) -> None:
    """Add the options on what is unknown."""
    command.add_argument(
        "--reject", type=reject_of, metavar="RULE",
        help="which images are answered unknown: a percentage of unknown images to accept as known, such as 5; auto, "
        "that of the calibration, or else 5; balanced, which accepts as large a part of the unknown as it rejects of "
        "the known; none, which answers every image with a class",
    )  # fmt: skip
    command.add_argument("--none-of-these", metavar="FOLDER", help="images that are none of the classes")


def reject_of(text: str) -> str:
    """Return the value of `reject` that a text on the command line means.

    Raises
    ------
    ArgumentTypeError
        If it is neither a rule nor a percentage.
    """
    if text in ("auto", "balanced", "none"):
        return text
    try:
        return f"{number(0, 99.9)(text.removesuffix('%')):g}%"
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}; auto, balanced and none are possible too") from None
