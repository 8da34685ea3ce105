"""Supernovae of any passband as light curves in g and r, and the states that are shown of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from broker.errors import BrokerError
from broker.training.explosions import (
    OSC,
    ZTF_SOURCES,
    Explosions,
    after,
    choose_slots,
    in_one_band,
    last_of_all,
    load,
    random_windows,
)
from broker.training.tasks import transient

SCHEMA = pa.schema(
    [
        ("source", pa.string()), ("object", pa.string()), ("mjd", pa.float64()), ("band", pa.string()),
        ("mag", pa.float64()), ("magerr", pa.float64()), ("flux", pa.float32()), ("fluxerr", pa.float64()),
        ("upperlimit", pa.bool_()), ("system", pa.string()), ("kind", pa.string()),
    ]
)  # fmt: skip


def folder(tmp_path: Path, points: list[dict[str, Any]], labels: dict[str, str | None]) -> Path:
    """A labelled folder; labels by 'source/object'."""
    rows = [{"upperlimit": False, "magerr": 0.05, **point} for point in points]
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), tmp_path / "photometry.parquet")
    names = [key.split("/") for key in labels]
    content = {
        "source": [source for source, _ in names],
        "object": [name for _, name in names],
        "label": list(labels.values()),
        "group": [f"N|{name}" for _, name in names],
        "redshift": pa.array([0.1] + [None] * (len(names) - 1), pa.float64()),
    }
    pq.write_table(pa.table(content), tmp_path / "labels.parquet")
    return tmp_path


def seen(
    name: str, band: str, mags: list[float], start: float = 56_000.0, **more: Any
) -> list[dict[str, Any]]:
    """A detection a day in one band."""
    return [
        {"source": OSC, "object": name, "mjd": start + day, "band": band, "mag": mag, **more}
        for day, mag in enumerate(mags)
    ]


def magnitudes(found: Explosions, row: int, band: int) -> list[float]:
    part = slice(found.starts[row], found.starts[row + 1])
    flux = found.flux[part][found.band[part] == band]
    return [round(mag, 3) for mag in (31.4 - 2.5 * np.log10(flux)).tolist()]


def test_bands_become_slots(tmp_path: Path) -> None:
    points = [
        *seen("a vega", "B", [17.0]), *seen("a vega", "V", [16.8], 56_000.2),
        *seen("b ab", "R", [18.0], kind="P48"),
        *seen("c vega", "R", [18.0]),
        *seen("d sloan", "g'", [19.0]), *seen("d sloan", "B", [17.0]), *seen("d sloan", "r", [18.5]),
        *seen("e infrared", "I", [15.0, 15.1]), *seen("e infrared", "z", [15.0]),
    ]  # fmt: skip
    names = sorted({point["object"] for point in points})
    found = load(folder(tmp_path, points, {f"{OSC}/{name}": "SNIa" for name in names}), [OSC])
    assert found.object.tolist() == names
    assert (magnitudes(found, 0, 1), magnitudes(found, 0, 2)) == ([16.679], [16.677])
    assert (magnitudes(found, 1, 1), magnitudes(found, 1, 2)) == ([], [17.942])
    assert magnitudes(found, 2, 2) == [18.152]
    assert (magnitudes(found, 3, 1), magnitudes(found, 3, 2)) == ([19.0], [18.5])
    assert magnitudes(found, 4, 2) == [15.506, 15.606]


def test_a_colour_near_zero_survives_the_change_of_bands() -> None:
    """A star of g - r = 0.3 has that colour in every pair of bands: Lupton's relations, read backwards."""
    g, r = 18.3, 18.0
    vega = {"B": g + 0.3130 * 0.3 + 0.2271, "V": g - 0.5784 * 0.3 - 0.0038, "R": r - 0.1837 * 0.3 - 0.0971}
    for pair in (("B", "R"), ("B", "V"), ("V", "R"), ("g", "R"), ("B", "r")):
        band = np.array(pair)
        slot, offset = choose_slots(np.array(["x", "x"]), band, np.zeros(2, dtype=bool))
        mag = [{"g": g, "r": r, **vega}[name] for name in pair] + offset
        assert slot.tolist() == ["g", "r"]
        assert mag.tolist() == pytest.approx([g, r], abs=1e-9)


def test_what_is_left_out(tmp_path: Path) -> None:
    points = [
        *seen("x", "r", [18.0, 18.1]),
        *seen("x", "r", [20.0], 56_010.0, upperlimit=True),
        *seen("x", "r", [21.0], 56_011.0, magerr=0.5),
        *seen("x", "r", [19.0], -7.0),
        *seen("x", "K", [15.0]),
        *seen("x", "r", [18.5], 56_012.0, magerr=None),
        *seen("nobody", "r", [18.0]),
    ]
    found = load(folder(tmp_path, points, {f"{OSC}/x": "SNII", f"{OSC}/unseen": None}), [OSC])
    assert found.object.tolist() == ["unseen", "x"]
    assert found.counts().tolist() == [0, 3]
    assert found.label.tolist() == ["", "SNII"]
    assert magnitudes(found, 1, 2) == [18.0, 18.1, 18.5]
    assert (found.err / found.flux).tolist() == pytest.approx([0.04605, 0.04605, 0.0921], rel=1e-3)
    assert np.all(np.diff(found.time) > 0)


