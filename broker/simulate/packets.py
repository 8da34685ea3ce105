"""ZTF alert packets (schema 4.02) from detections: the fields as dictionaries, and their Avro bytes."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any, NamedTuple

from broker import schemas
from broker.astro.bands import ZTF_FID_BAND
from broker.astro.photometry import MAG_PER_LN_FLUX, mag_to_njy, njy_to_mag
from broker.astro.sky import ARCSEC_PER_DEGREE
from broker.simulate import avro
from broker.simulate.cadence import ZTF, Exposure
from broker.simulate.objects import SkyObject
from broker.simulate.observe import Detection, Measurement
from broker.simulate.stamps import gzipped_fits, triplet

Encoder = Callable[[avro.Row], bytes]

FIELD = 680
PUBLIC = 1
NIGHT_ZERO_JD = 2457754.5
"""ZTF counts nights from 2017-01-01 UTC."""
BAND_FID = {band: fid for fid, band in ZTF_FID_BAND.items()}
SENTINEL = -999.0
FORCED_SENTINEL = -99999.0
STAMP_SIDE = 63
LETTERS = 26**7
SPREAD = 2_345_678_917
"""Without a factor in common with 26: multiplying by it visits every name once, in no visible order."""
QUADRANT_PIXELS = 3105.0
NO_REFERENCE_MAG = 23.0
"""Fainter than any source that a ZTF template holds."""


class _Encoders(NamedTuple):
    candidate: Encoder
    previous: Encoder
    forced: Encoder
    header: bytes
    sync: bytes


@cache
def _encoders() -> _Encoders:
    """Everything that follows from the schema file alone."""
    schema = schemas.load("ztf/alert")
    header, sync = avro.container_header(schema)
    names = ("candidate", "prv_candidates", "fp_hists")
    now, previous, forced = (avro.row_encoder(avro.record_in(schema, name)) for name in names)
    return _Encoders(now, previous, forced, header, sync)


def packet(detection: Detection, seed: int) -> bytes:
    """The alert as an object container with one record, as it would be a Kafka value."""
    encoders = _encoders()
    row = candidate(detection.sky_object, detection.now)
    body = avro.blob(b"4.02") + avro.blob(b"simulated") + avro.blob(object_id(detection, seed).encode())
    body += avro.long(row["candid"]) + encoders.candidate(row)
    history = [history_rows(detection.sky_object, m) for m in detection.past]
    oldest = detection.now.exposure.midpoint_mjd_tai - detection.forced_days
    late = [m.exposure.midpoint_mjd_tai >= oldest for m in detection.past]
    body += avro.SECOND + avro.array([previous for previous, _ in history])
    body += avro.SECOND + avro.array([rows[1] for rows, kept in zip(history, late, strict=True) if kept])
    return avro.container(encoders.header, encoders.sync, body + _cutouts(detection, row["candid"]))


def _cutouts(detection: Detection, candid: int) -> bytes:
    """The last three fields: each a file name and a gzipped FITS image."""
    per_njy = 1.0 / float(mag_to_njy(detection.now.exposure.zero_point))
    images = triplet(detection, STAMP_SIDE, ZTF.pixel_arcsec, per_njy)
    names = (f"candid{candid}_{name}.fits.gz".encode() for name in ("targ_sci", "ref", "targ_scimref"))
    return b"".join(
        avro.SECOND + avro.blob(name) + avro.blob(gzipped_fits(image))
        for name, image in zip(names, images, strict=True)
    )


def object_id(detection: Detection, seed: int) -> str:
    """ZTF's name of the object: year of first sight and seven letters that no other object here has."""
    year = 2017 + int((detection.now.first_jd - NIGHT_ZERO_JD) / 365.25)
    number = (detection.object_number * SPREAD + seed * 1_000_003) % LETTERS
    letters = []
    for _ in range(7):
        number, letter = divmod(number, 26)
        letters.append(chr(ord("a") + letter))
    return f"ZTF{year % 100:02d}" + "".join(reversed(letters))


def candid(m: Measurement) -> int:
    """ZTF's number of a detection: exposure and quadrant, 01, the sign, a number in the quadrant."""
    return (
        processing_id(m.exposure, m.detector) * 1_000_000 + 10_000 + (5_000 if m.flux > 0.0 else 0) + m.rank
    )


