import numpy as np
import pytest
import torch

from fewshot import MetaTrainer
from fewshot.training import resident as room
from fewshot.training import step
from fewshot.training.resident import resident, sent, taken
from tests.training_data import QUICK, TRAIN, VAL

CUDA = torch.device("cuda")


@pytest.mark.parametrize("part", [1, 256, 700, 2**28])
def test_images_are_sent_in_parts_also_from_a_file(part, tmp_path):
    np.save(tmp_path / "images.npy", TRAIN.images)
    for images in (TRAIN.images, np.load(tmp_path / "images.npy", mmap_mode="r"), TRAIN.images[:, ::-1]):
        assert np.array_equal(sent(images, torch.device("cpu"), part).numpy(), images)


def test_images_stay_on_a_gpu_that_has_room_for_them(monkeypatch):
    monkeypatch.setattr(room, "sent", lambda images, device: (len(images), device))
    n = TRAIN.images.nbytes
    for free, is_kept in ((4 * n - 1, False), (4 * n, True)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 100 * n))
        assert (resident(TRAIN.images, CUDA) is not TRAIN.images) == is_kept
    assert resident(TRAIN.images, torch.device("cpu")) is TRAIN.images


def test_rows_are_the_same_from_an_array_and_from_a_tensor():
    rows = np.array([5, 0, 5, 95])
    assert np.array_equal(taken(TRAIN.images, rows), TRAIN.images[rows])
    assert np.array_equal(taken(torch.from_numpy(TRAIN.images), rows), TRAIN.images[rows])


def test_a_training_is_the_same_with_images_on_the_device(monkeypatch):
    alone = MetaTrainer("conv4", config=QUICK).fit(TRAIN, VAL, progress=False)
    monkeypatch.setattr(step, "resident", sent)
    kept = MetaTrainer("conv4", config=QUICK).fit(TRAIN, VAL, progress=False)
    same = [[(record["loss"], record["accuracy"]) for record in result.records] for result in (alone, kept)]
    assert same[0] == same[1]
