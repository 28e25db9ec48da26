"""Virtual HDF5 data sets: whether all that they show lies in their own file.

A virtual data set shows rows of other data sets, of its file or of others. Where one is missing, or
no part covers a row, HDF5 reads zeros without a word; so the kit opens a virtual data set only if
its parts are blocks of whole rows, one after the other from the first to the last, of data sets
that the same file holds. A block may be shown many times: a set larger than any disk in a file of
some megabytes. Parts may be virtual in turn, a few levels deep: a ring of them has no end.
"""

import math

import h5py

MOST_LEVELS = 4


def is_whole(dataset: h5py.Dataset, levels: int = MOST_LEVELS) -> bool:
    """Whether all rows of a data set, virtual or not, lie in its own file.

    >>> with h5py.File("films.h5", "w") as file:
    ...     file["feats"] = [1.0]
    ...     is_whole(file["feats"])
    ...
    True
    """
    if not dataset.is_virtual:
        return dataset.external is None
    parts = dataset.virtual_sources()
    if not levels or any(part.file_name != "." for part in parts):
        return False
    names = {part.dset_name for part in parts}
    sources = {name: _source(dataset, name, levels) for name in names}
    if None in sources.values():
        return False
    shown = []  # (start, stop) of the rows of each part
    for part in parts:
        ours = _rows(part.vspace, dataset)
        theirs = _rows(part.src_space, sources[part.dset_name])
        if not ours or not theirs or ours[1] - ours[0] != theirs[1] - theirs[0]:
            return False
        shown.append(ours)
    starts, stops = zip(*sorted(shown))
    return (0, *stops) == (*starts, len(dataset))


def _rows(space, dataset):
    """Read a selection in a data set as its rows (start, stop), or None for parts of rows."""
    if space.get_select_type() == h5py.h5s.SEL_ALL:
        return 0, len(dataset)
    first, last = space.get_select_bounds()
    lengths = tuple(end - start + 1 for start, end in zip(first, last))
    is_box = space.get_select_npoints() == math.prod(lengths)
    if not is_box or lengths[1:] != dataset.shape[1:] or last[0] >= len(dataset):
        return None
    return first[0], last[0] + 1


def _source(dataset, name, levels):
    """Find the data set of the same file that a part shows; None if it may lie elsewhere."""
    links, name = dataset.file.id.links, name.removeprefix("/")
    if "/" in name or not links.exists(name.encode()):
        return None
    if links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
        return None
    source = dataset.file[name]
    if not isinstance(source, h5py.Dataset) or source.dtype != dataset.dtype:
        return None
    alike = source.shape[1:] == dataset.shape[1:]
    return source if alike and is_whole(source, levels - 1) else None
