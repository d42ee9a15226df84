"""A running service as a model: the answers of its classifier, and one sentence when there are none."""

import json
import pickle
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import chain

import numpy as np
import pyarrow.parquet as pq
import pytest

from fewshot import FaissStore, FewShotImageClassifier, RemoteModel, annotate, retrieve
from fewshot.cli import main
from fewshot.errors import ImageDecodeError, ServiceError, StoreError
from fewshot.retrieval import remote
from fewshot.retrieval.work import annotate_folder
from tests.photographs import photos, quick_embedder, write_photos
from tests.serving import QUICK, files, pictures, process, running, taught

TOKEN = "a secret of 24 letters.."


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return taught(tmp_path_factory.mktemp("taught") / "model", reject=2.0)


@pytest.fixture(scope="module")
def service(folder):
    with running(folder, token=TOKEN, read_only=True, max_images=4) as client:
        yield RemoteModel(str(client.base_url), TOKEN)


@pytest.fixture
def paths(tmp_path):
    return write_photos(tmp_path / "photos", 3, seed=5)


def columns(table):
    return [np.array(table.column(name).to_pylist()) for name in ("vector", "probability", "similarity")]


def assert_alike(found, wanted):
    """Floats of batches of other sizes are rounded otherwise; the rest is the same."""
    for one, other in zip(found, wanted, strict=True):
        facts = [(a.id, a.label, a.unknown, a.nearest, bool(a.error), a.embedder) for a in (one, other)]
        assert facts[0] == facts[1]
        assert one.probability == pytest.approx(other.probability, abs=1e-4)
        assert one.similarity == pytest.approx(other.similarity, abs=1e-4, nan_ok=True)
        if not other.error:
            np.testing.assert_allclose(one.vector, other.vector, atol=1e-4)


@pytest.mark.parametrize("reject", [None, 2.0], ids=["answers all", "rejects all"])
@pytest.mark.parametrize("number", [False, True], ids=["text", "numbers"])
def test_annotations_are_those_of_the_classifier(tmp_path, paths, reject, number):
    images, labels = photos(4)
    labels = [int(label == "flower") for label in labels] if number else labels
    model = FewShotImageClassifier(quick_embedder(), reject=reject).fit(images, labels)
    model.save(tmp_path / "model")
    (tmp_path / "bad.png").write_bytes(b"no image")
    (tmp_path / "torn.png").write_bytes(pictures(1)[0][:200])
    items = [*paths, str(tmp_path / "bad.png"), str(tmp_path / "none.png"), str(tmp_path / "torn.png"), pictures(1)[0]]
    wanted = list(annotate(model, items))
    with running(tmp_path / "model", read_only=True, max_images=4) as client:  # so that there are several requests
        found = list(annotate(RemoteModel(str(client.base_url)), items))
        labels = RemoteModel(str(client.base_url)).predict(paths)
        with pytest.raises(ImageDecodeError, match=r"image 6, .*bad\.png: is damaged"):
            RemoteModel(str(client.base_url)).predict(items)
    assert labels.tolist() == model.predict(paths).tolist()
    assert labels.dtype.kind == model.predict(paths).dtype.kind
    assert_alike(found, wanted)
    assert [one.error for one in found[:6]] == [""] * 6
    assert "send JPEG" in found[6].error
    assert found[7].error == "no such file or directory"
    assert sum(bool(one.error) for one in found) == 3
    assert {one.unknown for one in found[:6]} == {reject is not None}


def test_records_are_those_of_the_classifier(folder, service, paths):
    model = FewShotImageClassifier.load(folder)
    store = FaissStore("cosine", model.embedder_.fingerprint, 256)
    archive = photos(6, seed=2)[0]
    store.add(one.record() for one in annotate(model.set_params(reject=None), archive))
    model.set_params(reject=2.0)
    with running(folder.parent / "other") as client:
        client.post("/v1/classes", data={"name": "temple"}, files=files(*pictures(2)[:2]))
        client.post("/v1/classes", data={"name": "flower"}, files=files(*pictures(2)[2:]))
        for there in (service, RemoteModel(str(client.base_url))):  # one answers all as unknown, one none
            here = model if there is service else FewShotImageClassifier.load(folder.parent / "other")
            for by_label in (True, False):
                found = retrieve(there, store, paths, 3, by_label=by_label)
                wanted = retrieve(here, store, paths, 3, by_label=by_label)
                for one, other in zip(chain(*found), chain(*wanted), strict=True):
                    assert (one.id, one.label) == (other.id, other.label)
                    assert one.probability == pytest.approx(other.probability, abs=1e-4)
    with pytest.raises(StoreError, match="embed with the same network"):
        retrieve(service, FaissStore("cosine", "f00d", 256), paths)
    with pytest.raises(ImageDecodeError, match=r"image 1, nowhere\.png: no such file"):
        retrieve(service, store, [paths[0], "nowhere.png"])
    assert retrieve(service, store, []) == []


