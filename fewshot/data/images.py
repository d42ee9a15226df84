"""Labelled images: pixels in memory, or paths and other sources that are decoded later."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fewshot.data.boxes import read_marked
from fewshot.data.cache import decode_all, find_unreadable, warn_of_unreadable
from fewshot.data.crop import CROPS, TRAINING, TrainingCrop
from fewshot.data.datasets import is_dataset, read_dataset
from fewshot.data.frames import columns_of, is_frame, read_frame, values_of
from fewshot.data.opening import describe, is_data_url, is_file, is_name
from fewshot.data.packed import TABLE, is_packed, read_packed
from fewshot.data.preprocess import Preprocessing
from fewshot.data.scan import read_csv, read_image_table, scan_folder, split_folders
from fewshot.data.shown import draw_grid, first_rows, thumbnail_of
from fewshot.data.table_path import TablePath
from fewshot.data.unseen import warn_of_unseen
from fewshot.data.zipped import unpacked_folder
from fewshot.errors import ImageDecodeError, brief
from fewshot.persistence.suffixes import refuse_spreadsheet
from fewshot.utils import notebook
from fewshot.utils.containers import is_missing
from fewshot.utils.labels import as_labels, in_known_forms
from fewshot.utils.streams import SPLIT, episode_rng
from fewshot.utils.text import counted
from fewshot.utils.values import check_count, check_name

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

OnUnreadable = Literal["raise", "skip"]
ON_UNREADABLE: tuple[OnUnreadable, ...] = get_args(OnUnreadable)


@dataclass(frozen=True, eq=False)
class LabeledImages:
    """Images with one label each: pixels of one size, or paths or other sources, which are not opened.

    Arrays are neither copied nor modified. ``data[3]`` is an image and its label; a slice, a mask or a list of row
    numbers gives `LabeledImages`. In a notebook, the last line of a cell shows the classes with their first images.

    Parameters
    ----------
    images : uint8 ndarray of shape (n, H, W) or (n, H, W, C), or collection of n images
        Grey or colour images, values 0..255, with 1 to 4 channels last; or paths, and whatever else an `Embedder`
        takes: bytes of files, data URLs, open files, PIL images and arrays of several sizes.
    labels : array-like of shape (n,)
        The class of each image: integers, strings or any other sortable values, in any ordered container.

    Raises
    ------
    TypeError
        If `images` are neither uint8 nor sources of images, or the labels cannot be sorted.
    ValueError
        If shapes do not fit, or a label is missing (NaN).

    See Also
    --------
    LabeledImages.open : Open a folder, a table or prepared data.
    LabeledImages.from_frame : Take the images of a data frame.
    LabeledImages.from_dataset : Take those of a data set of torchvision or Hugging Face.

    Examples
    --------
    >>> import numpy as np
    >>> from fewshot import LabeledImages
    >>> data = LabeledImages(np.zeros((3, 8, 8), np.uint8), ["cat", "dog", "cat"])
    >>> len(data), data.classes.tolist(), data.counts.tolist()
    (3, ['cat', 'dog'], [2, 1])
    >>> data[1:], data[data.labels == "cat"].labels.tolist()
    (LabeledImages(2 images of 8 x 8, 2 classes), ['cat', 'cat'])
    """

    images: NDArray[Any]
    labels: NDArray[Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "images", check_images(self.images))
        object.__setattr__(self, "labels", as_labels(self.labels, name="the list of labels", any_type=True))
        if self.labels.shape != (n := len(self.images),):
            raise ValueError(f"labels have shape {self.labels.shape}; expected ({n},), one per image")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: Any) -> Any:
        """Return the image and the label of one row; `LabeledImages` for a slice, a mask or row numbers."""
        if isinstance(rows, (int, np.integer)) and not isinstance(rows, bool):
            image = self.images[rows]
            # Prepared data are mapped read-only; torch cannot say so of a tensor, and warns.
            return image.copy() if self.is_decoded and not image.flags.writeable else image, self.labels[rows]
        return self.select(np.arange(len(self))[rows] if isinstance(rows, slice) else rows)

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        """Yield each image with its label."""
        return zip(self.images, self.labels, strict=True)

    def __repr__(self) -> str:
        of = " x ".join(map(str, self.images.shape[1:])) if self.is_decoded else "any size"
        of += ", as files" if not self.is_decoded and all(map(_is_path, self.images)) else ""
        return f"LabeledImages({counted(len(self), 'image')} of {of}, {counted(len(self.classes), 'class')})"

    def _repr_html_(self) -> str:
        pictures = self._pictures(notebook.OF_CLASS, notebook.MOST_CLASSES)
        some = notebook.MOST_CLASSES + notebook.LISTED
        counts = dict(zip(self.classes[:some].tolist(), self.counts[:some].tolist(), strict=True))
        shown = notebook.classes(pictures, counts, len(self.classes))
        return notebook.fragment("LabeledImages", repr(self)[14:-1], shown)

    def _pictures(self, n_images: int, n_classes: int) -> dict[Any, list[bytes | None]]:
        """Return thumbnails of the first images of the first classes; None for those that cannot be read."""
        classes, codes = self._codes
        rows = first_rows(codes, min(len(classes), n_classes), n_images)
        return {
            label: [thumbnail_of(self.images[row]) for row in own.tolist()]
            for label, own in zip(classes.tolist(), rows, strict=False)
        }

    def show(self, n_images: int = 10, n_classes: int = 12, *, ax: Axes | None = None) -> Axes:
        """Draw the first images of the first classes, a row for each class.

        Parameters
        ----------
        n_images, n_classes : int
            The most images of a class, and the most classes.
        ax : matplotlib Axes, optional
            Where to draw; by default a new figure of pyplot.

        Returns
        -------
        Axes
            The axes; images that cannot be read are grey.

        Examples
        --------
        >>> from matplotlib.figure import Figure
        >>> from fewshot import digits
        >>> ax = digits().show(5, 3, ax=Figure().add_subplot())
        >>> [label.get_text() for label in ax.get_yticklabels()]
        ['0', '1', '2']
        """
        check_count("n_images", n_images)
        pictures = self._pictures(n_images, check_count("n_classes", n_classes))
        return draw_grid(pictures, dict(zip(self.classes.tolist(), self.counts.tolist(), strict=True)), ax)

    @classmethod
    def open(cls, source: str | Path, split: str | None = None) -> LabeledImages:
        """Open a folder of class folders, a CSV table, or a folder that ``fewshot data`` has written.

        Parameters
        ----------
        source : path
            A folder with a subfolder per class (see `from_folder`), a file with columns ``path,label,split`` (see
            `from_table`), boxes in the JSON of COCO or Label Studio beside their pictures, or a folder of
            ``images.npy`` and ``table.csv``, which is memory-mapped. A ``.zip`` of a folder is unpacked beside itself.
        split : str, optional
            Use only this split of a table, or this subfolder of a folder of splits. ``train``, ``val`` and ``test``
            also match folders with names like Training, validation and TEST.

        Raises
        ------
        ValueError
            If the source is none of these, or has no such split.

        Examples
        --------
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("cat", "dog"):
        ...     (folder / name).mkdir()
        ...     Image.new("RGB", (60, 40)).save(folder / name / "1.png")
        >>> LabeledImages.open(folder)
        LabeledImages(2 images of any size, as files, 2 classes)
        """
        path = unpacked_folder(source)
        if os.path.isdir(path) and is_packed(path):
            return cls(*read_packed(path, split))
        if os.path.isdir(path):
            return cls.from_folder(path if split is None else _folder_of_split(path, split))
        if path.suffix.lower() == ".csv":
            return cls.from_table(path, split=split)
        if path.suffix.lower() == ".json" and split is None:
            return cls(*read_marked(path))
        refuse_spreadsheet(path)
        what = "does not exist" if not os.path.exists(path) else "is not a .csv table"
        expected = "a folder of class folders, or a table path,label,split"
        if path.suffix.lower() in (".npy", ".npz", ".pt", ".pkl", ".parquet"):
            expected += (
                "; arrays of images become LabeledImages(images, labels), and embeddings go to evaluate(learner, X, y) "
                "or, in an .npz file, to fewshot evaluate and bench"
            )
        raise ValueError(f"{brief(path)} {what}; expected {expected}")

    @classmethod
    def from_folder(cls, root: str | Path) -> Self:
        """Find the images in a folder with a subfolder per class; no image is opened.

        Class folders are searched recursively. A file is an image if its suffix is that of an image or, without a
        suffix, if its first bytes are. Hidden files and folders and irregular files are skipped. Symbolic links are
        followed, but each folder is visited once.

        Parameters
        ----------
        root : path
            The folder.

        Raises
        ------
        ValueError
            If the folder does not exist or has no images, or its subfolders are splits (train, test) and not classes.

        Warns
        -----
        UserWarning
            If files of other kinds (HEIC, RAW, DICOM, documents) are left out, or class folders are empty or have names
            that differ only in case, blanks or accents.
        """
        return cls(*scan_folder(root))

    @classmethod
    def from_table(
        cls,
        table: str | Path | pd.DataFrame,
        *,
        root: str | Path | None = None,
        split: str | None = None,
        allow_outside: bool = False,
        path_column: str | None = None,
        label_column: str | None = None,
    ) -> Self:
        """Open a CSV file or data frame with columns ``path``, ``label`` and optionally ``split``.

        With columns ``x``, ``y``, ``w`` and ``h`` too, images are these boxes of the pictures, in pixels of the upright
        picture; where all four are empty, the whole picture.

        Parameters
        ----------
        table : path or DataFrame
            All values of a CSV file are read as strings. Labels are taken without blanks around them, and in one
            Unicode form (NFC), as names of folders are.
        root : path, optional
            Base of relative paths; by default, and for paths that lead to nothing there, the folder of the CSV file, or
            the working directory.
        split : str, optional
            Use only the rows of this split.
        allow_outside : bool, default=False
            Whether paths may lead out of `root`.
        path_column, label_column : str, optional
            Names of these columns; by default the first usual ones, such as ``path`` or ``image``, and ``label`` or
            ``class``.

        Raises
        ------
        ValueError
            If a column, a value or the split is missing, the labels are answers of a classifier, as in a table of
            ``fewshot predict --csv``, or a path leads out of `root`.
        """
        return cls(*read_image_table(table, root, split, allow_outside, path_column, label_column))

    @classmethod
    def from_frame(
        cls, frame: Any, image: str | None = None, label: str | None = None, *, root: str | Path | None = None
    ) -> Self:
        """Take the images and labels of a data frame: paths, bytes, data URLs, PIL images or arrays.

        Unlike those of `from_table`, paths may lead anywhere; use that for tables from strangers. As there, labels are
        taken without blanks around them, and in one Unicode form (NFC).

        Parameters
        ----------
        frame : DataFrame of pandas or polars, or Table of Arrow
            One row for each image.
        image, label : str, optional
            Columns; by default those with usual names, such as ``path`` and ``label``.
        root : path, optional
            Base of relative paths; by default the working directory.

        Raises
        ------
        TypeError
            If it is no data frame, or a value is no image.
        ValueError
            If there is no such column, or a value is missing.

        Examples
        --------
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"file": ["1.png", "2.png"], "species": ["owl", "jay"]})
        >>> LabeledImages.from_frame(frame, label="species", root="birds").images.tolist()
        ['birds/1.png', 'birds/2.png']
        """
        return cls(*read_frame(frame, image, label, root))

    @classmethod
    def from_dataset(cls, dataset: Any, image: str | None = None, label: str | None = None) -> Self:
        """Take the images and labels of a data set of torchvision or Hugging Face `datasets`.

        Images are taken as they are stored, before any transform. Folders give paths, and data sets of the hub encoded
        images; others are read into memory. Labels are names of classes if the data set tells them.

        Parameters
        ----------
        dataset : data set
            One split of a data set of Hugging Face; a data set of torchvision, or a ``Subset`` of it; or anything with
            a length whose items are (image, label).
        image, label : str, optional
            Columns of a data set of Hugging Face; by default the first of images and the first of labels.

        Raises
        ------
        TypeError
            If it is no such data set, or a value is no image.
        ValueError
            If it holds several splits, or no such column.

        Examples
        --------
        >>> import numpy as np
        >>> pairs = [(np.zeros((8, 9), np.uint8), "a"), (np.zeros((5, 5, 3), np.uint8), "b")]
        >>> LabeledImages.from_dataset(pairs)
        LabeledImages(2 images of any size, 2 classes)
        """
        return cls(*read_dataset(dataset, image, label))

    def to_frame(self) -> pd.DataFrame:
        """Return a data frame with the columns ``path`` and ``label``; images without a path are described."""
        import pandas as pd

        paths = [f"image {i}" if not is_name(name := describe(one)) else name for i, one in enumerate(self.images)]
        return pd.DataFrame({"path": paths, "label": self.labels})

    @property
    def is_decoded(self) -> bool:
        """Whether `images` are pixels rather than paths or other sources."""
        return self.images.dtype == np.uint8

    def decoded(
        self,
        size: int,
        *,
        grey: bool = False,
        bits: int | None = None,
        cache: str | Path | None = None,
        progress: bool = True,
        on_error: OnUnreadable = "raise",
        crop: TrainingCrop = "center",
    ) -> LabeledImages:
        """Return the images as pixels of one size: by default scaled to cover a square, and cropped to its centre.

        Files are decoded once. The pixels are cached on disk by file content, verified, and memory-mapped. The cache
        holds at most ``$FEWSHOT_CACHE_GB`` gigabytes (20).

        Parameters
        ----------
        size : int
            Side in pixels.
        grey : bool, default=False
            Whether to return grey images (n, size, size) instead of colour images (n, size, size, 3).
        bits : int, optional
            The range of 16-bit images, if the files do not specify it; see `fewshot.data.decode`.
        cache : path, optional
            Folder of the cache; by default ``$FEWSHOT_CACHE`` or ``~/.cache/fewshot``.
        progress : bool, default=True
            Whether to show a progress bar on standard error if decoding takes long.
        on_error : {"raise", "skip"}, default="raise"
            "raise" raises if an image cannot be read; "skip" leaves the image out, with a warning.
        crop : {"center", "pad", "squash"}, default="center"
            What is kept of images that are not square: the middle, with a warning if much is outside; or all, between
            grey borders or squashed.

        Returns
        -------
        LabeledImages
            The decoded images with their labels.

        Raises
        ------
        ImageDecodeError
            If an image cannot be read and `on_error` is "raise", or if no image can be read.
        """
        check_name("on_error", on_error, ON_UNREADABLE)
        mode = CROPS[check_name("crop", crop, TRAINING)]
        preprocessing = Preprocessing(1 if grey else 3, size, size, bits=bits, crop_mode=mode)
        warn_of_unseen(self.images, preprocessing)
        try:
            return LabeledImages(decode_all(self.images, preprocessing, cache, progress), self.labels)
        except ImageDecodeError as error:
            if on_error == "raise":
                if error.can_skip:
                    error.add_note('on_error="skip" continues without such images')
                raise
        errors = find_unreadable(self.images, preprocessing, progress)
        unread = [error.index or 0 for error in errors]
        if len(unread) == len(self):
            raise errors[0]
        warn_of_unreadable(errors, len(self))
        rest = self.select(np.setdiff1d(np.arange(len(self)), unread))
        return LabeledImages(decode_all(rest.images, preprocessing, cache, progress), rest.labels)

    @cached_property
    def _codes(self) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """The sorted classes, and the index of each row's class."""
        classes, codes = np.unique(self.labels, return_inverse=True)
        return classes, codes

    @property
    def classes(self) -> NDArray[Any]:
        """The distinct labels, sorted, of shape (n_classes,)."""
        return self._codes[0].copy()

    @property
    def counts(self) -> NDArray[np.int64]:
        """Number of images per class, in the order of `classes`, of shape (n_classes,)."""
        return np.bincount(self._codes[1], minlength=len(self._codes[0]))

    def select(self, rows: ArrayLike) -> LabeledImages:
        """Return the images at `rows`, in that order.

        Parameters
        ----------
        rows : array-like of shape (m,)
            Row numbers, or a boolean mask of length n.

        Returns
        -------
        LabeledImages
            Copies of the rows.

        Raises
        ------
        TypeError
            If `rows` are neither integers nor booleans.
        ValueError
            If it is not one-dimensional, a row number is outside -n..n-1, or a mask is not of length n.

        Examples
        --------
        >>> import numpy as np
        >>> data = LabeledImages(np.zeros((3, 8, 8), np.uint8), [5, 6, 7])
        >>> data.select([2, 0]).labels.tolist(), data.select(data.labels > 5).labels.tolist()
        ([7, 5], [6, 7])
        """
        index = check_rows(rows, len(self))
        return replace(self, images=self.images[index], labels=self.labels[index])

    def split(self, n: float, *, seed: int = 0) -> tuple[LabeledImages, LabeledImages]:
        """Draw images of each class, such as a support set, and return them and the rest.

        Parameters
        ----------
        n : int or float
            Images of each class, or a share of them below 1. A class of two images or more keeps one in the rest, and
            each class has one among those that are drawn.
        seed : int, default=0
            The same seed draws the same images.

        Returns
        -------
        drawn, rest : LabeledImages
            Each in the present order.

        Raises
        ------
        ValueError
            If `n` is not above 0, or a fraction above 1.

        Examples
        --------
        >>> from fewshot import digits
        >>> support, queries = digits().split(5)
        >>> support.counts.tolist(), len(queries)
        ([5, 5, 5, 5, 5, 5, 5, 5, 5, 5], 1747)
        """
        if isinstance(n, bool) or not n > 0 or (n > 1 and n != int(n)):
            raise ValueError(
                f"n is {n!r}; expected a number of images of each class, such as 5, or a share, such as 0.5"
            )
        rng, codes = episode_rng(check_count("seed", seed, 0), 0, SPLIT), self._codes[1]
        order = rng.permutation(len(self))
        order = order[np.argsort(codes[order], kind="stable")]
        counts = self.counts
        wanted = np.full(len(counts), int(n)) if n >= 1 else (n * counts).round().astype(np.int64)
        rank = np.arange(len(self)) - np.repeat(counts.cumsum() - counts, counts)
        is_drawn = np.zeros(len(self), np.bool_)
        is_drawn[order] = rank < np.repeat(wanted.clip(1, (counts - 1).clip(1)), counts)
        return self.select(is_drawn), self.select(~is_drawn)

    def with_classes(self, classes: ArrayLike) -> LabeledImages:
        """Return the images of some classes, in their present order.

        Parameters
        ----------
        classes : array-like of shape (m,)
            Labels that occur in the data.

        Raises
        ------
        ValueError
            If `classes` is not one-dimensional, or a class does not occur.

        Examples
        --------
        >>> import numpy as np
        >>> data = LabeledImages(np.zeros((3, 8, 8), np.uint8), ["a", "b", "c"])
        >>> data.with_classes(["c", "a"]).labels.tolist()
        ['a', 'c']
        """
        wanted = as_labels(classes, name="the list of classes", any_type=True)
        # np.isin would convert the integer 1 to the string '1' if the types differ.
        position = {label: i for i, label in enumerate(self._codes[0].tolist())}
        wanted, _ = in_known_forms(wanted, lambda some: filter(position.__contains__, some))
        unknown = [label for label in wanted.tolist() if label not in position]
        if unknown:
            raise ValueError(
                f"the class {brief(repr(unknown[0]))} does not occur "
                f"({len(unknown)} of {counted(len(wanted), 'class')}); expected labels in .classes, of the same type"
            )
        keep = np.zeros(len(position), dtype=bool)
        keep[[position[label] for label in wanted.tolist()]] = True
        return self.select(keep[self._codes[1]])


