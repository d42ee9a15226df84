"""Labels and embeddings in every container: one conversion, the same in all rooms."""

import array
import collections
import enum
import subprocess
import sys
import warnings

import array_api_strict
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch

from fewshot import (
    EpisodeSampler,
    FaissStore,
    LabeledImages,
    PrototypeIndex,
    PrototypicalClassifier,
    Record,
    evaluate,
)
from fewshot.persistence.content import labels_from_json, labels_to_json
from fewshot.utils.labels import LONGEST, WIDEST, as_labels, plain_label
from fewshot.utils.values import as_values, check_sample_weight

StrMember = enum.Enum("StrMember", {"SPIRAL": "Sp", "ELLIPTIC": "El", "LENTICULAR": "S0"}, type=str)
StrEnumMember = enum.StrEnum("StrEnumMember", {"SPIRAL": "Sp", "ELLIPTIC": "El", "LENTICULAR": "S0"})
IntMember = enum.IntEnum("IntMember", {"ONE": 1, "TWO": 2, "TEN": 10})
TEXT, NUMBERS, TRUTH = ["a", "b", "a"], [3, 1, 3], [True, False, True]


class Odd(np.str_):
    """Text that shows itself as other text."""

    def __str__(self):
        return "odd"


# ---- labels: containers --------------------------------------------------------------------------------------------

CONTAINERS = {
    "list": list,
    "tuple": tuple,
    "deque": collections.deque,
    "dict values": lambda y: dict(enumerate(y)).values(),
    "generator": iter,
    "array": np.array,
    "array of objects": lambda y: np.array(y, dtype=object),
    "Series": lambda y: pd.Series(y, index=[7, 8, 9]),
    "Series of objects": lambda y: pd.Series(y, dtype=object),
    "Index": pd.Index,
    "category": lambda y: pd.Series(y).astype("category").cat.add_categories(["ghost"] if y == TEXT else [99, 98][:1]),
    "nullable": lambda y: pd.Series(y).convert_dtypes(),
    "ArrowDtype": lambda y: pd.Series(pa.array(y).to_pandas(types_mapper=pd.ArrowDtype)),
    "Arrow array": pa.array,
    "Arrow chunked array": lambda y: pa.chunked_array([y[:1], y[1:]]),
    "Arrow dictionary": lambda y: pa.array(y).dictionary_encode(),
    "Arrow scalars": lambda y: list(pa.array(y)),
    "polars": pl.Series,
}


@pytest.mark.parametrize("make", CONTAINERS.values(), ids=CONTAINERS)
@pytest.mark.parametrize(("y", "kind"), [(TEXT, "U"), (NUMBERS, "i"), (TRUTH, "b")], ids=["text", "numbers", "truth"])
def test_labels_are_the_same_in_every_container(make, y, kind):
    if make is CONTAINERS["category"] and y is TRUTH:
        pytest.skip("the ghost is no boolean")
    found = as_labels(make(y))
    assert found.tolist() == y
    assert found.dtype.kind == kind


@pytest.mark.parametrize(
    "y",
    [
        np.array(TEXT, dtype=np.dtypes.StringDType()),
        np.array(TEXT, dtype=">U3"),
        np.array(TEXT, dtype=f"U{4 * WIDEST}"),
        pl.Series(TEXT, dtype=pl.Categorical),
        pl.Series(TEXT, dtype=pl.Enum(["b", "a", "ghost"])),
        pd.Series(TEXT, dtype="string[python]"),
        [Odd("a"), np.str_("b"), "a"],
    ],
    ids=lambda y: getattr(getattr(y, "dtype", ""), "name", type(y).__name__),
)
def test_text_of_any_type_is_text(y):
    found = as_labels(y)
    assert (found.tolist(), found.dtype.kind, found.dtype.isnative) == (TEXT, "U", True)
    assert found.dtype.itemsize <= 12


@pytest.mark.parametrize(
    "y",
    [
        array_api_strict.asarray(NUMBERS),
        torch.tensor(NUMBERS),
        list(torch.tensor(NUMBERS)),
        list(map(np.array, NUMBERS)),
        array.array("q", NUMBERS),
        memoryview(array.array("q", NUMBERS)),
        np.array(NUMBERS, dtype=">i4"),
        np.ma.array(NUMBERS),
        np.array(NUMBERS, dtype=np.uint64),
        [3, 1.0, 3],
    ],
)
def test_numbers_of_any_type_are_integers(y):
    found = as_labels(y)
    assert (found.tolist(), found.dtype.kind, found.dtype.isnative) == (NUMBERS, "i", True)


