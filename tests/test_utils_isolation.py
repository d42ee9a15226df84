"""Answers, files and training do not depend on what the host program has set for its own computations."""

import ast
import gc
import pickle
import warnings
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from threading import Thread

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from sklearn.preprocessing import StandardScaler

from fewshot import (
    Embedder,
    FaissStore,
    FewShotClassifier,
    FewShotImageClassifier,
    MatchingLearner,
    MetaTrainer,
    OwnEmbedder,
    PrototypeIndex,
    RidgeLearner,
    StoredMemory,
    TransductiveClassifier,
    annotate,
    create_backbone,
    embed,
    evaluate,
    export,
    list_learners,
    load_learner,
    retrieve,
    runtime,
)
from fewshot.embedding import embedder as embedding
from fewshot.learners.registry import learner_class
from fewshot.utils.isolation import isolated, seeded
from tests.training_data import QUICK, TRAIN, VAL

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (24, 28, 28, 3), np.uint8)
LABELS = np.array(["ant", "bee", "cat", "dog"] * 6)
X, QUERIES = RNG.normal(size=(24, 8)).astype(np.float32), RNG.normal(size=(9, 8)).astype(np.float32)


def embedder(backbone="conv4", size=28, **how):
    return Embedder(backbone, weights="random", img_size=size, progress=False, **how)


def answers(model, queries=IMAGES[:5]):
    return [model.predict(queries), model.predict_proba(queries), *model.nearest(queries)]


def of_images(folder):
    """Learn, change, save and load a classifier of images, annotate and retrieve."""
    model = FewShotImageClassifier(embedder(), progress=False).fit(IMAGES[:12], LABELS[:12])
    yield answers(model)
    model.partial_fit(IMAGES[12:20], LABELS[12:20]).remove_class("dog")
    model.remove(IMAGES[:1], LABELS[:1])
    yield answers(model.calibrate(IMAGES, [f"not {label}" for label in LABELS], n_episodes=3))
    yield [model.audit(), model.explain(IMAGES[0])]
    model.save(folder / "model")
    yield answers(FewShotImageClassifier.load(folder / "model"))
    yield answers(FewShotImageClassifier.load(Path(__file__).parent / "artifacts" / "format_1"))
    found = list(annotate(model, IMAGES[:8]))
    store = FaissStore("cosine", model.embedder_.fingerprint, d=64)
    store.add(one.record() for one in found)
    yield [found, retrieve(model, store, IMAGES[:3], k=2)]
    yield StoredMemory(store, MatchingLearner()).predict_proba(found[0].vector[None])


def of_a_device(folder):
    """Export a classifier and answer without torch."""
    model = FewShotImageClassifier(embedder(), progress=False).fit(IMAGES[:12], LABELS[:12])
    export(model, folder / "device")
    device = runtime.load(folder / "device")
    yield [device.predict(IMAGES[:5]), device.predict_proba(IMAGES[:5])]
    device.partial_fit(IMAGES[12:], LABELS[12:])
    yield device.predict_proba(IMAGES[:5])


def of_embeddings(folder):
    """Embed with networks of several kinds, also a given one and a custom one."""
    for name, size in (("conv4", 28), ("test_vit", 32), ("test_efficientnet", 32)):
        made = embedder(name, size, cache=folder / "cache")
        yield [made.embed(IMAGES[:3]).embeddings, made.fingerprint, embedder(name, size).embed(IMAGES[:3]).embeddings]
    network = create_backbone("conv4")
    yield [embed(network, IMAGES[:3]), Embedder(network, progress=False).embed(IMAGES[:3]).embeddings]
    yield OwnEmbedder(network_of_means, "means").embed(IMAGES[:3]).embeddings
    yield list(network.state_dict().values())


def network_of_means(images):
    return np.stack([image.mean((0, 1)) for image in images])


def of_vectors(folder):
    """Every learner as an estimator, and its evaluation."""
    queries = np.tile(QUERIES, (2, 1))  # as many as help each other
    built_in = [name for name in list_learners() if learner_class(name).__module__.startswith("fewshot.")]
    for name, learner in ((name, learner_class(name)) for name in built_in):
        kind = TransductiveClassifier if learner.transductive else FewShotClassifier
        sizes = {"d": 8} if learner.learned else {"width": 8} if hasattr(learner(), "width") else {}
        model = kind(learner(**sizes).eval() if sizes else name).fit(X[:16], LABELS[:16])
        yield [model.predict(queries), model.predict_proba(queries), model.decision_function(queries)]
        model.partial_fit(X[16:], LABELS[16:], sample_weight=np.linspace(0.5, 2, 8))
        yield [model.predict_proba(1e4 * queries), pickle.loads(pickle.dumps(model)).predict_proba(queries)]
        yield evaluate(model._make_learner(), X, LABELS, n_way=3, n_shot=1, n_query=2, n_episodes=5).accuracies
        support, labels = torch.from_numpy(X[:12]), torch.arange(12, device="cpu") % 4
        yield Near(learner(**sizes).eval()(support, labels, torch.from_numpy(queries), 4))


