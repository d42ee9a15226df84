"""Neither importing the package nor calling it changes what the host program has set."""

import subprocess
import sys

import pytest

PROGRAM = """
import decimal, faulthandler, gc, locale, logging, os, random, signal, sys, threading, warnings
from pathlib import Path

import faiss, matplotlib, numpy as np, pandas, PIL.Image, PIL.ImageFile, sklearn, timm, torch, torchvision
import onnxruntime, onnx, safetensors.torch, sklearn.svm, scipy.sparse  # whose import may set what it likes
from torch.utils._device import DeviceContext

torch.set_num_threads(2)
faiss.omp_set_num_threads(3)
warnings.filterwarnings("ignore", message="anything")
logging.basicConfig(level=logging.INFO)
signal.signal(signal.SIGTERM, lambda *_: None)
PIL.Image.MAX_IMAGE_PIXELS = 10_000
np.set_printoptions(precision=3)


def umask():
    os.umask(mask := os.umask(0))
    return mask


def state():
    backends = torch.backends
    return {
        "filters": list(map(str, warnings.filters)),
        "showwarning": warnings.showwarning,
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads(), faiss.omp_get_max_threads()),
        "torch": (torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled(),
                  torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu"),
                  torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision(),
                  backends.cudnn.benchmark, backends.cudnn.deterministic, backends.cudnn.allow_tf32,
                  backends.mkldnn.enabled, torch.initial_seed(), torch.get_rng_state().sum().item()),
        "signals": [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGSEGV, signal.SIGPIPE)],
        "logging": (logging.root.level, logging.root.manager.disable, list(logging.root.handlers),
                    logging.getLoggerClass(), list(logging.root.filters)),
        "hooks": (sys.excepthook, sys.displayhook, sys.unraisablehook, threading.excepthook, sys.gettrace(),
                  sys.getprofile(), sys.getrecursionlimit(), sys.getswitchinterval(), faulthandler.is_enabled()),
        "streams": (sys.stdout, sys.stderr, sys.stdin),
        "places": (os.getcwd(), list(sys.path), dict(os.environ), umask()),
        "matplotlib": [str(dict.__getitem__(matplotlib.rcParams, name)) for name in matplotlib.rcParams],
        "PIL": (PIL.Image.MAX_IMAGE_PIXELS, PIL.ImageFile.LOAD_TRUNCATED_IMAGES, PIL.ImageFile.MAXBLOCK),
        "numpy": (np.geterr(), str(np.get_printoptions()), str(np.random.get_state())),
        "pandas": {name: pandas.get_option(name) for name in ("display.max_rows", "mode.string_storage")},
        "sklearn": sklearn.get_config(),
        "python": (random.getstate(), locale.setlocale(locale.LC_ALL), str(decimal.getcontext()), gc.isenabled(),
                   gc.get_threshold(), gc.get_freeze_count()),
    }


def compare(before, what):
    after = state()
    for name, value in before.items():
        assert after[name] == value, f"{what} changed {name}:\\n{value}\\n{after[name]}"


before = state()
import fewshot
from fewshot import *
compare(before, "importing")
from tests.test_utils_isolation import SCENARIOS
from fewshot.benchmark.run_grid import run_benchmark
from fewshot.cli import main
compare(before, "importing the parts")
for name in ("of_images", "of_an_index", "of_training"):
    scenario = SCENARIOS[name]
    folder = Path(sys.argv[1], name)
    folder.mkdir()
    for _ in scenario(folder):
        pass
    compare(before, name)
evaluate("prototypical", np.random.default_rng(0).normal(size=(40, 4)), np.arange(40) % 8, n_query=2)
PrototypeIndex(index="hnsw").add(np.random.default_rng(0).normal(size=(400, 8))).search(np.ones((1, 8)), k=3)
PrototypeIndex(index="ivf").add(np.random.default_rng(0).normal(size=(400, 8))).search(np.ones((9, 8)), k=3)
compare(before, "searching")
from tests.test_utils_isolation import IMAGES, LABELS
for i, (pixels, label) in enumerate(zip(IMAGES, LABELS)):
    (folder / "photos" / label).mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(pixels).save(folder / "photos" / label / f"{i}.png")
network = ["--backbone", "conv4", "--weights", "random", "--size", "28", "--quiet"]
assert main(["fit", str(folder / "photos"), "--out", str(folder / "model"), *network]) == 0
compare(before, "a command")
from fewshot.report.figures import accuracy_dots
row = {"setting": "5-way", "method": "ours", "accuracy": 0.9, "ci95": 0.01}
accuracy_dots(pandas.DataFrame([row])).savefig(folder / "figure.svg")
compare(before, "a figure")
print("unchanged")
"""


@pytest.mark.slow
def test_nothing_of_the_host_program_is_changed(tmp_path):
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.stdout.splitlines()[-1:] == ["unchanged"], result.stderr[-3000:]


STRICT = """
import sys
from pathlib import Path
from tests.test_utils_isolation import SCENARIOS
for name, scenario in SCENARIOS.items():
    (folder := Path(sys.argv[1], name)).mkdir()
    list(scenario(folder))
"""


@pytest.mark.slow
def test_everything_runs_where_every_warning_is_an_error_and_no_docstring_is_kept(tmp_path):
    command = [sys.executable, "-W", "error", "-OO", "-c", STRICT, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
