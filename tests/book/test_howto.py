"""The code of the how-to pages runs as it stands, in an empty folder, from top to bottom."""

import re
from pathlib import Path

import pytest

HOWTO = Path(__file__).parents[2] / "book" / "howto"
PAGES = [page for page in sorted(HOWTO.glob("*.md")) if "```python" in page.read_text()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.S)
    names = {"__name__": page.stem}
    for block in blocks:
        exec(compile(block, page, "exec"), names)


def test_the_pages_are_one_screen_each():
    for page in HOWTO.glob("*.md"):
        assert len(page.read_text().split()) <= 450, page
