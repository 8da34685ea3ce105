"""Counters and histograms of the pipeline (prometheus-client).

In a run of several workers each process writes its own files (PROMETHEUS_MULTIPROC_DIR, set by the parent
before this module is imported) and the parent serves their sum on one port.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

_STAGE_BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10)
_LATENCY_BUCKETS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120, 300, 1800, 7200, 86400)
_BATCH_BUCKETS = (1, 5, 20, 50, 100, 200, 500, 1000, 2000, 5000)

ALERTS = Counter("broker_alerts", "Alerts by survey and what became of them", ["survey", "outcome", "reason"])
FILTER_HITS = Counter("broker_filter_hits", "Alerts that passed a filter", ["filter"])
FILTER_FAILURES = Counter("broker_filter_failures", "Batches a filter could not judge", ["filter"])
SELECT_FAILURES = Counter(
    "broker_filter_select_failures", "Batches on which an expression that a filter selects failed", ["filter"]
)
BUDGET_MISSED = Counter(
    "broker_filter_budgets_missed", "Looks at the budgets of filters that failed: some hits are not counted"
)
BATCHES = Counter("broker_batches", "Transactions by how they ended", ["result"])
STAGE_SECONDS = Histogram(
    "broker_stage_seconds", "Time a batch spends in a stage", ["stage"], buckets=_STAGE_BUCKETS
)
BATCH_SIZE = Histogram("broker_batch_messages", "Messages in a batch", buckets=_BATCH_BUCKETS)
LATENCY = Histogram(
    "broker_latency_seconds",
    "From the input record's timestamp to the commit of its output",
    buckets=_LATENCY_BUCKETS,
)
OBSERVED_LATENCY = Histogram(
    "broker_observed_latency_seconds",
    "From mid-exposure to the commit of the output",
    buckets=_LATENCY_BUCKETS,
)
DECODED_BY = Counter(
    "broker_decoded_messages", "Messages read by the compiled decoder or by its fallback", ["how"]
)
PARTITION_PAUSED = Gauge(
    "broker_partition_paused",
    "1 while an input partition waits for a schema that the registry does not give",
    ["topic", "partition"],
    multiprocess_mode="livesum",
)
MODEL_INFO = Gauge(
    "broker_model_info",
    "Workers that score a group of surveys by a bundle",
    ["group", "id", "version"],
    multiprocess_mode="livesum",
)
MODEL_REFUSED = Gauge(
    "broker_model_refused",
    "Workers that cannot load a bundle that is live",
    ["id", "version"],
    multiprocess_mode="livesum",
)
CATALOG_INFO = Gauge(
    "broker_catalog_info",
    "Workers that match alerts with a revision of a catalogue",
    ["catalog", "revision"],
    multiprocess_mode="livesum",
)
CATALOG_REFUSED = Gauge(
    "broker_catalog_refused",
    "Workers that cannot read a catalogue that is live",
    ["catalog", "revision"],
    multiprocess_mode="livesum",
)
DRIFT_MISSED = Counter(
    "broker_drift_missed", "Batches and writes that are missing from the counts that drift is judged by"
)
_SHADOW_LABELS = ["group", "id", "version"]
SHADOW_ALERTS = Counter("broker_shadow_alerts", "Alerts scored by a shadow model too", _SHADOW_LABELS)
SHADOW_DIFFERS = Counter(
    "broker_shadow_differs", "Those of them whose most probable class is another", _SHADOW_LABELS
)
SHADOW_DISTANCE = Counter(
    "broker_shadow_distance", "Sum of their total variation distances between both models", _SHADOW_LABELS
)
SHADOW_ANOMALY = Counter(
    "broker_shadow_anomaly_difference", "Sum of their absolute differences of the anomaly", _SHADOW_LABELS
)
SHADOW_FAILURES = Counter("broker_shadow_failures", "Batches that a shadow could not score", _SHADOW_LABELS)
EXPIRED = Counter("broker_expired_records", "Input records that retention dropped before they were read")
LATE_POINTS = Counter("broker_late_points", "Points merged that are older than the newest their object had")
RETRACTIONS = Counter("broker_retractions", "Published alerts taken back because the survey withdrew them")
POINTS_DROPPED = Counter(
    "broker_points_dropped", "Light-curve points dropped by history.max_points, or later than their record"
)
ANNOTATIONS_READ = Counter(
    "broker_annotations",
    "Annotations and re-evaluations read: judged, waiting for the object's next alert, rejected, duplicate",
    ["outcome"],
)
CORRUPT_VALUES = Counter(
    "broker_corrupt_values",
    "Damaged values met in Redis: curve, annotations, place, note, claim, or a key of another type",
    ["what"],
)
UPDATES = Counter("broker_updates", "Packets about alerts that were judged again")
CLIENT_FAULTS = Counter(
    "broker_client_faults",
    "Times a Kafka client of a worker began to be kept from its work, by what Kafka's client calls it",
    ["client", "fault"],
)
