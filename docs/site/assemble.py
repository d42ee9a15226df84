"""Gather the pages of the documentation for Sphinx: ``python docs/site/assemble.py OUT``; see `make docs`.

Pages that people write are in ``docs/`` and at the top of the repository, where they also read well as plain Markdown.
The others follow from the code: the reference from docstrings, the command line from its parsers, the methods from the
registry, and the tables of benchmarks from ``benchmarks/results``.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

from generated import command_pages, method_pages, reference_pages, result_pages

ROOT = Path(__file__).parents[2]
OTHERS = "How do I ..."
#: The sections of the site and their pages; others of docs/ follow in `OTHERS`, those of a folder below its index.
SECTIONS = {
    "Start": ["start", "demonstration", "concepts", "glossary"],
    OTHERS: [
        "photographs",
        "accuracy",
        "unknown",
        "uneven",
        "crops",
        "networks",
        "label",
        "service",
        "archive",
        "text",
        "notebooks",
        "embeddings",
        "many-classes",
        "devices",
        "training",
        "cluster",
        "folders",
        "security",
    ],
    "Worked examples": ["gallery/index"],
    "Methods": ["methods", "extend"],
    "Reference": ["parts", "reference/index", "cli/index", "command-line", "guarantees"],
    "Project": ["benchmarks/index", "contributing", "changelog"],
}
#: Pages that lie elsewhere in the repository, or under another name.
ELSEWHERE = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks/index.md",
    "README.md": "index.md",
}


def sources() -> dict[str, str]:
    """Return the file of each page that people write, and its place in the site."""
    docs = ROOT / "docs"
    paths = sorted([*docs.glob("*.md"), *docs.glob("gallery/*.md")])
    return {**ELSEWHERE, **{path.relative_to(ROOT).as_posix(): path.relative_to(docs).as_posix() for path in paths}}


def sections() -> dict[str, list[str]]:
    """Return the pages of each section, with those of docs/ that no section names."""
    named = {page for pages in SECTIONS.values() for page in pages} | {"index"}
    places = [place.removesuffix(".md") for place in sources().values()]
    rest = [place for place in places if place not in named and ("/" not in place or place.endswith("/index"))]
    return {caption: pages + (rest if caption == OTHERS else []) for caption, pages in SECTIONS.items()}


def assemble(out: Path) -> None:
    """Write all pages to a folder and remove others; what has not changed is left, and Sphinx reads it no more."""
    pages = {}
    results = result_pages(ROOT / "benchmarks" / "results")
    places = {**sources(), **{name: name for name in results}}
    for source, place in places.items():
        if source != "README.md":
            text = results.get(place) or (ROOT / source).read_text(encoding="utf-8")
            pages[place] = relinked(text, source, places) + script(place)
    code = "".join(block for text in pages.values() for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    imported = set(re.findall(r"^from (fewshot\.[\w.]+) import", code, re.MULTILINE))
    methods, learners = method_pages(ROOT / "benchmarks" / "results")
    for made in (methods, reference_pages(learners, imported), command_pages()):
        pages.update(made)
    pages["index.md"] = front(pages["index.md"])
    pages["methods.md"] += contents("Methods one by one", sorted(methods))
    pages["benchmarks/index.md"] += contents("All tables", sorted(results))
    if "gallery/index.md" in pages:
        examples = [place for place in pages if place.startswith("gallery/") and place != "gallery/index.md"]
        pages["gallery/index.md"] += toctree(examples)
    for path in [*out.rglob("*.md"), *out.rglob("*.rst")]:
        if path.relative_to(out).as_posix() not in pages:
            path.unlink()
    for place, text in pages.items():
        path = out / place
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    files = {}
    pictures = (ROOT / "docs").glob("**/*.webp")
    for path in [path for path in pictures if "_build" not in path.parts]:
        files[path.relative_to(ROOT).as_posix()] = path.relative_to(ROOT / "docs").as_posix()
    files.update((file, file) for file in linked_files(places))
    for file, place in files.items():
        (out / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, out / place)


def relinked(text: str, source: str, places: dict[str, str]) -> str:
    """Let links between files of the repository lead to the pages of the site; drop those that lead to no page."""
    folder, here = Path(source).parent, Path(places[source]).parent

    def link(match: re.Match[str]) -> str:
        words, target, anchor = match[1], match[2], match[3] or ""
        if re.match(r"https?:", target):
            return match[0]
        file = os.path.normpath(folder / target)
        if file in places:
            return f"[{words}]({os.path.relpath(places[file], here)}{anchor})"
        if (ROOT / file).is_file() and not file.startswith("docs/"):
            return f"[{words}]({os.path.relpath(file, here)})"
        return match[0] if target.endswith(".webp") else words

    def table(match: re.Match[str]) -> str:
        place = places.get(match[1])
        return f"[{Path(match[1]).stem}]({os.path.relpath(place, here)})" if place else match[0]

    text = re.sub(r"(?<!!)\[([^\[\]]+)\]\(([^)#\s]+)(#[^)]*)?\)", link, text)
    return re.sub(r"(?<!/)`(benchmarks/results/\w+\.md)`", table, text)


def script(place: str) -> str:
    """Return the script of a page of the gallery as a section; nothing for other pages."""
    path = ROOT / "examples" / f"{Path(place).stem}.py"
    if not place.startswith("gallery/") or not path.exists():
        return ""
    return f"\n## The whole script\n\n```python\n{path.read_text(encoding='utf-8')}```\n"


def linked_files(places: dict[str, str]) -> set[str]:
    """Return the files of the repository that pages link to and that are no pages, such as scripts."""
    found = set()
    for source in places:
        text = (ROOT / source).read_text(encoding="utf-8")
        targets = re.findall(r"(?<!!)\[[^\[\]]+\]\(([^)#\s:]+)\)", text)
        found |= {os.path.normpath(Path(source).parent / target) for target in targets} - places.keys()
    return {file for file in found if (ROOT / file).is_file() and not file.startswith("docs/")}


def front(text: str) -> str:
    """Return the first page, with its lists as cards and the contents of the site."""
    text = re.sub(r"\n\n(?=- \*\*)", "\n\n{.cards}\n", text)
    for caption, pages in sections().items():
        text += toctree(pages, caption=caption)
    return text


def contents(title: str, places: list[str]) -> str:
    """Return a section that lists pages."""
    return f"\n## {title}\n" + toctree(places, hidden=False)


def toctree(pages: list[str], caption: str = "", hidden: bool = True) -> str:
    """Return the directive that gives pages their place in the navigation."""
    options = (f":caption: {caption}\n" if caption else "") + (":hidden:\n" if hidden else "") + ":maxdepth: 1\n"
    return (
        "\n```{toctree}\n"
        + options
        + "\n"
        + "".join(f"/{page.removesuffix('.md').removesuffix('.rst')}\n" for page in pages)
        + "```\n"
    )


if __name__ == "__main__":
    assemble(Path(sys.argv[1]))
