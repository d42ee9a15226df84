"""Labels from and for the tools that people label with."""

import csv
import json
import os
import shutil
import unicodedata
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot import FewShotImageClassifier
from fewshot.errors import UnknownNameError
from fewshot.integrations.class_folders import read_class_folders
from fewshot.integrations.label_formats import WRITERS, read_labels, write_labels
from fewshot.integrations.label_studio import answer_label_studio, read_label_studio
from fewshot.integrations.labels import Task, answered, taught
from tests.photographs import LABELS, quick_embedder, write_photos


@pytest.fixture
def paths(tmp_path):
    """Four photographs with a name that needs quoting."""
    found = write_photos(tmp_path / "pool", 2)
    odd = tmp_path / "pool" / "a b&c#é%41.png"
    os.rename(found[0], odd)
    return [str(odd), *found[1:]]


@pytest.fixture
def model(tmp_path):
    learned = write_photos(tmp_path / "learned", 3, seed=1)
    return FewShotImageClassifier(quick_embedder()).fit(learned, [label for label in LABELS for _ in range(3)])


def annotated(tasks, labels, **more):
    """Return tasks as Label Studio exports them, labelled by one person; a label may be a list, or None to skip."""
    found = []
    for i, (task, label) in enumerate(zip(tasks, labels, strict=True), start=1):
        names = label if isinstance(label, list) else [label]
        result = {"id": f"r{i}", "type": "choices", "origin": "manual", "from_name": "choice", "to_name": "image"}
        result = [] if label is None else [{**result, "value": {"choices": names}}]
        one = {"id": i, "completed_by": 1, "result": result, "was_cancelled": label is None, "ground_truth": False}
        found.append({**task, "id": i, "annotations": [{**one, "task": i, "lead_time": 4.2}], "project": 7, **more})
    return found


def written(tmp_path, content, name="export.json"):
    path = tmp_path / name
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize("format", WRITERS)
def test_labels_come_back_from_every_format(format, paths, tmp_path):
    tasks = [Task(path, label) for path, label in zip(paths, ["owl", "é <&\"'>", "7", "007"], strict=True)]
    place = tmp_path / "written" / {"label-studio": "tasks.json", "csv": "t.csv"}.get(format, "folder")
    write_labels([*tasks, Task(write_photos(tmp_path / "more", 1, seed=5)[0])], place, format)
    found = read_labels(place)
    expected = sorted((os.path.realpath(task.path), task.label) for task in tasks)
    assert sorted((os.path.realpath(path), label) for path, label in found.labelled) == expected
    assert len(found.unlabelled) == 1
    assert found.problems == []
    assert sorted(found.data.labels.tolist()) == ["007", "7", "owl", "é <&\"'>"]


def test_tasks_carry_pre_annotations_and_an_interface(paths, model, tmp_path):
    tasks = answered(model, [Task(path) for path in paths])
    assert [task.answer for task in tasks] == model.predict(paths).tolist()
    (tmp_path / "bad.png").write_bytes(b"no image")
    assert answered(model, [Task(str(tmp_path / "bad.png"), "owl")]) == [Task(str(tmp_path / "bad.png"), "owl")]
    write_labels(tasks, tmp_path / "tasks.json", "label-studio", root=tmp_path)
    rows = json.loads((tmp_path / "tasks.json").read_text(encoding="utf-8"))
    for row, task in zip(rows, tasks, strict=True):
        assert tmp_path / parse_qs(urlsplit(row["data"]["image"]).query)["d"][0] == Path(task.path)
        (prediction,) = row["predictions"]
        assert prediction["score"] == pytest.approx(task.probability)
        (result,) = prediction["result"]
        assert result == {
            "from_name": "choice", "to_name": "image", "type": "choices", "value": {"choices": [task.answer]},
        }  # fmt: skip
        assert row["annotations"] == []
    interface = (tmp_path / "tasks.xml").read_text(encoding="utf-8")
    assert '<Image name="image" value="$image"/>' in interface
    assert all(f'<Choice value="{task.answer}"/>' in interface for task in tasks)
    write_labels([Task(paths[0], "owl")], tmp_path / "few.json", "label-studio", classes=model.classes_.tolist())
    assert (tmp_path / "few.xml").read_text(encoding="utf-8").count("<Choice ") == 3
    with pytest.raises(ValueError, match="outside of root"):
        write_labels(tasks, tmp_path / "tasks.json", "label-studio", root=tmp_path / "learned")


