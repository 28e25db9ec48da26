"""The page of a run, opened in a real browser: it asks nothing of anybody, and shows everything."""

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from vidhash_lab.runs import runs

FORMULAS = r"""# Formulas

Inline $\frac{a}{b}$, then

$$\sum_{i=1}^N \left\| x_i - \hat{x}_i \right\|^2 \in \mathbb{R}$$

\begin{align} a &= b \\ c &= d \end{align}

and code, `$HOME` and `$PATH`, that is none."""


def test_the_page_of_a_run_makes_no_request(open_browser, tmp_path):
    widget = new_output("display_data", {runs.WIDGET_TYPE: {"model_id": "1"}, "text/plain": "Box"})
    cells = [new_markdown_cell(FORMULAS), new_code_cell("panel()", outputs=[widget])]
    cells.append(new_markdown_cell("```mermaid\ngraph TD; A-->B\n```"))
    state = {"application/vnd.jupyter.widget-state+json": {"state": {}, "version_major": 2}}
    nbformat.write(new_notebook(cells=cells, metadata={"widgets": state}), tmp_path / "run.ipynb")
    path = runs.write_html(tmp_path / "run.ipynb")
    assert "cdn" not in path.read_text() and "unpkg" not in path.read_text()
    asked, errors = [], []
    with open_browser() as browser:
        page = browser.pages[0]
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: errors.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(path.as_uri(), wait_until="networkidle")
        assert [asked, errors] == [[path.as_uri()], []]
        assert page.locator("math").count() == 3
        assert page.locator("math[display=block]").count() == 2
        fraction = page.locator("mfrac").bounding_box()
        assert fraction["height"] > fraction["width"] > 0  # set, not written out
        assert page.locator("code", has_text="$HOME").count() == 1
        assert page.locator(".jp-OutputArea").inner_text().strip() == runs.WIDGET_LINE
