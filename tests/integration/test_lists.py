"""Watchlists and regions come, change and go while alerts flow through a fleet of two workers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import astropy.units as u
import httpx
import numpy as np
import pytest
import redis
from astropy.coordinates import Latitude, Longitude
from harness import control_state, decoded, read_all, wait_until
from mocpy import MOC

from broker import control, list_store
from broker.api import serving
from broker.astro.sky import separation_deg
from broker.context.lists import named_at
from broker.context.stored import list_record
from broker.control import ControlState
from broker.control.topic import ControlWriter
from broker.embedded import owned
from broker.errors import FilterError
from broker.filters import store as filter_store
from broker.heartbeats import live_workers
from tests.integration.test_feedback import COLUMNS, FIRST, STEP, Stage

FILTERS = {
    "listed": "in_watchlist('targets', 1*arcsec)",
    "named": "watchlist_entry('targets', 1*arcsec) in ('n0', 'n3', 'n-none')",
    "inside": "in_region('half')",
    "outside": "not in_region('half')",
    "others": "mag < 99",
}


class Sky(Stage):
    """The stage, and where each alert of its sky is."""

    def hits_of(self, name: str, copy: int) -> set[int]:
        """Which alerts of a copy passed a filter, by their id in the sky."""
        ids = [int(hit["diaSourceId"]) for hit in decoded(self.bootstrap, f"filters.local.{name}")]
        return {id - copy * STEP for id in ids if id // STEP == FIRST + copy}

    def places(self) -> dict[int, tuple[float, float]]:
        """Position of each alert of the sky, as it was published, by its id there."""
        alerts = [item for item in decoded(self.bootstrap, "alerts.ztf") if item["kind"] == "alert"]
        first = [item for item in alerts if int(item["diaSourceId"]) // STEP == FIRST]
        return {int(item["diaSourceId"]): (item["ra"], item["dec"]) for item in first}

    def state_at(self, epoch: int) -> ControlState:
        """The control state as of an epoch."""
        state = ControlState()
        for record in read_all(self.bootstrap, "control"):
            if record.offset() <= epoch:
                state = control.apply(state, record.offset(), record.key(), record.value())
        return state

    @contextmanager
    def fleet(self) -> Iterator[None]:
        """Two workers that are ready."""
        with (
            self.shell.running("run", "--workers", "2"),
            redis.Redis.from_url(self.settings.redis.url) as client,
        ):
            wait_until(lambda: sum(it.ready for it in live_workers(client, "broker")) == 2, "two are ready")
            yield


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sky]:
    with owned(quiet=True) as servers:
        made = Sky(servers.addresses, tmp_path_factory.mktemp("lists"))
        made.sky = made.sky[:100]
        made.shell("filters", "list")  # makes the topics
        yield made


def csv_of(places: dict[int, tuple[float, float]], ids: list[int]) -> str:
    """A list of some alerts' positions, each half an arcsecond off, named n0, n1, ..."""
    rows = [f"n{k},{places[id][0]!r},{places[id][1] + 0.5 / 3600!r}" for k, id in enumerate(ids)]
    return "\n".join(["name,ra,dec", *rows])


def near(places: dict[int, tuple[float, float]], ids: list[int]) -> set[int]:
    """All alerts that are where some are: objects have more than one."""
    at = {(round(places[id][0], 3), round(places[id][1], 3)) for id in ids}
    return {id for id, (ra, dec) in places.items() if (round(ra, 3), round(dec, 3)) in at}


def half_of(places: dict[int, tuple[float, float]]) -> tuple[set[int], MOC]:
    """A region that holds about half of the places, and which of them are in it."""
    ra, dec = np.array(list(places.values())).T
    away = separation_deg(ra, dec, ra[0], dec[0])
    lon, lat = Longitude(ra, u.deg), Latitude(dec, u.deg)
    moc = MOC.from_cone(lon[0], lat[0], radius=float(np.median(away)) * u.deg, max_depth=7)
    there = moc.contains_lonlat(lon, lat)
    return {id for id, inside in zip(places, there, strict=True) if inside}, moc


