"""What a filter can call: one function on columns each, and one line each in FILTER_FUNCTIONS.

A function on numbers gets float64 arrays with NaN for NULL, (n,) or () for constants, and returns the
same; a result that is not finite is NULL. Angles are degrees: `2*arcsec` is 2/3600.

A function of named state, such as `personal_anomaly('alice')`, says with `state` what kind of state its first
argument names. What the name stands for at a control epoch is a Bound, which the function calls.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal, Protocol

import numpy as np

from broker.astro.bands import BANDS
from broker.astro.sky import galactic_latitude_deg, separation_deg
from broker.filters import light_curve
from broker.filters.values import F64, Strings, Value, compare, known, select
from broker.filters.values import Nothing as NothingValue
from broker.table import ColumnSpec

FOREST = "forest"
"""A kind of named state: the forests of an owner, one for each survey that the owner marked alerts of."""
WATCHLIST = "watchlist"
REGION = "region"
"""Kinds of named state: lists of positions, and parts of the sky."""

CATALOG = "catalogue"
"""A kind of named state: a catalogue of positions, whose columns a filter can ask for."""

MAX_NEAR_DEG = 1.0
"""The largest radius that near() takes."""

PLUGIN = "plugin"
"""A kind of named state: the plug-ins that are installed where alerts are judged."""

UNITS = {"degree": 1.0, "arcmin": 1.0 / 60.0, "arcsec": 1.0 / 3600.0}
"""Names for units of angle, in degrees."""


@dataclass(frozen=True)
class Parameter:
    """An argument of a function; outside lowest..highest it is refused if constant, else NULL.

    kind "name" is a string constant: it names durable state, of the kind that the function says.
    kind "choice" is a string constant, one of `choices`; the implementation gets it as str.
    optional : the call may end before it, and the implementation then gets one argument less.
    """

    name: str
    kind: Literal["number", "any", "name", "choice"] = "number"
    lowest: float = -np.inf
    highest: float = np.inf
    choices: tuple[str, ...] = ()
    optional: bool = False


class Bound(Protocol):
    """What a name stands for at one control epoch.

    Called with `memo`, which is empty when a batch begins and keeps what several names share, then with the
    columns it reads, then with the call's other arguments; returns (n,) float64, NaN for NULL. A column of
    strings comes as Strings, any other as float64 with NaN for NULL. One that cannot answer at all gives NaN
    everywhere, and may say why in an attribute `failure`.
    """

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns it needs."""

    def __call__(self, memo: dict[Any, Any], /, *columns: Any) -> F64:
        """The function's value on every row."""


class BoundMembers(Bound, Protocol):
    """A Bound of a function with members: `near('name', radius).column`."""

    def member(self, name: str, memo: dict[Any, Any], /, *columns: Any) -> Value:
        """A column of what was found on every row, NULL where nothing was; called as the Bound is."""

    def failures(self, memo: dict[Any, Any], /, *columns: Any) -> Strings:
        """Why the Bound, called so, has no answer on a row: codes of reasons, -1 where it has one.

        Nothing found is an answer; the value of a row without one is NULL, and no filter takes it for a no.
        """


Named = Mapping[str, Mapping[str, Bound]]
"""What there is to name at an epoch: by kind of state, by name."""

Members = Mapping[str, Mapping[str, Mapping[str, ColumnSpec]]]
"""The columns of all that has some at an epoch: by kind of state, by name, by column."""


@dataclass(frozen=True)
class FilterFunction:
    """A function users may call.

    implementation : gets the `reads` columns, then the arguments; arguments of kind "any" come as Value
    and must all be of one kind, which is then the kind of the result.
    result : "boolean" results are float64 1, 0 or NaN, as boolean columns are; "string" results are Strings.
    repeats : the last parameter may be given any number of times.
    skips_null : if False, one NULL argument makes the result NULL and the function need not care.
    state : of a function of named state: which kind of state its first parameter, of kind "name", names. Its
    implementation gets the Bound and the memo first, then the columns that the Bound reads. Where nothing
    has the name, the result is NULL.
    light_curve : its implementation gets the MeasuredPoints of the rows' light curves before anything else.
    members : of a function of named state whose Bounds are BoundMembers: a call may be followed by `.column`.
    """

    name: str
    parameters: tuple[Parameter, ...]
    doc: str
    example: str
    implementation: Callable[..., Any]
    result: Literal["number", "boolean", "string", "any"] = "number"
    reads: tuple[str, ...] = ()
    repeats: bool = False
    skips_null: bool = False
    state: str = ""
    light_curve: bool = False
    members: bool = False

    @property
    def signature(self) -> str:
        """How to call it, such as 'power(x, y)'."""
        names = ", ".join(it.name for it in self.parameters if not it.optional)
        optional = "".join(f"[, {it.name}]" for it in self.parameters if it.optional)
        return f"{self.name}({names}{optional}{', ...' if self.repeats else ''})"


