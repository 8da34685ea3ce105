"""`broker filters explain`: why a filter passed an alert, or did not, clause by clause."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.archive import FolderOption, with_folder
from broker.cli.options import JsonOption, KafkaOption, kafka_connected, settings_from
from broker.cli.refusal import refused

if TYPE_CHECKING:
    from rich.tree import Tree

    from broker.clauses import Clause
    from broker.filter_explained import FilterExplained

_STYLE = {"true": "green", "false": "red", "null": "yellow"}


def explain(
    name: Annotated[str, typer.Argument(help="NAME, OWNER.NAME, or either with @VERSION.")],
    alert: Annotated[int, typer.Option(help="diaSourceId (ZTF candid) of an alert.")],
    owner: Annotated[str | None, typer.Option(help="Whose filter; 'local' unless NAME says.")] = None,
    survey: Annotated[str, typer.Option(help="Look at this survey alone.")] = "",
    now: Annotated[bool, typer.Option("--now", help="Names stand for what they stand for now.")] = False,
    folder: FolderOption = None,
    as_json: JsonOption = False,
    kafka: KafkaOption = None,
) -> None:
    """Show each clause of a filter on an alert: its values, whether it holds, and why.

    The row is the archive's, exactly what was judged; where it has none, the published alert's.
    """
    from broker.filter_explained import explain_alert  # noqa: PLC0415

    settings = settings_from(kafka)
    settings = kafka_connected(with_folder(settings, folder) if folder is not None else settings)
    with refused():
        found = explain_alert(settings, name, alert, owner=owner, survey=survey, now=now)
    if as_json:
        print(json.dumps(found.to_json()))
    else:
        _print(found)


def _print(found: FilterExplained) -> None:
    from rich.console import Console  # noqa: PLC0415

    about = found.about
    print(f"{about['objectName'] or ''} alert {about['diaSourceId']}, {about['survey']}, night {found.night}")
    then = f"passed {', '.join(found.passed_then)}" if found.passed_then else "passed no version of it"
    verdict = "passes" if found.passes else "does not pass"
    print(f"when it was judged it {then}; {found.filter.label} {verdict} it")
    print(f"({found.row})")
    Console(highlight=False).print(_tree(found.clause))


def _tree(clause: Clause) -> Tree:
    from rich.text import Text  # noqa: PLC0415
    from rich.tree import Tree  # noqa: PLC0415

    label = Text(f"{clause.outcome.upper():5} ", style=_STYLE[clause.outcome])
    label.append(clause.text, style="default")
    if clause.why:
        label.append(f"   {clause.why}", style="dim")
    branch = Tree(label)
    for part in clause.parts:
        branch.add(_tree(part))
    return branch
