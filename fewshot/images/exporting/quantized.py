"""Quantize an encoder to 8-bit integers, and measure what that costs in few-shot accuracy."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot.episodes.evaluate import evaluate
from fewshot.errors import ArtifactError
from fewshot.learners.base import Learner
from fewshot.runtime.encoder import INPUT, Encoder

#: Episodes of the gate: 5-way, 1-shot and 5-shot, 15 queries per class.
N_WAY, SHOTS, N_QUERY, N_EPISODES, SEED = 5, (1, 5), 15, 600, 0
#: Operators computed in 8 bits.
_QUANTIZED = ["Conv", "Clip", "Relu", "MaxPool", "Gemm", "MatMul"]


def quantize(path: Path, out: Path, pixels: NDArray[np.uint8]) -> None:
    """Write an encoder with 8-bit weights and activations, calibrated on `pixels` (n, h, w[, c]).

    Quantization is static, in QDQ format, with one scale for each output channel of the weights (Jacob et al. 2018,
    arXiv:1712.05877; Krishnamoorthi 2018, arXiv:1806.08342). Sums of branches, global pooling and all later operations
    stay in float, because a mean over positions needs more than 8 bits; so does the map of a domain.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        """Calibration images, one at a time."""

        def __init__(self) -> None:
            self.rest = iter(pixels)

        def get_next(self) -> dict[str, Any] | None:
            """Return the next input."""
            image = next(self.rest, None)
            return None if image is None else {INPUT: image[None]}

    graph = onnx.load(path).graph
    with _quiet():
        quantize_static(
            str(path),
            str(out),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QUInt8,
            op_types_to_quantize=_QUANTIZED,
            nodes_to_exclude=[node.name for node in graph.node if "/domain_map/" in node.name],
            extra_options={"WeightSymmetric": True, "TensorQuantOverrides": _signed(graph)},
        )


def _signed(graph: Any) -> dict[str, list[dict[str, Any]]]:
    """Return overrides that make the weights of grouped convolutions signed.

    All other weights are unsigned: on processors without an 8-bit dot product, products of unsigned activations and
    signed weights overflow 16 bits, which costs tf_efficientnet_lite0 three points of accuracy. Grouped convolutions
    use another algorithm, which does not overflow and is four times as slow with unsigned weights.
    """
    from onnxruntime.quantization import QuantType

    grouped = (n for n in graph.node if n.op_type == "Conv" and any(a.name == "group" and a.i > 1 for a in n.attribute))
    return {n.input[1]: [{"quant_type": QuantType.QInt8, "axis": 0, "symmetric": True}] for n in grouped}


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the advice that onnxruntime logs through the root logger."""
    here = threading.get_ident()

    def from_elsewhere(record: logging.LogRecord) -> bool:
        return record.thread != here or record.levelno > logging.WARNING

    logging.root.addFilter(from_elsewhere)
    try:
        yield
    finally:
        logging.root.removeFilter(from_elsewhere)


def measure(learner: Learner, exact: Encoder, coarse: Encoder, images: Any, labels: Any) -> list[dict[str, Any]]:
    """Return the few-shot accuracy of two encoders on the same episodes, and the paired loss, as fractions.

    Parameters
    ----------
    learner : Learner
        Evaluated on the episodes.
    exact, coarse : Encoder
        In float32, and in 8 bits.
    images, labels : collection of n
        At least 20 images of each of five or more held-out classes.

    Returns
    -------
    list of dict
        For one and five shots: ``way``, ``shot``, ``episodes``, and ``float``, ``int8`` and ``loss``, each with the
        half-width of its 95 % interval.
    """
    X, Z = (embed_with(encoder, images) for encoder in (exact, coarse))
    rows = []
    for n_shot in SHOTS:
        draw = partial(evaluate, n_way=N_WAY, n_shot=n_shot, n_query=N_QUERY, n_episodes=N_EPISODES, seed=SEED)
        before, after = (draw(learner, x, labels) for x in (X, Z))
        found = {"float": (before.mean, before.ci95), "int8": (after.mean, after.ci95)}
        found["loss"] = before.difference(after)
        sizes = {"way": N_WAY, "shot": n_shot, "episodes": N_EPISODES}
        rows.append({**sizes, **{name: list(pair) for name, pair in found.items()}})
    return rows


def check_loss(rows: list[dict[str, Any]], max_loss: float) -> None:
    """Raise if an encoder loses more accuracy than `max_loss`.

    Raises
    ------
    ArtifactError
        With the measured values.
    """
    worst = max(rows, key=lambda row: row["loss"][0])
    if worst["loss"][0] > max_loss:
        (exact, _), (coarse, _), (loss, ci95) = worst["float"], worst["int8"], worst["loss"]
        raise ArtifactError(
            f"int8 answers {100 * coarse:.2f} % of {worst['way']}-way {worst['shot']}-shot queries correctly and float "
            f"{100 * exact:.2f} %, a loss of {100 * loss:.2f} ± {100 * ci95:.2f} points above the {100 * max_loss:g} "
            "allowed; calibrate with more typical images, raise max_loss, or export without quantize"
        )


def embed_with(encoder: Encoder, images: Any) -> NDArray[np.float32]:
    """Return the embeddings of images.

    Raises
    ------
    ImageDecodeError
        If an image cannot be read.
    """
    embeddings, errors = encoder.embed(images)
    if errors:
        raise errors[0]
    return embeddings
