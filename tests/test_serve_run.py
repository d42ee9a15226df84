"""The service as a process: it says where it listens, drains at SIGTERM, and loses nothing when it is killed."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path

import httpx
import pytest

from fewshot import FewShotModel
from fewshot.cli import main
from fewshot.utils import malloc
from tests.processes import python
from tests.serving import QUICK, files, nursery, pictures, process, running, said, taught

PICTURES = pictures(40)


def test_the_command_teaches_answers_and_drains(tmp_path):
    with process(tmp_path / "model", *QUICK) as found:
        assert found.client.get("health/ready").json() == {"status": "ready"}
        late = {}

        def teach():
            late["response"] = found.client.post("v1/classes", data={"name": "late"}, files=files(*PICTURES[:64]))

        thread = threading.Thread(target=teach)
        thread.start()
        time.sleep(0.05)
        found.send_signal(signal.SIGTERM)
        thread.join(60)
        assert found.wait(60) == 0
        assert late["response"].status_code == 201
    assert FewShotModel.load(tmp_path / "model").classes_.tolist() == ["late"]


#: The command, told to end when it begins to load its network.
LOADING = """
import os, signal, sys, time
import fewshot.serve.process as process
from fewshot.cli import main
def load(settings):
    os.kill(os.getpid(), getattr(signal, sys.argv[1]))
    time.sleep(1)
    raise SystemExit("it goes on")
