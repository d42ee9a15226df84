"""The pages that follow from the code: reference, methods, command line, and tables of benchmarks."""

from __future__ import annotations

import importlib
import inspect
import json
import re
from pathlib import Path
from typing import Any

import fewshot
from fewshot import cli
from fewshot.learners.registry import learner_class, list_learners

Pages = dict[str, str]
#: The rooms whose public names make a part of the reference, and its title.
PARTS = {
    "images": "Images and other items",
    "classifiers": "Classifiers on embeddings",
    "learners": "Learners and their parts",
    "embedding": "Embeddings and networks",
    "data": "Data",
    "episodes": "Episodes and measuring",
    "training": "Meta-training",
    "benchmark": "Benchmarks",
    "retrieval": "Search and stores",
    "search": "Search in memory",
    "displays": "Displays",
}
#: Public modules whose names are not in `fewshot` itself, beside those that the code of pages imports from.
MODULES = [
    "fewshot.errors",
    "fewshot.integrations.haystack",
    "fewshot.integrations.label_formats",
    "fewshot.integrations.langchain",
    "fewshot.runtime",
]
#: Ancestors whose members are known from elsewhere.
OTHERS = "BaseEstimator, ClassifierMixin, TransformerMixin, Module, tuple, str, object, BaseException"
TABLES = {
    "methods_cifar_fs": "Accuracy on CIFAR-FS test classes, frozen `tf_efficientnet_lite0` at 96 px",
    "unbalanced": "Transductive learners on balanced, uneven and single queries, and on queries of one class",
    "few_classes": "Transductive learners where twenty classes are learned and queries are of five",
    "parameters": "What `temperature=None`, `centered` and `balanced` change, without → with",
    "methods": "Time of an episode, 5-way 1-shot",
}


def title(text: str, line: str = "=") -> str:
    """Return a heading of reStructuredText."""
    return f"{text}\n{line * len(text)}\n\n"


def described(module: str, name: str, with_members: bool = True) -> str:
    """Return the directive that shows the docstring of an object, and of its public members."""
    thing = getattr(importlib.import_module(module), name)
    kind = "class" if inspect.isclass(thing) else "function" if callable(thing) else "data"
    if inspect.isclass(thing) and issubclass(thing, BaseException):
        return f".. autoexception:: {module}.{name}\n\n"
    with_members = with_members and kind == "class"
    options = f"   :members:\n   :inherited-members: {OTHERS}\n" if with_members else ""
    return f".. auto{kind}:: {module}.{name}\n{options}\n"


def reference_pages(learners: dict[str, str], modules: set[str]) -> Pages:
    """Return a page of each public name that is no method with a page of its own, and of each public module."""
    pages: Pages = {}
    rooms: dict[str, list[str]] = {room: [] for room in PARTS}
    for name in sorted(fewshot._HOME, key=str.lower):
        place = learners.get(name) or f"reference/{name}"
        rooms.setdefault(fewshot._HOME[name].split(".")[0], []).append(place)
        if name not in learners:
            pages[f"{place}.rst"] = title(name) + described("fewshot", name)
    index = title("Python")
    for room, places in rooms.items():
        index += title(PARTS.get(room, room.capitalize()), "-") + listed(places, learners)
    modules = sorted({*MODULES, *modules})
    for module in modules:
        names = public_names(module)
        is_own = not module.endswith((".haystack", ".langchain"))  # members follow the framework, which is not here
        text = title(module) + inspect.cleandoc(importlib.import_module(module).__doc__ or "") + "\n\n"
        pages[f"reference/{module}.rst"] = text + "".join(described(module, name, is_own) for name in names)
    index += title("Modules", "-") + listed([f"reference/{module}" for module in modules], {})
    pages["reference/index.rst"] = index
    return pages


def listed(places: list[str], learners: dict[str, str]) -> str:
    """Return a table of pages that shows the first sentence of each, and puts them into the navigation."""
    toctree = ".. toctree::\n   :hidden:\n\n"
    table = ".. list-table::\n   :widths: 34 66\n\n"
    names = {place: name for name, place in learners.items()}
    for place in places:
        name = names.get(place) or place.split("/")[1]
        thing = importlib.import_module(name) if name.startswith("fewshot.") else getattr(fewshot, name)
        sentence = inspect.getdoc(thing).split("\n\n")[0].replace("\n", " ")
        table += f"   * - :doc:`{name} </{place}>`\n     - {sentence}\n"
        toctree += "" if name in learners else f"   {name} </{place}>\n"
    return table + "\n" + toctree + "\n"


def public_names(module: str) -> list[str]:
    """Return what a module offers: what it lists, else what it defines or takes from its neighbours."""
    thing = importlib.import_module(module)
    if hasattr(thing, "__all__"):
        return list(thing.__all__)
    room = module.rsplit(".", 1)[0]
    named = {name: value for name, value in vars(thing).items() if not name.startswith("_")}
    return [
        name
        for name, value in named.items()
        if callable(value) and str(getattr(value, "__module__", "")).startswith(room) and inspect.getdoc(value)
        if module != "fewshot.errors" or inspect.isclass(value)
    ]


