"""The filters that come with the broker: recipes that hold for every survey.

None needs an upper limit or a field that only one survey has: such a column takes part where it is known
and does not keep an alert out where it is NULL.
"""

from __future__ import annotations

from broker.filter import Filter

_NOT_MOVING = "(solar_system.associated is not true)"
_REAL = "(reliability is null or reliability > 0.6)"
_NOT_A_STAR = "(star_score is null or star_score < 0.6)"

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
)
