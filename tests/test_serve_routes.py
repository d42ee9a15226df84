"""Trust, suggestions and archives over HTTP: the same as in Python, and nothing more than was asked."""

import io
import re
import time
import zipfile

import numpy as np
import pytest

from fewshot import Embedder, FewShotImageClassifier, FewShotModel
from fewshot.runtime import load
from fewshot.serve import drift
from tests.photographs import photos, quick_embedder
from tests.serving import files, pictures, png, running, said, taught

TEMPLES, FLOWERS = pictures(8)[:8], pictures(8)[8:]


@pytest.fixture
def client(tmp_path):
    with running(taught(tmp_path / "model", 8)) as found:
        yield found


def test_check_says_what_the_model_says(client, tmp_path):
    found, wanted = client.get("/v1/check").json(), FewShotModel.load(tmp_path / "model").check()
    assert found["accuracy"] == pytest.approx(wanted.accuracy)
    assert found["balanced_accuracy"] is None  # as many pictures of each class
    assert not wanted.is_uneven
    assert found["interval"] == pytest.approx(wanted.interval)
    assert found["text"] == str(wanted)
    assert {one["class"] for one in found["classes"]} == {"temple", "flower"}
    known = {one["id"]: one["class"] for one in client.get("/v1/examples").json()["examples"]}
    for one in found["mistakes"]:
        assert known[one["example"]] == one["class"] != one["answer"]
        assert set(one["neighbours"]) <= known.keys()


def test_what_cannot_be_checked_is_said(tmp_path):
    with running(tmp_path / "new") as client:
        said(client.get("/v1/check"), 409, "empty")
        said(client.get("/v1/suspects"), 409, "empty")
        said(client.get("/v1/model/download"), 409, "empty")
        client.post("/v1/classes", data={"name": "x"}, files=files(TEMPLES[0]))
        said(client.get("/v1/check"), 409, "too_few")
        told = said(client.get("/v1/rejection?reject=balanced"), 409, "no_rejection")
        assert told == "the balanced rule needs a threshold; add a second class"
        assert client.get("/v1/suspects").json()["suspects"] == []
        for i, noise in enumerate(TEMPLES[:1] + FLOWERS[:2], 1):
            client.post("/v1/classes", data={"name": f"class {i}"}, files=files(noise))
        client.delete("/v1/classes/x")
        client.delete("/v1/classes/class%203")
        told = said(client.put("/v1/rejection", json={"reject": "balanced"}), 409, "no_rejection")
        assert told == "the balanced rule needs queries of known classes; give some class a second image"
        (note,) = client.post("/v1/predict?coverage=0.9", files=files(FLOWERS[1])).json()["notes"]
        assert note == "every class has one image, so none can be left out; add a second to some"


def test_suspects_have_a_reason_and_a_neighbour(client):
    client.post("/v1/classes", data={"name": "temple"}, files=files(FLOWERS[0]))  # wrong, and a copy
    found = client.get("/v1/suspects").json()["suspects"]
    (wrong,) = (one for one in found if one["name"].startswith("0.png"))
    assert "the same as" in wrong["reason"]
    assert client.delete(f"/v1/examples/{wrong['id']}").status_code == 200


def test_what_another_command_has_learned_is_not_learned_again(client):
    for name, learned in (("temple", 0), ("flower", 1)):  # another class may have it, too
        found = client.post("/v1/classes", data={"name": name}, files=files(TEMPLES[0])).json()
        assert (found["learned"], found["copies"]) == (learned, 1 - learned)
        assert found["elsewhere"] == [{"index": 0, "name": "0.png", "class": "temple"}] * learned


def test_the_history_counts_what_was_learned(client):
    client.post(
        "/v1/classes", data={"name": "temple"}, files=files(TEMPLES[0], pictures(1, seed=9)[0])
    ).raise_for_status()
    assert client.get("/v1/history").json()["versions"][-1]["note"] == "add 1 image of temple"


