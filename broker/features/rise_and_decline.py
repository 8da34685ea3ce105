"""How fast the object brightens before, and fades after, its brightest point."""

from __future__ import annotations

import numpy as np

from broker.astro.photometry import njy_err_to_mag_err, njy_to_mag
from broker.features.brightness import at, peak_index
from broker.features.measurements import F64, I64, OTHER_BANDS, Measurements, split_bands
from broker.measured import compiled

MIN_SPAN_DAYS = 0.01
"""Shorter series than this (14 minutes) say nothing about a rate in mag/day."""
MIN_TREND_DAYS = 1.0
NIGHT_DAYS = 0.5
COLOUR_SPREAD = 0.1
"""How far [mag] two bands of a young supernova may lie apart without it being a trend."""


def rise_and_decline(m: Measurements) -> dict[str, F64]:
    """The family's columns, each (n,). Rates are of magnitudes: positive brightening, positive fading."""
    peak = peak_index(m.band_flux, m.band_starts)
    begin, end = m.band_starts[:-1], m.band_starts[1:]
    last = np.where(end > begin, end - 1, -1)
    rise = line_slope(m.band_time, m.band_mag, m.band_mag_err, begin, peak + 1)
    fade = line_slope(m.band_time, m.band_mag, m.band_mag_err, np.where(peak < 0, begin, peak), end)
    whole = line_slope(m.band_time, m.band_mag, m.band_mag_err, begin, end)
    bright = at(m.band_flux, peak)
    slopes = split_bands("slope_{b}", whole[:, 0])
    remains = split_bands("last_to_peak_{b}", at(m.band_flux, last) / np.where(bright > 0.0, bright, np.nan))
    joint = joint_slope(m.band_time, m.band_mag, m.band_mag_err, m.band_starts)
    other_peak = peak_index(m.other_flux, m.other_starts)
    other_rise = line_slope(
        m.other_time, njy_to_mag(m.other_flux), njy_err_to_mag_err(m.other_flux, m.other_err),
        m.other_starts[:-1], other_peak + 1,
    )  # fmt: skip
    return {
        "slope_gr": joint[:, 0],
        "slope_gr_nights": joint[:, 1],
        "days_since_peak": 0.0 - at(m.time, peak_index(m.flux, m.starts)),
        **split_bands("days_since_peak_{b}", 0.0 - at(m.band_time, peak)),
        **split_bands("rise_rate_{b}", 0.0 - rise[:, 0]),
        **split_bands("rise_rate_{b}_err", rise[:, 1]),
        **split_bands("rise_rate_{b}", 0.0 - other_rise[:, 0], OTHER_BANDS),
        **split_bands("fade_rate_{b}", fade[:, 0]),
        **split_bands("fade_rate_{b}_err", fade[:, 1]),
        **slopes,
        **split_bands("slope_{b}_err", whole[:, 1]),
        **remains,
        "slope": mean_of_known(slopes["slope_g"], slopes["slope_r"]),
        "last_to_peak": np.fmax(remains["last_to_peak_g"], remains["last_to_peak_r"]),
    }


def mean_of_known(first: F64, second: F64) -> F64:
    """Mean of two values, or the one that is known.  Both (n,);  returns (n,)."""
    either = np.where(np.isnan(first), second, first)
    return 0.5 * (either + np.where(np.isnan(second), first, second))


@compiled
def joint_slope(time: F64, mag: F64, err: F64, starts: I64) -> F64:
    """Trend of g and r taken as one series: known when neither band has two nights of its own.

    time : (m,) [day], ordered within each row;  mag, err : (m,) [mag], points with a NaN or no error > 0 are
    left out;  starts : (2n+1,) n rows of g, then n rows of r. Returns (n, 2) [mag / day, > 0 fades]: slope of
    the weighted line, and the change of the mean from the first night to the last; NaN where the points span
    less than MIN_TREND_DAYS. Weights are 1 / (err^2 + COLOUR_SPREAD^2): the colour is not zero.
    """
    rows = (starts.shape[0] - 1) // 2
    slope = np.full((rows, 2), np.nan)
    for row in range(rows):
        low, high = np.inf, -np.inf
        for band in (row, rows + row):
            for i in range(starts[band], starts[band + 1]):
                if err[i] > 0.0 and not np.isnan(mag[i]):
                    low, high = min(low, time[i]), max(high, time[i])
        if not high - low >= MIN_TREND_DAYS:
            continue
        w_all, t_all, y_all = 0.0, 0.0, 0.0
        w_first, t_first, y_first = 0.0, 0.0, 0.0
        w_last, t_last, y_last = 0.0, 0.0, 0.0
        tt, ty = 0.0, 0.0
        for band in (row, rows + row):
            for i in range(starts[band], starts[band + 1]):
                if not err[i] > 0.0 or np.isnan(mag[i]):
                    continue
                w, t = 1.0 / (err[i] ** 2 + COLOUR_SPREAD**2), time[i] - high
                w_all, t_all, y_all = w_all + w, t_all + w * t, y_all + w * mag[i]
                tt, ty = tt + w * t * t, ty + w * t * mag[i]
                if time[i] < low + NIGHT_DAYS:
                    w_first, t_first, y_first = w_first + w, t_first + w * t, y_first + w * mag[i]
                elif time[i] > high - NIGHT_DAYS:
                    w_last, t_last, y_last = w_last + w, t_last + w * t, y_last + w * mag[i]
        slope[row, 0] = (ty - t_all * y_all / w_all) / (tt - t_all * t_all / w_all)
        slope[row, 1] = (y_last / w_last - y_first / w_first) / (t_last / w_last - t_first / w_first)
    return slope


@compiled
def line_slope(time: F64, value: F64, err: F64, begin: I64, end: I64) -> F64:
    """Slope of the straight line through each segment, weighted by inverse variance, and its formal error.

    time : (m,) [day];  value, err : (m,) [mag], points with a NaN or no error > 0 are left out;
    begin, end : (n,) segments [begin, end). Returns (n, 2): slope and error [mag / day]; NaN where fewer than
    2 points remain or they span less than MIN_SPAN_DAYS.
    b = sum w (t - <t>)(y - <y>) / sum w (t - <t>)^2, error 1 / sqrt(sum w (t - <t>)^2), w = 1 / err^2.
    """
    slope = np.full((begin.shape[0], 2), np.nan)
    for row in range(begin.shape[0]):
        weight, mean_t, mean_y, low, high = 0.0, 0.0, 0.0, np.inf, -np.inf
        for i in range(begin[row], end[row]):
            if err[i] > 0.0 and not np.isnan(value[i]):
                w = 1.0 / err[i] ** 2
                weight += w
                mean_t += w * time[i]
                mean_y += w * value[i]
                low, high = min(low, time[i]), max(high, time[i])
        if not high - low >= MIN_SPAN_DAYS:
            continue
        mean_t, mean_y = mean_t / weight, mean_y / weight
        stt, sty = 0.0, 0.0
        for i in range(begin[row], end[row]):
            if err[i] > 0.0 and not np.isnan(value[i]):
                w = 1.0 / err[i] ** 2
                stt += w * (time[i] - mean_t) ** 2
                sty += w * (time[i] - mean_t) * (value[i] - mean_y)
        slope[row, 0] = sty / stt
        slope[row, 1] = 1.0 / np.sqrt(stt)
    return slope
