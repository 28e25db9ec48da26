"""Sphinx's configuration of the book; `build.py` lays out the pages and calls it."""

import inspect
import re
import tomllib
from pathlib import Path

from docutils import nodes

import vidhash_lab
from vidhash_lab.runs.pages import mathml

ROOT = Path(vidhash_lab.__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

project, version = "vidhash_lab", PROJECT["version"]
copyright = "the vidhash_lab developers, Apache 2.0"
extensions = ["myst_nb", "sphinx_design", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence", "dollarmath", "attrs_block"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # outputs are the committed ones: of a full run, checked by the tests
nb_output_stderr = "remove"
nb_merge_streams = True
default_role = "literal"  # docstrings write code as `code`
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 80
nitpicky = False
exclude_patterns = ["howto/method_code.md"]  # howto/method.md includes it
suppress_warnings = ["config.cache"]

html_context = {"default_mode": "auto"}
html_use_index = False  # the search has it all
html_domain_indices = False
html_theme = "pydata_sphinx_theme"
html_title = "vidhash_lab"
html_static_path = ["static"]
html_favicon = "static/favicon.svg"
html_css_files = ["book.css"]
html_js_files = [("leaderboard.js", {"defer": "defer"})]
html_show_sourcelink = False
html_copy_source = False
html_show_sphinx = False
html_math_renderer = "mathml"
html_theme_options = {
    "logo": {
        "text": "vidhash_lab",
        "image_light": "static/favicon.svg",
        "image_dark": "static/favicon.svg",
        "alt_text": "",
    },
    "navbar_end": ["theme-switcher"],
    "show_prev_next": True,
    "navigation_with_keys": False,  # arrow keys scroll
    "show_toc_level": 1,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "back_to_top_button": False,
}
html_sidebars = {"index": [], "leaderboard": [], "checked": []}

OPEN = "<details class='solutions'><summary>Show the solutions</summary>"


def fold_solutions(app, doctree):
    """Put what stands below a notebook's heading "Solutions" into a box that is closed."""
    for section in doctree.findall(nodes.section):
        if section[0].astext() == "Solutions":
            section.insert(1, nodes.raw("", OPEN, format="html"))
            section.append(nodes.raw("", "</details>", format="html"))


def describe_figures(app, doctree):
    """Give the figures of a notebook, in their order, the alt texts that its outputs carry."""
    figures = [n for n in doctree.findall(nodes.image) if "jupyter_execute" in n["uri"]]
    if figures:
        alts = app.env.metadata[app.env.docname]["alts"].split("\n")
        for figure, alt in zip(figures, alts, strict=True):
            figure["alt"] = alt


def docstring_as_text(app, what, name, obj, options, lines):
    """Read docstrings as they are written: stars and bars are no markup, `>>>` is an example."""
    if inspect.ismodule(obj):
        lines.clear()  # its words open the section already (`reference.py`)
    for number, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...", ":")):
            parts = re.split(r"(``?[^`]+``?)", line)
            parts[::2] = [re.sub(r"(?<!\\)([*|@]|_(?=\W|$))", r"\\\1", part) for part in parts[::2]]
            lines[number] = "".join(parts)


def _visit_math(display):
    def visit(translator, node):
        translator.body.append(mathml(node.astext(), display))
        raise nodes.SkipNode

    return visit


def setup(app):
    """Connect the above; formulas are MathML, which needs neither script nor fonts."""
    app.connect("doctree-read", fold_solutions)
    app.connect("doctree-read", describe_figures)
    app.connect("autodoc-process-docstring", docstring_as_text)
    app.add_html_math_renderer(
        "mathml", (_visit_math("inline"), None), (_visit_math("block"), None)
    )
