"""The code map in a real JupyterLab: hover, click, keys, and what the kernel answers."""

import re
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_notebook

BUILD = Path(__file__).parents[2] / "build"
# The first five videos stand in a cross, so that the test knows what is where.
CELLS = """
import numpy as np
from vidhash_lab import open_dataset
from vidhash_lab.retrieval.codes import encode
from vidhash_lab.models.baselines import ITQ
from vidhash_lab.widgets import CodeMap

dataset = open_dataset("digit-stories-mini")
model = ITQ.for_dataset(dataset, 32).prepare(dataset.train)
angle = np.random.default_rng(0).uniform(0, 2 * np.pi, len(dataset.database))
positions = 9 * np.stack([np.cos(angle), np.sin(angle)], 1)
positions[:5] = [0, 0], [4, 0], [0, 4], [-4, 0], [0, -4]
positions[5:9] = [-10, -10], [-10, 10], [10, -10], [10, 10]
shown = CodeMap(positions, dataset.database, encode(model, dataset.database))
shown
"""


@pytest.fixture
def stage(run_all_cells, page):
    """Show a map and return its canvas."""
    notebook = new_notebook(cells=[new_code_cell(CELLS.strip())])
    # Without it JupyterLab asks which kernel to take, and waits.
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    run_all_cells(notebook, "code_map")
    canvas = page.locator(".code-map-over")
    canvas.wait_for(timeout=120_000)
    return canvas


def middle(canvas):
    box = canvas.bounding_box()
    return {"x": box["width"] / 2, "y": box["height"] / 2}


def brightness(page, selector):
    """Mean and spread of a canvas's reds."""
    return page.evaluate(
        """selector => { const canvas = document.querySelector(selector);
        const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        const reds = data.filter((_, i) => i % 4 === 0), mean = reds.reduce((a, b) => a + b) /
        reds.length; return [mean, Math.max(...reds) - Math.min(...reds)]; }""",
        selector,
    )


def test_a_mouse_and_keys_ask_the_kernel(stage, page):
    from playwright.sync_api import expect

    status, hover = page.locator(".code-map-status"), page.locator(".code-map-hover")
    expect(status).to_contain_text("Click a point")
    stage.scroll_into_view_if_needed()

    stage.hover(position=middle(stage))
    expect(hover).to_contain_text("video 0, ")
    assert brightness(page, ".code-map-hover canvas")[1] > 100, "the film strip is blank"
    page.screenshot(path=BUILD / "code_map_hover.png")

    stage.click(position=middle(stage))
    expect(status).to_have_text(
        re.compile(r"^video 0: \d+ of 10 nearest share its category, distances \d+ to \d+$")
    )
    expect(page.locator(".code-map-found img:visible")).to_have_count(11)
    page.screenshot(path=BUILD / "code_map_query.png")

    page.keyboard.press("ArrowRight")
    expect(hover).to_contain_text("video 1, ")
    page.keyboard.press("Enter")
    expect(status).to_have_text(re.compile(r"^video 1: \d+ of 10"))
    page.keyboard.press("ArrowLeft")
    expect(hover).to_contain_text("video 0, ")
    page.keyboard.press("Escape")
    expect(status).to_contain_text("Click a point")
    expect(page.locator(".code-map-found img:visible")).to_have_count(0)


def test_keys_change_the_colouring(stage, page):
    from playwright.sync_api import expect

    legend = page.locator(".code-map-legend")
    expect(legend.locator("li")).to_have_count(20)
    page.locator(".code-map-controls select").first.focus()
    page.keyboard.press("ArrowDown")
    expect(legend).to_contain_text("story 1 of its category")
    page.keyboard.press("ArrowDown")
    expect(legend).to_contain_text("bit 0 is 1")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowUp")
    expect(legend).to_contain_text("bit 1 is 1")
    page.get_by_label("query video").focus()
    page.keyboard.type("7")
    page.keyboard.press("Enter")
    expect(page.locator(".code-map-status")).to_have_text(re.compile(r"^video 7: \d+ of 10"))
    page.screenshot(path=BUILD / "code_map_bit.png")
