"""Throughput and latency of `fewshot serve`, beside the embedder alone.

Clients in one other process predict single images, each as soon as it has its last answer. They are not measured, and
cost little: they send bytes that were prepared over connections that stay open, and look at no more of an answer than
its status and length. Beside them, in turns, the embedder alone does in batches what a program would without a service:
`Embedder.transform` of a list of the same files in memory decodes and scales them on threads, then runs the network.
The service is the command with its default network, taught two classes; it decodes, embeds, answers, logs and speaks
HTTP on the same cores as the clients.

Both are measured with as many torch threads as there are cores, the default, and with one. On one, the cores that are
left decode for the embedder, and for the service speak HTTP. Beside the rates stand the milliseconds of processor time
for each image, which depend less on what else the machine does.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
from arguments import Parser
from PIL import Image
from protocol import facts, write
from sklearn.datasets import load_sample_images

#: Embeds as many images as each line says, and prints the seconds, and those of the processors.
ALONE = """
import sys, time
from pathlib import Path
from fewshot.utils.threads import wait_passively
wait_passively()
from fewshot import Embedder
files = [path.read_bytes() for path in sorted(Path(sys.argv[1]).glob("*.jpg"))]
embedder = Embedder(progress=False)
embedder.transform(files)
for line in sys.stdin:
    some = [files[i % len(files)] for i in range(int(line))]
    start = time.perf_counter(), time.process_time()
    embedder.transform(some)
    print(time.perf_counter() - start[0], time.process_time() - start[1], flush=True)
"""
#: Predicts with a number of clients for some seconds once told, and prints its seconds, those of its processor, and
#: those each request took.
CLIENTS = """
import asyncio, json, sys, time
from pathlib import Path
port, n, seconds = int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
start = b'--x\\r\\nContent-Disposition: form-data; name="images"; filename="x.jpg"\\r\\n\\r\\n'
head = "POST /v1/predict HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\nContent-Type: multipart/form-data; boundary=x\\r\\n"
files = [path.read_bytes() for path in sorted(Path(sys.argv[1]).glob("*.jpg"))]
bodies = [start + one + b"\\r\\n--x--\\r\\n" for one in files]
requests = [f"{head}Content-Length: {len(body)}\\r\\n\\r\\n".encode() + body for body in bodies]
took = []
class Client(asyncio.Protocol):
    def __init__(self, place):
        self.place, self.told, self.is_done = place, b"", asyncio.get_running_loop().create_future()
    def connection_made(self, transport):
        self.transport = transport
        self.ask()
    def ask(self):
        self.start = time.perf_counter()
        self.transport.write(requests[self.place % len(requests)])
        self.place += 1
    def data_received(self, data):
        self.told += data
        head, _, body = self.told.partition(b"\\r\\n\\r\\n")
        if not body or len(body) < int(head.lower().partition(b"content-length:")[2].split()[0]):
            return
        assert head.startswith(b"HTTP/1.1 200"), head
        self.told = b""
        took.append(time.perf_counter() - self.start)
        if time.perf_counter() < end:
            self.ask()
        else:
            self.is_done.set_result(None)
    def connection_lost(self, error):
        if not self.is_done.done():
            self.is_done.set_exception(error or ConnectionError("the service has gone"))
async def ask_all():
    connect = asyncio.get_running_loop().create_connection
    clients = [(await connect(lambda: Client(i), "127.0.0.1", port))[1] for i in range(n)]
    await asyncio.gather(*(client.is_done for client in clients))
print(flush=True)
sys.stdin.readline()
begun, busy = time.perf_counter(), time.process_time()
end = begun + seconds
asyncio.run(ask_all())
print(json.dumps([time.perf_counter() - begun, time.process_time() - busy, took]), flush=True)
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


def processor_seconds(process: int) -> float:
    """Return the processor time that a process has taken, on Linux."""
    told = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(told[11]) + int(told[12])) / os.sysconf("SC_CLK_TCK")


