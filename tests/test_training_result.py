from fewshot import MetaTrainer
from fewshot.training.result import write_training
from tests.training_data import QUICK, TRAIN, VAL


def test_the_page_has_the_curves_the_command_and_the_settings(tmp_path):
    result = MetaTrainer(config=QUICK).fit(TRAIN, VAL, progress=False)
    facts = {"manifest": {"command": "fewshot train <data>"}, "config": {"n_way": 5, "backbone": "<b>"}}
    write_training(tmp_path / "pages" / "a.html", result, facts)
    page = (tmp_path / "pages" / "a.html").read_text(encoding="utf-8")
    assert "fewshot train &lt;data&gt;" in page
    assert "&lt;b&gt;" in page
    assert "accuracy on the validation classes" in page
    assert "<svg" in page or "data:image" in page
    assert "skipped" not in page
    result.skipped.append(3)
    write_training(tmp_path / "b.html", result, facts)
    assert "steps skipped" in (tmp_path / "b.html").read_text(encoding="utf-8")


def test_without_validation_the_page_omits_it(tmp_path):
    result = MetaTrainer(config=QUICK).fit(TRAIN, progress=False)
    write_training(tmp_path / "a.html", result, {"manifest": {"command": "c"}, "config": {}})
    assert "accuracy on the validation classes" not in (tmp_path / "a.html").read_text(encoding="utf-8")