def test_lists_and_regions_follow_what_is_stored(sky: Sky, tmp_path: Path) -> None:
    with sky.fleet():
        sky.feed(0)
        places = sky.places()
        assert len(places) == len(sky.sky)
        ids = sorted(places)
        inside, half = half_of(places)
        (tmp_path / "half.json").write_text(half.to_string("json"))
        assert 0 < len(inside) < len(places)
        with pytest.raises(FilterError, match="no watchlist is named 'targets' at 13"):
            filter_store.add(sky.settings, "early", FILTERS["listed"], columns=COLUMNS)

        (tmp_path / "one.csv").write_text(csv_of(places, ids[:5]))
        made = json.loads(
            sky.shell(
                "catalogs", "add", "targets", str(tmp_path / "one.csv"), "--kind", "watchlist", "--json"
            )
        )
        assert (made["reached"], made["live"], made["watchlist"]["rows"]) == (2, 2, 5)
        text = sky.shell("catalogs", "add", "half", str(tmp_path / "half.json"), "--description", "a half")
        assert "live on 2/2 workers" in text
        for name, where in FILTERS.items():
            filter_store.add(sky.settings, name, where, columns=COLUMNS)
        sky.feed(1)

        again = list_store.watchlist(csv_of(places, ids[5:10]))
        changed = list_store.add(sky.settings, "targets", again, by="test")
        assert (changed.item.revision, changed.reached, changed.live) == (2, 2, 2)
        assert not list_store.add(sky.settings, "targets", again, by="test").written
        with pytest.raises(list_store.NotTheOwner, match="belongs to 'local', not to 'eve'"):
            list_store.add(sky.settings, "targets", again, owner="eve", by="test")
        with pytest.raises(list_store.NotTheOwner):
            list_store.remove(sky.settings, "region", "half", owner="eve", by="test")
        sky.feed(2)

        assert "removed on 2/2 workers" in sky.shell("catalogs", "remove", "half")
        lost = replace(changed.item, revision=3, sha256="0" * 64)
        ControlWriter(sky.settings.kafka).write(*list_record(lost))
        sky.feed(3)
    first, second = near(places, ids[:5]), near(places, ids[5:10])
    nothing: set[int] = set()
    assert [sky.hits_of("listed", copy) for copy in range(4)] == [nothing, first, second, nothing]
    named = [near(places, [ids[k], ids[k + 3]]) for k in (0, 5)]
    assert [sky.hits_of("named", copy) for copy in (1, 2, 3)] == [*named, nothing]
    assert [sky.hits_of("inside", copy) for copy in (1, 2, 3)] == [inside, inside, nothing]
    rest = places.keys() - inside
    assert [sky.hits_of("outside", copy) for copy in (1, 2, 3)] == [rest, rest, nothing]
    assert sky.hits_of("others", 3) == sky.hits_of("others", 1) != nothing
    assert json.loads(sky.shell("ledger", "--json"))["balanced"]
    notices = [item for item in decoded(sky.bootstrap, "notices") if item["kind"] == "list_failed"]
    assert [(it["owner"], it["subject"]) for it in notices] == [("local", "watchlist targets revision 3")] * 2
    assert "1 of its 1 parts are not in the control topic" in notices[0]["text"]


def test_an_alerts_epoch_says_which_list_judged_it(sky: Sky) -> None:
    """What the names stood for at that epoch, put together from `control` alone, gives the same verdict."""
    state = control_state(sky.bootstrap)
    hits = decoded(sky.bootstrap, "filters.local.listed")
    held: dict[Any, Any] = {}
    epochs = {int(hit["provenance"]["controlEpoch"]) for hit in hits}
    assert len(epochs) >= 2
    named = {epoch: named_at(sky.state_at(epoch), held, state.blobs) for epoch in sorted(epochs)}
    for hit in hits:
        bound = named[int(hit["provenance"]["controlEpoch"])]["watchlist"]["targets"]
        assert bound({}, np.array([hit["ra"]]), np.array([hit["dec"]]), 1 / 3600).tolist() == [1.0]
    assert len(held) == 3  # two lists and the region


