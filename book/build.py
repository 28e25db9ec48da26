"""Build the book: `python book/build.py [FOLDER]`, by default build/book, without running anything.

The pages are these files, the committed notebooks (`course.py`), and the published numbers
(`leaderboard.py`), laid out in build/book-source, which Sphinx reads. A file that did not change is
not written again, so that a second build reads only what is new.
"""

import argparse
import sys
from pathlib import Path

import course
import leaderboard
import reference
from sphinx.cmd.build import build_main

BOOK = Path(__file__).parent
ROOT = BOOK.parent
FIGURES = ("00_search.png",)


def pages() -> dict[str, bytes]:
    """Make every file of the book's source -> {path within it: content}."""
    written = [path for kind in ("md", "css", "js", "svg") for path in BOOK.rglob(f"*.{kind}")]
    found = {str(path.relative_to(BOOK)): path.read_bytes() for path in written}
    found |= {f"static/{name}": (ROOT / "figures" / name).read_bytes() for name in FIGURES}
    found |= course.pages(ROOT) | reference.pages(ROOT)
    found["leaderboard_table.html"] = leaderboard.table().encode()
    contributing = (ROOT / "CONTRIBUTING.md").read_text()
    found["howto/method_code.md"] = course.section(contributing, "## Your own method").encode()
    changes = (ROOT / "CHANGES.md").read_text()
    found["changes.md"] = changes.replace("(CONTRIBUTING.md)", "(howto/method.md)").encode()
    return found


def lay_out(source: Path) -> None:
    """Write the changed files of the book's source, and remove those that are no longer in it."""
    found = pages()
    for path in [path for path in source.rglob("*") if path.is_file()]:
        if str(path.relative_to(source)) not in found:
            path.unlink()
    for name, content in found.items():
        path = source / name
        if not path.is_file() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def main() -> int:
    """Build the book into the folder that the command line names -> exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "build" / "book")
    folder = parser.parse_args().folder
    source, trees = (folder.with_name(f"{folder.name}-{part}") for part in ("source", "trees"))
    lay_out(source)
    if (folder / "objects.inv").is_file():  # an earlier book: Sphinx leaves pages that are gone
        for page in folder.rglob("*.html"):
            page.unlink()
    options = ["-b", "html", "-c", BOOK, "-d", trees, "-j", "auto", "-q", "-W", "--keep-going"]
    return build_main([str(option) for option in [*options, source, folder]])


if __name__ == "__main__":
    sys.exit(main())