def test_a_range_is_a_list_of_labels():
    assert as_labels(range(2, 5)).tolist() == [2, 3, 4]


@pytest.mark.parametrize(
    "y",
    [
        [["a"], ["b"], ["a"]],
        [("a",), ("b",), ("a",)],
        [np.array(["a"]), np.array(["b"]), np.array(["a"])],
        np.array([["a"], ["b"], ["a"]]),
        pd.DataFrame({"label": TEXT}),
        pl.DataFrame({"label": TEXT}),
        pa.table({"label": TEXT}),
    ],
)
def test_a_column_is_taken_with_a_warning(y):
    with pytest.warns(UserWarning, match="A column-vector y was passed"):
        assert as_labels(y).tolist() == TEXT


@pytest.mark.parametrize(
    "y",
    [{"a", "b"}, {"a": 1}, "ab", b"ab", None, 3, np.array("a"), [["a", "b"], ["b", "a"]], pd.DataFrame([[1, 2]])],
)
def test_what_is_no_list_of_labels_is_refused_in_a_sentence(y):
    with pytest.raises(ValueError, match=r"^Input y .*one label for each row"):
        as_labels(y)


@pytest.mark.parametrize(
    "y",
    [
        ["a", None],
        [1, None],
        [1.0, float("nan")],
        np.ma.array([1, 2], mask=[False, True]),
        np.ma.array(["a", "b"], mask=[False, True]),
        np.ma.array([1.0, 2.0], mask=[False, True]),
        np.array(["a", None], dtype=np.dtypes.StringDType(na_object=None)),
        np.array(["a", np.nan], dtype=np.dtypes.StringDType(na_object=np.nan)),
        np.array(["2020-01-01", "NaT"], "M8[D]"),
        pa.array(["a", None]),
        pa.array([1, None]),
        pl.Series([1, None]),
        pl.Series([True, None]),
        pd.Series(["a", None], dtype="string[python]"),
        pd.Series(["a", None], dtype="str"),
    ],
)
@pytest.mark.parametrize("any_type", [False, True])
def test_a_missing_label_is_named_whatever_marks_it(y, any_type):
    with pytest.raises(ValueError, match="contains .* at index 1; give every row a label"):
        as_labels(y, any_type=any_type)


# ---- labels: values ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("members", [StrMember, StrEnumMember, IntMember])
def test_members_of_an_enumeration_are_the_text_or_integer_that_they_equal(members):
    found = as_labels(list(members))
    assert found.tolist() == [member.value for member in members]
    assert {type(label) for label in found.tolist()} <= {str, int}
    assert len(np.unique(as_labels(np.array(list(members), dtype=object)))) == 3
    assert type(plain_label(next(iter(members)))) in (str, int)


def test_members_that_equal_nothing_are_refused_with_the_cure():
    with pytest.raises(ValueError, match=r"neither text nor integer; give its value \(label.value\)"):
        as_labels(list(enum.Enum("Plain", {"A": "a"})))


@pytest.mark.parametrize("make", [list, pd.Series, pa.array, pl.Series, lambda y: np.array(y, np.dtypes.StringDType())])
def test_a_nul_at_the_end_is_kept_in_every_container_and_in_json(make):
    y = ["a\0", "a", "\0", ""]
    found = as_labels(make(y))
    assert found.tolist() == y
    assert labels_from_json(labels_to_json(np.unique(found))).tolist() == sorted(y)


def test_long_labels_take_no_more_than_their_own_memory():
    y = ["x" * (WIDEST + 1)] + ["short"] * 1000
    assert as_labels(y).dtype == object
    assert as_labels(["x" * WIDEST]).dtype == f"<U{WIDEST}"
    assert labels_from_json(labels_to_json(as_labels(y))).tolist() == y
    # A width that suits one label must not be given to millions.
    assert as_labels(["x" * 100] + ["y"] * 200_000).dtype == object


