"""An encoder that does more than an export does is refused before onnxruntime sees it."""

import os

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fewshot.data.preprocess import Preprocessing
from fewshot.errors import ArtifactError
from fewshot.runtime.encoder import Encoder
from fewshot.runtime.graph import OPERATORS, check_graph

PIXELS = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", 4, 4, 3])
EMBEDDINGS = helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["n", 48])
NODES = [
    helper.make_node("Cast", ["pixels"], ["x"], to=TensorProto.FLOAT),
    helper.make_node("Flatten", ["x"], ["y"], axis=1),
]
IMAGES = Preprocessing(3, 4, 4)


def model(*nodes, initializer=(), **more):
    last = helper.make_node("Mul", ["y", "one"], ["embeddings"])
    one = numpy_helper.from_array(np.ones(1, np.float32), "one")
    graph = helper.make_graph([*NODES, *nodes, last], "g", [PIXELS], [EMBEDDINGS], [one, *initializer])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("elsewhere", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, **more)


def endless():
    """Return a loop that goes on while true, up to 2**62 times."""
    names = ["i", "go_on", "go_on_still"]
    info = [helper.make_tensor_value_info(names[0], TensorProto.INT64, [])]
    info += [helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in names[1:]]
    body = helper.make_graph([helper.make_node("Identity", ["go_on"], ["go_on_still"])], "b", info[:2], info[2:])
    times = numpy_helper.from_array(np.array(2**62), "times")
    yes = numpy_helper.from_array(np.array(True), "yes")
    return model(helper.make_node("Loop", ["times", "yes"], [], body=body), initializer=[times, yes])


def branch():
    out = helper.make_tensor_value_info("z", TensorProto.FLOAT, None)
    body = helper.make_graph([helper.make_node("Identity", ["y"], ["z"])], "b", [], [out])
    yes = numpy_helper.from_array(np.array(True), "yes")
    return model(helper.make_node("If", ["yes"], ["w"], then_branch=body, else_branch=body), initializer=[yes])


def hidden_graph():
    out = helper.make_tensor_value_info("z", TensorProto.FLOAT, None)
    body = helper.make_graph([helper.make_node("Identity", ["y"], ["z"])], "b", [], [out])
    return model(helper.make_node("Relu", ["y"], ["w"], body=body))


def hidden_graphs():
    made = hidden_graph()
    attribute = made.graph.node[2].attribute[0]
    attribute.graphs.append(attribute.g)
    attribute.ClearField("g")
    return made


def external(where):
    tensor = numpy_helper.from_array(np.ones(4, np.float32), "far")
    tensor.ClearField("raw_data")
    if where != "location alone":
        tensor.external_data.add(key="location", value="/etc/passwd" if where == "absolute" else "weights.bin")
    if where != "data alone":
        tensor.data_location = TensorProto.EXTERNAL
    return tensor


def sparse():
    values = numpy_helper.from_array(np.ones(1, np.float32), "v")
    return helper.make_sparse_tensor(values, numpy_helper.from_array(np.zeros(1, np.int64), "i"), [4])


def sparse_weights():
    made = model()
    made.graph.sparse_initializer.append(sparse())
    return made


def function():
    inner = helper.make_function(
        "elsewhere", "F", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], [helper.make_opsetid("", 17)]
    )
    return model(functions=[inner])


def training():
    made = model()
    made.training_info.add()
    return made


FORGED = {
    "a loop without end": (endless, "operator 'Loop'"),
    "a branch": (branch, "operator 'If'"),
    "a scan": (lambda: model(helper.make_node("Scan", ["y"], ["w"])), "operator 'Scan'"),
    "a random number": (lambda: model(helper.make_node("RandomNormalLike", ["y"], ["w"])), "'RandomNormalLike'"),
    "another library": (lambda: model(helper.make_node("Relu", ["y"], ["w"], domain="elsewhere")), "'elsewhere'"),
    "onnxruntime's own": (lambda: model(helper.make_node("Gelu", ["y"], ["w"], domain="com.microsoft")), "Gelu"),
    "no name": (lambda: model(helper.make_node("\n", ["y"], ["w"])), "operator"),
    "a graph in an attribute": (hidden_graph, "runs another graph"),
    "graphs in an attribute": (hidden_graphs, "runs another graph"),
    "a function": (function, "functions"),
    "training": (training, "functions or training"),
    "sparse weights": (sparse_weights, "sparse"),
    "a sparse constant": (lambda: model(helper.make_node("Constant", [], ["w"], sparse_value=sparse())), "sparse"),
    **{
        f"weights elsewhere, {where}": (lambda where=where: model(initializer=[external(where)]), "another file")
        for where in ("absolute", "relative", "data alone", "location alone")
    },
    "a constant elsewhere": (
        lambda: model(helper.make_node("Constant", [], ["w"], value=external("relative"))),
        "another file",
    ),
}


