"""What the cache folder holds, and how it is freed.

The folder is that of `vidhash_lab.data.catalog.cache_folder`. Only what the kit itself keeps there
is listed and removed, by its names: someone may have put the cache into a folder of theirs.
"""

import argparse
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from vidhash_lab.data.catalog import cache_folder

KINDS = {
    r"digit-stories-[0-9a-f]{12}": "built data set, made again in seconds",
    r"structures": "anchors and neighbours of feature files, found again in seconds to minutes",
    r"runs": "runs of notebook 07, made again in the better part of an hour",
}


@dataclass(frozen=True)
class Kept:
    """One entry of the cache: its name, what it is, its bytes and when it was last written to.

    >>> print(Kept("runs", Path("runs"), "runs of notebook 07", 2_000_000, datetime(2026, 1, 31)))
    runs                               2.0 MB  2026-01-31  runs of notebook 07
    """

    name: str
    path: Path
    kind: str
    bytes: int
    written: datetime

    def __str__(self) -> str:
        size = f"{self.bytes / 1e6:,.1f} MB"
        return f"{self.name:28} {size:>12}  {self.written:%Y-%m-%d}  {self.kind}"


def cache_contents() -> list[Kept]:
    """List what the kit keeps in the cache folder, by name; empty where there is no folder yet.

    >>> [each.name for each in cache_contents() if each.bytes > 1e12]
    []
    """
    folder = cache_folder()
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    told = ((path, _kind(path.name)) for path in paths if path.is_dir())
    return [_kept(path, kind) for path, kind in told if kind]


def clean_cache(*names: str) -> int:
    """Remove entries of the cache by their names, all of them where none is given -> bytes freed.

    What is removed is made again when it is asked for. ValueError, before anything is removed, for
    a name that the cache does not hold.

    >>> clean_cache("none of its entries")
    Traceback (most recent call last):
    ValueError: ... no entry none of its entries; it holds ...
    """
    there = {each.name: each for each in cache_contents()}
    if unknown := sorted(set(names) - set(there)):
        held = ", ".join(there) or "nothing"
        raise ValueError(f"{cache_folder()}: no entry {', '.join(unknown)}; it holds {held}")
    chosen = [there[name] for name in dict.fromkeys(names)] or list(there.values())
    for each in chosen:
        shutil.rmtree(each.path)
    return sum(each.bytes for each in chosen)


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Show the cache, or free it, from the command line.

    >>> main([])
    /...: ... MB...
    """
    parser = argparse.ArgumentParser(prog=prog, description=__doc__.split("\n")[0])
    words = "remove these entries, or all where none is named; the kit makes them again"
    parser.add_argument("--clean", nargs="*", metavar="NAME", help=words)
    names = parser.parse_args(arguments).clean
    if names is not None:
        print(f"{clean_cache(*names) / 1e6:,.1f} MB are free again")
    held = cache_contents()
    print(f"{cache_folder()}: {sum(each.bytes for each in held) / 1e6:,.1f} MB")
    for each in held:
        print(each)


def _kind(name):
    return next((kind for pattern, kind in KINDS.items() if re.fullmatch(pattern, name)), None)


def _kept(path, kind):
    files = [file.stat() for file in path.rglob("*") if file.is_file()]
    written = max((stat.st_mtime for stat in files), default=path.stat().st_mtime)
    size = sum(stat.st_size for stat in files)
    return Kept(path.name, path, kind, size, datetime.fromtimestamp(written))
