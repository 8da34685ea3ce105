"""Catalogues of three surveys, and filters on each, in a worker that runs."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fastavro
import httpx
import pytest
from harness import Shell, decoded, send, wait_until

from broker import catalog_store
from broker.api import serving
from broker.columns import filter_columns
from broker.config import Settings, load
from broker.control import catalog_record
from broker.control.topic import ControlWriter
from broker.embedded import Addresses, owned
from broker.errors import CatalogError
from broker.features.catalog import FEATURE_SPECS
from broker.filters import store
from broker.ledger import ledger_records
from broker.scores.catalog import SCORE_SPECS
from broker.simulate import simulate_ztf

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
COLUMNS = filter_columns(FEATURE_SPECS, SCORE_SPECS)
ARCSEC = 1 / 3600
PLACES = {
    "3C 273": (187.277915, 2.052388 + ARCSEC),
    "M87": (187.705931, 12.391123 - ARCSEC),
    "HZ 44": (200.895800, 36.133100),
    "PKS 1934-638": (294.854275, -63.712674 + 0.5 * ARCSEC),
    "nowhere": (15.0, -40.0),
}
"""Within a second of arc of a source, or of none."""
FILTERS = {
    "quasars": ("near('sdss', 2*arcsec).class = 'QSO'", {"3C 273"}),
    "galaxies": ("near('desi', 2*arcsec).SPECTYPE = 'GALAXY' and near('desi', 2*arcsec).ZWARN = 0", {"M87"}),
    "radio": (
        "near('racs', 3*arcsec).total_flux_source between 10000 and 100000",
        {"3C 273", "PKS 1934-638"},
    ),
    "unknown": ("near('ghost', 2*arcsec) is null and near('sdss', 2*arcsec)", {"3C 273", "M87", "HZ 44"}),
    "strangers": ("not near('sdss', 2*arcsec) and not near('racs', 2*arcsec)", {"nowhere"}),
}


def packets() -> dict[str, bytes]:
    """A made-up alert at each place."""
    found = {}
    for (name, (ra, dec)), alert in zip(PLACES.items(), simulate_ztf(len(PLACES), seed=3), strict=True):
        reader = fastavro.reader(io.BytesIO(alert.value))
        (record,) = reader
        record["candidate"] |= {"ra": ra, "dec": dec}
        record["objectId"] = "ZTF26aaaaaa" + "abcdefgh"[len(found)]
        out = io.BytesIO()
        fastavro.writer(out, reader.writer_schema, [record])
        found[name] = out.getvalue()
    return found


class Stage:
    """The servers, the command line, and alerts that can be sent once more as others."""

    def __init__(self, addresses: Addresses, folder: Path) -> None:
        flags: dict[str, Any] = {"kafka.bootstrap_servers": addresses.bootstrap_servers,
                                 "redis.url": addresses.redis_url, "api.port": "0",
                                 "context.folder": str(folder / "context")}  # fmt: skip
        self.settings: Settings = load(flags, env={})
        self.shell = Shell(addresses, folder, {"BROKER_CONTEXT_FOLDER": str(folder / "context")})

    def hits(self, name: str) -> set[str]:
        """The places of the alerts in a filter's topic."""
        found = decoded(self.settings.kafka.bootstrap_servers, f"filters.local.{name}")
        places = list(PLACES)
        return {places["abcdefgh".index(hit["objectName"][-1])] for hit in found}

    def done(self) -> int:
        """Input offsets that the ledger accounts for."""
        parts = [part for record in ledger_records(self.settings.kafka) for part in record["partitions"]]
        return sum(part["after"] - part["before"] for part in parts)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with owned(quiet=True) as servers:
        yield Stage(servers.addresses, tmp_path_factory.mktemp("catalogs"))


