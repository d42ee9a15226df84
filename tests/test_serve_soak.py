"""The service under load and under nonsense: no torn answer, no lost class, no mistake of its own."""

import asyncio
import base64
import json
import random
import threading
import time
from urllib.parse import quote

import httpx
import numpy as np
import pytest

from fewshot import FewShotModel
from fewshot.embedding.network import Embedded
from fewshot.persistence.locking import locked
from fewshot.serve.batcher import Batcher
from fewshot.serve.metrics import Metrics
from tests.serving import files, pictures, process, running, taught

PICTURES = pictures(30)
#: What a fuzzed request may be answered with: nothing else is a mistake of the client.
FINE = {200, 201, 204, 304, 400, 401, 403, 404, 405, 408, 409, 411, 413, 415, 422, 431, 503, 507}


def work(folder, seconds, n_readers=4, n_teachers=2):
    """Read and teach at once; return what was acknowledged, and what readers saw that cannot be."""
    acknowledged, wrong, stop = [], [], threading.Event()

    def teach(place, url):
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
            for i in range(10_000):
                if stop.is_set():
                    return
                name = f"{place}-{i}"
                response = client.post("/v1/classes", data={"name": name}, files=files(PICTURES[(i + place) % 60]))
                if response.status_code != 201:
                    wrong.append(response.text)
                acknowledged.append(name)
                seen = {one["name"] for one in client.get("/v1/classes").json()["classes"]}
                if name not in seen:
                    wrong.append(f"{name} is not there in the next request")

    def read(place, url):
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
            sent = files(PICTURES[place], PICTURES[place])
            while not stop.is_set():
                found = client.post("/v1/predict", params={"top": 1000, "neighbours": 1}, files=sent)
                if found.status_code != 200:
                    wrong.append(found.text)
                    continue
                first, second = found.json()["answers"]
                shares = [one["probability"] for one in first["top"]]
                if first != {**second, "name": first["name"]} or abs(sum(shares) - 1) > 1e-3:
                    wrong.append(json.dumps([first, second]))
                if first["neighbours"][0]["label"] not in {one["label"] for one in first["top"]}:
                    wrong.append("the nearest example is of a class that there is not")

    with running(folder) as client:
        url = str(client.base_url)
        threads = [threading.Thread(target=teach, args=(i, url)) for i in range(n_teachers)]
        threads += [threading.Thread(target=read, args=(i, url)) for i in range(n_readers)]
        for thread in threads:
            thread.start()
        time.sleep(seconds)
        stop.set()
        for thread in threads:
            thread.join(60)
    return acknowledged, wrong


@pytest.mark.parametrize("seconds", [2, pytest.param(60, marks=pytest.mark.slow)])
def test_readers_and_teachers_at_once(tmp_path, seconds):
    acknowledged, wrong = work(taught(tmp_path / "model"), seconds)
    assert not wrong, wrong[:3]
    assert len(acknowledged) > seconds
    assert set(acknowledged) <= set(FewShotModel.load(tmp_path / "model").classes_.tolist())


def test_readers_do_not_wait_for_a_teacher_or_for_another_process_that_holds_the_folder(tmp_path):
    folder = taught(tmp_path / "model")
    with running(folder) as client:
        with locked(folder):
            late = threading.Thread(target=client.delete, args=("/v1/classes/temple",))
            late.start()
            time.sleep(0.2)
            start = time.monotonic()
            for _ in range(10):
                assert client.post("/v1/predict", files=files(PICTURES[0])).status_code == 200
            assert time.monotonic() - start < 5
            assert late.is_alive()
        late.join(60)
        assert len(client.get("/v1/classes").json()["classes"]) == 1