def method_pages(results: Path) -> tuple[Pages, dict[str, str]]:
    """Return the page of each method, and the place of each class that has one."""
    pages: Pages = {}
    places: dict[str, str] = {}
    rows = {name: (results / f"{name}.md").read_text(encoding="utf-8") for name in TABLES}
    for name in list_learners():
        learner: Any = learner_class(name)
        if not learner.__module__.startswith("fewshot."):
            continue
        places[learner.__name__] = f"methods/{name}"
        definition = described("fewshot", learner.__name__, with_members=False)
        pages[f"methods/{name}.rst"] = title(name) + facts(name, learner) + definition + measured(name, rows)
    return pages, places


def facts(name: str, learner: Any) -> str:
    """Return how a method is named in commands and in Python, and of what kind it is."""
    from fewshot.learners.registry import _ALIASES  # the names that papers use

    aliases = [alias for alias, main in _ALIASES.items() if main == name]
    kind = "transductive: all queries of a call are answered together" if learner.transductive else "inductive"
    named = learner.__name__.replace("Learner", "Classifier")
    estimator = named if named in fewshot.__all__ else None
    lines = [
        ("On the command line", f"``--learner {name}``" + "".join(f", ``{alias}``" for alias in aliases)),
        ("Kind", kind + ("; its weights are meta-trained first" if learner.learned else "")),
        ("In scikit-learn", f":doc:`/reference/{estimator}`" if estimator else _other_estimator(name, learner)),
    ]
    return ".. rst-class:: facts\n\n" + "".join(f":{key}: {value}\n" for key, value in lines) + "\n"


def _other_estimator(name: str, learner: Any) -> str:
    if learner.transductive:
        return f':doc:`/reference/TransductiveClassifier`, ``TransductiveClassifier("{name}")``'
    trained = f"``FewShotClassifier(learner)``, given a trained ``{learner.__name__}``"
    return trained if learner.learned else f':doc:`/reference/FewShotClassifier`, ``FewShotClassifier("{name}")``'


def measured(name: str, tables: dict[str, str]) -> str:
    """Return the rows of a method in the tables of benchmarks."""
    text = ""
    for table, caption in TABLES.items():
        head, rows = rows_of(name, tables[table])
        if rows:
            caption = caption.replace("`", "``")
            text += f".. list-table:: {caption}; all rows: :doc:`/benchmarks/results/{table}`\n   :header-rows: 1\n\n"
            for row in (head, *rows):
                text += "".join(f"   {'*' if not i else ' '} - {cell}\n" for i, cell in enumerate(row))
            text += "\n"
    return title("Measured", "-") + text if text else ""


def rows_of(name: str, text: str) -> tuple[list[str], list[list[str]]]:
    """Return the head of the first table of a text, and its rows of a method."""
    lines = text.split("\n\n")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    starts = re.compile(rf"{re.escape(name)}($|[ ,(])")
    return cells[0], [row for row in cells[2:] if any(starts.match(cell) for cell in row[:2])]


def command_pages() -> Pages:
    """Return the page of each command, as its parser describes it."""
    top = cli.make_parser()
    parsers = next(action for action in top._actions if isinstance(action.choices, dict)).choices
    index = f"# Command line\n\n```text\n{top.format_help().strip()}\n```\n\n```{{toctree}}\n:maxdepth: 1\n\n"
    pages: Pages = {}
    for name, parser in parsers.items():
        parser.define()
        pages[f"cli/{name}.md"] = command_page(name, parser)
    pages["cli/index.md"] = index + "".join(f"{name}\n" for name in parsers) + "```\n"
    return pages


def command_page(name: str, parser: Any) -> str:
    """Return the usage of a command, its options by purpose, and an example."""
    text = f"# fewshot {name}\n\n{parser.description}\n\n```text\n{parser.format_usage().strip()}\n```\n"
    for purpose, actions in parser.sections().items():
        text += f"\n## {purpose.capitalize()}\n\n" + "\n".join(option(parser, action) for action in actions)
    text += f"\n```text\n{parser.epilog.strip()}\n```\n" if parser.epilog else ""
    return f"{text}\n## Example\n\n```sh\n{cli.commands.COMMANDS[name].example}\n```\n"


def option(parser: Any, action: Any) -> str:
    """Return an option as a term and its definition."""
    formatter = parser._get_formatter()
    called = formatter._format_action_invocation(action)
    help_ = formatter._expand_help(action) if action.help else ""
    return f"`{called}`\n: {escaped(help_)}\n"


def escaped(text: str) -> str:
    """Return text whose signs mean nothing in Markdown."""
    return re.sub(r"([\\`*_{}\[\]<>#|$])", r"\\\1", " ".join(text.split()))


def result_pages(results: Path) -> Pages:
    """Return a page of each table of benchmarks, with the command that wrote it."""
    pages: Pages = {}
    for table in sorted(results.glob("*.md")):
        manifest = json.loads(table.with_suffix(".json").read_text(encoding="utf-8")).get("manifest", {})
        command = f"```bash\n{manifest['command']}\n```\n\n" if "command" in manifest else ""
        text = table.read_text(encoding="utf-8")
        pages[f"benchmarks/results/{table.name}"] = f"# {table.stem.replace('_', ' ').capitalize()}\n\n{command}{text}"
    return pages