@pytest.mark.parametrize("ids", [[*map(str, range(9))], None], ids=["of names", "of one name"])
def test_a_copy_is_shown_beside_its_twin(tmp_path, ids):
    images, labels = photos(4)
    model = FewShotImageClassifier(quick_embedder())
    with pytest.warns(UserWarning, match="learned already or twice"):
        model.fit([*images, images[0]], [*labels, labels[0]], ids=ids)
    model.save(tmp_path / "m")
    with running(tmp_path / "m") as client:
        (copy,) = (one for one in client.get("/v1/suspects").json()["suspects"] if one["reason"].startswith("the same"))
        shown = {one["id"]: one["class"] for one in client.get("/v1/examples").json()["examples"]}
        assert copy["neighbour"] != copy["id"]
        assert copy["neighbour_class"] == shown[copy["neighbour"]] == copy["class"]


def test_suggest_orders_a_pool_with_and_without_classes(client, tmp_path):
    pool = pictures(3, seed=5)
    order = client.post("/v1/suggest", params={"k": 3}, files=files(*pool, TEMPLES[0])).json()["order"]
    assert len({one["index"] for one in order}) == 3
    assert 6 not in {one["index"] for one in order}  # that one is learned already
    assert all(one["reason"] for one in order)
    embedded = client.post("/v1/embed", files=files(*pool)).json()["embeddings"]
    again = client.post("/v1/suggest", params={"k": 3}, json={"embeddings": embedded}).json()["order"]
    assert [one["index"] for one in again] == [one["index"] for one in order]
    said(client.post("/v1/suggest", params={"strategy": "x"}, files=files(*pool)), 422, "invalid")
    with running(tmp_path / "new") as empty:
        assert len(empty.post("/v1/suggest", files=files(*pool)).json()["order"]) == 6
        assert len(empty.post("/v1/suggest", json={"embeddings": embedded}).json()["order"]) == 6
        said(empty.post("/v1/classes", json={"name": "owl", "embeddings": embedded}), 422, "invalid")


def test_embeddings_are_those_of_the_embedder(client):
    broken = TEMPLES[0][:200]
    found = client.post("/v1/embed", files=files(TEMPLES[0], broken)).json()
    wanted = quick_embedder().transform([TEMPLES[0]])[0]
    assert found["embeddings"][0] == pytest.approx(wanted.tolist(), abs=1e-5)
    assert found["embeddings"][1] is None
    assert [one["index"] for one in found["errors"]] == [1]
    assert found["fingerprint"] == quick_embedder().fingerprint


def test_rejection_is_told_set_and_undone(client):
    costs = client.get("/v1/rejection", params={"reject": 0.1}).json()["costs"]
    assert 0 <= costs["unknown_accepted"] <= 0.1
    low, high = costs["known_refused_interval"]
    assert low <= costs["known_refused"] <= high
    assert client.put("/v1/rejection", json={"reject": "balanced"}).json()["can_undo"]
    assert client.get("/v1/model").json()["rejection"] == "balanced"
    noise = np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8)
    from PIL import Image

    (one,) = client.post("/v1/predict", files=files(png(Image.fromarray(noise)))).json()["answers"]
    assert one["unknown"] == (one["label"] is None)
    assert one["top"][0]["label"] in ("flower", "temple")
    client.post("/v1/undo")
    assert client.get("/v1/model").json()["rejection"] is None
    for wrong in ("x", -1, 2, "nan", "1e400", None, [], ""):
        assert client.put("/v1/rejection", json={"reject": wrong}).status_code == 422
    client.put("/v1/rejection", json={"reject": 0.05})
    assert client.get("/v1/history").json()["versions"][-1]["note"] == "reject 5%", "as it is written everywhere"
    assert client.put("/v1/rejection", json={"reject": "off"}).status_code == 200


