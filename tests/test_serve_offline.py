"""The first minute of a stranger: the default network, three classes by files and camera, and no network at all."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.browser import chromium
from tests.test_serve_full import can_isolate, isolated

UP = "ip link set lo up"
#: What the stranger does, in a space that reaches nobody.
MINUTE = """
import socket, sys, time
from pathlib import Path
import pytest
from tests.browser import browsing
from tests.photographs import write_photos
from tests.serving import process
from tests.test_serve_page import choose, see, teach_camera, teach_files

place = Path(sys.argv[1])
with pytest.raises(OSError):
    socket.create_connection(("192.0.2.1", 80), 2)
old, new = write_photos(place / "old", 5), write_photos(place / "new", 3, seed=9)
start = time.monotonic()
with process(place / "birds") as server, browsing(server.url) as page:
    teach_files(page, "temple", old[:5])
    teach_files(page, "flower", old[5:])
    teach_camera(page, "screen")
    see(page, "Try")
    right = 0
    for path in new:
        with page.expect_response("**/v1/predict*") as answered:
            choose(page, path)
        right += answered.value.json()["answers"][0]["label"] == Path(path).parent.name
    assert not page.errors
print(right, len(new), time.monotonic() - start)
"""


@pytest.mark.slow
def test_three_classes_are_taught_and_known_within_a_minute_without_a_network(tmp_path):
    chromium()
    if not can_isolate("--net", UP):
        pytest.skip("no space without a network can be made here")
    command = isolated("--net", UP, [sys.executable, "-c", MINUTE, str(tmp_path)])
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    assert ran.returncode == 0, ran.stderr[-3000:]
    right, n, seconds = ran.stdout.split()
    assert right == n
    assert float(seconds) < 60
