"""Known or unknown: which score tells best, and whether its threshold keeps its promise.

On draws of each data set, some classes are known, some are spare (held-out classes, 20 images each), and the others
unknown. Scores: AUROC of known against unknown queries, and the share of the known that a threshold refuses which
accepts 5 % of the unknown. Promises: the default learner asks for 5 % from its support alone and with spare classes;
"kept" says how often the measured rate lay in the interval that it promised. Together: the transductive learner
``oslo`` beside the default one, on queries that come in one call: AUROC and accuracy where half are of unknown
classes; rates at 5 % false accepts asked for, with spare classes, also where a tenth, none or all are. What is used
was chosen on CIFAR-FS validation classes, Omniglot background and glyphs. The other data only report, the other 84
classes of CIFAR-100 among them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from arguments import Parser
from numpy.typing import NDArray
from protocol import facts, write
from samples import REPORT, Sample, add_options, samples
from scipy.special import logsumexp

from fewshot import FewShotClassifier, TransductiveClassifier
from fewshot.classifiers.rejection import area_under_roc
from fewshot.utils.discriminant import signed_power, unit_length
from fewshot.utils.streams import episode_rng
from fewshot.utils.text import signed

Array = NDArray[np.float64]
SHOTS, DRAWS, ASKED = (1, 5, 20), 12, 0.05
#: The most images of a spare class and of a class of queries, and the examples of an unknown class that are given.
SPARE_IMAGES, QUERIES, EXAMPLES = 20, 30, 5
#: Known and spare classes at most.
MOST_KNOWN, MOST_SPARE = 40, 30
BEFORE, OURS = "nearest prototype", "familiarity"


# ---- scores: support (n, d), labels, queries (q, d), number of classes -> (q,) ---------------------------------------


def means(x: Array, y: NDArray[np.int64], n_way: int) -> Array:
    """Return the mean of each class."""
    return np.stack([x[y == c].mean(0) for c in range(n_way)])


def cosines(x: Array, y: NDArray[np.int64], q: Array, n_way: int) -> Array:
    """Return the cosine of each query with each prototype."""
    return unit_length(q) @ unit_length(means(unit_length(x), y, n_way)).T


def roots(x: Array) -> Array:
    """Return signed square roots of unit length."""
    return unit_length(signed_power(unit_length(x), 0.5, np))


def nearest_prototype(x: Array, y: NDArray[np.int64], q: Array, n_way: int) -> Array:
    """Return the cosine with the nearest prototype, the former score."""
    return cosines(x, y, q, n_way).max(1)


def margin(x: Array, y: NDArray[np.int64], q: Array, n_way: int) -> Array:
    """Return how much nearer the nearest prototype is than the second."""
    best = np.sort(cosines(x, y, q, n_way), 1)
    return best[:, -1] - best[:, -2]


def energy(x: Array, y: NDArray[np.int64], q: Array, n_way: int) -> Array:
    """Return the negative free energy of the logits (Liu et al. 2020, arXiv:2010.03759)."""
    found: Array = logsumexp(cosines(x, y, q, n_way) / 0.05, axis=1)
    return found


def nearest_image(x: Array, y: NDArray[np.int64], q: Array, n_way: int) -> Array:
    """Return the cosine with the nearest image of the support (Sun et al. 2022, arXiv:2204.06507)."""
    best: Array = (unit_length(q) @ unit_length(x).T).max(1)
    return best


def centred(x: Array, y: NDArray[np.int64], q: Array, n_way: int) -> Array:
    """Return the cosine with the nearest prototype, of signed roots minus the mean of the prototypes."""
    prototypes = means(roots(x), y, n_way)
    middle = prototypes.mean(0)
    best: Array = (unit_length(roots(q) - middle) @ unit_length(prototypes - middle).T).max(1)
    return best


def relative_mahalanobis(x: Array, y: NDArray[np.int64], q: Array, n_way: int) -> Array:
    """Return the Mahalanobis distance from all images minus that from the nearest class (Ren et al. 2021).

    Covariances of signed roots, half-way shrunk to a multiple of the identity. arXiv:2106.09022.
    """
    z, asked, prototypes = roots(x), roots(q), means(roots(x), y, n_way)

    def distance(rows: Array, centre: Array) -> Array:
        spread = (rows**2).sum() / rows.size + 1e-12
        inverse = np.linalg.inv(0.5 * rows.T @ rows / len(rows) + 0.5 * spread * np.eye(rows.shape[1]))
        away = asked[:, None] - centre
        found: Array = np.einsum("qcd,de,qce->qc", away, inverse, away, optimize=True).min(1)
        return found

    middle = z.mean(0)
    within = z - prototypes[y]
    within = within if len(z) > n_way else z - middle
    return distance(z - middle, middle[None]) - distance(within, prototypes)


def similarity(x: Array, y: NDArray[np.int64], q: Array, n_way: int) -> Array:
    """Return the default learner's largest similarity."""
    return FewShotClassifier("discriminant").fit(x, y).model_.classify(q)[1].astype(np.float64)


