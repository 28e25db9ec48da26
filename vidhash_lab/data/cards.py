"""Cards: a page beside a file that says what it holds and how it was made.

`out.h5` has `out.h5.card.md` to be read, `out.h5.card.json` with the same facts. The licence is the
user's to state, in the JSON file; it stays when the card is written anew.
"""

import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from vidhash_lab.data.files import DataError, PathLike, written_whole

NO_LICENCE = "not stated; write it into the .card.json, where it stays"
SHOWN = 20  # entries of a long list on the page; the JSON file has all


def card_paths(path: PathLike) -> tuple[Path, Path]:
    """Name the two cards of a file: the page, and the facts as JSON.

    >>> [path.name for path in card_paths("films.h5")]
    ['films.h5.card.md', 'films.h5.card.json']
    """
    path = Path(path)
    return path.with_name(f"{path.name}.card.md"), path.with_name(f"{path.name}.card.json")


def write_card(path: PathLike, title: str, facts: Mapping) -> None:
    """Write the cards of the file at `path`; `facts` are plain values, and dicts of such.

    >>> write_card("codes.npy", "Codes of my films", {"bits": 64, "measured": {"mAP@20": 0.5}})
    >>> read_card("codes.npy.card.json")["measured"]
    {'mAP@20': 0.5}
    """
    page, raw = card_paths(path)
    try:
        by = f"vidhash_lab {version('vidhash-lab')}"
    except PackageNotFoundError:  # a checkout that is not installed
        by = "vidhash_lab"
    facts = {"title": title, "file": Path(path).name} | dict(facts)
    facts |= {"licence": _licence(raw), "written by": by}
    with written_whole(raw) as new:
        new.write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", "utf-8")
    with written_whole(page) as new:
        new.write_text(render_card(facts), "utf-8")


def read_card(path: PathLike) -> dict:
    """Read the facts of a card, `….card.json`; `DataError` where it is damaged.

    >>> write_card("codes.npy", "Codes of my films", {"bits": 64})
    >>> read_card("codes.npy.card.json")["bits"]
    64
    """
    try:
        facts = json.loads(Path(path).read_text("utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: damaged, it is no JSON ({error}). Remove it.") from error
    if not isinstance(facts, dict):
        raise DataError(f"{path}: holds no card, but a {type(facts).__name__}. Remove it.")
    return facts


def render_card(facts: Mapping) -> str:
    """Write the facts of a card as a page of Markdown.

    >>> write_card("codes.npy", "Codes of my films", {"bits": 64})
    >>> render_card(read_card("codes.npy.card.json")).splitlines()[0]
    '# Codes of my films'
    """
    facts = dict(facts)
    lines = [f"# {_text(facts.pop('title', 'Card'))}", ""]
    plain = {name: value for name, value in facts.items() if not isinstance(value, dict)}
    lines += [f"- **{name}**: {_text(value)}" for name, value in plain.items()]
    for name, value in facts.items():
        if name not in plain:
            lines += ["", f"## {name}", "", *_entries(value)]
    return "\n".join(lines) + "\n"


def _entries(values):
    rows = [f"- **{_text(name)}**: {_text(value)}" for name, value in values.items()]
    more = [f"- … and {len(rows) - SHOWN} more"] if len(rows) > SHOWN else []
    return rows[:SHOWN] + more or ["- none"]


def _text(value):
    """Write a value in one line, as text and not as Markdown."""
    if isinstance(value, float):
        value = f"{value:.4g}"
    elif isinstance(value, list | tuple):
        value = ", ".join(_text(item) for item in value)
    elif isinstance(value, dict):
        value = ", ".join(f"{name} {_text(item)}" for name, item in value.items())
    text = " ".join(str(value).split())
    return text.replace("<", "&lt;").replace("*", "\\*").replace("`", "'")


def _licence(raw):
    """Take over what the user stated; a damaged card states nothing."""
    if raw.is_file():
        try:
            return str(read_card(raw).get("licence", NO_LICENCE))
        except DataError:
            pass
    return NO_LICENCE
