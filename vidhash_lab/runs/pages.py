"""An executed notebook as one HTML file that asks nothing of the network.

nbconvert's own page loads require.js, MathJax, Mermaid and the widgets from a server. Here formulas
are MathML, which browsers set themselves, and none of the four is loaded: a page opened on a train,
in ten years, or from an archive looks as it did on the day of its run.
"""

from html import escape

from jinja2 import pass_context
from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode

LOADERS = ("html_head_js", "jupyter_widgets", "html_head_js_mathjax", "html_head_js_mermaidjs")
NOTHING = "".join(f"{{% block {name} %}}{{% endblock %}}" for name in LOADERS)
# nbconvert's page for JupyterLab's look leaves a picture's `alt` out.
TEMPLATE = (
    """{% extends "index.html.j2" %}
{% block data_png scoped %}{% set alt = output | get_metadata("alt", "image/png") or "" %}
{{ super() | replace("<img ", '<img alt="' ~ alt | escape_html ~ '" ', 1) }}{% endblock %}"""
    + NOTHING
)


def mathml(formula: str, display: str = "inline") -> str:
    r"""Turn a LaTeX formula into MathML; what cannot be read stays as it was written.

    >>> mathml(r"K \ll D")[-52:]
    '<mi>K</mi><mo>&#x0226A;</mo><mi>D</mi></mrow></math>'
    """
    try:
        return convert(formula, display=display)
    except Exception:  # a formula of a user's: latex2mathml has an error for each thing it misses
        return f"<code>{escape(formula)}</code>"


class Renderer(IPythonRenderer):
    """nbconvert's HTML of Markdown, with formulas set instead of left to a script.

    >>> issubclass(Renderer, IPythonRenderer)
    True
    """

    def inline_math(self, body: str) -> str:
        return mathml(body)

    def block_math(self, body: str) -> str:
        return mathml(body, "block")

    def latex_environment(self, name: str, body: str) -> str:
        return mathml(rf"\begin{{{name}}}{body}\end{{{name}}}", "block")


class PageExporter(HTMLExporter):
    """nbconvert's page of a notebook without what it would load from elsewhere.

    >>> from nbformat.v4 import new_markdown_cell, new_notebook
    >>> notebook = new_notebook(cells=[new_markdown_cell("Codes of $K$ bits.")])
    >>> "<mi>K</mi>" in PageExporter().from_notebook_node(notebook)[0]
    True
    """

    def __init__(self, **options):
        super().__init__(**options)
        self.raw_template = TEMPLATE

    @pass_context
    def markdown2html(self, context, source: str) -> str:
        """Turn a Markdown cell into HTML."""
        attachments = context.get("cell", {}).get("attachments", {})
        renderer = Renderer(
            escape=False, attachments=attachments, anchor_link_text=self.anchor_link_text
        )
        return MarkdownWithMath(renderer=renderer).render(source)


def page_of(notebook: NotebookNode) -> str:
    """Convert an executed notebook to the text of an HTML page that loads nothing.

    >>> from nbformat.v4 import new_markdown_cell, new_notebook
    >>> page = page_of(new_notebook(cells=[new_markdown_cell("Codes of $K$ bits.")]))
    >>> "<mi>K</mi>" in page, " src=" in page
    (True, False)
    """
    html, _ = PageExporter().from_notebook_node(notebook)
    return html
