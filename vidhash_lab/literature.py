"""Published numbers of the field, each with the place it was read at.

`published.csv` has one row a number. Compare them only on the same data set, with the same
protocol: divided by K (`denominator="k"`), query and database as the source has them, ties as its
sort left them.
"""

import csv
from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True)
class Published:
    """One published number; what a source does not state is empty, bits then None.

    >>> published(method="ConMH", dataset="FCVID", bits=64)[0].metric
    'mAP@5'
    """

    method: str
    variant: str
    dataset: str
    bits: int | None
    metric: str
    value: float
    source: str


def published(**wanted) -> list[Published]:
    """List the published numbers whose fields are the wanted ones, in the order of the file.

    >>> found = published(method="ConMH", dataset="FCVID", bits=64, metric="mAP@20")
    >>> found[0].value, found[0].source
    (0.373, 'ConMH repository, README.md (d6dd5b5)')
    """
    unknown = set(wanted) - set(Published.__dataclass_fields__)
    if unknown:
        fields = ", ".join(Published.__dataclass_fields__)
        raise TypeError(f"no such field: {', '.join(sorted(unknown))}; there are {fields}")
    return [row for row in _read() if all(getattr(row, k) == v for k, v in wanted.items())]


def _read():
    with files("vidhash_lab").joinpath("published.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            bits = int(row["bits"]) if row["bits"] else None
            yield Published(**row | {"bits": bits, "value": float(row["value"])})
