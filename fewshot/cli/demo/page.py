"""The page of the demonstration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fewshot.classifiers.methods import PrototypicalClassifier
from fewshot.cli.demo.outcome import CHARACTERS, DIGITS, PIXELS, TRAINED, UNTRAINED, Contest, Outcome, accuracy_frame
from fewshot.data.images import LabeledImages
from fewshot.episodes.balanced import EpisodeSampler
from fewshot.report.figures import accuracy_bars, confusion, embedding_maps, learning_curve
from fewshot.report.page import Page, QueryAnswer

#: Points on a map.
N_MAPPED = 600


def write_page(path: Path, outcome: Outcome) -> None:
    """Write the report of a demonstration to `path`."""
    results, seed = outcome.results, outcome.results["manifest"]["seed"]
    page = Page(
        "New classes from one to five images",
        "A small network was meta-trained on printed characters. Below it learns characters and handwritten digits it "
        "has never seen, from one or five images each, with no gradient step.",
    )
    page.cards(_cards(outcome))
    page.section(
        "Accuracy on classes never seen",
        "Every method answers the same episodes with the same learner, the nearest class mean; only the embedding "
        "differs. Whiskers are 95 % intervals over episodes, dotted lines chance.",
    )
    page.figure(accuracy_bars(accuracy_frame(outcome.contests)), "Bars of the accuracies in the table below")
    page.table(_accuracy_table(outcome.contests), "Accuracy, % (± half the 95 % interval); gains are paired.")
    page.section(
        "One learning task, in pictures",
        "Five new characters, one support image of each. Every query is answered with its nearest prototype; the bar "
        "is the probability, the last number the similarity (minus the squared distance; higher is closer).",
    )
    for name, n_way, n_query in ((CHARACTERS, 5, 2), (DIGITS, 10, 1)):
        page.task(*_task(outcome.test[name], outcome.embeddings[name][TRAINED], n_way, n_query, seed), name)
    _digits(page, outcome, seed)
    _serving(page, results)
    page.section("Meta-training", "The query loss is the meta-objective; the weights that were best on the validation "
                 "characters were kept.")  # fmt: skip
    page.figure(learning_curve(outcome.training.to_frame()), "Loss falls and accuracy rises over the episodes")
    page.section("Run it again", "The same seed, versions and thread count give the same figures.")
    page.code(results["manifest"]["command"])
    page.table(_environment(results["manifest"]))
    page.write(path, "Every figure on this page, with its interval, is in results.json beside it.")


def _cards(outcome: Outcome) -> list[tuple[str, str]]:
    by_setting = {(c.data, c.n_way, c.n_shot): c for c in outcome.contests}
    hard = by_setting[CHARACTERS, 20, 1].results[TRAINED]
    digits = by_setting[DIGITS, 10, 5].results[TRAINED]
    added = outcome.results["add_a_class"]
    return [
        (f"{100 * hard.mean:.1f} %", "of queries right among 20 new characters, from one image each"),
        (f"{100 * digits.mean:.1f} %", "right on real handwritten digits, from five images each"),
        (f"{added['learn_ms']:.2f} ms", "to learn one more class from its five embeddings"),
        (f"{outcome.results['training']['seconds']:.0f} s", "of meta-training, on the CPU"),
    ]


def _accuracy_table(contests: list[Contest]) -> pd.DataFrame:
    rows = {}
    for contest in contests:
        cells = {m: f"{100 * r.mean:.1f} ± {100 * r.ci95:.1f}" for m, r in contest.results.items()}
        mean, ci95 = contest.results[TRAINED].difference(contest.results[PIXELS])
        rows[contest.setting] = {**cells, "gain over pixels": f"{100 * mean:+.1f} ± {100 * ci95:.1f}"}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("test")


def _task(
    data: LabeledImages, embeddings: NDArray[np.float32], n_way: int, n_query: int, seed: int
) -> tuple[dict[Any, list[NDArray[np.uint8]]], list[QueryAnswer]]:
    """Draw one episode and answer it -> support images by label, queries with their three likeliest classes."""
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


def _digits(page: Page, outcome: Outcome, seed: int) -> None:
    name = DIGITS
    page.section(
        "Across the domain: from print to handwriting",
        "The network never saw a digit nor handwriting. The map shows images of digits before and after meta-training, "
        "laid out by t-SNE from the embeddings alone; the confusion is of the 5-shot episodes.",
    )
    page.figure(
        embedding_maps(_maps(outcome, name, seed)),
        "Two maps of digit images; after meta-training the ten digits form clearer groups",
    )
    contest = next(c for c in outcome.contests if (c.data, c.n_shot) == (name, 5))
    page.figure(
        confusion(contest.results[TRAINED].confusion),
        "Confusion matrix of the ten digits",
        "Share of each digit's queries, %.",
        small=True,
    )


def _maps(outcome: Outcome, name: str, seed: int) -> list[tuple[str, NDArray[np.floating], NDArray[Any]]]:
    from sklearn.manifold import TSNE

    labels = outcome.test[name].labels
    rows = np.random.Generator(np.random.Philox(key=seed)).permutation(len(labels))[:N_MAPPED]
    layout = TSNE(init="pca", perplexity=30, random_state=seed)
    return [
        (title, layout.fit_transform(outcome.embeddings[name][method][rows]), labels[rows])
        for title, method in ((f"before: {UNTRAINED}", UNTRAINED), (f"after: {TRAINED}", TRAINED))
    ]


def _serving(page: Page, results: dict[str, Any]) -> None:
    added, found = results["add_a_class"], results["look_up"]
    page.section(
        "One more class, and looking up",
        f"A classifier that knew {added['n_classes_before']} digits was given the last one: embedding its "
        f"{added['n_shot']} images took {added['embed_ms']:.1f} ms and learning them {added['learn_ms']:.2f} ms. It "
        f"then gets {100 * added['accuracy_new_class']:.0f} % of the new digit's other images right, and "
        f"{100 * added['accuracy_other_classes']:.0f} % of the other digits' "
        f"({100 * added['accuracy_other_classes_before']:.0f} % before).\n\n"
        f"One image of each of {found['n_keys']} new characters went into an index: for {found['n_queries']} queries "
        f"the right one came first for {100 * found['recall_at_1']:.0f} % and among five for "
        f"{100 * found['recall_at_5']:.0f} %. FAISS and exact search agreed on {100 * found['agreement']:.2f} % of the "
        f"answers, in {found['faiss_ms']:.1f} and {found['exact_ms']:.1f} ms for all of them.",
    )


def _environment(manifest: dict[str, Any]) -> pd.DataFrame:
    rows = {key: str(manifest[key]) for key in ("seed", "threads", "cpus", "python", "system", "machine")}
    rows |= {"seconds in all": str(manifest["wall_seconds"]), **manifest["versions"]}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["value"]).rename_axis("environment")