def test_a_round_trip_through_label_studio_teaches_a_model(paths, model, tmp_path):
    pool = write_photos(tmp_path / "more", 6, seed=9)
    chosen = [Task(one.id) for one in model.suggest(pool, 4)]
    write_labels(answered(model, chosen), tmp_path / "tasks.json", "label-studio")
    tasks = json.loads((tmp_path / "tasks.json").read_text(encoding="utf-8"))
    truth = [Path(task.path).parent.name for task in chosen]
    found = read_labels(written(tmp_path, annotated(tasks, truth)))
    assert found.labelled == [(task.path, label) for task, label in zip(chosen, truth, strict=True)]
    before = model.n_support_.sum()
    assert model.partial_fit(found.data).n_support_.sum() == before + 4


def test_an_export_in_every_form_and_with_every_fault(paths, tmp_path):
    write_labels([Task(path) for path in paths], tmp_path / "tasks.json", "label-studio")
    tasks = json.loads((tmp_path / "tasks.json").read_text(encoding="utf-8"))
    export = annotated(tasks, ["owl", ["owl", "heron"], None, "heron"])
    gone = {"data": {"image": "/data/local-files/?d=no/such.png"}}
    remote = {"data": {"image": "https://example.com/a.png"}}
    export += [*annotated([gone, remote], ["owl", "owl"]), {"data": {"image": "x.png"}, "annotations": []}]
    two = annotated(tasks[3:], ["owl"])[0]["annotations"]
    export.append({**tasks[3], "id": 99, "annotations": two})  # a second person says something else
    export.append({"data": {}, "annotations": two})
    found = read_labels(written(tmp_path, export))
    assert found.labelled == [(paths[0], "owl")]
    assert found.unlabelled == [paths[2], "x.png"]
    reasons = dict(found.problems)
    assert "several labels: 'heron', 'owl'" in reasons[paths[1]]
    assert "several labels" in reasons[paths[3]]
    assert "no such file" in reasons["/data/local-files/?d=no/such.png"]
    assert "not a file of this machine" in reasons["https://example.com/a.png"]
    assert "names no image" in reasons["a row"]
    assert len(found.labelled) + len(found.unlabelled) + len(found.problems) == 8
    # What is marked as ground truth counts alone.
    export[-2]["annotations"][0]["ground_truth"] = True
    export[3]["annotations"].append(export[-2]["annotations"][0])
    assert (paths[3], "owl") in read_labels(written(tmp_path, export[:4])).labelled


