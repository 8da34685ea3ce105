"""Each built-in filter on a row that passes, on rows that just miss one clause, and on NULLs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest

from broker.context.positions import read_csv
from broker.context.regions import BoundRegion, map_region
from broker.context.watchlists import BoundWatchlist
from broker.filters import compile_filter, evaluate, tree
from broker.filters.builtin import BUILTIN_FILTERS
from broker.filters.compile import bind
from tests.unit.filters.rows import SPECS, table_of

Row = Mapping[str, float]
WHERE = {item.name: item.where for item in BUILTIN_FILTERS}


@dataclass(frozen=True)
class Recipe:
    """What one filter does.

    passes : a row that passes, with every column of the filter known
    misses : changes of that row, each of which alone keeps it out by a hair
    needed : columns that must be known; of several in one tuple, one
    """

    passes: Row
    misses: tuple[Row, ...]
    needed: tuple[tuple[str, ...], ...]


GENUINE = {"reliability": 0.61, "solar_system.associated": 0.0}
NOT_GENUINE: tuple[Row, ...] = ({"reliability": 0.6}, {"solar_system.associated": 1.0})
BRIGHTER = {"is_negative": 0.0, "frac_negative": 0.09}
NOT_BRIGHTER: tuple[Row, ...] = ({"is_negative": 1.0}, {"frac_negative": 0.1})
SIGN = (("is_negative",), ("frac_negative",))
GALAXY = {"star_score": 0.1, "star_sep_arcsec": 0.5, "bright_star_sep_arcsec": 21.0}
STAR = {"star_score": 0.51, "star_sep_arcsec": 1.4}
NOT_A_STAR: tuple[Row, ...] = ({"star_score": 0.5}, {"star_sep_arcsec": 1.5})
RISES = {"rise_rate_g": 0.4, "rise_rate_g_err": 0.1, "rise_rate_r": 0.4, "rise_rate_r_err": 0.1}
FADES = {"fade_rate_g": 0.4, "fade_rate_g_err": 0.1, "fade_rate_r": 0.4, "fade_rate_r_err": 0.1}


def slow(rate: str, limit: float) -> tuple[Row, ...]:
    """No rate beyond the limit in either band; and fast ones without three sigma."""
    low = {f"{rate}_g": limit, f"{rate}_r": limit, f"{rate}_g_err": 0.001, f"{rate}_r_err": 0.001}
    noisy = {f"{rate}_g": 3.0, f"{rate}_r": 3.0, f"{rate}_g_err": 1.0, f"{rate}_r_err": 1.0}
    return low, noisy


RECIPES = {
    "probable-supernovae": Recipe(
        {
            "prob_SNIa": 0.2, "prob_SNII": 0.2, "prob_SNIIn": 0.2, "prob_SNIbc": 0.2, "prob_SLSN": 0.2,
            "n_nights": 2.0, "is_negative": 0.0, "star_score": 0.59, **GENUINE,
        },
        (
            {"prob_SNIa": 0.0, "prob_SNII": 0.0, "prob_SNIIn": 0.19}, {"n_nights": 1.0}, {"is_negative": 1.0},
            {"star_score": 0.6}, *NOT_GENUINE,
        ),
        (
            ("prob_SNIa", "prob_SNII", "prob_SNIIn", "prob_SNIbc", "prob_SLSN"), ("n_nights",),
            ("is_negative",),
        ),
    ),
    "anomalies": Recipe(
        {"anomaly": 0.61, "n_detections": 4.0, **GENUINE},
        ({"anomaly": 0.6}, {"n_detections": 3.0}, *NOT_GENUINE),
        (("anomaly",), ("n_detections",)),
    ),
    "fast-risers": Recipe(
        {**RISES, "age_days": 0.5, "is_negative": 0.0, **GENUINE},
        (
            *slow("rise_rate", 0.25), {"age_days": 0.49}, {"age_days": 10.1}, {"is_negative": 1.0},
            *NOT_GENUINE,
        ),
        (
            ("rise_rate_g", "rise_rate_r"), ("rise_rate_g_err", "rise_rate_r_err"), ("age_days",),
            ("is_negative",),
        ),
    ),
    "solar-system-objects": Recipe(
        {"solar_system.associated": 1.0},
        ({"solar_system.associated": 0.0},),
        (("solar_system.associated",),),
    ),
    "bright-new-transients": Recipe(
        {
            "mag": 18.4, "age_days": 9.9, "n_detections": 2.0, "last_limit_age_days": 19.9,
            "star_score": 0.59,
            **BRIGHTER, **GENUINE,
        },
        (
            {"mag": 18.5}, {"age_days": 10.0}, {"n_detections": 1.0}, {"last_limit_age_days": 20.0},
            {"star_score": 0.6}, *NOT_BRIGHTER, *NOT_GENUINE,
        ),
        (("mag",), ("age_days",), ("n_detections",), *SIGN),
    ),
    "likely-bogus": Recipe(
        {
            "reliability": 0.29, "prob_Bogus": 0.51, "is_dipole": 1.0, "psf_flux": -29.0,
            "psf_flux_err": 10.0,
            "solar_system.associated": 0.0,
        },
        (
            {"reliability": 0.3, "prob_Bogus": 0.5, "is_dipole": 0.0, "psf_flux": -30.0},
            {"solar_system.associated": 1.0},
        ),
        (("reliability", "prob_Bogus", "is_dipole", "psf_flux"),),
    ),
    "bright-supernovae": Recipe(
        {
            "mag": 18.9, "n_detections": 2.0, "age_days": 0.03, "gal_b": -7.1, "prob_family_transient": 0.31,
            **BRIGHTER, **GALAXY, **GENUINE,
        },
        (
            {"mag": 19.0}, {"n_detections": 1.0}, {"age_days": 0.02}, {"gal_b": -7.0},
            {"prob_family_transient": 0.3}, {"star_score": 0.6}, {"bright_star_sep_arcsec": 20.0},
            *NOT_BRIGHTER, *NOT_GENUINE,
        ),
        (("mag",), ("n_detections",), ("age_days",), ("gal_b",), *SIGN),
    ),
    "infant-supernovae": Recipe(
        {
            "age_days": 2.9, "last_limit_age_days": 5.8, "n_nights": 2.0, **RISES, **BRIGHTER,
            "star_score": 0.49, "bright_star_sep_arcsec": 21.0, **GENUINE,
        },
        (
            {"age_days": 3.0}, {"last_limit_age_days": 6.0}, {"n_nights": 3.0}, *slow("rise_rate", 0.1),
            {"star_score": 0.5}, {"bright_star_sep_arcsec": 20.0}, *NOT_BRIGHTER, *NOT_GENUINE,
        ),
        (
            ("age_days",), ("n_nights",), ("rise_rate_g", "rise_rate_r"),
            ("rise_rate_g_err", "rise_rate_r_err"), *SIGN,
        ),
    ),
    "nuclear-tdes": Recipe(
        {
            "n_nights": 4.0, "age_days": 20.1, "gal_b": 7.1, "nucleus_offset_arcsec": 0.59,
            "reference_flux": 31.0, "psf_flux_err": 10.0, "psf_flux": 6.3,
            "von_neumann_g": 0.49, "von_neumann_r": 0.49, "color_gr": 0.19, "color_gr_err": 0.19,
            "color_gr_gap_days": 0.9, "color_gr_rate": -0.019, "rise_rate_g": 0.19, "rise_rate_r": 0.19,
            "fade_rate_g": 0.19, "fade_rate_r": 0.19, "prob_counterpart_qso": 0.89, "star_score": 0.59,
            **BRIGHTER, **GENUINE,
        },
        (
            {"n_nights": 3.0}, {"age_days": 20.0}, {"gal_b": 7.0}, {"nucleus_offset_arcsec": 0.6},
            {"reference_flux": 30.0}, {"psf_flux": 6.2},
            {"von_neumann_g": 0.5, "von_neumann_r": 0.5}, {"color_gr": 0.2}, {"color_gr_err": 0.2},
            {"color_gr_gap_days": 1.0},
            {"color_gr_rate": -0.02}, {"rise_rate_g": 0.2}, {"fade_rate_r": 0.2},
            {"prob_counterpart_qso": 0.9}, {"star_score": 0.6}, *NOT_BRIGHTER, *NOT_GENUINE,
        ),
        (
            ("n_nights",), ("age_days",), ("gal_b",), ("reference_flux",), ("psf_flux_err",), ("psf_flux",),
            ("von_neumann_g", "von_neumann_r"), ("color_gr",),
            ("color_gr_err",), ("color_gr_gap_days",), *SIGN,
        ),
    ),
    "long-risers": Recipe(
        {
            "n_nights": 5.0, "n_detections": 8.0, "gal_b": 7.1, "prob_SLSN": 0.51, "age_days": 54.95,
            "days_since_peak": 29.9, "rise_rate_g": 0.09, "rise_rate_r": 0.09, "rise_rate_g_err": 0.02,
            "rise_rate_r_err": 0.02, "von_neumann_g": 0.49, "von_neumann_r": 0.49,
            "prob_family_periodic": 0.49,
            "host_sep_arcsec": 5.1, "host_mag": 20.1, "psf_flux": 21.0,
            "reference_flux": 10.0, "star_score": 0.1, "star_sep_arcsec": 0.5, **BRIGHTER, **GENUINE,
        },
        (
            {"n_nights": 4.0}, {"n_detections": 7.0}, {"gal_b": 7.0},
            {"prob_SLSN": 0.5, "age_days": 54.9}, {"prob_SLSN": 0.5, "days_since_peak": 30.0,
            "age_days": 60.0},
            *({"prob_SLSN": 0.5, **row} for row in slow("rise_rate", 0.005)),
            {"prob_SLSN": 0.5, "rise_rate_g": 0.1}, {"von_neumann_g": 0.5, "von_neumann_r": 0.5},
            {"prob_family_periodic": 0.5},
            {"host_sep_arcsec": 5.0, "host_mag": 20.0}, {"psf_flux": 20.0}, {"star_score": 0.6},
            *NOT_BRIGHTER, *NOT_GENUINE,
        ),
        (
            ("n_nights",), ("n_detections",), ("gal_b",), ("psf_flux",), ("prob_SLSN", "age_days"),
            ("prob_SLSN", "days_since_peak"), ("prob_SLSN", "rise_rate_g", "rise_rate_r"),
            ("von_neumann_g", "von_neumann_r"), *SIGN,
        ),
    ),
    "fast-faders": Recipe(
        {**FADES, "age_days": 14.0, "days_since_peak": 9.9, "gal_b": -10.1, **BRIGHTER, **GALAXY, **GENUINE},
        (
            *slow("fade_rate", 0.3), {"age_days": 0.49}, {"age_days": 14.1}, {"days_since_peak": 10.0},
            {"gal_b": -10.0}, {"star_score": 0.6}, {"bright_star_sep_arcsec": 20.0}, *NOT_BRIGHTER,
            *NOT_GENUINE,
        ),
        (
            ("fade_rate_g", "fade_rate_r"), ("fade_rate_g_err", "fade_rate_r_err"), ("age_days",),
            ("days_since_peak",), ("gal_b",), *SIGN,
        ),
    ),
    "cv-outbursts": Recipe(
        {
            **STAR, **RISES, **FADES, "is_negative": 0.0, "n_nights": 2.0, "color_gr": 0.59, "psf_flux": 51.0,
            "reference_flux": 10.0, **GENUINE,
        },
        (
            *({**rise, **fade} for rise in slow("rise_rate", 0.3) for fade in slow("fade_rate", 0.1)),
            *NOT_A_STAR, {"star_score": np.nan}, {"is_negative": 1.0}, {"n_nights": 1.0}, {"color_gr": 0.6},
            {"psf_flux": 50.0}, *NOT_GENUINE,
        ),
        (
            ("rise_rate_g", "rise_rate_r", "fade_rate_g", "fade_rate_r"), ("star_score",),
            ("star_sep_arcsec",),
            ("is_negative",), ("n_nights",), ("psf_flux",),
        ),
    ),
    "agn-flares": Recipe(
        {
            "prob_AGN": 0.51, "prob_counterpart_qso": 0.81, "n_nights": 3.0, "reference_flux": 100.0,
            "psf_flux": 61.0, "nucleus_offset_arcsec": 0.9, **BRIGHTER, **GENUINE,
        },
        (
            {"prob_AGN": 0.5, "prob_counterpart_qso": 0.8}, {"n_nights": 2.0}, {"psf_flux": 60.0},
            {"reference_flux": 0.0}, {"nucleus_offset_arcsec": 1.0}, *NOT_BRIGHTER, *NOT_GENUINE,
        ),
        (("prob_AGN", "prob_counterpart_qso"), ("n_nights",), ("reference_flux",), ("psf_flux",), *SIGN),
    ),
    "yso-outbursts": Recipe(
        {
            "psf_flux": 151.0, "reference_flux": 100.0, "n_nights": 3.0, "frac_negative": 0.09,
            "gal_b": -24.9,
            "color_gr": 0.31, "counterpart_mag_r": 18.0, "counterpart_mag_i": 17.5, "prob_EB": 0.49,
            "prob_LPV": 0.49, **STAR, **GENUINE,
        },
        (
            {"psf_flux": 150.0}, {"reference_flux": 0.0}, {"n_nights": 2.0}, {"frac_negative": 0.1},
            {"gal_b": -25.0}, {"color_gr": 0.3}, {"counterpart_mag_i": 17.61}, {"counterpart_mag_i": 16.49},
            {"prob_EB": 0.5}, {"prob_LPV": 0.5}, *NOT_A_STAR, *NOT_GENUINE,
        ),
        (
            ("psf_flux",), ("reference_flux",), ("n_nights",), ("frac_negative",), ("gal_b",),
            ("star_sep_arcsec",),
        ),
    ),
    "yso-dips": Recipe(
        {
            "psf_flux": -61.0, "reference_flux": 100.0, "n_nights": 2.0, "frac_negative": 0.81, "gal_b": 24.9,
            "counterpart_mag_r": 18.0, "counterpart_mag_i": 17.5, "prob_EB": 0.49, "prob_LPV": 0.49, **STAR,
            **GENUINE,
        },
        (
            {"psf_flux": -60.0}, {"reference_flux": 0.0}, {"n_nights": 1.0}, {"frac_negative": 0.8},
            {"gal_b": 25.0}, {"counterpart_mag_i": 17.61}, {"counterpart_mag_i": 16.49}, {"prob_EB": 0.5},
            {"prob_LPV": 0.5}, *NOT_A_STAR, *NOT_GENUINE,
        ),
        (
            ("psf_flux",), ("reference_flux",), ("n_nights",), ("frac_negative",), ("gal_b",),
            ("star_sep_arcsec",),
        ),
    ),
    "microlensing-like": Recipe(
        {
            "frac_negative": 0.0, "n_nights": 5.0, "n_detections": 8.0, "reference_flux": 1.0,
            "reduced_chi2_g": 5.1, "reduced_chi2_r": 5.1, "von_neumann_g": 0.49, "von_neumann_r": 0.49,
            "rise_rate_g": 0.49, "rise_rate_r": 0.49, "fade_rate_g": 0.49, "fade_rate_r": 0.49,
            "skew_g": 0.51, "skew_r": 0.51, "gal_b": 40.0,
            "prob_counterpart_qso": 0.49, "color_gr": 1.3, "color_gr_rate": 0.019, "prob_AGN": 0.49,
            "prob_EB": 0.49, "prob_LPV": 0.49,
            **STAR, **GENUINE,
        },
        (
            {"frac_negative": 0.01}, {"n_nights": 4.0}, {"n_detections": 7.0}, {"reference_flux": 0.0},
            {"reduced_chi2_g": 5.0, "reduced_chi2_r": 5.0}, {"von_neumann_g": 0.5, "von_neumann_r": 0.5},
            {"rise_rate_r": 0.5}, {"fade_rate_g": 0.5}, {"color_gr": -0.01}, {"color_gr": 1.31},
            {"skew_g": 0.5, "skew_r": 0.5}, {"color_gr_rate": 0.02},
            {"prob_AGN": 0.5}, {"prob_counterpart_qso": 0.5},
            {"star_score": np.nan, "gal_b": 15.0}, {"prob_EB": 0.5}, {"prob_LPV": 0.5}, *NOT_A_STAR,
            *NOT_GENUINE,
        ),
        (
            ("frac_negative",), ("n_nights",), ("n_detections",), ("reference_flux",),
            ("reduced_chi2_g", "reduced_chi2_r"), ("von_neumann_g", "von_neumann_r"), ("skew_g", "skew_r"),
            ("star_score",), ("star_sep_arcsec",),
        ),
    ),
    "unknown-movers": Recipe(
        {
            "trail_length_arcsec": 0.0, "n_detections": 1.0, "ecl_lat": -19.9, "reference_flux": 29.0,
            "psf_flux_err": 10.0, "star_sep_arcsec": 3.1, "neargaia_arcsec": 3.1, "is_negative": 0.0,
            "is_dipole": 0.0, "bright_star_sep_arcsec": 21.0, "solar_system.associated": 0.0,
            "reliability": 0.81,
        },
        (
            {"n_detections": 2.0, "trail_length_arcsec": 3.0}, {"ecl_lat": -20.0}, {"reference_flux": 30.0},
            {"star_sep_arcsec": 3.0}, {"neargaia_arcsec": 3.0}, {"reliability": 0.8}, {"is_negative": 1.0},
            {"is_dipole": 1.0}, {"solar_system.sep_arcsec": 29.0}, {"bright_star_sep_arcsec": 20.0},
            {"solar_system.associated": 1.0}, {"trail_length_arcsec": 3.1, "reliability": 0.6},
        ),
        (("n_detections",), ("ecl_lat",), ("psf_flux_err",), ("reliability",), ("is_negative",)),
    ),
    "dipoles": Recipe({"is_dipole": 1.0}, ({"is_dipole": 0.0},), (("is_dipole",),)),
    "gw-region": Recipe(
        {"ra": 45.0, "dec": 80.0, "age_days": 4.9, **BRIGHTER, **GALAXY, **GENUINE},
        (
            {"dec": -80.0}, {"ra": 135.0}, {"age_days": 0.009}, {"age_days": 5.1}, *NOT_BRIGHTER,
            {"star_score": 0.6}, {"bright_star_sep_arcsec": 20.0}, *NOT_GENUINE,
        ),
        (("ra",), ("dec",), ("age_days",), *SIGN),
    ),
    "watchlist": Recipe(
        {"ra": 10.0, "dec": 1.9 / 3600}, ({"dec": 2.1 / 3600}, {"ra": 20.0, "dec": 1.1 / 3600}),
        (("ra",), ("dec",)),
    ),
}  # fmt: skip


NAMED = {
    "region": {"gw": BoundRegion(map_region(np.array([0, 1]), np.array([0, 0]), np.array([0.89, 0.11])))},
    "watchlist": {
        "targets": BoundWatchlist.of(read_csv("ra,dec,radius_arcsec\n10,0,\n20,0,1").positions, 9.0)
    },
}
"""What the built-in filters name: a map of two base cells, and positions with and without a radius."""


def passing(where: str, rows: list[Row]) -> list[bool]:
    """Which of some rows pass a condition."""
    evaluation = evaluate([bind(compile_filter(where, SPECS), NAMED)], table_of(rows))
    assert evaluation.failures == {}
    return [bool(passed) for passed in evaluation.masks[0]]


@cache
def clauses(where: str) -> tuple[str, ...]:
    """The conditions that a filter joins by AND."""
    expression = compile_filter(where, SPECS).expression
    return tuple(part.text for part in expression.operands) if isinstance(expression, tree.And) else (where,)


def test_every_filter_has_its_recipe_here() -> None:
    assert RECIPES.keys() == WHERE.keys()


@pytest.mark.parametrize("name", RECIPES)
def test_what_just_misses_a_clause_is_kept_out(name: str) -> None:
    recipe = RECIPES[name]
    assert passing(WHERE[name], [recipe.passes]) == [True]
    rows = [{**recipe.passes, **change} for change in recipe.misses]
    kept = passing(WHERE[name], rows)
    assert not any(kept), [change for change, passed in zip(recipe.misses, kept, strict=True) if passed]


@pytest.mark.parametrize("name", RECIPES)
def test_every_clause_alone_keeps_something_out(name: str) -> None:
    recipe = RECIPES[name]
    rows = [{**recipe.passes, **change} for change in recipe.misses]
    failed = ~np.array([passing(clause, rows) for clause in clauses(WHERE[name])])
    alone = failed[:, failed.sum(axis=0) == 1].any(axis=1)
    assert alone.all(), [c for c, seen in zip(clauses(WHERE[name]), alone, strict=True) if not seen]


@pytest.mark.parametrize("name", RECIPES)
def test_null_keeps_out_where_the_column_is_needed_and_nowhere_else(name: str) -> None:
    recipe = RECIPES[name]
    unknown = [{**recipe.passes, **dict.fromkeys(columns, np.nan)} for columns in recipe.needed]
    kept = passing(WHERE[name], unknown)
    assert not any(kept), [c for c, passed in zip(recipe.needed, kept, strict=True) if passed]
    single = {columns[0] for columns in recipe.needed if len(columns) == 1}
    others = sorted(compile_filter(WHERE[name], SPECS).columns - single)
    passed = passing(WHERE[name], [{**recipe.passes, column: np.nan} for column in others])
    assert all(passed), [column for column, ok in zip(others, passed, strict=True) if not ok]


@pytest.mark.parametrize("name", RECIPES)
def test_the_passing_row_knows_every_column_that_the_filter_names(name: str) -> None:
    missing = compile_filter(WHERE[name], SPECS).columns - RECIPES[name].passes.keys()
    assert missing <= {"solar_system.sep_arcsec"}, missing  # which must not be known


def test_the_other_ways_to_pass() -> None:
    uncatalogued = {
        "star_score": np.nan,
        "star_sep_arcsec": np.nan,
        "rise_rate_g": 3.1,
        "rise_rate_g_err": 1.0,
    }
    trailed = {"trail_length_arcsec": 3.1, "n_detections": 5.0, "reliability": np.nan, "star_sep_arcsec": 0.1}
    at_no_star = {"star_score": 0.99, "star_sep_arcsec": 2.1}
    for name, change in (
        ("cv-outbursts", uncatalogued),
        ("microlensing-like", {"star_score": np.nan, "gal_b": -14.9}),
        ("cv-outbursts", {"rise_rate_g": np.nan, "rise_rate_r": np.nan}),
        ("cv-outbursts", {"fade_rate_g": np.nan, "fade_rate_r": np.nan}),
        ("unknown-movers", trailed),
        ("bright-supernovae", at_no_star),
        ("long-risers", {"prob_SLSN": np.nan}),
        ("long-risers", dict.fromkeys(RISES, np.nan)),
        ("long-risers", {"host_sep_arcsec": 0.1}),
    ):
        assert passing(WHERE[name], [{**RECIPES[name].passes, **change}]) == [True], (name, change)
