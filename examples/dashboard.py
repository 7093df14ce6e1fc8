"""A dashboard of one layer: figures from a server, as tables and as JSON, and by SQL from a catalogue of the atlas.

unitscope serve atlas --corpus photographs &
unitscope catalog atlas --out catalog.duckdb
python examples/dashboard.py http://127.0.0.1:8000 catalog.duckdb _blocks.5 dashboard.html
"""

import argparse
import html
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote
from urllib.request import urlopen

import duckdb

import unitscope

BY_LABEL = """
SELECT i.label, count(*) AS images, max(r.activation) AS highest, avg(r.rank)::INTEGER AS mean_rank
FROM ranked AS r JOIN images AS i USING (image)
WHERE r.layer = ? AND r.unit = ?
GROUP BY i.label ORDER BY mean_rank
"""


def main(server: str, catalog: str, layer: str, out: str) -> None:
    """Write a page about a layer's units, and about what excites the one with the highest maximum."""
    client = unitscope.Client(server)
    units = client.units(layer, sort="-maximum").to_pylist()
    unit = units[0]["channel"]
    statuses = Counter(row["status"] for row in units)

    with urlopen(f"{server}/api/v1/atlases") as answer:  # what Client asks, in any language
        name = json.load(answer)["rows"][0]["name"]
    with urlopen(f"{server}/api/v1/atlases/{name}/layers/{quote(layer)}/units/{unit}/patches?k=5") as answer:
        patches = json.load(answer)["rows"]

    with duckdb.connect(catalog, read_only=True) as database:
        by_label = database.execute(BY_LABEL, [layer, unit]).fetchall()
        explained = database.execute("FROM explain(?, ?, 5)", [layer, patches[0]["image_id"]])
        heads = [column[0] for column in explained.description or ()]
        excited = explained.fetchall()

    page = [
        f"<h1>{html.escape(layer)}</h1>",
        table(["status", "units"], statuses.items()),
        f"<h2>Unit {unit}</h2>",
        table(["path", "activation", "percentile"], [[row[key] for key in _PATCH] for row in patches]),
        table(["label", "images", "highest", "mean rank"], by_label),
        f"<h2>What else {html.escape(patches[0]['path'])} excites</h2>",
        table(heads, excited),
    ]
    Path(out).write_text("\n".join(page))
    print(f"{len(units)} units of {layer}: {dict(statuses)}; the page is {out}")


_PATCH = ("path", "activation", "percentile")


def table(heads: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Return rows as an HTML table."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in heads)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(value))}</td>" for value in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


if __name__ == "__main__":
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("server", help="address of unitscope serve")
    words.add_argument("catalog", help="file that unitscope catalog wrote")
    words.add_argument("layer", help="a layer of the atlas")
    words.add_argument("out", help="page to write")
    main(**vars(words.parse_args()))