def test_the_api_has_the_same_lists(sky: Sky) -> None:
    with serving(sky.settings) as url, httpx.Client(base_url=url, timeout=60) as client:
        wait_until(lambda: client.get("/api/v1/filters").status_code == 200, "the API is ready")
        csv = {"content-type": "text/csv"}
        query = {"name": "stars", "owner": "bob", "radius_arcsec": "3"}
        answer = client.post(
            "/api/v1/watchlists", params=query, content="ra,dec,name\n1,2,a\n3.25,-4,b", headers=csv
        )
        assert (answer.status_code, answer.headers["location"]) == (201, "/api/v1/watchlists/stars")
        assert answer.json()["watchlist"]["radiusArcsec"] == 3
        same = client.post(
            "/api/v1/watchlists", params=query, content="ra,dec,name\n1,2,a\n3.25,-4,b", headers=csv
        )
        assert (same.status_code, same.json()["written"]) == (200, False)
        assert [it["name"] for it in client.get("/api/v1/watchlists").json()] == ["stars", "targets"]
        assert client.get("/api/v1/watchlists/stars").json()["revisions"] == [1]
        contents = client.get("/api/v1/watchlists/stars/contents").text
        assert contents.splitlines() == ["name,ra,dec,radius_arcsec", "a,1.0,2.0,", "b,3.25,-4.0,"]
        old = client.get("/api/v1/watchlists/targets/contents", params={"revision": 1})
        assert len(old.text.splitlines()) == 6
        assert client.get("/api/v1/watchlists/targets/contents").status_code == 422  # its contents are lost
        assert client.get("/api/v1/watchlists/nobody").status_code == 404
        for status, params, body, headers in (
            (403, query | {"owner": "eve"}, "ra,dec\n1,2", csv),
            (422, query, "ra,dec\n1,x", csv),
            (422, query, b"\xff", csv),
            (422, query | {"name": "No Name"}, "ra,dec\n1,2", csv),
            (422, query | {"radius_arcsec": "-1"}, "ra,dec\n1,2", csv),
            (422, {}, "ra,dec\n1,2", csv),
            (403, query | {"owner": "broker"}, "ra,dec\n1,2", csv),
            (415, query, "ra,dec\n1,2", {"content-type": "text/plain"}),
        ):
            refused = client.post("/api/v1/watchlists", params=params, content=body, headers=headers)
            assert (refused.status_code, bool(refused.json()["error"])) == (status, True), refused.text
        assert client.delete("/api/v1/watchlists/stars").status_code == 403
        removed = client.delete("/api/v1/watchlists/stars", params={"owner": "bob"})
        assert (removed.status_code, removed.json()["watchlist"]["state"]) == (200, "removed")
        assert client.delete("/api/v1/watchlists/stars", params={"owner": "bob"}).status_code == 404
        first = {"revision": "1"}
        assert client.get("/api/v1/watchlists/stars/contents", params=first).status_code == 200
        purge = {"owner": "bob", "purge": "true"}
        assert client.delete("/api/v1/watchlists/stars", params=purge).json()["written"] is False
        wait_until(
            lambda: client.get("/api/v1/watchlists/stars/contents", params=first).status_code == 422,
            "it is purged",
        )
        assert "were purged" in client.get("/api/v1/watchlists/stars/contents", params=first).text

        example = (Path(__file__).parents[2] / "docs" / "examples" / "skymap.fits").read_bytes()
        fits = {"content-type": "application/fits"}
        answer = client.post("/api/v1/regions", params={"name": "gw"}, content=example, headers=fits)
        assert answer.status_code == 201
        said = answer.json()["region"]
        assert (said["form"], said["areaDeg2"].keys()) == ("sky map", {"0.5", "0.9"})
        ranges = client.get("/api/v1/regions/gw/contents").text.splitlines()
        assert (ranges[0], len(ranges)) == ("first,end,credible_level", said["rows"] + 1)
        gone = client.get("/api/v1/regions", params={"removed": True}).json()
        assert [(it["name"], it["state"]) for it in gone] == [("gw", "active"), ("half", "removed")]
        assert client.get("/api/v1/regions/half").status_code == 404
        assert client.get("/api/v1/regions/half/contents", params={"revision": 2}).status_code == 404
        wrong = {"name": "x", "where": "in_region('gww') and mag < 19"}
        refused = client.post("/api/v1/filters", json=wrong).json()
        assert (refused["position"], refused["hint"]) == (10, "did you mean 'gw'?")
    table = sky.shell("catalogs", "list")
    for words in ("gw", "sky map", "targets"):
        assert words in table
