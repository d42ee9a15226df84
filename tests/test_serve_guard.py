"""Strangers are refused: each test fails without the line of defence that it names."""

import base64
import contextlib
import dataclasses
import hmac
import io
import json
import shutil
import socket
import time
import zlib
from urllib.parse import urlsplit

import httpx
import pytest
from PIL import Image
from starlette.datastructures import Headers

from fewshot import FewShotImageClassifier
from fewshot.cli import main
from fewshot.serve.guard import POLICY, Guard, cookie_of
from fewshot.serve.problems import Problem
from fewshot.serve.run import check
from fewshot.serve.settings import Settings
from tests.photographs import quick_embedder
from tests.serving import files, pictures, running, said, taught

PICTURE = pictures(1)[0]
#: The beginning of a request whose body has 1000 bytes.
HEAD = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
TOKEN = "a-token-of-many-characters"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return taught(tmp_path_factory.mktemp("guarded") / "model")


@pytest.fixture(scope="module")
def client(folder):
    limits = {"max_body": 200_000, "max_pixels": 100_000, "max_images": 4, "head_seconds": 0.5, "body_seconds": 0.5}
    with running(folder, hosts=("known.example",), **limits) as found:
        yield found


@pytest.fixture(scope="module")
def secret(folder):
    with running(folder, token=TOKEN) as found:
        yield found


def raw(client, text, wait=10):
    """Send bytes and return all that comes back until the connection ends."""
    place = urlsplit(str(client.base_url))
    with socket.create_connection((place.hostname, place.port), timeout=wait) as connection:
        connection.sendall(text)
        found = b""
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(65536):
                found += part
        return found


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "", "127.0.0.1.evil.example", "localhost.evil"])
def test_a_name_that_a_stranger_leads_here_is_refused(client, host):
    for path in ("/", "/v1/model", "/health/live", "/v1/openapi.json"):
        said(client.get(path, headers={"Host": host}), 403, "host")


def test_there_is_one_host_name():
    guard = Guard(None, Settings("x"))
    for hosts in ([], [b"localhost", b"evil.example"], [b"localhost", b"localhost"]):
        with pytest.raises(Problem, match="not known by this host name"):
            guard.check("GET", "/", Headers(raw=[(b"host", host) for host in hosts]))


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:81", "127.0.0.1", "[::1]:80", "192.168.1.7", "known.example"])
def test_own_names_and_addresses_are_answered(client, host):
    assert client.get("/v1/model", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"}, {"Origin": "http://6.6.6.6"},
        {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "file://"},
    ],
)  # fmt: skip
def test_a_page_of_another_site_changes_and_reads_nothing(client, headers):
    before = client.get("/v1/model").json()
    said(client.post("/v1/classes", data={"name": "x"}, files=files(PICTURE), headers=headers), 403, "origin")
    said(client.delete("/v1/classes/flower", headers=headers), 403, "origin")
    told = said(client.get("/v1/classes", headers=headers), 403, "origin")
    assert ("a proxy must pass on the header Host" in told) == (headers == {"Origin": "http://127.0.0.1:1"})
    assert client.get("/v1/model").json() == before


