"""Published tables measured again: each number of a paper beside the same one from its files.

`rows_of` lists what `published.csv` knows of a table, `reproduce` measures each row and says why
where it cannot. The protocol is that of the released code: AP divided by K, on FCVID every query
found by itself. There the order within ties is what an unstable sort leaves, on ours it is that of
the database; the bounds over all orders stand beside it.

Q queries, K bits; codes are packed (N, K/8) uint8.
"""

import inspect
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.utils.flop_counter import FlopCounterMode

from vidhash_lab.checkpoints import load_released
from vidhash_lab.data.catalog import open_dataset
from vidhash_lab.data.features import VideoDataset
from vidhash_lab.data.files import DataError, PathLike
from vidhash_lab.data.released.export import export
from vidhash_lab.data.released.sets import PUBLISHED_SETS, differences
from vidhash_lab.literature import Published, published
from vidhash_lab.models import METHODS
from vidhash_lab.models.mcmsh import TABLE_1, TABLE_2
from vidhash_lab.recipes import S5VH_LOGGED, published_recipe
from vidhash_lab.retrieval.codes import encode
from vidhash_lab.retrieval.metrics import evaluate
from vidhash_lab.runs.runs import median_milliseconds
from vidhash_lab.training import fit

if TYPE_CHECKING:
    import pandas as pd

TABLES = {  # what the sources of its rows begin with
    "ConMH, README": "ConMH repository, README.md",
    "MCMSH, Table 1": "MCMSH poster, seed 002, Table 1",
    "MCMSH, Table 2": "MCMSH poster, seed 002, Table 2",
    "MCMSH, Table 3": "MCMSH poster, seed 002, Table 3",
    "BTH, results": "BTH repository, BTH/results/",
    "BTH, issue 2": "BTH repository, issue 2",
    "S5VH, README": "S5VH repository, README.md",
    "S5VH, logs": "S5VH repository, logs/",
    "AutoSSVH, README": "AutoSSVH repository, README.md",
    "AutoSSVH, issue 2": "AutoSSVH repository, issue 2",
    "WSCH, README": "WSCH repository, README.md",
}
ALL = ("ConMH", "MCMSH", "BTH", "S5VH", "AutoSSVH", "CHAIN")  # "ConMH, all": wherever it stands
VARIANTS = {name: {"gates": gates} for name, gates in TABLE_1.items()} | TABLE_2
VARIANTS |= {"": {}, "mask loss only": {"similarity_weight": 0, "cluster_weight": 0}}
DATASETS = {known.title: name for name, known in PUBLISHED_SETS.items()}
SHORT = {"fcvid": "fcv", "ucf101": "ucf", "hmdb51": "hmdb"}  # in names of released checkpoints
OTHER_DATA = "other data than published: the difference says nothing"
ROUNDED = 0.0005  # published numbers have three digits
COSTS = ("params_M", "flops_G", "encode_ms")


@dataclass(frozen=True)
class Setting:
    """How rows are measured: where files lie, and how long what has no weights is trained.

    `root` is the folder of the released files, or has a folder of each data set's. `weights` and
    `kept` are folders of checkpoints, METHOD/DATASET_BITS.pth with the variant before the ending:
    released ones to be read, and trainings to be kept and gone on with. `epochs` cuts trainings
    short; `changes` {method: {field: value}} are other sizes than the published.

    >>> Setting("/data", weights="/data/weights", epochs=2).epochs
    2
    """

    root: PathLike | None = None
    weights: PathLike | None = None
    kept: PathLike | None = None
    epochs: int | None = None
    changes: dict = field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True)
class Measured:
    """A published number beside ours; where `ours` is None, `remark` says why.

    `ties` are the least and the most that another order within ties could make of ours; `alone` is
    ours when no video finds itself; `smaller_divisor` when AP is divided by min(K, relevant).

    >>> row = rows_of("ConMH, README")[0]
    >>> Measured(row, remark="not measured: no such folder").ours is None
    True
    """

    row: Published
    ours: float | None = None
    ties: tuple[float, float] | None = None
    alone: float | None = None
    smaller_divisor: float | None = None
    remark: str = ""

    @property
    def difference(self) -> float | None:
        """Ours minus the published, in the unit of the metric.

        >>> row = rows_of("ConMH, README")[0]  # 0.35
        >>> round(Measured(row, ours=0.36).difference, 3)
        0.01
        """
        return None if self.ours is None else self.ours - self.row.value


