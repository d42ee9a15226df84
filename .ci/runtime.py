"""Write the source of fewshot-runtime, the distribution for devices, to a folder: python .ci/runtime.py build/runtime.

It holds the room `fewshot.runtime` and all that it imports, at any depth, unchanged. `make wheels` builds it.
"""

import ast
import configparser
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: What devices need, with the lowest versions of setup.cfg.
NEEDED = ("numpy", "Pillow", "onnxruntime", "filelock")
KEPT = ("author", "license", "license_files", "long_description_content_type")
ABOUT = "Few-shot classification on devices: answers and learns new classes without torch"
README = """# fewshot-runtime

Answers and learns with a classifier that `fewshot.export` has written, without torch: numpy, Pillow, onnxruntime and
filelock only.

```bash
fewshot-runtime predict device new1.jpg
fewshot-runtime add device heron heron1.jpg heron2.jpg
```

It is part of fewshot-learn, which needs torch and makes such classifiers. Install one of the two, not both: they share
files.
"""


def modules() -> set[Path]:
    """Return the files of the room, and of all that they import from the package."""
    found: set[Path] = set()
    waiting = [f"fewshot.runtime.{path.stem}" for path in (ROOT / "fewshot" / "runtime").glob("*.py")]
    waiting += ["fewshot", "fewshot._version"]
    while waiting:
        name = waiting.pop()
        path = ROOT.joinpath(*name.split("."))
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if path.exists() and path not in found:
            found.add(path)
            waiting += [name.rpartition(".")[0], *([] if name == "fewshot" else imports(path))]
    return found


def imports(path: Path) -> Iterator[str]:
    """Yield the names that a file imports from the package; some are of functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fewshot"):
            yield from (str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names))


def metadata() -> str:
    """Return the setup.cfg of the distribution."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = (setup["options"]["install_requires"] + setup["options.extras_require"]["runtime"]).splitlines()
    needed = sorted({line for line in lines if re.match(r"[\w-]*", line)[0] in NEEDED})
    about = {name: setup["metadata"][name] for name in KEPT} | {
        "name": "fewshot-runtime", "version": "attr: fewshot._version.__version__", "description": ABOUT,
        "long_description": "file: README.md", "keywords": setup["metadata"]["keywords"],
        "classifiers": setup["metadata"]["classifiers"],
    }  # fmt: skip
    parts = {
        "metadata": about,
        "options": {"packages": "find:", "python_requires": setup["options"]["python_requires"],
                    "install_requires": "\n" + "\n".join(needed)},
        "options.packages.find": {"include": "fewshot*"},
        "options.package_data": {"fewshot": "py.typed"},
        "options.entry_points": {"console_scripts": "\nfewshot-runtime = fewshot.runtime.command:main"},
    }  # fmt: skip
    text = ""
    for name, values in parts.items():
        text += f"[{name}]\n"
        text += "".join(f"{key} = {value}\n".replace("\n", "\n    ").rstrip(" ") for key, value in values.items())
    return text


def main(place: Path) -> None:
    """Write the source to a folder, in place of what was there."""
    shutil.rmtree(place, ignore_errors=True)
    for path in [*modules(), ROOT / "fewshot" / "py.typed", ROOT / "LICENSE", ROOT / "pyproject.toml"]:
        target = place / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    (place / "setup.cfg").write_text(metadata(), encoding="utf-8")
    (place / "README.md").write_text(README, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
