"""The command line: one file a verb, each imported only when it is asked for, so that --help is quick."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
import typer.main
from typer.core import TyperGroup

from broker.errors import BrokerError
from broker.kernel_cache import ensure_place
from broker.text import fault_of_text

VERBS: list[tuple[str, str]] = [
    ("demo", "Everything on this machine: servers, alerts, pipeline, a live view"),
    ("services", "Embedded Kafka and Valkey as background servers"),
    ("run", "The pipeline"),
    ("serve", "HTTP API, metrics and schema registry"),
    ("replay", "Alert files, folders and nightly tarballs into an input topic"),
    ("simulate", "A labelled synthetic sky"),
    ("listen", "What a topic carries, decoded"),
    ("filters", "Add, list, show and remove filters"),
    ("annotate", "Say something of an object; its filters judge it again"),
    ("feedback", "Mark alerts; your own anomalies follow"),
    ("ledger", "Alerts in = published + rejected + duplicates"),
    ("history", "Rebuild the light curves and claims in Redis"),
    ("train", "Train a model bundle from labelled light curves"),
    ("evaluate", "What a bundle says of a folder of light curves, and how good that is"),
    ("explain", "Why a published alert got its probabilities"),
    ("similar", "Objects whose light curves are like an object's"),
    ("anomalies", "A night's strangest objects, in groups of alike ones"),
    ("models", "List, promote and roll back the models that score"),
    ("drift", "How far the stream has moved from before and from the training sample"),
    ("bench", "Measure this machine"),
    ("catalogs", "Catalogues, watchlists and regions that filters match alerts with"),
    ("archive", "Every published row as it was judged, in Parquet files"),
    ("config", "Effective settings, and where each came from"),
]
"""Verb and what it does, in the order of --help; the verb is the name of its file in this folder."""


class _Verbs(TyperGroup):
    """Loads a verb's file when the verb is used."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The verbs, in their order."""
        return [name for name, _ in VERBS]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of one verb, or None."""
        helps = dict(VERBS)
        if cmd_name not in helps:
            return None
        module = importlib.import_module(f"broker.cli.{cmd_name}")
        return _command(getattr(module, cmd_name), cmd_name, helps[cmd_name])


def _command(target: Any, name: str, summary: str) -> Any:
    """The command of a verb: a typer.Typer of several, or one plain function."""
    if isinstance(target, typer.Typer):
        command = typer.main.get_command(target)
    else:
        single = typer.Typer(add_completion=False)
        single.command(name)(target)
        command = typer.main.get_command(single)
    command.name, command.short_help = name, summary
    return command


app = typer.Typer(cls=_Verbs, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def _broker(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more of what happens.")] = False,
) -> None:
    """A real-time broker for transient alert streams."""
    level = logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)


def fault_of_arguments(arguments: Sequence[str]) -> str:
    """What is wrong with the text of a command line; '' if nothing is.

    A file may have any name that the system lets it have.
    """
    for number, argument in enumerate(arguments, start=1):
        fault = fault_of_text(argument)
        if fault and not os.path.lexists(argument):
            return f"argument {number}, {argument[:60]!a}, has {fault}; does the terminal write UTF-8?"
    return ""


def main() -> None:
    """Entry of the `broker` command: 0 done, 1 failed (and why, on stderr), 2 wrong usage."""
    if fault := fault_of_arguments(sys.argv[1:]):
        print(f"error: {fault}", file=sys.stderr)
        sys.exit(2)
    ensure_place()
    try:
        app()
    except BrokerError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
