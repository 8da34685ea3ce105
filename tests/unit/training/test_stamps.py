"""Learning from injections: what is injected is what is said, and nothing leaks from part to part."""

from __future__ import annotations

import io
from pathlib import Path

import fastavro
import numpy as np
import pytest
from typer.testing import CliRunner

from broker.cli import app
from broker.errors import BrokerError
from broker.scores.models import onnx_session
from broker.scores.stamps import SIDE, Stamps, load_stamps
from broker.simulate import write_folder
from broker.training.stamps import inject, judge, moments, network, train_stamps
from broker.training.stamps.packets import Cutouts, load_cutouts, sky_fields
from broker.training.stamps.sample import PARTS, StampSample, make_sample, parts, weights

ALERTS = 80
OTHER = {"type": "record", "name": "r", "fields": [{"name": "a", "type": "int"}]}
MIDDLE = SIDE // 2
Y, X = np.mgrid[:SIDE, :SIDE] - MIDDLE
SMALL = np.hypot(*np.mgrid[-7:8, -7:8])
PSF = np.exp(-0.5 * (SMALL / 1.1) ** 2) / np.exp(-0.5 * (SMALL / 1.1) ** 2).sum()


@pytest.fixture(scope="module")
def alerts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Simulated packets, a file that is none and one of another survey's form."""
    folder = tmp_path_factory.mktemp("alerts") / "night"
    write_folder(folder, ALERTS, 7)
    (folder / "broken.avro").write_bytes(b"Obj\x01 and no more")
    with (folder / "other.avro").open("wb") as file:
        fastavro.writer(
            file, {"type": "record", "name": "r", "fields": [{"name": "a", "type": "int"}]}, [{"a": 1}]
        )
    return folder.parent


@pytest.fixture(scope="module")
def cutouts(alerts: Path) -> Cutouts:
    return load_cutouts(alerts)


@pytest.fixture(scope="module")
def shapes(cutouts: Cutouts) -> np.ndarray:
    return inject.stars(cutouts.images[:, 0])


@pytest.fixture
def crop() -> np.ndarray:
    """A quiet sky: the science image's noise is 4 counts, the template's none."""
    sky = np.full((3, SIDE, SIDE), 100.0, dtype=np.float32)
    sky[0] += np.random.default_rng(1).normal(0.0, 4.0, (SIDE, SIDE)).astype(np.float32)
    sky[2] = sky[0] - sky[1]
    return sky


def test_packets_are_read_once_and_what_is_none_is_passed_over(alerts: Path, cutouts: Cutouts) -> None:
    assert len(cutouts) == ALERTS
    assert (np.diff(cutouts.candid) > 0).all()
    for row in (0, 40):
        path = alerts / "night" / f"{cutouts.candid[row]}.avro"
        (record,) = fastavro.reader(io.BytesIO(path.read_bytes()))
        candidate = record["candidate"]
        assert cutouts.sign[row] == (1.0 if candidate["isdiffpos"] == "t" else -1.0)
        np.testing.assert_allclose([cutouts.rb[row], cutouts.drb[row]], [candidate["rb"], candidate["drb"]])
    images = cutouts.images
    np.testing.assert_allclose(images[:, 0] - images[:, 1], images[:, 2], atol=1e-3)


def test_too_few_packets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match="0 ZTF packets"):
        load_cutouts(tmp_path)


def test_places_whose_images_may_overlap_are_one_field() -> None:
    step = 60.0 / 3600.0
    dec = np.array([0.0, step, 2 * step, 4 * step, 1.0])
    assert sky_fields(np.full(5, 10.0), dec).tolist() == [0, 0, 0, 3, 4]


def test_no_field_is_in_two_parts_and_doubtful_ones_are_for_the_test(cutouts: Cutouts) -> None:
    rb = cutouts.rb.copy()
    rb[5] = 0.1
    doubtful = Cutouts(cutouts.candid, cutouts.images, cutouts.sign, rb, cutouts.drb, cutouts.field)
    part = parts(doubtful, 1)
    assert set(part.tolist()) == set(PARTS)
    assert part[5] == "test"
    for field in np.unique(doubtful.field):
        assert len(set(part[doubtful.field == field].tolist())) == 1
    assert (parts(doubtful, 1) == part).all()
    assert (parts(doubtful, 2) != part).any()


def test_shapes_are_those_of_the_stars() -> None:
    rng = np.random.default_rng(2)
    y, x = np.mgrid[:63, :63]
    places = 30.0 + rng.uniform(-0.5, 0.5, (2, 6, 1, 1))
    images = rng.normal(50.0, 1.0, (6, 63, 63))
    images += 2000.0 * np.exp(-0.5 * ((y - places[0]) ** 2 + (x - places[1]) ** 2) / 1.1**2)
    images[:, 5:12, 5:12] += 300.0  # a blob that is no star
    images[:, 50, 50] += 3000.0  # nor is this
    found = inject.stars(images.astype(np.float32))
    assert len(found) == 2
    assert found.sum(axis=(1, 2)) == pytest.approx(1.0)
    np.testing.assert_allclose(found.mean(axis=0), PSF, atol=0.004)
    assert len(inject.stars(images[:3].astype(np.float32))) == 1
    with pytest.raises(BrokerError, match="no bright isolated star"):
        inject.stars(np.full((2, 63, 63), 5.0, dtype=np.float32))


