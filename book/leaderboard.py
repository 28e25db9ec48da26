"""The published numbers as a table: a row a method, variant, data set, length and source.

mAP at six depths stands in one row, so that a row is what a paper's table has as one. A reader
sorts by any column and narrows by method, data set and bits (static/leaderboard.js); without a
script the table is the whole list, in the order of published.csv.
"""

import re
from html import escape

from vidhash_lab.data.released.sets import PUBLISHED_SETS
from vidhash_lab.literature import published

DEPTHS = (5, 20, 40, 60, 80, 100)
KEYS = ("method", "variant", "dataset", "bits")
TITLES = {"method": "method", "variant": "variant", "dataset": "data set", "bits": "bits"}


def protocol(dataset: str, source: str) -> str:
    """Say which videos query which: in the source's words, else what the released code does."""
    known = PUBLISHED_SETS.get(dataset.lower())
    if known is None:
        return "not stated"
    queries, database = known.query, known.database
    if stated := re.search(r"; (.*quer.*)\)$", source):
        return f"stated: {stated[1]}; {database.videos:,} videos searched"
    if queries == database:
        return f"of released code: {queries.videos:,} test videos query each other and themselves"
    return f"of released code: {queries.videos:,} queries in {database.videos:,} videos"


def rows() -> list[dict]:
    """Gather the published mAP values, one dict a row of the table, in the order of the file."""
    found = {}
    for number in published():
        name, _, depth = number.metric.partition("@")
        if name == "mAP" and depth.isdecimal() and int(depth) in DEPTHS:
            key = (*(getattr(number, each) for each in KEYS), number.source)
            found.setdefault(key, {})[int(depth)] = number.value
    return [
        dict(zip((*KEYS, "source"), key))
        | {"protocol": protocol(key[2], key[-1]), "values": values}
        for key, values in found.items()
    ]


def others() -> list:
    """List the published numbers that are no mAP at one of the depths."""
    depths = {f"mAP@{depth}" for depth in DEPTHS}
    return [number for number in published() if number.metric not in depths]


def table() -> str:
    """Write the table as HTML."""
    titles = [*TITLES.values(), *(f"mAP@{depth}" for depth in DEPTHS), "protocol", "source"]
    head = "".join(f'<th scope="col">{escape(title)}</th>' for title in titles)
    body = "\n".join(f"<tr>{''.join(_cells(row))}</tr>" for row in rows())
    caption = "Published mAP, as the sources state it"
    return (
        '<div class="leaderboard" tabindex="0" role="region" aria-label="Table of published '
        f'numbers"><table id="leaderboard"><caption>{caption}</caption><thead><tr>{head}</tr>'
        f"</thead><tbody>\n{body}\n</tbody></table></div>\n{_others_table()}"
    )


def _cells(row):
    for key in KEYS:
        yield f"<td>{escape(str(row[key] or '–'))}</td>"
    for depth in DEPTHS:
        value = row["values"].get(depth)
        yield "<td></td>" if value is None else f"<td>{value:.3f}</td>"
    yield f"<td>{escape(row['protocol'])}</td><td>{escape(row['source'])}</td>"


def _others_table():
    lines = [
        f"<tr><td>{escape(n.method)}</td><td>{escape(n.variant)}</td>"
        f"<td>{escape(n.dataset or 'not stated')}</td><td>{n.bits or '–'}</td>"
        f"<td>{escape(n.metric)}</td><td>{n.value:g}</td><td>{escape(n.source)}</td></tr>"
        for n in others()
    ]
    names = ("method", "variant", "data set", "bits", "what", "value", "source")
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    return (
        '<div class="leaderboard" tabindex="0" role="region" aria-label="Other published numbers">'
        f"<table><caption>Other published numbers</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>\n"
    )