def test_own_page_is_answered_and_links_to_the_page_work(client):
    own = f"http://{urlsplit(str(client.base_url)).netloc}"
    for origin in (own, "https://known.example"):
        headers = {"Origin": origin, "Sec-Fetch-Site": "same-origin"}
        assert client.post("/v1/predict", files=files(PICTURE), headers=headers).status_code == 200
    assert client.get("/", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200


@pytest.mark.parametrize("path", ["/", "/health/live", "/health/ready"])
def test_a_monitor_may_ask_for_the_head_alone(client, path):
    asked, whole = client.head(path), client.get(path)
    assert (asked.status_code, asked.content) == (200, b"")
    assert asked.headers["Content-Length"] == str(len(whole.content))
    assert client.get(path).content == whole.content  # on the same connection


def test_every_response_has_the_headers(client):
    for response in (
        client.get("/"), client.get("/v1/model"), client.get("/nothing"), client.get("/", headers={"Host": "evil"}),
        client.post("/v1/predict", content=b"x"), client.get("/health/ready"), client.get("/metrics"),
    ):  # fmt: skip
        assert response.headers["content-security-policy"] == POLICY
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["referrer-policy"] == "no-referrer"
        assert response.headers["cross-origin-resource-policy"] == "same-origin"
        assert "server" not in response.headers
        assert response.headers["x-request-id"]
    headers = client.get("/v1/model").headers
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert "unsafe" not in str(policy)
    for name in ("default-src", "base-uri", "form-action", "frame-ancestors"):
        assert policy[name] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert headers["cache-control"] == "no-store"
    assert headers["x-frame-options"] == "DENY"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert "camera=(self)" in headers["permissions-policy"]


def test_nothing_is_shown_that_is_not_ours_and_no_redirect_repeats_a_name(client):
    for path in ("/docs", "/redoc", "/openapi.json", "/v1/model/", "/page/..%2f..%2fguard.py", "/page//etc/passwd"):
        response = client.get(path, headers={"Host": "known.example"})
        assert "/v1/openapi.json describes" in said(response, 404, "not_found")
        assert "location" not in response.headers
    assert "expected POST" in said(client.get("/v1/predict"), 405, "not_allowed")
    assert "-F images=@FILE" in said(client.post("/v1/predict"), 415, "unsupported")


def test_the_page_has_no_inline_script_or_style(client):
    text = client.get("/").text
    assert "<style" not in text
    assert " style=" not in text
    assert " onclick" not in text
    assert not [part for part in text.split("<script")[1:] if "src=" not in part.partition(">")[0]]


@pytest.mark.parametrize("given", ["", "Bearer", "Bearer x", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer \u00e9"])
def test_a_token_is_needed_for_all_but_the_page_and_health(secret, given):
    headers = {"Authorization": given.encode("utf-8")} if given else {}
    for method, path in (("GET", "/v1/model"), ("POST", "/v1/predict"), ("GET", "/metrics"), ("GET", "/nothing"),
                         ("POST", "/v1/session"), ("GET", "/v1/openapi.json")):  # fmt: skip
        response = secret.request(method, path, headers=headers)
        said(response, 401, "token")
        assert response.headers["www-authenticate"] == "Bearer"
    assert secret.get("/").status_code == secret.get("/health/ready").status_code == 200


def test_a_token_or_its_cookie_opens_the_service(secret):
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert secret.get("/v1/model", headers=bearer).status_code == 200
    begun = secret.post("/v1/session", headers=bearer)
    cookie = begun.headers["set-cookie"]
    assert begun.status_code == 204
    assert TOKEN not in cookie
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "Secure" not in cookie
    behind = secret.post("/v1/session", headers=bearer | {"X-Forwarded-Proto": "https"})  # a proxy with TLS
    assert "Secure" in behind.headers["set-cookie"]
    secret.cookies.clear()
    secret.cookies.set("fewshot", cookie_of(TOKEN))
    assert secret.get("/v1/model").status_code == 200
    secret.cookies.clear()
    secret.post("/v1/session", headers=bearer)
    assert secret.get("/v1/model").status_code == 200  # httpx keeps the cookie
    assert secret.delete("/v1/session").status_code == 204
    said(secret.get("/v1/model"), 401, "token")
    for forged in ("x", TOKEN, "", cookie_of("another")):
        said(secret.get("/v1/model", headers={"Cookie": f"fewshot={forged}"}), 401, "token")


@pytest.mark.parametrize("value", ['"' + "\\" * 50_000 + '"', '"' + "\\1" * 25_000 + '"', ";" * 50_000])
def test_a_cookie_takes_no_time_to_read(secret, value):
    start = time.monotonic()
    said(secret.get("/v1/model", headers={"Cookie": f"fewshot={value}"}), 401, "token")
    assert time.monotonic() - start < 2  # 5 to 10 seconds by SimpleCookie of Python 3.11
    both = f"fewshot=old; other=1; fewshot={cookie_of(TOKEN)}"
    assert secret.get("/v1/model", headers={"Cookie": both}).status_code == 200


def test_secrets_are_compared_in_constant_time(secret, monkeypatch):
    asked = []
    monkeypatch.setattr(hmac, "compare_digest", lambda *pair: asked.append(pair) or False)
    headers = {"Authorization": f"Bearer {TOKEN}", "Cookie": f"fewshot={cookie_of(TOKEN)}"}
    said(secret.get("/v1/model", headers=headers), 401, "token")  # nothing else compares
    cookie = cookie_of(TOKEN).encode()
    assert asked == [(TOKEN.encode(), TOKEN.encode()), (cookie, cookie)]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "example.org"])
def test_it_listens_beyond_this_machine_with_a_token_only(host, tmp_path, capsys):
    with pytest.raises(ValueError, match="token"):
        check(Settings(str(tmp_path / "new"), host))
    check(Settings(str(tmp_path / "new"), host, token=TOKEN))
    assert main(["serve", str(tmp_path / "new"), "--host", host]) == 2
    assert "--token FILE" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "short", "with a space in the middle", "\x1b" * 30, "ü" * 30])
