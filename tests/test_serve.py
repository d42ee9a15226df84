"""The service: what is taught answers in the next request, is saved before it is acknowledged, and can be undone."""

import asyncio
import base64
import errno
import io
import re
import resource
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from fewshot import Embedder, FewShotImageClassifier, FewShotModel, OwnEmbedder
from fewshot.cli import main
from fewshot.embedding.network import Embedded
from fewshot.errors import ArtifactError
from fewshot.images.sets import Promise
from fewshot.persistence import artifact, locking
from fewshot.serve import answering
from fewshot.serve.workshop import Workshop
from tests.photographs import blends, photos, quick_embedder
from tests.serving import files, pictures, png, running, said, taught

#: The first four of each are learned by `taught`; the last two are new.
TEMPLES, FLOWERS = (pictures(4)[i : i + 4] + pictures(2, seed=1)[i // 2 : i // 2 + 2] for i in (0, 4))


@contextmanager
def small_disk(n):
    """Let files grow to `n` bytes only, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return taught(tmp_path_factory.mktemp("served") / "model")


@pytest.fixture
def client(tmp_path):
    with running(taught(tmp_path / "model")) as found:
        yield found


def names(client):
    return {one["name"]: one["examples"] for one in client.get("/v1/classes").json()["classes"]}


def test_an_empty_classifier_learns_classes_and_answers_in_the_next_request(tmp_path):
    with running(tmp_path / "new") as client:
        assert client.get("/v1/model").json()["version"] == "empty"
        said(client.post("/v1/predict", files=files(TEMPLES[0])), 409, "empty")
        said(client.post("/v1/undo"), 409, "no_undo")
        assert not (tmp_path / "new").exists()
        first = client.post("/v1/classes", data={"name": "temple"}, files=files(*TEMPLES[:3]))
        assert (first.status_code, first.json()["learned"], first.json()["new"]) == (201, 3, True)
        assert FewShotModel.load(tmp_path / "new").n_support_.tolist() == [3]
        client.post("/v1/classes", data={"name": "flower"}, files=files(*FLOWERS[:3]))
        answers = client.post("/v1/predict", files=files(TEMPLES[0], FLOWERS[0])).json()["answers"]
        assert [one["label"] for one in answers] == ["temple", "flower"]
        assert names(client) == {"flower": 3, "temple": 3}


def test_what_a_class_holds_is_not_learned_twice_so_that_a_request_may_be_repeated(client):
    for learned in (2, 0):
        found = client.post("/v1/classes", data={"name": "arch"}, files=files(*TEMPLES[4:])).json()
        assert (found["learned"], found["copies"]) == (learned, 2 - learned)
    other = client.post("/v1/classes", data={"name": "door"}, files=files(TEMPLES[4])).json()
    assert other["learned"] == 1  # another class may have it, too
    assert len({one["id"] for one in client.get("/v1/examples").json()["examples"]}) == 11


def test_json_does_what_a_form_does(client):
    data = {"images": [{"data": base64.b64encode(FLOWERS[5]).decode(), "name": "../x/f.png"}]}
    form = client.post("/v1/predict", files=files(FLOWERS[5])).json()["answers"][0]
    plain = client.post("/v1/predict", json=data).json()["answers"][0]
    assert {**plain, "name": ""} == {**form, "name": ""}
    assert plain["name"] == "f.png"
    added = client.post("/v1/examples", json={"class": "flower", **data})
    assert (added.status_code, added.json()["learned"]) == (200, 1)


def test_an_answer_shows_the_nearest_examples_and_a_set(client):
    asked = {"top": 1, "neighbours": 3, "coverage": 0.5, "explain": True}
    (found,) = client.post("/v1/predict", params=asked, files=files(TEMPLES[0])).json()["answers"]
    assert len(found["top"]) == 1
    assert found["neighbours"][0]["label"] == "temple"
    assert found["neighbours"][0]["similarity"] == pytest.approx(1, abs=1e-6)
    assert len({one["id"] for one in found["neighbours"]}) == 3, "also of images of one name"
    assert isinstance(found["set"], list)
    assert found["margin"] is not None
    shown = client.get(f"/v1/examples/{found['neighbours'][0]['id']}/thumbnail")
    assert shown.headers["content-type"] in ("image/png", "image/jpeg")
    again = client.get(shown.request.url, headers={"If-None-Match": shown.headers["etag"]})
    assert again.status_code == 304
    late = client.post("/v1/predict", params={"coverage": 0.99}, files=files(TEMPLES[0])).json()
    assert late["answers"][0]["set"] is None
    assert "coverage 0.99 needs" in late["notes"][0]


def test_a_doubtful_answer_is_told_as_python_tells_it(tmp_path):
    sent, asked = [*photos(1, seed=1)[0], *blends(3, seed=7)], {"coverage": 0.9, "top": 1}
    with running(taught(tmp_path / "model", 8)) as client:
        found = client.post("/v1/predict", params=asked, files=files(*map(png, sent), b"no image")).json()["answers"]
        client.put("/v1/rejection", json={"reject": 0})
        unknown = client.post("/v1/predict", params=asked, files=files(*map(png, sent))).json()["answers"]
    model = FewShotModel.load(tmp_path / "model").set_params(reject=None)
    told = [one.doubtful for one in model.answer(sent, promise=Promise(0.9))]
    assert [one["doubtful"] for one in found] == [*told, False]
    assert {True, False} == set(told)
    assert any(one["unknown"] for one in unknown)
    assert not any(one["doubtful"] for one in unknown if one["unknown"])


def test_where_an_image_matches_is_shown_if_asked_for_as_python_explains_it(tmp_path):
    with running(taught(tmp_path / "model", learner="dn4")) as client:
        assert client.get("/v1/model").json()["compares_places"]
        plain = client.post("/v1/predict?explain=true", files=files(TEMPLES[5])).json()["answers"][0]
        assert "match" not in plain
        sent = files(TEMPLES[5], b"no image")
        found, unread = client.post("/v1/predict?matches=3&embeddings=true", files=sent).json()["answers"]
        given = {"embeddings": [found["embedding"]]}
        (again,) = client.post("/v1/predict?matches=1", json=given).json()["answers"]
        shown = [client.get(f"/v1/examples/{one['id']}/thumbnail") for one in found["match"]["examples"]]
        said(client.post("/v1/predict?matches=1", files=files(*TEMPLES, *FLOWERS, *TEMPLES)), 413, "too_large")
        said(client.post("/v1/predict?matches=1", json={"embeddings": 17 * given["embeddings"]}), 413, "too_large")
        assert client.post("/v1/predict", files=files(*TEMPLES, *FLOWERS, *TEMPLES)).status_code == 200
        said(client.post("/v1/predict?matches=7", files=sent), 422, "invalid")
    match = found["match"]
    expected = FewShotModel.load(tmp_path / "model").explain(TEMPLES[5]).match
    assert match["label"] == expected.label == found["likeliest"]
    np.testing.assert_allclose(match["places"], expected.query, atol=1e-3)
    assert match["examples"][0]["name"] == expected.id
    np.testing.assert_allclose(match["examples"][0]["places"], expected.support, atol=1e-3)
    assert len({one["id"] for one in match["examples"]}) == 3
    for picture in (match["picture"], *(one["picture"] for one in match["examples"])):
        assert max(Image.open(io.BytesIO(base64.b64decode(picture))).size) == 192
    assert [one.status_code for one in shown] == [200] * 3
    assert unread["match"] is None
    assert again["match"]["picture"] is None, "of an embedding there is none"
    np.testing.assert_allclose(again["match"]["places"], match["places"], atol=1e-3)


def test_other_classifiers_say_that_they_know_no_places(client):
    assert not client.get("/v1/model").json()["compares_places"]
    found = client.post("/v1/predict?matches=1", files=files(TEMPLES[5])).json()
    assert found["answers"][0]["match"] is None
    assert "dn4 and mutual-nearest" in found["notes"][0]


def test_one_unreadable_image_of_several_is_told_and_the_others_are_answered(client):
    broken = TEMPLES[0][: len(TEMPLES[0]) // 2]
    answers = client.post("/v1/predict", files=files(broken, FLOWERS[0])).json()["answers"]
    assert [one["label"] for one in answers] == [None, "flower"]
    assert answers[0]["error"]["code"] == "unreadable_image"
    found = client.post("/v1/classes", data={"name": "x"}, files=files(FLOWERS[4], broken)).json()
    assert (found["learned"], found["unreadable"][0]["index"]) == (1, 1)
    assert "image 0, 0.png" in said(client.post("/v1/predict", files=files(broken)), 422, "unreadable_image")


@pytest.mark.parametrize(("bad", "why"), [(b"", "is empty"), (b"no image", "is damaged, or not an image")])
def test_a_file_that_is_no_image_does_not_spoil_the_others(client, bad, why):
    found = client.post("/v1/predict", files=files(FLOWERS[0], bad, TEMPLES[0])).json()["answers"]
    assert [one["label"] for one in found] == ["flower", None, "temple"]
    assert why in found[1]["error"]["message"]
    found = client.post("/v1/embed", files=files(bad, FLOWERS[0])).json()
    assert (found["embeddings"][0], found["errors"][0]["index"], len(found["embeddings"])) == (None, 0, 2)
    found = client.post("/v1/suggest", params={"k": 2}, files=files(bad, FLOWERS[5])).json()
    assert [one["index"] for one in found["order"]] == [1]
    found = client.post("/v1/classes", data={"name": "x"}, files=files(bad, FLOWERS[5], TEMPLES[5])).json()
    assert (found["learned"], [one["index"] for one in found["unreadable"]]) == (2, [0])


def test_a_parameter_that_is_not_known_is_refused(client):
    sent = {"files": files(FLOWERS[0])}
    assert "expected top, coverage" in said(client.post("/v1/predict?k=5", **sent), 422, "invalid")
    assert "did you mean neighbours?" in said(client.post("/v1/predict?neighbors=2", **sent), 422, "invalid")
    assert "expected none" in said(client.get("/v1/model?k=5"), 422, "invalid")
    assert client.get("/?utm_source=x").status_code == 200


@pytest.mark.parametrize(
    ("path", "sent", "says"),
    [
        ("POST /v1/predict", {"data": {"top": "1"}, "files": files(FLOWERS[0])}, "address, as in /v1/predict?top="),
        ("POST /v1/predict", {"data": {"lable": "x"}, "files": files(FLOWERS[0])}, "expected images, embeddings"),
        ("POST /v1/classes", {"data": {"nmae": "x"}, "files": files(FLOWERS[0])}, "did you mean name?"),
        ("POST /v1/classes", {"data": {"name": ["a", "b"]}, "files": files(FLOWERS[0])}, "sent twice"),
        ("POST /v1/predict", {"files": {"images": (None, "flower.png")}}, "-F images=@FILE"),
        ("POST /v1/predict", {"data": {"embeddings": "[1]"}, "files": files(FLOWERS[0])}, "sent as JSON"),
        ("POST /v1/embed", {"json": {"embeddings": [[1.0]], "coverage": 0.9}}, "no field 'coverage'"),
        ("POST /v1/suggest", {"json": {"embeddings": [[1.0]], "k": 3}}, "as in /v1/suggest?k="),
        ("POST /v1/predict", {"json": {"embeddings": [[1.0]], "images": []}}, "send one of them"),
        ("POST /v1/predict", {"json": {"images": [{"data": "", "id": "a"}]}}, "expected data and name"),
        ("POST /v1/examples", {"json": {"embeddings": [[1.0]], "class": "flower", "names": ["a"]}}, "no field 'names'"),
        ("PATCH /v1/classes/flower", {"json": {"name": "temple", "merge": True}}, "as in /v1/classes/flower?merge="),
        ("POST /v1/examples/remove", {"json": {"examples": ["x"], "exmaples": []}}, "did you mean examples?"),
        ("PATCH /v1/examples/x", {"json": {"class_": "x", "class": "x"}}, "did you mean class?"),
        ("PUT /v1/rejection", {"json": {"reject": "off", "rate": 1}}, "no field 'rate'; expected reject"),
    ],
)
def test_a_field_of_a_body_that_is_not_known_is_refused(client, path, sent, says):
    method, _, place = path.partition(" ")
    before = client.get("/v1/model").json()
    assert says in said(client.request(method, place, **sent), 422, "invalid")
    assert client.get("/v1/model").json() == before


@pytest.mark.parametrize("name", ["a/b", "ü %41 ☃", "..", ".", "/", "//", "a?b#c", "\x07\n", "x" * 300, "'\"<b>"])
def test_a_class_may_have_any_name(client, name):
    assert client.post("/v1/classes", data={"name": name}, files=files(FLOWERS[5])).json()["class"] == name
    assert names(client)[name] == 1
    assert client.get("/v1/examples", params={"class": name}).json()["total"] == 1
    renamed = client.patch("/v1/classes", params={"name": name}, json={"name": name + "2"})
    assert renamed.status_code == 200
    assert client.delete("/v1/classes", params={"name": name + "2"}).status_code == 200
    assert names(client) == {"flower": 4, "temple": 4}


def test_rename_merge_and_remove(client):
    said(client.patch("/v1/classes/lily", json={"name": "rose"}), 404, "no_class")
    said(client.patch("/v1/classes/flower", json={"name": "temple"}), 409, "class_exists")
    said(client.patch("/v1/classes/flower", json={"name": " "}), 422, "invalid")
    assert client.patch("/v1/classes/flower", json={"name": "a/b"}).json()["can_undo"]
    assert client.patch("/v1/classes/a%2Fb?merge=true", json={"name": "temple"}).status_code == 200
    assert names(client) == {"temple": 8}
    said(client.delete("/v1/classes/temple"), 409, "last_class")
    assert client.post("/v1/undo").status_code == 200
    assert client.delete("/v1/classes/a%2Fb").status_code == 200
    assert names(client) == {"temple": 4}


def test_examples_are_listed_moved_and_removed(client):
    first = client.get("/v1/examples", params={"class": "flower", "limit": 2}).json()
    assert (first["total"], len(first["examples"])) == (4, 2)
    example = first["examples"][0]["id"]
    assert client.patch(f"/v1/examples/{example}", json={"class": "rose"}).status_code == 200
    assert names(client) == {"flower": 3, "rose": 1, "temple": 4}
    (moved,) = client.get("/v1/examples", params={"class": "rose"}).json()["examples"]
    assert moved["name"] == first["examples"][0]["name"]
    assert client.delete(f"/v1/examples/{moved['id']}").status_code == 200
    assert names(client) == {"flower": 3, "temple": 4}
    said(client.delete(f"/v1/examples/{moved['id']}"), 404, "no_example")
    said(client.get("/v1/examples", params={"class": "rose"}), 404, "no_class")


@pytest.mark.parametrize("way", ["move", "merge"])
def test_what_a_class_has_already_is_not_given_to_it_again(client, way):
    client.post("/v1/classes", data={"name": "rose"}, files=files(FLOWERS[0], FLOWERS[1], TEMPLES[5]))
    assert names(client) == {"flower": 4, "rose": 3, "temple": 4}
    if way == "merge":
        assert client.patch("/v1/classes/rose?merge=true", json={"name": "flower"}).status_code == 200
    else:
        roses = [one["id"] for one in client.get("/v1/examples", params={"class": "rose"}).json()["examples"]]
        assert client.post("/v1/examples/move", json={"examples": roses, "class": "flower"}).status_code == 200
    assert names(client) == {"flower": 5, "temple": 4}
    client.post("/v1/classes", data={"name": "twin"}, files=files(TEMPLES[0]))
    (twin,) = client.get("/v1/examples", params={"class": "twin"}).json()["examples"]
    client.patch(f"/v1/examples/{twin['id']}", json={"class": "temple"})
    assert names(client) == {"flower": 5, "temple": 4}


def test_several_examples_are_moved_and_removed_as_one_version(client):
    def ids(name):
        return [one["id"] for one in client.get("/v1/examples", params={"class": name}).json()["examples"]]

    flowers, temples, before = ids("flower"), ids("temple"), client.get("/v1/model").json()["version"]
    moved = client.post("/v1/examples/move", json={"examples": [*flowers[:2], flowers[0]], "class": "rose"})
    assert names(client) == {"flower": 2, "rose": 2, "temple": 4}
    assert sorted(ids("rose")) == sorted(flowers[:2])  # ids stay
    stale = {"examples": temples, "class": "rose"}
    said(client.post("/v1/examples/move", json=stale, headers={"If-Match": before}), 409, "changed")
    gone = client.post(
        "/v1/examples/remove", json={"examples": temples[:3]}, headers={"If-Match": moved.headers["ETag"]}
    )
    assert gone.status_code == 200
    assert names(client) == {"flower": 2, "rose": 2, "temple": 1}
    notes = [one["note"] for one in client.get("/v1/history").json()["versions"]]
    assert notes[-2:] == ["move 2 images to rose", "remove 3 images"]
    for path, body, status, code in (
        ("remove", {"examples": [flowers[3], temples[0]]}, 404, "no_example"),  # and nothing is removed
        ("move", {"examples": [flowers[3], temples[3]], "class": "rose"}, 422, "invalid"),  # of two classes
        ("move", {"examples": [flowers[3]], "class": " "}, 422, "invalid"),
        ("remove", {"examples": [*flowers, temples[3]]}, 409, "last_example"),
        ("remove", {"examples": []}, 422, "invalid"),
        ("remove", {"examples": [1]}, 422, "invalid"),
    ):
        said(client.post(f"/v1/examples/{path}", json=body), status, code)
    assert names(client) == {"flower": 2, "rose": 2, "temple": 1}
    assert client.post("/v1/undo").status_code == 200
    assert client.post("/v1/undo").json()["version"] == before
    assert client.post("/v1/examples/move", json={"examples": flowers, "class": "temple"}).status_code == 200
    assert names(client) == {"temple": 8}


def test_an_id_stays_when_others_come_go_and_are_renamed(client):
    def ids(name):
        return {one["id"] for one in client.get("/v1/examples", params={"class": name}).json()["examples"]}

    client.post("/v1/classes", data={"name": "temple"}, files=files(*TEMPLES))
    before = ids("temple")
    client.delete(f"/v1/examples/{min(ids('flower'))}")
    client.post("/v1/classes", data={"name": "rose"}, files=files(TEMPLES[0]))
    client.patch("/v1/classes/temple", json={"name": "arch"})
    assert ids("arch") == before
    assert not ids("rose") & before


def test_undo_and_redo_of_everything(client):
    versions = [client.get("/v1/model").json()["version"]]
    client.post("/v1/classes", data={"name": "x"}, files=files(FLOWERS[5]))
    client.patch("/v1/classes/x", json={"name": "y"})
    client.delete("/v1/classes/y")
    back = [client.post("/v1/undo").json() for _ in range(3)]
    assert back[-1]["version"] == versions[0]
    assert [one["can_redo"] for one in back] == [True] * 3
    said(client.post("/v1/undo"), 409, "no_undo")
    forward = [client.post("/v1/redo").json() for _ in range(3)]
    assert [one["version"] for one in forward[:2]] == [one["version"] for one in back[1::-1]]
    said(client.post("/v1/redo"), 409, "no_redo")
    client.post("/v1/undo")
    client.post("/v1/classes", data={"name": "z"}, files=files(FLOWERS[4]))  # takes the place of what was undone
    said(client.post("/v1/redo"), 409, "no_redo")
    assert [one["note"] for one in client.get("/v1/history").json()["versions"]][-1] == "add 1 image of z"


def test_undo_leads_back_to_before_the_first_class_and_redo_to_it(tmp_path, capsys):
    folder = tmp_path / "new"
    with running(folder) as client:
        client.post("/v1/classes", data={"name": "temple"}, files=files(*TEMPLES[:3]))
        first = client.get("/v1/model").json()
        assert first["can_undo"]
        assert client.post("/v1/undo").json() == {"version": "empty", "can_undo": False, "can_redo": True}
        assert names(client) == {}
        said(client.post("/v1/predict", files=files(TEMPLES[0])), 409, "empty")
        said(client.post("/v1/undo"), 409, "no_undo")
        assert [one["is_current"] for one in client.get("/v1/history").json()["versions"]] == [False]
        assert len(client.post("/v1/suggest", files=files(*FLOWERS)).json()["order"]) == 6
        assert client.post("/v1/redo").json()["version"] == first["version"]
        assert names(client) == {"temple": 3}
        assert main(["undo", str(folder)]) == 0  # another process
        assert f"0 classes from 0 images; to return: fewshot undo {folder} --to 1" in capsys.readouterr().out
        assert names(client) == {}
        assert client.get("/v1/model").json()["can_redo"]
        client.post("/v1/classes", data={"name": "flower"}, files=files(*FLOWERS[:2]))
        said(client.post("/v1/redo"), 409, "no_redo")
        assert client.post("/v1/undo").json()["version"] == "empty"
    with running(folder) as client:
        assert client.get("/v1/model").json()["can_redo"]
        client.post("/v1/redo")
        assert names(client) == {"flower": 2}
        network = client.get("/v1/model").json()["fingerprint"]
        assert client.post("/v1/undo").json()["version"] == "empty"
        with pytest.raises(ArtifactError, match="only earlier versions; go back to one with undo"):
            FewShotModel.load(folder)
        client.post("/v1/classes", data={"name": "flower"}, files=files(*FLOWERS[:2]))
        assert client.get("/v1/model").json()["fingerprint"] == network  # that of the folder
        assert client.post("/v1/predict", files=files(FLOWERS[0])).json()["answers"][0]["label"] == "flower"
        other = client.post("/v1/classes", data={"name": "temple"}, files=files(*TEMPLES[:2]))
        assert other.status_code == 201
    assert FewShotModel.load(folder).classes_.tolist() == ["flower", "temple"]
    taught(tmp_path / "made")
    with running(tmp_path / "made") as client:  # what fewshot fit has made is no change of the service
        said(client.post("/v1/undo"), 409, "no_undo")


def test_a_change_for_an_older_version_is_refused(client):
    seen = client.get("/v1/classes").headers["etag"]
    client.patch("/v1/classes/flower", json={"name": "rose"}, headers={"If-Match": seen})
    said(client.delete("/v1/classes/temple", headers={"If-Match": seen}), 409, "changed")
    said(client.post("/v1/undo", headers={"If-Match": seen}), 409, "changed")
    assert names(client) == {"rose": 4, "temple": 4}
    now = client.get("/v1/classes").headers["etag"]
    assert client.delete("/v1/classes/temple", headers={"If-Match": now}).status_code == 200


def test_commands_and_service_share_a_folder_while_it_runs_and_after(tmp_path, capsys):
    folder = str(taught(tmp_path / "model"))
    (tmp_path / "arch.png").write_bytes(TEMPLES[5])
    with running(folder) as client:
        assert main(["rename", folder, "flower", "rose"]) == 0
        assert names(client) == {"rose": 4, "temple": 4}  # noticed
        answers = client.post("/v1/predict", files=files(FLOWERS[0])).json()["answers"]
        assert answers[0]["label"] == "rose"
        client.post("/v1/classes", data={"name": "arch"}, files=files(TEMPLES[4]))
        assert main(["show", folder]) == 0
        assert re.search(r"^arch +1$", capsys.readouterr().out, re.M)
        assert main(["add", folder, "arch", str(tmp_path / "arch.png")]) == 0
        assert names(client) == {"arch": 2, "rose": 4, "temple": 4}
        client.delete("/v1/classes/temple")
        assert main(["undo", folder]) == 0
        assert names(client) == {"arch": 2, "rose": 4, "temple": 4}
        client.post("/v1/undo")
        assert names(client) == {"arch": 1, "rose": 4, "temple": 4}
        client.post("/v1/redo")
    assert main(["undo", folder]) == 0  # what the service has done, after it has ended
    assert FewShotModel.load(folder).n_support_.tolist() == [1, 4, 4]
    with running(folder) as again:
        assert names(again) == {"arch": 1, "rose": 4, "temple": 4}


def test_a_change_is_made_to_what_another_process_has_left_not_to_what_was_seen(client, tmp_path):
    folder = tmp_path / "model"
    assert main(["rename", str(folder), "flower", "rose"]) == 0
    assert client.patch("/v1/classes/temple", json={"name": "arch"}).status_code == 200  # without a look before
    assert names(client) == {"arch": 4, "rose": 4}
    with ThreadPoolExecutor(1) as other, locking.locked(folder):
        late = other.submit(client.patch, "/v1/classes/arch", json={"name": "door"})
        time.sleep(0.3)
        assert not late.done()  # it waits for its turn
        FewShotModel.load(folder).rename_class("rose", "lily").save(folder)
        meanwhile = names(client)
    assert meanwhile == {"arch": 4, "lily": 4}  # readers see what is on disk while a change waits
    assert late.result().status_code == 200
    assert names(client) == {"door": 4, "lily": 4}
    assert FewShotModel.load(folder).classes_.tolist() == ["door", "lily"]


def test_threads_take_turns_and_load_a_changed_folder_once(client, tmp_path, monkeypatch):
    workshop, loads, now, most = client.workshop, [], [], []
    loaded = workshop._loaded

    def slow(before):
        loads.append(1)
        time.sleep(0.3)
        return loaded(before)

    def act(model, view):
        now.append(1)
        most.append(len(now))
        time.sleep(0.05)
        now.pop()

    monkeypatch.setattr(workshop, "_loaded", slow)
    assert main(["rename", str(tmp_path / "model"), "flower", "rose"]) == 0
    with ThreadPoolExecutor(4) as others:
        seen = list(others.map(lambda _: list(workshop.view().classes), range(4)))
        assert seen == [["rose", "temple"]] * 4
        assert loads == [1]
        assert main(["rename", str(tmp_path / "model"), "rose", "lily"]) == 0
        after = list(others.map(lambda _: list(workshop.change("x", act)[0].classes), range(3)))
        assert after == [["lily", "temple"]] * 3
    assert loads == [1, 1]
    assert max(most) == 1


def test_readers_see_a_change_once_it_is_acknowledged_and_do_not_load_it(client, monkeypatch):
    workshop, is_saved, may_go = client.workshop, threading.Event(), threading.Event()
    publish = workshop._publish

    def late(model):
        is_saved.set()
        assert may_go.wait(30)
        publish(model)

    monkeypatch.setattr(workshop, "_publish", late)
    monkeypatch.setattr(workshop, "_loaded", lambda *_: pytest.fail("loaded"))
    with ThreadPoolExecutor(1) as other:
        change = other.submit(client.patch, "/v1/classes/flower", json={"name": "rose"})
        assert is_saved.wait(30)
        assert names(client) == {"flower": 4, "temple": 4}
        may_go.set()
        assert change.result().status_code == 200
    assert names(client) == {"rose": 4, "temple": 4}


def test_another_network_in_the_folder_is_noticed(client, tmp_path):
    other = Embedder("conv4", weights="random", img_size=28, progress=False)
    images = photos(2)[0]
    FewShotImageClassifier(other).fit(images, ["t", "t", "f", "f"]).save(tmp_path / "model", overwrite=True)
    assert client.post("/v1/predict", files=files(FLOWERS[0])).json()["answers"][0]["label"] == "f"
    assert client.post("/v1/classes", data={"name": "x"}, files=files(TEMPLES[5])).status_code == 201


def test_a_folder_that_is_gone_is_not_made_anew_without_its_history(client, tmp_path):
    (tmp_path / "model").rename(tmp_path / "moved")
    assert client.post("/v1/predict", files=files(FLOWERS[0])).json()["answers"][0]["label"] == "flower"
    teach = {"data": {"name": "x"}, "files": files(TEMPLES[5])}
    for refused in (client.post("/v1/classes", **teach), client.patch("/v1/classes/flower", json={"name": "x"})):
        assert "put it back, or restart the service" in said(refused, 409, "gone")
    assert not (tmp_path / "model").exists()
    (tmp_path / "moved").rename(tmp_path / "model")
    assert client.post("/v1/classes", **teach).status_code == 201
    assert FewShotModel.load(tmp_path / "model").classes_.tolist() == ["flower", "temple", "x"]


def test_a_damaged_folder_is_not_overwritten_and_readers_see_the_version_before(client, tmp_path):
    manifest = tmp_path / "model" / "manifest.json"
    whole = manifest.read_bytes()
    manifest.write_bytes(whole[:100])
    assert client.post("/v1/predict", files=files(FLOWERS[0])).json()["answers"][0]["label"] == "flower"
    refused = client.post("/v1/classes", data={"name": "x"}, files=files(TEMPLES[5]))
    trouble = client.get("/v1/model").json()["trouble"]
    assert trouble.startswith("model/manifest.json")  # without the path, which clients need not know
    assert trouble in said(refused, 409, "damaged")
    assert manifest.read_bytes() == whole[:100]
    manifest.write_bytes(whole)
    assert client.post("/v1/classes", data={"name": "x"}, files=files(TEMPLES[5])).status_code == 201


def test_labels_that_are_numbers_are_text_here(tmp_path):
    images = photos(2)[0]
    FewShotImageClassifier(quick_embedder()).fit(images, [3, 3, 7, 7]).save(tmp_path / "model")
    with running(tmp_path / "model") as client:
        assert names(client) == {"3": 2, "7": 2}
        assert client.post("/v1/predict", files=files(TEMPLES[0])).json()["answers"][0]["label"] == "3"
        said(client.post("/v1/classes", data={"name": "x"}, files=files(TEMPLES[0])), 422, "invalid")
        client.post("/v1/classes", data={"name": "12"}, files=files(FLOWERS[5]))
    assert FewShotModel.load(tmp_path / "model").classes_.tolist() == [3, 7, 12]


def test_a_classifier_with_a_custom_embedder_takes_embeddings(tmp_path):
    def vowels(texts):
        return [[text.count(letter) for letter in "aeiou"] for text in texts]

    FewShotModel(OwnEmbedder(vowels, "vowels 1")).fit(["banana", "kiwi"], ["a", "i"]).save(tmp_path / "model")
    with running(tmp_path / "model") as client:
        assert not client.get("/v1/model").json()["takes_images"]
        found = client.post("/v1/predict", json={"embeddings": vowels(["papaya", "pippin"])}).json()
        assert [one["label"] for one in found["answers"]] == ["a", "i"]
        said(client.post("/v1/predict", files=files(FLOWERS[0])), 422, "needs_embeddings")
        said(client.post("/v1/predict", json={"embeddings": [[1.0]]}), 422, "invalid")
        taught = client.post("/v1/classes", json={"name": "o", "embeddings": vowels(["oslo", "lotus"])}).json()
        assert taught["learned"] == 2
    model = FewShotModel.load(tmp_path / "model", embedder=OwnEmbedder(vowels, "vowels 1"))
    assert model.predict(["corfo"]).tolist() == ["o"]


def test_a_folder_that_may_not_be_written_is_told_with_its_cure(client, monkeypatch):
    def refused(*_):
        raise OSError(errno.EROFS, "Read-only file system", "/srv/model/.lock")

    monkeypatch.setattr(artifact, "_replace_manifest", refused)
    message = said(client.post("/v1/classes", data={"name": "x"}, files=files(FLOWERS[5])), 503, "not_writable")
    assert "Read-only file system" in message
    assert "start it with --read-only" in message
    assert "/srv" not in message


def test_a_folder_that_may_not_be_written_is_told_at_the_start(tmp_path, monkeypatch, caplog):
    folder = taught(tmp_path / "model")
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write anything
    Workshop(folder, read_only=True)
    assert not caplog.records
    Workshop(folder)
    assert ["start it with --read-only" in one.message for one in caplog.records] == [True]


def test_json_that_is_sent_as_a_form_is_told_its_content_type(client):
    header = {"Content-Type": "application/x-www-form-urlencoded"}  # as curl -d sends
    answer = client.patch("/v1/classes/flower", content=b'{"name": "rose"}', headers=header)
    assert "Content-Type: application/json" in said(answer, 422, "invalid")


def test_a_disk_that_is_full_is_told_and_the_old_state_stays(client, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(artifact, "_replace_manifest", full)
        message = said(client.post("/v1/classes", data={"name": "x"}, files=files(FLOWERS[5])), 507, "disk_full")
    assert "nothing was changed" in message
    assert names(client) == {"flower": 4, "temple": 4}
    assert FewShotModel.load(tmp_path / "model").classes_.tolist() == ["flower", "temple"]
    assert client.post("/v1/classes", data={"name": "x"}, files=files(FLOWERS[5])).status_code == 201


def test_no_path_of_the_machine_leaves(client, tmp_path, monkeypatch):
    def fails(*_):
        raise OSError(errno.EIO, "Input/output error", "/somewhere/secret")

    def ask():
        return client.post("/v1/classes", data={"name": "x"}, files=files(FLOWERS[5]))

    with monkeypatch.context() as patch:
        patch.setattr(artifact, "_replace_manifest", fails)
        answers = [said(ask(), 503, "system")]
    with monkeypatch.context() as patch, locking.locked(tmp_path / "model"):
        patch.setattr(locking, "PATIENCE", 0.1)
        answers.append(said(ask(), 503, "in_use"))
    (tmp_path / "model" / ".lock").mkdir()
    answers.append(said(ask(), 422, "invalid"))  # which names the file
    assert answers[-1].startswith("model/.lock is not a lock file")
    for text in answers:
        assert str(tmp_path) not in text
        assert "secret" not in text
        assert "process" not in text  # nor which one holds the lock
    assert names(client) == {"flower": 4, "temple": 4}


@pytest.mark.parametrize("n", [0, 1, 4000, 12_000])
def test_a_file_that_cannot_grow_is_a_full_disk(client, tmp_path, n):
    before = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    with small_disk(n):
        said(client.post("/v1/classes", data={"name": "x"}, files=files(*FLOWERS)), 507, "disk_full")
    assert before.items() <= {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}.items()
    assert names(client) == {"flower": 4, "temple": 4}
    assert client.post("/v1/classes", data={"name": "x"}, files=files(*FLOWERS)).status_code == 201


def test_read_only_refuses_every_change(place):
    with running(place, read_only=True) as client:
        assert client.post("/v1/predict", files=files(FLOWERS[4])).status_code == 200
        assert client.get("/v1/model").json()["read_only"]
        for method, path, given in (
            ("POST", "/v1/classes", {"data": {"name": "x"}, "files": files(FLOWERS[5])}),
            ("POST", "/v1/examples", {"data": {"class": "flower"}, "files": files(FLOWERS[5])}),
            ("PATCH", "/v1/classes/flower", {"json": {"name": "x"}}),
            ("DELETE", "/v1/classes/flower", {}),
            ("POST", "/v1/undo", {}),
            ("POST", "/v1/redo", {}),
            ("POST", "/v1/model/load", {"content": b"x", "headers": {"Content-Type": "application/zip"}}),  # unread
        ):
            said(client.request(method, path, **given), 403, "read_only")


def test_a_link_to_the_folder_may_be_changed_to_another_one(tmp_path):
    for name in ("first", "second"):
        taught(tmp_path / name)
    with running(tmp_path / "second") as other:
        other.post("/v1/classes", data={"name": "new"}, files=files(FLOWERS[5]))
    (tmp_path / "now").symlink_to("first")
    before = {path.name: path.read_bytes() for path in (tmp_path / "first").iterdir() if path.is_file()}
    with running(tmp_path / "now") as client:
        assert "new" not in names(client)
        (tmp_path / "next").symlink_to("second")
        (tmp_path / "next").replace(tmp_path / "now")
        assert "new" in names(client)
        assert client.post("/v1/classes", data={"name": "newer"}, files=files(FLOWERS[4])).status_code == 201
    assert "newer" in FewShotModel.load(tmp_path / "second").classes_.tolist()
    assert {path.name: path.read_bytes() for path in (tmp_path / "first").iterdir() if path.is_file()} == before


def test_a_client_that_goes_does_not_keep_others_waiting(monkeypatch):
    def answers_to(view, embedded, names, asked):
        return {"answers": list(names)}

    async def ask():
        answerer, one = answering.Answerer(), Embedded(np.zeros((1, 2), np.float32), [], [])
        first, second = (
            asyncio.create_task(answerer.answer("view", one, [name], answering.Asked())) for name in ("first", "second")
        )
        await asyncio.sleep(0)
        first.cancel()
        found = await asyncio.wait_for(second, 10)
        later = await asyncio.wait_for(answerer.answer("view", one, ["later"], answering.Asked()), 10)
        return found["answers"], later["answers"]

    monkeypatch.setattr(answering, "answers_to", answers_to)
    assert asyncio.run(ask()) == (["second"], ["later"])
