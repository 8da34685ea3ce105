"""Objects like one that somebody found interesting."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from broker.api.context import Context, ContextParameter, NotReady
from broker.similar import SimilarIndex, UnknownObject

MAX_LIMIT = 1000

router = APIRouter(prefix="/api/v1", tags=["objects"])


@router.get("/objects/{key}/similar")
def similar_objects(
    key: str, context: ContextParameter, limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 10
) -> dict[str, Any]:
    """The objects whose newest embedding is nearest to this one's, with distance and most probable class.

    key : history key, as `ztf:313311111111`, or the object's name. `complete` is false while the topics are
    still being read after a start: then an object can be missing.
    """
    found = _index(context).similar(key, limit)
    objects = context.objects
    return {**found.to_json(), "objects": len(objects.index), "complete": objects.complete}


def _index(context: Context) -> SimilarIndex:
    """The index, once there is something to ask.  Raises NotReady, UnknownObject."""
    objects = context.objects
    if not objects.wanted:
        raise UnknownObject("no object is kept: api.similar_objects is 0; set it and restart `broker serve`")
    if len(objects.index) == 0 and not objects.complete:
        why = objects.problem or "the alert topics are being read"
        raise NotReady(f"not ready: {why}; ask again in a moment")
    return objects.index
