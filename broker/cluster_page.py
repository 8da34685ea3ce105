"""A night's anomalies as a page for a browser: the map, the groups, every object."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from broker.astro.times import mjd_tai_to_iso
from broker.clusters import Clustered, Group
from broker.embedding_map import draw_map, flatten
from broker.similar import State

PAGE, MAP, DATA = "index.html", "map.png", "anomalies.json"
_STYLE = """body{font-family:sans-serif;max-width:70em;margin:2em auto;padding:0 1em}
table{border-collapse:collapse}td,th{padding:.2em .8em;text-align:left;border-bottom:1px solid #ddd}
img{max-width:100%}"""


def write_page(folder: Path, found: Clustered) -> Path:
    """Write the page, its data and, where matplotlib is installed, the map; returns the page."""
    folder.mkdir(parents=True, exist_ok=True)
    picture = "<p>No map: it needs matplotlib.</p>"
    if find_spec("matplotlib") is not None:
        labels = np.array(["" if own < 0 else f"group {own}" for own in found.group.tolist()], dtype=np.str_)
        points = flatten(found.places, labels)
        draw_map(folder / MAP, points, f"{len(found.chosen)} strangest objects by group")
        picture = f'<p><img src="{MAP}" alt="Map of the strangest objects"></p>'
    (folder / DATA).write_text(json.dumps(found.to_json(), indent=1) + "\n")
    page = folder / PAGE
    page.write_text(_html(found, picture))
    return page


def headline(found: Clustered) -> str:
    """What was looked at, in one line."""
    others = f", {found.others:,} of other models left out" if found.others else ""
    return (
        f"{len(found.chosen):,} strangest of {found.objects:,} objects of model {found.model}, seen "
        f"{mjd_tai_to_iso(found.since)} to {mjd_tai_to_iso(found.until)} UTC; {found.unknown:,} without an "
        f"embedding{others}"
    )


def traits_of(group: Group) -> str:
    """The traits of a group in words."""
    return ", ".join(f"{trait.name} {trait.value:.3g} (usually {trait.usual:.3g})" for trait in group.traits)


def _html(found: Clustered, picture: str) -> str:
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>Anomalies</title>",
        f"<style>{_STYLE}</style><h1>Anomalies</h1><p>{escape(headline(found))}</p>",
        picture,
        "<h2>Groups</h2>",
        _table(
            ("group", "objects", "what sets it apart", "examples"),
            (
                (str(number), str(group.size), traits_of(group), _names(group.examples))
                for number, group in enumerate(found.groups)
            ),
        ),
        f"<h2>In no group</h2><p>{escape(_names(found.outliers))}</p><h2>All</h2>",
        _table(
            ("object", "key", "group", "class", "anomaly", "reconstruction error", "ra", "dec"),
            (_cells(state, own) for state, own in zip(found.chosen, found.group.tolist(), strict=True)),
        ),
    ]
    return "\n".join(parts) + "\n"


def _cells(state: State, group: int) -> tuple[str, ...]:
    likely = f"{state.leaf} {state.probability:.2f}" if state.leaf else "-"
    return (
        state.name, state.key, "-" if group < 0 else str(group), likely, f"{state.anomaly:.2f}",
        f"{state.error:.3f}", f"{state.ra:.5f}", f"{state.dec:.5f}",
    )  # fmt: skip


def _names(states: Sequence[State]) -> str:
    return ", ".join(state.name for state in states) or "none"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return "<table>" + "\n".join([line(header, "th"), *(line(row, "td") for row in rows)]) + "</table>"