def test_a_token_must_be_a_secret(text, tmp_path, capsys):
    (tmp_path / "token").write_text(text)
    assert main(["serve", str(tmp_path / "new"), "--token", str(tmp_path / "token")]) == 2
    assert "expected a line of at least 16" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "is_told"), [("Xk3-secret_secret9", False), ("keys/token", True), ("token.txt", True)]
)
def test_a_token_that_is_no_file_is_told_unless_it_may_be_the_secret(given, is_told, tmp_path, capsys):
    assert main(["serve", str(tmp_path / "new"), "--token", given]) == 2
    told = capsys.readouterr().err
    assert (given in told) is is_told
    assert "--token" in told


def test_a_large_body_is_refused_before_and_while_it_is_read(client):
    said(client.post("/v1/predict", content=b"x" * 300_000), 413, "too_large")

    def endless():
        for _ in range(100):
            yield b"x" * 10_000

    with contextlib.suppress(httpx.WriteError, httpx.ReadError):  # it may end before all was sent
        said(
            client.post("/v1/predict", content=endless(), headers={"Content-Type": "application/json"}),
            413,
            "too_large",
        )
    for body in (b"{" * 100_000, b"[" * 100_000, b'{"images":' * 10_000):
        found = client.post("/v1/predict", content=body, headers={"Content-Type": "application/json"})
        said(found, 400, "malformed")


def bomb(width, height):
    """A PNG of a few hundred bytes that claims many pixels."""

    def chunk(kind, data):
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\x00\x00\x00"
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [400, 9_000, 30_000, 2**31 - 1])
def test_an_image_of_many_pixels_is_refused_before_it_is_decoded(client, side, monkeypatch):
    Image.init()  # a plugin of Pillow loads an image when it is imported
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("decoded"))
    for path, data in (("/v1/predict", {}), ("/v1/classes", {"name": "x"}), ("/v1/embed", {})):
        said(client.post(path, data=data, files=files(bomb(side, side))), 413, "too_large")


@pytest.mark.parametrize(
    "content",
    [
        b"", b"x", b"<html>", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%!PS-Adobe-3.0 EPSF-3.0\n",
        b"P6 2 2 255 " + b"x" * 12, b"/etc/passwd", b"http://127.0.0.1/x.png", b"GIF89a",
    ],
)  # fmt: skip
def test_content_is_sniffed_whatever_it_is_called(client, content):
    sent = [("images", ("x.png", content, "image/png"))]
    assert client.post("/v1/predict", files=sent).status_code in (415, 422)


def test_photographs_of_phones_are_read_where_their_package_is_or_the_refusal_names_it(tmp_path, monkeypatch):
    pillow_heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    pillow_heif.from_pillow(Image.new("RGB", (60, 40), (200, 30, 30))).save(file)
    sent = [("images", ("phone.heic", file.getvalue()))]
    with running(taught(tmp_path / "m", 2), max_pixels=3000) as client:
        taught_now = client.post("/v1/classes", data={"name": "red"}, files=sent).json()
        picture = Image.open(io.BytesIO(client.get(f"/v1/examples/{taught_now['examples'][0]}/thumbnail").content))
        red, green, _ = picture.convert("RGB").getpixel((5, 5))
        assert red > 180
        assert green < 60
        (answer,) = client.post("/v1/predict", files=sent).json()["answers"]
        assert answer["label"] == "red"
        pillow_heif.from_pillow(Image.new("RGB", (60, 60))).save(large := io.BytesIO())
        said(client.post("/v1/predict", files=files(large.getvalue())), 413, "too_large")
        monkeypatch.delitem(Image.OPEN, "HEIF")
        assert 'pip install "fewshot-learn[heif]"' in said(client.post("/v1/predict", files=sent), 415, "unsupported")
        assert "HEIF" not in said(client.post("/v1/predict", files=files(b"x")), 415, "unsupported")


@pytest.mark.parametrize(
    "data", ["/etc/passwd", "http://127.0.0.1/", "file:///etc/passwd", "data:text/plain,x", 7, None, [], "é"]
)
def test_no_path_or_url_is_opened(client, data, monkeypatch):
    found = client.post("/v1/predict", json={"images": [{"data": data, "path": "/etc/passwd", "url": "http://x"}]})
    assert found.status_code in (415, 422)
    said(client.post("/v1/predict", json={"images": ["/etc/passwd"]}), 422, "invalid")


