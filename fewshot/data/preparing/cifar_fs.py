"""CIFAR-FS and FC100: from the official CIFAR-100 archive (binary version) to one array and one table.

The splits decide which of the two it becomes: CIFAR-FS draws fine classes, FC100 keeps superclasses together.
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fewshot.data.preparing.common import check_total, finish
from fewshot.persistence.files import digest
from fewshot.utils.text import counted

URL = "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"
SHA256 = "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec"
#: Bytes of a record: coarse label, fine label, and 32 x 32 pixels in one plane per colour.
RECORD = 2 + 3 * 32 * 32
CLASSES, IMAGES = 100, 600


def prepare(
    archive: Path,
    splits: dict[str, list[str]],
    out: str | Path,
    *,
    n_classes: int = CLASSES,
    n_images: int = IMAGES,
    say: Callable[[str], object] = lambda line: None,
) -> None:
    """Read the records, check that none is missing, and write those of the classes in the splits."""
    names, records, paths = _records(archive)
    check_total("classes", len(names), n_classes)
    if records[:, 1].max(initial=0) >= n_classes:
        raise ValueError(f"{archive} has a record of class {records[:, 1].max()}; expected 0..{n_classes - 1}")
    for name, count in zip(names, np.bincount(records[:, 1], minlength=n_classes), strict=True):
        check_total(f"images of {name}", int(count), n_images)
    labels = np.array(names)[records[:, 1]]
    say(f"{len(names)} classes of {n_images} images in the archive")
    split_of = {name: split for split, classes in splits.items() for name in classes}
    if unknown := sorted(set(split_of) - set(names)):
        raise ValueError(f"the splits name {unknown[0]!r}, which is not in the archive; give those of CIFAR-100")
    say("split " + ", ".join(f"{split}: {counted(len(classes), 'class')}" for split, classes in splits.items()))
    table = pd.DataFrame({"path": paths, "label": labels})
    table["split"] = table["label"].map(split_of)
    wanted = table["split"].notna().to_numpy()
    images = records[wanted, 2:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    finish(
        out, np.ascontiguousarray(images), table[wanted].reset_index(drop=True), {archive.name: digest(archive)}, say
    )


def _records(archive: Path) -> tuple[list[str], NDArray[np.uint8], list[str]]:
    """Return the fine class names, all records (n, 3074), and a path for each record."""
    parts: dict[str, bytes] = {}
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                file = tar.extractfile(member)
                if file is not None:
                    parts[member.name.rpartition("/")[2]] = file.read()
            while tar.fileobj is not None and tar.fileobj.read(1 << 20):
                pass  # the checksum of a compressed file is at its end, which tarfile does not read
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{archive} is not a complete tar archive ({reason}); download it again") from None
    if missing := {"train.bin", "test.bin", "fine_label_names.txt"} - set(parts):
        raise ValueError(f"{archive} has no {min(missing)}; expected the binary version of CIFAR-100")
    records, paths = [], []
    for name in ("train.bin", "test.bin"):
        if len(parts[name]) % RECORD:
            raise ValueError(f"{name} in {archive} ends within a record; download the archive again")
        records.append(np.frombuffer(parts[name], np.uint8).reshape(-1, RECORD))
        paths += [f"{name}/{i:05d}" for i in range(len(records[-1]))]
    return parts["fine_label_names.txt"].decode().split(), np.concatenate(records), paths
