"""An annotation: what somebody says of an object, as a record of the `annotations` topic has it.

The record's key is the object's history key, its value one JSON object. Anybody may write there; the API and
`broker annotate` write the same. A value without an `id` has one made of its content, so that a record that
was sent twice counts once.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from broker.astro.bands import BANDS
from broker.errors import AnnotationError
from broker.lightcurves import FORCED, Points, empty_points
from broker.text import is_text, whole_number

Kind = Literal["class", "note", "redshift", "spectrum-type", "forced", "reevaluate"]
KINDS: tuple[Kind, ...] = get_args(Kind)
KEPT_KINDS: tuple[Kind, ...] = ("class", "note", "redshift", "spectrum-type")
"""Of these the newest of each object is kept, and every later alert of the object has it."""
MAX_VALUE_BYTES = 1024 * 1024
MAX_POINTS = 5000
MAX_NOTE = 500
BROKER = "broker"
"""Who asks for re-evaluations."""
_MAX_WORD = 64
MAX_CAUSE = 200
_FIRST_MJD, _LAST_MJD = 15_000.0, 90_000.0
_LARGEST_NJY = 1e30
_WORD = re.compile(r"[^\x00-\x1f\x7f]{1,64}")
_PLAIN_KEY = re.compile(r"(ss|src):-?[0-9]{1,19}")
_NUMBER = re.compile(r"[0-9]{1,19}")
_TEXTS = ("survey", "object", "kind", "by")


@dataclass(frozen=True, slots=True)
class ForcedPoint:
    """A forced flux: mid-exposure [MJD, TAI], band, difference flux and its error [nJy]."""

    midpoint_mjd_tai: float
    band: str
    psf_flux: float
    psf_flux_err: float


@dataclass(frozen=True)
class Annotation:
    """What somebody says of an object.

    id : of the annotation, and so of the cause of what follows;  by : who says it;  at : ISO 8601 time, or ''
    object : as astronomers write it, or the diaObjectId, or a history key such as `ss:123`
    class_name : a class, or the type of a spectrum;  probability : of the class, 0 to 1
    redshift_kind : such as spectroscopic or photometric;  text : a note, or the cause of a re-evaluation
    scores_only : whether an update goes only to the filters that read a score, and to the alert topic only if
                one of them passes it: a new model concerns nobody else
    """

    id: str
    survey: str
    object: str
    kind: Kind
    by: str
    at: str = ""
    class_name: str = ""
    probability: float | None = None
    redshift: float | None = None
    redshift_kind: str = ""
    text: str = ""
    points: tuple[ForcedPoint, ...] = field(default=(), repr=False)
    scores_only: bool = False

    @property
    def key(self) -> bytes:
        """The object's history key."""
        return history_key(self.survey, self.object)

    @property
    def cause(self) -> str:
        """How a message that follows from it says so."""
        if self.kind == "reevaluate":
            return self.text
        return f"annotation {self.id}: {self.said} by {self.by}"

    @property
    def said(self) -> str:
        """What it says, in a few words."""
        match self.kind:
            case "class" | "spectrum-type":
                return f"{self.kind.replace('-', ' ')} {self.class_name}"
            case "redshift":
                return f"redshift {self.redshift:g}"
            case "forced":
                return f"{len(self.points)} forced points"
            case _:
                return self.kind

    def to_json(self) -> dict[str, Any]:
        """As a JSON object, what is not said left out."""
        said: dict[str, Any] = {
            "id": self.id,
            "object": self.object,
            "survey": self.survey,
            "kind": self.kind,
            "class": self.class_name,
            "probability": self.probability,
            "redshift": self.redshift,
            "redshift_kind": self.redshift_kind,
            "text": self.text,
            "points": [_point_json(point) for point in self.points],
            "by": self.by,
            "at": self.at,
            "scores_only": self.scores_only,
        }
        return {name: value for name, value in said.items() if value not in ("", None, [], False)}

    def encode(self) -> bytes:
        """As the value of a record."""
        return json.dumps(self.to_json(), separators=(",", ":")).encode()

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits of what it says, whenever and under whichever id it is said."""
        content = {name: value for name, value in self.to_json().items() if name not in ("id", "at")}
        return _digest(content)

    def forced_points(self, known_at: int) -> Points:
        """Its points as a light curve has them.  known_at : [Unix s] when the record was written.

        A point is told by its time, band and author: the same one given again is no second one.
        """
        points = empty_points(len(self.points))
        for number, item in enumerate(self.points):
            name = f"{self.by}/{item.midpoint_mjd_tai!r}/{item.band}"
            source = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") >> 1
            points[number] = (
                item.midpoint_mjd_tai, source, item.psf_flux, item.psf_flux_err, known_at,
                BANDS.index(item.band), FORCED, 0,
            )  # fmt: skip
        return points


def read(value: bytes) -> Annotation:
    """The annotation of a record's value.  Raises AnnotationError, whatever the bytes are."""
    if len(value) > MAX_VALUE_BYTES:
        raise AnnotationError(f"an annotation of {len(value):,} bytes; at most {MAX_VALUE_BYTES:,} are read")
    try:
        content = json.loads(value, parse_int=whole_number)
    except (ValueError, RecursionError) as error:
        raise AnnotationError(f"an annotation is a JSON object: {error}") from None
    if not isinstance(content, dict):
        raise AnnotationError("an annotation is a JSON object")
    return from_json(content)