def test_a_queue_that_is_full_says_when_to_come_again(tmp_path):
    with running(taught(tmp_path / "model"), max_queue=20) as client:
        url, found = str(client.base_url), []

        def ask():
            found.append(httpx.post(f"{url}/v1/predict", files=files(*PICTURES[:16]), timeout=60, trust_env=False))

        threads = [threading.Thread(target=ask) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {one.status_code for one in found} == {200, 503}
        assert all(int(one.headers["retry-after"]) >= 1 for one in found if one.status_code == 503)
        assert client.post("/v1/predict", files=files(PICTURES[0])).status_code == 200


def test_one_item_that_breaks_the_embedder_fails_alone():
    class Fragile:
        def __init__(self):
            self.sizes = []

        def prepare(self, items, thumbnails):
            return items

        def embed(self, items, thumbnails, on_error):
            self.sizes.append(len(items))
            if b"bad" in items:
                raise RuntimeError("broken")
            rows = [[float(len(item))] for item in items]
            return Embedded(np.array(rows, np.float32), [], [b"t"] * len(items) if thumbnails else [])

    async def go():
        batcher, embedder = Batcher(Metrics(), 100, 0.01), Fragile()
        running = asyncio.create_task(batcher.run())
        asked = [batcher.embed(embedder, [b"a" * n]) for n in range(1, 5)]
        found = await asyncio.gather(*asked, batcher.embed(embedder, [b"bad"]), return_exceptions=True)
        large = await batcher.embed(embedder, [b"x" * n for n in range(40)])
        running.cancel()
        batcher.close()
        return found, large, embedder.sizes

    found, large, sizes = asyncio.run(go())
    assert [float(one.embeddings[0, 0]) for one in found[:4]] == [1, 2, 3, 4]
    assert isinstance(found[4], RuntimeError)
    assert sizes[0] == 4  # together
    assert large.embeddings[:, 0].tolist() == list(range(40))
    assert max(sizes) <= 16


def test_batches_are_embedded_beside_each_other_and_a_lone_image_is_not_kept_waiting(monkeypatch):
    monkeypatch.setattr("torch.get_num_threads", lambda: 2)
    monkeypatch.setattr("fewshot.serve.batcher.compute_on", lambda _: None)

    class Slow:
        def __init__(self):
            self.together, self.at = threading.Barrier(2, timeout=60), []

        def prepare(self, items, thumbnails):
            return items

        def embed(self, items, thumbnails, on_error):
            self.at.append((time.perf_counter(), len(items)))
            if len(items) > 1:
                self.together.wait()  # passes once another batch is here, too
            return Embedded(np.zeros((len(items), 1), np.float32), [])

    async def go():
        batcher, embedder = Batcher(Metrics(), 100, 0.3), Slow()
        running = asyncio.create_task(batcher.run())
        start = time.perf_counter()
        await batcher.embed(embedder, [b"a"])  # none have come lately
        alone = embedder.at[0][0] - start
        await asyncio.gather(*(batcher.embed(embedder, [b"a"]) for _ in range(8)))
        running.cancel()
        batcher.close()
        return alone, [n for _, n in embedder.at]

    alone, sizes = asyncio.run(go())
    assert alone < 0.2
    assert sizes == [1, 4, 4]


# ---- nonsense ------------------------------------------------------------------------------------------------------


def operations(schema):
    return [(method, path, facts) for path, of in schema["paths"].items() for method, facts in of.items()]


TEXTS = ("", "temple", "x", "a/b", "..", "\0", "\ud800", "é" * 400, "'\"<>&", "%00", "-1", "null", "unknown", "{}", " ")
NUMBERS = (0, 1, -1, 0.5, 1e308, 10**30, 2**63, True)


def junk(rng, deep=3):
    kind = rng.randrange(6 if deep else 4)
    if kind < 2:
        return rng.choice(TEXTS)
    if kind < 4:
        return rng.choice((*NUMBERS, None))
    if kind == 4:
        return [junk(rng, deep - 1) for _ in range(rng.randrange(4))]
    names = ("name", "images", "class", "reject", "data", "embeddings", "x")
    return {rng.choice(names): junk(rng, deep - 1) for _ in range(3)}


def content(rng):
    """A file that is an image, a damaged one, or none."""
    picture = bytearray(rng.choice(PICTURES))
    kind = rng.randrange(4)
    if kind == 0:
        return bytes(picture)
    if kind == 1:
        return bytes(picture[: rng.randrange(len(picture))])
    for _ in range(rng.randrange(1, 30)):
        picture[rng.randrange(len(picture))] = rng.randrange(256)
    return bytes(picture) if kind == 2 else rng.randbytes(rng.randrange(300))


def body(rng, ids):
    """Return arguments of httpx: a form, JSON, or bytes under any type."""
    kind, name = rng.randrange(5), rng.choice((*TEXTS, "temple", "flower"))
    fields = {"name": name, "class": name}
    if kind == 0:
        names = [text for text in TEXTS if text and text != "\ud800"]
        sent = [("images", (rng.choice(names), content(rng))) for _ in range(rng.randrange(4))]
        return {"data": {key: text.encode("utf-8", "surrogatepass") for key, text in fields.items()}, "files": sent}
    if kind == 1:
        given = {**fields, "reject": rng.choice(("off", "auto", 0.1, junk(rng))), "images": junk(rng)}
        if rng.random() < 0.5:
            given["images"] = [{"data": base64.b64encode(content(rng)).decode()}]
        elif rng.random() < 0.5:
            given["embeddings"] = rng.choice(([[0.1] * 64], [[float(rng.random())] * 64] * 2, junk(rng)))
        return {"content": json.dumps(given), "headers": {"Content-Type": "application/json"}}
    if kind == 2:
        return {"content": json.dumps(junk(rng)), "headers": {"Content-Type": "application/json"}}
    types = (
        "application/json",
        "multipart/form-data",
        "multipart/form-data; boundary=x",
        "application/zip",
        "text/plain",
    )
    return {"content": rng.randbytes(rng.randrange(200)), "headers": {"Content-Type": rng.choice(types)}}


def fuzzed(rng, schema, ids):
    method, path, facts = rng.choice(operations(schema))
    params = {}
    for one in facts.get("parameters", ()):
        if one["in"] == "path":
            known = ids if one["name"] == "example" else ["temple", "flower"]
            value = rng.choice(known) if known and rng.random() < 0.5 else rng.choice(TEXTS)
            path = (
                path.partition("{")[0] + quote(value.encode("utf-8", "surrogatepass"), safe="") + path.partition("}")[2]
            )
        elif one["in"] == "query" and rng.random() < 0.6:
            value = rng.choice((*TEXTS, *NUMBERS))
            params[one["name"]] = value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
    given = {} if method in ("get", "delete") and rng.random() < 0.8 else body(rng, ids)
    headers = given.pop("headers", {})
    if rng.random() < 0.1:
        headers |= {"If-Match": rng.choice(('"x"', "*", 'W/""', "\x7f"))}
    return {"method": method.upper(), "url": path, "params": params, "headers": headers, **given}


def fuzz(client, n, seed):
    """Send nonsense that resembles the schema; return what was answered as no service should, and the statuses."""
    rng, schema = random.Random(seed), client.get("/v1/openapi.json").json()
    bad, statuses = [], {}
    for i in range(n):
        if i % 50 == 0:
            ids = [one["id"] for one in client.get("/v1/examples", params={"limit": 20}).json()["examples"]]
        request = fuzzed(rng, schema, ids)
        response = client.request(**request)
        statuses[response.status_code] = statuses.get(response.status_code, 0) + 1
        if response.status_code not in FINE:
            bad.append((request, response.status_code, response.text[:300]))
        elif response.status_code >= 400:
            error = response.json()["error"]
            if not error["code"] or not error["message"] or "Traceback" in error["message"]:
                bad.append((request, response.text[:300]))
    return bad, statuses


def memory_of(pid):
    """Resident bytes of a process."""
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * 4096


def test_a_few_fuzzed_requests(tmp_path):
    folder = taught(tmp_path / "inner" / "model")
    with running(folder) as client:
        bad, statuses = fuzz(client, 400, 1)
    assert not bad, bad[:3]
    assert statuses[200] > 20
    assert [path.name for path in tmp_path.iterdir()] == ["inner"]
    assert [path.name for path in (tmp_path / "inner").iterdir()] == ["model"]
    FewShotModel.load(folder)


@pytest.mark.slow
def test_ten_thousand_fuzzed_requests(tmp_path):
    folder = taught(tmp_path / "inner" / "model")
    with process(folder, "--log-level", "warning") as found:
        client = found.client
        bad, _ = fuzz(client, 1000, 2)
        before = memory_of(found.pid)
        more, statuses = fuzz(client, 9000, 3)
        assert not bad + more, (bad + more)[:3]
        assert {200, 404, 422} <= statuses.keys()
        assert memory_of(found.pid) - before < 150e6
        assert client.get("health/ready").status_code == 200
        found.terminate()
        assert found.wait(60) == 0
        assert not [line for line in found.log if "Traceback" in line]
    assert [path.name for path in (tmp_path / "inner").iterdir()] == ["model"]
    assert {path.suffix for path in folder.iterdir()} <= {".json", ".safetensors"}
    FewShotModel.load(folder)
