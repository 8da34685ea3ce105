"""The stream's drift over HTTP: what `broker drift` says."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from broker.api.context import ContextParameter
from broker.drift.every import looks

router = APIRouter(prefix="/api/v1", tags=["models"])


@router.get("/drift")
def drift(context: ContextParameter, survey: str = "") -> list[dict[str, Any]]:
    """Each survey's newest night with 500 alerts against the 7 nights before and the training sample.

    For each column, the most drifted first: `psi`, `psi_training` and, for the nights before against the
    training sample, `psi_training_week` (population stability index: 0 alike), the shares of nulls, and
    under `advice` what to do. null where there is too little to say. The list is empty without such a night.
    """
    return [one.to_json() for one in looks(context.redis, context.state, context.settings, survey)]