@pytest.mark.parametrize("place", [(0.0, 0.0), (0.4, -0.3), (2.5, 3.25), (-1.0, 4.9)])
def test_a_source_has_the_flux_and_the_place_asked_for(place: tuple[float, float]) -> None:
    spot = inject.source(PSF, *place)
    assert spot.sum() == pytest.approx(1.0, abs=2e-3)
    assert ((spot * Y).sum(), (spot * X).sum()) == pytest.approx(place, abs=0.01)


def test_a_source_far_away_is_not_in_the_crop() -> None:
    assert inject.source(PSF, 0.0, 60.0).sum() == 0.0
    assert 0.2 < inject.source(PSF, 0.0, MIDDLE).sum() < 0.8


def test_crops_and_misregistered_templates_do_not_show_the_alert_itself(cutouts: Cutouts) -> None:
    images = cutouts.images.copy()
    images[:, :, 31, 31] = 1e6
    marked = Cutouts(cutouts.candid, images, cutouts.sign, cutouts.rb, cutouts.drb, cutouts.field)
    rng = np.random.default_rng(3)
    for row in range(20):
        assert (np.abs(inject.crops(marked, row, 20, rng)) < 1e5).all()
        off_centre = inject.beside(marked, row, rng)
        y, x = np.argwhere(off_centre[0] == 1e6)[0] - MIDDLE
        assert 3.0 < np.hypot(y, x) < 11.0
    images[:, 1, 31, 31] = images[:, 1, 30, 30]  # the template's mark would be the strongest lobe
    moved = [inject.misregistered(marked, row, rng) for row in range(20)]
    assert any(one is not None for one in moved)
    for one in moved:
        assert one is None or (one.shape == (3, SIDE, SIDE) and (np.abs(one[0]) < 1e5).all())


@pytest.mark.parametrize("what", [*inject.REAL, *inject.BOGUS], ids=lambda what: what.__name__)
def test_the_difference_changes_by_science_less_template(what: inject.Injection, crop: np.ndarray) -> None:
    before = crop.copy()
    for seed in range(8):
        seen = what(crop, PSF, np.random.default_rng(seed))
        assert seen.shape == (3, SIDE, SIDE)
        signed = np.minimum(np.abs(seen[2] - (seen[0] - seen[1])), np.abs(seen[2] + (seen[0] - seen[1])))
        assert np.nanmax(signed) < 1e-2 * max(1.0, np.nanmax(np.abs(seen[0])) * 1e-2)
    np.testing.assert_array_equal(crop, before)


@pytest.mark.parametrize("what", inject.REAL, ids=lambda what: what.__name__)
def test_what_is_real_is_bright_at_the_centre_of_the_difference(
    what: inject.Injection, crop: np.ndarray
) -> None:
    for seed in range(10):
        seen = what(crop, PSF, np.random.default_rng(seed))
        near = seen[2, MIDDLE - 2 : MIDDLE + 3, MIDDLE - 2 : MIDDLE + 3]
        # 5 sigma or more of a point source; its own photons and the sky take and give some.
        assert near.sum() > 2.0 * inject.noise_of(crop[2]) / np.sqrt((PSF**2).sum())


def test_the_flux_is_as_significant_as_said(crop: np.ndarray) -> None:
    rng = np.random.default_rng(4)
    noise = inject.noise_of(crop[2]) / np.sqrt((PSF**2).sum())
    found = np.array([inject.flux_for(crop, PSF, rng) for _ in range(300)]) / noise
    assert found.min() >= inject.SIGNIFICANCE[0]
    assert found.max() <= inject.SIGNIFICANCE[1]
    assert np.median(found) == pytest.approx(np.sqrt(np.prod(inject.SIGNIFICANCE)), rel=0.3)


def test_a_dipole_is_one_star_twice_and_has_two_lobes(crop: np.ndarray) -> None:
    for seed in range(10):
        seen = inject.dipole(crop, PSF, np.random.default_rng(seed))
        star = (seen[:2] - crop[:2]).sum(axis=(1, 2), dtype=float).tolist()
        assert star[0] == pytest.approx(star[1], rel=0.02, abs=6.0 * np.sqrt(star[1] / inject.GAIN))
        assert seen[2].min() < -2.0 * inject.noise_of(crop[2])


def test_a_sample_is_balanced_and_labelled(cutouts: Cutouts, shapes: np.ndarray) -> None:
    sample = make_sample(cutouts.take(np.arange(12)), shapes, 1)
    assert np.isfinite(sample.images).all()
    assert set(sample.field.tolist()) <= set(cutouts.field[:12].tolist())
    real = sample.real == 1.0
    assert sample.weight[real].sum() == pytest.approx(sample.weight[~real].sum())
    assert {"new source", "off centre", "dipole"} <= set(sample.kind.tolist())
    assert not (set(sample.kind[real].tolist()) & set(sample.kind[~real].tolist()))


