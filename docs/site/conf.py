"""How Sphinx builds the pages that `assemble` gathers; `make docs` runs both."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math import latex2mathml

from fewshot import __version__

project = "fewshot"
author = "the fewshot developers"
release = version = __version__
language = "en"

extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc", "sphinx_copybutton"]
myst_enable_extensions = ["attrs_block", "deflist"]
myst_heading_anchors = 3
default_role = "obj"  # a single backtick in a docstring names an object, or an argument
toc_object_entries_show_parents = "hide"

autodoc_typehints = "none"  # docstrings say types with shapes, and signatures stay short
autodoc_member_order = "bysource"
numpydoc_show_class_members = False  # autodoc shows them

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_only_copy_prompt_lines = True

html_theme = "furo"
html_title = "fewshot"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_copyright = html_show_sphinx = html_copy_source = False
html_math_renderer = "mathml"
html_show_search_summary = False  # it asks for whole pages, which browsers refuse without a server
pygments_style, pygments_dark_style = "a11y-high-contrast-light", "a11y-high-contrast-dark"
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b62a8", "color-brand-content": "#0b62a8"},
    "dark_css_variables": {"color-brand-primary": "#6db3f2", "color-brand-content": "#6db3f2"},
}


def write_math(translator: Any, node: nodes.Element) -> None:
    """Write a formula as MathML, which browsers draw without a script."""
    is_block = isinstance(node, nodes.math_block)
    formula = latex2mathml.tex2mathml(node.astext(), as_block=is_block)
    translator.body.append(f'<div class="math">{formula}</div>' if is_block else formula)
    raise nodes.SkipNode


def is_skipped(app: Any, what: str, name: str, member: Any, skip: bool, options: Any) -> bool | None:
    """Skip what scikit-learn adds to estimators, such as the routing of metadata."""
    added = name.startswith("set_") and name.endswith("_request")
    return True if added or str(getattr(member, "__module__", "")).startswith("sklearn.") else None


#: What the theme leaves out for people who use a keyboard or a screen reader: what scrolls can be reached, headings
#: have a level, regions a name, and an empty corner of a table is no heading.
MENDED = {
    r"<pre>": '<pre tabindex="0">',
    r'<div class="(table-wrapper|math)': r'<div tabindex="0" class="\1',
    r'class="caption" role="heading"': 'class="caption" role="heading" aria-level="2"',
    r'<aside class="sidebar-drawer"': '<aside aria-label="Site" class="sidebar-drawer"',
    r'<aside class="toc-drawer': '<aside aria-label="This page" class="toc-drawer',
    r'<th class="head">(<p></p>)?</th>': "<td></td>",
}


def mend(app: Any, error: Exception | None) -> None:
    """Mend the written pages."""
    for path in [] if error else Path(app.outdir).rglob("*.html"):
        text = mended = path.read_text(encoding="utf-8")
        for pattern, replacement in MENDED.items():
            mended = re.sub(pattern, replacement, mended)
        if mended != text:
            path.write_text(mended, encoding="utf-8")


def setup(app: Any) -> dict[str, bool]:
    """Register the writer of formulas."""
    app.add_html_math_renderer("mathml", (write_math, None), (write_math, None))
    app.connect("autodoc-skip-member", is_skipped)
    app.connect("build-finished", mend)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