def test_states_of_objects(tmp_path: Path) -> None:
    points = [*seen("x", "r", [18.0 - 0.1 * day for day in range(12)]), *seen("y", "g", [17.0, 17.5])]
    labels = {f"{OSC}/x": "SNIa", f"{OSC}/y": "SNII", f"{OSC}/z": "SNII"}
    found = load(folder(tmp_path, points, labels), [OSC])
    last = last_of_all(found)
    assert last.object.tolist() == ["x", "y", "z"]
    assert last.n_points.tolist() == last.n_detections.tolist() == [12, 2, 0]
    assert last.n_nights.tolist() == [12, 2, 0]
    assert last.age_days[:2] == pytest.approx([11.0, 1.0])
    early = after(found, (1, 3, 20))
    assert early.object.tolist() == ["x", "x", "y"]
    assert early.n_points.tolist() == [1, 3, 1]
    assert early.columns(["peak_mag_r"])[:, 0].tolist() == pytest.approx([18.0, 17.8, np.nan], nan_ok=True)
    windows = random_windows(found, 5, 30, 3.0, np.random.default_rng(1))
    assert set(windows.object.tolist()) == {"x"}
    assert sorted(windows.n_points.tolist()) == [4] * len(windows)
    assert len(windows) == 8  # after 5 to 12 detections, each once
    assert windows.group.tolist() == ["N|x"] * 8


def test_an_object_as_if_one_band_had_been_observed(tmp_path: Path) -> None:
    points = [
        *seen("x", "r", [18.0, 18.1, 18.2]),
        *seen("x", "g", [17.0, 17.1, 17.2]),
        *seen("y", "r", [16.0]),
    ]
    points += seen("z", "g", [15.0, 15.1, 15.2])
    found = load(folder(tmp_path, points, {f"{OSC}/{name}": "SNIa" for name in "xyz"}), [OSC])
    alone = in_one_band(found, "g", 3)
    assert alone.object.tolist() == ["x"]
    assert alone.counts().tolist() == [3]
    assert magnitudes(alone, 0, 1) == [17.0, 17.1, 17.2]
    assert in_one_band(found, "r", 4).counts().tolist() == []
    state = last_of_all(alone)
    assert np.isnan(state.columns(["slope_r", "color_gr"])).all()
    assert np.isfinite(state.columns(["slope_g"])).all()


def test_the_task_shows_every_object(tmp_path: Path) -> None:
    points = [*seen("x", "r", [18.0 - 0.1 * day for day in range(12)]), *seen("y", "g", [17.0, 17.5])]
    data = folder(tmp_path, points, {f"{OSC}/x": "SNIa", f"{OSC}/y": "SNII"})
    learnt = transient.samples(data)
    assert set(transient.INPUTS) <= set(learnt.names)
    assert learnt.n_points[:4].tolist() == [12, 2, 5, 10]
    assert set(learnt.object[4:].tolist()) == {"x"}
    assert 1 <= len(learnt) - 4 <= transient.WINDOWS
    wider = transient.with_redshift(data)
    assert set(wider.object.tolist()) == {"x"}
    assert np.all(wider.columns([transient.REDSHIFT]) == 0.1)
    assert transient.last_states(data).object.tolist() == ["x", "y"]
    assert transient.early_states(data).n_points.tolist() == [1, 2, 3, 5, 10, 1, 2]


def test_a_folder_without_the_source_has_no_rows(tmp_path: Path) -> None:
    data = folder(tmp_path, seen("x", "r", [18.0]), {f"{OSC}/x": "SNIa"})
    assert len(load(data, ["ztf_bts_snia"])) == len(last_of_all(load(data, ["ztf_bts_snia"]))) == 0


def test_a_wrong_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match="cannot read"):
        load(tmp_path, [OSC])


def test_real_light_curves_agree_with_another_reading(real_alerts: Path | None, tmp_path: Path) -> None:
    """Counts, units and the brightest magnitude of the ZTF lists, against the columns of the file."""
    if real_alerts is None:
        data = folder(tmp_path, [], {"ztf_bts_snia/x": "SNIa"})
    else:
        data = real_alerts / "labelled"
    found = load(data, ZTF_SOURCES)
    table = pq.read_table(data / "labels.parquet", columns=["source"])
    expected = pc.sum(pc.is_in(table["source"], value_set=pa.array(ZTF_SOURCES))).as_py()
    assert len(found) == expected
    whole = pq.read_table(data / "photometry.parquet")
    mine = whole.filter(
        pc.and_(pc.equal(whole["source"], "ztf_bts_snia"), pc.less_equal(whole["magerr"], 0.2171))
    )
    own = np.flatnonzero(found.source == "ztf_bts_snia")
    assert found.counts()[own].sum() == pytest.approx(len(mine), abs=5)
    brightest = {}
    for name, mag in zip(mine["object"].to_pylist(), mine["mag"].to_pylist(), strict=True):
        brightest[name] = min(mag, brightest.get(name, 99.0))
    for row in own[:200]:
        flux = found.flux[found.starts[row] : found.starts[row + 1]]
        if len(flux):
            assert 31.4 - 2.5 * np.log10(flux.max()) == pytest.approx(
                brightest[str(found.object[row])], abs=1e-4
            )
