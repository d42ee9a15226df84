import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from fewshot.data import archive as module
from fewshot.data.archive import obtain
from fewshot.errors import DownloadError

CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        if self.path == "/missing.zip":
            self.send_error(404)
            return
        if self.path == "/broken.zip":
            self.send_error(500)
            return
        if self.path == "/silent.zip":
            self.server.released.wait(20)
            return
        sized = self.path != "/unsized.zip"
        self.send_response(200)
        if sized:
            self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[: 3000 if self.path == "/cut.zip" else None])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.asked, server.released, server.daemon_threads = [], threading.Event(), True
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.released.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("name", ["data.zip", "unsized.zip"])
def test_a_download_is_kept_whole_and_not_fetched_again(server, tmp_path, name):
    for _ in range(2):
        path = obtain(None, f"{server.url}/{name}", SHA256, tmp_path / "new" / "folder", False)
        assert path == tmp_path / "new" / "folder" / name
        assert path.read_bytes() == CONTENT
    assert server.asked == [f"/{name}"]
    assert [p.name for p in path.parent.iterdir()] == [name]


def test_a_file_of_another_content_is_fetched_anew(server, tmp_path):
    (tmp_path / "data.zip").write_bytes(CONTENT[:50])
    assert obtain(None, f"{server.url}/data.zip", SHA256, tmp_path, False).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("name", "sha256", "reason"),
    [
        ("data.zip", "0" * 64, f"has the SHA-256 {SHA256}, expected {'0' * 64}; try again, or download it yourself"),
        ("missing.zip", SHA256, r"missing\.zip cannot be downloaded \(Not Found\); download it yourself"),
        ("broken.zip", SHA256, "cannot be downloaded .*Internal Server Error"),
        ("cut.zip", SHA256, r"cannot be downloaded \(it ended after 3000 of 10240 bytes\)"),
    ],
)
def test_a_failed_download_leaves_nothing_and_harms_nothing(server, tmp_path, name, sha256, reason):
    for old in (None, b"an older one"):
        if old:
            (tmp_path / name).write_bytes(old)
        with pytest.raises(DownloadError, match=reason):
            obtain(None, f"{server.url}/{name}", sha256, tmp_path, False)
        with pytest.raises(DownloadError, match="download it yourself and give its path as --archive"):
            obtain(None, f"{server.url}/{name}", sha256, tmp_path / "new", False, "--archive")
        assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == ([(name, old)] if old else [])


def test_a_server_that_does_not_answer_is_given_up(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT", 0.2)
    with pytest.raises(DownloadError, match="timed out"):
        obtain(None, f"{server.url}/silent.zip", SHA256, tmp_path, False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/data.zip", "no-such-scheme://x/data.zip", "data.zip"])
def test_an_address_that_cannot_be_reached_is_a_download_error(tmp_path, url):
    with pytest.raises(DownloadError, match=r"data\.zip cannot be downloaded"):
        obtain(None, url, SHA256, tmp_path, False)
    assert list(tmp_path.iterdir()) == []


def test_a_local_archive_is_taken_as_it_is(server, tmp_path):
    (tmp_path / "mine.zip").write_bytes(b"packed anew")
    assert obtain(tmp_path / "mine.zip", f"{server.url}/data.zip", SHA256, tmp_path / "d") == tmp_path / "mine.zip"
    for source in (tmp_path / "none.zip", tmp_path):
        with pytest.raises(ValueError, match=r"does not exist; give source the path of data\.zip, or omit it"):
            obtain(source, f"{server.url}/data.zip", SHA256, tmp_path / "d")
    assert server.asked == []
    assert not (tmp_path / "d").exists()


def test_progress_is_shown_when_asked_for(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("fewshot.utils.progress.IN_LOG", 0)
    obtain(None, f"{server.url}/data.zip", SHA256, tmp_path, True)
    assert "data: 100%" in capsys.readouterr().err
