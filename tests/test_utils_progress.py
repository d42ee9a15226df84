import io
import sys

import pytest

from fewshot.utils.progress import progress_bar


@pytest.mark.parametrize(("waits", "lines"), [(30.0, 0), (0.0, 2)])
def test_a_log_file_gets_a_line_now_and_then_and_none_of_short_work(monkeypatch, waits, lines):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr("fewshot.utils.progress.IN_LOG", waits)
    with progress_bar(1000, "image", show=True, desc="embedding") as bar:
        for _ in range(1000):
            bar.update()
    written = sys.stderr.getvalue()
    assert "\r" not in written
    assert (written.count("\n") >= lines) if lines else not written
    assert all(line.startswith("embedding") for line in written.splitlines())


def test_a_terminal_gets_a_bar_after_two_seconds(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for delay, is_seen in ((2.0, False), (0.0, True)):
        monkeypatch.setattr(sys, "stderr", Terminal())
        monkeypatch.setattr("fewshot.utils.progress.DELAY", delay)
        with progress_bar(3, "image", show=True, desc="embedding") as bar:
            bar.update(3)
        assert ("embedding" in sys.stderr.getvalue()) == is_seen


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