class Contest:
    """The embedder alone and the service, as processes on so many torch threads, or on as many as there are cores."""

    def __init__(self, options: argparse.Namespace, work: Path, threads: int) -> None:
        self._options, self._work = options, work
        environment = {**os.environ, **({"OMP_NUM_THREADS": str(threads)} if threads else {})}
        begin = partial(subprocess.Popen, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        model = str(work / f"model{threads}")
        self._alone = begin([sys.executable, "-c", ALONE, str(work)])
        with (work / f"log{threads}").open("w") as log:  # it logs each request, as by default
            self._service = begin([sys.executable, "-m", "fewshot", "serve", model, "--port", "0"], stderr=log)

    def run(self) -> list[dict[str, Any]]:
        """Return the figures of each round."""
        try:
            self._port = int(re.search(r":(\d+)/", self._service.stdout.readline())[1])  # type: ignore[union-attr,index]
            teach(self._work, self._port)
            self._round()  # not counted: memory is allocated and caches fill
            return [self._round() for _ in range(self._options.rounds)]
        finally:
            for process in (self._alone, self._service):
                process.terminate()
                process.wait()

    def _round(self) -> dict[str, Any]:
        n = self._options.images
        seconds, processor = self._embed(n)
        batch = median(self._embed(8)[0] for _ in range(9))
        row: dict[str, Any] = {"alone": n / seconds, "batch": batch, "processor": processor / n}
        for n in self._options.clients:
            row[str(n)] = self._ask(n, self._options.seconds)
        return row

    def _embed(self, n: int) -> list[float]:
        return [float(word) for word in _told(self._alone, str(n)).split()]

    def _ask(self, n: int, seconds: float) -> dict[str, float]:
        arguments = [str(self._work), str(self._port), str(n), str(seconds)]
        command = [sys.executable, "-c", CLIENTS, *arguments]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as clients:
            clients.stdout.readline()  # type: ignore[union-attr]
            before = processor_seconds(self._service.pid)
            seconds, theirs, took = json.loads(_told(clients, "begin"))
            ours = processor_seconds(self._service.pid) - before
        found = {"per second": len(took) / seconds, "processor": ours / len(took), "clients": theirs / len(took)}
        return {**found, "median": float(np.quantile(took, 0.5)), "p99": float(np.quantile(took, 0.99))}


def _told(process: Any, line: str) -> str:
    """Return the line with which a process answers."""
    print(line, file=process.stdin, flush=True)
    return str(process.stdout.readline())


HEADS = (
    "torch threads", "clients", "images a second", "of the embedder alone", "median, ms", "p99, ms",
    "p99 in batches of 8", "processor ms an image", "of the clients",
)  # fmt: skip


def table(found: dict[str, list[dict[str, Any]]], clients: list[int]) -> str:
    """Return the medians of the rounds as Markdown, with the range of the ratios."""
    lines = ["| " + " | ".join(HEADS) + " |", "|---" * len(HEADS) + "|"]
    for threads, rounds in found.items():
        speed, batch, cost = (median(row[name] for row in rounds) for name in ("alone", "batch", "processor"))
        lines.append(
            f"| {threads} | embedder alone | {speed:.1f} | 1.00 | | {1000 * batch:.0f} (8 images) | 1.0 | "
            f"{1000 * cost:.1f} | |"
        )
        for n in clients:
            rows = [row[str(n)] for row in rounds]
            share = _ranged([one["per second"] / row["alone"] for one, row in zip(rows, rounds, strict=True)], 2)
            late = _ranged([one["p99"] / row["batch"] for one, row in zip(rows, rounds, strict=True)], 1)
            names = ("per second", "median", "p99", "processor", "clients")
            speed, middle, p99, ours, theirs = (median(one[name] for one in rows) for name in names)
            lines.append(
                f"| {threads} | {n} | {speed:.1f} | {share} | {1000 * middle:.0f} | {1000 * p99:.0f} | {late} | "
                f"{1000 * ours:.1f} | {1000 * theirs:.2f} |"
            )
    return "\n".join(lines) + "\n"


def _ranged(values: list[float], digits: int) -> str:
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def main() -> None:
    """Measure, print a table and write the results."""
    parser = Parser("serve.py", __doc__)
    parser.add_out("benchmarks/results/serve")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32], metavar="N")
    parser.add_argument("--threads", type=int, nargs="+", default=[0, 1], metavar="N", help="0: as many as cores")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=10, metavar="S", help="of clients, default: %(default)s")
    parser.add_argument("--images", type=int, default=512, metavar="N", help="embedded alone, default: %(default)s")
    parser.add_argument("--side", type=int, default=320, metavar="PX", help="of the images, default: %(default)s")
    options = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as work:
        write_pictures(Path(work), 64, options.side)
        for threads in options.threads:
            found[str(threads or os.cpu_count())] = Contest(options, Path(work), threads).run()
    told = {**facts("serve.py", 0), "side": options.side, "threads": found}
    write(options.out, told, table(found, options.clients))


if __name__ == "__main__":
    main()
