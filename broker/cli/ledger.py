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


def ledger(
    verify: Annotated[
        bool, typer.Option(help="Also count the records in the output topics (while their retention lasts).")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    kafka: KafkaOption = None,
    redis: RedisOption = None,
) -> None:
    """Alerts in = published + rejected (by reason) + duplicates; exit 1 if they differ.

    Also checks that the offsets of all transactions cover each input partition without hole or overlap.
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
        "balanced": result.balanced,
        "problems": list(result.problems),
    }


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
    for problem in result.problems:
        print(f"PROBLEM {problem}")
    print("balanced" if result.balanced else "NOT balanced")
