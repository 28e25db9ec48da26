"""The code of the how-to pages runs as it stands, in an empty folder, from top to bottom."""

import re
from pathlib import Path

import pytest

HOWTO = Path(__file__).parents[2] / "book" / "howto"
PAGES = [page for page in sorted(HOWTO.glob("*.md")) if "```python" in page.read_text()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs_and_prints_what_the_page_shows(
    page, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.S)
    names = {"__name__": page.stem}
    for block in blocks:
        exec(compile(block, page, "exec"), names)
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    for shown in re.findall(r"```text\n(.*?)```", page.read_text(), re.S):
        for line in shown.splitlines():  # measured numbers may differ: two words tell a line
            assert line.split()[:2] in [words[:2] for words in printed], line


def test_the_pages_are_one_screen_each():
    for page in HOWTO.glob("*.md"):
        assert len(page.read_text().split()) <= 450, page
