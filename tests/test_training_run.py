"""Interrupted training resumes as if nothing had happened."""

import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from fewshot import Distortion, MetaTrainer, PrototypicalLearner, TrainConfig
from fewshot.errors import TrainingError, TrainingInterrupted
from fewshot.training.callbacks import Callback, CsvLog
from fewshot.training.folder import BEST, LOG, STATE
from tests.abandoned import leave_partial
from tests.training_data import QUICK, SIZES, TRAIN, VAL


class StopAfter(Callback):
    def __init__(self, n, signum=None):
        self.n, self.signum = n, signum

    def step(self, record, result):
        if len(result.records) == self.n:
            if self.signum is None:
                raise RuntimeError("power is gone")
            os.kill(os.getpid(), self.signum)


def fit(out=None, callbacks=(), config=QUICK, val=VAL, **options):
    learner = PrototypicalLearner(learn_temperature=True)
    trainer = MetaTrainer("conv4", learner, config, augment=Distortion(), callbacks=callbacks)
    result = trainer.fit(TRAIN, val, out=out, progress=False, **options)
    return trainer, result


def contents(folder):
    tensors = load_file(folder / STATE) | {f"file.{k}": v for k, v in load_file(folder / BEST).items()}
    rows = [row.split(",") for row in (folder / LOG).read_text().splitlines()]
    return tensors, [row[:4] + row[5:] for row in rows]  # all but the seconds


def assert_same(folder, other):
    (one, rows), (two, others) = contents(folder), contents(other)
    assert rows == others
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, *fit(folder)


@pytest.mark.parametrize("n", [3, 5, 6, 11, 12])
def test_training_resumes_bit_for_bit_after_a_crash_at_any_time(n, whole, tmp_path):
    folder, trainer, result = whole
    with pytest.raises(RuntimeError, match="power is gone"):
        fit(tmp_path, [StopAfter(n)])
    again, resumed = fit(tmp_path, resume=True)
    assert_same(tmp_path, folder)
    assert (resumed.best_episode, resumed.best_accuracy) == (result.best_episode, result.best_accuracy)
    assert [r["loss"] for r in resumed.records] == [r["loss"] for r in result.records]
    state, expected = again.backbone.state_dict(), trainer.backbone.state_dict()
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    assert again.learner.temperature == trainer.learner.temperature


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a compiler")
def test_a_compiled_training_is_that_of_the_network_itself_and_resumes_bit_for_bit(whole, tmp_path):
    compiled = replace(QUICK, compile=True)
    _, result = fit(tmp_path / "whole", config=compiled)
    early, plain = ([r["loss"] for r in one.records[:3]] for one in (result, whole[2]))
    assert early == pytest.approx(plain, rel=1e-3)
    with pytest.raises(RuntimeError, match="power is gone"):
        fit(tmp_path / "again", [StopAfter(6)], config=compiled)
    fit(tmp_path / "again", config=compiled, resume=True)
    assert_same(tmp_path / "again", tmp_path / "whole")


def test_resuming_with_another_thread_count_warns(tmp_path):
    with pytest.raises(RuntimeError, match="power is gone"):
        fit(tmp_path, [StopAfter(6)])
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(before + 1)
        with pytest.warns(UserWarning, match=rf"not bit for bit: threads {before} then and {before + 1} now"):
            fit(tmp_path, resume=True)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_row_77_a_signal_finishes_the_episode_and_saves(signum, whole, tmp_path):
    outside = signal.signal(signum, signal.default_int_handler)  # a shell's background jobs ignore SIGINT
    try:
        with pytest.raises(
            TrainingInterrupted, match="stopped after episode 7; the state is in .* continue with resume=True"
        ) as e:
            fit(tmp_path, [StopAfter(7, signum)])
        assert e.value.signum == signum
        assert signal.getsignal(signum) is signal.default_int_handler
    finally:
        signal.signal(signum, outside)
    fit(tmp_path, resume=True)
    assert_same(tmp_path, whole[0])


def test_resuming_a_finished_training_returns_its_result(whole, tmp_path):
    folder, trainer, result = whole
    stamp = (folder / STATE).stat().st_mtime_ns
    again, resumed = fit(folder, resume=True)
    assert resumed == result
    assert (folder / STATE).stat().st_mtime_ns == stamp
    state, expected = again.backbone.state_dict(), trainer.backbone.state_dict()
    assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_resuming_without_a_state_starts(whole, tmp_path):
    fit(tmp_path, resume=True)
    assert_same(tmp_path, whole[0])


def test_starting_again_removes_the_old_state(tmp_path):
    fit(tmp_path)
    save_file({"x": torch.zeros(9)}, tmp_path / ".tmpAbC123")  # of a process that was killed
    others = [".tmpNotes1", ".tmpxyz789", ".mine.partial", f".{STATE}.0123abcd-1-2.partial"]
    for name in others:
        (tmp_path / name).write_text("mine")
    with pytest.raises(RuntimeError, match="power is gone"):
        fit(tmp_path, [StopAfter(3)])  # before its first state
    _, result = fit(tmp_path, resume=True)
    assert len(result.records) == 12
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([STATE, BEST, LOG, *others])


def test_an_interrupted_training_is_only_replaced_if_that_is_asked_for(tmp_path):
    config = replace(QUICK, save_every=2)
    with pytest.raises(RuntimeError):
        fit(tmp_path, [StopAfter(3)], config)
    before = (tmp_path / STATE).read_bytes()
    with pytest.raises(ValueError, match=r"interrupted after episode 2 of 12; continue it with resume=True, replace"):
        fit(tmp_path, config=config)
    assert (tmp_path / STATE).read_bytes() == before
    fit(tmp_path, config=config, overwrite=True)
    fit(tmp_path, config=config)  # one that came to its end


