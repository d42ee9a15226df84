"""What every test file shares: one torch thread, and proof that the caller's random state is left alone."""

import os
import random
from contextlib import suppress

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
os.environ.setdefault("MPLBACKEND", "agg")
# Tests reach nobody: Haystack would report its use.
os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")
# Read by scipy when it is first imported; one of scikit-learn's checks needs it.
os.environ.setdefault("SCIPY_ARRAY_API", "1")

import numpy as np
import pytest
import torch
from hypothesis import settings

with suppress(ImportError):  # drawn in by others; it takes random numbers when it is imported
    import rich.style  # noqa: F401

torch.set_num_threads(1)
# How long an example takes says nothing where several tests run beside each other.
settings.register_profile("fewshot", deadline=None)
settings.load_profile("fewshot")


def numpys_state():
    """The state of numpy's global generator; to write its numbers out would take longer than most tests."""
    return [part.tobytes() if isinstance(part, np.ndarray) else part for part in np.random.get_state()]  # noqa: NPY002


@pytest.fixture(autouse=True)
def _global_generators_are_left_alone():
    """No call into the package may draw from, or seed, the generators that belong to the user."""
    before = random.getstate(), numpys_state(), torch.random.get_rng_state()
    yield
    assert random.getstate() == before[0]
    assert numpys_state() == before[1]
    assert torch.equal(torch.random.get_rng_state(), before[2])
