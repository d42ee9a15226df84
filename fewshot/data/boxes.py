"""Boxes of pictures as images of their own: objects that a table, COCO or Label Studio has marked."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fewshot.data.picture import Picture
from fewshot.data.table_path import TablePath
from fewshot.errors import ImageDecodeError, brief
from fewshot.persistence.files import check_file

#: Columns of a table, in pixels of the upright picture: the upper left corner, width and height.
COLUMNS = ("x", "y", "w", "h")
#: Pixels by which tools round a box out of its picture.
SLACK = 1.5
#: What is known of a box: the path of its picture, its sides, the label.
Marked = tuple[str, Sequence[float], str]


class BoxedImage:
    """A box of a picture, which is cropped whenever it is read, like an open file of the part.

    Parameters
    ----------
    picture : Picture or path
        The picture, which may be shared by several boxes.
    box : sequence of float
        Left, top, width and height, in pixels of the picture as it is seen: after the rotation that EXIF asks for.
    percent : bool, default=False
        Whether they are percentages of the width and height of the picture, as in Label Studio.

    Attributes
    ----------
    name : str
        The path with the box, such as ``street.jpg#10,20,64,48``.

    Raises
    ------
    ValueError
        If the box is empty, begins left of or above the picture, or is not of numbers.

    Examples
    --------
    >>> import tempfile
    >>> from PIL import Image
    >>> from fewshot.data.decode import decode
    >>> path = tempfile.mkdtemp() + "/street.png"
    >>> Image.new("RGB", (90, 60)).save(path)
    >>> decode(BoxedImage(path, (10, 20, 30, 40))).size
    (30, 40)
    """

    def __init__(self, picture: Picture | str | os.PathLike[str], box: Sequence[float], percent: bool = False) -> None:
        self.picture = picture if isinstance(picture, Picture) else Picture(picture)
        self.box, self.percent = tuple(map(float, box)), percent
        self.name = f"{self.picture.path}#{','.join(f'{n:g}' for n in self.box)}{'%' * percent}"
        if len(self.box) != 4 or not all(map(math.isfinite, self.box)):
            raise ValueError(f"{brief(self.name)} has no four finite numbers x, y, w, h")
        if min(self.box[:2]) < -SLACK or min(self.box[2:]) <= 0:
            raise ValueError(
                f"the box {brief(self.name)} is empty or begins outside the picture; expected x and y of its upper "
                "left corner, from 0, and w and h above 0"
            )

    def read(self) -> bytes:
        """Return the part of the picture in the box as PNG.

        Raises
        ------
        ImageDecodeError
            If the picture cannot be read, or the box reaches outside it.
        """
        picture, held = self.picture.decoded(), io.BytesIO()
        picture.crop(self._corners(picture.size)).save(held, "PNG", compress_level=1)
        return held.getvalue()

    def tell(self) -> int:
        """Return 0: each read starts at the beginning."""
        return 0

    def seek(self, place: int) -> int:
        """Do nothing: each read starts at the beginning."""
        return place

    def _corners(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Return left, top, right and bottom in whole pixels, at least one wide and high."""
        scale = [n / 100 if self.percent else 1.0 for n in size] * 2
        x, y, w, h = (n * by for n, by in zip(self.box, scale, strict=True))
        if x + w > size[0] + SLACK or y + h > size[1] + SLACK:
            hint = ""
            if x + w <= size[1] + SLACK and y + h <= size[0] + SLACK:
                hint = "; it fits the picture turned by 90 degrees, so give it for the upright picture, or swap x and y"
            elif w > x and h > y and w <= size[0] + SLACK and h <= size[1] + SLACK:
                hint = "; it fits if the last two are the lower right corner, so subtract the upper left one"
            raise ImageDecodeError(
                self.name, f"the box reaches outside the picture of {size[0]} x {size[1]} pixels{hint}"
            )
        left, top = min(max(round(x), 0), size[0] - 1), min(max(round(y), 0), size[1] - 1)
        return left, top, min(max(round(x + w), left + 1), size[0]), min(max(round(y + h), top + 1), size[1])


def has_boxes(columns: Sequence[Any]) -> bool:
    """Whether a table has the columns of boxes."""
    return set(COLUMNS) <= set(columns)


def boxed(paths: Sequence[TablePath], boxes: Mapping[str, Sequence[Any]]) -> list[Any]:
    """Return the boxes of a table as images; the whole picture where all four columns of a row are empty."""
    found: list[Any] = []
    pictures = {path: Picture(path) for path in paths}
    for path, *given in zip(paths, *(boxes[name] for name in COLUMNS), strict=True):
        texts = ["" if value is None or value != value else str(value).strip() for value in given]
        try:
            if not any(texts):
                found.append(path)
                continue
            found.append(BoxedImage(pictures[path], [float(text) for text in texts]))
            found[-1].name = path.called(found[-1].name)
        except ValueError as error:
            reason = str(error) if "#" in str(error) else f"{', '.join(texts)} are not four numbers x, y, w, h"
            raise ValueError(f"{path.place}: {reason}") from None
    return found


def read_marked(path: str | Path) -> tuple[Any, Any]:
    """Return the boxes and labels of a file of COCO annotations, or of Label Studio's JSON with rectangles.

    Pictures are looked for beside the file.

    Raises
    ------
    ValueError
        If it is neither, has no box, or a box is wrong.
    """
    check_file(path, "a file of boxes")
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged JSON ({error})") from None
    try:
        reader: Callable[[Any], Iterator[Marked]] = _coco if isinstance(content, dict) else _label_studio
        found = list(reader(content))
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(
            f"{path} is neither COCO annotations (images, annotations with bbox, categories) nor an export of Label "
            f"Studio as JSON ({type(error).__name__}: {error})"
        ) from None
    if not found:
        raise ValueError(f"{path} has no box; expected annotations with bbox, or rectanglelabels")
    percent, base = not isinstance(content, dict), Path(path).parent
    pictures = {name: Picture(base / name) for name, *_ in found}
    return [BoxedImage(pictures[name], box, percent) for name, box, _ in found], [label for *_, label in found]


def _coco(content: Mapping[str, Any]) -> Iterator[Marked]:
    files = {one["id"]: one["file_name"] for one in content["images"]}
    names = {one["id"]: one["name"] for one in content["categories"]}
    for one in content["annotations"]:
        yield files[one["image_id"]], one["bbox"], names[one["category_id"]]


def _label_studio(content: Sequence[Mapping[str, Any]]) -> Iterator[Marked]:
    for task in content:
        for result in (result for one in task["annotations"] for result in one["result"]):
            if result["type"] != "rectanglelabels":
                continue
            value, source = result["value"], next(v for v in task["data"].values() if isinstance(v, str))
            if value.get("rotation"):
                raise ValueError(f"a box of {brief(source)} is rotated by {value['rotation']} degrees; draw it upright")
            box = [value[name] for name in ("x", "y", "width", "height")]
            for label in value["rectanglelabels"]:
                yield source.rpartition("?d=")[2].lstrip("/"), box, label