process.open_workshop = load
sys.exit(main(["serve", sys.argv[2], "--port", "0"]))
"""


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", (-15, 143)), ("SIGINT", (-2, 130))])
def test_a_service_that_is_told_to_end_while_it_loads_ends_at_once(name, status, tmp_path):
    ran = python(LOADING, name, tmp_path / "new")
    assert ran.returncode in status, ran.stderr
    assert "it goes on" not in ran.stderr
    assert "Traceback" not in ran.stderr


def test_mistakes_are_one_sentence(tmp_path, capsys):
    taught(tmp_path / "model")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x").write_text("x")
    for command, told in (
        (["model", "--backbone", "conv4"], "has its own network"),
        (["new", "--read-only"], "no classifier to read"),
        (["other"], "holds other files"),
        (["new", "--root-path", "x"], "expected a path such as /fewshot"),
        (["new", "--token", str(tmp_path / "gone")], "gone"),
        (["other/x/new"], "Not a directory; choose another place"),
    ):
        assert main(["serve", str(tmp_path / command[0]), *command[1:]]) in (1, 2)
        assert told in capsys.readouterr().err


@pytest.mark.parametrize("name", ["fastapi", "uvicorn", "httptools", "python_multipart", "prometheus_client"])
def test_a_missing_package_is_one_sentence(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, name, None)
    assert main(["serve", str(tmp_path / "new")]) == 1
    assert f'{name} is missing; run: pip install "fewshot-learn[serve]"' in capsys.readouterr().err


def test_a_port_that_is_taken_is_one_sentence(tmp_path, capsys):
    with running(tmp_path / "model") as client:
        assert main(["serve", str(tmp_path / "new"), "--port", str(client.base_url.port), *QUICK]) == 1
        assert "in use); give another --port" in capsys.readouterr().err


def teach_until_killed(serve, folder, number, seconds):
    """Teach classes, kill the service meanwhile, and return what was acknowledged."""
    acknowledged = []
    with serve(folder, *(QUICK if not (folder / "manifest.json").exists() else ())) as (client, kill):

        def teach():
            for i in range(1000):
                name = f"{number} {i}"
                try:
                    picture = PICTURES[(number * 7 + i) % len(PICTURES)]
                    response = client.post("v1/classes", data={"name": name}, files=files(picture))
                except httpx.TransportError:
                    return
                assert response.status_code == 201, response.text
                acknowledged.append(name)

        with ThreadPoolExecutor(1) as threads:
            teaching = threads.submit(teach)
            while not (acknowledged or teaching.done()):
                time.sleep(0.01)
            time.sleep(seconds)
            kill()
            teaching.result(30)
    return acknowledged


@pytest.mark.slow
def test_what_was_acknowledged_survives_kill_9(tmp_path):
    folder, known = tmp_path / "model", set()
    with nursery() as serve:
        for number in range(100):
            known |= set(teach_until_killed(serve, folder, number, 0.02 * (number % 10)))
            held = set(FewShotModel.load(folder).classes_.tolist())
            assert known <= held
            assert len(held - known) <= number + 1  # the one that was being acknowledged


@contextmanager
def one_of_each_worker(url, n=2):
    """Clients that keep their connections, each to another worker process."""
    with ExitStack() as held:
        found, deadline = {}, time.monotonic() + 60
        while len(found) < n and time.monotonic() < deadline:
            client = held.enter_context(httpx.Client(base_url=url, timeout=90, trust_env=False))
            found.setdefault(client.get("health/live").headers["x-request-id"].partition("-")[0], client)
        assert len(found) == n
        yield list(found.values())


@pytest.mark.slow
def test_several_workers_share_a_folder(tmp_path):
    with (
        process(tmp_path / "model", "--workers", "2", *QUICK) as found,
        one_of_each_worker(found.url) as (first, second),
        ThreadPoolExecutor(4) as threads,
    ):

        def names(client):
            return [one["name"] for one in client.get("v1/classes").json()["classes"]]

        def teach(client, name, picture):
            response = client.post("v1/classes", data={"name": name}, files=files(picture))
            assert response.status_code == 201, response.text

        def teach_many(place):
            """Teach by one worker, and ask the other one in the next request."""
            mine, other = ((first, second), (second, first))[place]
            for i in range(15):
                picture = PICTURES[(2 * i + place) % len(PICTURES)]
                teach(mine, f"{place}-{i}", picture)
                found = other.post("v1/predict", params={"top": 1000}, files=files(picture)).json()
                assert f"{place}-{i}" in {one["label"] for one in found["answers"][0]["top"]}
            return 15

        teach(first, "a", PICTURES[0])
        assert second.post("v1/undo").json()["version"] == "empty"
        assert names(first) == names(second) == []
        assert first.post("v1/redo").status_code == 200
        assert names(second) == ["a"]
        assert list(threads.map(teach_many, range(2))) == [15, 15]  # at once
        wanted = [*(f"{place}-{i}" for place in range(2) for i in range(15)), "a"]  # 2 before 10
        assert names(first) == names(second) == wanted
        teach(first, "z", PICTURES[1])
        assert second.post("v1/undo").status_code == 200
        assert names(first) == names(second) == wanted
        stale = first.get("v1/model").headers["etag"]
        assert second.patch("v1/classes/a", json={"name": "b"}).status_code == 200
        said(first.delete("v1/classes/b", headers={"If-Match": stale}), 409, "changed")
        figures = first.get("metrics").text
        counts = [float(line.split()[-1]) for line in figures.splitlines() if line.startswith("fewshot_requests_total")]
        assert sum(counts) >= 60  # of both
        found.send_signal(signal.SIGTERM)
        assert found.wait(60) == 0
    assert FewShotModel.load(tmp_path / "model").classes_.tolist() == sorted(["b", *wanted[:-1]])


def heaps(number):
    """Return where the heaps are that glibc makes for threads: pieces of 64 MiB, the rest of which is reserved."""
    lines = Path(f"/proc/{number}/maps").read_text().splitlines()
    maps = [(*(int(end, 16) for end in line.split()[0].split("-")), line.split()[1]) for line in lines]
    return [
        start
        for (start, middle, how), (rest, end, none) in pairwise(maps)
        if start % 2**26 == end % 2**26 == 0 and middle == rest and (how, none) == ("rw-p", "---p")
    ]


@pytest.mark.skipif(malloc._mallopt() is None, reason="the C library is not glibc")
@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_the_threads_of_a_process_share_a_heap(workers, tmp_path):
    """Whichever library starts a thread first; otherwise embedding takes twice as long, by chance."""
    with process(tmp_path / "model", "--workers", str(workers), *QUICK) as found:
        numbers = [found.pid]
        if workers > 1:
            numbers = Path(f"/proc/{found.pid}/task/{found.pid}/children").read_text().split()
        with one_of_each_worker(found.url, workers) as clients:
            for client in clients:
                assert client.post("v1/classes", data={"name": "a"}, files=files(*PICTURES[:8])).is_success
        asked = [number for number in numbers if "pyarrow" in Path(f"/proc/{number}/maps").read_text()]
        assert len(asked) == workers
        assert [heaps(number) for number in asked] == [[]] * workers


@pytest.mark.slow
def test_a_worker_that_dies_is_told_and_replaced_and_the_end_is_quick(tmp_path):
    with process(tmp_path / "model", "--workers", "2", *QUICK) as found:
        one = int(Path(f"/proc/{found.pid}/task/{found.pid}/children").read_text().split()[-1])
        os.kill(one, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while not any(f"the worker {one} has ended (signal 9); another one begins" in line for line in found.log):
            assert time.monotonic() < deadline, found.log
            time.sleep(0.1)
        with one_of_each_worker(found.url):
            pass
        found.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        began = time.monotonic()
        with pytest.raises(httpx.ConnectError):  # at once, so that a proxy can go on to another service
            httpx.get(f"{found.url}health/ready", timeout=30, trust_env=False)
        assert time.monotonic() - began < 1
        assert found.wait(10) == 0


@pytest.mark.slow
def test_workers_end_with_the_process_that_looks_after_them(tmp_path):
    with process(tmp_path / "model", "--workers", "2", *QUICK) as found:
        found.kill()
        found.wait(30)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                httpx.get(f"{found.url}health/live")
            except httpx.TransportError:
                return
            time.sleep(0.2)
        pytest.fail("they still answer")


@pytest.mark.filterwarnings("error")
def test_behind_a_proxy_that_puts_it_under_a_path(tmp_path):
    with running(taught(tmp_path / "model"), root_path="/few", token="x" * 20) as client:
        bearer = {"Authorization": f"Bearer {'x' * 20}"}
        for base in ("/few", ""):  # whether the proxy strips the path or not
            assert client.get(f"{base}/v1/model", headers=bearer).status_code == 200
            said(client.get(f"{base}/v1/model"), 401, "token")
            assert "fewshot" in client.get(f"{base}/").text
        message = said(client.get("/other/v1/model", headers=bearer), 404, "not_found")
        assert "/few/v1/openapi.json" in message
        servers = client.get("/v1/openapi.json", headers=bearer).json()["servers"]
        assert servers == [{"url": "/few"}]
        assert "Path=/few" in client.post("/few/v1/session", headers=bearer).headers["set-cookie"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is missing")
def test_the_examples_of_the_documentation_work(tmp_path, monkeypatch, capsys):
    text = (Path(__file__).parents[1] / "docs" / "service.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    for name, picture in zip(("heron1.jpg", "heron2.jpg", "new.jpg"), PICTURES, strict=False):
        Path(name).write_bytes(picture)
    with running(tmp_path / "model") as client:
        exec(example.replace("http://127.0.0.1:8000", str(client.base_url)), {})
        commands = re.findall(r"^curl.*", text, re.MULTILINE)
        Path("commands").write_text("\n".join(commands).replace("http://127.0.0.1:8000", str(client.base_url)))
        assert capsys.readouterr().out == "2\nheron\n"
        ran = subprocess.run(["bash", "-e", "commands"], capture_output=True, text=True, check=True)
        assert '"unknown":false' in ran.stdout
        assert Path("model.zip").read_bytes().startswith(b"PK")


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs a terminal")
def test_a_person_at_a_terminal_sees_the_address_and_a_short_line_for_each_request(tmp_path):
    import pty

    mine, theirs = pty.openpty()
    command = [sys.executable, "-m", "fewshot", "serve", str(tmp_path / "model"), "--port", "0", *QUICK]
    service = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    try:
        seen = b""
        while b"Ctrl-C stops" not in seen:
            seen += os.read(mine, 4096)
        url = re.search(r"http://\S+/", seen.decode())[0]
        with httpx.Client(base_url=url, trust_env=False) as client:
            status = client.get("/v1/classes/%1b[2J%0a").status_code
            while b" ms" not in seen:
                seen += os.read(mine, 4096)
    finally:
        service.terminate()
        service.wait(60)
        os.close(mine)
    lines = [line for line in seen.decode().splitlines() if "loaded the network" not in line]
    assert lines[0].startswith("serving")
    assert re.fullmatch(rf"\d\d:\d\d:\d\d GET /v1/classes/\S+ {status} \d+ ms", lines[1]), lines
    assert lines[1].isprintable()