def test_short_exports(paths, tmp_path):
    own = {"annotator": 1, "annotation_id": 4, "created_at": "now", "updated_at": "now", "lead_time": 2.5}
    rows = [{"image": path, "id": i, "choice": "owl", **own} for i, path in enumerate(paths)]
    rows[1]["choice"] = {"choices": ["owl", "heron"]}
    del rows[2]["choice"]
    found = read_labels(written(tmp_path, rows))
    assert found.labelled == [(paths[0], "owl"), (paths[3], "owl")]
    assert [image for image, _ in found.problems] == [paths[1]]
    assert found.unlabelled == [paths[2]]
    with open(tmp_path / "export.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["image", "id", "choice", *own])
        writer.writeheader()
        writer.writerows({k: json.dumps(v) if isinstance(v, dict) else v for k, v in row.items()} for row in rows)
    again = read_labels(tmp_path / "export.csv")
    assert (again.labelled, again.unlabelled, again.problems) == (found.labelled, found.unlabelled, found.problems)


@pytest.mark.parametrize(
    "names",
    ["path,label,answer", "image,label,likeliest", "id,label,likeliest", "image,class,why", "File,Category,note"],
)
def test_tables_that_are_written_here_are_read_without_naming_columns(paths, tmp_path, names):
    (tmp_path / "t.csv").write_text(f"{names}\n{paths[1]},owl,jay\n{paths[2]},,jay\n")
    found = read_labels(tmp_path / "t.csv")
    assert (found.labelled, found.unlabelled) == ([(paths[1], "owl")], [paths[2]])


def test_uploaded_images_are_found_by_their_names(paths, tmp_path):
    (tmp_path / "other").mkdir()
    shutil.copy(paths[2], tmp_path / "other" / "twice.png")
    shutil.copy(paths[2], tmp_path / "pool" / "twice.png")
    name = Path(paths[1]).name
    data = [{"data": {"photo": f"/data/upload/7/{name}"}} for name in (f"0a1b2c3d-{name}", "0a1b2c3d-twice.png")]
    found = read_labels(written(tmp_path, annotated(data, ["owl", "owl"])), images=tmp_path)
    assert found.labelled == [(paths[1], "owl")]
    assert len(found.problems) == 1  # there are two of that name


def test_several_controls_need_a_name(paths, tmp_path):
    export = annotated([{"data": {"image": path}} for path in paths], ["owl"] * 4)
    second = {"type": "choices", "from_name": "light", "to_name": "image", "value": {"choices": ["dark"]}}
    for task in export:
        task["annotations"][0]["result"][0]["from_name"] = "bird"
        task["annotations"][0]["result"].append(second)
    with pytest.raises(ValueError, match="'bird', 'light'"):
        read_labels(written(tmp_path, export))
    assert {label for _, label in read_labels(written(tmp_path, export), field="light").labelled} == {"dark"}
    with pytest.raises(ValueError, match="no label is in the field"):
        read_labels(written(tmp_path, export), field="wind")


def test_the_ml_backend_answers_what_label_studio_asks(paths, model):
    config = (
        '<View><Image name="img" value="$photo"/><Choices name="kind" toName="img"><Choice value="temple"/>'
        '<Choice value="flower"/></Choices></View>'
    )
    tasks = [{"id": i, "data": {"photo": f"/data/local-files/?d={path[1:]}"}} for i, path in enumerate(paths[1:])]
    request = {"tasks": [*tasks, {"data": {"photo": "/no/such.png"}}, {}, 5], "label_config": config, "project": "1"}
    found = answer_label_studio(model, request)
    assert set(found) == {"results", "model_version"}
    for path, one in zip(paths[1:], found["results"], strict=False):
        assert one["result"][0]["value"]["choices"] == model.predict([path]).tolist()
        assert (one["result"][0]["from_name"], one["result"][0]["to_name"]) == ("kind", "img")
        assert 0 < one["score"] <= 1
    assert [one["result"] for one in found["results"][3:]] == [[], [], []]
    json.dumps(found)
    lacking = config.replace('<Choice value="temple"/>', "").replace('<Choice value="flower"/>', '<Choice value="x"/>')
    assert not any(one["result"] for one in answer_label_studio(model, {**request, "label_config": lacking})["results"])
    with pytest.raises(ValueError, match="label_config"):
        answer_label_studio(model, {**request, "label_config": "<View>"})


def test_fiftyone_in_its_other_forms(paths, tmp_path):
    data = tmp_path / "set" / "data"
    data.mkdir(parents=True)
    for name in ("a", "b", "c", "d", "e"):
        shutil.copy(paths[1], data / f"{name}.png")
    labels = {"a": 1, "b": {"label": 0, "confidence": 0.5}, "c": None, "d": [0, 1], "e": 9}
    written(tmp_path / "set", {"classes": ["owl", "heron"], "labels": labels}, "labels.json")
    found = read_labels(tmp_path / "set")
    assert found.labelled == [(str(data / "a.png"), "heron"), (str(data / "b.png"), "owl")]
    assert found.unlabelled == [str(data / "c.png")]
    assert [Path(image).stem for image, _ in found.problems] == ["e", "d"] or len(found.problems) == 2
    many = {"_cls": "Classifications", "classifications": [{"label": "owl"}]}
    samples = [{"filepath": "data/a.png", "kind": many}, {"filepath": "data/b.png", "kind": None}]
    written(tmp_path / "set", {"samples": samples}, "samples.json")
    found = read_labels(tmp_path / "set", field="kind")
    assert found.labelled == [(str(data / "a.png"), "owl")]
    assert len(found.unlabelled) == 1


def test_folders_hold_links_in_the_classes_of_answers_or_labels(paths, model, tmp_path):
    tasks = answered(model, [Task(path) for path in paths])
    write_labels([*tasks, Task(paths[0])], tmp_path / "sorted", "folders")
    for task in tasks:
        assert (tmp_path / "sorted" / task.answer / Path(task.path).name).resolve() == Path(task.path)
    assert len(read_class_folders(tmp_path / "sorted").unlabelled) == 1
    with pytest.raises(ValueError, match="not empty"):
        write_labels(tasks, tmp_path / "sorted", "folders")
    write_labels([Task(path, "owl") for path in (paths[0], paths[0])], tmp_path / "copies", "folders", copy=True)
    assert not any(path.is_symlink() for path in (tmp_path / "copies" / "owl").iterdir())
    assert len(list((tmp_path / "copies" / "owl").iterdir())) == 2
    for bad in ("a/b", "..", "", " x", "x" * 300, "a\0b"):
        with pytest.raises(ValueError, match="cannot be the name of a folder"):
            write_labels([Task(paths[0], bad)], tmp_path / "bad", "folders")
        assert not (tmp_path / "bad").exists()


def test_labels_of_folders_and_tables_are_of_one_unicode_form(paths, tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "Wälder") for form in ("NFC", "NFD"))
    write_labels([Task(paths[0], decomposed)], tmp_path / "sorted", "folders")
    write_labels([Task(paths[0], decomposed)], tmp_path / "t.csv", "csv")
    for place in ("sorted", "t.csv"):
        assert [label for _, label in read_labels(tmp_path / place).labelled] == [composed]