def test_while_unknown_is_an_answer_no_class_has_that_name_and_one_class_answers(client):
    client.put("/v1/rejection", json={"reject": "auto"})
    told = "'unknown' is the answer to images of no class, so no class can have this name; choose another"
    assert said(client.post("/v1/classes", data={"name": "unknown"}, files=files(TEMPLES[0])), 422, "invalid") == told
    assert said(client.patch("/v1/classes/temple", json={"name": "unknown"}), 422, "invalid") == told
    client.put("/v1/rejection", json={"reject": "off"})
    client.post("/v1/classes", data={"name": "unknown"}, files=files(TEMPLES[0]))
    told = told.replace("choose another", "rename the class")
    assert said(client.put("/v1/rejection", json={"reject": "auto"}), 409, "no_rejection") == told
    client.delete("/v1/classes/unknown")
    client.put("/v1/rejection", json={"reject": "auto"})
    assert client.delete("/v1/classes/temple").status_code == 200
    found = client.post("/v1/predict", files=files(FLOWERS[0])).json()
    assert found["answers"][0]["label"] == "flower"
    assert "nothing is answered as unknown: " in found["notes"][0]


def unpacked(response, folder):
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        archive.extractall(folder)
    return folder


def test_a_download_is_the_classifier_without_its_past(client, tmp_path):
    client.delete("/v1/classes/temple")
    response = client.get("/v1/model/download")
    assert response.headers["content-disposition"] == 'attachment; filename="model.zip"'
    model = FewShotModel.load(unpacked(response, tmp_path / "copy"))
    assert model.classes_.tolist() == ["flower"]
    assert len(FewShotModel.history(tmp_path / "copy")) == 1


@pytest.mark.parametrize("name", ['a"; filename=b.exe', "a\r\nX-Forged: 1", "ü ☃", "..."])
def test_the_name_of_a_download_is_plain(tmp_path, name):
    with running(taught(tmp_path / name)) as client:
        for path in ("/v1/model/download", "/v1/model/device"):
            response = client.get(path)
            assert re.fullmatch(r'attachment; filename="[A-Za-z0-9_.-]+\.zip"', response.headers["content-disposition"])
            assert "x-forged" not in response.headers


def test_the_form_for_devices_answers_as_the_service(client, tmp_path):
    device = load(unpacked(client.get("/v1/model/device"), tmp_path / "device"))
    images = photos(3)[0]
    answers = client.post("/v1/predict", files=files(*map(png, images))).json()["answers"]
    assert [one["label"] for one in answers] == device.predict(images).tolist()


def zipped(folder, top=""):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in folder.iterdir():
            archive.write(path, f"{top}{path.name}")
    return file.getvalue()


def send(client, content):
    return client.post("/v1/model/load", content=content, headers={"Content-Type": "application/zip"})


@pytest.mark.parametrize("top", ["", "model/"])
def test_an_upload_takes_the_place_of_the_classifier_and_can_be_undone(client, tmp_path, top):
    embedder = Embedder("conv4", weights="random", img_size=28, progress=False)
    FewShotImageClassifier(embedder).fit(photos(2)[0], ["t", "t", "f", "f"]).save(tmp_path / "other")
    assert send(client, zipped(tmp_path / "other", top)).json()["can_undo"]
    assert client.post("/v1/predict", files=files(png(photos(2)[0][0]))).json()["answers"][0]["label"] == "t"
    assert client.post("/v1/classes", data={"name": "x"}, files=files(TEMPLES[5])).status_code == 201
    assert client.get("/v1/model").json()["backbone"] == "conv4, 28 x 28"
    assert client.post("/v1/undo").json()["can_undo"]
    client.post("/v1/undo")
    assert client.post("/v1/predict", files=files(TEMPLES[0])).json()["answers"][0]["label"] == "temple"
    assert client.post("/v1/classes", data={"name": "x"}, files=files(TEMPLES[5])).status_code in (200, 201)


def archive_of(entries):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return file.getvalue()