@pytest.mark.parametrize("what", FORGED)
def test_what_no_export_does_is_refused(what, tmp_path):
    make, match = FORGED[what]
    path = tmp_path / "encoder.onnx"
    path.write_bytes(make().SerializeToString())
    with pytest.raises(ArtifactError, match=f"encoder.onnx cannot be used: .*{match}.*; export it again") as caught:
        Encoder(path, IMAGES)
    assert str(caught.value).isprintable()


def test_a_second_graph_is_checked_as_well(tmp_path):
    """Protobuf joins the parts of a message that is there twice."""
    with pytest.raises(ValueError, match="'Loop'"):
        check_graph(model().SerializeToString() + endless().SerializeToString())


def test_a_plain_graph_is_run(tmp_path):
    path = tmp_path / "encoder.onnx"
    path.write_bytes(model().SerializeToString())
    encoder = Encoder(path, IMAGES)
    path.unlink()  # what was read stays
    assert encoder.width == 48
    assert encoder.embed_pixels(np.ones((3, 4, 4, 3), np.uint8)).sum() == 3 * 48


def test_a_number_of_embeddings_that_is_not_that_of_the_images_is_refused(tmp_path):
    path = tmp_path / "encoder.onnx"
    axes = numpy_helper.from_array(np.array([0]), "axes")
    graph = helper.make_graph(
        [*NODES, helper.make_node("ReduceSum", ["y", "axes"], ["embeddings"])], "g", [PIXELS], [EMBEDDINGS], [axes]
    )
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )
    encoder = Encoder(path, IMAGES)
    with pytest.raises(ArtifactError, match="it maps 3 images to"):
        encoder.embed_pixels(np.ones((3, 4, 4, 3), np.uint8))


@pytest.mark.parametrize(
    "data", [b"", b"\x00", b"\xff" * 20, b"\x3a\xff\x01", b"\x3a\x05\x0a", b"junkORTMjunk", b"\x38\x01"]
)
def test_junk_is_a_value_error(data):
    with pytest.raises(ValueError, match="not an ONNX file"):
        check_graph(data)


def test_no_damage_makes_another_error_or_takes_long():
    whole, rng = model().SerializeToString(), np.random.default_rng(0)
    for _ in range(3000):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            damaged[place] = rng.integers(0, 256)
        try:
            check_graph(bytes(damaged[: rng.integers(1, len(whole) + 1)]))
        except ValueError:
            continue


def test_what_passes_has_no_other_operator_as_onnx_reads_it():
    """Whatever is changed: where onnx still reads it and the check lets it pass, it has the listed operators alone."""
    whole, rng, passed = endless().SerializeToString(), np.random.default_rng(1), 0
    for _ in range(3000):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 2):
            damaged[place] = rng.integers(0, 256)
        try:
            check_graph(bytes(damaged))
            read = onnx.load_from_string(bytes(damaged))
        except Exception:
            continue
        passed += 1
        assert {node.op_type for node in read.graph.node} <= OPERATORS
        assert not any(a.HasField("g") or a.graphs for node in read.graph.node for a in node.attribute)
    assert passed < 300


@pytest.mark.parametrize("name", ["pipe", "link"])
def test_only_a_regular_file_is_read(name, tmp_path):
    (tmp_path / "whole").write_bytes(model().SerializeToString())
    if name == "pipe":
        os.mkfifo(tmp_path / name)
    else:
        (tmp_path / name).symlink_to(tmp_path / "whole")
    with pytest.raises(OSError, match="regular file"):
        Encoder(tmp_path / name, IMAGES)