def round_half_away(x: F64) -> F64:
    """The nearest whole number, halves away from zero as in SQL.

    >>> round_half_away(np.array([0.5, 1.5, -2.5, 0.49999999999999994])).tolist()
    [1.0, 2.0, -3.0, 0.0]
    """
    whole = np.trunc(x)
    return np.asarray(np.where(np.abs(x - whole) >= 0.5, whole + np.sign(x), whole))


def in_cone(ra: F64, dec: F64, ra0: F64, dec0: F64, radius: F64) -> F64:
    """1 where a position is within a radius of a place, edge included, else 0.

    ra, dec : (n,) [deg, ICRS];  ra0, dec0, radius : () or (n,) [deg];  NaN in, NaN out.
    """
    separation = separation_deg(ra, dec, ra0, dec0)
    return np.where(np.isnan(separation) | np.isnan(radius), np.nan, separation <= radius)


def color(color_gr: F64, first: str, second: str) -> F64:
    """Color first - second from g - r.

    color_gr : (n,) [mag];  first, second : 'g' or 'r';  NaN in, NaN out, also for a band with itself.
    """
    return color_gr * ((first == "g") - (second == "g"))


def coalesce(*values: Value) -> Value:
    """The first value that is not NULL."""
    return reduce(lambda first, second: select(known(first), first, second), values)


def nullif(value: Value, unwanted: Value) -> Value:
    """The value, NULL where it equals the unwanted one."""
    return select(compare("=", value, unwanted), NothingValue(), value)


def watchlist_entry(bound: Any, memo: dict[Any, Any], ra: F64, dec: F64, *radius: F64) -> Strings:
    """Name of the nearest entry of a watchlist that matches; see BoundWatchlist.entries."""
    return Strings(*bound.entries(memo, ra, dec, *radius))


_COLOR_BANDS = ("g", "r")
"""Bands that the features have a color of."""

_DAYS = Parameter("days", lowest=0)
_RADIUS = Parameter("radius", lowest=0, highest=1, optional=True)
_X, _Y, _ANY = Parameter("x"), Parameter("y"), Parameter("value", "any")

