import io
import sys

import pytest

from fewshot.utils.progress import progress_bar


def test_a_log_file_gets_a_line_now_and_then(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with progress_bar(1000, "image", show=True, desc="embedding") as bar:
        for _ in range(1000):
            bar.update()
        written = sys.stderr.getvalue()
    assert "embedding" in written
    assert written.count("\r") < 5


def test_hidden_it_writes_nothing(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with progress_bar(3, "image", show=False) as bar:
        bar.update(3)
    assert sys.stderr.getvalue() == ""


def test_it_runs_along_what_it_is_given():
    assert list(progress_bar(3, "image", show=False, iterable="abc")) == ["a", "b", "c"]


@pytest.mark.parametrize("stream", [None, "closed", "bare", "full"])
def test_a_stream_that_is_missing_closed_bare_or_full_is_no_failure(monkeypatch, stream):
    class Bare:
        def write(self, text):
            if stream == "full":
                raise OSError(28, "No space left on device")

    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", {None: None, "closed": closed}.get(stream, Bare()))
    for show in (True, False):
        with progress_bar(3, "image", show=show) as bar:
            bar.update(3)
            bar.set_postfix(loss="x")
