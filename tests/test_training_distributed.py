import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fewshot import MetaTrainer, PrototypicalLearner, TrainConfig, embed
from fewshot.training.distributed import all_reduce, broadcast, n_processes, process_group, rank
from fewshot.training.folder import BEST, STATE
from tests.training_data import SIZES, TRAIN, VAL

CONFIG = TrainConfig(n_episodes=40, meta_batch=4, validate_every=5, lr=1e-3, **SIZES)
SCRIPT = """
import sys
from tests.test_training_distributed import train
train(sys.argv[1])
"""
# Threads that outlive the group can abort the process when Python ends.
THREADS = """
from pathlib import Path
from fewshot.training.distributed import process_group
names = lambda: [task.read_text() for task in Path("/proc/self/task").glob("*/comm")]
with process_group():
    import torch.distributed.nn  # as an optimiser does
    assert [name for name in names() if "gloo" in name]
assert not [name for name in names() if "gloo" in name]
"""
UNEVEN = """
from fewshot import MetaTrainer, TrainConfig
from tests.training_data import SIZES, TRAIN
MetaTrainer(config=TrainConfig(n_episodes=3, meta_batch=3, **SIZES)).fit(TRAIN, progress=False)
"""


def train(folder):
    torch.set_num_threads(1)
    trainer = MetaTrainer("conv4", PrototypicalLearner(learn_temperature=True), CONFIG)
    return trainer, trainer.fit(TRAIN, VAL, out=folder, progress=False)


def torchrun(path, code, *arguments):
    """Run a script on two processes."""
    path.write_text(code)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone", str(path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    return subprocess.run([*command, *arguments], capture_output=True, text=True, env=environment, timeout=240)


def test_one_process_changes_nothing():
    x = torch.arange(3.0)
    with process_group():
        all_reduce([x])
        broadcast([x])
        assert (n_processes(), rank()) == (1, 0)
    assert x.tolist() == [0, 1, 2]


@pytest.mark.slow
def test_one_and_two_processes_give_the_same_weights(tmp_path):
    trainer, result = train(tmp_path / "one")
    run = torchrun(tmp_path / "script.py", SCRIPT, str(tmp_path / "two"))
    assert run.returncode == 0, run.stderr
    one, two = (load_file(tmp_path / name / STATE) for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=0, atol=1e-6, msg=name)
    assert all(torch.equal(two[name], one[name]) for name in one)  # in fact to the last bit
    other = MetaTrainer("conv4", "prototypical", CONFIG)
    other._build(TRAIN)
    weights = load_file(tmp_path / "two" / BEST)
    other.backbone.load_state_dict(
        {k.removeprefix("backbone."): v for k, v in weights.items() if k.startswith("backbone.")}
    )
    z, expected = (torch.from_numpy(embed(t.backbone, VAL.images)) for t in (other, trainer))
    torch.testing.assert_close(z, expected, rtol=0, atol=1e-6 * expected.abs().max().item())
    assert len((tmp_path / "two" / "log.csv").read_text().splitlines()) == len(result.records) + 1


@pytest.mark.slow
def test_an_uneven_share_of_the_meta_batch_is_an_error(tmp_path):
    run = torchrun(tmp_path / "script.py", UNEVEN)
    assert run.returncode != 0
    assert "meta_batch is 3; expected a multiple of the 2 processes" in run.stderr


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="Linux tells the names of threads")
def test_no_thread_outlives_the_group(tmp_path):
    run = torchrun(tmp_path / "script.py", THREADS)
    assert run.returncode == 0, run.stderr


RESUME = """
import sys
from tests.test_training_distributed import CONFIG, train
from fewshot import MetaTrainer, PrototypicalLearner
from fewshot.training.distributed import rank
from fewshot.training.callbacks import Callback
from fewshot.training.trainer import Run
from tests.training_data import TRAIN, VAL
import os, signal, time, torch
torch.set_num_threads(1)
resume = Run._resume
def late(self, folder):
    time.sleep(2 * rank())  # the others have begun to write by then, unless they wait
    resume(self, folder)
Run._resume = late
class Stop(Callback):
    def step(self, record, result):
        if len(result.records) == 6 and sys.argv[2] == "stop":
            os.kill(os.getpid(), signal.SIGTERM)
trainer = MetaTrainer("conv4", PrototypicalLearner(learn_temperature=True), CONFIG, callbacks=[Stop()])
try:
    trainer.fit(TRAIN, VAL, out=sys.argv[1], progress=False, resume=True)
except KeyboardInterrupt:
    pass
"""


@pytest.mark.slow
def test_two_processes_stop_together_and_resume_bit_for_bit(tmp_path):
    train(tmp_path / "one")
    for what in ("stop", "go on"):
        run = torchrun(tmp_path / "script.py", RESUME, str(tmp_path / "two"), what)
        assert run.returncode == 0, run.stderr
    one, two = (load_file(tmp_path / name / STATE) for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert all(torch.equal(two[name], one[name]) for name in one)
