"""Catalogues over HTTP, for reading: what `broker catalogs list` says."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from broker import catalog_store
from broker.api.context import ContextParameter

router = APIRouter(prefix="/api/v1", tags=["filters"])


@router.get("/catalogs")
def list_catalogs(context: ContextParameter, removed: bool = False) -> list[dict[str, Any]]:
    """The newest revision of each catalogue, and the columns that `near('name', radius).column` may name."""
    return [catalog_store.as_json(item) for item in catalog_store.listed(context.state, removed=removed)]
