"""`broker ledger`: the account."""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.options import KafkaOption, RedisOption, settings_from

if TYPE_CHECKING:
    from broker.ledger import Balance

_ROWS = 20
"""Filters whose hits are shown, those with the most first."""


def ledger(
    verify: Annotated[
        bool, typer.Option(help="Also hold the output topics against it (while their retention lasts).")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    kafka: KafkaOption = None,
    redis: RedisOption = None,
) -> None:
    """Alerts in = published + rejected (by reason) + duplicates; exit 1 if they differ.

    Also checks that the offsets of all transactions cover each input partition without hole or overlap, and
    that hits of the ledger, records of filters' topics and alerts that passed are the same, alert by alert.
    """
    from broker.assemble import connected  # noqa: PLC0415
    from broker.cli.progress import Meter  # noqa: PLC0415
    from broker.ledger import balance  # noqa: PLC0415

    settings = connected(settings_from(kafka, redis))
    with Meter("output records counted", 0) as meter:
        result = balance(settings, verify=verify, tick=lambda: meter.advance(1, 1))
    if as_json:
        print(json.dumps(as_dict(result)))
    else:
        _print(result)
    sys.exit(0 if result.balanced else 1)


def as_dict(result: Balance) -> dict[str, object]:
    """The balance as JSON."""
    rejected: Counter[str] = Counter()
    for (_, outcome, reason), count in result.counts.items():
        if outcome == "rejected":
            rejected[reason] += count
    return {
        "in": result.total("in"),
        "published": result.total("published"),
        "rejected": result.total("rejected"),
        "rejectedBy": dict(sorted(rejected.items())),
        "duplicates": result.total("duplicate"),
        "expired": result.expired,
        "waiting": result.waiting,
        "transactions": result.transactions,
        "found": result.found,
        "filters": _filters(result),
        "hitsNotRecorded": result.unrecorded,
        "notes": list(result.compared.notes) if result.compared else [],
        "balanced": result.balanced,
        "problems": list(result.problems),
    }


def _filters(result: Balance) -> dict[str, dict[str, dict[str, int]]]:
    """By owner.name@version what the ledger counts and, if they were read, what the topics hold, by kind."""
    if result.compared is not None:
        return {
            label: {"ledger": dict(one.ledger), "topic": dict(one.topic), "alerts": dict(one.alerts)}
            for label, one in result.compared.filters.items()
        }
    filters: dict[str, dict[str, dict[str, int]]] = {}
    for (label, kind), count in sorted(result.hits.items()):
        filters.setdefault(label, {"ledger": {}})["ledger"][kind] = count
    return filters


def _print_filters(result: Balance) -> None:
    """Hits of each version of a filter; the first of many."""
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    filters = _filters(result)
    if not filters:
        return
    accounts = ("ledger", "topic", "alerts")
    table = Table("filter", "in the ledger", "in its topic", "in alerts.*", title="hits")
    largest = sorted(filters.items(), key=lambda item: -sum(item[1]["ledger"].values()))
    for label, one in largest[:_ROWS]:
        table.add_row(label, *(f"{sum(one[name].values()):,}" if name in one else "" for name in accounts))
    Console().print(table)
    if len(filters) > _ROWS:
        print(f"and {len(filters) - _ROWS:,} more filters; --json names all")


def _print(result: Balance) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table("survey", "outcome", "reason", "alerts", title="ledger")
    table.columns[3].justify = "right"
    for (survey, outcome, reason), count in sorted(result.counts.items()):
        table.add_row(survey, outcome, reason, f"{count:,}")
    console = Console()
    console.print(table)
    found, total = result.found, result.total
    print(
        f"{total('in'):,} in = {total('published'):,} published + {total('rejected'):,} rejected "
        f"+ {total('duplicate'):,} duplicates; {result.transactions:,} transactions"
    )
    print(f"{result.waiting:,} input records waiting, {result.expired:,} expired before they were read")
    if found is not None:
        print("found in the topics: " + ", ".join(f"{count:,} {what}" for what, count in found.items()))
    _print_filters(result)
    for note in result.compared.notes if result.compared else ():
        print(f"NOTE {note}")
    for problem in result.problems:
        print(f"PROBLEM {problem}")
    print("balanced" if result.balanced else "NOT balanced")
