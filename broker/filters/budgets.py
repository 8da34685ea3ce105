"""What a filter may cost, and what happens to one that costs more: sampled or paused, and told.

A budget is hits an hour and time an alert. Everything here is a function of what was counted; who counts, and
who writes the filter's new state to `control`, is in budget_keeper.py.
"""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from statistics import median

import numpy as np
import numpy.typing as npt

from broker.config import FilterSettings
from broker.filter import Filter

I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

HOUR_S = 3600
SHORTEST_S = 60.0
"""A rate is taken over no less than this: a burst of a second is no rate an hour."""
COST_ALERTS = 5000
"""A filter's time is judged over at least so many alerts ..."""
COST_BATCHES = 5
"""... and batches, of which the median counts: one that met a busy machine proves nothing."""
SMALLEST_BATCH = 100
"""A smaller batch counts as one of this size, because what a call costs by itself harms nobody there."""
FAILING_S = 600.0
FAILING_BATCHES = 10
"""A filter is paused that could not judge a single batch for that long, of so many at least."""
EXEMPT = "broker"
"""The owner of the built-in filters, which have no budget unless one is given to them."""


@dataclass(frozen=True)
class Change:
    """A filter in its new state, and the notice of it.  kind : of the notice"""

    filter: Filter
    kind: str
    text: str


def hits_limit(item: Filter, settings: FilterSettings) -> int:
    """Hits an hour that a filter may have; 0 = any number."""
    return item.max_hits_per_hour or (0 if item.owner == EXEMPT else settings.max_hits_per_hour)


def time_limit_us(item: Filter, settings: FilterSettings) -> float:
    """Time that it may take [us an alert]; 0 = any."""
    return item.max_us_per_alert or (0.0 if item.owner == EXEMPT else settings.max_us_per_alert)


def over_hits(item: Filter, hits: int, limit: int, since_s: float, now_s: float) -> Change | None:
    """What becomes of a filter with so many hits in this hour; None if they are within its limit.

    since_s : when it took its present state [Unix s]. At first it is sampled, so that a whole hour of hits as
    frequent as these stays within the limit. If that does not hold either, it is paused, or its share becomes
    a tenth: as it was added.
    """
    if not limit or hits <= limit:
        return None
    start = hour_of(now_s) * HOUR_S
    counted = f"{hits:,} hits since {_clock(max(start, since_s))}, more than {limit:,} an hour"
    if item.on_excess == "pause" or (item.sample < 1 and item.on_excess == "sample-then-pause"):
        return paused(item, counted, now_s)
    rate = limit / (hits * HOUR_S / max(SHORTEST_S, now_s - max(start, since_s)))
    share = _rounded_down(min(rate, 1.0) if item.sample == 1 else item.sample / 10)
    end = _clock(start + HOUR_S)
    reason = f"{counted}: a share of {share:g} of its hits is published until {end}"
    changed = _changed(item, now_s, sample=share, sampled_hour=hour_of(now_s), reason=reason)
    advice = f"narrow it, or give it more: broker filters add {item.full_name} --from {item.label}"
    text = f"{item.label} is sampled: {reason}; each message says its share; {advice} --max-hits-per-hour N"
    return Change(changed, "filter_sampled", text)


def restored(item: Filter, now_s: float) -> Change | None:
    """A sampled filter at its full rate, once the hour is over in which it was sampled."""
    if item.sample == 1 or hour_of(now_s) <= item.sampled_hour:
        return None
    changed = _changed(item, now_s, sample=1.0, sampled_hour=0, reason="")
    text = f"{item.label} publishes every hit again: the hour is over in which a share of {item.sample:g} was"
    return Change(changed, "filter_restored", text)


def over_time(item: Filter, cost_us: float, limit_us: float, now_s: float) -> Change:
    """A filter paused that takes more time than it may."""
    why = f"it takes {cost_us:,.0f} us an alert, more than {limit_us:,.0f}"
    return paused(item, why, now_s, "--max-us-per-alert N")


def always_failing(item: Filter, why: str, now_s: float) -> Change:
    """A filter paused that could not be evaluated on any batch for FAILING_S."""
    reason = f"it could not be evaluated for {FAILING_S / 60:.0f} minutes, at last because of {why}"
    return paused(item, reason, now_s, "")


def paused(item: Filter, reason: str, now_s: float, option: str = "--max-hits-per-hour N") -> Change:
    """A filter paused, with what its owner can do."""
    changed = _changed(item, now_s, state="paused", sample=1.0, sampled_hour=0, reason=reason)
    more = f", or give it more: broker filters add {item.full_name} --from {item.label} {option}"
    text = f"{item.label} is paused: {reason}; resume it with broker filters enable {item.full_name}"
    return Change(changed, "filter_paused", text + (more if option else ""))


def _changed(item: Filter, now_s: float, **fields: object) -> Filter:
    at = datetime.fromtimestamp(now_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return replace(item, changed_at=at, changed_by=EXEMPT, **fields)  # type: ignore[arg-type]


def hour_of(now_s: float) -> int:
    """Hours since 1970: budgets begin anew at each full hour of UTC."""
    return int(now_s // HOUR_S)


def _rounded_down(share: float) -> float:
    """A share with three digits that is no greater.

    >>> _rounded_down(0.0166666)
    0.0166
    """
    unit = 10.0 ** (math.floor(math.log10(share)) - 2)
    return float(f"{math.floor(share / unit * (1 + 1e-9)) * unit:.3g}")


def _clock(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%H:%M UTC")


@dataclass
class CostWindow:
    """What a filter cost on the last batches."""

    _batches: deque[tuple[float, int]] = field(default_factory=deque)
    _alerts: int = 0

    def add(self, cost_us: float, alerts: int) -> float:
        """Count a batch; what it cost an alert [us]."""
        counted = max(alerts, SMALLEST_BATCH)
        self._batches.append((cost_us / counted, counted))
        self._alerts += counted
        while len(self._batches) > COST_BATCHES and self._alerts - self._batches[0][1] >= COST_ALERTS:
            self._alerts -= self._batches.popleft()[1]
        return cost_us / counted

    def typical(self) -> float:
        """Median cost an alert [us]; 0 while there is too little to tell."""
        if self._alerts < COST_ALERTS or len(self._batches) < COST_BATCHES:
            return 0.0
        return median(cost for cost, _ in self._batches)


def sampled(masks: Mask, filters: Sequence[Filter], dia_source_id: I64) -> Mask:
    """The hits that are published: of a sampled filter its share, the same whenever a batch is done again.

    masks : (filters, n);  dia_source_id : (n,);  returns masks itself where no filter is sampled
    """
    partial = [k for k, item in enumerate(filters) if item.sample < 1]
    if not partial:
        return masks
    kept = masks.copy()
    for number in partial:
        kept[number] &= drawn(dia_source_id, filters[number].full_name, filters[number].sample)
    return kept


def drawn(dia_source_id: I64, name: str, share: float) -> Mask:
    """Which alerts are in a filter's sample: those whose hash, as a number in 0..1, is below its share.

    dia_source_id : (n,).  A greater share keeps what a smaller one has. SplitMix64's finaliser (Steele et al.
    2014, OOPSLA) of the id and eight bytes of the name's BLAKE2b.

    >>> drawn(np.arange(1, 100_001), "jo.bright", 0.25).mean().round(2)
    np.float64(0.25)
    """
    seed = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
    word = dia_source_id.astype(np.uint64) ^ np.uint64(seed)
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(((word ^ (word >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53 < share)
