"""The encoder on a device: the preprocessing of the library, and the network as ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot.data.opening import as_sequence
from fewshot.data.preprocess import Preprocessing
from fewshot.errors import ImageDecodeError, missing
from fewshot.persistence.content import errors_of_file
from fewshot.persistence.files import read_regular
from fewshot.runtime.graph import check_graph
from fewshot.utils.text import counted

#: Names of the input, uint8 pixels (n, h, w[, c]), and of the output, embeddings (n, d).
INPUT, OUTPUT = "pixels", "embeddings"
#: The cure in error messages about a damaged export.
CURE = "export it again"
#: The largest ONNX file.
MOST_BYTES = 2**31
#: Pixels in a batch: one image of the usual size, to save memory.
BATCH_PIXELS = 224 * 224


class Encoder:
    """An exported network, ready to run; only graphs that pass `check_graph` are loaded.

    Parameters
    ----------
    path : path
        The ONNX file.
    preprocessing : Preprocessing
        How images become its input.
    n_threads : int, default=1
        Threads of onnxruntime.

    Attributes
    ----------
    width : int
        Length of an embedding.

    Raises
    ------
    ArtifactError
        If the file is not a network, or does not take the output of `preprocessing`.
    MissingExtraError
        If onnxruntime is missing.
    """

    def __init__(self, path: str | Path, preprocessing: Preprocessing, n_threads: int = 1) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise missing("onnxruntime is missing", "runtime") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = n_threads, 1
        options.log_severity_level = 4  # only fatal ones: warnings concern its optimiser, and errors are raised anyway
        self.path, self.preprocessing = Path(path), preprocessing
        options.add_session_config_entry("session.load_model_format", "ONNX")
        with errors_of_file(self.path, CURE):
            graph = read_regular(self.path, MOST_BYTES)  # run the checked bytes, even if the file changes
            check_graph(graph)
            self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
            _, self.width = self._run(preprocessing.stack([preprocessing.blank()] * 2)).shape

    def embed(self, images: Any) -> tuple[NDArray[np.float32], list[ImageDecodeError]]:
        """Return the embeddings (n, d) of images, NaN for those that cannot be read, and the errors of those.

        Parameters
        ----------
        images : collection of n images
            Paths, bytes, PIL images or arrays in a list or an array.

        Raises
        ------
        TypeError
            If it is a single image, or not a collection of images.
        """
        items = as_sequence(images, "images")
        size = max(1, BATCH_PIXELS // (self.preprocessing.height * self.preprocessing.width))
        parts: list[NDArray[np.float32]] = []
        errors: list[ImageDecodeError] = []
        for start in range(0, len(items), size):
            pixels = [self._prepare(items[i], i, errors) for i in range(start, min(start + size, len(items)))]
            parts.append(self._embed_read(pixels))
        return np.concatenate(parts) if parts else np.empty((0, self.width), np.float32), errors

    def embed_pixels(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the embeddings (n, d) of preprocessed pixels (n, h, w) or (n, h, w, 3)."""
        with errors_of_file(self.path, CURE):
            found = self._run(pixels)
            if found.shape != (len(pixels), self.width):
                raise ValueError(f"it maps {counted(len(pixels), 'image')} to {found.shape}")
            return found

    def _run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = self._session.run([OUTPUT], {INPUT: pixels})[0]
        if found.dtype != np.float32:
            raise ValueError(f"its embeddings are {found.dtype}")
        return found

    def _prepare(self, item: Any, i: int, errors: list[ImageDecodeError]) -> NDArray[np.uint8] | None:
        try:
            return self.preprocessing(item)
        except ImageDecodeError as error:
            errors.append(ImageDecodeError(error.source, error.reason, i))
            return None
        except TypeError as error:
            raise TypeError(f"image {i}: {error}") from None

    def _embed_read(self, pixels: list[NDArray[np.uint8] | None]) -> NDArray[np.float32]:
        seen = [self.preprocessing.blank() if image is None else image for image in pixels]
        found = self.preprocessing.embed(seen, self.embed_pixels)
        found[[image is None for image in pixels]] = np.nan
        return found