SCORES: dict[str, Callable[..., Array]] = {
    BEFORE: nearest_prototype, "margin": margin, "energy": energy, "nearest image": nearest_image,
    "centred prototypes": centred, "relative Mahalanobis": relative_mahalanobis, "default similarity": similarity,
}  # fmt: skip
#: The default learner's score: from the support alone, with spare classes, and with examples of the unknown classes.
GIVEN = (OURS, f"{OURS}, spare classes", f"{OURS}, examples")


# ---- draws -----------------------------------------------------------------------------------------------------------


class Drawn:
    """Known, spare and unknown classes of one draw, with support and queries."""

    def __init__(self, sample: Sample, shots: int, i: int, seed: int, known: int, spare: int) -> None:
        rng, y = episode_rng(seed, i), sample.y
        classes = rng.permutation(int(y.max()) + 1)
        rows = [rng.permutation(np.flatnonzero(y == c)) for c in classes]
        parts = rows[:known], rows[known : known + spare], rows[known + spare :][:MOST_KNOWN]
        X = sample.X.astype(np.float64)
        self.x = X[np.concatenate([some[:shots] for some in parts[0]])]
        self.y = np.repeat(np.arange(known), shots)
        asked = [some[shots:][:QUERIES] for some in parts[0]]
        self.q, self.true = X[np.concatenate(asked)], np.repeat(np.arange(known), list(map(len, asked)))
        self.examples = X[np.concatenate([some[:EXAMPLES] for some in parts[2]])]
        self.unknown = X[np.concatenate([some[EXAMPLES:][:QUERIES] for some in parts[2]])]
        self.spare = X[np.concatenate([some[:SPARE_IMAGES] for some in parts[1]])] if spare else X[:0]
        self.spare_y = known + np.repeat(np.arange(spare), [len(some[:SPARE_IMAGES]) for some in parts[1]])
        self.n_way = known

    def model(self, **params: Any) -> Any:
        """Return the fitted default learner."""
        return FewShotClassifier("discriminant", **params).fit(self.x, self.y)

    def compared(self, score: Callable[..., Array]) -> tuple[float, float]:
        """Return the AUROC, and the share of the known refused at 5 % false accepts."""
        known, unknown = (score(self.x, self.y, q, self.n_way) for q in (self.q, self.unknown))
        return area_under_roc(known, unknown), float((known < np.quantile(unknown, 1 - ASKED)).mean())

    def familiar(self, what: str) -> Callable[..., Array]:
        """Return the default learner's score, given what it is given."""
        model = self.model(reject="auto")
        if "spare" in what:
            model.calibrate(self.spare, self.spare_y, n_episodes=1)
        if "examples" in what:
            model.calibrate(reject_examples=self.examples)

        def score(_x: Array, _y: Any, q: Array, _n: int) -> Array:
            return model.reject_rule().open_set().scores(q, np.zeros(len(q))).astype(np.float64)

        return score


