"""Every feature in the order of the matrix, and the one function that computes them, live and in training."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from broker.features.brightness import brightness
from broker.features.cadence import cadence
from broker.features.colour import colour
from broker.features.gated import GATED_NAMES, compute, extract_gated
from broker.features.measurements import F64, FEATURE_BANDS, OTHER_BANDS, Measurements, Reference, measure
from broker.features.rise_and_decline import rise_and_decline
from broker.features.shape import shape
from broker.features.total_flux import total_flux
from broker.features.variability import variability
from broker.features.width import width
from broker.lightcurves import DETECTION, LightCurves, empty_points
from broker.table import ColumnSpec


@dataclass(frozen=True, slots=True)
class Feature:
    """What a feature is.

    unit : 'AB mag' for a brightness and 'mag' for a difference of two; 'nJy' for a flux; '' has none
    source : where its definition comes from
    """

    name: str
    unit: str
    doc: str
    source: str = "this project"


def _per_band(
    name: str, unit: str, doc: str, source: str = "this project", bands: tuple[str, ...] = FEATURE_BANDS
) -> list[Feature]:
    """The same feature in several bands, g and r if none are named; '{b}' is the band."""
    return [Feature(name.format(b=b), unit, doc.format(b=b), source) for b in bands]


_RICHARDS = "Richards et al. 2011, ApJ 733, 10"
_KIM = "Kim et al. 2014, A&A 566, A43"
_SIMON_LEE = "Simon & Lee 1981, ApJ 248, 291"
_BAZIN = "Bazin et al. 2009, A&A 499, 653"
_PHILLIPS = "after Phillips 1993, ApJL 413, 105"
_KELLY = "Kelly et al. 2009, ApJ 698, 895"

FEATURES: list[Feature] = [
    Feature("n_detections", "", "detections in all bands, one an exposure"),
    *_per_band("n_det_{b}", "", "detections in {b}, one an exposure"),
    Feature("n_nights", "", "nights with a detection; a gap of over 0.5 d starts a new one"),
    Feature("n_forced", "", "forced measurements in exposures without a detection"),
    Feature("age_days", "day", "time since the first detection"),
    Feature("frac_negative", "", "fraction of the detections that are fainter than the reference image"),
    Feature("last_limit_mag", "AB mag", "5-sigma depth of the last exposure before the first detection"),
    Feature("last_limit_age_days", "day", "time since that exposure: limit, or forced flux below 3 sigma"),
    Feature("forced_snr_before", "", "significance of the mean forced flux before the first detection"),
    *_per_band("peak_mag_{b}", "AB mag", "difference magnitude of the brightest detection in {b}"),
    *_per_band("last_mag_{b}", "AB mag", "difference magnitude of the last detection in {b}"),
    *_per_band("max_flux_{b}", "nJy", "largest difference flux of the detections in {b}"),
    *_per_band("min_flux_{b}", "nJy", "smallest difference flux of the detections in {b}"),
    *_per_band("mean_flux_{b}", "nJy", "inverse-variance mean of the difference flux in {b}"),
    *_per_band("max_snr_{b}", "", "significance of the most significant detection in {b}, either sign"),
    Feature("days_since_peak", "day", "time since the brightest detection, of any band"),
    *_per_band("days_since_peak_{b}", "day", "time since the brightest detection in {b}"),
    *_per_band(
        "rise_rate_{b}", "mag / day", "brightening up to the peak in {b}, weighted line; > 0 brightens"
    ),
    *_per_band("rise_rate_{b}_err", "mag / day", "formal error of rise_rate_{b}"),
    *_per_band("fade_rate_{b}", "mag / day", "fading since the peak in {b}, weighted line; > 0 fades"),
    *_per_band("fade_rate_{b}_err", "mag / day", "formal error of fade_rate_{b}"),
    *_per_band("slope_{b}", "mag / day", "weighted line through all magnitudes in {b}; > 0 fades"),
    *_per_band("slope_{b}_err", "mag / day", "formal error of slope_{b}"),
    *_per_band("last_to_peak_{b}", "", "last flux in {b} as a fraction of the largest"),
    Feature("amplitude", "mag", "the larger of amplitude_g and amplitude_r", _RICHARDS),
    *_per_band("amplitude_{b}", "mag", "half the range of the difference magnitudes in {b}", _RICHARDS),
    *_per_band(
        "skew_{b}", "", "asymmetry of the fluxes in {b}", "Joanes & Gill 1998, The Statistician 47, 183"
    ),
    *_per_band("beyond_1_std_{b}", "", "fraction of the points over one std from the mean in {b}", _RICHARDS),
    *_per_band("std_flux_{b}", "nJy", "sample standard deviation of the fluxes in {b}"),
    *_per_band("mad_flux_{b}", "nJy", "median distance of the fluxes in {b} from their median"),
    *_per_band("reduced_chi2_{b}", "", "scatter in {b} over the errors: 1 if constant"),
    *_per_band(
        "excess_variance_{b}",
        "",
        "variance in {b} beyond noise, over mean^2",
        "Nandra et al. 1997, ApJ 476, 70",
    ),
    *_per_band(
        "von_neumann_{b}", "", "point-to-point variance in {b} over variance", "von Neumann 1941, AMS 12, 367"
    ),
    *_per_band("stetson_k_{b}", "", "peakedness of the scatter in {b}", "Stetson 1996, PASP 108, 851"),
    Feature("color_gr", "mag", "g - r of the latest night with both bands, else of the closest pair"),
    Feature("color_gr_err", "mag", "error of color_gr from the photometric errors"),
    Feature("color_gr_gap_days", "day", "time between the two epochs of color_gr"),
    Feature("color_gr_first", "mag", "g - r of the first night with both bands, else of the closest pair"),
    Feature(
        "color_gr_rate", "mag / day", "change of g - r from the first to the latest night with both bands"
    ),
    *_per_band("n_det_{b}", "", "detections in {b}, one an exposure", bands=OTHER_BANDS),
    *_per_band(
        "peak_mag_{b}", "AB mag", "difference magnitude of the brightest detection in {b}", bands=OTHER_BANDS
    ),
    *_per_band(
        "rise_rate_{b}", "mag / day", "brightening up to the peak in {b}, > 0 brightens", bands=OTHER_BANDS
    ),
    *_per_band("median_flux_{b}", "nJy", "median difference flux of the detections in {b}"),
    *_per_band("range_50_flux_{b}", "nJy", "range of the middle half of the fluxes in {b}"),
    *_per_band("range_80_flux_{b}", "nJy", "range of the middle 80 % of the fluxes in {b}"),
    *_per_band(
        "percentile_ratio_mid20_{b}", "", "range of the middle 20 % of the fluxes in {b} over 90 %", _RICHARDS
    ),
    *_per_band(
        "kurtosis_{b}", "", "tails of the fluxes in {b}, 0 if Gaussian", "Joanes & Gill 1998, Stat. 47, 183"
    ),
    *_per_band(
        "anderson_darling_{b}", "", "how un-Gaussian the fluxes in {b} are", "Stephens 1974, JASA 69, 730"
    ),
    *_per_band("eta_e_{b}", "", "von Neumann's ratio of slopes in {b}, for uneven sampling", _KIM),
    *_per_band("cusum_{b}", "", "range of the cumulative sum of the fluxes in {b}", _KIM),
    Feature(
        "stetson_j", "", "variability that g and r share, pairs within 0.5 d", "Stetson 1996, PASP 108, 851"
    ),
    Feature("total_mean_mag", "AB mag", "mean of reference plus difference flux, in the alert's band"),
    Feature(
        "total_amplitude", "mag", "half the range of the total magnitudes, in the alert's band", _RICHARDS
    ),
    Feature("total_rel_std", "", "std over mean of the total flux, in the alert's band"),
    Feature(
        "total_excess_variance",
        "",
        "variance of the total flux beyond noise, over mean^2, in the alert's band",
        "Nandra et al. 1997, ApJ 476, 70",
    ),
    Feature(
        "period_days",
        "day",
        "best Lomb-Scargle period of the two best-sampled bands; near 1/n d never; not barycentric",
        "Zechmeister & Kürster 2009, A&A 496, 577",
    ),
    Feature("period_power", "", "share of the chi2 about the means that the period's sinusoids remove"),
    Feature(
        "period_log10_fap", "", "log10 of the chance that noise peaks so high", "Baluev 2008, MNRAS 385, 1279"
    ),
    Feature("fourier_amplitude", "nJy", "first harmonic's amplitude in the best-sampled band", _SIMON_LEE),
    Feature("fourier_r21", "", "second harmonic's amplitude over the first's", _SIMON_LEE),
    Feature("fourier_r31", "", "third harmonic's amplitude over the first's", _SIMON_LEE),
    Feature(
        "fourier_phi21", "rad", "phase of the second harmonic relative to the first, 0..2 pi", _SIMON_LEE
    ),
    Feature("fourier_phi31", "rad", "phase of the third harmonic relative to the first, 0..2 pi", _SIMON_LEE),
    Feature(
        "fit_days_since_peak", "day", "time since the peak of the fitted transient; < 0 if ahead", _BAZIN
    ),
    Feature("fit_rise_days", "day", "rise time scale of the fitted transient", _BAZIN),
    Feature("fit_fall_days", "day", "decline time scale of the fitted transient", _BAZIN),
    *_per_band("fit_peak_flux_{b}", "nJy", "peak flux of the fitted transient in {b}", _BAZIN),
    Feature("fit_chi2", "", "chi2 per degree of freedom of the fitted transient", _BAZIN),
    Feature("fit_gain", "", "share of the chi2 about the means that the fitted transient removes", _BAZIN),
    Feature("drw_tau_days", "day", "relaxation time of the most likely damped random walk", _KELLY),
    Feature("drw_sigma", "nJy", "amplitude of that random walk on long time scales", _KELLY),
    Feature("drw_gain", "", "log likelihood of that random walk over white noise's", _KELLY),
    Feature(
        "cycle_power", "", "share of the chi2 that three harmonics of the period remove, best-sampled band"
    ),
    Feature("cycle_double_gain", "", "share of what is left that harmonics of twice the period remove"),
    Feature(
        "cycle_half_ratio", "", "shallower over deeper minimum of the cycle at twice the period; 1 if alike"
    ),
    Feature("cycle_rise", "", "fraction of the fitted cycle from its minimum to its maximum"),
    Feature("cycle_level", "", "where the fitted cycle's mean lies: 0 at its minimum, 1 at its maximum"),
    Feature("cycle_width", "", "fraction of the fitted cycle above the middle of its minimum and maximum"),
    Feature("cycle_skew", "", "asymmetry of the fitted cycle's fluxes; < 0 for eclipses"),
    Feature(
        "cycle_eta", "", "von Neumann's ratio of the fluxes in order of phase; small if they repeat", _KIM
    ),
    Feature("cycle_double_eta", "", "the same in order of the phase of twice the period", _KIM),
    Feature(
        "cycle_residual_eta", "", "von Neumann's ratio about the fitted cycle; small if slow changes are left"
    ),
    Feature("series_eta", "", "von Neumann's ratio of the fluxes of the best-sampled band, in order of time"),
    Feature("total_std", "mag", "sample standard deviation of the total magnitudes, in the alert's band"),
    Feature("total_range_90", "mag", "range of the middle 90 % of the total magnitudes, in the alert's band"),
    Feature(
        "total_level_90", "", "where the median lies in that range: 0 at the bright end, 1 at the faint end"
    ),
    Feature("total_level_96", "", "where the median lies in the middle 96 % of the total magnitudes"),
    Feature("total_skew", "", "asymmetry of the total magnitudes, > 0 if it has faint outliers"),
    Feature("rise_50_days", "day", "from half the peak flux to the peak, in the better sampled of g and r"),
    Feature("rise_75_days", "day", "from 75 % of the peak flux to the peak, in that band"),
    Feature("fall_75_days", "day", "from the peak to 75 % of its flux, in that band"),
    Feature("fall_50_days", "day", "from the peak to half its flux, in that band"),
    Feature("fall_25_days", "day", "from the peak to a quarter of its flux, in that band"),
    Feature("fade_15d", "mag", "fading in the 15 d after the peak, in that band", _PHILLIPS),
    Feature("fade_30d", "mag", "fading in the 30 d after the peak, in that band", _PHILLIPS),
    Feature("width_days", "day", "integral of the flux over its peak, in that band"),
    Feature("slope", "mag / day", "mean of slope_g and slope_r, or the one that is known"),
    Feature("last_to_peak", "", "the larger of last_to_peak_g and last_to_peak_r"),
    Feature("reduced_chi2", "", "the larger of reduced_chi2_g and reduced_chi2_r"),
    Feature("slope_gr", "mag / day", "weighted line through g and r as if g - r were 0; > 0 fades"),
    Feature("slope_gr_nights", "mag / day", "change from the first night to the last, of g and r so"),
    Feature("fit_days_since_peak_err", "day", "standard error of fit_days_since_peak", _BAZIN),
    Feature("fit_rise_days_err", "day", "standard error of fit_rise_days", _BAZIN),
    Feature("fit_fall_days_err", "day", "standard error of fit_fall_days", _BAZIN),
    *_per_band("fit_peak_flux_{b}_err", "nJy", "standard error of fit_peak_flux_{b}", _BAZIN),
]
"""The columns of the matrix. Append only: models name a prefix of this list."""

FEATURE_SPECS: list[ColumnSpec] = [
    ColumnSpec(feature.name, feature.unit, feature.doc) for feature in FEATURES
]

FAMILIES: list[Callable[[Measurements], dict[str, F64]]] = [
    cadence,
    brightness,
    rise_and_decline,
    shape,
    variability,
    colour,
    total_flux,
    width,
]
"""What is computed for every alert; the features of gated.GATED_NAMES come from there."""


def extract(
    curves: LightCurves, ref_mjd: F64, reference: Reference | None = None, gated: F64 | None = None
) -> F64:
    """Features of light curves as they stood at a moment: the same function serves the stream and training.

    curves : n rows, merged and time-ordered;  ref_mjd : (n,) the alert's own midpoint [MJD, TAI]; later
    points are not used;  reference : flux of the reference image, unknown without it;  gated : (n, g) the
    expensive features from `extract_gated`, all computed here without it.
    Returns (n, len(FEATURES)) in the units of FEATURES; NaN where too little is known.
    """
    with np.errstate(all="ignore"):
        m = measure(curves, ref_mjd, reference)
        columns = {name: values for family in FAMILIES for name, values in family(m).items()}
    expensive = compute(curves, ref_mjd) if gated is None else gated
    columns |= dict(zip(GATED_NAMES, expensive.T, strict=True))
    matrix = np.empty((len(curves), len(FEATURES)))
    for index, feature in enumerate(FEATURES):
        matrix[:, index] = columns[feature.name]
    return matrix


def feature_set_hash(features: Iterable[Feature] = tuple(FEATURES)) -> str:
    """Sixteen hexadecimal digits that name a list of features: they change with any name, unit or order."""
    text = "\n".join(f"{feature.name}\t{feature.unit}" for feature in features)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def warm_up() -> None:
    """Compile every kernel, or load it from disk, before the first alert has to wait for it."""
    points = empty_points(24)
    points["midpoint_mjd_tai"] = -np.arange(24.0)[::-1]
    points["psf_flux"], points["psf_flux_err"], points["kind"] = np.arange(24.0) % 5.0, 1.0, DETECTION
    points["band"] = np.arange(24) % 2 + 1
    curves = LightCurves(points, np.array([0, 24], dtype=np.int64))
    extract(curves, np.zeros(1), gated=extract_gated(curves, np.zeros(1)).values)