def test_each_of_many_images_is_looked_at(client):
    assert client.post("/v1/predict", files=files(*[PICTURE] * 3, bomb(400, 400))).status_code == 413
    svg = b"<svg xmlns='http://www.w3.org/2000/svg'/>"
    errors = [one["error"] for one in client.post("/v1/predict", files=files(*[PICTURE] * 3, svg)).json()["answers"]]
    assert errors[:3] == [None] * 3
    assert "not an image that can be read" in errors[3]["message"]


def test_a_file_has_the_name_that_a_client_gives_it_without_folders(client):
    data = base64.b64encode(PICTURE).decode()
    found = client.post("/v1/predict", json={"images": [{"data": data, "name": "..\\..\\a\x1b[2J\n.png"}]})
    assert found.json()["answers"][0]["name"] == "a[2J.png"
    found = client.post("/v1/predict", json={"images": [{"data": data, "name": "x" * 5000}]})
    assert found.json()["answers"][0]["name"] == "x" * 80


def test_too_many_images_are_refused(client):
    said(client.post("/v1/predict", files=files(*[PICTURE] * 5)), 413, "too_large")
    five = [{"data": base64.b64encode(PICTURE).decode()}] * 5
    said(client.post("/v1/predict", json={"images": five}), 413, "too_large")


def test_a_client_that_sends_no_head_is_cut_off(client):
    for beginning in (b"", b"GET / HTTP/1.1\r\nHost: localhost\r\n"):
        start = time.monotonic()
        assert raw(client, beginning) == b""
        assert time.monotonic() - start < 5
    again = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HT"
    start = time.monotonic()
    assert raw(client, again).count(b"HTTP/1.1 200") == 1
    assert time.monotonic() - start < 8


CHUNKED = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("beginning", "more"),
    [
        (b"GET /", b"a" * 4000),
        (b"GET / HTTP/1.1\r\nHost: ", b"a" * 4000),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX", b"a" * 4000),
        (b"GET / HTTP/1.1\r\n", b"X-Name: value\r\n" * 280),
        (b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nX: ", b"a" * 4000),
        (CHUNKED + b"1;x=", b"a" * 4000),
        (CHUNKED + b"0\r\nX: ", b"a" * 4000),
        (CHUNKED + b"0\r\n", b"X-Name: value\r\n" * 280),
    ],
)
def test_no_head_chunk_or_trailer_without_an_end_is_kept(client, beginning, more):
    place = urlsplit(str(client.base_url))
    with socket.create_connection((place.hostname, place.port), timeout=10) as connection:
        connection.sendall(beginning)
        with pytest.raises(ConnectionError):
            repeat(connection, more)


