"""The command ``fewshot adapt``: meta-learning in closed form."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from fewshot.cli.inputs import list_paths, open_data, refuse_of_labelled
from fewshot.cli.models import make_embedder
from fewshot.cli.tables import finish
from fewshot.images.adapt import adapt as adapt_embedder
from fewshot.utils.text import counted


def adapt(options: argparse.Namespace) -> int:
    """Adapt embeddings to a domain and write it."""
    out = Path(options.out)
    if out.is_dir():
        raise ValueError(f"--out {out} is a folder; expected a file, such as {out / 'domain.safetensors'}")
    if out.exists() and not options.force:
        raise ValueError(f"{out} exists; replace it with --force, or choose another --out")
    if options.unlabelled:
        refuse_of_labelled(options, [options.data])
    on_error = "skip" if options.skip_unreadable else "raise"
    embedder = make_embedder(options).set_params(on_error=on_error)
    _ = embedder.network  # fail now, not after scanning a folder of images
    data: Any = (
        list_paths([options.data], True, options.root) if options.unlabelled else open_data(options.data, options)[0]
    )
    start = time.perf_counter()
    domain = adapt_embedder(embedder, data, shrinkage=options.shrinkage).domain
    domain.save(out)
    what = f" of {counted(domain.n_classes, 'class')}" if domain.n_classes else ", unlabelled"
    accuracy = (
        ""
        if domain.accuracy is None
        else (f"; estimated 5-way 1-shot accuracy on left-out classes {100 * domain.accuracy:.1f} %")
    )
    facts = {"domain": str(out), "images": domain.n_items, "classes": domain.n_classes,
             "shrinkage": domain.shrinkage, "accuracy": domain.accuracy}  # fmt: skip
    finish(
        options,
        facts,
        f"adapted to {counted(domain.n_items, 'image')}{what} in {time.perf_counter() - start:.1f} s",
        f"shrinkage {domain.shrinkage:g}{accuracy}",
        f"written to {out}; now: fewshot fit FOLDER --out DIR --domain {out}",
    )
    return 0
