"""Bodies of strangers: bounded in size, time, sum and in what they grow to; honest slow clients are served."""

import json
import socket
import struct
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest

from fewshot.serve import service, uploads
from fewshot.serve.routes import trust
from tests.serving import files, pictures, running, said, taught

PICTURE = pictures(1)[0]
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return taught(tmp_path_factory.mktemp("bounded") / "model")


@pytest.fixture(scope="module")
def client(folder):
    with running(folder, body_seconds=0.5) as found:
        yield found


def begun(client, request, kind="application/json", length=1_000_000):
    """A connection that has sent the head of a request."""
    place = urlsplit(str(client.base_url))
    found = socket.create_connection((place.hostname, place.port), timeout=10)
    head = f"{request} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
    found.sendall(head.encode())
    return found


@pytest.mark.parametrize(("request_", "burst"), [("POST /v1/predict", 900_000), ("PATCH /v1/classes/temple", 1)])
def test_a_client_that_stops_in_the_middle_is_refused_however_much_it_has_sent(client, request_, burst):
    start = time.monotonic()
    with begun(client, request_, length=min(1_000_000, 2 * burst)) as connection:
        connection.sendall(b" " * burst)
        assert b" 408 " in connection.recv(200).partition(b"\r\n")[0]
    assert time.monotonic() - start < 4


def test_a_client_that_is_slow_but_steady_is_answered(client):
    with begun(client, "POST /v1/predict", length=400_000) as connection:
        for _ in range(20):
            connection.sendall(b" " * 20_000)
            time.sleep(0.05)
        assert b" 400 " in connection.recv(200).partition(b"\r\n")[0]  # it is no JSON, but all was read


@pytest.mark.parametrize(("method", "path"), [("PATCH", "/v1/classes/temple"), ("PUT", "/v1/rejection")])
def test_a_body_without_images_is_small(client, method, path):
    said(client.request(method, path, content=b" " * 70_000, headers=JSON), 413, "too_large")


def test_who_sends_too_much_and_reads_only_then_is_told_why(client):
    """As curl does, which shows a broken connection otherwise."""
    part = b'--B\r\nContent-Disposition: form-data; name="images"; filename="x.png"\r\n\r\n' + PICTURE + b"\r\n"
    many = part * (client.get("/v1/model").json()["limits"]["images"] + 1)
    with begun(client, "POST /v1/predict", "multipart/form-data; boundary=B", len(many) + 500_000) as connection:
        connection.sendall(many)
        for _ in range(10):
            time.sleep(0.05)
            connection.sendall(part[:1] * 50_000)
        assert b" 413 " in connection.recv(200).partition(b"\r\n")[0]


@pytest.mark.parametrize(("part", "n"), [(b"[],", 2**18), (b"{},", 2**18), (b"1,", 5 * 2**20)])
def test_json_does_not_grow_in_memory(client, part, n, monkeypatch):
    asked, loads = [], uploads.json.loads
    monkeypatch.setattr(uploads.json, "loads", lambda *given, **options: asked.append(1) or loads(*given, **options))
    body = b'{"embeddings":[' + part * n + b"1]}"
    response = client.post("/v1/predict", content=body, headers=JSON)
    assert not asked
    said(response, 413, "too_large")


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/suggest", "/v1/classes", "/v1/examples"])
def test_embeddings_are_bounded_wherever_they_are_sent(folder, path):
    """In bytes, whether the client says how many come or not, and in numbers and lists."""
    rows = [[0.25] * 64] * 500
    body = json.dumps({"name": "x", "class": "temple", "embeddings": rows}).encode()
    with running(folder, max_body=len(body) - 1, read_only=True) as small:
        said(small.post(path, content=body, headers=JSON), 413, "too_large")
        said(small.post(path, content=iter([body[:-1], body[-1:]]), headers=JSON), 413, "too_large")
    with running(folder, read_only=True) as large:
        assert large.post(path, content=body, headers=JSON).status_code != 413
        many = body[:-2] + b",[0]" * 2**17 + b"]}"
        said(large.post(path, content=many, headers=JSON), 413, "too_large")


def test_what_requests_held_is_free_again(folder):
    with running(folder, max_memory=2 * len(PICTURE) + 1000) as client:
        for _ in range(5):
            assert client.post("/v1/predict", files=files(PICTURE)).status_code == 200
            said(client.post("/v1/predict", content=b"x" * len(PICTURE), headers=JSON), 400, "malformed")


def test_only_so_many_zip_files_are_on_their_way(folder):
    with running(folder) as client, ExitStack() as held:
        for _ in range(4):
            held.enter_context(begun(client, "POST /v1/model/load", "application/zip")).sendall(b"PK")
        time.sleep(0.3)
        for method, path in (("POST", "/v1/model/load"), ("GET", "/v1/model/download")):
            said(client.request(method, path, headers={"Content-Type": "application/zip"}), 503, "busy")
        held.close()
        time.sleep(0.3)
        assert client.get("/v1/model/download").status_code == 200