def _folder_of_split(path: Path, split: str) -> Path:
    if split and Path(split).name == split != ".." and os.path.isdir(path / split):  # a plain name stays inside path
        return path / split
    splits = split_folders(path)
    if split in splits:
        return splits[split]
    known = f"; it has {', '.join(splits)}" if splits else ": it has no such subfolder"
    raise ValueError(f"{path} has no split {brief(repr(split))}{known}")


def check_images(given: Any) -> NDArray[Any]:
    """Return images as a uint8 array (n, H, W) or (n, H, W, C), or as an array of n paths or other sources."""
    items = list(given) if isinstance(given, (list, tuple)) else given
    if isinstance(items, list) and any(isinstance(one, (bytes, bytearray)) for one in items):
        return _as_sources(given, np.empty(len(items), object))  # numpy would cut zero bytes off
    try:
        images = np.asarray(given)
    except ValueError:  # of several shapes
        return _as_sources(given, np.empty(len(given), object))
    if images.dtype.kind in "UO" or images.shape == (0,):
        return _as_sources(given, images)
    if images.dtype != np.uint8:
        raise TypeError(
            f"images are {images.dtype}; expected uint8, values 0..255 (for floats in 0..1: "
            "(255 * images).round().astype('uint8')), or paths"
        )
    if images.ndim not in (3, 4) or 0 in images.shape[1:]:
        raise ValueError(f"images have shape {images.shape}; expected a stack (n, H, W) or (n, H, W, C)")
    if images.ndim == 4 and images.shape[-1] > 4:
        raise ValueError(
            f"images have shape {images.shape}, so {images.shape[-1]} channels; expected 1 to 4 channels last; "
            "for channels-first arrays pass images.transpose(0, 2, 3, 1)"
        )
    return images