@pytest.mark.parametrize("length", [LONGEST + 1, 10**7])
def test_a_label_has_a_range(length):
    text = "x" * length
    for learn in (
        lambda: PrototypicalClassifier().fit([[0.0], [1.0]], ["a", text]),
        lambda: PrototypicalClassifier().fit([[0.0]], ["a"]).rename_class("a", text),
        lambda: PrototypeIndex().add([[0.0]], [text]),
        lambda: LabeledImages(["a.png"], [text]),
        lambda: FaissStore("dot", "f", d=1).add([Record("a", [0.0], text)]),
    ):
        with pytest.raises(ValueError, match=rf"has {length} characters .*a label may have {LONGEST}, so shorten it"):
            learn()
    assert PrototypicalClassifier().fit([[0.0]], [text[:LONGEST]]).predict([[1.0]]).tolist() == [text[:LONGEST]]


def test_a_label_longer_than_all_is_looked_for_without_widening_the_others():
    index = PrototypeIndex().add(np.eye(3), ["a", "b", "c"])
    with pytest.raises(ValueError, match="no key has the label"):
        index.remove(["x" * LONGEST])


def test_json_holds_labels_of_known_types_in_the_width_that_they_need():
    assert labels_from_json({"dtype": "<U50", "values": ["a"]}).dtype == "<U1"
    assert labels_from_json({"dtype": "|i1", "values": [1]}).dtype == np.int8
    assert labels_from_json({"dtype": "<f8", "values": [1]}).dtype == np.float64
    for dtype, values in (
        ("<U1", [1]),
        ("<U500000000", ["a"]),
        ("<i8", ["a"]),
        ("|b1", [2]),
        ("|V8", ["a"]),
        ("O8,O8", ["a"]),
        (["<U1"], ["a"]),
        ("<U1", "a"),
        ("<U1", ["ab"]),
        ("|i1", [300]),
        ("<U1", [["a"]]),
        ("|O", [None]),
    ):
        with pytest.raises(ValueError, match="label"):
            labels_from_json({"dtype": dtype, "values": values})


# ---- the same rules in every room ----------------------------------------------------------------------------------

X3 = np.eye(3)


def _estimator(y):
    return PrototypicalClassifier().fit(X3, y).predict(X3)


def _images(y):
    return LabeledImages(np.zeros((3, 8, 8), np.uint8), y).labels


def _index(y):
    return PrototypeIndex().add(X3, y).search(X3)[0].ravel()


def _sampler(y):
    labels = [*y, *y]
    episode = EpisodeSampler(labels, 3, 1, 1, seed=0)[0]
    return as_labels(labels)[np.sort(episode.support) % 3]


def _evaluation(y):
    return evaluate("prototypical", np.eye(3).repeat(2, 0), [y[0], y[0], y[1], y[1], y[2], y[2]], n_way=3, n_query=1,
                    n_episodes=2).classes  # fmt: skip


def _store(y):
    store = FaissStore("cosine", "f", d=3)
    store.add([Record(str(i), x, label) for i, (x, label) in enumerate(zip(X3, y, strict=True))])
    for i, label in enumerate(y):
        assert [match.id for match in store.search(X3[:1], where={"label": label})[0]] == [str(i)]
    return np.array([row[0].label for row in store.search(X3, 1)], dtype=object)


ROOMS = {f.__name__: f for f in (_estimator, _images, _index, _sampler, _evaluation, _store)}


@pytest.mark.parametrize("room", ROOMS.values(), ids=ROOMS)
@pytest.mark.parametrize("members", [StrMember, StrEnumMember, IntMember], ids=["str, Enum", "StrEnum", "IntEnum"])
def test_members_stay_apart_in_every_room(room, members):
    found = room(list(members)).tolist()
    assert set(found) == {member.value for member in members}
    assert {type(label) for label in found} <= {str, int}


@pytest.mark.parametrize("room", [room for name, room in ROOMS.items() if name != "_store"])
def test_a_nul_at_the_end_stays_in_every_room(room):
    assert set(room(["a\0", "a", "b"]).tolist()) == {"a\0", "a", "b"}


@pytest.mark.parametrize("room", [_estimator, _images, _index])
@pytest.mark.parametrize(
    "make", [lambda y: pd.DataFrame({"y": y}), pa.array, pl.Series, iter, lambda y: [[v] for v in y]]
)
def test_containers_are_taken_in_every_room(room, make):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        assert room(make(["a", "b", "c"])).tolist() == ["a", "b", "c"]


