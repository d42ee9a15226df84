"""The demonstration: a short run, and the full run with its accuracies as a slow test."""

import json
import os
import re
import subprocess
import sys

import pytest

from fewshot.cli.demo.story import TESTS, run_demo


def check(results, page, n_episodes):
    """Check what holds for a run of any length."""
    assert len(results["accuracy"]) == 3 * len(TESTS)
    for row in results["accuracy"]:
        assert 0 <= row["accuracy"] <= 1
        assert 0 <= row["ci95"] < 0.2
        assert row["n_episodes"] == n_episodes
    assert {"seed", "threads", "versions", "command", "wall_seconds"} <= set(results["manifest"])
    for key in ("recall_at_1", "recall_at_5"):
        assert 0 < results["look_up"][key + "_ci95"] < 0.1
    assert results["look_up"]["agreement"] > 0.999  # two neighbours may lie within the rounding of float32
    for part, name in (("add_a_class", "learn_ms"), ("add_a_class", "embed_ms"), ("look_up", "faiss_ms")):
        low, high = results[part][name + "_quartiles"]
        assert 0 < low <= results[part][name] <= high
    for part in ("seed", "meta-trained", "Confusion matrix", "handwritten digits, 10-way 5-shot"):
        assert part in page
    assert not re.search(r"""(src|href)="(?!data:|#)""", page)


@pytest.mark.parametrize(
    "files",
    [["best.safetensors", "log.csv", "manifest.json"], ["report.html"], ["results.json"], ["state.safetensors"]],
)
def test_a_foreign_folder_is_refused_and_not_touched(tmp_path, files):
    for name in files:
        (tmp_path / name).write_text('{"manifest": {"command": "fewshot train"}}')
    with pytest.raises(ValueError, match="holds other files, such as"):
        run_demo(tmp_path, train_episodes=3, test_episodes=20, progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == files


@pytest.mark.slow
def test_a_short_run_has_every_part(tmp_path):
    lines = []
    outcome = run_demo(tmp_path, train_episodes=3, test_episodes=20, progress=False, say=lines.append)
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert results["accuracy"] == outcome.results["accuracy"]
    check(results, (tmp_path / "report.html").read_text(encoding="utf-8"), 20)
    files = ["best.safetensors", "log.csv", "report.html", "results.json", "state.safetensors"]
    assert sorted(p.name for p in tmp_path.iterdir()) == files
    said = "\n".join(lines)
    for start in ("1. ", "2. ", "3. ", "4. ", "5. "):
        assert f"\n{start}" in "\n" + said
    for row in results["accuracy"]:
        assert f"{100 * row['accuracy']:.1f} ±" in said


@pytest.mark.slow
def test_the_full_run_reaches_its_accuracies(tmp_path):
    """As the command runs it, on two threads like the machine of the README."""
    command = [sys.executable, "-m", "fewshot", "demo", "--quiet", "--out", str(tmp_path)]
    subprocess.run(command, check=True, timeout=900, env={**os.environ, "OMP_NUM_THREADS": "2"})
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    check(results, (tmp_path / "report.html").read_text(encoding="utf-8"), 600)
    accuracy = {(r["setting"], r["method"]): r["accuracy"] for r in results["accuracy"]}
    assert accuracy["new characters, 20-way 1-shot", "meta-trained"] >= 0.82
    assert accuracy["new characters, 20-way 1-shot", "untrained"] <= 0.3
    gains = {d["setting"]: d for d in results["paired_differences"] if d["minus"] == "raw pixels"}
    for shot in (1, 5):
        gain = gains[f"handwritten digits, 10-way {shot}-shot"]
        assert gain["difference"] - gain["ci95"] > 0
