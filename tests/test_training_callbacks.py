import sys

import pytest

from fewshot import MetaTrainer
from fewshot.errors import MissingExtraError
from fewshot.training.callbacks import Callback, CsvLog, TensorBoard
from tests.training_data import QUICK, TRAIN, VAL


class Notes(Callback):
    def __init__(self):
        self.heard = []

    def start(self, config, result):
        self.heard.append(("start", config["n_episodes"]))

    def step(self, record, result):
        self.heard.append(("step", record["episode"]))

    def end(self, result):
        self.heard.append(("end", result.best_episode))


def test_a_callback_sees_every_step():
    notes = Notes()
    result = MetaTrainer(config=QUICK, callbacks=[notes]).fit(TRAIN, VAL, progress=False)
    steps = [("step", i + 1) for i in range(12)]
    assert notes.heard == [("start", 12), *steps, ("end", result.best_episode)]


def test_a_callback_that_fails_ends_training_and_the_others_are_closed(tmp_path):
    class Failing(Callback):
        def step(self, record, result):
            raise OSError("no connection")

    notes = Notes()
    with pytest.raises(OSError, match="no connection"):
        MetaTrainer(config=QUICK, callbacks=[notes, Failing()]).fit(TRAIN, out=tmp_path, progress=False)
    assert notes.heard[-1][0] == "end"


def test_the_log_is_read_as_it_was_written(tmp_path):
    result = MetaTrainer(config=QUICK).fit(TRAIN, VAL, out=tmp_path, progress=False)
    assert CsvLog.read(tmp_path / "log.csv", 99) == result.records
    assert CsvLog.read(tmp_path / "log.csv", 5) == result.records[:5]
    assert CsvLog.read(tmp_path / "gone.csv", 5) == []


def test_learning_curves_for_tensorboard(tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    result = MetaTrainer(config=QUICK, callbacks=[TensorBoard(tmp_path)]).fit(TRAIN, VAL, progress=False)
    events = event_accumulator.EventAccumulator(str(tmp_path)).Reload()
    losses = {event.step: event.value for event in events.Scalars("loss")}
    assert losses == pytest.approx({r["episode"]: r["loss"] for r in result.records}, rel=1e-6)
    assert [event.step for event in events.Scalars("val_accuracy")] == [4, 8, 12]


def test_without_tensorboard_the_message_has_the_pip_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtraError, match=r'pip install "fewshot-learn\[tensorboard\]"'):
        TensorBoard(tmp_path)


def test_tensorboard_resumes_without_writing_a_step_twice(tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

    class Stop(Callback):
        def step(self, record, result):
            if len(result.records) == 9:
                raise RuntimeError("power is gone")

    board = tmp_path / "board"
    with pytest.raises(RuntimeError, match="power is gone"):
        MetaTrainer(config=QUICK, callbacks=[TensorBoard(board), Stop()]).fit(TRAIN, out=tmp_path, progress=False)
    MetaTrainer(config=QUICK, callbacks=[TensorBoard(board)]).fit(TRAIN, out=tmp_path, progress=False, resume=True)
    events = event_accumulator.EventAccumulator(str(board)).Reload()
    assert [event.step for event in events.Scalars("loss")] == list(range(1, 13))
