"""Pages about the support: check and audit."""

from fewshot import FewShotImageClassifier
from fewshot.images.support_pages import write_audit, write_check
from tests.photographs import photos, quick_embedder


def page_of(write, path, *arguments):
    write(path, *arguments)
    return path.read_text(encoding="utf-8")


def test_suspects_stand_beside_the_neighbour_that_says_why(tmp_path):
    images, labels = photos(12)
    labels[3] = "flower"  # a temple
    images, labels = [*images, images[7], images[9].resize((60, 60))], [*labels, labels[7], labels[9]]
    names = [f"<b>{i}" for i in range(26)]
    model = FewShotImageClassifier(quick_embedder()).fit(images, labels, ids=names)
    found = model.check()
    assert found.suspects.index[0] == 3
    assert found.suspects["taken_for"][3] == "temple"
    page = page_of(write_check, tmp_path / "check.html", found)
    for part in (
        "Perhaps of another class",
        "flower: more like temple",
        f"&lt;b&gt;{found.suspects['neighbour_row'][3]}",
        "% of right images look as suspect",
        "Nearly the same",
        "of flower taken for temple",
        "Accuracy against the images of a class",
        "gain, points",
    ):
        assert part in page
    assert "<b>3" not in page
    frame = model.audit()
    page = page_of(write_audit, tmp_path / "audit.html", model, frame)
    for part in ("flower: more like temple", "the same as &lt;b&gt;7", "Nearly the same", "right ones as suspect"):
        assert part in page
    assert "<b>3" not in page
    assert page.index("&lt;b&gt;3") < page.index("&lt;b&gt;24")  # the most suspect first


def test_a_clean_support_has_no_suspects(tmp_path):
    images, labels = photos(6)
    model = FewShotImageClassifier(quick_embedder()).fit(images[:1], labels[:1])
    assert "Nothing found" in page_of(write_audit, tmp_path / "audit.html", model, model.audit())