def test_what_an_upload_replaced_is_there_after_many_labels(client, tmp_path):
    before = client.get("/v1/model").json()["version"]
    FewShotImageClassifier(quick_embedder()).fit(photos(2)[0], ["t", "t", "f", "f"]).save(tmp_path / "other")
    send(client, zipped(tmp_path / "other"))
    for image in photos(6, seed=9)[0]:
        client.post("/v1/classes", data={"name": "t"}, files=files(png(image)))
    versions = [client.post("/v1/undo").json()["version"] for _ in range(13)]
    assert versions[-1] == before


def test_what_a_stranger_uploads_is_checked_and_stays_in_its_place(client, tmp_path):
    before = client.get("/v1/model").json()["version"]
    whole = zipped(tmp_path / "model")
    parts = [(path.name, path.read_bytes()) for path in (tmp_path / "model").iterdir()]
    forged = archive_of([(name, content.replace(b"temple", b"tempel")) for name, content in parts])
    for content in (
        b"", b"PK", whole[:-100], forged, archive_of([("../../evil.py", "x")]), archive_of([("/etc/evil", "x")]),
        archive_of([("manifest.json", "{}")]), archive_of([("manifest.json", "{}"), ("a/manifest.json", "{}")]),
        archive_of([*parts, ("evil.py", "x")]), archive_of([*parts, ("a/..", "x")]),
        archive_of([(f"memory-{i:016x}.safetensors", "") for i in range(2000)]), archive_of([("evil.py", "x")]),
    ):  # fmt: skip
        found = send(client, content)
        message = said(found, 422, "invalid")
        assert "/tmp" not in message
    assert client.get("/v1/model").json()["version"] == before
    assert not list(tmp_path.rglob("evil*"))
    for kind in ({}, {"Content-Type": "text/plain"}, {"Content-Type": "multipart/form-data; boundary=x"}):
        said(client.post("/v1/model/load", content=whole, headers=kind), 415, "unsupported")


def test_an_upload_is_bounded_packed_and_unpacked(tmp_path):
    with running(taught(tmp_path / "model"), max_archive=100_000) as client:
        said(send(client, b"x" * 200_000), 413, "too_large")
        said(send(client, archive_of([("manifest.json", b" " * 10_000_000)])), 413, "too_large")


def test_figures_are_told(client):
    client.post("/v1/predict", params={"neighbours": 1}, files=files(TEMPLES[0], FLOWERS[0]))
    client.get("/v1/nothing/of/the/kind")
    for name in ("app.js", "icon.svg"):
        client.get(f"/page/{name}")
    found = client.get("/metrics").text
    for line in (
        'fewshot_requests_total{method="POST",route="/v1/predict",status="200"} 1.0',
        'fewshot_answers_total{kind="known"} 2.0', "fewshot_nearest_similarity_count 2.0", "fewshot_classes 2.0",
        "fewshot_examples 16.0", "fewshot_queue_images 0.0", 'route="none",status="404"', '"/page/*",status="200"} 2.0',
    ):  # fmt: skip
        assert line in found
    assert "fewshot_usual_similarity " in found
    assert "kind/of" not in found


def test_drift_is_measured_of_predictions_that_ask_for_no_neighbours(client, monkeypatch):
    def told():
        return [float(re.search(rf"^fewshot_nearest_similarity_{part} (.*)$", client.get("/metrics").text, re.M)[1])
                for part in ("count", "sum")]  # fmt: skip

    def wait_for(n):
        end = time.monotonic() + 10
        while told()[0] < n and time.monotonic() < end:
            time.sleep(0.01)
        assert told() == [n, pytest.approx(n * similarity)]

    monkeypatch.setattr(drift, "PAUSE", 1e9)
    asked = client.post("/v1/predict?neighbours=1", files=files(FLOWERS[7])).json()
    similarity = asked["answers"][0]["neighbours"][0]["similarity"]
    wait_for(1)
    client.post("/v1/predict", files=files(b"no image", FLOWERS[7]))  # the one that can be read
    wait_for(2)
    for _ in range(3):  # one a second is enough
        client.post("/v1/predict", files=files(FLOWERS[7]))
    wait_for(2)