@lru_cache(maxsize=16384)
def processing_id(exposure: Exposure, detector: int) -> int:
    """ZTF's `pid`: night, fraction of the day, quadrant, product type 15."""
    days = exposure.jd_utc_start - NIGHT_ZERO_JD
    night = math.floor(days)
    return ((night * 100_000 + int((days - night) * 100_000)) * 100 + detector) * 100 + 15


def candidate(sky_object: SkyObject, m: Measurement) -> dict[str, Any]:
    """Every field of a detection, as `candidate` and (a part of them) as a row of `prv_candidates`."""
    number = candid(m)
    image = f"ztf_{m.exposure.night}_{FIELD:06d}_z{m.exposure.band}_q{m.detector:02d}_scimrefdiffimg.fits"
    return {
        **_exposure_fields(m.exposure, m.detector),
        "pdiffimfilename": image,
        "candid": number,
        "isdiffpos": "t" if m.flux > 0.0 else "f",
        "tblid": m.rank,
        "xpos": m.x,
        "ypos": m.y,
        "ra": round(m.ra, 7),
        "dec": round(m.dec, 7),
        "mindtoedge": min(m.x, m.y, QUADRANT_PIXELS - m.x, QUADRANT_PIXELS - m.y),
        **_brightness(m),
        **_shape(sky_object, m),
        **_reference(sky_object, m),
        **_solar_system(sky_object, m),
        **_catalogues(sky_object),
        **_object_history(sky_object, m),
        **_calibration(m),
    }


def _exposure_fields(exposure: Exposure, detector: int) -> dict[str, Any]:
    """What all rows of one exposure and quadrant share, with or without a detection."""
    return {
        "jd": exposure.jd_utc_start,
        "fid": BAND_FID[exposure.band],
        "pid": processing_id(exposure, detector),
        "diffmaglim": exposure.limit_mag,
        "pdiffimfilename": None,
        "programpi": "Simulated",
        "programid": PUBLIC,
        "nid": math.floor(exposure.jd_utc_start - NIGHT_ZERO_JD),
        "rcid": detector,
        "field": FIELD,
        "rfid": FIELD * 1_000_000 + 120_000 + BAND_FID[exposure.band] * 100 + detector,
        "exptime": exposure.exposure_time_s,
        "magzpsci": exposure.zero_point,
        "magzpsciunc": 4e-6,
        "magzpscirms": 0.025,
        "clrcoeff": -0.05 if exposure.band == "g" else 0.09,
        "clrcounc": 8e-6,
        "rbversion": "t17_f5_c3",
    }


def _brightness(m: Measurement) -> dict[str, Any]:
    """Difference magnitudes of |flux| by profile and by apertures, and how they compare."""
    mag = float(njy_to_mag(abs(m.flux)))
    sigma = MAG_PER_LN_FLUX * m.flux_err / abs(m.flux)
    aperture = mag + 1.2 * sigma * m.chance[0]
    return {
        "magpsf": mag,
        "sigmapsf": sigma,
        "magap": aperture,
        "sigmagap": 1.3 * sigma,
        "magapbig": aperture + 0.6 * sigma * m.chance[1],
        "sigmagapbig": 1.7 * sigma,
        "magdiff": aperture - mag,
        "magfromlim": m.exposure.limit_mag - aperture,
        "scorr": abs(m.flux) / m.flux_err,
        "sky": 0.4 * m.chance[2],
    }