def test_filters_match_alerts_with_the_example_catalogues(stage: Stage) -> None:
    added = json.loads(stage.shell("catalogs", "add", "sdss", str(EXAMPLES / "sdss.csv"), "--json"))
    assert (added["written"], added["catalog"]["revision"], added["catalog"]["rows"]) == (True, 1, 20)
    for name, file in (("desi", "desi.fits"), ("racs", "racs.parquet")):
        catalog_store.add(stage.settings, catalog_store.New(name, [EXAMPLES / file]))
    ghost = replace(catalog_store.read(stage.settings).live_catalogs()["sdss"], name="ghost", sha256="0" * 64)
    ControlWriter(stage.settings.kafka).write(*catalog_record(ghost))
    for name, (where, _) in FILTERS.items():
        store.add(stage.settings, name, where, columns=COLUMNS)
    with stage.shell.running("run", "--workers", "1"):
        log = stage.shell.folder / "run.log"
        wait_until(lambda: "metrics: " in log.read_text(), "the run begins")
        alerts = packets()
        send(stage.settings.kafka.bootstrap_servers, "ztf_replay", list(alerts.values()))
        wait_until(lambda: stage.done() == len(alerts), "all is processed")
        assert {name: stage.hits(name) for name in FILTERS} == {
            name: hits for name, (_, hits) in FILTERS.items()
        }

        changed = catalog_store.add(stage.settings, catalog_store.New("racs", [EXAMPLES / "sdss.csv"]))
        assert (changed.catalog.revision, changed.reached, changed.live) == (2, 1, 1)
        wait_until(lambda: "filter local.radio is not evaluated" in log.read_text(), "the filter is refused")
        shutil.rmtree(stage.settings.context.folder)
        gone = catalog_store.add(stage.settings, catalog_store.New("other", [EXAMPLES / "sdss.csv"]))
        assert (gone.reached, gone.live) == (1, 1), "maps of files that were deleted go on"
    notices = decoded(stage.settings.kafka.bootstrap_servers, "notices")
    (refused,) = [item for item in notices if item["kind"] == "catalog_refused"]
    assert refused["subject"] == "ghost/1"
    assert "is not on this machine" in refused["text"]


def test_the_same_again_is_no_new_revision_and_what_is_used_is_not_removed(stage: Stage) -> None:
    new = catalog_store.New("desi", [EXAMPLES / "desi.fits"])
    again = catalog_store.add(stage.settings, new)
    assert (again.written, again.catalog.revision) == (False, 1)
    assert catalog_store.problem(stage.settings, again.catalog) == "", "its files are there again"
    with pytest.raises(CatalogError, match=r"used by local.galaxies; change or remove these filters first"):
        catalog_store.remove(stage.settings, "desi")
    store.remove(stage.settings, "galaxies")
    assert catalog_store.remove(stage.settings, "desi").catalog.state == "removed"
    listed = catalog_store.listed(catalog_store.read(stage.settings))
    assert [item.name for item in listed] == ["ghost", "other", "racs", "sdss"]
    folder = Path(stage.settings.context.folder) / "catalogs" / "desi"
    assert folder.exists(), "who looks back finds it"
    stage.shell("catalogs", "remove", "desi", "--purge")
    assert not folder.exists()
    with pytest.raises(CatalogError, match="no catalogue is named 'nothing'"):
        catalog_store.remove(stage.settings, "nothing")


def test_the_api_lists_them(stage: Stage) -> None:
    with serving(stage.settings) as address:
        url = f"{address}/api/v1/catalogs"
        wait_until(lambda: httpx.get(url).status_code == 200, "the API has read the control topic")
        found = httpx.get(url).json()
        assert {item["name"]: item["rows"] for item in found}["sdss"] == 20
        columns = {item["name"]: item for item in found}["sdss"]["columns"]
        assert "class" in {column["name"] for column in columns}
        wrong = httpx.post(
            f"{address}/api/v1/filters", json={"name": "x", "where": "near('sdss', 1*arcsec).clas = 'QSO'"}
        )
        assert wrong.status_code == 422
        assert "did you mean 'class'?" in wrong.text
