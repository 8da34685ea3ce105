"""Annotations over HTTP: the same checks and the same answers as `broker annotate`."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from broker.annotations.record import MAX_NOTE
from broker.annotations.send import known_of, tell
from broker.api.context import ContextParameter

router = APIRouter(prefix="/api/v1/objects", tags=["annotations"])


class Point(BaseModel):
    """A forced flux at the object's place."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    midpoint_mjd_tai: float = Field(alias="midpointMjdTai", description="mid-exposure [MJD, TAI]")
    band: str = Field(description="u g r i z y J H c o")
    psf_flux: float = Field(alias="psfFlux", description="difference flux, signed [nJy]")
    psf_flux_err: float = Field(alias="psfFluxErr", description="one sigma [nJy]")


class NewAnnotation(BaseModel):
    """What somebody says of an object; `kind` tells which of the other fields are needed."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    kind: Literal["class", "note", "redshift", "spectrum-type", "forced"]
    by: str = Field(description="who says so")
    id: str | None = Field(None, description="its name: it counts once; made of the content if absent")
    class_name: str | None = Field(None, alias="class", description="a class, or the type of a spectrum")
    probability: float | None = Field(None, description="of the class, 0 to 1")
    redshift: float | None = None
    redshift_kind: str | None = Field(None, description="such as spectroscopic or photometric")
    text: str | None = Field(None, max_length=MAX_NOTE, description="a note")
    points: list[Point] | None = Field(None, description="forced photometry, at most 5,000 points")
    at: str | None = Field(None, description="ISO 8601 time; now if absent")


@router.post("/{survey}/{object}/annotations", status_code=201)
def annotate(survey: str, object: str, new: NewAnnotation, context: ContextParameter) -> dict[str, Any]:
    """Say something of an object; answers when it is in Kafka, and the workers judge the object again.

    object : its name, or its diaObjectId.  `written` is false if this was the newest of its kind already.
    """
    content = new.model_dump(by_alias=True, exclude_none=True)
    return tell(context.settings, {**content, "survey": survey, "object": object}).to_json()


@router.get("/{survey}/{object}/annotations")
def list_annotations(survey: str, object: str, context: ContextParameter) -> list[dict[str, Any]]:
    """The newest annotation of each kind, as the workers know them.  t : [Unix ms] when Kafka had it."""
    found = known_of(context.settings, survey, object).newest.values()
    return [{name: value for name, value in item.items() if name != "digest"} for item in found]
