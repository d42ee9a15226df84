"""The commands on what to label: ``fewshot suggest``."""

from __future__ import annotations

import argparse
from typing import Any

from fewshot.cli.options import TABLES, backbone, count, report, seed, shared


def suggest_options(suggest: argparse.ArgumentParser) -> None:
    """Define ``fewshot suggest``."""
    suggest.description = (
        "Choose the images of FOLDER to label next, the best first. They cover the folder, and first of all what the "
        "classifier in DIR is unsure of. Without DIR, nothing is labelled yet, and the options of fewshot fit choose "
        "the network. Images that were learned already and copies are left out."
    )
    suggest.add_argument("dir", nargs="?", metavar="DIR", help="a classifier")
    suggest.add_argument("folder", metavar="FOLDER", help="images without labels, in folders of any depth")
    suggest.add_argument("-k", type=count, default=20, metavar="K", help="how many (default: %(default)s)")
    known = ("uncertainty-herding", "herding", "typiclust", "probcover", "k-center", "margin", "entropy", "random")
    suggest.add_argument("--strategy", choices=known, default=known[0], help="how to choose (default: %(default)s)")
    suggest.add_argument("--seed", type=seed, default=0, help="seed of random choices (default: %(default)s)")
    backbone(suggest)
    report(suggest, "pictures")
    shared(suggest, "--cache", *TABLES, "--device", "--max-pixels", "--quiet")


def suggest(options: argparse.Namespace) -> int:
    """Choose the images to label next; exit with 1 if some could not be read."""
    from fewshot.cli.models import list_paths, load, make_embedder
    from fewshot.cli.tables import give, is_piped
    from fewshot.cli.terminal import say
    from fewshot.images.image_classifier import FewShotImageClassifier
    from fewshot.images.suggesting.page import write_suggestions

    paths = list_paths([options.folder], skip_unreadable=True)
    if options.dir is None:
        model = FewShotImageClassifier(make_embedder(options))
    else:
        model = load(options)
        model.embedder_.set_params(cache=options.cache)
    model.set_params(on_error="skip")
    found = model.suggest(paths, options.k, strategy=options.strategy, seed=options.seed)
    rows: list[dict[str, Any]] = [
        {"image": one.id, "answer": "" if one.label is None else one.label, "probability": one.probability,
         "score": one.score, "why": one.reason}
        for one in found
    ]  # fmt: skip
    give(rows, options)
    if options.report:
        write_suggestions(options.report, found)
    if not is_piped(options):
        say("", f"{len(found)} of {len(paths)} images to label next")
        if options.report:
            say(f"pictures: {options.report}")
    return 0
