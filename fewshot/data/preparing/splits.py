"""The classes of each split: those that papers have published, or a list of your own."""

from __future__ import annotations

import json
from hashlib import sha256
from importlib import resources
from itertools import chain
from pathlib import Path

from fewshot.errors import UnknownNameError

#: Splits in order of priority: a copy in a later split is kept.
SPLITS = ("train", "val", "test")
#: Published lists of fine classes of CIFAR-100: by Bertinetto et al. (2019), and by Oreshkin et al. (2018).
OF_CIFAR = {"cifar-fs": "cifar_fs.json", "fc100": "fc100.json"}
#: Lists of characters of Omniglot, and how many of them the random one has for validation and for testing.
OF_OMNIGLOT = ("vinyals", "random")
N_VAL, N_TEST = 50, 423
#: Turns of a drawing of Omniglot, in degrees; each is a class of its own.
ROTATIONS = (0, 90, 180, 270)


def cifar_splits(source: str | Path = "cifar-fs") -> dict[str, list[str]]:
    """Return the classes of CIFAR-100 in each split.

    Parameters
    ----------
    source : str or path, default="cifar-fs"
        ``"cifar-fs"``, ``"fc100"``, or a list of your own, see `read_splits`.

    Examples
    --------
    >>> {split: len(classes) for split, classes in cifar_splits("fc100").items()}
    {'train': 60, 'val': 20, 'test': 20}
    """
    if source in OF_CIFAR:
        text = _bundled(OF_CIFAR[str(source)])
        return {split: list(names) for split, names in json.loads(text).items()}
    if not Path(source).suffix and not Path(source).exists():
        raise UnknownNameError("list of splits", str(source), OF_CIFAR)
    return read_splits(source)


def omniglot_splits(source: str | Path = "vinyals") -> dict[str, list[str]]:
    """Return the classes of Omniglot in each split, such as ``Angelic/character01/rot090``.

    Parameters
    ----------
    source : str or path, default="vinyals"
        ``"vinyals"``: the lists of Vinyals et al. (2016), which all 1,623 characters in four turns make. ``"random"``:
        1,150 characters for training, 50 for validation and 423 for testing, drawn at random as for MAML++ (Antoniou
        et al. 2019, arXiv:1810.09502); always the same, and never testing on characters that validate in the other
        lists, by which recipes were chosen. Or a list of your own, see `read_splits`.

    Examples
    --------
    >>> {split: len(classes) for split, classes in omniglot_splits().items()}
    {'train': 4112, 'val': 688, 'test': 1692}
    """
    if source not in OF_OMNIGLOT:
        if not Path(source).suffix and not Path(source).exists():
            raise UnknownNameError("list of splits", str(source), OF_OMNIGLOT)
        return read_splits(source)
    characters = {
        split: [
            f"{alphabet}/character{number:02d}"
            for alphabet, given in alphabets.items()
            for number in (range(1, given + 1) if isinstance(given, int) else given)
        ]
        for split, alphabets in json.loads(_bundled("omniglot.json")).items()
    }
    if source == "random":
        characters = _drawn(characters)
    return {s: [f"{name}/rot{turn:03d}" for name in names for turn in ROTATIONS] for s, names in characters.items()}


def _drawn(characters: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return the characters in an order that no release of a library changes, split in the sizes of MAML++."""
    order = sorted(chain(*characters.values()), key=lambda name: sha256(name.encode()).digest())
    seen = set(characters["val"])
    test = [name for name in order if name not in seen][:N_TEST]
    chosen = set(test)
    rest = [name for name in order if name not in chosen]
    return {"train": rest[N_VAL:], "val": rest[:N_VAL], "test": test}


def _bundled(name: str) -> str:
    return resources.files("fewshot.data").joinpath("splits", name).read_text(encoding="utf-8")


def read_splits(source: str | Path) -> dict[str, list[str]]:
    """Read the published classes of train, val and test.

    Parameters
    ----------
    source : path
        A JSON file with three lists, or a folder of ``train.txt``, ``val.txt`` and ``test.txt`` with a class per line.

    Raises
    ------
    ValueError
        If the source is neither, or a class is in two splits.
    """
    path = Path(source)
    try:
        if path.is_dir():
            splits = {s: _lines(path / f"{s}.txt") for s in SPLITS}
        else:
            loaded = json.loads(path.read_text(encoding="utf-8"))
            splits = {s: _names(s, loaded[s]) for s in SPLITS}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} cannot be read as splits ({error}); expected a JSON file with the lists train, val and test, or a "
            "folder of train.txt, val.txt and test.txt"
        ) from None
    seen: dict[str, str] = {}
    for split, classes in splits.items():
        for name in classes:
            if name in seen:
                raise ValueError(f"{path} has the class {name!r} in {seen[name]} and in {split}; list each class once")
            seen[name] = split
    return splits


def _lines(path: Path) -> list[str]:
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def _names(split: str, given: object) -> list[str]:
    if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
        raise ValueError(f"{split} is not a list of class names")
    return given
