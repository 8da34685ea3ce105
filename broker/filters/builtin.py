"""The filters that come with the broker: recipes that hold for every survey.

None needs an upper limit: a limit takes part where it is known and does not keep an alert out where it is
NULL. The same holds for what only some surveys' packets carry, but where a recipe is about just that, such as
a fitted trail. docs/filters.md says for each where its numbers come from, and what NULL does.
"""

from __future__ import annotations

from broker.filter import Filter

_NOT_MOVING = "(solar_system.associated is not true)"
_REAL = "(reliability is null or reliability > 0.6)"
_NOT_A_STAR = "(star_score is null or star_score < 0.6)"
_NOT_ON_A_STAR = "(star_score is null or star_score < 0.6 or star_sep_arcsec > 2)"
_ON_A_STAR = "(star_score is null or star_score > 0.5 and star_sep_arcsec < 1.5)"
_NO_GLARE = "(bright_star_sep_arcsec is null or bright_star_sep_arcsec > 20)"
_BRIGHTER = "not is_negative and frac_negative < 0.1"
_GENUINE = f"{_REAL} and {_NOT_MOVING}"
_YOUNG_STAR_COLOUR = "coalesce(counterpart_mag_r - counterpart_mag_i, 1) between 0.4 and 1.5"
_SMOOTH = "least(von_neumann_g, von_neumann_r) < 0.5"
_NOT_PERIODIC = "coalesce(prob_EB, 0) < 0.5 and coalesce(prob_LPV, 0) < 0.5"


def _in_g_or_r(name: str, above: float) -> str:
    """A rate beyond a number of mag / day and beyond three of its errors, in g or in r."""
    bands = (f"{name}_{b} > {above} and {name}_{b} > 3 * {name}_{b}_err" for b in "gr")
    return f"({' or '.join(bands)})"