def of_an_index(folder):
    """Add, remove, search, save and load."""
    for metric in ("cosine", "sqeuclidean", "dot"):
        for kind in ("exact", "faiss"):
            index = PrototypeIndex(metric, index=kind).add(X, LABELS)
            index.add(QUERIES, ["new"] * 9).remove(["bee"])
            yield index.search(QUERIES, k=3)
            index.save(folder / metric / kind)
            yield PrototypeIndex.load(folder / metric / kind).compact().search(QUERIES, k=3)


def of_training(folder):
    """Train, in each precision and with weights of the learner's own, resume, and use the checkpoint."""
    for name, learner, settings in (
        ("one", RidgeLearner(learn_temperature=True, learn_regularization=True), {}),
        ("two", "feat", {"precision": "bf16", "embed_chunk": 8}),
        ("three", "relation", {"meta_batch": 2}),
    ):
        config = QUICK.__class__(
            **{**QUICK.__dict__, "n_episodes": 2, "validate_every": 1, "save_every": 1, **settings}
        )
        trainer = MetaTrainer("conv4", learner, config)
        records = trainer.fit(TRAIN, VAL, out=folder / name, progress=False).records
        yield [{k: v for k, v in record.items() if "second" not in k} for record in records]
        best = folder / name / "best.safetensors"
        yield [load_learner(best).state_dict(), Embedder(best, progress=False).embed(TRAIN.images[:3]).embeddings]
        MetaTrainer("conv4", learner, config).fit(TRAIN, VAL, out=folder / name, progress=False, resume=True)


SCENARIOS = {f.__name__: f for f in (of_images, of_a_device, of_embeddings, of_vectors, of_an_index, of_training)}


@contextmanager
def hosted(change, new, old):
    """Call a setter inside the block and again with what restores it after."""
    change(new)
    try:
        yield
    finally:
        change(old)


@contextmanager
def strict_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@contextmanager
def sklearn_settings():
    """Change every setting of scikit-learn; array API dispatch only if the installed packages support it."""
    settings = {"transform_output": "pandas", "assume_finite": True, "enable_metadata_routing": True}
    with sklearn.config_context(**settings):
        try:
            dispatch = sklearn.config_context(array_api_dispatch=True)
            dispatch.__enter__()
        except ImportError:  # scikit-learn 1.6 wants array_api_compat and SciPy 1.14
            yield
            return
        try:
            yield
        finally:
            dispatch.__exit__(None, None, None)


SETTINGS = {
    "float64": lambda: hosted(torch.set_default_dtype, torch.float64, torch.float32),
    "bfloat16": lambda: hosted(torch.set_default_dtype, torch.bfloat16, torch.float32),
    "default device": lambda: hosted(torch.set_default_device, "meta", None),
    "device": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "autocast float16": lambda: torch.autocast("cpu", dtype=torch.float16),
    "errstate": lambda: np.errstate(all="raise"),
    "warnings": strict_warnings,
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "deterministic": lambda: hosted(torch.use_deterministic_algorithms, True, False),
    "denormal": lambda: hosted(torch.set_flush_denormal, True, False),
    "printing": lambda: np.printoptions(legacy="1.13", precision=2),
    "pandas": lambda: pd.option_context("mode.string_storage", "python"),
    "sklearn": sklearn_settings,
}


class Near:
    """A tensor that carries rounding: torch takes other kernels where gradients are recorded."""

    def __init__(self, value):
        self.value = value.detach().numpy()


def assert_same(one, other):
    """Compare answers to the last bit, with their types."""
    assert type(one) is type(other)
    if isinstance(one, Near):
        np.testing.assert_allclose(one.value, other.value, 1e-4, 1e-5)
    elif isinstance(one, torch.Tensor):
        assert (one.dtype, one.device, one.requires_grad) == (other.dtype, other.device, other.requires_grad)
        np.testing.assert_array_equal(one.detach().numpy(), other.detach().numpy())
    elif isinstance(one, np.ndarray):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    elif isinstance(one, pd.DataFrame):
        assert_same(one.to_dict("list"), other.to_dict("list"))
    elif isinstance(one, dict):
        assert_same(list(one.items()), list(other.items()))
    elif isinstance(one, (list, tuple)):
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    elif hasattr(one, "__dataclass_fields__"):
        assert_same(vars(one), vars(other))
    else:
        assert one == other or (one != one and other != other)


