"""``fewshot learners`` and ``backbones``: what there is, one line each; and ``completion`` of words in a shell."""

from __future__ import annotations

import argparse
import ast
import os
from collections.abc import Iterator
from importlib import resources
from importlib.metadata import entry_points
from typing import Any

from fewshot.cli.options import TABLES, shared

#: Networks with short names or with weights that need no download; any other timm network works, too.
BACKBONES = {
    "tf_efficientnet_lite0": ("extra offline", "the default: ImageNet, 224 px, 3.4 million weights, 1280 numbers"),
    "tf_efficientnet_lite1": ("extra offline", "ImageNet, 240 px, 4.1 million weights, 1280 numbers"),
    "tf_efficientnet_lite2": ("extra offline", "ImageNet, 260 px, 4.8 million weights, 1280 numbers"),
    "conv4": ("none: train it", "the small network of the papers, for images of 28 to 84 px"),
    "resnet12": ("none: train it", "the larger network of the papers, for images of 84 px"),
    "clip-base": ("hub", "CLIP, images and captions; ViT-B/32 at 224 px"),
    "clip-large": ("hub", "CLIP, images and captions; ViT-L/14 at 224 px"),
    "siglip-base": ("hub", "SigLIP, images and captions; ViT-B/16 at 224 px"),
    "siglip2-base": ("hub", "SigLIP 2, images and captions; ViT-B/16 at 224 px"),
    "dinov2-small": ("hub", "DINOv2, images alone; ViT-S/14 at 518 px, or --size"),
    "dinov2-base": ("hub", "DINOv2, images alone; ViT-B/14 at 518 px, or --size"),
    "dinov2-large": ("hub", "DINOv2, images alone; ViT-L/14 at 518 px, or --size"),
    "dinov3-small": ("hub", "DINOv3, images alone; ViT-S/16; a licence of its own"),
    "dinov3-base": ("hub", "DINOv3, images alone; ViT-B/16; a licence of its own"),
    "dinov3-convnext": ("hub", "DINOv3, images alone; ConvNeXt-T; a licence of its own"),
}
#: What a shell completes with names of folders, and of files.
_FOLDERS, _FILES = ("DIR", "FOLDER"), ("FILE", "IMAGES", "DATA", "TABLE", "GRID", "CSV", "ZIP", "TARGZ", "CHECKPOINT")


def learners_options(learners: argparse.ArgumentParser) -> None:
    """Define ``fewshot learners``."""
    learners.description = "List the methods for --learner, also those of installed plug-ins and of --plugin."
    shared(learners, *TABLES)


def backbones_options(backbones: argparse.ArgumentParser) -> None:
    """Define ``fewshot backbones``."""
    backbones.description = (
        "List networks for --backbone, and where their weights come from. Any timm name works, too, and "
        "hf-hub:OWNER/NAME, local-dir:PATH and a checkpoint of fewshot train (--from)."
    )
    shared(backbones, *TABLES)


def completion_options(completion: argparse.ArgumentParser) -> None:
    """Define ``fewshot completion``."""
    completion.description = (
        "Print a script that completes commands, options and file names. Put it where the shell looks, such as "
        "~/.local/share/bash-completion/completions/fewshot for bash. Needs the extra 'completion'."
    )
    completion.add_argument("shell", choices=("bash", "zsh", "tcsh"), help="the shell")


def learners(options: argparse.Namespace) -> int:
    """List the methods."""
    from fewshot.cli.tables import give

    rows = {name: (also, about) for name, also, about in _built_in()}
    for name, about in _plugged_in(rows):
        rows[name] = ("", about)
    give([{"learner": name, "also": also, "about": about} for name, (also, about) in sorted(rows.items())], options)
    return 0


def backbones(options: argparse.Namespace) -> int:
    """List the networks."""
    from fewshot.cli.tables import give

    give(
        [{"backbone": name, "weights": weights, "about": about} for name, (weights, about) in BACKBONES.items()],
        options,
    )
    return 0


def completion(options: argparse.Namespace) -> int:
    """Print the script of a shell."""
    from fewshot.cli.parser import make_parser
    from fewshot.cli.terminal import put
    from fewshot.errors import missing

    try:
        import shtab
    except ImportError:
        raise missing("shtab is missing, which writes completions", "completion") from None
    parser = make_parser()
    for command in _commands_of(parser):
        if hasattr(command, "define"):
            command.define()
        for action in command._actions:
            kinds: Any = {**dict.fromkeys(_FOLDERS, shtab.DIRECTORY), **dict.fromkeys(_FILES, shtab.FILE)}
            if action.choices is None and action.metavar in kinds:
                action.complete = kinds[action.metavar]  # type: ignore[attr-defined]  # shtab looks there
    put(shtab.complete(parser, options.shell))
    return 0


def _commands_of(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.values()


def _built_in() -> Iterator[tuple[str, str, str]]:
    """Yield name, other names and purpose of each method of the package, read from its source: torch takes a second."""
    for file in resources.files("fewshot.learners").iterdir():
        if not file.name.endswith(".py"):
            continue
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.ClassDef):
                continue
            for call in node.decorator_list:
                if isinstance(call, ast.Call) and ast.unparse(call.func) == "register_learner":
                    name, *also = map(ast.literal_eval, call.args)
                    yield name, ", ".join(also), _first_line(ast.get_docstring(node))


def _plugged_in(known: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield name and purpose of the methods of plug-ins, for which they are imported."""
    if not (os.environ.get("FEWSHOT_PLUGINS") or entry_points(group="fewshot.learners")):
        return
    from fewshot.learners.registry import learner_class, list_learners

    for name in list_learners():
        if name not in known:
            yield name, _first_line(learner_class(name).__doc__)


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0].replace("``", "").removesuffix(".")