@pytest.mark.parametrize(
    "where", [np.array(["a", "b"]), pd.Series(["a", "b"]), ("a", "b"), {"a", "b"}, pa.array(["a", "b"])]
)
def test_a_filter_takes_the_same_containers(where):
    store = FaissStore("dot", "f", d=1)
    store.add([Record(label, [1.0], np.str_(label)) for label in "abc"])
    assert [match.id for match in store.search([[1.0]], where={"label": where})[0]] == ["a", "b"]


def test_a_column_warns_as_scikit_learn_does():
    from sklearn.exceptions import DataConversionWarning

    with pytest.warns(DataConversionWarning):
        PrototypicalClassifier().fit([[0.0], [1.0]], [["a"], ["b"]])


# ---- embeddings ----------------------------------------------------------------------------------------------------

ROWS = [[1.0, 2.0], [3.0, 4.0]]
FIXED = pa.FixedSizeListArray.from_arrays(pa.array([1.0, 2.0, 3.0, 4.0], pa.float32()), 2)
VALUES = {
    "list": ROWS,
    "generator": ROWS,
    "dict values": dict(enumerate(ROWS)).values(),
    "array API": array_api_strict.asarray(ROWS),
    "tensor": torch.tensor(ROWS, requires_grad=True),
    "bfloat16": torch.tensor(ROWS, dtype=torch.bfloat16, requires_grad=True),
    "8-bit float": torch.tensor(ROWS).to(torch.float8_e4m3fn),
    "list of tensors": [torch.tensor(row, requires_grad=True) for row in ROWS],
    "list of bfloat16": [torch.tensor(row, dtype=torch.bfloat16) for row in ROWS],
    "frame": pd.DataFrame(ROWS),
    "polars frame": pl.DataFrame(ROWS, orient="row"),
    "Arrow table": pa.table({"p": [1.0, 3.0], "q": [2.0, 4.0]}),
    "Series of lists": pd.Series(ROWS, index=[5, 6]),
    "Series of arrays": pd.Series(list(np.float32(ROWS))),
    "frame of one column of vectors": pd.DataFrame({"vector": ROWS}),
    "objects": pd.Series(ROWS).to_numpy(),
    "column of objects": pd.DataFrame({"vector": ROWS}).to_numpy(),
    "Arrow dtype": pd.Series(ROWS, dtype=pd.ArrowDtype(pa.list_(pa.float32(), 2))),
    "Arrow fixed-size lists": FIXED,
    "Arrow lists": pa.array(ROWS),
    "Arrow chunks": pa.chunked_array([FIXED[:1], FIXED[1:]]),
    "Arrow table of vectors": pa.table({"vector": FIXED}),
    "Arrow scalars": list(FIXED),
    "polars lists": pl.Series(ROWS),
    "polars array": pl.Series(ROWS, dtype=pl.Array(pl.Float32, 2)),
    "polars frame of vectors": pl.DataFrame({"vector": ROWS}),
}


@pytest.mark.parametrize("name", VALUES)
def test_embeddings_are_the_same_in_every_container(name):
    def make():
        return iter(ROWS) if name == "generator" else VALUES[name]

    found = as_values(make())
    assert (found.tolist(), found.dtype.kind) == (ROWS, "f")
    y = ["a", "b"]
    assert PrototypicalClassifier().fit(make(), y).predict(make()).tolist() == y
    assert PrototypeIndex().add(make(), y).search(make())[0].ravel().tolist() == y
    store = FaissStore("sqeuclidean", "f", d=2)
    store.add([Record(label, row, label) for label, row in zip(y, torch.tensor(ROWS, requires_grad=True), strict=True)])
    assert [row[0].id for row in store.search(make(), 1)] == y
    assert evaluate("prototypical", as_values(make()).repeat(2, 0), ["a", "a", "b", "b"], n_way=2, n_query=1,
                    n_episodes=2).mean == 1  # fmt: skip


@pytest.mark.parametrize("name", ["Arrow fixed-size lists", "polars array", "Series of arrays", "bfloat16"])
def test_embeddings_keep_their_precision(name):
    assert as_values(VALUES[name]).dtype == np.float32


