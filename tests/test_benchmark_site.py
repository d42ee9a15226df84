"""The page of all results: what it reads, checks against frozen episodes, pairs and shows, also to a browser."""

import json

import numpy as np
import pytest

from fewshot import EpisodeSampler, PrototypicalLearner, digits, evaluate, register_learner, run_benchmark
from fewshot.benchmark.frozen import digest_episodes
from fewshot.benchmark.others_file import SCHEMA
from fewshot.benchmark.site import write_site
from fewshot.cli import main
from fewshot.learners import registry
from fewshot.utils.text import signed
from tests.browser import accessible, browsing

GRID = {
    "datasets": [{"source": "digits"}],
    "backbones": [{"backbone": "pixels"}],
    "learners": [{"learner": "prototypical"}, {"learner": "cosine-prototypical"}, {"learner": "bpa"}],
    "n_shot": [1],
    "n_episodes": 30,
}
QUOTED = {
    "dataset": "Omniglot",
    "split": "test",
    "method": "Prototypical Networks",
    "backbone": "Conv4-64",
    "n_way": 20,
    "n_shot": 1,
    "accuracy": 0.96,
    "external": False,
    "transductive": False,
    "supposes_balance": False,
    "quoted": "Snell et al. 2017, table 1",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a grid, and a row of others for its episodes."""
    folder = tmp_path_factory.mktemp("bench") / "run"
    run_benchmark(GRID, folder, executor="serial", progress=False)
    data = digits()
    pixels = data.images.reshape(len(data), -1) / 255
    found = evaluate("matching", pixels, data.labels, n_shot=1, n_episodes=30)
    digest = digest_episodes(EpisodeSampler(data.labels, n_shot=1), 30)
    row = {name: QUOTED[name] for name in ("external", "transductive", "supposes_balance")}
    row |= {"dataset": "digits", "method": "mine", "backbone": "pixels", "n_way": 5, "n_shot": 1, "n_query": 15}
    return folder, row | {"by": "A. N. Other", "episodes": digest, "accuracies": found.accuracies.tolist()}


def others(path, *rows):
    path.write_text(json.dumps({"schema": SCHEMA, "results": rows}))
    return path


def by_method(site):
    return {one.method: one for one in site.results}


def test_seeds_are_pooled_as_in_the_table_and_an_own_learner_says_whether_it_supposes_balance(tmp_path):
    class Mine(PrototypicalLearner):
        """A learner that is registered when the grid runs, and no longer when the page is made."""

    register_learner("mine-for-site")(Mine)
    try:
        learners = [{"learner": "prototypical"}, {"learner": "mine-for-site", "metric": "cosine"}]
        grid = GRID | {"learners": learners, "seeds": [0, 1, 2]}
        run_benchmark(grid, tmp_path / "run", executor="serial", progress=False)
    finally:
        registry._LEARNERS.pop("mine-for-site")
    found = by_method(write_site(tmp_path / "site", [tmp_path / "run"]))
    mine = next(one for name, one in found.items() if name.startswith("mine"))
    assert len(found) == 2
    assert (mine.n_episodes, mine.n_seeds, mine.frozen, mine.supposes_balance) == (90, 3, True, False)
    table = (tmp_path / "run" / "results.md").read_text()
    for one in found.values():
        assert f"{100 * one.accuracy:.1f} ± {100 * one.ci95:.1f}" in table
    assert f"{signed(100 * mine.change)} ± {100 * mine.change_ci95:.1f}" in table
    assert "frozen, 3 seeds" in (tmp_path / "site" / "index.html").read_text()


def test_rows_of_others_on_the_same_episodes_are_paired_with_the_baseline(run, tmp_path):
    folder, row = run
    site = write_site(tmp_path / "site", [folder, others(tmp_path / "others.json", row, QUOTED)])
    found = by_method(site)
    assert set(found) == {"prototypical", "cosine-prototypical", "bpa", "mine", "Prototypical Networks"}
    mine, base = found["mine"], found["prototypical"]
    assert (mine.frozen, mine.against, mine.n_episodes) == (True, "prototypical", 30)
    gains = mine.accuracies - base.accuracies
    assert mine.change == pytest.approx(gains.mean())
    assert mine.change_ci95 == pytest.approx(1.96 * gains.std(ddof=1) / 30**0.5)
    stored = json.loads((folder / "results.json").read_text())["results"]
    assert base.accuracy == pytest.approx(stored[0]["accuracy"], abs=1e-9)
    assert base.accuracies.mean() == pytest.approx(base.accuracy)
    assert (found["bpa"].transductive, found["bpa"].supposes_balance, mine.supposes_balance) == (True, True, False)
    assert base.digest == mine.digest
    assert np.isnan(found["Prototypical Networks"].change)
    page = site.page.read_text()
    for text in ("quoted", "Snell et al. 2017, table 1", "by A. N. Other", "run_results.json", "20-way 1-shot"):
        assert text in page
    assert (tmp_path / "site" / "files" / "others.json").is_file()
    write_site(tmp_path / "site", [folder])  # again, over its own page
    with pytest.raises(ValueError, match="holds other files"):
        write_site(tmp_path, [folder])


def test_a_named_row_is_what_another_is_compared_with(run, tmp_path):
    folder, row = run
    site = write_site(tmp_path / "site", [folder, others(tmp_path / "o.json", {**row, "against": "bpa"})])
    found = by_method(site)
    assert found["mine"].change == pytest.approx((found["mine"].accuracies - found["bpa"].accuracies).mean())
    site = write_site(tmp_path / "site", [folder, others(tmp_path / "o.json", {**row, "against": "gone"})])
    assert "no file has the accuracies of 'gone'" in by_method(site)["mine"].note


@pytest.mark.parametrize(
    ("change", "note"),
    [({"episodes": "0" * 64}, "its episodes are not among the frozen ones"), ({"n_shot": 5}, "for 5-way 1-shot")],
)
def test_episodes_that_do_not_match_are_said(run, tmp_path, capsys, change, note):
    folder, row = run
    path = others(tmp_path / "others.json", {**row, **change})
    with pytest.warns(UserWarning, match=note):
        assert main(["bench", str(folder), str(path), "--site", str(tmp_path / "site"), "--json", "-"]) == 0
    rows = {one["method"]: one for one in json.loads(capsys.readouterr().out)["results"]}
    assert rows["mine"]["frozen"] is False
    assert rows["mine"]["change"] is None
    assert "do not match" in (tmp_path / "site" / "index.html").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"accuracy": 99.1}, "row 1: accuracy is 99.1; expected a number from 0 to 1"),
        ({"n_way": None}, "row 1: n_way is None; expected a whole number from 2"),
        ({"acuracy": 0.5}, "row 1: 'acuracy' is no field"),
        ({"external": "no"}, "row 1: external is 'no'; expected true, false or null"),
        ({"accuracies": [0.5, 0.51], "n_query": 1}, r"row 1: accuracies\[0\] is 0.5, no whole number of right answers"),
        ({"accuracies": [0.5, 0.5]}, "row 1: accuracy is 0.96 and the mean of accuracies is 0.5"),
        ({"query_classes": 50}, "row 1: query_classes is 50"),
    ],
)
def test_an_invalid_row_is_refused_in_one_sentence(tmp_path, change, message):
    path = others(tmp_path / "others.json", {**QUOTED, "n_way": 5, **change})
    with pytest.raises(ValueError, match=f"others.json, {message}"):
        write_site(tmp_path / "site", [path])


def test_files_without_accuracies_are_left_out_of_folders_and_refused_by_name(tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "times.json").write_text('{"rows": []}')
    others(folder / "others.json", QUOTED)
    site = write_site(tmp_path / "site", [folder, folder / "others.json"])
    assert (len(site.results), site.left_out) == (1, ["times.json"])
    assert "<b>1</b><span>data set</span>" in site.page.read_text()
    with pytest.raises(ValueError, match="times.json holds no accuracies on episodes, and no tables"):
        write_site(tmp_path / "site", [folder / "times.json"])
    with pytest.raises(ValueError, match="gone.json cannot be read"):
        write_site(tmp_path / "site", [folder / "gone.json"])


def test_copies_of_an_earlier_page_are_removed_and_no_other_files(tmp_path):
    names = ("first.json", "R&D #1, 50 %.json", "kept.json", "a link.json")
    paths = [others(tmp_path / name, QUOTED) for name in names]
    copies = write_site(tmp_path / "site", paths).page.parent / "files"
    assert sorted(path.name for path in copies.iterdir()) == sorted(names)
    (copies / "mine.json").write_text("mine")
    (copies / "a link.json").unlink()
    (copies / "a link.json").symlink_to(paths[0])
    write_site(tmp_path / "site", [tmp_path / "kept.json"])
    assert sorted(path.name for path in copies.iterdir()) == ["a link.json", "kept.json", "mine.json"]
    assert paths[0].is_file()


@pytest.mark.parametrize(
    ("title", "link"),
    [("My pages", "files/mine.json"), ("Few-shot results", "files/../../mine.json"), ("Few-shot results", "mine.json")],
)
def test_a_page_of_a_stranger_or_a_forged_one_removes_nothing(tmp_path, title, link):
    site, path = tmp_path / "site", others(tmp_path / "others.json", QUOTED)
    (site / "files").mkdir(parents=True)
    for mine in (tmp_path / "mine.json", site / "files" / "mine.json"):
        mine.write_text("mine")
    box = f'<div class="file" id="file-1"><h3>[1] mine</h3><p>1 result. <a href="{link}">mine</a></p></div>'
    (site / "index.html").write_text(f"<title>{title}</title>{box}")
    write_site(site, [path])
    assert (tmp_path / "mine.json").is_file()
    assert (site / "files" / "mine.json").is_file()


@pytest.mark.parametrize("screen", ["phone", pytest.param("desktop", marks=pytest.mark.slow)])
def test_a_reader_narrows_all_tables_at_once(run, tmp_path, screen):
    folder, row = run
    site = write_site(tmp_path / "site", [folder, others(tmp_path / "others.json", row, QUOTED)])
    with browsing(site.page.as_uri(), screen) as page:
        accessible(page)
        page.get_by_text("5 results").first.wait_for()
        page.get_by_label("Transductive").select_option("yes")
        assert page.locator(".listing tbody tr:visible th").all_inner_texts() == ["bpa"]
        page.get_by_label("Transductive").select_option("")
        page.get_by_label("Search").fill("snell")
        page.get_by_text("1 of 5 results").wait_for()
        assert not page.locator("h2", has_text="digits").is_visible()
        page.get_by_label("Search").fill("")
        if screen == "desktop":
            page.locator(".listing").first.get_by_role("button", name="accuracy, %").click()
        page.locator(".listing a").first.click()
        assert page.locator(".file:target").count() == 1
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    with browsing(site.page.as_uri(), screen, scripts=False) as page:
        assert page.locator(".listing tbody tr:visible").count() == 5