@pytest.mark.parametrize("name", ["langchain", "haystack"])
def test_retrievers_point_at_a_service(name, folder, service, paths):
    pytest.importorskip({"langchain": "langchain_core"}.get(name, name))
    with pytest.raises(ServiceError, match="/v1 is not where the service is; give its address without /v1"):
        RemoteModel(f"{service.url}/v1", TOKEN).predict(paths)
    store = FaissStore("cosine", service.about()["fingerprint"])  # as the documentation says
    store.add(one.record() for one in annotate(service, paths))
    if name == "langchain":
        from fewshot.integrations.langchain import FewShotRetriever

        assert FewShotRetriever(model=service, store=store, k=1).invoke(paths[0])[0].id == paths[0]
    else:
        from fewshot.integrations.haystack import FewShotRetriever

        found = FewShotRetriever(service, store, k=1).run(paths)
        assert [one.content for one in found["documents"]] == paths
        assert found["labels"] == ["unknown"] * len(paths)


@pytest.mark.slow
def test_the_command_writes_the_table_of_the_folder(tmp_path, paths, monkeypatch, capsys):
    """A real service, with a token, while other processes ask it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "token").write_text("0123456789abcdef\n")
    (tmp_path / "wrong").write_text("0123456789abcdeF\n")
    assert main(["fit", "photos", "--out", "model", *QUICK, "--quiet"]) == 0
    (tmp_path / "photos" / "bad.png").write_bytes(b"no image")
    common = ("annotate", "photos", "--quiet", "--shard", "2", "--out")
    assert main([*common, "here.parquet", "--model", "model"]) == 1
    with process("model", "--token", "token", "--read-only") as served:
        there = (*common, "there.parquet", "--server", served.url)
        capsys.readouterr()
        for more in ((), ("--token", "wrong")):
            assert main([*there, *more]) == 1
            wants = "wants a token, or another one; give the file that holds it with --token"
            assert capsys.readouterr().err == f"fewshot: {served.url[:-1]} {wants}\n"
        assert main([*there, "--token", "token", "--executor", "joblib", "--jobs", "2"]) == 1
    here, found = (pq.read_table(f"{name}.parquet") for name in ("here", "there"))
    assert found.schema.equals(here.schema, check_metadata=False)
    assert found.schema.metadata[b"fewshot"] == here.schema.metadata[b"fewshot"]
    for name in ("id", "label", "unknown", "nearest", "embedder"):
        assert found.column(name).to_pylist() == here.column(name).to_pylist()
    for one, other in zip(columns(found), columns(here), strict=True):
        np.testing.assert_allclose(one.astype(float), other.astype(float), atol=1e-4)
    assert main([*common, "x.parquet", "--server", served.url]) == 1
    assert "Connection refused" in capsys.readouterr().err


def test_a_table_is_of_one_version(tmp_path, paths, monkeypatch):
    with running(tmp_path / "model") as client:
        client.post("/v1/classes", data={"name": "a"}, files=files(pictures(1)[0]))
        model, asked, teach = RemoteModel(str(client.base_url)), [], RemoteModel._ask

        def ask(self, path, body=None):
            if body and not asked.append(path) and len(asked) == 2:
                client.post("/v1/classes", data={"name": "b"}, files=files(pictures(1)[1]))
            return teach(self, path, body)

        monkeypatch.setattr(RemoteModel, "_ask", ask)
        with pytest.raises(StoreError, match="2 of 3 shards failed, first shard 1: .*was changed meanwhile; undo"):
            annotate_folder(tmp_path / "photos", model, tmp_path / "x.parquet", shard=2, progress=False)
        client.post("/v1/undo")
        found = annotate_folder(tmp_path / "photos", model, tmp_path / "x.parquet", shard=2, progress=False)
        assert found == {"images": 6, "unreadable": 0, "resumed": 1}


@pytest.fixture
def stub():
    """A server that answers as it is told, and remembers what it was asked."""
    told, asked = [], []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.headers.get("Authorization"))
            status, headers, body = told.pop(0) if len(told) > 1 else told[0]
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    server.told, server.asked, server.url = told, asked, f"http://127.0.0.1:{server.server_port}"
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("status", "headers", "body", "said"),
    [
        (200, {}, b"<html>", "no service of fewshot answers at URL (it does not speak JSON); check the address"),
        (404, {}, b"<html>", "URL answers with status 404, not as a service of fewshot; check the address"),
        (302, {"Location": "/elsewhere"}, b"", "URL answers with status 302, not as a service"),
        (413, {}, b"<html>", "URL refuses the request as too large"),
        (500, {}, b'{"error": {"code": "internal", "message": "it broke"}}', "URL: it broke"),
        (503, {"Retry-After": "x"}, b'{"error": {"code": "busy", "message": "too much"}}', "URL: too much"),
        (200, {}, b'{"classes": 0}', "URL has learned nothing yet; teach it a class first"),
        (200, {}, b'{"classes": 1, "takes_images": false}', "URL takes no images, because its classifier has"),
        (200, {}, b'{"classes": 1, "takes_images": true}', "URL is an earlier version of fewshot; update it"),
    ],
)  # fmt: skip
def test_what_a_service_refuses_is_one_sentence(stub, status, headers, body, said, monkeypatch):
    slept = []
    monkeypatch.setattr(remote.time, "sleep", slept.append)
    stub.told.append((status, headers, body))
    with pytest.raises(ServiceError) as caught:
        RemoteModel(stub.url, TOKEN).answers(["x.png"])
    assert str(caught.value).startswith(said.replace("URL", stub.url))
    assert TOKEN not in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert slept == [1.0] * (remote.TRIES - 1 if status == 503 else 0)
    assert len(stub.asked) == len(slept) + 1  # a redirect is not followed


def test_a_busy_service_is_asked_again(stub, folder, monkeypatch):
    monkeypatch.setattr(remote.time, "sleep", lambda _: None)
    body = json.dumps({"classes": 1, "takes_images": True, "label_type": "str"}).encode()
    stub.told += [(503, {"Retry-After": "1"}, b""), (503, {}, b""), (200, {}, body)]
    assert RemoteModel(stub.url, TOKEN).about()["classes"] == 1
    assert stub.asked == [f"Bearer {TOKEN}"] * 3


def test_what_cannot_be_sent_is_said(service, paths):
    with pytest.raises(TypeError, match="pass a path, the bytes of a file"):
        service.answers(photos(1)[0])
    with pytest.raises(TypeError, match="pass a list"):
        service.answers(paths[0])
    for url in ("file:///etc/passwd", "x", "http://", "http://a:b@c", "http://c/?q=1", "http://a b", "http://a:x"):
        with pytest.raises(ValueError, match="is no address of a service; expected one such as"):
            RemoteModel(url)
    with pytest.raises(ValueError, match="^token is not printable ASCII") as caught:
        RemoteModel("http://localhost", "s3cret\nX-More: 1")
    assert "s3cret" not in str(caught.value)
    assert RemoteModel("http://localhost", " s3cret\n").token == "s3cret"  # as a file has it


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--model", "m", "--token", "t"), "--token is for --server; leave it out"),
        (("--server", "http://localhost", "--device", "cpu"), "--device is for --model; a service has its own"),
        (("--server", "http://localhost", "--max-pixels", "9"), "--max-pixels is for --model; a service has its own"),
        (("--server", "ftp://x"), "'ftp://x' is no address of a service; expected one such as http://127.0.0.1:8000"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m").mkdir()
    assert main(["annotate", "photos", "--out", "x.parquet", *options]) == 2
    assert capsys.readouterr().err.startswith(f"fewshot: {said}")
