"""The commands, by purpose: their modules, what they are for, and an example of each."""

from __future__ import annotations

from typing import NamedTuple


class Command(NamedTuple):
    """A command: the module of its function ``NAME_options``, the module of its function ``NAME``, help, an example."""

    options: str
    module: str
    help: str
    example: str


#: By purpose, in the order of ``--help``.
GROUPS = {
    "teach a classifier": {
        "fit": Command(
            "options", "models", "learn the classes of a folder of images", "fewshot fit photos --out model"
        ),
        "add": Command(
            "options", "models", "add images of a class, known or new", "fewshot add model heron heron1.jpg heron2.jpg"
        ),
        "remove": Command("options", "saved", "remove a class, or some of its images", "fewshot remove model heron"),
        "rename": Command("options", "saved", "give a class another label", "fewshot rename model heron egret"),
        "merge": Command("options", "models", "merge several classifiers into one", "fewshot merge model other"),
        "history": Command("options", "versions", "list the last versions of a classifier", "fewshot history model"),
        "undo": Command("options", "versions", "go back to an earlier version", "fewshot undo model"),
        "show": Command("options", "saved", "show classes, images, backbone and size", "fewshot show model"),
    },
    "use it": {
        "predict": Command("options", "models", "classify images", "fewshot predict model new1.jpg --top 3"),
        "serve": Command(
            "serving", "serving", "a page and an HTTP API to teach, try and correct", "fewshot serve model --open"
        ),
        "annotate": Command(
            "retrieval_options",
            "retrieval",
            "label a folder of any size: a table of labels and vectors",
            "fewshot annotate archive --model model --out archive.parquet",
        ),
        "search": Command(
            "retrieval_options",
            "retrieval",
            "find similar images in a table of annotate",
            "fewshot search archive.parquet new1.jpg --model model",
        ),
        "export": Command(
            "exporting", "exporting", "write it for a device without torch", "fewshot export model --out device"
        ),
    },
    "trust it": {
        "test": Command(
            "options", "trust", "measure how good it is on labelled images", "fewshot test model others --report t.html"
        ),
        "check": Command(
            "options", "trust", "estimate how good it will be, from its own images", "fewshot check model"
        ),
        "calibrate": Command(
            "options", "saved", "recognise unknown images; refine probabilities", "fewshot calibrate model --reject 5"
        ),
        "audit": Command("options", "trust", "list images with doubtful labels, and duplicates", "fewshot audit model"),
    },
    "label images": {
        "suggest": Command(
            "labelling", "labelling", "choose the images to label next", "fewshot suggest model unlabelled -k 20"
        ),
        "export-labels": Command(
            "labelling",
            "labelling",
            "write images for Label Studio, FiftyOne, a table or folders",
            "fewshot export-labels unlabelled --model model --format label-studio --out tasks.json",
        ),
        "import-labels": Command(
            "labelling",
            "labelling",
            "read what was labelled there",
            "fewshot import-labels labelled.json --out table.csv",
        ),
    },
    "look up": {
        "learners": Command("listing", "listing", "list the methods for --learner", "fewshot learners"),
        "backbones": Command("listing", "listing", "list networks for --backbone", "fewshot backbones --json -"),
        "completion": Command(
            "listing", "listing", "a script that completes words in bash, zsh or tcsh", "fewshot completion bash"
        ),
    },
    "train and compare": {
        "adapt": Command(
            "options",
            "adapting",
            "adapt to a domain, given other classes of it, in seconds",
            "fewshot adapt others --out domain.safetensors",
        ),
        "train": Command(
            "training_options",
            "training",
            "meta-train a network on many small learning tasks",
            "fewshot train data/omniglot --out runs/omniglot",
        ),
        "evaluate": Command(
            "training_options",
            "evaluating",
            "measure accuracy on episodes of unseen classes",
            "fewshot evaluate data/omniglot --from runs/omniglot/best.safetensors",
        ),
        "bench": Command(
            "bench", "bench", "compare learners, data sets and backbones", "fewshot bench quick --out bench/quick"
        ),
        "data": Command(
            "data",
            "data",
            "prepare data: Omniglot, CIFAR-FS, FC100, or a folder",
            "fewshot data omniglot --out data/omniglot",
        ),
        "demo": Command(
            "demo.command", "demo.command", "train, learn new classes, look them up: a report", "fewshot demo"
        ),
    },
}
COMMANDS = {name: command for group in GROUPS.values() for name, command in group.items()}
