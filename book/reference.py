"""The API reference's pages, made from the package as it lies: a page a room, a section a module.

What a class or a function is for is read from its docstring when Sphinx builds the page.
"""

import inspect
from importlib import import_module
from pathlib import Path

import vidhash_lab

CORE = "core"
CORE_WORDS = "Losses, training, checkpoints, recipes: the modules at the top of the package."
OPENING = (
    "What users call most stands at the top: `from vidhash_lab import …`. Every other name is \
imported from its module. Shapes use letters for dimensions: B a batch, T frames, D features, \
K bits, N videos, C categories."
)


def pages(root: Path) -> dict[str, bytes]:
    """Make the pages of the reference -> {path in the book's source: content}."""
    package = root / "vidhash_lab"
    rooms = {CORE: (CORE_WORDS, _modules(root, package.glob("*.py")))}
    for path in sorted(package.glob("*/__init__.py")):
        words = import_module(f"vidhash_lab.{path.parent.name}").__doc__.split("\n")[0]
        rooms[path.parent.name] = words, _modules(root, path.parent.rglob("*.py"))
    found = {f"api/{room}.md": _room(room, *told).encode() for room, told in rooms.items()}
    return found | {"api/index.md": _index(rooms).encode()}


def _modules(root, paths):
    """Name the modules of a room, those of its own folders last."""
    found = sorted(paths, key=lambda path: (len(path.parts), path))
    named = [path.relative_to(root).with_suffix("") for path in found if path.stem[:2] != "__"]
    return [".".join(path.parts) for path in named]


def _room(room, words, modules):
    lines = [f"# {room}", "", words, ""]
    for name in modules:
        module = import_module(name)
        lines += [f"## {name.removeprefix('vidhash_lab.')}", "", *_opening(module), ""]
        lines += ["```{eval-rst}", f".. automodule:: {name}", "   :members:", "```", ""]
    return "\n".join(lines)


def _opening(module):
    """Return the words that a module opens with, indented code and all, as Markdown."""
    return inspect.cleandoc(module.__doc__).replace("<", "&lt;").split("\n")


def _index(rooms):
    lines = ["# API reference", "", OPENING, "", "| name | what it does |", "|---|---|"]
    for name in vidhash_lab.__all__:
        thing = getattr(vidhash_lab, name)
        if hasattr(thing, "__qualname__"):
            first = inspect.cleandoc(thing.__doc__).split("\n")[0].replace("|", r"\|")
            lines.append(
                f"| {{py:obj}}`{name} <{thing.__module__}.{thing.__qualname__}>` | {first} |"
            )
    lines += ["", "| room | what is in it |", "|---|---|"]
    lines += [f"| [{room}]({room}.md) | {words} |" for room, (words, _) in rooms.items()]
    return "\n".join([*lines, "", "```{toctree}", ":hidden:", "", *rooms, "```", ""])