def rows_of(table: str) -> list[Published]:
    """List the published numbers of a table of `TABLES`, or of a method: "BTH, all".

    ValueError for another name. CHAIN's list is empty, as published.csv knows no number of it.

    >>> len(rows_of("ConMH, README")), rows_of("CHAIN, all")
    (54, [])
    """
    method, _, part = table.partition(", ")
    if part == "all" and method in ALL:
        return published(method=method)
    if table not in TABLES:
        names = [*TABLES, *(f"{name}, all" for name in ALL)]
        raise ValueError(f"no table {table!r}; there are {', '.join(map(repr, names))}")
    return [row for row in published() if row.source.startswith(TABLES[table])]


def about(table: str) -> str:
    """Say in a line how many numbers of a table are known, and from where.

    >>> about("ConMH, README")
    'ConMH, README, published numbers: 54, from ConMH repository'
    """
    rows = rows_of(table)
    if not rows:  # CHAIN's poster shows none that could be read off, and no code was released
        return f"{table}: no published number is known, nothing can be compared"
    sources = sorted({re.sub(r"[,;] .*| \(.*", "", row.source) for row in rows})
    return f"{table}, published numbers: {len(rows)}, from {', '.join(sources)}"


def stand_in(dataset: VideoDataset, name: str, folder: PathLike) -> None:
    """Write any data set as the released files of `name` into `folder`/`name`, for a rehearsal.

    Where the published set has one file for two roles, the database takes both.

    >>> from vidhash_lab import open_dataset
    >>> stand_in(open_dataset("digit-stories-mini"), "hmdb51", "released")
    >>> sorted(path.name for path in Path("released/hmdb51").glob("*.h5"))
    ['hmdb_test_feats.h5', 'hmdb_train_feats.h5']
    """
    known, sets = PUBLISHED_SETS[name], {"name": dataset.name, "database": dataset.database}
    sets["train"] = dataset.database if known.train is known.database else dataset.train
    sets["query"] = dataset.database if known.query is known.database else dataset.query
    export(VideoDataset(**sets), Path(folder) / name, name)


def reproduce(rows: Sequence[Published], setting: Setting) -> list[Measured]:
    """Measure every row, in their order; rows of one model are measured with it, once.

    >>> row = rows_of("ConMH, README")[0]
    >>> (measured,) = reproduce([row], Setting("no such folder"))
    >>> measured.ours, measured.remark[:40]
    (None, 'not measured: no such folder: no such fo')
    """
    groups = {}
    for row in rows:
        groups.setdefault(_model_of(row), []).append(row)
    found = {}
    for each in groups.values():
        try:
            measured = _cost(each) if each[0].metric in COSTS else _retrieval(each, setting)
        except (DataError, FileNotFoundError, ValueError) as error:
            measured = [Measured(row, remark=f"not measured: {error}") for row in each]
        found |= {id(one.row): one for one in measured}
    return [found[id(row)] for row in rows]


def _model_of(row):
    first = re.search(r"first ([\d,]+) test videos", row.source)  # S5VH's logs have both
    queries = int(first[1].replace(",", "")) if first else None
    return row.method, row.variant, row.dataset, row.bits, queries


def _retrieval(rows, setting):
    """Measure the mAP of one model at all its K, as the released code does."""
    method, variant, title, bits, queries = _model_of(rows[0])
    if method.lower() not in METHODS:
        raise ValueError(f"{method} is no method of this kit")
    data = _opened(DATASETS[title], setting.root)
    cutoffs = {row: int(row.metric.removeprefix("mAP@")) for row in rows}
    most = len(data.database) - data.self_query
    within = sorted({k for k in cutoffs.values() if k <= most})
    if not within:
        raise ValueError(f"a query can find {most} videos, fewer than any K of the table")
    model, trained = _trained(method, variant, bits, data, setting)
    found = encode(model, data.database)
    asked = found if data.self_query else encode(model, data.query)
    sets = asked[:queries], found, data.query.labels[:queries], data.database.labels
    as_published = evaluate(*sets, k=within, ties="stable")
    bounds = [as_published.with_ties(ties).map_at for ties in ("worst", "best")]
    smaller = evaluate(*sets, k=within, ties="stable", denominator="min").map_at
    alone = _without_itself(sets, within, queries) if data.self_query else {}
    other = is_other_data(data)
    measured = []
    for row, k in cutoffs.items():
        if k not in within:
            measured.append(Measured(row, remark=f"not measured: a query can find {most} videos"))
            continue
        ties = bounds[0][k], bounds[1][k]
        remark = f"{trained}; {OTHER_DATA if other else _against_ties(row.value, ties)}"
        ours = as_published.map_at[k]
        measured.append(Measured(row, ours, ties, alone.get(k), smaller[k], remark))
    return measured


def _without_itself(sets, cutoffs, queries):
    """The same mAP when no video finds itself; of the first queries only, no such number."""
    if queries is not None and queries < len(sets[1]):
        return {}
    return evaluate(*sets, k=cutoffs, ties="stable", exclude_self=True).map_at