def test_what_a_model_has_learned_is_exported_with_its_labels(model):
    learned = taught(model)
    assert [task.label for task in learned] == model.support_.labels.tolist()
    assert all(task.is_file for task in learned)
    with pytest.raises(ValueError, match="support was not kept"):
        taught(
            FewShotImageClassifier(quick_embedder(), keep_support=False).fit(
                [task.path for task in taught(model)][:2], [1, 2]
            )
        )


def test_a_table_alone_names_what_is_no_file(paths, tmp_path):
    model = FewShotImageClassifier(quick_embedder()).fit(paths[:2], ["owl", "jay"], ids=[f"a.jpg {'0f' * 8}", "b"])
    learned = taught(model)
    assert [task.is_file for task in learned] == [False, False]
    for format in set(WRITERS) - {"csv"}:
        with pytest.raises(ValueError, match=r"2 of 2 images are not\).* or give format='csv'"):
            write_labels(learned, tmp_path / "x", format)
    with pytest.warns(UserWarning, match="2 of 2 images are no files here"):
        write_labels(learned, tmp_path / "t.csv", "csv")
    assert (tmp_path / "t.csv").read_text() == "path,label,answer,probability\na.jpg,owl,,0.0\nb,jay,,0.0\n"


@settings(max_examples=100, deadline=None)
@given(st.recursive(st.none() | st.integers() | st.text(), lambda one: st.lists(one) | st.dictionaries(
    st.sampled_from(["data", "annotations", "result", "value", "choices", "image", "choice", "from_name", "type"]), one
)))  # fmt: skip
def test_a_file_of_a_stranger_is_read_or_refused(content):
    with suppress(ValueError):
        assert read_label_studio(content, "/nowhere").labelled == []


def test_mistakes(paths, tmp_path):
    for content, told in ((5, "no export"), ({"a": 1}, "no data set"), ([1], "no export")):
        with pytest.raises(ValueError, match=told):
            read_labels(written(tmp_path, content))
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    for name, told in (
        ("bad.json", "as JSON"),
        ("gone.json", "does not exist"),
        ("bad.csv", "expected path and label"),
    ):
        with pytest.raises(ValueError, match=told):
            read_labels(tmp_path / name)
    with pytest.raises(UnknownNameError, match="format"):
        write_labels([Task(paths[0])], tmp_path / "x", "coco")
    with pytest.raises(ValueError, match="no images"):
        write_labels([], tmp_path / "x", "csv")
    with pytest.raises(ValueError, match="no image has a usable label"):
        _ = read_labels(written(tmp_path, [])).data
