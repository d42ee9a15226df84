"""A real browser for tests: Debian's Chromium with a camera that is not there, driven by Playwright."""

import os
import random
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

#: Widths of a phone and of a desktop, and the colours that each begins with; `accessible` looks at the others too.
SCREENS = {"phone": ({"width": 390, "height": 844}, "dark"), "desktop": ({"width": 1280, "height": 900}, "light")}
#: What the check of accessibility covers: all of WCAG 2.2 up to AA.
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
AXE = Path(__file__).parent / "axe" / "axe.min.js"
FLAGS = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", "--disable-gpu"]


def chromium():
    """Return the path of Chromium, or skip the test."""
    pytest.importorskip("playwright", reason="the page is tried with Playwright: pip install 'fewshot-learn[test]'")
    for name in ("chromium", "chromium-browser", "google-chrome", "chrome"):
        if found := shutil.which(name):
            return found
    pytest.skip("the page is tried in Chromium, which is not installed: apt-get install chromium")


@contextmanager
def browsing(url, screen="desktop", *, reduced_motion="no-preference", downloads=False, scripts=True, locale="en-GB"):
    """Open a page in a browser; no message of an error may appear in its console."""
    path = chromium()
    from playwright.sync_api import sync_playwright

    size, scheme = SCREENS[screen]
    state = random.getstate()  # Playwright draws from it
    flags = FLAGS + (["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else [])
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=flags)
        context = browser.new_context(
            viewport=size,
            color_scheme=scheme,
            reduced_motion=reduced_motion,
            accept_downloads=downloads,
            java_script_enabled=scripts,
            locale=locale,
        )
        context.grant_permissions(["camera"])
        context.set_default_timeout(20_000)
        page = context.new_page()
        page.errors = []
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.on("console", lambda said: page.errors.append(said.text) if said.type == "error" else None)
        page.on("request", lambda request: page.errors.append(request.url) if is_elsewhere(request.url, url) else None)
        page.goto(url)
        try:
            yield page
        finally:
            browser.close()
            random.setstate(state)


def is_elsewhere(asked, url):
    """Whether a request leaves the service."""
    return not asked.startswith(("/".join(url.split("/")[:3]) + "/", "blob:", "data:"))


#: Waits until colours, which change slowly, are those of the scheme.
AT_REST = """async () => {
  for (let i = 0; i < 2; i += 1) await new Promise(requestAnimationFrame);
  const changes = document.getAnimations().filter((one) => one.effect.getComputedTiming().endTime < Infinity);
  await Promise.all(changes.map((one) => one.finished.catch(() => {})));
}"""


def accessible(page):
    """Check a page with axe-core in both its colours, and that nothing is wider than the screen."""
    page.evaluate(AXE.read_text(encoding="utf-8"))
    shown = "dark" if page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") else "light"
    for scheme in ("light" if shown == "dark" else "dark", shown):  # the page is left as it was
        page.emulate_media(color_scheme=scheme)
        page.evaluate(AT_REST)
        found = page.evaluate("rules => axe.run(document, {runOnly: rules, resultTypes: ['violations']})", RULES)
        told = [
            f"{scheme}: {one['id']}: {one['help']}: {node['html'][:200]} {node['failureSummary'][:300]}"
            for one in found["violations"]
            for node in one["nodes"]
        ]
        assert not told, "\n".join(told)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page is wider than the screen"


def choose(page, files, button="Choose pictures"):
    """Choose files at a button, as a user does."""
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name=button).click()
    chooser.value.set_files(files)


def see(page, name):
    """Go to a part of the page."""
    page.get_by_role("navigation").get_by_role("link", name=name, exact=True).click()