def _shape(sky_object: SkyObject, m: Measurement) -> dict[str, Any]:
    """How much the detection looks like a star, and the scores that follow from that."""
    real, wild = not sky_object.is_artefact, abs(m.chance[3])
    snr = abs(m.flux) / m.flux_err
    width = m.exposure.seeing_arcsec / ZTF.pixel_arcsec * (1.0 if real else 0.5 + wild)
    elong = 1.05 + 0.08 * wild if real else 1.2 + 0.6 * wild
    doubt = (4.0 / snr if real else 1.0) * abs(m.chance[4])
    score = max(0.0, 1.0 - 0.35 * doubt) if real else min(0.75, 0.12 * doubt)
    return {
        "chipsf": (1.0 + 0.3 * wild) if real else (4.0 + 20.0 * wild),
        "fwhm": width,
        "classtar": max(0.0, 1.0 - 0.05 * wild) if real else 0.5 * math.exp(-wild),
        "seeratio": width * ZTF.pixel_arcsec / m.exposure.seeing_arcsec,
        "aimage": 0.35 * width * elong,
        "bimage": 0.35 * width,
        "aimagerat": 0.35 * elong,
        "bimagerat": 0.35,
        "elong": elong,
        "nneg": int(2 * wild) if real else 5 + int(6 * wild),
        "nbad": 0 if real else int(3 * wild),
        "sumrat": 1.0 if real else max(0.2, 0.9 - 0.3 * wild),
        "rb": min(1.0, max(0.0, score + 0.05 * m.chance[5])),
        "drb": min(1.0, score * (1.0 - 0.002 * wild)),
        "drbversion": "d6_m7",
        "tooflag": 0,
        "dsnrms": 10.0 + 30.0 * wild,
        "ssnrms": 25.0 + 40.0 * wild,
        "dsdiff": -15.0 - 10.0 * wild,
    }


def _reference(sky_object: SkyObject, m: Measurement) -> dict[str, Any]:
    """The nearest source of the template, at a fixed place: the star itself, the host, or a stranger."""
    mag, separation = _nearest_reference(sky_object, m.exposure.band)
    ra, dec = sky_object.position(m.exposure.midpoint_mjd_tai)
    angle, shrink = math.pi * sky_object.looks[1], math.cos(math.radians(dec))
    ra += separation * math.cos(angle) / ARCSEC_PER_DEGREE / shrink
    dec += separation * math.sin(angle) / ARCSEC_PER_DEGREE
    galaxy = sky_object.p["star_score"] < 0.5
    return {
        "distnr": math.hypot((m.ra - ra) * shrink, m.dec - dec) * ARCSEC_PER_DEGREE,
        "magnr": mag,
        "sigmagnr": 0.015 + 0.1 * math.exp(min(0.0, mag - 21.0)),
        "chinr": 1.3 if galaxy else 0.6,
        "sharpnr": 0.25 if galaxy else 0.01,
        "ranr": ra,
        "decnr": dec,
        "jdstartref": NIGHT_ZERO_JD + 430.0,
        "jdendref": NIGHT_ZERO_JD + 700.0,
        "nframesref": 25,
    }


@lru_cache(maxsize=8192)
def _nearest_reference(sky_object: SkyObject, band: str) -> tuple[float, float]:
    """Magnitude [AB mag] and distance [arcsec] of the nearest source of the template."""
    looks, flux = sky_object.looks, sky_object.reference_flux(band)
    mag = float(njy_to_mag(flux)) if flux > 0.0 else NO_REFERENCE_MAG
    if mag < NO_REFERENCE_MAG:
        return mag, sky_object.p.get("host_sep", 0.08)
    return 20.0 + min(2.0, abs(looks[7])), 4.0 + 8.0 * abs(looks[8])


def _solar_system(sky_object: SkyObject, m: Measurement) -> dict[str, Any]:
    """The known asteroid here, or ZTF's way to say that there is none."""
    if not sky_object.moves:
        return {"ssdistnr": SENTINEL, "ssmagnr": SENTINEL, "ssnamenr": "null"}
    predicted = sky_object.p["mag_r"] + 0.2 + 0.1 * m.chance[7]
    name = str(int(sky_object.p["number"]))
    return {"ssdistnr": min(4.5, abs(m.chance[8])), "ssmagnr": predicted, "ssnamenr": name}


@lru_cache(maxsize=4096)
def _catalogues(sky_object: SkyObject) -> dict[str, Any]:
    """Three PS1 sources and two Gaia sources: the object's own star or galaxy first, if it has one."""
    looks, own = sky_object.looks, _nearest_reference(sky_object, "r")[0]
    there = float(njy_to_mag(max(sky_object.reference_flux("r"), 1e-3))) < NO_REFERENCE_MAG
    is_star = there and sky_object.p["star_score"] > 0.5
    near = sky_object.p.get("host_sep", 0.08) if there else 5.0 + 6.0 * abs(looks[8])
    row = _ps1(1, near, own, sky_object.p["gr"] if is_star else 0.6, sky_object.p["star_score"], sky_object)
    for rank in (2, 3):
        row |= _ps1(
            rank,
            near + 5.0 * rank,
            20.5 + looks[9 + rank],
            0.8,
            abs(math.cos(3 * looks[12 + rank])),
            sky_object,
        )
    in_gaia = is_star and own < 20.5
    bright = 2.0 + 8.0 * abs(looks[15]) if sky_object.is_artefact else 25.0 + 20.0 * abs(looks[15])
    return row | {
        "nmtchps": 3 + int(4 * abs(looks[16])),
        "neargaia": near if in_gaia else near + 8.0 + 10.0 * abs(looks[17]),
        "maggaia": own if in_gaia else 19.0 + looks[18],
        "neargaiabright": bright,
        "maggaiabright": 11.5 + abs(looks[19]),
    }