def test_an_interruption_can_be_sent_to_another_process():
    stopped = pickle.loads(pickle.dumps(TrainingInterrupted(15, "stopped")))
    assert (stopped.signum, str(stopped)) == (15, "stopped")


def test_seconds_continue_after_resuming(tmp_path):
    with pytest.raises(RuntimeError):
        fit(tmp_path, [StopAfter(6)])
    _, result = fit(tmp_path, resume=True)
    seconds = [r["seconds"] for r in result.records]
    assert seconds == sorted(seconds)


def test_another_training_is_refused_but_harmless_settings_may_change(tmp_path):
    fit(tmp_path)
    with pytest.raises(ValueError, match="lr is 0.5 here and was 0.003"):
        fit(tmp_path, config=replace(QUICK, lr=0.5), resume=True)
    with pytest.raises(ValueError, match="val is None here and was"):
        fit(tmp_path, val=None, resume=True)
    fit(tmp_path, config=replace(QUICK, save_every=2, max_skipped=9), resume=True)
    with pytest.raises(ValueError, match="resume=True needs the folder"):
        fit(resume=True)


def test_a_log_that_lost_rows_is_refused(tmp_path):
    fit(tmp_path)
    rows = (tmp_path / LOG).read_text().splitlines()
    (tmp_path / LOG).write_text("\n".join(rows[:4]) + "\n")
    with pytest.raises(ValueError, match=r"log\.csv has 3 rows and the state 12 steps"):
        fit(tmp_path, resume=True)


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TrainingInterrupted, match="stopped after episode 2$"):
        fit(callbacks=[StopAfter(2, signal.SIGTERM)])
    assert not list(tmp_path.iterdir())


SCRIPT = """
import sys
import torch
from tests.test_training_run import TRAIN, VAL, LONG, fit
torch.set_num_threads(1)
print("ready", flush=True)
fit(sys.argv[1], config=LONG, resume=True)
"""
LONG = TrainConfig(n_episodes=120, validate_every=7, save_every=3, **SIZES)


@pytest.mark.slow
def test_row_77_a_process_killed_at_random_moments_ends_with_the_same_bits(tmp_path):
    fit(tmp_path / "whole", config=LONG)
    rng = random.Random(0)
    kills = 0
    while True:
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(tmp_path / "killed")], stdout=subprocess.PIPE, cwd=os.getcwd()
        )
        process.stdout.readline()
        if kills == 8:
            assert process.wait() == 0
            break
        time.sleep(rng.uniform(0.05, 0.9))
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        process.stdout.close()
    assert_same(tmp_path / "killed", tmp_path / "whole")


class DieAtTheStart(Callback):
    """Acts after the log is rewritten and before the first step."""

    def start(self, config, result):
        raise RuntimeError("killed")


def test_a_crash_between_resuming_and_the_first_step_loses_nothing(whole, tmp_path):
    with pytest.raises(RuntimeError, match="power is gone"):
        fit(tmp_path, [StopAfter(8)])
    for _ in range(2):
        with pytest.raises(RuntimeError, match="killed"):
            fit(tmp_path, [DieAtTheStart()], resume=True)
    fit(tmp_path, resume=True)
    assert_same(tmp_path, whole[0])


def test_an_incomplete_last_row_is_ignored(whole, tmp_path):
    with pytest.raises(RuntimeError, match="power is gone"):
        fit(tmp_path, [StopAfter(8)])
    log = (tmp_path / LOG).read_text()
    (tmp_path / LOG).write_text(log[:-9])
    assert len(CsvLog.read(tmp_path / LOG, 99)) == 7
    fit(tmp_path, resume=True)
    assert_same(tmp_path, whole[0])


def test_the_best_weights_are_rewritten_and_leftovers_removed(whole, tmp_path):
    fit(tmp_path)
    (tmp_path / BEST).unlink()
    leave_partial(tmp_path / STATE)
    fit(tmp_path, resume=True)
    assert_same(tmp_path, whole[0])
    assert not list(tmp_path.glob(".*"))


def test_a_log_that_was_changed_is_refused(tmp_path):
    fit(tmp_path)
    lines = (tmp_path / LOG).read_text().splitlines(keepends=True)
    episode, loss, rest = lines[3].split(",", 2)
    (tmp_path / LOG).write_text("".join([*lines[:3], f"{episode},{float(loss) + 1},{rest}", *lines[4:]]))
    with pytest.raises(ValueError, match=r"log.csv is damaged: its rows are not those of the state; restore it"):
        fit(tmp_path, resume=True)


def test_starting_again_removes_the_other_training(tmp_path):
    fit(tmp_path)
    with pytest.raises(RuntimeError):
        fit(tmp_path, [StopAfter(2)])  # before its first validation
    assert not (tmp_path / BEST).exists()
    assert len((tmp_path / LOG).read_text().splitlines()) == 3


def test_diverged_weights_are_not_measured(tmp_path):
    class Away(Callback):
        def step(self, record, result):
            for parameter in trainer.backbone.parameters():
                parameter.data.fill_(1e38)

    trainer = MetaTrainer("conv4", config=QUICK, callbacks=[Away()])
    with pytest.warns(UserWarning, match="not finite"), pytest.raises(TrainingError, match="not finite.*lower lr"):
        trainer.fit(TRAIN, VAL, progress=False)


def test_one_validation_class_is_refused():
    with pytest.raises(ValueError, match="val has one class, for which every answer is right"):
        fit(val=VAL.with_classes([12]))
