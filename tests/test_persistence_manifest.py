import hashlib
import json

import pytest

from fewshot.errors import ArtifactError
from fewshot.persistence.artifact import read_artifact
from fewshot.persistence.manifest import FORMAT, MANIFEST, PLAIN
from tests.test_persistence_artifact import names, write


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "a", "one", "abc0" * 16)
    return tmp_path / "a"


def test_row_71_a_newer_format_is_refused_with_its_version(folder):
    raw = (folder / MANIFEST).read_bytes()
    body = raw[: raw.rindex(b', "digest"')].replace(b'"format": %d' % PLAIN, b'"format": %d' % (FORMAT + 1))
    digest = hashlib.sha256(body).hexdigest()
    (folder / MANIFEST).write_bytes(body + b', "digest": "%s"}\n' % digest.encode())
    with pytest.raises(ArtifactError, match=f"in format {FORMAT + 1}; this is .*upgrade"):
        read_artifact(folder, "classifier")


@pytest.mark.parametrize(
    "name", ["../b/memory-0123456789abcdef.npz", "/etc/hostname", "../.x.partial", "notes.txt", ""]
)
def test_a_name_that_is_none_of_its_own_files_is_refused(folder, name):
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"]["memory"]["name"] = name
    del manifest["digest"]
    body = json.dumps(manifest)[:-1].encode()
    (folder / MANIFEST).write_bytes(body + b', "digest": "%s"}\n' % hashlib.sha256(body).hexdigest().encode())
    with pytest.raises(ArtifactError, match="is not the name of a data file"):
        read_artifact(folder, "classifier")


def test_the_manifest_is_json_that_names_every_file(folder):
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    assert manifest["labels"] == ["ü", "\n", '"']
    assert {entry["name"] for entry in manifest["files"].values()} | {MANIFEST} == set(names(folder))
    assert list(manifest)[-1] == "digest"