def test_weights_without_alerts_as_they_are() -> None:
    real = np.array([1.0, 1.0, 1.0, 0.0])
    assert weights(real, np.zeros(4, dtype=bool)).tolist() == pytest.approx([2 / 3, 2 / 3, 2 / 3, 2.0])


@pytest.mark.parametrize("widths", [(8, 16, 32), (4, 4, 8)])
def test_the_exported_network_is_the_one_in_jax(widths: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(5)
    settings = network.Settings(widths, 1e-3, 1)
    parameters = [
        (w, rng.normal(0.0, 0.1, b.shape).astype(np.float32)) for w, b in network.start(settings, rng)
    ]
    images = rng.normal(0.0, 1.5, (50, 3, SIDE, SIDE)).astype(np.float32)
    (raw,) = onnx_session(network.to_onnx(parameters)).run(["raw"], {"inputs": images})
    assert raw.shape == (50, 1)
    assert raw.std() > 0.01
    np.testing.assert_allclose(raw[:, 0], network.answers(parameters, images), atol=1e-5)


def test_training_learns_and_repeats_itself() -> None:
    rng = np.random.default_rng(6)
    images = rng.normal(0.0, 0.5, (256, 3, SIDE, SIDE)).astype(np.float32)
    real = (np.arange(256) % 2).astype(np.float64)
    images[real == 1.0, 2, MIDDLE - 1 : MIDDLE + 2, MIDDLE] += 4.0
    ones = np.ones(256)
    sample = StampSample(images, real, np.full(256, "new source"), np.arange(256), ones)
    settings = network.Settings((4, 4, 8), 5e-3, 12)
    raw = network.answers(network.train(sample, settings, 1), images)
    assert judge.area("", raw, real, sample.field, rng).auc.value > 0.95
    np.testing.assert_array_equal(network.answers(network.train(sample, settings, 1), images), raw)


def test_moments_are_of_the_centre() -> None:
    images = np.zeros((2, 3, SIDE, SIDE), dtype=np.float32)
    images[0, 2, MIDDLE, MIDDLE] = np.arcsinh(20.0)
    images[0, 2, MIDDLE, MIDDLE + 1] = np.arcsinh(-10.0)
    found = dict(zip(moments.MOMENTS, moments.moments(images)[0], strict=True))
    assert found["peak"] == pytest.approx(20.0)
    assert found["deepest_to_peak"] == pytest.approx(-0.5)
    assert (found["peak_offset"], found["concentration"]) == (0.0, 1.0)
    assert np.isfinite(moments.moments(images)).all()


def test_areas_know_their_rows() -> None:
    rng = np.random.default_rng(7)
    real = np.repeat([1.0, 0.0], 30)
    score = real + rng.normal(0.0, 0.1, 60)
    score[:3] = np.nan
    field = np.arange(60) % 20
    row = judge.area("one", score, real, field, rng)
    assert (row.auc.value, row.real, row.bogus, row.fields) == (1.0, 27, 30, 20)
    assert judge.area("one", -score, real, field, rng).auc.value == 0.0
    assert judge.area("one", np.round(score), real, field, rng).auc.value > 0.95
    assert judge.area("one", np.ones(60), real, field, rng).auc.value == 0.5
    chance = judge.area("one", rng.normal(size=60), real, field, rng).auc
    assert chance.low < chance.value < chance.high
    assert np.isnan(judge.area("none", score[:30], real[:30], field[:30], rng).auc.value)


def test_a_run_leaves_a_bundle_that_serves_and_a_report(
    alerts: Path, cutouts: Cutouts, tmp_path: Path
) -> None:
    done: list[float] = []
    report = train_stamps(alerts, tmp_path, epochs=1, progress=lambda fraction, _: done.append(fraction))
    assert done[0] == 0.0
    assert done[-1] == 1.0
    assert done == sorted(done)
    stamps = load_stamps(report.bundle)
    assert isinstance(stamps, Stamps)
    assert (stamps.manifest.id, stamps.manifest.survey) == ("stamps", "ztf")
    middle = cutouts.images[:, :, 18:45, 18:45]
    assert np.isfinite(stamps.of_images(middle)).any()
    text = report.page.read_text()
    for words in ("taught by injections alone", "LightGBM on 10 moments", "majority", "cosmic ray"):
        assert words in text
    assert "stamp_score" in (report.bundle / "card.md").read_text()
    with pytest.raises(BrokerError, match="not empty"):
        train_stamps(alerts, tmp_path)


def test_the_command_wants_light_curves_or_images() -> None:
    answer = CliRunner().invoke(app, ["train"])
    assert answer.exit_code == 2
    assert "--stamps" in answer.output