BUILTIN_FILTERS: tuple[Filter, ...] = (
    Filter(
        owner="broker",
        name="probable-supernovae",
        version=1,
        where=(
            "coalesce(prob_SNIa, 0) + coalesce(prob_SNII, 0) + coalesce(prob_SNIIn, 0)"
            " + coalesce(prob_SNIbc, 0) + coalesce(prob_SLSN, 0) > 0.6"
            f" and n_nights >= 2 and not is_negative and {_REAL} and {_NOT_A_STAR} and {_NOT_MOVING}"
        ),
        description=(
            "Supernova classes together above 0.6, seen on two nights or more, brighter than the reference."
            " NULL: a class that the model does not know counts 0; unknown reliability, star_score or"
            " solar-system association does not exclude; an unknown sign of the flux does."
        ),
    ),
    Filter(
        owner="broker",
        name="anomalies",
        version=1,
        where=f"anomaly > 0.6 and n_detections >= 4 and {_REAL} and {_NOT_MOVING}",
        description=(
            "Light curves unlike most others, from the fourth detection on (before, all are alike)."
            " NULL: no anomaly score, no pass; unknown reliability or solar-system association does not"
            " exclude."
        ),
    ),
    Filter(
        owner="broker",
        name="fast-risers",
        version=1,
        where=(
            "(rise_rate_g > 0.25 and rise_rate_g > 3 * rise_rate_g_err"
            " or rise_rate_r > 0.25 and rise_rate_r > 3 * rise_rate_r_err)"
            f" and age_days between 0.5 and 10 and not is_negative and {_REAL} and {_NOT_MOVING}"
        ),
        description=(
            "Brightens by more than 0.25 mag a day in g or r, at three sigma, within ten days of the first"
            " detection; half a day of history keeps moving objects out. NULL: a band without a rise rate"
            " (fewer than two detections) leaves it to the other; both NULL, no pass; unknown reliability or"
            " solar-system association does not exclude."
        ),
    ),
    Filter(
        owner="broker",
        name="solar-system-objects",
        version=1,
        where="solar_system.associated",
        description=(
            "The survey found a known solar-system object at the place. NULL (the packet does not say):"
            " no pass."
        ),
    ),
    Filter(
        owner="broker",
        name="bright-new-transients",
        version=1,
        where=(
            "mag < 18.5 and age_days < 10 and n_detections >= 2 and not is_negative and frac_negative < 0.1"
            " and (last_limit_age_days is null or last_limit_age_days < 20)"
            f" and {_REAL} and {_NOT_A_STAR} and {_NOT_MOVING}"
        ),
        description=(
            "Brighter than 18.5 in its first ten days, detected at least twice, not at a catalogued star."
            " NULL: no magnitude (negative or absent flux), no pass; a survey without upper limits, unknown"
            " reliability, star_score or solar-system association does not exclude."
        ),
    ),
    Filter(
        owner="broker",
        name="likely-bogus",
        version=1,
        where=(
            "(reliability < 0.3 or prob_Bogus > 0.5 or is_dipole or abs(psf_flux) < 3 * psf_flux_err)"
            f" and {_NOT_MOVING}"
        ),
        description=(
            "For operators: low reliability, classified as bogus, fitted as a dipole or below three sigma."
            " NULL: whatever is unknown is no reason; unknown solar-system association does not exclude."
        ),
    ),
    Filter(
        owner="broker",
        name="bright-supernovae",
        version=1,
        where=(
            f"mag < 19 and n_detections >= 2 and age_days > 0.02 and {_BRIGHTER} and abs(gal_b) > 7"
            " and (prob_family_transient is null or prob_family_transient > 0.3)"
            f" and {_NOT_ON_A_STAR} and {_NO_GLARE} and {_GENUINE}"
        ),
        description=(
            "Like the Bright Transient Survey's: brighter than 19, seen twice half an hour apart, over 7"
            " degrees from the galactic plane, at no star. NULL: no magnitude or age, no pass; other"
            " context that is unknown does not exclude."
        ),
    ),
    Filter(
        owner="broker",
        name="infant-supernovae",
        version=1,
        where=(
            "age_days < 3 and (last_limit_age_days is null or last_limit_age_days - age_days < 3)"
            f" and n_nights <= 2 and {_in_g_or_r('rise_rate', 0.1)} and {_BRIGHTER}"
            f" and (star_score is null or star_score < 0.5) and {_NO_GLARE} and {_GENUINE}"
        ),
        description=(
            "First seen less than three days ago, not there three days before, brightening by more than"
            " 0.1 mag a day at three sigma, at no star. NULL: both rise rates, no pass; other context that"
            " is unknown does not exclude."
        ),
    ),
    Filter(
        owner="broker",
        name="nuclear-tdes",
        version=1,
        where=(
            f"{_BRIGHTER} and n_nights >= 4 and age_days > 20 and abs(gal_b) > 7"
            " and (nucleus_offset_arcsec is null or nucleus_offset_arcsec < 0.6)"
            " and reference_flux > 3 * psf_flux_err and psf_flux > 0.2 * reference_flux"
            " and color_gr < 0.2 and color_gr_err < 0.2 and color_gr_gap_days < 1"
            " and (color_gr_rate is null or abs(color_gr_rate) < 0.02)"
            f" and {_SMOOTH} and greatest(0, rise_rate_g, rise_rate_r, fade_rate_g, fade_rate_r) < 0.2"
            " and (prob_counterpart_qso is null or prob_counterpart_qso < 0.9)"
            f" and {_NOT_A_STAR} and {_GENUINE}"
        ),
        description=(
            "A slow, smooth, blue flare in the middle of a galaxy that keeps its colour: g - r below 0.2,"
            " changing by less than 0.02 mag a day. NULL: no colour, no source in the reference or no"
            " statistics of the light curve, no pass; other context that is unknown does not exclude."
        ),
    ),
    Filter(
        owner="broker",
        name="long-risers",
        version=1,
        where=(
            f"{_BRIGHTER} and n_nights >= 5 and n_detections >= 8 and abs(gal_b) > 7"
            " and (prob_SLSN > 0.5 or age_days - days_since_peak > 25 and days_since_peak < 30"
            f" and {_in_g_or_r('rise_rate', 0.005)} and greatest(rise_rate_g, rise_rate_r) < 0.1)"
            f" and {_SMOOTH} and coalesce(prob_family_periodic, 0) < 0.5"
            " and (host_sep_arcsec is null or host_sep_arcsec > 5 or host_mag > 20)"
            " and (reference_flux is null or psf_flux > 2 * reference_flux)"
            f" and {_NOT_ON_A_STAR} and {_GENUINE}"
        ),
        description=(
            "Superluminous or hostless: probably an SLSN, or rises slowly for over 25 days; smooth, and"
            " outshines what was there. NULL: both the rise rates and prob_SLSN, or no statistics of the"
            " light curve, no pass; no galaxy or no source in the reference is what it looks for; other"
            " context that is unknown does not exclude."
        ),
    ),
    Filter(
        owner="broker",
        name="fast-faders",
        version=1,
        where=(
            f"{_in_g_or_r('fade_rate', 0.3)} and age_days between 0.5 and 14 and days_since_peak < 10"
            f" and {_BRIGHTER} and abs(gal_b) > 10 and {_NOT_ON_A_STAR} and {_NO_GLARE} and {_GENUINE}"
        ),
        description=(
            "Kilonovae, afterglows, fast blue transients: fades by more than 0.3 mag a day in g or r, at"
            " three sigma, within 14 days of the first detection. NULL: both fade rates, no pass; other"
            " context that is unknown does not exclude."
        ),
    ),
    Filter(
        owner="broker",
        name="cv-outbursts",
        version=1,
        where=(
            f"(star_score > 0.5 and star_sep_arcsec < 1.5 and ({_in_g_or_r('rise_rate', 0.3)}"
            f" or {_in_g_or_r('fade_rate', 0.1)}) or star_score is null and {_in_g_or_r('rise_rate', 1)})"
            " and not is_negative and n_nights >= 2 and (color_gr is null or color_gr < 0.6)"
            f" and (reference_flux is null or psf_flux > 5 * reference_flux) and {_GENUINE}"
        ),
        description=(
            "A blue star brightens by two magnitudes or more, rising by over 0.3 or fading by over 0.1 mag"
            " a day; where nothing is catalogued, rising by over 1 mag a day. NULL: all rates, no pass;"
            " other context that is unknown does not exclude."
        ),
    ),
    Filter(
        owner="broker",
        name="agn-flares",
        version=1,
        where=(
            f"(prob_AGN > 0.5 or prob_counterpart_qso > 0.8) and {_BRIGHTER} and n_nights >= 3"
            " and reference_flux > 0 and psf_flux > 0.6 * reference_flux"
            " and (nucleus_offset_arcsec is null or nucleus_offset_arcsec < 1)"
            f" and {_GENUINE}"
        ),
        description=(
            "An active nucleus or blazar half a magnitude or more above its reference, on three nights or"
            " more. NULL: no source in the reference, or neither probability, no pass; other context that"
            " is unknown does not exclude."
        ),
    ),
    Filter(
        owner="broker",
        name="yso-outbursts",
        version=1,
        where=(
            "psf_flux > 1.5 * reference_flux and reference_flux > 0 and n_nights >= 3 and frac_negative < 0.1"
            f" and abs(gal_b) < 25 and (color_gr is null or color_gr > 0.3) and {_YOUNG_STAR_COLOUR}"
            f" and {_NOT_PERIODIC} and {_ON_A_STAR} and {_GENUINE}"
        ),
        description=(
            "A red star near the galactic plane, a magnitude or more above its reference on three nights."
            " NULL: no source in the reference, no pass; other context that is unknown does not exclude."
        ),
    ),
    Filter(
        owner="broker",
        name="yso-dips",
        version=1,
        where=(
            "psf_flux < -0.6 * reference_flux and reference_flux > 0 and n_nights >= 2"
            f" and frac_negative > 0.8 and abs(gal_b) < 25 and {_YOUNG_STAR_COLOUR} and {_NOT_PERIODIC}"
            f" and {_ON_A_STAR} and {_GENUINE}"
        ),
        description=(
            "A red star near the galactic plane, a magnitude or more below its reference, on two nights."
            " NULL: no source in the reference, no pass; other context that is unknown does not exclude."
        ),
    ),
    Filter(
        owner="broker",
        name="microlensing-like",
        version=1,
        where=(
            "frac_negative = 0 and n_nights >= 5 and n_detections >= 8 and reference_flux > 0"
            f" and greatest(reduced_chi2_g, reduced_chi2_r) > 5 and {_SMOOTH}"
            " and greatest(skew_g, skew_r) > 0.5"
            " and greatest(0, rise_rate_g, rise_rate_r, fade_rate_g, fade_rate_r) < 0.5"
            " and coalesce(color_gr, 1) between 0 and 1.3"
            " and (color_gr_rate is null or abs(color_gr_rate) < 0.02)"
            " and coalesce(prob_AGN, 0) < 0.5 and coalesce(prob_counterpart_qso, 0) < 0.5"
            f" and {_NOT_PERIODIC} and {_GENUINE}"
            " and (star_score > 0.5 and star_sep_arcsec < 1.5 or star_score is null and abs(gal_b) < 15)"
        ),
        description=(
            "A star brightens in one smooth bump, and the added light keeps its colour; where no star is"
            " catalogued only within 15 degrees of the galactic plane. NULL: no source in the reference or"
            " no statistics of the light curve, no pass; other context that is unknown does not exclude."
        ),
    ),
    Filter(
        owner="broker",
        name="unknown-movers",
        version=1,
        where=(
            "(trail_length_arcsec > 3 or n_detections = 1 and abs(ecl_lat) < 20"
            " and (reference_flux is null or reference_flux < 3 * psf_flux_err)"
            " and (star_sep_arcsec is null or star_sep_arcsec > 3)"
            " and (neargaia_arcsec is null or neargaia_arcsec > 3) and reliability > 0.8)"
            " and not is_negative and (is_dipole is not true) and solar_system.sep_arcsec is null"
            f" and {_NO_GLARE} and {_GENUINE}"
        ),
        description=(
            "Trailed, or seen once near the ecliptic where nothing is catalogued; no known solar-system"
            " object is near. NULL: neither a trail nor the reliability, no pass; other context that is"
            " unknown does not exclude."
        ),
    ),
    Filter(
        owner="broker",
        name="dipoles",
        version=1,
        where="is_dipole",
        description=(
            "For operators: the survey fitted a dipole, a mark of misaligned images. NULL (the packet does"
            " not say, as ZTF's): no pass."
        ),
    ),
    Filter(
        owner="broker",
        name="gw-region",
        version=1,
        where=(
            f"in_region('gw', 0.9) and age_days between 0.01 and 5 and {_BRIGHTER}"
            f" and {_NOT_ON_A_STAR} and {_NO_GLARE} and {_GENUINE}"
        ),
        description=(
            "Inside the 90 % region of the sky map that is stored as 'gw' (or in the MOC of that name), first"
            " seen less than five days ago and again a quarter of an hour later, at no star. NULL: no such"
            " region, or one that cannot be read, no pass; other context that is unknown does not exclude."
        ),
    ),
    Filter(
        owner="broker",
        name="watchlist",
        version=1,
        where="in_watchlist('targets', 2*arcsec)",
        description=(
            "Within two arcseconds of a position of the watchlist that is stored as 'targets', or within the"
            " position's own radius where that is smaller. NULL: no such list, or one that cannot be read,"
            " no pass."
        ),
    ),
)
