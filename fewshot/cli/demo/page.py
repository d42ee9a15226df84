"""The page of the demonstration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fewshot.classifiers.methods import PrototypicalClassifier
from fewshot.cli.demo.measures import CHARACTERS, DIGITS, TRAINED, UNTRAINED, DemoResult
from fewshot.data.images import LabeledImages
from fewshot.episodes.balanced_sampler import EpisodeSampler
from fewshot.report.figures import accuracy_dots, confusion, embedding_maps, learning_curve
from fewshot.report.page import Page
from fewshot.report.query import QueryAnswer
from fewshot.utils.text import signed

#: Points on an embedding map.
N_MAPPED = 600


def write_page(path: Path, found: DemoResult) -> None:
    """Write the report of a demonstration."""
    results, seed = found.results, found.results["manifest"]["seed"]
    page = Page(
        "New classes from one to five images",
        "A small network was meta-trained on printed characters. Then it learned unseen characters and handwritten "
        "digits from one or five images each, with no gradient step.",
    )
    page.cards(_cards(found))
    _accuracy(page, found)
    page.section(
        "One learning task, in pictures",
        "Five new characters with one support image each. Every query is answered with its nearest prototype. The bar "
        "shows the probability, the last number the similarity: minus the squared distance, so higher is closer.",
    )
    for name, n_way, n_query in ((CHARACTERS, 5, 2), (DIGITS, 10, 1)):
        page.task(*_task(found.test[name], found.embeddings[name][TRAINED], n_way, n_query, seed), name)
    _digits(page, found, seed)
    _serving(page, results)
    page.section("Meta-training", "Training descends the query loss, the meta-objective. The weights with the best "
                 "validation accuracy were kept.")  # fmt: skip
    page.figure(learning_curve(found.training.to_frame()), "Curves of loss and accuracy over the episodes")
    manifest = results["manifest"]
    environment = {key: manifest[key] for key in ("seed", "threads", "cpus", "python", "system", "machine")}
    environment |= {"total seconds": manifest["wall_seconds"], **manifest["versions"]}
    page.rerun(manifest["command"], environment, "environment")
    page.write(path, "results.json holds every number on this page, with its interval.")


def _cards(found: DemoResult) -> list[tuple[str, str]]:
    by_setting = {(c.data, c.n_way, c.n_shot): c for c in found.contests}
    hard = by_setting[CHARACTERS, 20, 1].results[TRAINED]
    digits = by_setting[DIGITS, 10, 5].results[TRAINED]
    added = found.results["add_a_class"]
    return [
        (f"{100 * hard.mean:.1f} %", "accuracy among 20 new characters, from one image each"),
        (f"{100 * digits.mean:.1f} %", "accuracy on real handwritten digits, from five images each"),
        (f"{added['learn_ms']:.2f} ms", "to learn one more class from its five embeddings"),
        (f"{found.results['training']['seconds']:.0f} s", "of meta-training, on the CPU"),
    ]


def _accuracy(page: Page, found: DemoResult) -> None:
    page.section(
        "Accuracy on unseen classes",
        "Every method answers the same episodes with the same learner, the nearest class mean. Only the embedding "
        "differs. Whiskers are 95 % intervals over episodes; dotted lines mark chance.",
    )
    page.figure(accuracy_dots(pd.DataFrame(found.results["accuracy"])), "Chart of the accuracies in the table below")
    rows = {}
    for contest in found.contests:
        cells = {m: f"{100 * r.mean:.1f} ± {100 * r.ci95:.1f}" for m, r in contest.results.items()}
        mean, ci95 = contest.gain()
        rows[contest.setting] = {**cells, "gain over pixels": f"{signed(100 * mean)} ± {100 * ci95:.1f}"}
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("test")
    page.table(table, "Accuracy in % (± half the 95 % interval). Gains are paired.")


def _task(
    data: LabeledImages, embeddings: NDArray[np.float32], n_way: int, n_query: int, seed: int
) -> tuple[dict[Any, list[NDArray[np.uint8]]], list[QueryAnswer]]:
    """Draw an episode and answer it; return support images by label, and queries with their three likeliest classes."""
    episode = EpisodeSampler(data.labels, n_way, 1, n_query, seed=seed + 1)[0]
    model = PrototypicalClassifier().fit(embeddings[episode.support], data.labels[episode.support])
    proba = model.predict_proba(embeddings[episode.query])
    labels, similarities = model.nearest(embeddings[episode.query], k=3)
    queries = [
        QueryAnswer(
            data.images[row],
            data.labels[row],
            [
                (label, float(p[np.searchsorted(model.classes_, label)]), float(s))
                for label, s in zip(near, closeness, strict=True)
            ],
        )
        for row, p, near, closeness in zip(episode.query, proba, labels, similarities, strict=True)
    ]
    return {data.labels[row]: [data.images[row]] for row in episode.support}, queries


def _digits(page: Page, found: DemoResult, seed: int) -> None:
    name = DIGITS
    page.section(
        "Across domains: from print to handwriting",
        "The network never saw a digit or handwriting. The maps show digit images before and after meta-training, laid "
        "out by t-SNE from the embeddings alone. The confusion matrix is that of the 5-shot episodes.",
    )
    page.figure(
        embedding_maps(_maps(found, name, seed)),
        "Two maps of digit images; after meta-training the ten digits form clearer groups",
    )
    contest = next(c for c in found.contests if (c.data, c.n_shot) == (name, 5))
    page.figure(
        confusion(contest.results[TRAINED].confusion),
        "Confusion matrix of the ten digits",
        "Share of each digit's queries, %.",
    )


def _maps(found: DemoResult, name: str, seed: int) -> list[tuple[str, NDArray[np.floating], NDArray[Any]]]:
    from sklearn.manifold import TSNE

    labels = found.test[name].labels
    rows = np.random.Generator(np.random.Philox(key=seed)).permutation(len(labels))[:N_MAPPED]
    layout = TSNE(init="pca", perplexity=30, random_state=seed)
    return [
        (title, layout.fit_transform(found.embeddings[name][method][rows]), labels[rows])
        for title, method in ((f"before: {UNTRAINED}", UNTRAINED), (f"after: {TRAINED}", TRAINED))
    ]


def _serving(page: Page, results: dict[str, Any]) -> None:
    added, found = results["add_a_class"], results["look_up"]
    page.section(
        "Adding a class, and looking up images",
        f"A classifier that knew {added['n_classes_before']} digits learned the last one. Embedding its "
        f"{added['n_shot']} images took {added['embed_ms']:.1f} ms, learning them {added['learn_ms']:.2f} ms. It now "
        f"classifies {100 * added['accuracy_new_class']:.0f} % of the new digit's other images correctly, and "
        f"{100 * added['accuracy_other_classes']:.0f} % of the other digits "
        f"({100 * added['accuracy_other_classes_before']:.0f} % before).\n\n"
        f"An index held one image of each of {found['n_keys']} new characters. Of {found['n_queries']} queries, "
        f"{100 * found['recall_at_1']:.0f} % found the right character first, and {100 * found['recall_at_5']:.0f} % "
        f"among the first five. FAISS and exact search agreed on {100 * found['agreement']:.2f} % of the answers. All "
        f"queries took {found['faiss_ms']:.1f} ms with FAISS and {found['exact_ms']:.1f} ms exactly.",
    )