def _ps1(
    rank: int, separation: float, mag_r: float, gr: float, star_score: float, sky_object: SkyObject
) -> dict[str, Any]:
    """One PS1 match."""
    return {
        f"objectidps{rank}": 10**17 + sky_object.serial * 10 + rank,
        f"sgmag{rank}": mag_r + gr,
        f"srmag{rank}": mag_r,
        f"simag{rank}": mag_r - 0.4 * gr,
        f"szmag{rank}": mag_r - 0.6 * gr,
        f"sgscore{rank}": star_score,
        f"distpsnr{rank}": separation,
    }


def _object_history(sky_object: SkyObject, m: Measurement) -> dict[str, Any]:
    """Counts and dates since the survey began; what is always there was seen long before the simulation."""
    old = "before" not in sky_object.p
    before = int(150 * abs(sky_object.looks[20])) if old else 0
    start = NIGHT_ZERO_JD + 500.0 + 40.0 * abs(sky_object.looks[21]) if before else m.first_jd
    return {
        "ndethist": before + m.n_earlier + 1,
        "ncovhist": 600 + m.exposure.number,
        "jdstarthist": start,
        "jdendhist": m.exposure.jd_utc_start,
    }


def _calibration(m: Measurement) -> dict[str, Any]:
    """Photometric calibration of the science image."""
    return {
        "nmatches": 900 + int(100 * abs(m.chance[9])),
        "zpclrcov": -5e-6,
        "zpmed": m.exposure.zero_point + 0.05,
        "clrmed": 0.62,
        "clrrms": 0.18,
    }


def history_rows(sky_object: SkyObject, m: Measurement) -> tuple[bytes, ...]:
    """One earlier measurement as a row of `prv_candidates` and one of `fp_hists`; encoded once, then kept."""
    if not m.rows:
        previous = _detected_row(sky_object, m) if m.detected else _limit_row(m.exposure, m.detector)
        m.rows = (previous, _encoders().forced(forced(sky_object, m)))
    return m.rows


def _detected_row(sky_object: SkyObject, m: Measurement) -> bytes:
    """The row of a detection: its alert's values; the solar-system match is not repeated in histories."""
    row = candidate(sky_object, m) | {"ssdistnr": None, "ssmagnr": None, "ssnamenr": None}
    return _encoders().previous(row)


@lru_cache(maxsize=16384)
def _limit_row(exposure: Exposure, detector: int) -> bytes:
    """The row of a non-detection: no candid, no place, only how deep the image was."""
    return _encoders().previous(_exposure_fields(exposure, detector))


def forced(sky_object: SkyObject, m: Measurement) -> dict[str, Any]:
    """Forced photometry of one exposure in its own counts; one in a hundred failed and says so."""
    failed = (m.exposure.number * 31 + sky_object.serial * 17) % 100 == 0
    zero_flux = float(mag_to_njy(m.exposure.zero_point))
    image = {
        "sciinpseeing": m.exposure.seeing_arcsec / ZTF.pixel_arcsec,
        "scibckgnd": 180.0,
        "scisigpix": 9.0,
        "diffmaglim": m.exposure.limit_mag,
        "adpctdif1": 0.1,
        "adpctdif2": 0.08,
        "forcediffimflux": FORCED_SENTINEL if failed else m.flux / zero_flux,
        "forcediffimfluxunc": FORCED_SENTINEL if failed else m.flux_err / zero_flux,
        "procstatus": "61" if failed else "0",
    }
    return _exposure_fields(m.exposure, m.detector) | _reference(sky_object, m) | image