def split_of(sample: Sample) -> tuple[int, int]:
    """Return how many classes are known and spare: 40 and 30 % of all."""
    n = int(sample.y.max()) + 1
    return min(MOST_KNOWN, n * 4 // 10), min(MOST_SPARE, n * 3 // 10)


def room(sample: Sample) -> int:
    """Return the most shots that leave five queries."""
    return int(np.bincount(sample.y).min()) - 5


# ---- the tables ------------------------------------------------------------------------------------------------


def scores(sample: Sample, shots: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return AUROC and refusals of every score."""
    known, spare = split_of(sample)
    found: dict[str, list[tuple[float, float]]] = {}
    for i in range(options.draws):
        drawn = Drawn(sample, shots, i, options.seed, known, spare)
        for name in (*SCORES, *GIVEN):
            score = SCORES[name] if name in SCORES else drawn.familiar(name)
            found.setdefault(name, []).append(drawn.compared(score))
    cell: dict[str, Any] = {"data": sample.name, "role": sample.role, "shots": shots, "known": known, "spare": spare}
    for name, pairs in found.items():
        auroc, refused = np.mean(pairs, 0)
        cell[name] = [round(100 * float(auroc), 1), round(100 * float(refused), 1)]
    for name in GIVEN:
        gains = 100 * (np.array(found[name]) - np.array(found[BEFORE]))[:, 0]
        half = 1.96 * gains.std(ddof=1) / len(gains) ** 0.5
        cell[f"gain of {name}"] = [round(float(gains.mean()), 2), round(float(half), 2)]
    print(json.dumps(cell), flush=True)
    return cell


def promises(sample: Sample, shots: int, known: int, spare: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return how often the rate of false accepts lies where the default learner promises it."""
    rows = []
    for i in range(options.draws):
        drawn = Drawn(sample, shots, i, options.seed, known, spare)
        model = drawn.model(reject="auto")
        if spare:
            model.calibrate(drawn.spare, drawn.spare_y, n_episodes=20)
        promised = model.rejection()
        low, high = promised.false_accept_interval
        accepted = float((model.predict(drawn.unknown) != -1).mean())
        lost = float((model.predict(drawn.q) == -1).mean())
        rows.append((accepted, low <= accepted <= high, high, lost, promised.false_reject_rate))
    accepted, kept, high, lost, expected = np.mean(rows, 0).tolist()
    cell = {
        "data": sample.name, "role": sample.role, "shots": shots, "known": known, "spare": spare,
        "accepted": round(100 * accepted, 1), "kept": round(100 * kept), "promised at most": round(100 * high, 1),
        "refused": round(100 * lost, 1), "announced": None if expected != expected else round(100 * expected, 1),
    }  # fmt: skip
    print(json.dumps(cell), flush=True)
    return cell


def together(sample: Sample, shots: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return how a transductive learner tells the unknown among queries that come together."""
    (known, spare), rows = split_of(sample), []
    for i in range(options.draws):
        drawn, rng = Drawn(sample, shots, i, options.seed, known, spare), episode_rng(options.seed, i, 1)
        n = min(len(drawn.q), len(drawn.unknown))
        asked = rng.permutation(len(drawn.q))[:n]
        q, true, unknown = drawn.q[asked], drawn.true[asked], drawn.unknown[rng.permutation(len(drawn.unknown))[:n]]
        half = np.concatenate([q, unknown])
        model = TransductiveClassifier("oslo").fit(drawn.x, drawn.y)
        codes, score = model.model_.classify(half)
        plain, spared = (drawn.familiar(what)(drawn.x, drawn.y, half, known) for what in ("", "spare"))
        row = [area_under_roc(one[:n], one[n:]) for one in (plain, spared, score)]
        row += [(drawn.model().predict(q) == true).mean(), (codes[:n] == true).mean()]
        model.set_params(reject=f"{ASKED:.0%}").calibrate(drawn.spare, drawn.spare_y, n_episodes=20)
        low, high = model.rejection().false_accept_interval
        for some, none in ((q, unknown), (q, unknown[: n // 9]), (q, unknown[:0]), (q[:0], unknown)):
            refused = model.predict(np.concatenate([some, none])) == -1
            lost, accepted = refused[: len(some)], ~refused[len(some) :]
            row += [lost.mean()] if len(some) else []
            row += [accepted.mean(), low <= accepted.mean() <= high] if len(none) else []
        rows.append(row)
    names = (
        "AUROC, familiarity", "with spare classes", "oslo", "right, default", "right, oslo",
        "half unknown: refused", "accepted", "kept", "a tenth: refused", "accepted ", "kept ", "none: refused",
        "all: accepted", "kept  ",
    )  # fmt: skip
    cell: dict[str, Any] = {"data": sample.name, "role": sample.role, "shots": shots, "known": known, "spare": spare}
    cell |= {name: round(100 * float(value), 1) for name, value in zip(names, np.mean(rows, 0), strict=True)}
    print(json.dumps(cell), flush=True)
    return cell


def table(found: dict[str, list[dict[str, Any]]]) -> str:
    """Return the results as Markdown."""
    lines = []
    for role in ("report", "choose"):
        for shots in SHOTS:
            cells = [c for c in found["scores"] if (c["role"], c["shots"]) == (role, shots)]
            if cells:
                names = [c["data"] for c in cells]
                lines += [f"AUROC / known refused at 5 % false accepts, {shots} images a class ({role})", ""]
                lines += [f"| score | {' | '.join(names)} | mean |", "|---|" + "---|" * (len(names) + 1)]
                for name in (*SCORES, *GIVEN):
                    pairs = [c[name] for c in cells]
                    shown = [f"{a:.1f} / {r:.0f}" for a, r in [*pairs, np.mean(pairs, 0)]]
                    lines.append(f"| {name} | {' | '.join(shown)} |")
                for name in GIVEN:
                    pairs = [c[f"gain of {name}"] for c in cells]
                    mean, half = np.mean(pairs, 0)[0], np.linalg.norm([h for _, h in pairs]) / len(pairs)
                    shown = [f"{signed(g)} ± {h:.1f}" for g, h in [*pairs, (mean, half)]]
                    lines.append(f"| AUROC of {name}, gained on {BEFORE} | {' | '.join(shown)} |")
                lines.append("")
    for what, title in (
        ("promises", "5 % false accepts asked for, in %"),
        ("together", "queries that come together, of known and of unknown classes, in %"),
    ):
        head = list(found[what][0])
        lines += [title, "", f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
        lines += [f"| {' | '.join('-' if v is None else str(v) for v in c.values())} |" for c in found[what]]
        lines.append("")
    for role in ("report", "choose"):
        cells = [c for c in found["promises"] if c["role"] == role]
        if cells:
            kept = np.mean([c["kept"] for c in cells])
            lines.append(f"{role}: the rate lay in the promised interval in {kept:.0f} % of the draws.")
    for role in ("report", "choose"):
        for shots in SHOTS:
            cells = [c for c in found["together"] if (c["role"], c["shots"]) == (role, shots)]
            if cells:
                names = [name for name, value in cells[0].items() if isinstance(value, float)]
                means = ", ".join(f"{name.strip()} {np.mean([c[name] for c in cells]):.1f}" for name in names)
                lines.append(f"{role}, together, {shots} images a class, mean: {means}.")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the benchmark."""
    parser = Parser("open_world.py", __doc__)
    add_options(parser, "open_world", text=False)
    parser.add_argument("--draws", type=int, default=DRAWS, metavar="N", help="default: %(default)s")
    options = parser.parse_args()
    options.draws = 4 if options.quick else options.draws
    torch.set_num_threads(1)
    plain = sorted(samples(options, styles=(), training=True), key=lambda sample: sample.role == REPORT)
    found: dict[str, list[dict[str, Any]]] = {"scores": [], "promises": [], "together": []}
    for sample in plain:
        known, spare = split_of(sample)
        for shots in [one for one in SHOTS if one <= room(sample)]:
            found["scores"].append(scores(sample, shots, options))
            found["together"].append(together(sample, shots, options))
            for n, s in sorted(
                {(min(5, known), 0), (min(5, known), min(spare, 8)), (known, 0), (known, min(spare, 8))}
            ):
                found["promises"].append(promises(sample, shots, n, s, options))
    results = {**facts("open_world.py", options.seed), "backbone": options.backbone, "draws": options.draws, **found}
    write(options.out, results, table(found))


if __name__ == "__main__":
    main()