def _as_sources(given: Any, images: NDArray[Any]) -> NDArray[Any]:
    """Return paths and other sources as an array of objects; paths become text."""
    if images.ndim == 1 and all(map(_is_source, given)):
        found = np.empty(len(images), object)
        for i, item in enumerate(given):
            is_plain = isinstance(item, (str, os.PathLike)) and not isinstance(item, TablePath)
            found[i] = str(item) if is_plain else item
        return found
    raise TypeError(
        f"images are a {type(given).__name__} of {images.dtype}; expected one uint8 array (n, H, W) or (n, H, W, C), "
        "or a list of paths, bytes, PIL images or arrays"
    )


def _is_source(item: Any) -> bool:
    is_array = hasattr(item, "dtype") and len(getattr(item, "shape", ())) in (2, 3)
    is_pil = hasattr(item, "getexif") and hasattr(item, "mode")
    return isinstance(item, (str, os.PathLike, bytes, bytearray)) or is_file(item) or is_pil or is_array


def _is_path(item: Any) -> bool:
    return isinstance(item, str) and not is_data_url(item)


def as_labeled(given: Any) -> LabeledImages | None:
    """Return what holds images and labels as `LabeledImages`: a folder or table, a data frame, a data set.

    None for anything else, such as a list of images.
    """
    if isinstance(given, (str, os.PathLike)):
        return LabeledImages.open(Path(given))
    if is_frame(given) and len(columns_of(given)) > 1:
        return LabeledImages.from_frame(given)
    return LabeledImages.from_dataset(given) if is_dataset(given) else None


