"""What takes long or may surprise is logged, and nothing is shown unless the program asks."""

import logging
import threading

import numpy as np
import pytest

from fewshot import Embedder, FewShotImageClassifier, MetaTrainer, PrototypeIndex
from fewshot.persistence.locking import locked
from fewshot.utils.logs import timed
from tests.photographs import photos
from tests.processes import python
from tests.training_data import QUICK, TRAIN, VAL

QUIETLY = """
import logging
import numpy as np
import fewshot
own = logging.getLogger("fewshot")
assert [type(handler) for handler in own.handlers] == [logging.NullHandler]
assert (logging.root.handlers, own.level, own.propagate) == ([], logging.NOTSET, True)
keys = np.random.default_rng(0).normal(size=(600, 4))
fewshot.PrototypeIndex("cosine", "ivf").add(keys).build()
assert logging.root.handlers == []
print("done")
logging.basicConfig(level=logging.INFO)
fewshot.PrototypeIndex("cosine", "ivf").add(keys).build()
"""


def test_the_library_shows_nothing_until_the_program_configures_logging():
    run = python(QUIETLY)
    assert run.stdout == "done\n"
    (line,) = run.stderr.splitlines()
    assert line.startswith("INFO:fewshot.search.approximate:built an index of 600 keys in ")


def test_only_what_was_done_is_logged(caplog):
    log = logging.getLogger("fewshot.test")
    caplog.set_level(logging.INFO, "fewshot")
    with pytest.raises(KeyError), timed(log, "tried"):
        raise KeyError
    with timed(log, "counted to %d", 3):
        pass
    with timed(log, "counted", level=logging.DEBUG):
        pass
    (line,) = caplog.messages
    assert line.startswith("counted to 3 in 0.0")


@pytest.fixture
def said(caplog):
    """What was logged since the last call, without times and places."""
    caplog.set_level(logging.INFO, "fewshot")

    def since():
        found = [message.partition(" in ")[0] for message in caplog.messages]
        caplog.clear()
        return found

    return since


def test_a_cache_says_what_it_had_and_a_network_where_it_comes_from(tmp_path, said):
    images, labels = photos(2)
    for size, n_known in ((35, 0), (35, 4), (43, 0)):  # no other test shares a network of these sizes
        embedder = Embedder("conv4", weights="random", img_size=size, cache=tmp_path / "cache", progress=False)
        FewShotImageClassifier(embedder).fit(images, labels)
        told = said()
        assert f"{n_known} of 4 images are" in told
        assert n_known or "loaded the network conv4 from a random state" in told
    FewShotImageClassifier(embedder).fit(images, labels).save(tmp_path / "model")
    said()
    FewShotImageClassifier.load(tmp_path / "model")
    assert f"loaded the classifier {tmp_path / 'model'}" in said()


def test_training_says_what_it_resumed_and_wrote(tmp_path, said):
    trainer = MetaTrainer("conv4", "prototypical", QUICK)
    trainer.fit(TRAIN, VAL, out=tmp_path, progress=False, resume=True)
    told = said()
    assert f"{tmp_path} holds no state to resume; training begins with the first episode" in told
    assert "trained 12 episodes" in told
    assert [line for line in told if line.startswith("wrote the weights of episode")]
    MetaTrainer("conv4", "prototypical", QUICK).fit(TRAIN, VAL, out=tmp_path, progress=False, resume=True)
    assert f"resumed {tmp_path} after episode 12" in said()


def test_waiting_for_another_writer_is_said(tmp_path, said):
    held, seen = threading.Event(), threading.Event()

    def hold():
        with locked(tmp_path):
            held.set()
            seen.wait(0.2)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    with locked(tmp_path):
        assert said() == [f"waiting for another writer of {tmp_path}"]
    thread.join()


def test_compaction_is_said_if_it_takes_long(said):
    index = PrototypeIndex("cosine").add(np.eye(8))
    index.compact()
    assert said() == []  # these few take no time
