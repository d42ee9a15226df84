"""Throughput and latency of `fewshot serve`, beside the embedder alone.

Clients in another process predict single images, each as soon as it has its last answer. Beside them, in turns, the
embedder alone embeds the same files in batches, in a process of its own. The service is the command with its default
network, taught a few classes; it decodes, embeds, answers and speaks HTTP on the same cores as the clients.
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
from PIL import Image
from protocol import facts, write
from sklearn.datasets import load_sample_images

#: Embeds as many images as each line says, and prints the seconds.
ALONE = """
import sys, time
from pathlib import Path
from fewshot.utils.threads import wait_passively
wait_passively()
from fewshot import Embedder
files = [path.read_bytes() for path in sorted(Path(sys.argv[1]).glob("*.jpg"))]
embedder = Embedder(progress=False)
embedder.transform(files[:16])
for line in sys.stdin:
    some = [files[i % len(files)] for i in range(int(line))]
    start = time.perf_counter()
    embedder.transform(some)
    print(time.perf_counter() - start, flush=True)
"""
#: Predicts with a number of clients for some seconds, and prints the seconds each request took.
CLIENTS = """
import http.client, json, sys, threading, time
from pathlib import Path
port, n, seconds = int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
files = [path.read_bytes() for path in sorted(Path(sys.argv[1]).glob("*.jpg"))]
head = b'--x\\r\\nContent-Disposition: form-data; name="images"; filename="x.jpg"\\r\\n\\r\\n'
bodies = [head + one + b"\\r\\n--x--\\r\\n" for one in files]
took, stop = [], []
def ask(place):
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.connect()
    for i in range(place, 10**9):
        if stop:
            return
        start = time.perf_counter()
        kind = {"Content-Type": "multipart/form-data; boundary=x"}
        connection.request("POST", "/v1/predict", bodies[i % len(bodies)], kind)
        response = connection.getresponse()
        response.read()
        assert response.status == 200, response.status
        took.append(time.perf_counter() - start)
threads = [threading.Thread(target=ask, args=(i,)) for i in range(n)]
start = time.perf_counter()
for thread in threads: thread.start()
time.sleep(seconds)
stop.append(1)
for thread in threads: thread.join()
print(json.dumps([time.perf_counter() - start, took]))
"""


def write_pictures(folder: Path, n: int, side: int) -> None:
    """Write JPEG files: pieces of the two photographs of scikit-learn."""
    rng = np.random.default_rng(0)
    for i in range(n):
        photo = load_sample_images().images[i % 2]
        top, left = (int(rng.integers(0, length - side)) for length in photo.shape[:2])
        Image.fromarray(photo[top : top + side, left : left + side]).save(folder / f"{i:03d}.jpg", quality=90)


def teach(folder: Path, port: int) -> None:
    """Teach a class of each photograph."""
    for i, name in enumerate(("temple", "flower")):
        chosen = [path.read_bytes() for path in sorted(folder.glob("*.jpg"))[i:20:2]]
        sent = {"name": name, "images": [{"data": base64.b64encode(one).decode()} for one in chosen]}
        request = Request(f"http://127.0.0.1:{port}/v1/classes", json.dumps(sent).encode())
        request.add_header("Content-Type", "application/json")
        with urlopen(request, timeout=60) as response:
            response.read()


def measure(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Return the figures of all rounds."""
    write_pictures(work, 64, options.side)
    alone = subprocess.Popen(
        [sys.executable, "-c", ALONE, str(work)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    command = [sys.executable, "-m", "fewshot", "serve", str(work / "model"), "--port", "0", "--log-level", "warning"]
    service = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def embed(n: int) -> float:
        told, said = alone.stdin, alone.stdout
        print(n, file=told, flush=True)
        return float(said.readline()) if said is not None else 0.0

    def ask(n: int, seconds: float) -> tuple[float, list[float]]:
        arguments = [str(work), str(port), str(n), str(seconds)]
        ran = subprocess.run([sys.executable, "-c", CLIENTS, *arguments], capture_output=True, text=True, check=True)
        return tuple(json.loads(ran.stdout))

    try:
        port = int(re.search(r":(\d+)/", service.stdout.readline())[1])  # type: ignore[union-attr,index]
        teach(work, port)
        ask(2, 1)
        rounds = []
        for _ in range(options.rounds):
            row: dict[str, Any] = {
                "alone": options.images / embed(options.images),
                "batch": median(embed(8) for _ in range(9)),
            }
            for n in options.clients:
                seconds, took = ask(n, options.seconds)
                row[str(n)] = {
                    "per second": len(took) / seconds,
                    "median": float(np.quantile(took, 0.5)),
                    "p99": float(np.quantile(took, 0.99)),
                }
            rounds.append(row)
        return {"rounds": rounds}
    finally:
        for process in (alone, service):
            process.terminate()
            process.wait()


def table(found: dict[str, Any], clients: list[int]) -> str:
    """Return the medians of the rounds as Markdown, with the range of the ratios."""
    rounds = found["rounds"]
    heads = ["clients", "images a second", "of the embedder alone", "median, ms", "p99, ms", "p99 in batches of 8"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    alone, batch = (median(row[name] for row in rounds) for name in ("alone", "batch"))
    lines.append(f"| embedder alone | {alone:.1f} | 1.00 | | {1000 * batch:.0f} (8 images) | 1.0 |")
    for n in clients:
        rows = [(row, row[str(n)]) for row in rounds]
        share, late = ([a / b for a, b in pairs] for pairs in (
            [(one["per second"], row["alone"]) for row, one in rows], [(one["p99"], row["batch"]) for row, one in rows]
        ))  # fmt: skip
        speed, middle, p99 = (median(one[name] for _, one in rows) for name in ("per second", "median", "p99"))
        lines.append(
            f"| {n} | {speed:.1f} | {median(share):.2f} ({min(share):.2f} to {max(share):.2f}) | {1000 * middle:.0f} | "
            f"{1000 * p99:.0f} | {median(late):.1f} ({min(late):.1f} to {max(late):.1f}) |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print a table and write the results."""
    parser = argparse.ArgumentParser(prog="serve.py", description=__doc__)
    parser.add_argument("--out", default="benchmarks/results/serve", metavar="NAME", help="NAME.json and NAME.md")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32], metavar="N")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=15, metavar="S", help="of clients, default: %(default)s")
    parser.add_argument("--images", type=int, default=512, metavar="N", help="embedded alone, default: %(default)s")
    parser.add_argument("--side", type=int, default=320, metavar="PX", help="of the images, default: %(default)s")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        found = measure(options, Path(work))
    write(options.out, {**facts("serve.py", 0), "side": options.side, **found}, table(found, options.clients))


if __name__ == "__main__":
    main()
