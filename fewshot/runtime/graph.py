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
_FUNCTIONS = "it has functions or training steps, which no export has"
_SUBGRAPH = "it has an operator that runs another graph, or sparse weights; no export has"
_ELSEWHERE = "it has weights in another file, which no export has"
#: For each kind of message, by field number: the kind of message in this field, or why the field is refused.
_FIELDS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: _FUNCTIONS, 25: _FUNCTIONS},
    "graph": {1: "node", 5: "tensor", 15: "it has sparse weights, which no export has"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 10: "tensor", **dict.fromkeys((6, 11, 22, 23), _SUBGRAPH)},
    "tensor": {13: _ELSEWHERE, 14: _ELSEWHERE},
}
#: Wire types of protobuf, and the size of those that have a fixed one.
_VARINT, _MESSAGE, _SIZES = 0, 2, {1: 8, 5: 4}


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
    model = memoryview(data)
    _check(model, "model")
    if all(number != 7 for number, _ in _fields(model)):
        raise ValueError("it is not an ONNX file: it has no graph")


def _check(message: memoryview, kind: str) -> None:
    if kind == "node":
        _check_operator(message)
    for number, value in _fields(message):
        found = _FIELDS[kind].get(number, "")
        if found in _FIELDS:
            _check(_message(value), found)
        elif found and (number, value) != (14, 0):  # 0: the weights are in this file
            raise ValueError(found)


def _check_operator(node: memoryview) -> None:
    fields = list(_fields(node))
    for name in [_text(value) for number, value in fields if number == 4] or [""]:
        if name not in OPERATORS:
            raise ValueError(f"it has the operator {name!r:.60}, which no export has")
    for number, value in fields:
        if number == 7 and (domain := _text(value)) not in _DOMAINS:
            raise ValueError(f"it has an operator of {domain!r:.60}, which no export has")


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield number and value of each field: an integer, or its bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind in (_VARINT, _MESSAGE):
            value, at = _varint(message, at)
        elif kind in _SIZES:
            value = _SIZES[kind]
        else:
            raise ValueError("it is not an ONNX file: a field has no type")
        if kind == _VARINT:
            yield key >> 3, value
            continue
        if value > len(message) - at:
            raise ValueError("it is not an ONNX file: it is truncated")
        yield key >> 3, message[at : at + value]
        at += value


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
