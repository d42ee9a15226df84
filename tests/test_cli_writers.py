"""Concurrent commands on one folder: each succeeds or is refused with a sentence, and no change is lost."""

import os
import shutil
import signal
from functools import partial

import numpy as np
import pyarrow.parquet as pq
import pytest

from fewshot import FewShotImageClassifier, MetaTrainer, PrototypeIndex, digits, export
from fewshot.cli import main
from fewshot.errors import ArtifactError, InUseError
from fewshot.persistence import locking
from fewshot.runtime import load
from tests.photographs import quick_embedder, write_photos
from tests.together import held
from tests.training_data import QUICK, TRAIN, VAL

#: Rounds of each command for each number of writers; more, for a soak, by the environment.
ROUNDS = int(os.environ.get("FEWSHOT_ROUNDS", "1"))
MOST = 8


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A classifier of two classes and of one for each writer, as many others to merge, data, and an index."""
    root = tmp_path_factory.mktemp("made")
    paths = write_photos(root / "photos", 3)
    labels = [path.split("/")[-2] for path in paths]
    embedder = quick_embedder()
    model = FewShotImageClassifier(embedder, progress=False).fit(paths, labels)
    own = [f"own{i}" for i in range(MOST)]
    model.partial_fit(paths[:2] * MOST, np.repeat(own, 2)).save(root / "model")
    for i in range(MOST):
        FewShotImageClassifier(embedder, progress=False).fit(paths[:1], [f"other{i}"]).save(root / f"other{i}")
        shutil.copytree(root / "photos", root / f"photos{i}")
        shutil.copytree(root / "photos" / "temple", root / f"photos{i}" / f"extra{i}")
    PrototypeIndex().add(np.eye(4), ["a", "b", "c", "d"]).save(root / "index")
    return root


def classes(folder):
    return set(FewShotImageClassifier.load(folder).classes_.tolist())


def at_once(actions):
    """Run functions in forked processes at the same time; return their exit statuses."""
    children = []
    for action in actions:
        children.append(os.fork())
        if not children[-1]:
            status = 99
            try:
                status = action() or 0
            finally:
                os._exit(status)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]


def command(*arguments):
    return partial(main, [*map(str, arguments), "--quiet"])


def until_saved(open_, change, folder):
    """Load, change and save; repeat if another process was faster, as the message advises."""
    while True:
        thing = open_(folder)
        change(thing)
        try:
            thing.save(folder)
            return 0
        except ArtifactError as error:
            if "has changed since" not in str(error):
                raise


def add(root, folder, n):
    image = root / "photos" / "flower" / "03.png"
    assert at_once(command("add", folder, f"new{i}", image) for i in range(n)) == [0] * n
    assert classes(folder) >= {f"new{i}" for i in range(n)}


def remove(root, folder, n):
    image = str(root / "photos" / "temple" / "00.png")
    whole = [command("remove", folder, f"own{i}") for i in range(0, n, 2)]
    some = [command("remove", folder, f"own{i}", "--images", image) for i in range(1, n, 2)]
    assert at_once([*whole, *some]) == [0] * n
    left = FewShotImageClassifier.load(folder)
    known = dict(zip(left.classes_.tolist(), left.n_support_.tolist(), strict=True))
    assert {known.get(f"own{i}", 0) for i in range(0, n, 2)} == {0}
    assert {known[f"own{i}"] for i in range(1, n, 2)} == {1}


def rename(root, folder, n):
    assert at_once(command("rename", folder, f"own{i}", f"called{i}") for i in range(n)) == [0] * n
    assert classes(folder) >= {f"called{i}" for i in range(n)}
    assert not classes(folder) & {f"own{i}" for i in range(n)}


def merge(root, folder, n):
    assert at_once(command("merge", folder, root / f"other{i}") for i in range(n)) == [0] * n
    assert classes(folder) >= {f"other{i}" for i in range(n)}


def calibrate(root, folder, n):
    image, data = root / "photos" / "flower" / "03.png", root / "photos"
    calibrating = [command("calibrate", folder, data, "--episodes", 2, "--reject", "auto") for _ in range(n // 2)]
    adding = [command("add", folder, f"new{i}", image) for i in range(n - n // 2)]
    assert at_once([*calibrating, *adding]) == [0] * n
    found = FewShotImageClassifier.load(folder)
    assert (found.reject, found.calibration_.protocol["n_episodes"]) == ("auto", 2)
    assert set(found.classes_.tolist()) >= {f"new{i}" for i in range(n - n // 2)}


def fit(root, folder, n):
    shutil.rmtree(folder)
    network = ("--backbone", "conv4", "--weights", "random", "--size", 32)
    statuses = at_once(command("fit", root / f"photos{i}", "--out", folder, *network) for i in range(n))
    assert sorted(statuses) == [0] + [2] * (n - 1)
    assert f"extra{statuses.index(0)}" in classes(folder)


def annotate(root, folder, n):
    out = folder / "all.parquet"
    run = ("annotate", root / "photos", "--model", root / "model", "--out", out, "--shard", 2)
    statuses = at_once(command(*run) for _ in range(n))
    assert statuses.count(0) == 1
    assert set(statuses) <= {0, 1, 2}
    assert pq.read_table(out).num_rows == 6
    assert at_once([command(*run), command(*run, "--force")]) in ([2, 0], [1, 0], [2, 1])
    assert not list(folder.glob("*.shards"))


def index(root, folder, n):
    def change(i):
        return until_saved(PrototypeIndex.load, lambda found: found.add(np.eye(4)[:1], [f"new{i}"]), folder)

    shutil.rmtree(folder)
    shutil.copytree(root / "index", folder)
    assert at_once(partial(change, i) for i in range(n)) == [0] * n
    labels = PrototypeIndex.load(folder).search(np.zeros((1, 4)), 4 + n)[0][0].tolist()
    assert sorted(labels) == sorted(["a", "b", "c", "d", *(f"new{i}" for i in range(n))])


def device(root, folder, n):
    images = digits().images[:1]

    def change(i):
        return until_saved(load, lambda found: found.partial_fit(images, [100 + i]), folder)

    if not (root / "device").exists():
        data, model = digits(), FewShotImageClassifier(quick_embedder(), progress=False)
        export(model.fit(data.images[:20], data.labels[:20]), root / "device")
    shutil.rmtree(folder)
    shutil.copytree(root / "device", folder)
    assert at_once(partial(change, i) for i in range(n)) == [0] * n
    assert load(folder).classes_.tolist() == [*range(10), *range(100, 100 + n)]


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 4, MOST])
@pytest.mark.parametrize("change", [add, remove, rename, merge, calibrate, fit, annotate, index, device])
def test_no_confirmed_change_is_lost(made, tmp_path, change, n):
    for i in range(ROUNDS):
        folder = tmp_path / str(i)
        shutil.copytree(made / "model", folder)
        change(made, folder, n)
        shutil.rmtree(folder)


def test_a_command_builds_on_the_change_of_another(made, tmp_path, monkeypatch, capsys):
    """Deterministic: the other is done while this one embeds, before it has the lock."""
    folder, image = tmp_path / "model", made / "photos" / "flower" / "03.png"
    for own in (
        command("add", folder, "mine", image),
        command("remove", folder, "own1"),
        command("remove", folder, "own2", "--images", made / "photos" / "temple" / "00.png"),
        command("rename", folder, "own3", "mine"),
        command("merge", folder, made / "other0"),
        command("calibrate", folder, made / "photos", "--episodes", 2),
    ):
        shutil.copytree(made / "model", folder)
        with monkeypatch.context() as patched:
            waiting = meanwhile(command("add", folder, "theirs", image))
            for room in ("models", "saved"):
                patched.setattr(f"fewshot.cli.{room}.writing", waiting)
            assert own() == 0
        assert "theirs" in classes(folder)
        shutil.rmtree(folder)
    capsys.readouterr()
    shutil.copytree(made / "model", folder)
    network = ("--backbone", "conv4", "--weights", "random", "--size", 28)
    replace = command("fit", made / "photos", "--out", folder, "--force", *network)
    with monkeypatch.context() as patched:
        patched.setattr("fewshot.cli.models.writing", meanwhile(replace))
        assert command("add", folder, "mine", image)() == 2
    assert "embedded with another network" in capsys.readouterr().err
    fit = command("fit", made / "photos", "--out", tmp_path / "new", *network)
    with monkeypatch.context() as patched:
        patched.setattr("fewshot.cli.models.writing", meanwhile(fit))
        assert fit() == 2
    assert "already holds a classifier; replace it with --force" in capsys.readouterr().err


def meanwhile(other):
    """Return `writing` that first lets another command do its work, once."""
    from fewshot.persistence.artifact import writing

    done = []

    def wait_for_other(*args):
        if not done:
            done.append(True)
            assert other() == 0
        return writing(*args)

    return wait_for_other


def test_waiting_too_long_is_an_error_and_nothing_is_lost(made, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(locking, "PATIENCE", 0.2)
    folder, image = tmp_path / "model", made / "photos" / "flower" / "03.png"
    shutil.copytree(made / "model", folder)
    before = sorted(os.listdir(folder))
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        with locking.locked(folder):
            os.write(writer, b".")
            while True:
                signal.pause()
    try:
        os.read(reader, 1)
        for arguments in (("add", folder, "new", image), ("rename", folder, "own1", "new")):
            assert command(*arguments)() == 1
            said = capsys.readouterr().err
            assert f"{folder} is locked by process {pid} (" in said
            assert "nothing was written; try again" in said
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(reader)
        os.close(writer)
    assert "new" not in classes(folder)
    assert command("add", folder, "new", image)() == 0
    assert "new" in classes(folder)
    FewShotImageClassifier.clear_history(folder)
    assert len(os.listdir(folder)) == len(before)


def test_long_runs_are_refused_while_another_holds_the_folder(made, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("fewshot.retrieval.work.BRIEF", 0.1)
    monkeypatch.setattr("fewshot.benchmark.run_grid.BRIEF", 0.1)
    monkeypatch.setattr("fewshot.training.folder.BRIEF", 0.1)
    out, shards = tmp_path / "all.parquet", tmp_path / "all.parquet.shards"
    grid = tmp_path / "grid.toml"
    grid.write_text(
        'n_shot = [1]\nn_episodes = 5\n[[datasets]]\nsource = "digits"\n[[backbones]]\nbackbone = "pixels"\n'
        '[[learners]]\nlearner = "prototypical"\n'
    )
    for folder, arguments in (
        (shards, ("annotate", made / "photos", "--model", made / "model", "--out", out)),
        (tmp_path / "bench", ("bench", grid, "--out", tmp_path / "bench", "--executor", "serial")),
    ):
        folder.mkdir()
        with held(folder):
            assert command(*arguments)() == 1
        assert f"{folder} is locked by process {os.getpid()} (" in capsys.readouterr().err
        assert not folder.exists() or os.listdir(folder) == []
    with held(tmp_path), pytest.raises(InUseError, match="is locked by process"):
        MetaTrainer("conv4", config=QUICK).fit(TRAIN, VAL, out=tmp_path, progress=False)


def test_an_existing_table_is_replaced_only_on_request(made, tmp_path, capsys):
    out = tmp_path / "all.parquet"
    annotate = ("annotate", made / "photos", "--model", made / "model", "--out", out)
    assert command(*annotate)() == 0
    before = out.read_bytes()
    for _ in range(2):
        assert command(*annotate)() == 2
        assert f"{out} already exists; give --force" in capsys.readouterr().err
        out.write_bytes(b"notes of mine")
    assert command(*annotate, "--force")() == 0
    assert out.read_bytes() == before
    assert os.listdir(tmp_path) == ["all.parquet"]
