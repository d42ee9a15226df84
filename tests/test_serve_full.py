"""A disk that is really full: a small file system of its own, which only the service sees."""

import io
import shutil
import subprocess
import zipfile

import pytest

from fewshot import FewShotModel
from tests.serving import QUICK, files, pictures, process, said

PICTURES = pictures(40)
#: Mounts a file system of so many kilobytes on a folder.
MOUNT = "mount -t tmpfs -o size={}k tmpfs '{}'"


def isolated(space, first, command=()):
    """A command in a space of its own, after another that prepares it."""
    return ["unshare", "--user", "--map-root-user", space, "sh", "-c", f'{first} && exec "$@"', "-", *command]


def can_isolate(space, first):
    tried = shutil.which("unshare") and subprocess.run(isolated(space, first, ["true"]), capture_output=True)
    return bool(tried) and tried.returncode == 0


@pytest.mark.slow
def test_a_full_disk_is_told_and_the_old_state_stays_whole(tmp_path):
    mount = MOUNT.format(1500, tmp_path)
    if not can_isolate("--mount", mount):
        pytest.skip("no file system can be mounted here")
    with process(tmp_path / "model", *QUICK, within=isolated("--mount", mount)) as found:
        client, taught = found.client, {}
        for i in range(len(PICTURES)):
            answer = client.post("v1/classes", data={"name": f"class {i}"}, files=files(PICTURES[i]))
            if answer.status_code != 201:
                break
            taught[f"class {i}"] = PICTURES[i]
        assert "nothing was changed" in said(answer, 507, "disk_full")
        assert len(taught) > 2
        assert {one["name"] for one in client.get("v1/classes").json()["classes"]} == set(taught)
        archive = io.BytesIO(client.get("v1/model/download").raise_for_status().content)
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(tmp_path / "taken")
    assert set(FewShotModel.load(tmp_path / "taken").classes_) == set(taught)