FILTER_FUNCTIONS: tuple[FilterFunction, ...] = (
    FilterFunction("abs", (_X,), "Size without sign.", "abs(gal_b) > 15", np.abs),
    FilterFunction(
        "log10", (_X,), "Logarithm to base 10; NULL unless x > 0.", "log10(psf_flux) > 4", np.log10
    ),
    FilterFunction("ln", (_X,), "Natural logarithm; NULL unless x > 0.", "ln(psf_flux) > 9", np.log),
    FilterFunction("exp", (_X,), "e to the power x; NULL on overflow.", "exp(- mag) > 0", np.exp),
    FilterFunction("sqrt", (_X,), "Square root; NULL below zero.", "sqrt(psf_flux_err) < 10", np.sqrt),
    FilterFunction(
        "power",
        (_X, _Y),
        "x to the power y; NULL where it is not a finite real number.",
        "power(10, 2) < psf_flux",
        np.power,
    ),
    FilterFunction("floor", (_X,), "Largest whole number not above x.", "floor(mag) = 18", np.floor),
    FilterFunction("ceil", (_X,), "Smallest whole number not below x.", "ceil(mag) = 19", np.ceil),
    FilterFunction(
        "round", (_X,), "Nearest whole number, halves away from zero.", "round(mag) = 19", round_half_away
    ),
    FilterFunction(
        "least",
        (_X,),
        "Smallest of the arguments, leaving NULLs out; NULL if all are NULL.",
        "least(mag, 19) < 18",
        lambda *columns: reduce(np.fmin, columns),
        repeats=True,
        skips_null=True,
    ),
    FilterFunction(
        "greatest",
        (_X,),
        "Largest of the arguments, leaving NULLs out; NULL if all are NULL.",
        "greatest(mag, 18) > 19",
        lambda *columns: reduce(np.fmax, columns),
        repeats=True,
        skips_null=True,
    ),
    FilterFunction(
        "coalesce",
        (_ANY,),
        "First argument that is not NULL.",
        "coalesce(reliability, 0) > 0.5",
        coalesce,
        result="any",
        repeats=True,
    ),
    FilterFunction(
        "nullif",
        (_ANY, Parameter("unwanted", "any")),
        "The value, NULL where it equals the unwanted one.",
        "nullif(reliability, 0) < 0.5",
        nullif,
        result="any",
    ),
    FilterFunction(
        "in_cone",
        (
            Parameter("ra0"),
            Parameter("dec0", lowest=-90, highest=90),
            Parameter("radius", lowest=0, highest=180),
        ),
        "Whether the alert is within a radius of a place (ICRS, degrees); give units as `2*arcsec`.",
        "in_cone(187.7, 12.39, 2*degree)",
        in_cone,
        result="boolean",
        reads=("ra", "dec"),
    ),
    FilterFunction(
        "color",
        (
            Parameter("first", "choice", choices=_COLOR_BANDS),
            Parameter("second", "choice", choices=_COLOR_BANDS),
        ),
        "Color of the difference flux, first - second in mag: the latest night with both bands, else the"
        " closest pair (`color_gr`); NULL where there is none. Bands g and r only.",
        "color('g', 'r') < 0.2",
        color,
        reads=("color_gr",),
    ),
    FilterFunction(
        "galactic_latitude",
        (),
        "Galactic latitude of the alert in degrees.",
        "abs(galactic_latitude()) > 15",
        galactic_latitude_deg,
        reads=("ra", "dec"),
    ),
    FilterFunction(
        "personal_anomaly",
        (Parameter("owner", "name"),),
        "How strange the alert is to a person who marked some with `broker feedback`: the share of recent"
        " alerts that are less strange, 0..1; NULL for a survey of which the person has marked nothing.",
        "personal_anomaly('alice') > 0.99",
        operator.call,
        skips_null=True,
        state=FOREST,
    ),
    FilterFunction(
        "last_days",
        (_DAYS,),
        "How many detections of the object the last days hold, this alert among them.",
        "last_days(30) >= 3",
        light_curve.last_days,
        light_curve=True,
    ),
    FilterFunction(
        "last_days_in",
        (Parameter("band", "choice", choices=BANDS), _DAYS),
        "The same in one band.",
        "last_days_in('g', 30) >= 2",
        light_curve.last_days_in,
        light_curve=True,
    ),
    FilterFunction(
        "nights_in_last_days",
        (_DAYS,),
        "On how many nights of the last days the object was detected.",
        "nights_in_last_days(10) >= 2",
        light_curve.nights_in_last_days,
        light_curve=True,
    ),
    FilterFunction(
        "forced_in_last_days",
        (_DAYS,),
        "How many forced measurements the last days hold, of exposures without a detection.",
        "forced_in_last_days(30) > 0",
        light_curve.forced_in_last_days,
        light_curve=True,
    ),
    FilterFunction(
        "near",
        (Parameter("catalogue", "name"), Parameter("radius", lowest=0, highest=MAX_NEAR_DEG)),
        "Whether the catalogue has a source within a radius of the alert, at most one degree;"
        " `near('gaia', 2*arcsec).mag` is a column of the nearest such source, NULL where there is none,"
        " and `.sep_arcsec` how far it is.",
        "near('gaia', 2*arcsec)",
        operator.call,
        result="boolean",
        state=CATALOG,
        members=True,
    ),
    FilterFunction(
        "plugin",
        (Parameter("name", "name"),),
        "Whether a rule in Python holds that the broker's operator has installed; `broker filters plugins`"
        " lists those of a machine.",
        "plugin('deep-rule') and mag < 19",
        operator.call,
        result="boolean",
        skips_null=True,
        state=PLUGIN,
    ),
    FilterFunction(
        "in_watchlist",
        (Parameter("name", "name"), _RADIUS),
        "Whether the alert is at an entry of a watchlist. An entry's own radius holds where it gives one;"
        " the radius given here is the most that counts, and the radius of entries that give none.",
        "in_watchlist('targets', 2*arcsec)",
        operator.call,
        result="boolean",
        state=WATCHLIST,
    ),
    FilterFunction(
        "watchlist_entry",
        (Parameter("name", "name"), _RADIUS),
        "Name of the nearest entry of a watchlist that the alert is at, by the rule of in_watchlist; NULL"
        " where it is at none, or the entry has no name.",
        "watchlist_entry('targets', 2*arcsec) = 'M31N 2008-12a'",
        watchlist_entry,
        result="string",
        state=WATCHLIST,
    ),
    FilterFunction(
        "in_region",
        (Parameter("name", "name"), Parameter("level", lowest=0, highest=1, optional=True)),
        "Whether the alert is inside a region: in all of a MOC, whatever the level, or in the credible region"
        " of a sky map that holds this much of the probability, 0.9 if none is given.",
        "in_region('gw', 0.5)",
        operator.call,
        result="boolean",
        state=REGION,
    ),
)

FUNCTION_BY_NAME = {function.name: function for function in FILTER_FUNCTIONS}