def check_rows(rows: ArrayLike, n: int) -> NDArray[Any]:
    """Return row numbers in -n..n-1, or a boolean mask of length n, as an array."""
    index = np.asarray(rows)
    if index.ndim != 1:
        raise ValueError(f"rows have shape {index.shape}; expected a list of row numbers or a mask of {n} booleans")
    if index.size == 0 and index.dtype.kind == "f":  # np.asarray([]) is float
        index = index.astype(np.int64)
    if index.dtype.kind not in "biu":
        raise TypeError(f"rows are {index.dtype}; expected integers (row numbers) or {n} booleans (a mask)")
    if index.dtype.kind == "b" and len(index) != n:
        raise ValueError(f"the mask has {len(index)} entries; expected {n}, one per image")
    if index.dtype.kind != "b" and index.size and not -n <= index.min() <= index.max() < n:
        raise ValueError(f"rows range from {index.min()} to {index.max()}; expected row numbers in 0..{n - 1}")
    return index


def list_splits(source: Any) -> list[str]:
    """Return the names of the splits in a source of `LabeledImages.open`, or in a data frame; empty if there are none.

    Examples
    --------
    >>> import tempfile
    >>> list_splits(tempfile.mkdtemp())
    []
    """
    if is_frame(source):
        given = values_of(source["split"]) if "split" in columns_of(source) else []
        return sorted({str(one) for one in given if not is_missing(one)})
    if not isinstance(source, (str, os.PathLike)):
        return []
    path = Path(source)
    if path.is_dir() and not is_packed(path):
        return list(split_folders(path))
    table = path / TABLE if path.is_dir() else path
    if table.suffix.lower() != ".csv" or not table.is_file():
        return []
    frame = read_csv(table)
    return list(frame["split"].unique()) if "split" in frame.columns else []
