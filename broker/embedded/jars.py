"""Apache Kafka's Java archives: fetched once from Maven Central by jgo, then used without a network."""

from __future__ import annotations

import os
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from broker.embedded.folders import cache_dir, locked, private_folder
from broker.errors import EmbeddedServerError

KAFKA_VERSION = "4.3.1"
COORDINATES = (
    f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}",
    # Named because jgo would otherwise settle on an older client library and the server would not start.
    f"org.apache.kafka:kafka-clients:{KAFKA_VERSION}",
    "org.apache.logging.log4j:log4j-slf4j-impl:2.25.5",
)
_SIZE_BYTES = 46_121_225  # only the progress bar's idea of the end
_OTHER_FETCH_S = 900.0

# jgo reports each file by (name, size) and wants a context that takes the numbers of bytes as they come.
_Report = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


def kafka_jars(cache: Path | None = None, *, quiet: bool = False) -> tuple[Path, ...]:
    """Paths of the jars of Kafka's class path, sorted; fetched first where they are missing.

    cache : the cache folder; this user's when None
    Raises EmbeddedServerError, saying what to do, when they cannot be fetched.
    """
    cache = private_folder(cache or cache_dir())
    folder = cache / f"kafka-{KAFKA_VERSION}"
    if not folder.is_dir():
        with locked(cache / f"kafka-{KAFKA_VERSION}.lock", "fetching Apache Kafka", _OTHER_FETCH_S):
            if not folder.is_dir():
                _fetch(folder, quiet)
    return tuple(sorted(folder.glob("*.jar")))


def _fetch(folder: Path, quiet: bool) -> None:
    """Make `folder` with all jars in it, or not at all: it appears under its name only when complete."""
    staging = folder.with_name(f"{folder.name}.partial")
    try:
        with _progress(quiet) as report:
            jars = _download(staging, report)
        broken = [jar.name for jar in jars if not _is_sound(jar)]
        if broken:
            raise zipfile.BadZipFile(f"damaged on the way: {', '.join(broken)}")
    except Exception as error:  # whatever the network, a proxy or jgo makes of it, the advice is the same
        raise EmbeddedServerError(_advice(error)) from error
    complete = folder.with_name(f"{folder.name}.complete")
    shutil.rmtree(complete, ignore_errors=True)
    complete.mkdir()
    for jar in jars:
        shutil.move(jar, complete / jar.name)
    complete.rename(folder)
    shutil.rmtree(staging)


def _advice(error: Exception) -> str:
    reason = str(error) or type(error).__name__
    return (
        f"cannot fetch Apache Kafka {KAFKA_VERSION} from Maven Central: {reason}. Check the network and try "
        "again (what has arrived is kept); name a mirror under [repositories] in ~/.config/jgo.conf; "
        "or set kafka.bootstrap_servers to a Kafka you already have"
    )


def _download(staging: Path, report: _Report) -> list[Path]:
    """Resolve the coordinates and fetch every jar into `staging`, a repository that survives a failure."""
    from jgo.config import GlobalSettings  # noqa: PLC0415  slow to import, and needed once in a machine's life
    from jgo.constants import MAVEN_CENTRAL_URL  # noqa: PLC0415
    from jgo.maven import MavenContext, PythonResolver  # noqa: PLC0415
    from jgo.parse import Coordinate  # noqa: PLC0415

    _discard_broken(staging)
    context = MavenContext(
        resolver=PythonResolver(progress_callback=report),
        repo_cache=staging,
        local_repos=[],
        # The user's own mirrors first: where Maven Central is out of reach, asking it first would fail.
        remote_repos={**GlobalSettings.load().repositories, "central": MAVEN_CENTRAL_URL},
        timeout=30,
    )
    wanted = [
        context.create_dependency(replace(Coordinate.parse(text), scope="compile")) for text in COORDINATES
    ]
    named, others = context.resolver.resolve(wanted)
    needed = [*named, *(other for other in others if other.scope in ("compile", "runtime"))]
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(_resolve, needed))


def _resolve(dependency: Any) -> Path:
    return Path(dependency.artifact.resolve())


def _discard_broken(staging: Path) -> None:
    """Delete what an interrupted fetch left half written: jgo would take it for whole."""
    for path in staging.rglob("*"):
        if path.is_file() and not _is_sound(path):
            path.unlink()


def _is_sound(path: Path) -> bool:
    """Whether a jar's contents match its checksums, or a project description parses."""
    try:
        if path.suffix != ".jar":
            ElementTree.parse(path)
            return True
        with zipfile.ZipFile(path) as jar:
            return jar.testzip() is None
    except (OSError, zipfile.BadZipFile, ElementTree.ParseError):
        return False


@contextmanager
def _progress(quiet: bool) -> Iterator[_Report]:
    """A progress bar on standard error if a person is watching, else one plain line; nothing when quiet."""
    title = f"Fetching Apache Kafka {KAFKA_VERSION} (45 MB, once)"
    bar = Progress(
        TextColumn(title),
        BarColumn(),
        DownloadColumn(),
        console=Console(stderr=True),
        disable=quiet or not sys.stderr.isatty(),
    )
    if not quiet and bar.disable:
        print(f"{title} ...", file=sys.stderr, flush=True)
    with bar:
        task = bar.add_task("jars", total=_SIZE_BYTES)

        @contextmanager
        def report(name: str, size: int) -> Iterator[Callable[[int], None]]:
            yield lambda count: bar.advance(task, count)

        yield report


def class_path(jars: tuple[Path, ...]) -> str:
    """The jars as Java's CLASSPATH."""
    return os.pathsep.join(str(jar) for jar in jars)