@pytest.mark.parametrize(
    "x",
    [
        [ROWS[0], None],
        pd.Series([ROWS[0], None]),
        pd.DataFrame({"vector": [ROWS[0], None]}),
        pa.array([ROWS[0], None], pa.list_(pa.float32(), 2)),
        pl.Series([ROWS[0], None], dtype=pl.Array(pl.Float32, 2)),
        pd.DataFrame({"p": pd.array([1.0, None], "Float64"), "q": [2.0, 4.0]}),
        np.ma.array(ROWS, mask=[[False, False], [True, False]]),
    ],
)
def test_a_missing_vector_is_named_or_answered_as_unknown(x):
    with pytest.raises(ValueError, match="contains NaN at row 1, column 0; drop or repair that row"):
        PrototypicalClassifier().fit(x, ["a", "b"])
    with pytest.raises(ValueError, match="the array of keys contains NaN at row 1"):
        PrototypeIndex().add(x)
    model = PrototypicalClassifier(on_error="unknown").fit(ROWS, ["a", "b"])
    assert model.predict(x).tolist() == ["a", "unknown"]


@pytest.mark.parametrize(
    ("x", "error", "match"),
    [
        ([[1.0, 2.0], [3.0]], ValueError, r"row 1 of X has shape \(1,\), and row 0 has \(2,\)"),
        (pd.Series([[1.0], [2.0], [3.0, 4.0]]), ValueError, r"row 2 of X has shape \(2,\)"),
        ([[1.0, 2.0], "[3, 4]"], TypeError, r"row 1 of X is str, '\[3, 4\]'; expected numbers"),
        ("[1, 2]", TypeError, "X is not an array of numbers: found '"),
        ({"a": 1}, TypeError, "X is not an array of numbers"),
    ],
)
def test_what_are_no_embeddings_is_told_in_a_sentence(x, error, match):
    with pytest.raises(error, match=match):
        PrototypicalClassifier().fit(x, ["a", "b"])


def test_names_of_features_are_kept_where_columns_are_features():
    frame = pd.DataFrame(ROWS, columns=["p", "q"])
    for table in (frame, pl.DataFrame(frame), pa.Table.from_pandas(frame)):
        assert PrototypicalClassifier().fit(table, ["a", "b"]).feature_names_in_.tolist() == ["p", "q"]
    model = PrototypicalClassifier().fit(pd.DataFrame({"vector": ROWS}), ["a", "b"])
    assert not hasattr(model, "feature_names_in_")
    assert model.n_features_in_ == 2


@pytest.mark.parametrize(
    "weight", [[1, 2], pa.array([1.0, 2.0]), pl.Series([1, 2]), torch.tensor([1.0, 2.0]), iter([1, 2])]
)
def test_weights_come_in_the_same_containers(weight):
    assert check_sample_weight(weight, np.array(ROWS)).tolist() == [1.0, 2.0]


def test_an_array_of_numbers_is_not_copied():
    x = np.zeros((3, 2), np.float32)[:, ::-1]
    assert as_values(x) is x
    y = np.array([3, 1])
    assert as_labels(y) is y


def test_a_device_needs_nothing_but_numpy_for_it():
    code = (
        "import sys; import fewshot.utils.labels, fewshot.utils.values; "
        "sys.exit(bool({'torch', 'sklearn', 'pandas', 'pyarrow'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_answers_are_held_against_labels_in_any_container():
    model = PrototypicalClassifier().fit(X3, list(StrMember))
    for y in (list(StrMember), pa.array(["Sp", "El", "S0"]), pl.Series(["Sp", "El", "S0"])):
        assert model.score(X3, y) == 1
    assert model.score(X3, ["Sp", "El", "El"], pl.Series([1, 1, 2])) == 0.5


def test_ids_come_in_the_same_containers():
    store = FaissStore("dot", "f", d=1)
    store.add([Record(name, [1.0]) for name in (*StrMember, np.str_("x"), "y")])
    assert {type(record.id) for record in store.snapshot()} == {str}
    assert (
        store.remove(pa.array(["x", "y"])) + store.remove(pd.Series(["Sp"])) + store.remove([StrMember.ELLIPTIC]) == 4
    )


def test_text_is_no_embedding():
    with pytest.raises(TypeError, match="X has dtype <U6; expected real numbers"):
        evaluate("prototypical", np.array([["[1, 2]"]] * 4), [0, 0, 1, 1], n_way=2, n_query=1)
