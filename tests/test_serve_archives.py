"""Zip files of strangers: whatever is in them, the answer is one sentence, and nothing lands outside."""

import io
import pickle
import random
import stat
import zipfile

import pytest

from tests.serving import running, said, taught


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return taught(tmp_path_factory.mktemp("archives") / "model")


@pytest.fixture(scope="module")
def client(folder):
    with running(folder) as found:
        found.folder = folder
        yield found


def send(client, content):
    return client.post("/v1/model/load", content=content, headers={"Content-Type": "application/zip"})


def packed(folder, kind=zipfile.ZIP_DEFLATED, **instead):
    """A zip file of a folder, with other content or kinds of some files."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", kind) as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, path.name)
        for name, content in instead.items():
            archive.writestr(name, content)
    return file.getvalue()


@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damage_anywhere_is_told(client, kind):
    whole, rng = packed(client.folder, kind), random.Random(0)
    before = client.get("/v1/model").json()["version"]
    for _ in range(12):
        damaged = bytearray(whole)
        for _ in range(20):
            damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        said(send(client, bytes(damaged)), 422, "invalid")
    assert client.get("/v1/model").json()["version"] == before


def test_a_list_of_many_files_is_not_read(client, monkeypatch):
    made, entry = [], b"PK\1\2" + bytes(42)
    n = 2**20 // len(entry) + 1
    end = b"PK\5\6" + bytes(4) + (1).to_bytes(2, "little") * 2 + (n * 46).to_bytes(4, "little") + bytes(6)
    usual = zipfile.ZipInfo
    monkeypatch.setattr(zipfile, "ZipInfo", lambda *given: made.append(1) or usual(*given))
    said(send(client, entry * n + end), 422, "invalid")
    assert not made


def test_a_link_is_the_text_that_it_is(client, tmp_path):
    (tmp_path / "secret").write_text("of this machine")
    link = zipfile.ZipInfo("manifest.json")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for path in client.folder.iterdir():
            archive.writestr(link if path.name == link.filename else path.name, str(tmp_path / "secret"))
    said(send(client, file.getvalue()), 422, "invalid")


class Evil:
    """What runs when it is loaded as a pickle."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_no_pickle_is_loaded(client, tmp_path):
    evil = pickle.dumps(Evil(str(tmp_path / "ran")))
    names = [path.name for path in client.folder.iterdir() if path.is_file() and path.name != "manifest.json"]
    for name in names:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for path in client.folder.iterdir():
                archive.writestr(path.name, evil if path.name == name else path.read_bytes())
        assert send(client, file.getvalue()).status_code in (200, 422)  # 200 for a file that is only a lock
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "more",
    [["evil.py"], ["manifest.json"], [f"memory-{i:016x}.safetensors" for i in range(1001)]],
    ids=["code", "twice", "many"],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_whole_classifier_with_more_files_is_refused(client, more):
    with_more = packed(client.folder, **dict.fromkeys(more, b"x"))
    said(send(client, with_more), 422, "invalid")