def test_answers_that_are_too_long_are_refused(client):
    d = client.get("/v1/model").json()["d"]
    rows = [[1.0] * d] * 6000
    sent = {"embeddings": rows}
    said(client.post("/v1/predict", params={"neighbours": 100}, json=sent), 413, "too_large")
    assert len(client.post("/v1/predict", json={"embeddings": rows[:50]}).json()["answers"]) == 50


@pytest.mark.parametrize("request_", ["POST /v1/classes", "PATCH /v1/classes/temple"])
def test_a_client_that_goes_is_no_mistake_of_the_service(client, request_, caplog):
    caplog.set_level("INFO", "fewshot.serve")
    with begun(client, request_, length=100) as connection:
        connection.sendall(b"{")
        time.sleep(0.1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # goes at once
    deadline = time.monotonic() + 5
    asked = tuple(request_.split())
    while time.monotonic() < deadline:  # an earlier test's request may be logged late
        said = [one for one in caplog.records if one.name == "fewshot.serve"]
        if found := [one for one in said if (getattr(one, "method", ""), getattr(one, "path", "")) == asked]:
            break
        time.sleep(0.01)
    assert [(one.message, one.exc_info) for one in found] == [("request", None)]
    assert all(one.message == "request" for one in said)


def test_a_part_of_a_form_is_small(client):
    said(client.post("/v1/classes", data={"name": "x" * 100_000}, files=files(PICTURE)), 400, "malformed")
    many = {f"field{i}": "x" for i in range(30)}
    said(client.post("/v1/classes", data={"name": "x", **many}, files=files(PICTURE)), 400, "malformed")
    said(client.post("/v1/predict", files=[("other", ("x.png", PICTURE))]), 422, "invalid")
    header = b'--B\r\nContent-Disposition: form-data; name="' + b"a" * 2_000_000
    kind = {"Content-Type": "multipart/form-data; boundary=B"}
    said(client.post("/v1/classes", content=header, headers=kind), 400, "malformed")


def test_nothing_that_is_sent_is_written_to_a_disk(client, monkeypatch):
    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", lambda _: pytest.fail("written"))
    said(client.post("/v1/predict", files=files(b"x", b"x" * 3_000_000)), 415, "unsupported")


@pytest.mark.parametrize("name", ["\ud800", "a\udcff", " ", "", 7, None, ["x"]])
def test_a_name_is_text(client, name):
    for method, path, body in (("POST", "/v1/classes", {"name": name, "embeddings": [[1.0]]}),
                               ("PATCH", "/v1/classes/temple", {"name": name})):  # fmt: skip
        message = said(client.request(method, path, content=json.dumps(body), headers=JSON), 422, "invalid")
        assert not isinstance(name, str) or "text" in message or "Unicode" in message


@pytest.mark.parametrize(
    ("text", "status", "code"), [("NaN", 400, "malformed"), ("1e39", 422, "invalid"), ("true", 422, "invalid")]
)
def test_only_finite_numbers_are_embeddings(client, text, status, code):
    body = '{"embeddings": [[' + ", ".join([text] * client.get("/v1/model").json()["d"]) + "]]}"
    said(client.post("/v1/predict", content=body, headers=JSON), status, code)


def test_changes_that_wait_are_bounded(client, monkeypatch):
    monkeypatch.setattr(service, "MOST_CHANGES", 1)
    with client.workshop._lock, ThreadPoolExecutor(2) as others:
        waiting = [others.submit(client.post, "/v1/redo") for _ in range(2)]
        time.sleep(0.3)
        refused = client.post("/v1/redo")
        client.workshop._lock.release()  # so that the two end
        for one in waiting:
            said(one.result(), 409, "no_redo")
        client.workshop._lock.acquire()
    said(refused, 503, "busy")


def test_few_look_at_the_whole_classifier_at_once(client, monkeypatch):
    now, most = [], []

    def slow(_):
        now.append(1)
        most.append(len(now))
        time.sleep(0.1)
        now.pop()
        return {}

    monkeypatch.setattr(trust, "_checked", slow)
    with ThreadPoolExecutor(6) as others:
        list(others.map(lambda _: client.get("/v1/check"), range(6)))
    assert max(most) <= service.MOST_LOOKS


def test_connections_are_bounded(folder):
    with running(folder, max_requests=1) as client, ExitStack() as held:
        for _ in range(4):
            held.enter_context(begun(client, "GET /health/live", length=1))
        deadline = time.monotonic() + 10
        while (status := client.get("/health/live").status_code) == 200 and time.monotonic() < deadline:
            time.sleep(0.05)  # until all have been seen
        assert status == 503


def test_figures_have_no_name_that_a_client_chose(client):
    client.request("PROPFIND", "/v1/model")
    client.delete("/v1/classes/chosen")
    client.get("/chosen")
    client.get("/v1/examples/chosen/thumbnail")
    found = client.get("/metrics").text
    assert 'method="OTHER"' in found
    assert "PROPFIND" not in found
    assert "chosen" not in found
