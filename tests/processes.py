"""Run code or a command in a process of its own, forked from one that has loaded the package and done nothing else.

To load torch and timm takes seconds of the processor for each process; where a test is about another process, and not
about what an interpreter imports, a fork of one that has loaded them is another process as well.
"""

import atexit
import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

NURSERY = """
import atexit, gc, json, os, signal, sys, threading, traceback
import faiss, pandas, sklearn.base, timm, torch
from fewshot import *
from fewshot.cli import main
def born(job):
    for number, path in enumerate((os.devnull, job["out"], job["err"])):
        opened = os.open(path, os.O_RDWR | os.O_CREAT)
        os.dup2(opened, number)
        os.close(opened)
    signal.alarm(900)  # ends what does not end
    os.chdir(job["cwd"])
    os.environ.clear()
    os.environ.update(job["env"])
    sys.path[:0] = job["path"]
    sys.argv[:] = ["-c", *job["arguments"]]
def live(job):
    born(job)
    status = 0
    try:
        exec(compile(job["code"], "<string>", "exec"), {"__name__": "__main__"})
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(status)  # all but taking each module apart, which takes as long as a short command
gc.freeze()
for line in sys.stdin:
    if not (pid := os.fork()):
        live(json.loads(line))
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""
COMMAND = "import sys; from fewshot.cli import main; sys.exit(main(sys.argv[1:]))"


@functools.cache
def _nursery(mine):
    """Start it once in each process of tests; it ends with the pipe that it reads from."""
    parent = subprocess.Popen([sys.executable, "-c", NURSERY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(parent.kill)
    return parent


def python(code, *arguments, cwd=None, env=None, path=()):
    """Run code as ``python -c``, with folders before those of ``sys.path``; return what ``subprocess.run`` returns."""
    parent = _nursery(os.getpid())
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        job = {"code": code, "arguments": [*map(str, arguments)], "path": [*map(str, path)],
               "out": str(out), "err": str(err), "cwd": str(cwd or Path.cwd()),
               "env": dict(os.environ if env is None else env)}  # fmt: skip
        print(json.dumps(job), file=parent.stdin, flush=True)
        status = int(parent.stdout.readline())
        return subprocess.CompletedProcess([code, *arguments], status, out.read_text(), err.read_text())


def fewshot(*arguments, cwd=None, env=None):
    """Run a command of fewshot in a process of its own."""
    return python(COMMAND, *arguments, cwd=cwd, env=env)
