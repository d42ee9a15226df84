"""Folders whose digests fit whatever they hold, as anyone can make them."""

import copy
import hashlib
import json
import os
import shutil
import sys
from contextlib import contextmanager

import torch
from safetensors.torch import load_file, save_file

#: Wrong values for what stands in JSON.
VALUES = [None, True, -1, 0, 1, 1e308, float("nan"), float("inf"), 10**30, "", "x", "../x", [], [[]], {}, {"x": 1}]
MISSING = object()


def seal(folder, manifest, raw=None):
    """Write a manifest whose digest fits."""
    content = {name: value for name, value in manifest.items() if name != "digest"}
    body = raw or json.dumps(content)[:-1].encode()
    (folder / "manifest.json").write_bytes(body + f', "digest": "{hashlib.sha256(body).hexdigest()}"}}\n'.encode())


def manifest_of(folder):
    return json.loads((folder / "manifest.json").read_text())


def copied(source, folder):
    """Return an empty place with a copy of a folder."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder)
    return folder


def put(folder, part, content):
    """Replace the content of a data file, with size and digest that fit."""
    manifest = manifest_of(folder)
    entry = manifest["files"][part]
    (folder / entry["name"]).write_bytes(content)
    entry |= {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    seal(folder, manifest)


def put_tensors(folder, part, tensors, metadata=None):
    path = folder / "forged.tmp"
    save_file(tensors, path, metadata)
    put(folder, part, path.read_bytes())
    path.unlink()


def tensors_of(folder, part):
    return load_file(folder / manifest_of(folder)["files"][part]["name"])


def places(value, before=()):
    """Yield the way to each value in JSON, of a list only to the first and the last."""
    if before:
        yield before
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*before, key))
    elif isinstance(value, list):
        for i in dict.fromkeys((0, len(value) - 1)) if value else ():
            yield from places(value[i], (*before, i))


def changed(value, way, new):
    """Return JSON with another value at a place, or without it."""
    value = copy.deepcopy(value)
    holder = value
    for key in way[:-1]:
        holder = holder[key]
    if new is MISSING:
        del holder[way[-1]]
    else:
        holder[way[-1]] = new
    return value


def wrong_tensors(tensors):
    """Yield what was done, and tensors of which one is wrong."""
    for name, value in tensors.items():
        other = torch.int32 if value.is_floating_point() else torch.float32
        made = {
            "missing": None,
            "empty": value[:0] if value.ndim else torch.empty(0, dtype=value.dtype),
            "longer": torch.cat([value.reshape(-1), value.reshape(-1)])
            if value.ndim < 2
            else torch.cat([value, value]),
            "flat": value.reshape(-1) if value.ndim != 1 else value.reshape(-1, 1),
            "other type": value.to(other),
            "half": value.to(torch.float16),
            "negative": -value - 1 if value.dtype not in (torch.bool, torch.uint8) else value.to(torch.int8) - 1,
            "huge": torch.full_like(value, 1e300 if value.dtype == torch.float64 else 100),
            "turned": value.flip(0) if value.ndim else value,
        }
        if value.is_floating_point():
            made |= {"nan": torch.full_like(value, torch.nan), "inf": torch.full_like(value, torch.inf)}
            made |= {"minus inf": torch.full_like(value, -torch.inf)}
        for what, wrong in made.items():
            rest = {key: v for key, v in tensors.items() if key != name}
            yield f"{name} {what}", rest if wrong is None else {**rest, name: wrong.contiguous()}
    yield "one more", {**tensors, "more": torch.zeros(2)}
    yield "one more in a part", {**tensors, "sums.more": torch.zeros(2)}
    yield "none", {}


_watched = None
_REACH = ("socket.connect", "socket.getaddrinfo", "socket.bind", "subprocess.Popen", "os.system", "os.exec", "os.fork")
_WRITE = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.truncate", "shutil.rmtree")


def _watch(event, args):
    if _watched is None:
        return
    folder, seen = _watched
    is_import = event == "marshal.loads" and sys._getframe(1).f_globals.get("__name__", "").startswith("importlib.")
    if event in _REACH or (event.startswith(("pickle.", "marshal.load", "ctypes.dlopen")) and not is_import):
        seen.append((event, str(args)[:100]))
        return
    is_written = event == "open" and (
        set(args[1]) & set("wax+") if args[1] else args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    )
    is_outside = not str(args[0] if args else "").startswith(str(folder))
    if (event in _WRITE or is_written) and is_outside and "__pycache__" not in str(args[0]):
        seen.append((event, str(args)[:100]))


sys.addaudithook(_watch)


@contextmanager
def confined(folder):
    """Collect what reaches the network, starts a program, or writes outside a folder; nothing may."""
    global _watched
    seen = []
    _watched = (folder, seen)
    try:
        yield seen
    finally:
        _watched = None


def forgeries(source, target, parts):
    """Yield folders in each of which one thing is wrong, in the manifest or in one of `parts`, files of tensors."""
    manifest = manifest_of(source)
    for way in places({name: value for name, value in manifest.items() if name != "digest"}):
        for value in (MISSING, *VALUES):
            folder = copied(source, target)
            seal(folder, changed(manifest, way, value))
            yield folder
    for part in parts:
        for _, wrong in wrong_tensors(tensors_of(source, part)):
            folder = copied(source, target)
            put_tensors(folder, part, wrong)
            yield folder
