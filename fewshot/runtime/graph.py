"""Validation of ONNX files: only the operators that an export writes, and only data inside the file.

Loops, branches, functions, custom operators and external data are refused before onnxruntime sees them. The check
parses the protobuf structure only; field numbers are those of ``onnx.proto``.
"""

from __future__ import annotations

from collections.abc import Iterator

#: Each runs in time bounded by its input; none runs a subgraph or draws random numbers.
_NAMES = (
    "Abs Add And ArgMax AveragePool BatchNormalization Cast Ceil Clip Concat Constant ConstantOfShape Conv Cos CumSum "
    "DepthToSpace DequantizeLinear Div Einsum Elu Equal Erf Exp Expand Flatten Floor Gather GatherElements GatherND "
    "Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual HardSigmoid HardSwish Identity InstanceNormalization "
    "LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax MatMul Max MaxPool Mean Min Mish Mod Mul Neg Not Or "
    "PRelu Pad Pow QuantizeLinear Range Reciprocal ReduceL1 ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd "
    "ReduceSum Relu Reshape Resize Round ScatterND Selu Shape Sigmoid Sign Sin Slice Softmax Softplus SpaceToDepth "
    "Split Sqrt Squeeze Sub Sum Tan Tanh Tile TopK Transpose Trilu Unsqueeze Where"
)
OPERATORS = frozenset(_NAMES.split())
_DOMAINS = ("", "ai.onnx")
_VARINT, _EIGHT_BYTES, _MESSAGE, _FOUR_BYTES = 0, 1, 2, 5


def check_graph(data: bytes) -> None:
    """Raise unless an ONNX file is a plain graph of `OPERATORS`.

    Parameters
    ----------
    data : bytes
        The content of the file.

    Raises
    ------
    ValueError
        If it is not an ONNX file, or contains anything else.

    Examples
    --------
    >>> check_graph(b"")
    Traceback (most recent call last):
    ValueError: it is not an ONNX file: it has no graph
    """
    if data[4:8] == b"ORTM":  # onnxruntime would detect its own format
        raise ValueError("it is not an ONNX file but has onnxruntime's own format")
    n_graphs = 0
    for number, part in _fields(memoryview(data)):
        if number in (20, 25):
            raise ValueError("it has functions or training steps, which no export has")
        if number == 7:
            n_graphs += 1
            _check_parts(_message(part))
    if not n_graphs:
        raise ValueError("it is not an ONNX file: it has no graph")


def _check_parts(graph: memoryview) -> None:
    for number, part in _fields(graph):
        if number == 1:
            _check_node(_message(part))
        elif number == 5:
            _check_tensor(_message(part))
        elif number == 15:
            raise ValueError("it has sparse weights, which no export has")


def _check_node(node: memoryview) -> None:
    names = [_text(part) for number, part in _fields(node) if number == 4]
    for name in names or [""]:
        if name not in OPERATORS:
            raise ValueError(f"it has the operator {name!r:.60}, which no export has")
    for number, part in _fields(node):
        if number == 7 and (domain := _text(part)) not in _DOMAINS:
            raise ValueError(f"it has an operator of {domain!r:.60}, which no export has")
        if number == 5:
            for kind, value in _fields(_message(part)):
                if kind in (6, 11, 22, 23):
                    raise ValueError("it has an operator that runs another graph, or sparse weights; no export has")
                if kind in (5, 10):
                    _check_tensor(_message(value))


def _check_tensor(tensor: memoryview) -> None:
    for number, value in _fields(tensor):
        if number == 13 or (number == 14 and value != 0):
            raise ValueError("it has weights in another file, which no export has")


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield number and value of each field: an integer, or its bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        if kind == _MESSAGE:
            size, at = _varint(message, at)
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            size = 8 if kind == _EIGHT_BYTES else 4
        else:
            raise ValueError("it is not an ONNX file: a field has no type")
        if size > len(message) - at:
            raise ValueError("it is not an ONNX file: it is truncated")
        yield key >> 3, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            break
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("it is not an ONNX file: a number has no end")


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("it is not an ONNX file: a part is a number")
    return value


def _text(value: int | memoryview) -> str:
    return bytes(_message(value)).decode("utf-8", "replace")