@pytest.mark.parametrize(
    "text",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nIf-Match: \x7f\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n",
        b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused_as_all_else_is(client, text):
    head, _, body = raw(client, text).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"connection: close" in head.lower()
    assert json.loads(body)["error"]["code"] == "malformed"


def repeat(connection, more):
    for _ in range(100):
        time.sleep(0.001)  # or all would be one read, which is bounded by itself
        connection.sendall(more)


def test_a_client_that_sends_its_body_slowly_is_refused(client):
    start = time.monotonic()
    assert b" 408 " in raw(client, HEAD + b"{").partition(b"\r\n")[0]
    assert time.monotonic() - start < 4


def test_a_client_that_does_not_take_its_answer_is_cut_off(folder):
    with running(folder, send_seconds=0.5) as client:
        place = urlsplit(str(client.base_url))
        with socket.create_connection((place.hostname, place.port)) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one = b"GET /v1/openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
            connection.settimeout(20)
            with pytest.raises(ConnectionError):
                connection.sendall(one * 500_000)


def test_there_are_only_so_many_requests_and_bytes_at_once(folder):
    with running(folder, max_requests=2, max_memory=2000, body_seconds=5) as client:
        place = urlsplit(str(client.base_url))
        held = []
        for _ in range(2):
            held.append(socket.create_connection((place.hostname, place.port)))
            held[-1].sendall(HEAD + b"{")
        time.sleep(0.3)
        found = client.get("/v1/model")
        said(found, 503, "busy")
        assert int(found.headers["retry-after"]) >= 1
        assert client.get("/health/live").status_code == 200
        for one in held:
            one.close()
        time.sleep(0.3)
        assert client.get("/v1/model").status_code == 200
        said(client.post("/v1/predict", files=files(PICTURE)), 503, "busy")  # more than 2000 bytes
        assert client.get("/v1/model").status_code == 200


@pytest.mark.parametrize("kind", [KeyError, ValueError, TypeError, RuntimeError])  # not of this package
def test_no_stack_trace_leaves_nor_what_others_say(client, monkeypatch, caplog, kind):
    def fail(*_):
        raise kind("secret")

    monkeypatch.setattr(client.workshop, "view", fail)
    monkeypatch.setattr(type(client.workshop), "is_stale", True)
    found = client.get("/v1/model", headers={"X-Request-ID": "mine-1"})
    assert "secret" not in said(found, 500, "internal")
    assert found.headers["x-request-id"] == "mine-1"
    assert [record.request_id for record in caplog.records if record.exc_info] == ["mine-1"]


def test_names_are_escaped_in_logs_and_headers(client, caplog):
    from fewshot.serve.log_lines import JSONFormatter

    caplog.set_level("INFO", "fewshot.serve")
    name = 'x\r\nSet-Cookie: a=b\x1b[2J","level":"error'
    client.delete("/v1/classes", params={"name": name})
    client.get("/v1/classes/%0d%0aX:%20y%1b", headers={"X-Request-ID": "a b\t<"})
    client.get("/v1/\u00e9\u2028\u202e")
    client.get("/v1/" + "\u00e9" * 10_000)
    for record in (one for one in caplog.records if one.name == "fewshot.serve"):
        line = JSONFormatter().format(record)
        assert len(line) < 4000
        assert line.isascii()
        assert line.isprintable()
        assert json.loads(line)["level"] == "info"
    assert not [one for one in caplog.records if getattr(one, "request_id", "") == "a b\t<"]


def test_answers_are_ascii_so_that_no_label_breaks_a_reader_of_lines(folder, tmp_path):
    name = "h\u00e9ron \u2028\u202e\x7f \U0001f426 </script>"
    place = shutil.copytree(folder, tmp_path / "model")
    with running(place) as client:
        taught_ = client.post("/v1/classes", data={"name": name}, files=files(PICTURE))
        (answer,) = (answered := client.post("/v1/predict", files=files(PICTURE))).json()["answers"]
        assert name in [one["label"] for one in answer["top"]]
        listed, examples = client.get("/v1/classes"), client.get("/v1/examples", params={"class": name})
        assert name in [one["name"] for one in listed.json()["classes"]]
        assert [one["class"] for one in examples.json()["examples"]] == [name]
        refused = client.patch("/v1/classes", params={"name": f"{name}?"}, json={"name": "x"})
        missing = client.get("/v1/classes", params={"after": name})
        history = client.get("/v1/history")
        assert name[:5] in said(refused, 404, "no_class")
        for response in (taught_, answered, listed, examples, refused, missing, history, client.get("/v1/check")):
            assert response.content.isascii()
            assert b"\x7f" not in response.content


def test_a_picture_that_is_shown_is_a_picture(client):
    (example, *_) = client.get("/v1/examples").json()["examples"]
    shown = client.get(f"/v1/examples/{example['id']}/thumbnail")
    assert Image.open(io.BytesIO(shown.content)).format in ("PNG", "JPEG")


def test_a_picture_of_a_stranger_is_no_page(tmp_path):
    images = [Image.new("RGB", (32, 32), color) for color in ("red", "blue")]
    model = FewShotImageClassifier(quick_embedder()).fit(images, ["a", "b"])
    script = [b"\xff\xd8\xff<script>alert(1)</script>"] * 2  # others are refused when they are loaded
    kept = model.snapshot().support
    hostile = type(kept)(kept.ids, kept.labels, kept.embeddings, script)
    model.change(lambda now: dataclasses.replace(now, support=hostile))
    model.save(tmp_path / "model")
    with running(tmp_path / "model") as client:
        (example, _) = client.get("/v1/examples").json()["examples"]
        shown = client.get(f"/v1/examples/{example['id']}/thumbnail")
        assert b"<script>" in shown.content
        assert shown.headers["content-type"] == "image/jpeg"
        assert shown.headers["x-content-type-options"] == "nosniff"


def test_an_archive_that_is_not_there_is_no_name_of_a_new_classifier(tmp_path):
    with pytest.raises(ValueError, match=r"gone\.zip does not exist; for a new classifier, give the name of a folder"):
        check(Settings(str(tmp_path / "gone.zip")))