def _opened(name, root):
    """Open a published set from `root`/`name` or `root`."""
    inside = Path(root or "") / name
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*not the published")  # each row's remark says it
        return open_dataset(name, inside if root is not None and inside.is_dir() else root)


def is_other_data(data: VideoDataset) -> bool:
    """Whether the files that were opened differ from the published set in a count.

    >>> stand_in(open_dataset("digit-stories-mini"), "hmdb51", "released")
    >>> with warnings.catch_warnings(action="ignore"):
    ...     data = open_dataset("hmdb51", "released/hmdb51")
    ...
    >>> is_other_data(data)
    True
    """
    known = PUBLISHED_SETS[data.name]
    parts = known.parts.items()
    return any(differences(known, part, getattr(data, roles[0])) for part, roles in parts)


def _against_ties(value, ties):
    inside = ties[0] <= value + ROUNDED and value - ROUNDED <= ties[1]
    return f"the published number lies {'within' if inside else 'outside'} what ties could make"


def _trained(method, variant, bits, data, setting):
    """Read released weights, or else train by the published recipe -> model, how it was made."""
    name, ending = method.lower(), f" {variant}" if variant else ""
    file = Path(method) / f"{SHORT.get(data.name, data.name)}_{bits}{ending}.pth"
    released = Path(setting.weights or "") / file
    if setting.weights is not None and released.is_file():
        builder = METHODS[name].from_released
        takes = {"num_frames": data.num_frames}.items()
        assumed = {
            key: value for key, value in takes if key in inspect.signature(builder).parameters
        }
        unknown = ", alpha assumed" if name == "mcmsh" else ""
        return load_released(name, released, **assumed), f"released weights {file}{unknown}"
    sizes, recipe = published_recipe(name, data.name)
    logged = (name, data.name) == ("s5vh", "fcvid")  # its numbers are not of its code's recipe
    sizes |= VARIANTS[variant] | (S5VH_LOGGED if logged else {}) | setting.changes.get(method, {})
    planned = recipe["epochs"]
    recipe["epochs"] = min(planned, setting.epochs or planned)
    checkpoint = Path(setting.kept) / file.with_suffix(".pt") if setting.kept else None
    if checkpoint:
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
    model = METHODS[name].for_dataset(data, bits=bits, seed=setting.seed, **sizes)
    fit(model, data.train, **recipe, seed=setting.seed, precision="32-true", checkpoint=checkpoint)
    changed = ", other sizes" if setting.changes.get(method) else ""
    changed += ", recipe of its logs" if logged else ""
    return model, f"trained {recipe['epochs']} of {planned} epochs{changed}, seed {setting.seed}"


def _cost(rows):
    """Measure parameters, multiply-adds and milliseconds of a video at FCVID's sizes, 64 bits."""
    name, known = rows[0].method.lower(), PUBLISHED_SETS["fcvid"]
    sizes = {"bits": 64, "num_frames": known.num_frames, "feature_dim": known.feature_dim}
    model = METHODS[name](METHODS[name].Config(**sizes)).eval()
    video = torch.zeros(1, known.num_frames, known.feature_dim)
    with torch.inference_mode():
        milliseconds = median_milliseconds(model.encode, video)
        with FlopCounterMode(display=False) as counter:
            model.to("meta").encode(video.to("meta"))
    ours = {
        "params_M": sum(p.numel() for p in model.parameters()) / 1e6,
        "flops_G": counter.get_total_flops() / 2e9,  # a multiply-add is one, as on the poster
        "encode_ms": milliseconds,
    }
    assumed = "its data set and bits are not stated: at FCVID's sizes, 64 bits"
    return [
        Measured(row, ours[row.metric], remark=assumed + _what_else(row.metric)) for row in rows
    ]


def _what_else(metric):
    return "; this processor, a batch of one; theirs is not stated" if metric == "encode_ms" else ""


def as_table(measured: Sequence[Measured]) -> "pd.DataFrame":
    """Lay measured rows out as a DataFrame, a row a published number, none left out.

    >>> as_table([Measured(rows_of("ConMH, README")[0], ours=0.36)])["difference"].round(3).tolist()
    [0.01]
    """
    import pandas as pd

    columns = ("method", "variant", "dataset", "bits", "metric")
    return pd.DataFrame(
        {name: getattr(one.row, name) for name in columns}
        | {"published": one.row.value, "ours": one.ours, "difference": one.difference}
        | {"ties could make": "{:.3f} to {:.3f}".format(*one.ties) if one.ties else ""}
        | {"without itself": one.alone, "AP / min(K, R)": one.smaller_divisor}
        | {"remark": one.remark}
        for one in measured
    )
