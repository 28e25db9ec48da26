"""The notebooks' widgets in a real JupyterLab: move a slider, see what only the kernel can say."""

import re
from pathlib import Path
from symtable import symtable

import pytest
import yaml
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
SMOKE = yaml.safe_load((NOTEBOOKS / "smoke.yaml").read_text())


def smoke_run(name):
    """Read of a notebook, with smoke parameters and without outputs, what its widget needs."""
    notebook = load_notebook_node(str(NOTEBOOKS / f"{name}.ipynb"))
    notebook = parameterize_notebook(notebook, SMOKE[name])
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    imported = re.search(r"from vidhash_lab\.widgets import (.+)", cells[0].source)[1].split(", ")
    while not any(f"{widget}(" in cells[-1].source for widget in imported):
        cells.pop()
    notebook.cells = cells_behind(cells)
    for cell in notebook.cells:
        cell.outputs = []
    return notebook


def cells_behind(cells):
    """Keep imports, parameters, the last cell, and what makes a name that a kept one reads."""
    kept, wanted = [], set()
    for cell in reversed(cells):
        table = symtable(re.sub("^%.*", "", cell.source, flags=re.MULTILINE), "cell", "exec")
        made = {each.get_name() for each in table.get_symbols() if each.is_assigned()}
        if not kept or made & wanted or cell in cells[:3]:
            kept.insert(0, cell)
            wanted = (wanted | names_read(table)) - made
    return kept


def names_read(table):
    """List the names of a notebook that a cell, or a function in it, reads."""
    own = {each.get_name() for each in table.get_symbols() if each.is_global()}
    return own.union(*map(names_read, table.get_children()))


def slider(page, description):
    """Return the handle of the slider with this description, once it is drawn."""
    row = page.locator(".widget-slider", has_text=description)
    row.locator(".noUi-handle").wait_for(timeout=120_000)
    return row.locator(".noUi-handle")


def press(page, handle, key, times=1):
    handle.focus()
    for _ in range(times):
        page.keyboard.press(key)


@pytest.mark.parametrize(
    "name, description, before, after",
    [
        ("00_start_here", "query", r"^query 0: \d+ of 10 results", r"^query 3: \d+ of 10 results"),
        ("02_masking_ratio", "hidden", r"mask ratio 0\.48: .* sees 13 of", r"0\.60: .* sees 10 of"),
        ("03_chain_tasks", "video", r"^video 0: \d+ of 12 frames", r"^video 3: \d+ of 12 frames"),
        (
            "06_precision_recall",
            "radius",
            r"^query 0, radius 4: \d+ f",
            r"^query 0, radius 7: \d+ f",
        ),
        ("04_mc_mlp_gating", "place", r"^video 0, token mixer: gates", r"^video 0, at the end: g"),
        (
            "11_losses_by_hand",
            "query",
            r"^query 0: guessing \d+ of 8",
            r"^query 3: guessing \d+ of 8",
        ),
        (
            "14_the_papers_questions",
            "query",
            r"^query 0: conmh \d+ of 8 right, chain \d+",
            r"^query 3: conmh \d+ of 8 right, chain \d+",
        ),
        ("08_your_own_videos", "file", r"^0-6-8/0003\.mp4, then", r"^1-3-8/0005\.mp4, then"),
        (
            "09_at_scale",
            "frames",
            r"^a billion.* GB 204,800; codes, GB 8;",
            r"GB 819,200; .* GB 8;",
        ),
    ],
)
def test_a_slider_moves_the_kernel_answers(run_all_cells, page, name, description, before, after):
    from playwright.sync_api import expect

    run_all_cells(smoke_run(name), name)
    handle = slider(page, description)
    status, picture = (
        page.locator(
            ".widget-label",
            has_text=re.compile(
                r"^(query \d+[:,] |mask ratio|video \d+[,:] |\S+mp4, then |a billion )"
            ),
        ),
        page.locator(".widget-html img"),
    )
    expect(status).to_have_text(re.compile(before), timeout=30_000)
    drawn = picture.get_attribute("src")
    press(page, handle, "ArrowRight", 3)
    expect(status).to_have_text(re.compile(after), timeout=30_000)
    expect(picture).not_to_have_attribute("src", drawn)
    page.wait_for_timeout(300)
    place = picture.bounding_box()
    around = page.locator(".jp-OutputArea-output", has=picture).bounding_box()
    assert place["x"] + place["width"] <= around["x"] + around["width"] + 1, "picture cut off"
    page.screenshot(path=Path(__file__).parents[2] / "build" / f"widget_{name}.png")
