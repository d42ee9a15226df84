"""Run a service for tests: in a thread of this process, or as a process of its own."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager

import httpx

from fewshot import FewShotImageClassifier
from fewshot.serve.process import server_of
from fewshot.serve.run import listen
from fewshot.serve.settings import Settings
from fewshot.serve.workshop import Workshop
from tests.photographs import photos, quick_embedder

#: The small network that tests teach; nothing is downloaded.
QUICK = ("--backbone", "conv4", "--weights", "random", "--size", "32")


def png(image, kind="PNG"):
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def pictures(n_per_class, seed=0):
    """Pictures as files, class by class: temples, then flowers."""
    return [png(image) for image in photos(n_per_class, seed)[0]]


def files(*contents):
    return [("images", (f"{i}.png", content)) for i, content in enumerate(contents)]


def taught(folder, n_per_class=4, **params):
    """A saved classifier of temples and flowers."""
    images, labels = photos(n_per_class)
    FewShotImageClassifier(quick_embedder(), **params).fit(images, labels).save(folder)
    return folder


@contextmanager
def running(folder, *, headers=None, **settings):
    """Serve a folder on a thread, and yield a client."""
    given = Settings(str(folder), port=0, **settings)
    new = None if given.read_only else FewShotImageClassifier(quick_embedder())
    workshop, ready = Workshop(folder, new, read_only=given.read_only), threading.Event()
    listener, server = listen("127.0.0.1", 0), server_of(workshop, given, ready.set)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        assert ready.wait(30)
        base = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with httpx.Client(base_url=base, timeout=60, headers=headers, trust_env=False) as client:
            client.workshop = workshop
            yield client
    finally:
        server.should_exit = True
        thread.join(60)


@contextmanager
def process(folder, *options, within=()):
    """Serve a folder by the command, and yield the process, which has ``client`` and ``url``."""
    command = [*within, sys.executable, "-m", "fewshot", "serve", str(folder), "--port", "0", *options]
    found = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = found.stdout.readline()
        assert "serving" in line, found.stderr.read()
        found.url = re.search(r"http://\S+/", line)[0]
        found.log = []
        threading.Thread(target=lambda: found.log.extend(found.stderr), daemon=True).start()
        with httpx.Client(base_url=found.url, timeout=60, trust_env=False) as found.client:
            yield found
    finally:
        if found.poll() is None:
            found.send_signal(signal.SIGTERM)
            found.wait(60)
        found.stdout.close()


#: Loads once what a service needs, then forks one for each line of options: to load takes longer than to serve.
NURSERY = """
import json, os, sys
import faiss, timm
import fewshot.serve.process
from fewshot import *
from fewshot.cli import main
for line in sys.stdin:
    pid = os.fork()
    if not pid:
        sys.exit(main(["serve", *json.loads(line)]))
    print(pid, flush=True)
    os.waitpid(pid, 0)
    print("ended", flush=True)
"""


@contextmanager
def nursery():
    """Yield a function that serves a folder by the command: its client, and what kills it by signal 9."""
    parent = subprocess.Popen([sys.executable, "-c", NURSERY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    @contextmanager
    def serve(folder, *options):
        print(json.dumps([str(folder), "--port", "0", *options]), file=parent.stdin, flush=True)
        lines = [parent.stdout.readline() for _ in range(2)]  # which of the two processes prints first is open
        pid = int(next(line for line in lines if line.strip().isdigit()))
        url = re.search(r"http://\S+/", "".join(lines))[0]

        def kill():
            os.kill(pid, signal.SIGKILL)
            while parent.stdout.readline() not in ("ended\n", ""):
                pass

        with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
            yield client, kill

    try:
        yield serve
    finally:
        parent.kill()
        parent.wait(30)
        parent.stdin.close()
        parent.stdout.close()


def said(response, status, code):
    """Check that a response is a failure of one sentence."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error["code"] == code
    assert error["message"]
    assert "Traceback" not in error["message"]
    return error["message"]
