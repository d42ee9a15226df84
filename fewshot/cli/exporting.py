"""The command ``fewshot export``: a classifier for devices without torch."""

from __future__ import annotations

import argparse
from typing import Any

from fewshot.cli.options import EMBEDDING, number, shared


def export_options(export: argparse.ArgumentParser) -> None:
    """Define ``fewshot export``."""
    export.description = (
        "Write a classifier for a device without torch: the network as ONNX, its preprocessing and what was learned. "
        "There, 'pip install fewshot-runtime' installs the command fewshot-runtime, which answers and learns. With "
        "--quantize int8 the network has a third of the size; it embeds the learned images again, and is refused if it "
        "costs accuracy on --gate. Needs the extra 'export'."
    )
    shared(export, "dir")
    export.add_argument("--out", required=True, metavar="DIR", help="folder for the device")
    export.add_argument("--quantize", choices=("int8",), help="weights and activations in 8 bits")
    export.add_argument(
        "--gate",
        metavar="DATA",
        help="for --quantize: 20 images of each of five or more classes that it has not learned",
    )
    export.add_argument(
        "--support", metavar="DATA",
        help="for --quantize: all images that it has learned (default: where they lay when they were learned)",
    )  # fmt: skip
    export.add_argument(
        "--max-loss", type=number(0, 1), default=0.01, metavar="SHARE",
        help="for --quantize: the largest accepted loss of accuracy (default: %(default)s)",
    )  # fmt: skip
    shared(export, "--force", "--json", *EMBEDDING)


def export(options: argparse.Namespace) -> int:
    """Write a classifier for devices."""
    from fewshot.cli.models import load
    from fewshot.cli.tables import finish
    from fewshot.images.exporting.folder import export as write_export
    from fewshot.persistence.artifact import is_artifact, refuse_others, size_of
    from fewshot.utils.text import counted

    if is_artifact(options.out) and not options.force:
        raise ValueError(f"{options.out} exists already; replace it with --force, or choose another --out")
    refuse_others(options.out, "export")
    options.unknown_label = None
    model = load(options)
    write_export(model, options.out, **_quantized(options, model))
    n, size = len(model.classes_), size_of(options.out)
    facts = {"written": options.out, "classes": n, "bytes": size, "quantize": options.quantize}
    finish(
        options,
        facts,
        f"{counted(n, 'class')}, {size / 1e6:.1f} MB; written to {options.out}",
        f"on the device: pip install fewshot-runtime; fewshot-runtime predict {options.out} IMAGES...",
    )
    return 0


def _quantized(options: argparse.Namespace, model: Any) -> dict[str, Any]:
    """Return the settings of an export in 8 bits; nothing for one that is not."""
    from fewshot.cli.inputs import open_data
    from fewshot.integrations.labels import require_files, taught

    if options.quantize is None:
        for name in ("gate", "support"):
            if getattr(options, name) is not None:
                raise ValueError(f"--{name} is for --quantize int8; leave it out")
        return {}
    if options.gate is None:
        raise ValueError(
            "--quantize int8 needs --gate, on which its accuracy is measured: a folder of five classes or more that "
            "were not learned, 20 images of each"
        )
    options.split = None
    if options.support is not None:
        support: Any = open_data(options.support, options)[0]
    else:
        tasks = taught(model)
        require_files(tasks, "give a folder of labelled images as --support")
        support = [task.path for task in tasks], [task.label for task in tasks]
    gate, _ = open_data(options.gate, options)
    return {"quantize": options.quantize, "support": support, "gate": gate, "max_loss": options.max_loss}