def from_json(content: Mapping[str, Any]) -> Annotation:
    """The annotation that a JSON object is, every field checked.  Raises AnnotationError."""
    for name in _TEXTS:
        _word(name, content.get(name))
    kind = content["kind"]
    if kind not in KINDS:
        raise AnnotationError(f"unknown kind {kind!r}; choose one of {', '.join(KINDS)}")
    identifier = content.get("id") or _digest(content)
    made = Annotation(
        _word("id", identifier),
        content["survey"],
        content["object"],
        kind,
        content["by"],
        _text("at", content.get("at"), _MAX_WORD),
        _text("class", content.get("class"), _MAX_WORD),
        _number("probability", content.get("probability"), 0.0, 1.0),
        _number("redshift", content.get("redshift"), -0.1, 20.0),
        _text("redshift_kind", content.get("redshift_kind"), _MAX_WORD),
        _text("text", content.get("text"), MAX_NOTE if kind != "reevaluate" else MAX_CAUSE),
        _points(content.get("points")),
        content.get("scores_only") is True,
    )
    _check_complete(made)
    history_key(made.survey, made.object)
    return made


def history_key(survey: str, name: str) -> bytes:
    """The history key of an object, by any name it has.

    name : as astronomers write it, its diaObjectId in decimal digits, or a history key
    Raises AnnotationError where no object of the survey can have that name.

    >>> history_key("ztf", "ZTF21abiuvdk"), history_key("lsst", "12"), history_key("lsst", "ss:7")
    (b'ztf:168683916685', b'lsst:12', b'ss:7')
    """
    name = name.removeprefix(f"{survey}:")
    if _PLAIN_KEY.fullmatch(name):
        return name.encode()
    number = int(name) if _NUMBER.fullmatch(name) else _named(survey, name)
    if not 0 < number < 2**63:
        raise AnnotationError(f"{name!r} is no object of {survey}; give its name, or its diaObjectId")
    return b"%s:%d" % (survey.encode(), number)


def _named(survey: str, name: str) -> int:
    from broker.surveys.base import name_ids  # noqa: PLC0415 (a client that only writes must start quickly)
    from broker.surveys.ztf import object_id_to_int  # noqa: PLC0415

    if survey == "lsst" or not name.isascii() or ":" in name:
        return 0
    return int(object_id_to_int([name])[0] if survey == "ztf" else name_ids([name])[0])


def _digest(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, separators=(",", ":"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _check_complete(made: Annotation) -> None:
    """Whether it says what its kind says.  Raises AnnotationError."""
    missing = {
        "class": not made.class_name and "class",
        "spectrum-type": not made.class_name and "class",
        "redshift": made.redshift is None and "redshift",
        "note": not made.text and "text",
        "reevaluate": not made.text and "text",
        "forced": not made.points and "points",
    }[made.kind]
    if missing:
        raise AnnotationError(f"an annotation of kind {made.kind!r} needs {missing!r}")


def _word(name: str, value: Any) -> str:
    if not isinstance(value, str) or _WORD.fullmatch(value) is None:
        raise AnnotationError(f"{name!r} must be a text of 1 to {_MAX_WORD} printable characters")
    return _spoken(name, value)


def _text(name: str, value: Any, longest: int) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > longest:
        raise AnnotationError(f"{name!r} must be a text of at most {longest} characters")
    return _spoken(name, value)


def _spoken(name: str, value: str) -> str:
    if not is_text(value):
        raise AnnotationError(f"{name!r} holds half a surrogate pair, which is no character: {value!a}")
    return value


def _number(name: str, value: Any, low: float, high: float) -> float | None:
    if value is None:
        return None
    good = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not good or not low <= value <= high:
        raise AnnotationError(f"{name!r} must be a number from {low:g} to {high:g}")
    return float(value)


def _points(value: Any) -> tuple[ForcedPoint, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > MAX_POINTS:
        raise AnnotationError(f"'points' must be a list of at most {MAX_POINTS:,} forced points")
    return tuple(_point(number, item) for number, item in enumerate(value))


def _point(number: int, item: Any) -> ForcedPoint:
    where = f"points[{number}]"
    if not isinstance(item, dict):
        raise AnnotationError(f"{where} must be an object with midpointMjdTai, band, psfFlux and psfFluxErr")
    band = item.get("band")
    if band not in BANDS:
        raise AnnotationError(f"{where}: 'band' must be one of {' '.join(BANDS)}")
    values = [
        _number(f"{where}.midpointMjdTai", item.get("midpointMjdTai"), _FIRST_MJD, _LAST_MJD),
        _number(f"{where}.psfFlux", item.get("psfFlux"), -_LARGEST_NJY, _LARGEST_NJY),
        _number(f"{where}.psfFluxErr", item.get("psfFluxErr"), 0.0, _LARGEST_NJY),
    ]
    if any(value is None for value in values) or not values[2]:
        raise AnnotationError(f"{where} needs midpointMjdTai, psfFlux, and a psfFluxErr above 0")
    midpoint, flux, error = (float(value or 0.0) for value in values)
    return ForcedPoint(midpoint, band, flux, error)


def _point_json(point: ForcedPoint) -> dict[str, Any]:
    return {
        "midpointMjdTai": point.midpoint_mjd_tai,
        "band": point.band,
        "psfFlux": point.psf_flux,
        "psfFluxErr": point.psf_flux_err,
    }