def run(name):
    """Return what a scenario answers; networks are loaded again, not those that another test still holds."""
    gc.collect()
    embedding._LOADED.clear()
    return list(SCENARIOS[name](Path(mkdtemp())))


expected = cache(run)


#: Settings that can hold at the same time: quick to test, and as hard. One of them alone says which does harm.
TOGETHER = {
    "reduced": ("bfloat16", "device", "autocast", "errstate", "no_grad", "deterministic", "sklearn", "pandas"),
    "enlarged": ("float64", "default device", "autocast float16", "warnings", "inference_mode", "denormal", "printing"),
}


@pytest.mark.parametrize("settings", TOGETHER.values(), ids=TOGETHER)
@pytest.mark.parametrize("name", SCENARIOS)
def test_what_the_host_program_has_set_changes_no_answer(name, settings):
    wanted = expected(name)
    with ExitStack() as stack:
        for setting in settings:
            stack.enter_context(SETTINGS[setting]())
        found = run(name)
    assert_same(found, wanted)


@pytest.mark.parametrize("bad", [{"X": np.nan}, {"y": np.nan}, {"sample_weight": np.nan}], ids=["X", "y", "weight"])
def test_numbers_are_checked_also_where_scikit_learn_is_told_not_to(bad):
    given = {"X": X[:4].copy(), "y": np.arange(4.0), "sample_weight": np.ones(4)}
    ((name, value),) = bad.items()
    given[name][..., -1] = value
    with sklearn.config_context(assume_finite=True), pytest.raises(ValueError, match="NaN"):
        FewShotClassifier().fit(**given)


@pytest.mark.parametrize("output", ["pandas", "default"])
def test_a_transformer_of_scikit_learn_embeds_whatever_it_puts_out(output):
    rows = list(X)
    with sklearn.config_context(transform_output=output):
        scaler = StandardScaler().fit(X)
        np.testing.assert_allclose(OwnEmbedder(scaler, "scaler").transform(rows), scaler.transform(X), atol=1e-6)


def test_a_cache_filled_under_autocast_serves_everyone(tmp_path):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        embedder(cache=tmp_path).transform(IMAGES)
    np.testing.assert_array_equal(embedder(cache=tmp_path).transform(IMAGES), embedder().transform(IMAGES))


def test_embeddings_of_reduced_precision_are_cached_apart(tmp_path):
    with hosted(torch.set_float32_matmul_precision, "medium", "highest"):
        embedder(cache=tmp_path).transform(IMAGES[:2])
        first = set(tmp_path.glob("*.sqlite"))
    made = embedder(cache=tmp_path)
    np.testing.assert_array_equal(made.transform(IMAGES[:2]), embedder().transform(IMAGES[:2]))
    assert len(set(tmp_path.glob("*.sqlite")) - first) == 1
    assert made._load().cache_key == made.identity


def test_settings_of_the_process_are_never_changed_even_for_a_moment():
    with hosted(torch.set_default_dtype, torch.float64, torch.float32), isolated():
        assert torch.get_default_dtype() is torch.float64
        elsewhere = []
        thread = Thread(target=lambda: elsewhere.append(torch.zeros(1, device="cpu").dtype))
        thread.start()
        thread.join()
        assert elsewhere == [torch.float64]
        assert torch.zeros(1).dtype is torch.tensor([1, 0.5]).dtype is torch.full((1,), 0.5).dtype is torch.float32
        assert torch.arange(3).dtype is torch.tensor(1).dtype is torch.int64
        assert torch.tensor(np.ones(1)).dtype is torch.zeros(1, dtype=torch.float64).dtype is torch.float64


def test_every_new_tensor_says_where_it_is_and_what_it_holds():
    floating = ("empty", "zeros", "ones", "full", "eye", "rand", "randn", "linspace")
    wanted = {name: {"dtype", "device"} for name in floating}
    wanted |= {name: {"device"} for name in ("tensor", "as_tensor", "arange")}
    for path in (Path(__file__).parents[1] / "fewshot").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("torch."):
                said = {keyword.arg for keyword in node.keywords}
                missing = wanted.get(ast.unparse(node.func).removeprefix("torch."), set()) - said
                assert not missing, f"{path}:{node.lineno} does not say the {missing} of a new tensor"


def test_inside_is_reproducible_and_outside_untouched():
    before = torch.random.get_rng_state()
    with seeded(7):
        first = torch.rand(3)
    with seeded(7):
        assert torch.equal(torch.rand(3), first)
    with seeded(8):
        assert not torch.equal(torch.rand(3), first)
    assert torch.equal(torch.random.get_rng_state(), before)
