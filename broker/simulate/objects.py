"""What is in the synthetic sky: kinds of objects, their light curves, and the light they sit in.

A kind's light curve is a relative flux: 1 is the peak of a transient, or the mean of a star that is always
there. An object multiplies it by its own level in each band. Everything is in AB flux [nJy] and MJD (TAI):

    total flux = host + source(t)      reference flux = host + what the template holds of the source
    difference = total - reference     (negative when a star is fainter than in the template)

The mix is for testing and for training examples, not a statement about rates in the real sky: bright
supernovae are far too common here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from broker.astro.photometry import mag_to_njy

F64 = npt.NDArray[np.float64]
Params = Mapping[str, float]
Draw = Callable[[np.random.Generator], dict[str, float]]
Shape = Callable[[F64, str, Params], F64]

COLOUR_STEP = {"u": 2.2, "g": 1.0, "r": 0.0, "i": -0.45, "z": -0.7, "y": -0.85}
"""Magnitude in a band = r magnitude + (g - r) * step: one number gives a plausible spectrum."""
BLUE_BANDS = ("u", "g")
FOREVER_DAYS = 1e9


def pulse(days: F64, rise_days: float, fall_days: float) -> F64:
    """Sigmoid rise and exponential fall, 1 at the peak, which is at 0.

    days : (n,) since the peak [day];  returns (n,) [relative flux].  fall_days must exceed
    twice rise_days. Form of Bazin et al. 2009, A&A 499, 653.
    """
    ratio = fall_days / rise_days
    peak = rise_days * math.log(ratio - 1.0)
    days = np.clip(days + peak, -40.0 * rise_days, None)
    norm = math.exp(-peak / fall_days) / (1.0 + math.exp(-peak / rise_days))
    return np.asarray(np.exp(-days / fall_days) / (1.0 + np.exp(-days / rise_days)) / norm)


def scramble(number: F64, salt: float) -> F64:
    """A pseudo-random number in 0..1 for each number: chance that is the same when asked again."""
    return np.asarray(np.modf(np.abs(np.sin(number * 12.9898 + salt * 78.233)) * 43758.5453)[0])


def sn_ia(mjd: F64, band: str, p: Params) -> F64:
    """Thermonuclear supernova: three weeks up, redder bands slower and with a second bump."""
    days = (np.asarray(mjd) - p["t0"]) / p["stretch"]
    if band in BLUE_BANDS:
        return pulse(days, 3.6, 17.0)
    bump = 0.18 * np.exp(-0.5 * ((days - 25.0) / 7.0) ** 2)
    return np.asarray((pulse(days, 3.8, 23.0) + bump) / (1.0 + 0.18 * math.exp(-0.5 * (25.0 / 7.0) ** 2)))


def sn_ii(mjd: F64, band: str, p: Params) -> F64:
    """Core-collapse supernova with hydrogen: up in days, a long plateau, a drop; blue light fades sooner."""
    days = np.asarray(mjd) - p["t0"]
    rise = 1.0 / (1.0 + np.exp(-np.clip(days / p["rise"], -40.0, 40.0)))
    fade = np.exp(-np.clip(days, 0.0, None) / (35.0 if band in BLUE_BANDS else 140.0))
    drop = 1.0 / (1.0 + np.exp(np.clip((days - p["plateau"]) / 4.0, -40.0, 40.0)))
    return np.asarray(rise * fade * (0.1 + 0.9 * drop))


def slsn(mjd: F64, band: str, p: Params) -> F64:
    """Superluminous supernova: blue, bright and slow both ways."""
    return pulse((np.asarray(mjd) - p["t0"]) / p["stretch"], 12.0, 38.0 if band in BLUE_BANDS else 50.0)


def tde(mjd: F64, _band: str, p: Params) -> F64:
    """Tidal disruption: smooth, of constant blue colour, falling as time to the power -5/3."""
    days = np.asarray(mjd) - p["t0"]
    rise = np.exp(-0.5 * (np.minimum(days, 0.0) / p["rise"]) ** 2)
    return np.asarray(rise * (1.0 + np.maximum(days, 0.0) / p["fall"]) ** (-5.0 / 3.0))


def agn(mjd: F64, band: str, p: Params) -> F64:
    """Active nucleus: slow noise with more power at long times, a little stronger in blue light."""
    total = np.zeros_like(np.asarray(mjd, dtype=np.float64))
    for k in range(6):
        days = 1000.0 / 2.3**k
        total = total + days**0.35 * np.sin(2.0 * np.pi * (np.asarray(mjd) / days + p[f"phase_{k}"]))
    amplitude = p["amplitude"] * (1.25 if band in BLUE_BANDS else 1.0)
    return np.asarray(10.0 ** (-0.4 * amplitude * total / 14.0))


def cv(mjd: F64, band: str, p: Params) -> F64:
    """Dwarf nova: outbursts of some days that recur, blue, on a faint quiescent star."""
    cycle, days = _since_last(mjd, p["recurrence"], p["phase_0"])
    days = days - 1.5 - 3.0 * scramble(cycle, p["salt"])
    shape = pulse(days, 0.35, p["fall"])
    return np.asarray(1.0 + p["contrast"] * (1.15 if band in BLUE_BANDS else 1.0) * shape)


def m_dwarf_flare(mjd: F64, band: str, p: Params) -> F64:
    """Flare star: an hour of blue light now and then, each of another height."""
    cycle, days = _since_last(mjd, p["recurrence"], p["phase_0"])
    height = p["contrast"] * (0.3 + scramble(cycle, p["salt"])) * (6.0 if band in BLUE_BANDS else 1.0)
    return np.asarray(1.0 + height * np.exp(-days / p["fall"]))


def rr_lyrae(mjd: F64, band: str, p: Params) -> F64:
    """RR Lyrae star: sawtooth of half a day, larger in blue light."""
    amplitude = p["amplitude"] * (1.0 if band in BLUE_BANDS else 0.72)
    return _from_mag(amplitude * _sawtooth(_phase(mjd, p), 0.16))


def cepheid(mjd: F64, band: str, p: Params) -> F64:
    """Cepheid: a rounder sawtooth of days to weeks."""
    amplitude = p["amplitude"] * (1.0 if band in BLUE_BANDS else 0.65)
    return _from_mag(amplitude * _sawtooth(_phase(mjd, p), 0.3))


def eclipsing_binary(mjd: F64, _band: str, p: Params) -> F64:
    """Eclipsing binary: two dips a period, nearly the same in all bands."""
    phase = _phase(mjd, p)
    first = np.exp(-0.5 * (np.minimum(phase, 1.0 - phase) / p["width"]) ** 2)
    second = np.exp(-0.5 * ((phase - 0.5) / p["width"]) ** 2)
    return _from_mag(p["amplitude"] * (first + p["second"] * second))


def long_period(mjd: F64, band: str, p: Params) -> F64:
    """Long-period variable: a very red star that swings by magnitudes within a year."""
    amplitude = p["amplitude"] * (1.3 if band in BLUE_BANDS else 1.0)
    return _from_mag(0.5 * amplitude * np.sin(2.0 * np.pi * _phase(mjd, p)))


def moving(mjd: F64, _band: str, p: Params) -> F64:
    """Asteroid: reflected light, two humps a rotation."""
    return _from_mag(p["amplitude"] * np.sin(4.0 * np.pi * _phase(mjd, p)))


def artefact(mjd: F64, band: str, p: Params) -> F64:
    """Subtraction artefact: there in some exposures, of either sign, without memory."""
    tick = np.floor(np.asarray(mjd, dtype=np.float64) * 200.0) + len(band) + ord(band)
    fires = scramble(tick, p["salt"]) < p["fire"]
    sign = np.where(scramble(tick, p["salt"] + 0.31) < 0.35, -1.0, 1.0)
    return np.asarray(np.where(fires, sign * (0.5 + scramble(tick, p["salt"] + 0.77)), 0.0))


def _since_last(mjd: F64, every_days: float, phase: float) -> tuple[F64, F64]:
    """Number of the current cycle and the time since it began [day]."""
    cycles = np.asarray(mjd, dtype=np.float64) / every_days + phase
    number = np.floor(cycles)
    return number, (cycles - number) * every_days


def _phase(mjd: F64, p: Params) -> F64:
    """Phase 0..1 of a strictly periodic object."""
    return np.asarray(np.modf(np.asarray(mjd, dtype=np.float64) / p["period"] + p["phase_0"])[0])


def _sawtooth(phase: F64, rise: float) -> F64:
    """Fast rise, slow fall, in magnitudes: -0.5 at maximum light, 0.5 at minimum, mean 0."""
    falling = (phase - rise) / (1.0 - rise)
    return np.asarray(np.where(phase < rise, 0.5 - phase / rise, falling - 0.5))


def _from_mag(delta_mag: F64) -> F64:
    """Relative flux of a change in magnitude."""
    return np.asarray(10.0 ** (-0.4 * delta_mag))


def peak_mag(rng: np.random.Generator, faintest: float, brightest: float) -> float:
    """A peak magnitude with many more faint than bright, though fewer faint ones than the real sky has."""
    return max(brightest, faintest + math.log10(1.0 - rng.random()) / 0.28)


def draw_sn_ia(rng: np.random.Generator) -> dict[str, float]:
    """Parameters of a SN Ia."""
    return _galaxy(
        rng, mag_r=peak_mag(rng, 20.0, 14.5), gr=0.05, stretch=rng.uniform(0.8, 1.2), before=26.0, after=45.0
    )


def draw_sn_ii(rng: np.random.Generator) -> dict[str, float]:
    """Parameters of a SN II."""
    rise, plateau = rng.uniform(0.6, 1.6), rng.uniform(65.0, 110.0)
    return _galaxy(
        rng, mag_r=peak_mag(rng, 20.0, 14.5), gr=0.0, rise=rise, plateau=plateau, before=10.0, after=75.0
    )


def draw_slsn(rng: np.random.Generator) -> dict[str, float]:
    """Parameters of a superluminous supernova: its galaxy is a faint dwarf."""
    stretch, mag = rng.uniform(0.8, 1.6), peak_mag(rng, 19.8, 17.0)
    p = _galaxy(rng, mag_r=mag, gr=-0.15, stretch=stretch, before=75.0 * stretch, after=100.0 * stretch)
    return p | {"host_mag_r": rng.uniform(21.5, 23.5), "host_sep": abs(rng.normal(0.0, 0.4))}


def draw_tde(rng: np.random.Generator) -> dict[str, float]:
    """Parameters of a tidal disruption: in the very centre of its galaxy."""
    p = _galaxy(
        rng, mag_r=peak_mag(rng, 19.8, 16.5), gr=-0.2, rise=rng.uniform(8.0, 14.0), before=40.0, after=160.0
    )
    return p | {"fall": rng.uniform(25.0, 60.0), "host_sep": abs(rng.normal(0.0, 0.1))}


def draw_agn(rng: np.random.Generator) -> dict[str, float]:
    """Parameters of an active nucleus, with half as much light of its galaxy around it."""
    mag = rng.uniform(16.8, 20.2)
    p = {f"phase_{k}": rng.random() for k in range(6)}
    p |= {"mag_r": mag, "gr": rng.normal(0.3, 0.1), "amplitude": rng.uniform(0.2, 0.9)}
    return p | {
        "host_mag_r": mag + 0.7,
        "host_gr": 0.6,
        "host_sep": abs(rng.normal(0.0, 0.08)),
        "star_score": rng.uniform(0.2, 0.9),
    }


def draw_cv(rng: np.random.Generator) -> dict[str, float]:
    """Parameters of a dwarf nova."""
    mag, outburst = rng.uniform(19.5, 22.0), rng.uniform(2.2, 5.0)
    p = _star(
        rng, mag, gr=rng.normal(0.1, 0.08), recurrence=rng.uniform(18.0, 70.0), fall=rng.uniform(2.5, 6.0)
    )
    return p | {"contrast": 10.0 ** (0.4 * outburst) - 1.0}


def draw_m_dwarf_flare(rng: np.random.Generator) -> dict[str, float]:
    """Parameters of a flare star."""
    p = _star(rng, rng.uniform(17.5, 20.5), gr=rng.normal(1.45, 0.08), recurrence=rng.uniform(0.8, 2.5))
    return p | {"fall": rng.uniform(0.02, 0.06), "contrast": rng.uniform(0.3, 1.5)}


def draw_rr_lyrae(rng: np.random.Generator) -> dict[str, float]:
    """Parameters of an RR Lyrae star."""
    return _star(
        rng,
        rng.uniform(15.0, 19.5),
        gr=rng.normal(0.2, 0.05),
        amplitude=rng.uniform(0.5, 1.2),
        period=rng.uniform(0.42, 0.75),
    )


def draw_cepheid(rng: np.random.Generator) -> dict[str, float]:
    """Parameters of a Cepheid."""
    period = 10.0 ** rng.uniform(0.3, 1.5)
    return _star(
        rng, rng.uniform(14.0, 18.0), gr=rng.normal(0.7, 0.1), amplitude=rng.uniform(0.4, 1.1), period=period
    )


def draw_eclipsing_binary(rng: np.random.Generator) -> dict[str, float]:
    """Parameters of an eclipsing binary."""
    period, width = 10.0 ** rng.uniform(-0.5, 0.7), rng.uniform(0.03, 0.09)
    p = _star(
        rng, rng.uniform(14.5, 19.0), gr=rng.normal(0.6, 0.2), amplitude=rng.uniform(0.25, 0.9), period=period
    )
    return p | {"width": width, "second": rng.uniform(0.2, 0.95)}


def draw_long_period(rng: np.random.Generator) -> dict[str, float]:
    """Parameters of a long-period variable."""
    return _star(
        rng,
        rng.uniform(13.5, 17.5),
        gr=rng.normal(1.6, 0.2),
        amplitude=rng.uniform(0.8, 3.5),
        period=rng.uniform(100.0, 450.0),
    )


def draw_moving(rng: np.random.Generator) -> dict[str, float]:
    """Parameters of an asteroid: sky motion in degrees a day, mostly eastward or westward."""
    p = _bare(
        rng, mag_r=peak_mag(rng, 20.6, 15.5), gr=rng.normal(0.5, 0.06), amplitude=rng.uniform(0.03, 0.25)
    )
    rate, angle = rng.uniform(0.05, 0.3), rng.normal(0.0, 0.35)
    p |= {
        "period": rng.uniform(0.1, 0.6),
        "rate_ra": -rate * math.cos(angle),
        "rate_dec": rate * math.sin(angle),
    }
    return p | {"before": 10.0, "after": 10.0, "number": float(rng.integers(1000, 600000))}


def draw_artefact(rng: np.random.Generator) -> dict[str, float]:
    """Parameters of an artefact that recurs at one place."""
    p = _bare(rng, mag_r=rng.uniform(16.5, 20.3), gr=0.0, fire=0.3, form=float(rng.integers(3)))
    return p | {"before": 0.0, "after": 120.0}


def draw_one_off(rng: np.random.Generator) -> dict[str, float]:
    """Parameters of an artefact that is in one exposure and never again."""
    return draw_artefact(rng) | {"fire": 0.5, "after": 0.001}


def _bare(rng: np.random.Generator, **own: float) -> dict[str, float]:
    """Parameters of something with nothing underneath in the template."""
    return {"phase_0": rng.random(), "salt": rng.uniform(0.0, 50.0), "star_score": 0.5} | own


def _star(rng: np.random.Generator, mag_r: float, **own: float) -> dict[str, float]:
    """Parameters of a star that the template holds."""
    return _bare(rng) | {"mag_r": mag_r, "star_score": rng.uniform(0.93, 1.0)} | own


def _galaxy(rng: np.random.Generator, **own: float) -> dict[str, float]:
    """Parameters of a transient in a galaxy; one in ten galaxies is too faint to be in the template."""
    seen = rng.random() < 0.9
    host = {"host_mag_r": rng.uniform(16.0, 21.0) if seen else 24.5, "host_gr": rng.normal(0.6, 0.15)}
    host |= {"host_sep": rng.exponential(2.0), "redshift": rng.uniform(0.01, 0.12)}
    return _bare(rng) | host | {"star_score": rng.uniform(0.0, 0.25)} | own


@dataclass(frozen=True)
class Kind:
    """One class of objects.

    label       : the class name that truth tables carry
    per_mille   : how many of 1,000 objects in the field at any time are of this kind
    in_template : 1 when the template holds the object's mean light, 0 when it does not know it
    draw, shape : parameters at random; relative flux of those parameters at a time in a band
    """

    label: str
    per_mille: int
    in_template: float
    draw: Draw
    shape: Shape


KINDS = (
    Kind("SNIa", 90, 0.0, draw_sn_ia, sn_ia),
    Kind("SNII", 60, 0.0, draw_sn_ii, sn_ii),
    Kind("SLSN", 8, 0.0, draw_slsn, slsn),
    Kind("TDE", 10, 0.0, draw_tde, tde),
    Kind("AGN", 90, 1.0, draw_agn, agn),
    Kind("CV", 50, 1.0, draw_cv, cv),
    Kind("MDwarfFlare", 90, 1.0, draw_m_dwarf_flare, m_dwarf_flare),
    Kind("RRLyrae", 105, 1.0, draw_rr_lyrae, rr_lyrae),
    Kind("CEP", 30, 1.0, draw_cepheid, cepheid),
    Kind("EB", 120, 1.0, draw_eclipsing_binary, eclipsing_binary),
    Kind("LPV", 57, 1.0, draw_long_period, long_period),
    Kind("SSO", 90, 0.0, draw_moving, moving),
    Kind("Bogus", 70, 0.0, draw_artefact, artefact),
    Kind("Bogus", 130, 0.0, draw_one_off, artefact),
)
"""Every kind, in the order of the label list; the shares sum to 1,000."""


@dataclass(frozen=True, eq=False)
class SkyObject:
    """One object: what it is, where it is, and its light in each band.

    serial         : number of the object, unique within a simulation
    ra, dec        : place [deg, ICRS]; of a moving object at `p["t0"]`
    level          : flux that relative flux 1 stands for, by band [nJy]
    host           : constant flux of the surroundings in the template, by band [nJy]
    begins, ends   : when it is in the field [MJD, TAI]
    looks          : (24,) standard normal numbers for everything that has no physics here (catalogue entries)
    """

    serial: int
    kind: Kind
    p: Params
    ra: float
    dec: float
    level: Mapping[str, float]
    host: Mapping[str, float]
    begins: float
    ends: float
    looks: F64 = field(repr=False)

    @property
    def moves(self) -> bool:
        """Whether this is a solar-system object."""
        return "rate_ra" in self.p

    @property
    def is_artefact(self) -> bool:
        """Whether there is nothing in the sky here at all."""
        return "form" in self.p

    def source_flux(self, mjd: F64 | float, band: str) -> F64:
        """Flux of the object alone.  mjd : (n,) [MJD, TAI];  returns (n,) [nJy]."""
        return self.level[band] * self.kind.shape(np.asarray(mjd, dtype=np.float64), band, self.p)

    def reference_flux(self, band: str) -> float:
        """Flux that the template holds at this place [nJy]; 0 where it holds nothing."""
        return self.host[band] + self.kind.in_template * self.level[band]

    def difference_flux(self, mjd: F64 | float, band: str) -> F64:
        """Science minus template, without noise.  mjd : (n,) [MJD, TAI];  returns (n,) signed [nJy]."""
        return self.source_flux(mjd, band) - self.kind.in_template * self.level[band]

    def position(self, mjd: float) -> tuple[float, float]:
        """True (ra, dec) at a time [deg]; straight lines on a flat patch for moving objects."""
        if not self.moves:
            return self.ra, self.dec
        days = mjd - self.p["t0"]
        dec = self.dec + self.p["rate_dec"] * days
        return self.ra + self.p["rate_ra"] * days / math.cos(math.radians(dec)), dec


def make_object(
    rng: np.random.Generator,
    kind: Kind,
    serial: int,
    begins: float,
    footprint: tuple[float, float, float],
    fainter_by: float = 0.0,
) -> SkyObject:
    """One random object of a kind that enters the field at `begins` [MJD, TAI].

    footprint : centre ra, dec and full width of the field [deg];  fainter_by : shift of all light [mag].
    """
    p = kind.draw(rng)
    p["t0"] = begins + p.get("before", 0.0)
    ra0, dec0, width = footprint
    dec = dec0 + width * rng.uniform(-0.5, 0.5)
    ra = ra0 + width * rng.uniform(-0.5, 0.5) / math.cos(math.radians(dec0))
    level = _by_band(p["mag_r"] + fainter_by, p["gr"])
    host = dict.fromkeys(COLOUR_STEP, 0.0)
    if "host_mag_r" in p:
        host = _by_band(p["host_mag_r"] + fainter_by, p.get("host_gr", 0.6))
    life = p["before"] + p["after"] if "before" in p else FOREVER_DAYS
    return SkyObject(serial, kind, p, ra, dec, level, host, begins, begins + life, rng.standard_normal(24))


def _by_band(mag_r: float, gr: float) -> dict[str, float]:
    """Flux in every band of an r magnitude and a g - r colour [nJy]."""
    return {band: float(mag_to_njy(mag_r + gr * step)) for band, step in COLOUR_STEP.items()}
